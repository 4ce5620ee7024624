//! A request to a local pod whose policy looks at HTTP: check, authorize, forward to the application.
//!
//! Each request is authorized on the latest policy, in the form in which it is forwarded; a request that is denied
//! never reaches the application, also on a connection on which others did.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use weft_core::authorize::HttpFacts;
use weft_core::normalize;
use weft_core::reason::Reason;

use super::begin::{Begun, begin, protocol_label};
use super::body::{RequestBody, ResponseBody};
use super::client::ClientBody;
use super::downstream::{Called, Downstream};
use super::finish::{Answered, Asked, Finish, grpc_status};
use super::forward::Message;
use super::outbound::{close, message};
use super::waiting::Waiting;
use super::wire::End;
use super::{check, hop, mark, reply};
use crate::authorize::{Permit, ProbeFacts};
use crate::connect::http_pool::{Lease, Protocol, SendError, UpstreamBody};
use crate::connect::{UpstreamStream, connect_application};

/// The longest message of a health check that is read, in bytes: the name of a service, with room.
const MAX_CHECK: usize = 4096;

/// Serves one request; every failure is an answer.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep what it is given twice")]
pub(super) fn serve(
    conn: &Rc<Downstream>,
    called: &Called,
    (mut parts, body): (Parts, ClientBody),
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    async move {
        let Begun { checked, mut asked, protocol } = begin(conn, &mut parts);
        let refuse = |asked, reason, detail: String| {
            reply::respond(reply::failure(reason, detail), asked, conn.labelled(None, None, protocol), 0)
        };
        let checked = match checked {
            Ok(checked) => checked,
            Err(bad) => return Ok(close(refuse(asked, Reason::BadRequest, bad.to_string()))),
        };
        let upgrade = hop::strip(&mut parts.headers).filter(|_| parts.version == Version::HTTP_11);
        let waiting = Waiting::new(&mut asked, (None, None), protocol);
        let bodied = bodied(conn, called, &parts, body).await;
        waiting.over();
        let body = match bodied {
            Ok(body) => body,
            Err(reason) => return Ok(turn_away(conn, called, refuse(asked, reason, String::new()))),
        };
        let facts = ProbeFacts {
            version: parts.version,
            query: parts.uri.query(),
            body: body.whole(),
            upgrade: upgrade.is_some() || parts.method == Method::CONNECT,
        };
        let permit = match authorize(conn, called, &parts, (checked.ambiguous_path, &facts)).await {
            Ok(permit) => permit,
            Err(reason) => {
                let why = why_not(conn, called, &parts, checked.ambiguous_path, reason);
                return Ok(turn_away(conn, called, refuse(asked, reason, why)));
            }
        };
        restore_upgrade(&mut parts, upgrade.as_ref());
        let waiting = Waiting::new(&mut asked, (None, None), protocol);
        let forwarded = forward(conn, called, permit, (parts, body, upgrade.is_some()), &waiting).await;
        waiting.over();
        match forwarded {
            Ok((response, lease)) => Ok(answer(conn, asked, response, (lease, upgrade))),
            Err((Reason::BodyTimeout, detail)) => Ok(close(refuse(asked, Reason::BodyTimeout, detail))),
            Err((reason, detail)) => Ok(refuse(asked, reason, detail)),
        }
    }
}

/// A refusal on its way out. Whoever has the node's address and asks for something else than a probe isn't the kubelet:
/// it gets no second try.
fn turn_away(conn: &Downstream, called: &Called, refusal: Response<ResponseBody>) -> Response<ResponseBody> {
    if !called.permit.from_node() {
        return refusal;
    }
    conn.watched.end(End::Gracefully);
    close(refusal)
}

/// A request's body, read as far as the decision needs it.
enum Bodied {
    Whole(Bytes),
    Stream(ClientBody),
}

impl Bodied {
    /// All of it, if that is known.
    fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Stream(body) => body.is_end_stream().then_some(&[]),
        }
    }
}

/// Reads the body of what may be a probe by gRPC, which is told from others by its message.
async fn bodied(conn: &Downstream, called: &Called, parts: &Parts, body: ClientBody) -> Result<Bodied, Reason> {
    let engine = &conn.engine;
    if !called.permit.looks_at_body(&engine.store, parts) {
        return Ok(Bodied::Stream(body));
    }
    let read = Box::pin(tokio::time::timeout(engine.settings.header_timeout, Limited::new(body, MAX_CHECK).collect()));
    match read.await {
        Ok(Ok(body)) => Ok(Bodied::Whole(body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Reason::NotAProbe),
        Ok(Err(_)) => Err(Reason::DownstreamReset),
        Err(_) => Err(Reason::BodyTimeout),
    }
}

async fn authorize(
    conn: &Downstream,
    called: &Called,
    parts: &Parts,
    (ambiguous_path, probe): (bool, &ProbeFacts<'_>),
) -> Result<Permit, Reason> {
    let host = normalize::host(check::authority(parts)).unwrap_or_default();
    let facts = HttpFacts {
        method: &parts.method,
        host: &host,
        path: parts.uri.path(),
        ambiguous_path,
        headers: &parts.headers,
    };
    called.permit.authorize(&conn.engine.store, facts, probe).await
}

/// Which policy it is, for people.
fn why_not(conn: &Downstream, called: &Called, parts: &Parts, ambiguous_path: bool, reason: Reason) -> String {
    if reason != Reason::PolicyDenied {
        return String::new();
    }
    let host = normalize::host(check::authority(parts)).unwrap_or_default();
    let (path, headers) = (parts.uri.path(), &parts.headers);
    let facts = HttpFacts { method: &parts.method, host: &host, path, ambiguous_path, headers };
    called.permit.why_denied(&conn.engine.store, facts)
}

fn restore_upgrade(parts: &mut Parts, upgrade: Option<&HeaderValue>) {
    if let Some(upgrade) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, upgrade.clone());
    }
}

/// Sends the request to the application. One that was not sent, because the application had closed a kept connection, is
/// sent once more.
fn forward(
    conn: &Downstream,
    called: &Called,
    permit: Permit,
    (mut parts, body, upgrade): (Parts, Bodied, bool),
    asked: &Asked,
) -> impl Future<Output = Result<(Response<UpstreamBody>, Lease), (Reason, String)>> {
    let protocol = if parts.version == Version::HTTP_2 { Protocol::H2 } else { Protocol::H1 };
    if protocol == Protocol::H1 {
        parts.version = Version::HTTP_11;
    }
    let mut message = match body {
        Bodied::Stream(body) => message(parts, body, asked, false, Vec::new()),
        Bodied::Whole(body) => Message::new(parts, RequestBody::Whole(body)),
    };
    let mut permit = Some(permit);
    async move {
        let Message { outgoing, listener, .. } = &mut message;
        let told = |answer: &_| listener.iter().for_each(|listener| listener.told(answer));
        loop {
            let mut lease = match called.app.kept(protocol).filter(|_| permit.is_some()) {
                Some(lease) => lease,
                // Boxed: a connection is made once for many requests.
                None => Box::pin(connect(conn, called, permit.take(), protocol)).await?,
            };
            if upgrade {
                lease.expect_upgrade();
            }
            let was_kept = lease.is_reused();
            match lease.send(outgoing, &told).await {
                Ok(response) => return Ok((response, lease)),
                Err(SendError::Unsent) if was_kept => {}
                Err(SendError::Unsent) => return Err((Reason::UpstreamReset, "closed before the request".into())),
                Err(SendError::Sent(_)) if asked.progress.fault().is_some() => {
                    return Err((asked.progress.fault().unwrap_or(Reason::DownstreamReset), String::new()));
                }
                Err(SendError::Sent(error)) if error.is_parse() => {
                    return Err((Reason::UpstreamProtocol, error.to_string()));
                }
                Err(SendError::Sent(error)) => return Err((Reason::UpstreamReset, error.to_string())),
            }
        }
    }
}

async fn connect(
    conn: &Downstream,
    called: &Called,
    permit: Option<Permit>,
    protocol: Protocol,
) -> Result<Lease, (Reason, String)> {
    let Some(permit) = permit else {
        return Err((Reason::UpstreamReset, "closed before the request".into()));
    };
    let to = permit.inbound().destination;
    let failed = |reason| (reason, format!("no connection to the application at {to}"));
    let application = connect_application(permit, conn.engine.settings.connect_timeout).await.map_err(failed)?;
    // The permission ends with the downstream connection, which holds the registration itself.
    drop(application.permission);
    let stream = UpstreamStream::Tcp(application.stream);
    called.app.open(stream, protocol, to).await.map_err(|error| (error.reason(), error.to_string()))
}

fn answer(
    conn: &Rc<Downstream>,
    mut asked: Box<Asked>,
    response: Response<UpstreamBody>,
    (lease, upgrade): (Lease, Option<HeaderValue>),
) -> Response<ResponseBody> {
    asked.progress.answered();
    let (mut parts, body) = response.into_parts();
    let switched = hop::strip(&mut parts.headers);
    // The application's own word on what a proxy did is none.
    mark::passed(&mut parts.headers, conn, None);
    mark::name_failure(&mut parts.headers, &mut asked, parts.status);
    let labelled = conn.labelled(None, None, protocol_label(parts.version, asked.grpc));
    let answered = Answered {
        labelled,
        status: parts.status.as_u16(),
        reason: Reason::Ok,
        detail: String::new(),
        grpc_status: grpc_status(&parts.headers).filter(|_| asked.grpc),
        tries: 1,
        upstream: asked.started.elapsed(),
        trail: None,
    };
    conn.last.set(Reason::Ok);
    let finish = Finish::new(asked, answered);
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        return Response::from_parts(parts, ResponseBody::upstream(body, finish.with_lease(lease)));
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = switched.or(upgrade) {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    *conn.upgrade.borrow_mut() = Some((lease, finish));
    Response::from_parts(parts, ResponseBody::local(bytes::Bytes::new(), None))
}
