//! The metrics of the proxy: those of the catalogue.

#[cfg(test)]
use weft_metrics::Family;
pub use weft_metrics::proxy::*;

/// Those that are counted by their name, as [`super::EventLabels`] has it.
#[cfg(test)]
pub(super) static EVENTS: &[&Family] = &[
    &CONNECTIONS_REFUSED,
    &CONNECTIONS_SHED,
    &ACCEPT_FAILURES,
    &LISTENERS_REOPENED,
    &PANICS,
    &STRICT_AUDIT,
    &NODE_PLAINTEXT,
    &SOURCE_NOT_KEPT,
    &MIRRORED_REQUESTS,
    &AUTH_CHECKS,
    &HANDSHAKES,
    &DECISIONS,
    &ENDPOINT_EJECTIONS,
    &ENDPOINTS_EJECTED,
    &TUNNELS,
    &TUNNEL_STREAMS,
    &TUNNEL_DIALS,
    &HTTP_DOWNSTREAM,
    &HTTP_UPSTREAM_IDLE,
    &HTTP_UPSTREAM_H2,
    &HTTP_UPSTREAM_STREAMS,
];
