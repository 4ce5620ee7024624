//! Istio's names for what the proxy counts anyway, for tools that ask for those. Written only where that was asked for.

use super::catalogue;
use crate::family::Component;

/// Of every series.
const ENDS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_canonical_service",
    "source_canonical_revision",
    "source_app",
    "source_version",
    "source_cluster",
    "source_principal",
    "destination_workload",
    "destination_workload_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "connection_security_policy",
    "request_protocol",
    "response_flags",
];

catalogue! { &[Component::Proxy];
    REQUESTS = Counter None "istio_requests_total" [ENDS, &["response_code", "grpc_response_status"]], "Requests; the response code is the first of its class.";
    DURATION = Histogram Milliseconds "istio_request_duration_milliseconds" [ENDS], "From the head of the request to the end of the answer; callers aren't told apart.";
    REQUEST_BYTES = Histogram Bytes "istio_request_bytes" [ENDS], "Bodies of requests, by the caller.";
    RESPONSE_BYTES = Histogram Bytes "istio_response_bytes" [ENDS], "Bodies of answers, by the caller.";
    TCP_OPENED = Counter None "istio_tcp_connections_opened_total" [ENDS], "Connections of which bytes are relayed.";
    TCP_CLOSED = Counter None "istio_tcp_connections_closed_total" [ENDS], "Those that have ended.";
    TCP_RECEIVED = Counter Bytes "istio_tcp_received_bytes_total" [ENDS], "Bytes from clients.";
    TCP_SENT = Counter Bytes "istio_tcp_sent_bytes_total" [ENDS], "Bytes to clients.";
}
