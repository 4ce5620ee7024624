//! Series of a healthy mesh with traffic, one value each minute for two hours: a canary, a Gateway, a TCP database, few errors.

/// Series and values as `promtool` takes them.
pub(super) const HEALTHY: &[(&str, &str)] = &[
    // What clients get. One request in two hundred fails.
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="catalog-v1", destination_service_namespace="shop", destination_service="catalog", destination_port="80", route="HTTPRoute/shop/catalog-canary", rule="0", connection_security="mutual_tls", protocol="http1", response_class="2xx", reason="ok", grpc_status="", node="node-a"}"#,
        "0+5400x120",
    ),
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="catalog-v2", destination_service_namespace="shop", destination_service="catalog", destination_port="80", route="HTTPRoute/shop/catalog-canary", rule="0", connection_security="local", protocol="http1", response_class="2xx", reason="ok", grpc_status="", node="node-a"}"#,
        "0+570x120",
    ),
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="catalog-v2", destination_service_namespace="shop", destination_service="catalog", destination_port="80", route="HTTPRoute/shop/catalog-canary", rule="0", connection_security="local", protocol="http1", response_class="5xx", reason="ok", grpc_status="", node="node-a"}"#,
        "0+30x120",
    ),
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="public", destination_namespace="shop", destination_workload="web", destination_service="", route="HTTPRoute/shop/public", rule="0", connection_security="mutual_tls", protocol="http2", response_class="2xx", reason="ok", grpc_status="", node="node-a"}"#,
        "0+1200x120",
    ),
    // gRPC: HTTP says 200 of all of it. Not to be found is an answer, not to be available a failure.
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="quotes", destination_service_namespace="shop", destination_service="quotes", destination_port="50051", route="GRPCRoute/shop/quotes", rule="0", connection_security="mutual_tls", protocol="grpc", response_class="2xx", reason="ok", grpc_status="0", node="node-a"}"#,
        "0+1110x120",
    ),
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="quotes", destination_service_namespace="shop", destination_service="quotes", destination_port="50051", route="GRPCRoute/shop/quotes", rule="0", connection_security="mutual_tls", protocol="grpc", response_class="2xx", reason="ok", grpc_status="5", node="node-a"}"#,
        "0+60x120",
    ),
    (
        r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="quotes", destination_service_namespace="shop", destination_service="quotes", destination_port="50051", route="GRPCRoute/shop/quotes", rule="0", connection_security="mutual_tls", protocol="grpc", response_class="2xx", reason="ok", grpc_status="14", node="node-a"}"#,
        "0+30x120",
    ),
    (
        r#"weft_http_request_time_seconds_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="catalog-v1", destination_service_namespace="shop", destination_service="catalog", destination_port="80", route="HTTPRoute/shop/catalog-canary", rule="0", connection_security="mutual_tls", protocol="http1", node="node-a"}"#,
        "0+27x120",
    ),
    (
        r#"weft_endpoint_ejections_total{destination_service_namespace="shop", destination_service="catalog", destination_port="80", node="node-a"}"#,
        "1x120",
    ),
    (
        r#"weft_external_auth_checks_total{namespace="shop", workload="public", destination_service_namespace="shop", destination_service="authz", destination_port="9000", result="allowed", node="node-a"}"#,
        "0+600x120",
    ),
    (
        r#"weft_external_auth_checks_total{namespace="shop", workload="public", destination_service_namespace="shop", destination_service="authz", destination_port="9000", result="denied", node="node-a"}"#,
        "0+60x120",
    ),
    (
        r#"weft_tcp_connections_shed_total{namespace="shop", workload="orders", listener="inbound", reason="limit_connections", node="node-a"}"#,
        "7x120",
    ),
    // Connections and budgets.
    (
        r#"weft_tcp_connections_opened_total{reporter="source", source_namespace="shop", source_workload="orders", destination_namespace="shop", destination_workload="ledger", destination_service_namespace="shop", destination_service="ledger", destination_port="5432", connection_security="mutual_tls", node="node-a"}"#,
        "0+6x120",
    ),
    (
        r#"weft_tcp_connections_opened_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="various", destination_workload="various", destination_service="", connection_security="mutual_tls", node="node-a"}"#,
        "0+60x120",
    ),
    (
        r#"weft_tcp_received_bytes_total{reporter="source", source_namespace="shop", source_workload="orders", destination_namespace="shop", destination_workload="ledger", destination_service_namespace="shop", destination_service="ledger", destination_port="5432", connection_security="mutual_tls", node="node-a"}"#,
        "0+6000x120",
    ),
    (
        r#"weft_tcp_sent_bytes_total{reporter="source", source_namespace="shop", source_workload="orders", destination_namespace="shop", destination_workload="ledger", destination_service_namespace="shop", destination_service="ledger", destination_port="5432", connection_security="mutual_tls", node="node-a"}"#,
        "0+54000x120",
    ),
    (r#"weft_budget_connections{namespace="shop", pod="orders-1", node="node-a"}"#, "12x120"),
    (r#"weft_budget_connections_limit{namespace="shop", pod="orders-1", node="node-a"}"#, "64x120"),
    (r#"weft_node_connections{node="node-a"}"#, "420x120"),
    (r#"weft_node_connections_limit{node="node-a"}"#, "16384x120"),
    (
        r#"weft_accept_failures_total{namespace="shop", workload="web", listener="outbound", class="connection", node="node-a"}"#,
        "0+1x120",
    ),
    // Certificates: renewed at half of a day's life.
    (
        r#"weft_certificate_expiry_timestamp_seconds{identity="spiffe://cluster.local/ns/shop/sa/web", node="node-a"}"#,
        "86400x120",
    ),
    // One that a pod without traffic has never asked for.
    (
        r#"weft_certificate_expiry_timestamp_seconds{identity="spiffe://cluster.local/ns/shop/sa/idle", node="node-a"}"#,
        "0x120",
    ),
    (
        r#"weft_certificate_renewal_failures{identity="spiffe://cluster.local/ns/shop/sa/web", node="node-a"}"#,
        "0x30 1 0x90",
    ),
    (r#"weft_trusted_root_expiry_timestamp_seconds{trust_domain="cluster.local", node="node-a"}"#, "315360000x120"),
    (
        r#"weft_tls_handshakes_total{namespace="shop", workload="web", role="client", result="ok", tls_version="1.3", cipher="TLS13_AES_256_GCM_SHA384", node="node-a"}"#,
        "0+6x120",
    ),
    (
        r#"weft_tls_handshakes_total{namespace="shop", workload="web", role="client", result="connect_timeout", tls_version="", cipher="", node="node-a"}"#,
        "1x120",
    ),
    (
        r#"weft_tcp_connections_refused_total{namespace="shop", workload="payments", direction="inbound", reason="plaintext_refused", node="node-b"}"#,
        "3x120",
    ),
    (r#"weft_strict_audit_total{namespace="shop", workload="payments", node="node-b"}"#, "4x120"),
    // Node proxies, one of which was upgraded.
    (r#"up{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "1x120"),
    (r#"process_start_time_seconds{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "0x60 3600x60"),
    (r#"process_open_fds{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "300x120"),
    (r#"process_max_fds{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "65536x120"),
    (r#"weft_config_connected{node="node-a"}"#, "1x50 0x2 1x70"),
    (r#"weft_config_synced{node="node-a"}"#, "0x1 1x120"),
    (r#"weft_config_rejections_total{node="node-a"}"#, "0x120"),
    (r#"weft_telemetry_series_overflowed_total{node="node-a"}"#, "0x120"),
    // There is no series of panics before the first one; one of long ago is history.
    (r#"weft_panics_total{namespace="shop", workload="web", node="node-b"}"#, "1x120"),
    // A cluster's own.
    (r#"up{job="weft-controller", instance="10.0.0.2:15014"}"#, "1x120"),
    (r#"up{job="weft-ca", instance="10.0.0.3:15014"}"#, "1x120"),
    (r#"weft_controller_leader{job="weft-controller", instance="10.0.0.2:15014"}"#, "1x60 0x60"),
    (r#"weft_controller_leader{job="weft-controller", instance="10.0.0.4:15014"}"#, "0x60 1x60"),
    (
        r#"weft_controller_push_to_ack_seconds_bucket{job="weft-controller", instance="10.0.0.2:15014", le="1.0"}"#,
        "0+10x120",
    ),
    (
        r#"weft_controller_push_to_ack_seconds_bucket{job="weft-controller", instance="10.0.0.2:15014", le="10.0"}"#,
        "0+10x120",
    ),
    (
        r#"weft_controller_push_to_ack_seconds_bucket{job="weft-controller", instance="10.0.0.2:15014", le="+Inf"}"#,
        "0+10x120",
    ),
    (r#"weft_controller_refused_resources{job="weft-controller", instance="10.0.0.2:15014"}"#, "0x120"),
    (r#"weft_controller_unreadable_objects{job="weft-controller", instance="10.0.0.2:15014"}"#, "0x120"),
    (r#"weft_kube_watch_errors_total{job="weft-controller", instance="10.0.0.2:15014", resource="pods"}"#, "0+1x120"),
    (r#"weft_ca_leader{job="weft-ca", instance="10.0.0.3:15014"}"#, "1x120"),
    (r#"weft_ca_bad_secret{job="weft-ca", instance="10.0.0.3:15014", secret="weft-ca"}"#, "0x120"),
    (r#"weft_ca_intermediate_expiry_timestamp_seconds{job="weft-ca", instance="10.0.0.3:15014"}"#, "31536000x120"),
    (r#"weft_agent_ready{job="weft-agent", node="node-a"}"#, "0x3 1x120"),
    (r#"weft_agent_pods{job="weft-agent", node="node-a", protection="protected"}"#, "12x120"),
    (r#"weft_agent_pods{job="weft-agent", node="node-a", protection="closed"}"#, "1x2 0x120"),
    (r#"weft_agent_pods{job="weft-agent", node="node-a", protection="unprotected"}"#, "0x120"),
    (r#"weft_agent_bypass{job="weft-agent", node="node-a", strict="false"}"#, "0x120"),
    (r#"weft_agent_bypass{job="weft-agent", node="node-a", strict="true"}"#, "0x120"),
    (r#"weft_agent_installs_total{job="weft-agent", node="node-a", result="installed"}"#, "1x120"),
    (r#"weft_agent_installs_total{job="weft-agent", node="node-a", result="repaired"}"#, "1x120"),
];

/// What recording rules make of these series after half an hour: the expression, the labels and the value.
pub(super) const RECORDED: &[(&str, &str, f64)] = &[
    ("sum(weft:edge_requests:rate5m)", "{}", 140.0),
    (r#"sum(weft:edge_requests:rate5m{connection_security="local"})"#, "{}", 10.0),
    ("sum(weft:edge_errors:rate5m)", "{}", 1.0),
    (r#"sum(weft:edge_errors:rate5m{destination_workload="catalog-v1"})"#, "{}", 0.0),
    (r#"sum(weft:edge_errors:rate5m{destination_workload="quotes"})"#, "{}", 0.5),
    (r#"sum(weft:edge_request_duration_seconds:mean5m{destination_workload="catalog-v1"})"#, "{}", 0.005),
    ("sum(weft:edge_connections:rate5m)", "{}", 0.1),
    ("sum(weft:edge_bytes:rate5m)", "{}", 1000.0),
    (
        r#"weft:service_requests:rate5m{destination_service="catalog"}"#,
        r#"weft:service_requests:rate5m{destination_service_namespace="shop", destination_service="catalog"}"#,
        100.0,
    ),
    (
        r#"weft:service_errors:rate5m{destination_service="catalog"}"#,
        r#"weft:service_errors:rate5m{destination_service_namespace="shop", destination_service="catalog"}"#,
        0.5,
    ),
    (r#"sum(weft:service_errors:rate5m{destination_service="quotes"})"#, "{}", 0.5),
    (r#"sum(weft:route_requests:rate5m{destination_workload="catalog-v2"})"#, "{}", 10.0),
    (r#"sum(weft:route_errors:rate5m{destination_workload="catalog-v2"})"#, "{}", 0.5),
    (r#"sum(weft:route_errors:rate5m{destination_workload="quotes"})"#, "{}", 0.5),
    ("weft:mesh_requests:rate5m", "weft:mesh_requests:rate5m{}", 140.0),
    ("weft:mesh_errors:rate5m", "weft:mesh_errors:rate5m{}", 1.0),
    ("weft:mesh_encrypted:ratio5m", "weft:mesh_encrypted:ratio5m{}", 1.0),
];
