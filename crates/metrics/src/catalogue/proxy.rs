//! The node proxy's and the Gateway's proxy: one program.

use super::catalogue;
use crate::family::Component;

/// Both ends, and which end's proxy counted.
const ENDS: &[&str] =
    &["reporter", "source_namespace", "source_workload", "destination_namespace", "destination_workload"];
/// The Service port that was dialled; empty where none was.
const SERVICE: &[&str] = &["destination_service_namespace", "destination_service", "destination_port"];
/// The rule that matched; empty where none did.
const ROUTE: &[&str] = &["route", "rule"];
/// Whose series it is, of this proxy's pods.
const LOCAL: &[&str] = &["namespace", "workload"];

catalogue! { &[Component::Proxy];
    HTTP_REQUESTS = Counter None "weft_http_requests_total" [ENDS, SERVICE, ROUTE, &["connection_security", "protocol", "response_class", "reason", "grpc_status"]], "Requests that have ended, by who called whom, how they were answered, and why if the proxy ended them: timeouts, refusals and used-up budgets are reasons.";
    HTTP_REQUEST_TIME = Counter Seconds "weft_http_request_time_seconds_total" [ENDS, SERVICE, ROUTE, &["connection_security", "protocol"]], "Time that requests took, added up: over the number of requests it is the mean of one caller and one callee.";
    HTTP_RETRIES = Counter None "weft_http_retries_total" [ENDS, SERVICE, ROUTE, &["connection_security", "protocol"]], "Tries after the first.";
    HTTP_DURATION = Histogram Seconds "weft_http_request_duration_seconds" [&["reporter", "destination_namespace", "destination_workload"], SERVICE, ROUTE], "From the head of the request to the end of the answer. It doesn't tell callers apart, so that it has as many series as there are destinations.";
    HTTP_REQUEST_BODY = Histogram Bytes "weft_http_request_body_bytes" [&["reporter"], LOCAL], "Bodies of requests, by the workload of this proxy: at the source who called, at the destination who was called.";
    HTTP_RESPONSE_BODY = Histogram Bytes "weft_http_response_body_bytes" [&["reporter"], LOCAL], "Bodies of answers, by the workload of this proxy.";
    TCP_OPENED = Counter None "weft_tcp_connections_opened_total" [ENDS, SERVICE, &["connection_security"]], "Connections on which bytes began to flow; on a tunnel each stream is one. An end that other series name is called various.";
    TCP_OPEN = Gauge None "weft_tcp_connections" [ENDS, SERVICE, &["connection_security"]], "Those of them that are open now.";
    TCP_RECEIVED = Counter Bytes "weft_tcp_received_bytes_total" [ENDS, SERVICE, &["connection_security"]], "Bytes from clients, counted when a connection ends.";
    TCP_SENT = Counter Bytes "weft_tcp_sent_bytes_total" [ENDS, SERVICE, &["connection_security"]], "Bytes to clients, counted when a connection ends.";
    CONNECTIONS_REFUSED = Counter None "weft_tcp_connections_refused_total" [LOCAL, &["direction", "reason"]], "Connections and tunnel streams that ended before bytes could flow, by reason.";
    CONNECTIONS_SHED = Counter None "weft_tcp_connections_shed_total" [LOCAL, &["listener", "reason"]], "Connections reset on arrival because a budget was used up, by listener and reason.";
    ACCEPT_FAILURES = Counter None "weft_accept_failures_total" [LOCAL, &["listener", "class"]], "Failed calls of accept, by class: connection, pressure or listener.";
    LISTENERS_REOPENED = Counter None "weft_listeners_reopened_total" [LOCAL, &["listener"]], "Broken listeners that were opened anew.";
    PANICS = Counter None "weft_panics_total" [LOCAL], "Panics caught; each ended one connection or request.";
    STRICT_AUDIT = Counter None "weft_strict_audit_total" [LOCAL], "Plaintext connections that Strict would refuse, let through by StrictAudit.";
    NODE_PLAINTEXT = Counter None "weft_node_plaintext_connections_total" [LOCAL], "Plaintext connections from the node's own addresses, taken whatever the mode says: probes.";
    SOURCE_NOT_KEPT = Counter None "weft_source_address_not_kept_total" [LOCAL], "Inbound connections made from the proxy's own address because the families differ.";
    MIRRORED_REQUESTS = Counter None "weft_http_mirrored_requests_total" [LOCAL, SERVICE, &["result"]], "Copies of requests sent to mirrors, by result.";
    AUTH_CHECKS = Counter None "weft_external_auth_checks_total" [LOCAL, SERVICE, &["result"]], "Questions to external authorizers, by result: allowed, denied, or failed, which is a no as well.";
    HANDSHAKES = Counter None "weft_tls_handshakes_total" [LOCAL, &["role", "result", "tls_version", "cipher"]], "TLS handshakes of tunnels (role client or server) and of clients of Gateways (gateway), by result: ok, or the reason, without a version and a cipher then.";
    HANDSHAKE_DURATION = Histogram Seconds "weft_tls_handshake_duration_seconds" [&["role"]], "Time that successful TLS handshakes took, with the wait for their turn.";
    DECISIONS = Counter None "weft_authorization_decisions_total" [LOCAL, &["policy", "decision", "mode"]], "Decisions of authorization policies on connections and requests. An empty policy: no ALLOW policy matched. Mode audit decides nothing.";
    ENDPOINT_EJECTIONS = Counter None "weft_endpoint_ejections_total" [SERVICE], "Endpoints taken out of balancing for failing, by Service.";
    ENDPOINTS_EJECTED = Gauge None "weft_endpoints_ejected" [], "Endpoints out of balancing now; one that several workers have ejected counts for each.";
    TUNNELS = Gauge None "weft_tunnels" [], "Tunnels open from pods of this node that take streams.";
    TUNNEL_STREAMS = Gauge None "weft_tunnel_streams" [], "Streams on those tunnels.";
    TUNNEL_DIALS = Gauge None "weft_tunnel_dials" [], "Tunnels being dialled now.";
    HTTP_DOWNSTREAM = Gauge None "weft_http_downstream_connections" [], "Client connections on which HTTP is parsed.";
    HTTP_UPSTREAM_IDLE = Gauge None "weft_http_upstream_idle_connections" [], "Idle HTTP/1 connections to endpoints.";
    HTTP_UPSTREAM_H2 = Gauge None "weft_http2_upstream_connections" [], "HTTP/2 connections to endpoints.";
    HTTP_UPSTREAM_STREAMS = Gauge None "weft_http2_upstream_streams" [], "Requests under way on those.";
    SERIES = Gauge None "weft_telemetry_series" [], "Series that the budget of series counts: those of traffic, without the outcomes of requests after the first of each.";
    SERIES_LIMIT = Gauge None "weft_telemetry_series_limit" [], "The most that there may be; what is new then is counted as overflow.";
    SERIES_OVERFLOWED = Counter None "weft_telemetry_series_overflowed_total" [], "How often something was counted as overflow because there was no room for series of its own.";
    CONFIG_CHANGES = Counter None "weft_config_changes_total" [], "Batches of configuration applied since the start.";
    CONFIG_AGE = Gauge Seconds "weft_config_age_seconds" [], "Since the configuration last changed, or the process started.";
    CONFIG_INFO = Gauge None "weft_config_info" [&["version"]], "Always 1; the label is the control plane's version of what is applied.";
    CONFIG_CONNECTED = Gauge None "weft_config_connected" [], "Whether the stream of configuration is open.";
    CONFIG_SYNCED = Gauge None "weft_config_synced" [], "Whether everything came at least once since the start.";
    CONFIG_REJECTIONS = Counter None "weft_config_rejections_total" [], "Responses with a resource that could not be used: each was answered with a NACK.";
    CONFIG_HEARD_AGE = Gauge Seconds "weft_config_heard_age_seconds" [], "Since the control plane was last heard.";
    CERTIFICATE_EXPIRY = Gauge Seconds "weft_certificate_expiry_timestamp_seconds" [&["identity"]], "End of the certificate in use, Unix time; 0 while there is none.";
    RENEWAL_FAILURES = Gauge None "weft_certificate_renewal_failures" [&["identity"]], "Attempts to get a certificate that failed since the last that did not.";
    TRUSTED_ROOTS = Gauge None "weft_trusted_roots" [&["trust_domain"]], "Roots that peers' certificates may lead to: two while one replaces the other.";
    ROOT_EXPIRY = Gauge Seconds "weft_trusted_root_expiry_timestamp_seconds" [&["trust_domain"]], "When the root that ends last ends, Unix time: nothing of that domain is trusted then.";
    NODE_CONNECTIONS = Gauge None "weft_node_connections" [], "Connections open on the node.";
    NODE_CONNECTIONS_LIMIT = Gauge None "weft_node_connections_limit" [], "The most connections that the node takes.";
    PODS = Gauge None "weft_pods" [], "Pods served.";
    BUDGET_CONNECTIONS = Gauge None "weft_budget_connections" [&["namespace", "pod"]], "Connections open that count on a pod.";
    BUDGET_CONNECTIONS_LIMIT = Gauge None "weft_budget_connections_limit" [&["namespace", "pod"]], "The most connections that may be open.";
    BUDGET_HANDSHAKES = Gauge None "weft_budget_handshakes" [&["namespace", "pod"]], "TLS handshakes with a pod under way.";
    BUDGET_HANDSHAKES_LIMIT = Gauge None "weft_budget_handshakes_limit" [&["namespace", "pod"]], "The most handshakes that may be under way; more wait.";
    BUDGET_BUFFERS = Gauge Bytes "weft_budget_buffer_bytes" [&["namespace", "pod"]], "Bytes held for a pod because one end is slower.";
    BUDGET_BUFFERS_LIMIT = Gauge Bytes "weft_budget_buffer_bytes_limit" [&["namespace", "pod"]], "The most bytes that may be held.";
    DNS_FAILURES = Counter None "weft_gateway_dns_failures_total" [&["reason"]], "Hosts outside of the cluster whose addresses could not be had, by why: no_such_host or unanswered.";
    LOG_LINES_DROPPED = Counter None "weft_access_log_dropped_lines_total" [], "Lines of the access log that nobody wrote, because the output was slower than the requests.";
    LOG_RECORDS_DROPPED = Counter None "weft_access_log_records_dropped_total" [&["reason"]], "Lines of the access log that no collector got, by why: queue (too many at once), collector (it is slow or away), export (it failed) or refused (by it).";
    LOG_LINES_SUPPRESSED = Counter None "weft_log_lines_suppressed_total" [], "Lines of the process's own log that were not written, because one place in the code had too many in one second.";
    SPANS_DROPPED = Counter None "weft_trace_spans_dropped_total" [&["reason"]], "Spans that no collector got, by why: queue (too many at once), collector (it is slow or away), export (it failed) or refused (by it).";
}
