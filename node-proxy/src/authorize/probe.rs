//! Plaintext from the node's own address: what a pod declares for the kubelet, and nothing else.
//!
//! The address vouches for nobody: processes and host-network pods of the node have it too, and so has what is
//! masqueraded to it. So where plaintext isn't taken from everybody, only the declared calls pass, and each of them as
//! narrow as it can be told from others.

use http::{Method, Version};
use weft_core::ids::Port;
use weft_core::normalize;
use weft_core::workload::{ProbeCall, Workload};

/// The method that a gRPC probe calls.
pub(super) const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";
/// What comes before a message in gRPC: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;

/// What of a request decides whether it is a probe, beside what policies look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbeFacts<'a> {
    /// The version of HTTP.
    pub version: Version,
    /// The query.
    pub query: Option<&'a str>,
    /// The whole body; `None` if there is more than a probe would have.
    pub body: Option<&'a [u8]>,
    /// It asks for another protocol.
    pub upgrade: bool,
}

/// What is declared on a port.
pub(super) fn declared(workload: &Workload, port: Port) -> impl Iterator<Item = &ProbeCall> {
    workload.probes.iter().filter(move |probe| probe.port == port).map(|probe| &probe.call)
}

/// Whether a pod declares anything on a port.
pub(crate) fn has_any(workload: &Workload, port: Port) -> bool {
    declared(workload, port).next().is_some()
}

/// Whether a request is one that the pod declares. `path` is normalised.
pub(super) fn is_probe<'a>(
    mut declared: impl Iterator<Item = &'a ProbeCall>,
    (method, path): (&Method, &str),
    facts: &ProbeFacts<'_>,
) -> bool {
    let Some(body) = facts.body.filter(|_| !facts.upgrade) else { return false };
    declared.any(|call| match call {
        ProbeCall::Http { target } => {
            facts.version <= Version::HTTP_11
                && method == Method::GET
                && body.is_empty()
                && is_target(target, path, facts.query)
        }
        ProbeCall::Grpc { service } => {
            facts.version == Version::HTTP_2
                && method == Method::POST
                && path == GRPC_CHECK
                && facts.query.is_none()
                && is_check(body, service)
        }
        ProbeCall::Https | ProbeCall::Tcp => false,
    })
}

/// Whether a declared target is this one. The request's path was brought into its one form, so the declared one is too.
fn is_target(declared: &str, path: &str, query: Option<&str>) -> bool {
    let (raw, declared_query) = declared.split_once('?').map_or((declared, None), |(path, query)| (path, Some(query)));
    declared_query == query && normalize::path(raw).is_ok_and(|normal| normal.text == path)
}

/// Whether a body is the one message that asks for this service.
fn is_check(body: &[u8], service: &str) -> bool {
    // The message is one string in field 1, as this well-known type is.
    let message = prost::Message::encode_to_vec(&service.to_owned());
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    body.split_at_checked(GRPC_PREFIX).is_some_and(|(prefix, rest)| {
        prefix.split_first() == Some((&0, length.as_slice())) && rest == message.as_slice()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: fn() -> [ProbeCall; 5] = || {
        [
            ProbeCall::Http { target: "/healthz?full=1".into() },
            ProbeCall::Http { target: "/%61/../ready".into() },
            ProbeCall::Grpc { service: "shop.Cart".into() },
            ProbeCall::Https,
            ProbeCall::Tcp,
        ]
    };

    fn check(service: &str) -> Vec<u8> {
        let message = [&[0x0a, u8::try_from(service.len()).unwrap()], service.as_bytes()].concat();
        let message = if service.is_empty() { Vec::new() } else { message };
        [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message.as_slice()].concat()
    }

    #[test]
    fn only_the_declared_request_is_a_probe() {
        let cart = check("shop.Cart");
        let (h1, h10, h2) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
        let full = Some("full=1");
        for (what, method, path, version, query, body, want) in [
            ("as declared", Method::GET, "/healthz", h1, full, &[][..], true),
            ("HTTP/1.0", Method::GET, "/healthz", h10, full, &[], true),
            ("in its one form", Method::GET, "/ready", h1, None, &[], true),
            ("without the query", Method::GET, "/healthz", h1, None, &[], false),
            ("another query", Method::GET, "/healthz", h1, Some("full=1&x"), &[], false),
            ("a query more", Method::GET, "/ready", h1, Some(""), &[], false),
            ("another path", Method::GET, "/healthz/", h1, full, &[], false),
            ("the root", Method::GET, "/", h1, None, &[], false),
            ("HEAD", Method::HEAD, "/healthz", h1, full, &[], false),
            ("POST", Method::POST, "/healthz", h1, full, &[], false),
            ("a body", Method::GET, "/healthz", h1, full, b"x", false),
            ("HTTP/2", Method::GET, "/healthz", h2, full, &[], false),
            ("gRPC", Method::POST, GRPC_CHECK, h2, None, &cart, true),
            ("gRPC with a query", Method::POST, GRPC_CHECK, h2, Some("a"), &cart, false),
            ("gRPC over HTTP/1", Method::POST, GRPC_CHECK, h1, None, &cart, false),
            ("gRPC by GET", Method::GET, GRPC_CHECK, h2, None, &cart, false),
            ("the other method", Method::POST, "/grpc.health.v1.Health/Watch", h2, None, &cart, false),
            ("another service", Method::POST, GRPC_CHECK, h2, None, &check("shop.Card"), false),
            ("the server as a whole", Method::POST, GRPC_CHECK, h2, None, &check(""), false),
            ("no message", Method::POST, GRPC_CHECK, h2, None, &[], false),
            ("compressed", Method::POST, GRPC_CHECK, h2, None, &[&[1], &cart[1..]].concat(), false),
            ("two messages", Method::POST, GRPC_CHECK, h2, None, &[cart.clone(), cart.clone()].concat(), false),
            ("cut off", Method::POST, GRPC_CHECK, h2, None, &cart[..cart.len() - 1], false),
        ] {
            let facts = ProbeFacts { version, query, body: Some(body), upgrade: false };
            assert_eq!(is_probe(CALLS().iter(), (&method, path), &facts), want, "{what}");
            let upgrade = ProbeFacts { upgrade: true, ..facts };
            assert!(!is_probe(CALLS().iter(), (&method, path), &upgrade), "{what}, upgraded");
            let longer = ProbeFacts { body: None, ..facts };
            assert!(!is_probe(CALLS().iter(), (&method, path), &longer), "{what}, and more");
        }
    }

    #[test]
    fn a_probe_of_the_server_as_a_whole_names_no_service() {
        let calls = [ProbeCall::Grpc { service: String::new() }];
        for (service, want) in [("", true), ("shop.Cart", false)] {
            let body = check(service);
            let facts = ProbeFacts { version: Version::HTTP_2, body: Some(&body), ..ProbeFacts::default() };
            assert_eq!(is_probe(calls.iter(), (&Method::POST, GRPC_CHECK), &facts), want, "{service:?}");
        }
    }
}
