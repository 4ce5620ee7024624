//! Answers of external authorizers, which change requests and answers of others.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use weft_api::envoy::service::auth::v3::CheckResponse;
use weft_api::envoy::service::auth::v3::check_response::HttpResponse;
use weft_core::filter::{Grant, HeaderMutation};
use weft_node_proxy::fuzzing::{self, Authorized};

use crate::choice;
use crate::http::{OF_ONE_CONNECTION, headers};

/// How many headers one answer changes at most.
const MOST_CHANGES: usize = 128;
/// What a client says of itself, which only an authorizer may say.
const CLAIM: &str = "said by the client alone";

/// Headers that say where a message ends, where it goes, and how long its connection lasts.
fn framing() -> impl Iterator<Item = &'static str> {
    OF_ONE_CONNECTION.into_iter().chain(["content-length", "host", "trailer"])
}

/// A request that has all of these, or none.
fn request(framed: bool) -> HeaderMap {
    let named = framing().filter(|_| framed).map(|name| (HeaderName::from_static(name), HeaderValue::from_static("7")));
    let claimed = [header::AUTHORIZATION, HeaderName::from_static("x-user")];
    named.chain(claimed.map(|name| (name, HeaderValue::from_static(CLAIM)))).collect()
}

/// Changes leave alone where a message ends and where it goes, and every line is a line.
fn is_harmless(changes: &HeaderMutation) {
    for before in [request(true), request(false)] {
        let mut after = before.clone();
        changes.apply(&mut after);
        for name in framing() {
            assert!(before.get_all(name).iter().eq(after.get_all(name)), "{name} of {before:?} in {after:?}");
        }
        for (name, value) in &after {
            assert!(!name.as_str().bytes().any(|byte| byte <= b' ' || byte == b':'), "{name:?}");
            assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{name}: {value:?}");
        }
    }
}

fn is_harmless_grant(grant: &Grant) {
    is_harmless(&grant.request);
    is_harmless(&grant.response);
}

/// What a gRPC client hears of a no is ours: that it is one, why, and who says so.
fn stays_denied(theirs: &HeaderMap) {
    let ours = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    };
    let grpc = ours(&[("content-type", "application/grpc"), ("grpc-status", "7"), ("grpc-message", "auth_denied")]);
    let web = ours(&[("content-type", "application/grpc-web"), ("x-request-id", "a")]);
    for ours in [grpc, web] {
        let told = fuzzing::denied(ours.clone(), theirs.clone());
        assert!(ours.keys().all(|name| ours.get_all(name).iter().eq(told.get_all(name))), "{ours:?} {told:?}");
        let of_us = ["grpc-status", "grpc-message", "x-weft-reason", "x-weft-by"];
        let added = framing().chain(of_us).find(|name| told.contains_key(*name) && !ours.contains_key(*name));
        assert_eq!(added, None, "{told:?}");
    }
}

/// An answer over gRPC is one whole message; what says no permits nothing, and what permits has bounded and harmless changes.
pub(crate) fn auth_grpc(data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    let framed = [&[0], &length[..], data].concat();
    let said = fuzzing::auth_grpc(&framed);
    let (compressed, more) = ([&[1], &length[..], data].concat(), [&framed[..], b"\0"].concat());
    let less = framed.split_last().map_or(&[][..], |(_, less)| less);
    for other in [less, &compressed[..], &more[..], &length[..]] {
        assert_eq!(fuzzing::auth_grpc(other), Authorized::Unclear, "{other:x?}");
    }
    let Ok(answer) = CheckResponse::decode(data) else { return assert_eq!(said, Authorized::Unclear) };
    let code = answer.status.map(|status| status.code);
    let denies = matches!(answer.http_response, Some(HttpResponse::DeniedResponse(_)));
    let fails = code.is_some_and(|code| code != 0);
    match said {
        Authorized::Yes(grant) => {
            assert!(!fails && !denies && (code.is_some() || answer.http_response.is_some()));
            assert!(grant.request.0.len() + grant.response.0.len() <= MOST_CHANGES);
            is_harmless_grant(&grant);
        }
        Authorized::No(status, headers) => {
            assert!(fails || denies);
            assert!(!status.is_informational() && headers.len() <= MOST_CHANGES + 1, "{status} {headers:?}");
            let framed = OF_ONE_CONNECTION.iter().chain(&["content-length"]).find(|name| headers.contains_key(**name));
            assert_eq!(framed, None, "{headers:?}");
            stays_denied(&headers);
        }
        Authorized::Unclear => assert!(!fails),
    }
}

/// An answer over HTTP is a yes if it is 200, with harmless changes of what it may change; nothing of that is the client's word any more.
pub(crate) fn auth_http(data: &[u8]) {
    let (choice, data) = choice(data);
    let all = [HeaderName::from_static("x-user"), header::AUTHORIZATION, header::CONNECTION];
    let listed = all.get(..choice % 4).unwrap_or_default();
    let Ok(status) = StatusCode::from_u16(200 + (choice / 4) as u16) else { return };
    let answer = headers(data);
    stays_denied(&answer);
    let Some(grant) = fuzzing::auth_http(listed, status, &answer) else { return assert_ne!(status, StatusCode::OK) };
    assert_eq!(status, StatusCode::OK);
    is_harmless_grant(&grant);
    for change in &grant.request.0 {
        let name = change.name();
        assert!(if listed.is_empty() { answer.contains_key(name) } else { listed.contains(name) }, "{name}");
    }
    let mut changed = request(false);
    grant.request.apply(&mut changed);
    for name in listed {
        let claims = |headers: &HeaderMap| headers.get_all(name).iter().any(|value| value == CLAIM);
        assert!(!claims(&changed) || claims(&answer), "{name} of {changed:?}");
    }
}
