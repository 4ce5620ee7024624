//! One question to one authorizer, over whatever it speaks.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use prost::Message as _;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use weft_api::envoy::service::auth::v3::CheckResponse;
use weft_core::filter::{Grant, http_grant, question_headers, question_target};
use weft_core::ids::ServicePortKey;
use weft_core::matching::is_grpc;
use weft_core::reason::Reason;
use weft_core::route::{AuthProtocol, BackendTarget, ExternalAuth, Timeouts};
use weft_core::service::AppProtocol;

use super::envoy::{self, Verdict};
use super::{Asking, Denial, Question, Refusal};
use crate::connect::http_pool::Protocol;
use crate::relay::http::body::{Progress, RequestBody};
use crate::relay::http::downstream::Front;
use crate::relay::http::finish::grpc_status;
use crate::relay::http::forward::{Answer, Forward, Message};
use crate::relay::http::gateway::secure_scheme;
use crate::relay::http::upstream::h2_form;
use crate::relay::http::{check, hop};

/// The method of Envoy's service.
const CHECK: PathAndQuery = PathAndQuery::from_static("/envoy.service.auth.v3.Authorization/Check");
/// The longest answer over gRPC, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// What is read of the body of a yes, which nobody wants, so that its connection can be used again: bytes, and for how long.
const MAX_DRAIN: usize = 16 << 10;
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

impl Asking<'_> {
    /// Asks.
    pub(super) async fn check(&self, auth: &ExternalAuth, question: &Question<'_>) -> Result<Grant, Refusal> {
        let BackendTarget::Service(key) = &auth.authorizer else {
            return Err(Refusal::Failed(Reason::InvalidBackend, "the authorizer is not there".into()));
        };
        match &auth.protocol {
            AuthProtocol::Grpc { headers } => self.over_grpc(key, headers, question).await,
            AuthProtocol::Http { path, request_headers, response_headers } => {
                let head = |protocol| http_head(path, request_headers, question, protocol);
                self.over_http(key, head, response_headers, question).await
            }
        }
    }

    async fn over_http(
        &self,
        key: &ServicePortKey,
        head: impl Fn(Protocol) -> Option<Parts>,
        response_headers: &[HeaderName],
        question: &Question<'_>,
    ) -> Result<Grant, Refusal> {
        let body = question.body.clone().unwrap_or_default();
        let answer = self.send((key, None), head, body, question.until).await?;
        match granted(response_headers, answer.response.status(), answer.response.headers()) {
            Some(grant) => {
                give_back(*answer);
                Ok(grant)
            }
            None => Err(Refusal::Denied(key.to_string(), Box::new(Denial::Http(answer)))),
        }
    }

    async fn over_grpc(
        &self,
        key: &ServicePortKey,
        listed: &[HeaderName],
        question: &Question<'_>,
    ) -> Result<Grant, Refusal> {
        let message = framed(&envoy::request(self, listed, question));
        let head = |_| grpc_head(key);
        let answer = self.send((key, Some(Protocol::H2)), head, message, question.until).await?;
        let said = timeout_at(question.until, read(answer)).await;
        let said = said.map_err(|_| Refusal::failed(&key.to_string(), "no answer in time"))?;
        match envoy::verdict(said.map_err(|why| Refusal::failed(&key.to_string(), why))?) {
            Verdict::Permitted(grant) => Ok(grant),
            Verdict::Denied { status, headers, body } => {
                Err(Refusal::Denied(key.to_string(), Box::new(Denial::Told { status, headers, body })))
            }
            Verdict::Unclear(why) => Err(Refusal::failed(&key.to_string(), why)),
        }
    }

    /// Sends a question to an endpoint of the authorizer. One that a connection lost before a word of the answer is asked once
    /// more: it is a question.
    async fn send(
        &self,
        (key, protocol): (&ServicePortKey, Option<Protocol>),
        head: impl Fn(Protocol) -> Option<Parts>,
        body: Bytes,
        until: Instant,
    ) -> Result<Box<Answer>, Refusal> {
        let failed = |why: &str| Refusal::failed(&key.to_string(), why);
        let Some(frontend) = self.view.frontend(key) else {
            return Err(Refusal::Failed(Reason::InvalidBackend, format!("no authorizer {key}")));
        };
        let client = self.asked.client.unwrap_or(self.caller.client);
        let engine = &self.conn.engine;
        let speaks_h2 = matches!(frontend.protocol, AppProtocol::H2c | AppProtocol::Grpc);
        let protocol = protocol.unwrap_or(if speaks_h2 { Protocol::H2 } else { Protocol::H1 });
        let tls = self.caller.front.upstream_tls(&engine.backends, self.view, key, protocol);
        let tls = tls.map_err(|why| Refusal::Failed(Reason::InvalidBackend, format!("authorizer {key}: {why}")))?;
        let forward = Forward {
            started: Instant::now(),
            engine,
            view: self.view,
            source: &self.caller.source,
            client: client.ip(),
            told: self.conn.tells(self.caller, client, frontend),
            balancer: engine.balancers.get(frontend, Instant::now()),
            hash: None,
            session: None,
            budget: None,
            protocol,
            timeouts: Timeouts::default(),
            retry: None,
            deadline: Some(until),
            upgrade: false,
            progress: Progress::default(),
            tls,
        };
        let mut again = true;
        loop {
            let mut head = head(protocol).ok_or_else(|| failed("the request can't be put to it"))?;
            if forward.tls.is_some() {
                secure_scheme(&mut head);
            }
            let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(body.clone()) };
            match Box::pin(forward.run(&mut Message::new(head, body))).await {
                Ok(answer) => return Ok(answer),
                Err(lost) if is_lost(lost.reason) && std::mem::take(&mut again) => {}
                Err(error) => return Err(failed(&format!("{} {}", error.reason, error.detail))),
            }
        }
    }

    /// The scheme that the client came with.
    pub(super) fn scheme(&self) -> &'static str {
        match &self.caller.front {
            Front::Gateway { listener: Some(_), .. } => "https",
            _ => "http",
        }
    }
}

/// Whether a connection broke without an answer.
fn is_lost(reason: Reason) -> bool {
    matches!(reason, Reason::UpstreamReset | Reason::TunnelReset)
}

fn new_head(method: Method, uri: Uri, headers: HeaderMap) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri, head.headers, head.version) = (method, uri, headers, Version::HTTP_11);
    head
}

/// The request's own head, as far as the authorizer gets to see it. Its length is that of the body that goes with it.
fn http_head(path: &str, listed: &[HeaderName], question: &Question<'_>, protocol: Protocol) -> Option<Parts> {
    let parts = question.parts;
    let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut headers = question_headers(listed, &question.headers);
    headers.insert(header::HOST, HeaderValue::from_str(check::authority(parts)).ok()?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(question.body.as_ref().map_or(0, Bytes::len)));
    let mut head = new_head(parts.method.clone(), Uri::from(question_target(path, &target)?), headers);
    if protocol == Protocol::H2 {
        h2_form(&mut head, None, None).ok()?;
    }
    Some(head)
}

/// What an answer over HTTP permits; `None`: it is a no.
pub(super) fn granted(listed: &[HeaderName], status: StatusCode, headers: &HeaderMap) -> Option<Grant> {
    if status != StatusCode::OK {
        return None;
    }
    let mut headers = headers.clone();
    hop::strip(&mut headers);
    Some(http_grant(listed, &headers))
}

fn grpc_head(key: &ServicePortKey) -> Option<Parts> {
    let authority = format!("{}.{}:{}", key.service.name, key.service.namespace, key.port);
    let headers = HeaderMap::from_iter([
        (header::HOST, HeaderValue::try_from(authority).ok()?),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (header::TE, HeaderValue::from_static("trailers")),
    ]);
    let mut head = new_head(Method::POST, Uri::from(CHECK), headers);
    h2_form(&mut head, None, None).ok()?;
    Some(head)
}

/// A message as gRPC sends it: not compressed, with its length (gRPC over HTTP/2, "Length-Prefixed-Message").
fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.put_slice(&message.encode_to_vec());
    framed.freeze()
}

/// Reads the answer to a unary call.
async fn read(answer: Box<Answer>) -> Result<CheckResponse, String> {
    let Answer { response, lease, flight, .. } = *answer;
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK || !is_grpc(&head.headers) {
        return Err(format!("it answered {} and not in gRPC", head.status));
    }
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    lease.release();
    flight.finish();
    let status = grpc_status(&head.headers).or_else(|| grpc_status(body.trailers()?));
    if status != Some(0) {
        return Err(format!("its gRPC status is {}", status.map_or("missing".to_owned(), |code| code.to_string())));
    }
    unframed(&body.to_bytes()).ok_or_else(|| "its answer is no CheckResponse".to_owned())
}

/// The one message of an answer.
pub(super) fn unframed(framed: &[u8]) -> Option<CheckResponse> {
    let (head, message) = framed.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *head;
    if compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    CheckResponse::decode(message).ok()
}

/// Lets the connection of a yes go back to its pool, if what is left of its body is little.
fn give_back(answer: Answer) {
    let Answer { response, lease, flight, .. } = answer;
    let mut body = response.into_body();
    if body.is_end_stream() {
        lease.release();
        return flight.finish();
    }
    tokio::task::spawn_local(async move {
        let drain = async {
            let mut left = MAX_DRAIN;
            while let Some(frame) = body.frame().await {
                let size = frame.ok()?.data_ref().map_or(0, Bytes::len);
                left = left.checked_sub(size)?;
            }
            Some(())
        };
        if timeout(DRAIN_LIMIT, drain).await == Ok(Some(())) {
            lease.release();
        }
        flight.finish();
    });
}
