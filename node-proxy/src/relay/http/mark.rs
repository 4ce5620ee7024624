//! What an answer says of who made it and why: to pods of the mesh the reason and whose proxy answered, to clients from outside
//! the request's id only.
//!
//! A mark is worth what its writer is worth. That of a destination's proxy is believed where the answer came through a tunnel
//! or through memory and names the workload that was asked, so that an application which passes somebody else's answer on
//! isn't taken for its proxy; every other mark is taken away. Where no policy looks at requests the destination's proxy
//! passes bytes, and an application could write the mark itself: it would only speak ill of itself.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode};
use weft_core::filter::grpc_status;
use weft_core::reason::Reason;

use super::downstream::{Downstream, Side};
use super::finish::Asked;
use super::origin::{REQUEST_ID, is_id};
use super::reply::{GRPC_MESSAGE, GRPC_STATUS, status_of};
use crate::connect::{Target, Transport};

/// Why: a reason code.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-weft-reason");
/// Whose proxy answered: `source` or `destination`, and the workload as namespace/name.
pub(super) const BY: HeaderName = HeaderName::from_static("x-weft-by");

/// Marks an answer that this proxy makes.
pub(super) fn own(headers: &mut HeaderMap, asked: &mut Asked, reason: Reason) {
    headers.insert(REQUEST_ID, asked.id());
    strip(headers);
    if asked.conn.side.is_outside() {
        return;
    }
    headers.insert(REASON, HeaderValue::from_static(reason.as_str()));
    let (side, workload) = asked.conn.served();
    if let Ok(by) = HeaderValue::from_str(&format!("{side} {workload}")) {
        headers.insert(BY, by);
    }
}

/// The text that a client from outside gets in place of a reason.
pub(super) fn text_outside(asked: &mut Asked) -> String {
    format!("request {}", String::from_utf8_lossy(asked.id().as_bytes()))
}

/// Looks at the mark of an answer that is passed on: the reason, if the destination's proxy made it. What the client may not
/// see, or nobody vouches for, is taken away.
pub(super) fn passed(headers: &mut HeaderMap, conn: &Downstream, target: Option<&Target>) -> Option<Reason> {
    let (reason, by) = strip(headers);
    let (reason, by) = (reason?, by?);
    let known = believed((&reason, &by), target?)?;
    if matches!(&conn.side, Side::Outbound(_)) && !conn.side.is_gateway() {
        headers.insert(REASON, reason);
        headers.insert(BY, by);
    }
    Some(known)
}

/// Why the destination's proxy answered before a byte of the request had reached an application, if it says so: the pod is gone,
/// or nobody listens in it any more. Another endpoint may be asked, whatever the method.
pub(super) fn never_reached(headers: &HeaderMap, target: &Target) -> Option<Reason> {
    let reason = believed((headers.get(&REASON)?, headers.get(&BY)?), target)?;
    matches!(reason, Reason::UnknownDestination | Reason::WorkloadGone | Reason::ConnectFailed).then_some(reason)
}

/// What a mark says, if it is the destination's proxy that vouches for it.
fn believed((reason, by): (&HeaderValue, &HeaderValue), target: &Target) -> Option<Reason> {
    let known = Reason::of_code(reason.to_str().ok()?).filter(|reason| *reason != Reason::Ok)?;
    let in_mesh = matches!(target.transport, Transport::Hbone { .. } | Transport::Local { .. });
    let asked = target.workload.as_deref().filter(|_| in_mesh)?;
    let writer = format!("destination {}/{}", asked.namespace, asked.name);
    (by.as_bytes() == writer.as_bytes()).then_some(known)
}

/// Takes the reason out of what the destination's proxy wrote, on its way to a client from outside; the request's id takes its
/// place. `Some`: the body that the answer has instead of its own.
pub(super) fn hide(parts: &mut Parts, asked: &mut Asked, reason: Reason) -> Option<Bytes> {
    let text = text_outside(asked);
    let headers = &mut parts.headers;
    if asked.grpc && (asked.web.is_some() || headers.contains_key(GRPC_STATUS)) {
        let is_in_body = !headers.contains_key(GRPC_STATUS);
        headers.insert(GRPC_MESSAGE, HeaderValue::try_from(text).ok()?);
        let web = asked.web.as_ref().filter(|_| is_in_body)?;
        // It spoke the browser's form, where status and message are the body.
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status_of(reason), reason)));
        headers.remove(header::CONTENT_LENGTH);
        return Some(web.local(headers));
    }
    if !parts.status.is_client_error() && !parts.status.is_server_error() {
        return None;
    }
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Some(if asked.method == Method::HEAD { Bytes::new() } else { Bytes::from(text) })
}

/// An answer of 500 and up that is passed on has an id, by which it is found again: the request's, or the answer's own if the
/// request had none.
pub(super) fn name_failure(headers: &mut HeaderMap, asked: &mut Asked, status: StatusCode) {
    if !status.is_server_error() {
        return;
    }
    match headers.get(&REQUEST_ID) {
        Some(id) if asked.request_id.is_none() && is_id(id) => asked.request_id = Some(id.clone()),
        Some(_) => {}
        None => drop(headers.insert(REQUEST_ID, asked.id())),
    }
}

fn strip(headers: &mut HeaderMap) -> (Option<HeaderValue>, Option<HeaderValue>) {
    (headers.remove(&REASON), headers.remove(&BY))
}
