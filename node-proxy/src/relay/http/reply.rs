//! Answers that the proxy gives itself.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use weft_core::filter::LocalReply;
use weft_core::reason::Reason;

use super::body::ResponseBody;
use super::downstream::Labelled;
use super::finish::{Answered, Asked, Finish, grpc_status};
use super::given_up::ForNobody;
use super::mark;
use super::trail::Trail;

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The status of a failure of the proxy or the endpoint.
pub(super) fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::NoRoute | Reason::NoListener => StatusCode::NOT_FOUND,
        Reason::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::BodyTimeout | Reason::HeaderTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Reason::PolicyDenied
        | Reason::PolicyRevoked
        | Reason::NotAProbe
        | Reason::PlaintextRefused
        | Reason::AuthDenied
        | Reason::AuthFailed => StatusCode::FORBIDDEN,
        Reason::InvalidRoute | Reason::InvalidBackend | Reason::NoBackend | Reason::Panic => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Reason::UpstreamReset | Reason::UpstreamProtocol | Reason::TunnelReset => StatusCode::BAD_GATEWAY,
        Reason::RequestTimeout | Reason::BackendTimeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The response, and its end as an exchange.
pub(super) fn respond(
    reply: LocalReply<'_>,
    asked: Box<Asked>,
    labelled: std::rc::Rc<Labelled>,
    tries: u32,
) -> Response<ResponseBody> {
    respond_after(reply, asked, labelled, (tries, None))
}

/// The same after `tries` that came to nothing.
pub(super) fn respond_after(
    reply: LocalReply<'_>,
    mut asked: Box<Asked>,
    labelled: std::rc::Rc<Labelled>,
    (tries, trail): (u32, Option<Box<Trail>>),
) -> Response<ResponseBody> {
    let LocalReply { status, reason, .. } = reply;
    let mut reply = if asked.grpc { reply.into_grpc() } else { reply };
    mark::own(&mut reply.headers, &mut asked, reply.reason);
    // To clients from outside the codes are no business; by the id we find them.
    let outside = asked.conn.side.is_outside().then(|| mark::text_outside(&mut asked));
    if let Some(text) = outside.as_deref().filter(|_| asked.grpc).and_then(|text| HeaderValue::from_str(text).ok()) {
        reply.headers.insert(GRPC_MESSAGE, text);
    }
    asked.conn.last.set(reply.reason);
    let answered = Answered {
        labelled,
        status: status.as_u16(),
        reason: reply.reason,
        detail: reply.detail.into_owned(),
        grpc_status: grpc_status(&reply.headers),
        tries,
        upstream: std::time::Duration::ZERO,
        trail,
    };
    // The code or the id, so that a person at the client's end knows what to look for; nothing else of ours.
    let has_text = !asked.grpc && !reply.status.is_redirection() && !reply.status.is_success();
    let text = match &asked.web {
        Some(web) => web.local(&mut reply.headers),
        None if has_text && asked.method != http::Method::HEAD => {
            outside.map_or(Bytes::from_static(reply.reason.as_str().as_bytes()), Bytes::from)
        }
        None => Bytes::new(),
    };
    let mut response = Response::new(body(text, Finish::new(asked, answered)));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if reason == Reason::DownstreamReset {
        response.extensions_mut().insert(ForNobody);
    }
    if has_text {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// A body of ours. One without a text is over at once.
pub(super) fn body(text: Bytes, mut finish: Finish) -> ResponseBody {
    finish.add_sent(text.len() as u64);
    if text.is_empty() {
        finish.complete(true);
        return ResponseBody::local(text, None);
    }
    ResponseBody::local(text, Some(finish))
}

/// The reply for a failure.
pub(super) fn failure<'a>(reason: Reason, detail: impl Into<std::borrow::Cow<'a, str>>) -> LocalReply<'a> {
    LocalReply::new(status_of(reason), reason).with_detail(detail)
}
