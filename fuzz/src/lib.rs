//! Properties of every parser of bytes that a peer chose: one target for each, which panics where its property doesn't hold.
//!
//! `make fuzz` runs each with libFuzzer, on what it has found so far and on `corpus/`, whose files are named for what they are.
//! `cargo test` runs each on `corpus/`, and on that with some bytes changed.
//!
//! A first byte that chooses something (the size of pieces, a type) comes before what is parsed, so that one file is one case.

#![allow(clippy::panic, reason = "a panic is how a target says that its property doesn't hold")]

mod authorizer;
mod http;
mod identity;
mod quic;
mod transport;
mod wire;

/// Tries one input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their folders in `corpus/`.
pub const TARGETS: [(&str, Target); 27] = [
    ("auth_grpc", authorizer::auth_grpc),
    ("auth_http", authorizer::auth_http),
    ("authority", transport::authority),
    ("baggage", transport::baggage),
    ("certificate", identity::certificate),
    ("client_hello", transport::client_hello),
    ("csr", identity::csr),
    ("dns_reply", transport::dns_reply),
    ("forwarded", http::forwarded),
    ("grpc_web", http::grpc_web),
    ("grpc_web_call", http::grpc_web_call),
    ("h1_answer", http::h1_answer),
    ("h1_framing", http::h1_framing),
    ("h2_framing", http::h2_framing),
    ("h3_control", http::h3_control),
    ("h3_frames", http::h3_frames),
    ("h3_huffman", http::h3_huffman),
    ("h3_section", http::h3_section),
    ("hop", http::hop),
    ("normalize", http::normalize),
    ("proxy_protocol", transport::proxy_protocol),
    ("quic_hello", quic::hello),
    ("request", http::request),
    ("resource", wire::resource),
    ("session", http::session),
    ("spiffe_id", identity::spiffe_id),
    ("trace", http::trace),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// What the first byte of an input chooses, and the rest of it.
fn choice(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}
