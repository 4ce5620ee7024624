//! Answers that the proxy gives itself.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use weft_core::filter::LocalReply;
use weft_core::reason::Reason;

use super::body::ResponseBody;
use super::downstream::Labelled;
use super::finish::{Answered, Asked, Finish, grpc_status};

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
    asked: Asked,
    labelled: std::rc::Rc<Labelled>,
    tries: u32,
) -> Response<ResponseBody> {
    let LocalReply { status, .. } = reply;
    let mut reply = if asked.grpc { reply.into_grpc() } else { reply };
    asked.conn.last.set(reply.reason);
    let answered = Answered {
        labelled,
        status: status.as_u16(),
        reason: reply.reason,
        detail: reply.detail.into_owned(),
        grpc_status: grpc_status(&reply.headers),
        tries,
        upstream: std::time::Duration::ZERO,
    };
    // The code, so that a person at the client's end knows what to look for; nothing else of ours.
    let has_text = !asked.grpc && !reply.status.is_redirection() && !reply.status.is_success();
    let text = match &asked.web {
        Some(web) => web.local(&mut reply.headers),
        None if has_text && asked.method != http::Method::HEAD => Bytes::from_static(reply.reason.as_str().as_bytes()),
        None => Bytes::new(),
    };
    let mut finish = Finish::new(asked, answered);
    finish.add_sent(text.len() as u64);
    let body = if text.is_empty() {
        finish.complete(true);
        ResponseBody::local(text, None)
    } else {
        ResponseBody::local(text, Some(finish))
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if has_text {
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    }
    response
}

/// The reply for a failure.
pub(super) fn failure<'a>(reason: Reason, detail: impl Into<std::borrow::Cow<'a, str>>) -> LocalReply<'a> {
    LocalReply::new(status_of(reason), reason).with_detail(detail)
}
