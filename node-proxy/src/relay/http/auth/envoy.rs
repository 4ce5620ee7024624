//! Envoy's `envoy.service.auth.v3`: what is said of a request, and what an answer means. Pure.
//!
//! Not understood, and so refused: changes of the query. Passed over: dynamic metadata, which has no meaning here, and
//! changes of `Host`, of pseudo-headers and of what frames the message.

use std::collections::HashMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use weft_api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use weft_api::envoy::config::core::v3::{
    Address, HeaderValue as Pair, HeaderValueOption, SocketAddress, address, socket_address,
};
use weft_api::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use weft_api::envoy::service::auth::v3::check_response::HttpResponse;
use weft_api::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use weft_core::filter::{Grant, HeaderChange, HeaderMutation, is_protected};

use super::{Asking, Question};
use crate::relay::http::check;
use crate::relay::http::downstream::Front;

/// How many headers one answer may change: each is looked up among the request's.
const MOST_CHANGES: usize = 128;

/// What an answer means.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Permitted(Grant),
    Denied {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
    /// Neither yes nor no, and why.
    Unclear(String),
}

/// The question.
pub(super) fn request(asking: &Asking<'_>, listed: &[HeaderName], question: &Question<'_>) -> CheckRequest {
    let client = asking.asked.client.unwrap_or(asking.caller.client);
    let address = address::Address::SocketAddress(SocketAddress {
        address: client.ip().to_canonical().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(client.port().into())),
    });
    // A client from outside has no identity that anybody here vouches for.
    let principal = match &asking.caller.front {
        Front::Service(_) => asking.caller.source.identity().to_string(),
        Front::Gateway { .. } => String::new(),
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(Address { address: Some(address) }), principal }),
            request: Some(Request {
                time: Some(SystemTime::now().into()),
                http: Some(http_request(asking.scheme(), listed, question)),
            }),
        }),
    }
}

pub(super) fn http_request(scheme: &str, listed: &[HeaderName], question: &Question<'_>) -> HttpRequest {
    let (parts, body) = (question.parts, question.body.as_deref());
    let text = |name: &HeaderName| question.headers.get(name).map(|value| lossy(value.as_bytes()));
    let declared = text(&header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let shown = body.and_then(|body| i64::try_from(body.len()).ok());
    let mut http = HttpRequest {
        id: text(&HeaderName::from_static("x-request-id")).unwrap_or_default(),
        method: parts.method.to_string(),
        headers: headers(listed, &question.headers),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: check::authority(parts).to_owned(),
        scheme: scheme.to_owned(),
        size: shown.or(declared).unwrap_or(-1),
        protocol: protocol(parts.version).to_owned(),
        // Also what isn't UTF-8: who looks here alone must not take a body for none.
        body: body.map(lossy).unwrap_or_default(),
        raw_body: body.filter(|body| std::str::from_utf8(body).is_err()).map(<[u8]>::to_vec).unwrap_or_default(),
    };
    if listed.is_empty() {
        let pseudo = [(":method", &http.method), (":path", &http.path), (":authority", &http.host)];
        let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.clone()));
        http.headers.extend(pseudo);
        http.headers.insert(":scheme".to_owned(), http.scheme.clone());
    }
    http
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// All values of each header as one, as RFC 9110, section 5.3, and for cookies RFC 9113, section 8.2.3, join them. The host has
/// a field of its own.
fn headers(listed: &[HeaderName], all: &HeaderMap) -> HashMap<String, String> {
    let wanted = |name: &&HeaderName| **name != header::HOST && (listed.is_empty() || listed.contains(name));
    let joined = |name: &HeaderName| {
        let separator: &[u8] = if *name == header::COOKIE { b"; " } else { b"," };
        let values: Vec<_> = all.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        lossy(&values.join(separator))
    };
    all.keys().filter(wanted).map(|name| (name.as_str().to_owned(), joined(name))).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What an answer means. One that says nothing, or yes and no at once, means nothing.
pub(super) fn verdict(answer: CheckResponse) -> Verdict {
    let code = answer.status.map(|status| status.code);
    match (code, answer.http_response) {
        (Some(0), None) => Verdict::Permitted(Grant::default()),
        (Some(0) | None, Some(HttpResponse::OkResponse(ok))) => match grant(ok) {
            Ok(grant) => Verdict::Permitted(grant),
            Err(why) => Verdict::Unclear(why),
        },
        (Some(0), Some(HttpResponse::DeniedResponse(_))) => Verdict::Unclear("it says yes and no".into()),
        (Some(_) | None, Some(HttpResponse::DeniedResponse(denied))) => denial(denied),
        (Some(_), _) => denial(DeniedHttpResponse::default()),
        (None, None) => Verdict::Unclear("it says nothing".into()),
    }
}

fn grant(ok: OkHttpResponse) -> Result<Grant, String> {
    if ok.headers.len() + ok.headers_to_remove.len() + ok.response_headers_to_add.len() > MOST_CHANGES {
        return Err(format!("it asks for more than {MOST_CHANGES} changes of headers"));
    }
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err("it asks for changes of the query, which are not supported".into());
    }
    let mut request = changes(ok.headers)?;
    for name in ok.headers_to_remove.iter().filter(|name| !name.starts_with(':')) {
        request.push(HeaderChange::Remove(header_name(name)?));
    }
    let mut response = changes(ok.response_headers_to_add)?;
    for change in &mut response {
        // One cookie doesn't replace another (RFC 6265, section 3).
        if let HeaderChange::Set(name, value) = change
            && *name == header::SET_COOKIE
        {
            *change = HeaderChange::Append(name.clone(), value.clone());
        }
    }
    Ok(Grant { request: HeaderMutation(request), response: HeaderMutation(response) })
}

fn changes(options: Vec<HeaderValueOption>) -> Result<Vec<HeaderChange>, String> {
    let mut made = Vec::with_capacity(options.len());
    for option in options {
        let (append, action) = (option.append, option.append_action);
        let Some((name, value)) = pair(option.header)? else { continue };
        made.push(match (append, HeaderAppendAction::try_from(action)) {
            (Some(true), _) => HeaderChange::Append(name, value),
            // In these messages a header replaces what is there unless something else is said.
            (Some(false), _) | (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => HeaderChange::Set(name, value),
            (None, Ok(HeaderAppendAction::AddIfAbsent)) => HeaderChange::AddIfAbsent(name, value),
            (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => HeaderChange::Set(name, value),
            (None, Ok(HeaderAppendAction::OverwriteIfExists)) => HeaderChange::OverwriteIfPresent(name, value),
            (None, Err(_)) => return Err(format!("it asks for something unknown with header {name}")),
        });
    }
    Ok(made)
}

/// A header; none if it is a pseudo-header, which nobody changes here.
fn pair(header: Option<Pair>) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let header = header.ok_or("it names no header")?;
    if header.key.starts_with(':') {
        return Ok(None);
    }
    let name = header_name(&header.key)?;
    let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
    let value = HeaderValue::try_from(value).map_err(|_| format!("its value of header {name} is none"))?;
    Ok(Some((name, value)))
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is no header"))
}

/// 403, if it doesn't say otherwise. A header that is there several times stays so.
fn denial(denied: DeniedHttpResponse) -> Verdict {
    let code = denied.status.map_or(0, |status| status.code);
    let status = match u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status) if !status.is_informational() => status,
        _ => StatusCode::FORBIDDEN,
    };
    let mut headers = HeaderMap::new();
    for option in denied.headers.into_iter().take(MOST_CHANGES) {
        // Its no counts, whatever it wants to add.
        let Ok(Some((name, value))) = pair(option.header) else { continue };
        if !is_protected(&name) {
            headers.append(name, value);
        }
    }
    if !denied.body.is_empty() {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
    }
    Verdict::Denied { status, headers, body: denied.body.into() }
}
