//! Alerts on what clients get.

use super::{Alert, Page, Proof, Scope, Severity};
use crate::promql::{REQUESTS, failed, sum};

/// Fewer failing requests in a second than this are no alert: single ones make large shares of little traffic.
const FEW: &str = "0.1";

pub(super) fn alerts() -> Vec<Alert> {
    vec![
        service_failing(),
        gateway_failing(),
        no_endpoint(),
        connect_failing(),
        endpoints_ejected(),
        retry_budget_spent(),
        connections_shed(),
        pod_near_connection_limit(),
        authorizer_failing(),
    ]
}

fn service_failing() -> Alert {
    Alert {
        name: "WeftServiceFailing",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: format!(
            "weft:service_errors:rate5m / weft:service_requests:rate5m > 0.05 and weft:service_errors:rate5m > {FEW}"
        ),
        lasts: "5m",
        summary: "More than 5 % of requests to {{ $labels.destination_service_namespace }}/{{ $labels.destination_service }} fail.",
        description: "Callers get 5xx answers, gRPC statuses that mean the same, or none. The application, a proxy or the network made them.",
        page: Page {
            causes: &[
                "The application answers 5xx, or with a failing gRPC status: metrics have `reason=\"ok\"` for these requests.",
                "A new version or route: one backend or rule fails, the others don't.",
                "A proxy can't reach the application or ends requests itself: `reason` says why.",
            ],
            look: &[
                "Dashboard *Weft / Service*: since when, which caller, which version and route, which reason.",
                "`weft why REQUEST_ID` with the id of a failed request.",
                "If one backend of a route fails: dashboard *Weft / Route*.",
            ],
            remedy: &[
                "Take the weight off the failing backend in the route (`weight: 0`); it counts within a second.",
                "If the application answers so, it is the application's logs that say why.",
                "For a reason that isn't `ok`, follow [the page of that reason](../reasons/README.md).",
            ],
        },
        proof: Proof {
            // Half of the failures are of HTTP, half of gRPC: neither alone is more than 5 %.
            series: &[
                (
                    r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="cart", destination_service_namespace="shop", destination_service="cart", response_class="5xx", reason="ok", connection_security="mutual_tls"}"#,
                    "0+30x30",
                ),
                (
                    r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="cart", destination_service_namespace="shop", destination_service="cart", response_class="2xx", reason="ok", grpc_status="14", connection_security="mutual_tls"}"#,
                    "0+30x30",
                ),
                (
                    r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="cart", destination_service_namespace="shop", destination_service="cart", response_class="2xx", reason="ok", connection_security="mutual_tls"}"#,
                    "0+600x30",
                ),
            ],
            at: "20m",
            labels: &[("destination_service_namespace", "shop"), ("destination_service", "cart")],
        },
    }
}

fn gateway_failing() -> Alert {
    let routes = "cluster, source_namespace, source_workload, route";
    let outside = r#"reporter="source", destination_service="", route!="""#;
    let failures = sum(routes, &failed(outside, "5m"));
    Alert {
        name: "WeftGatewayFailing",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: format!(
            "{failures} / sum by ({routes}) (rate({REQUESTS}{{{outside}}}[5m])) > 0.05 and {failures} > {FEW}"
        ),
        lasts: "5m",
        summary: "More than 5 % of requests from outside along {{ $labels.route }} fail.",
        description: "Clients of Gateway {{ $labels.source_namespace }}/{{ $labels.source_workload }} get 5xx answers, gRPC statuses that mean the same, or none.",
        page: Page {
            causes: &[
                "The application behind the route answers 5xx, or with a failing gRPC status.",
                "The Gateway reaches no endpoint, or refuses its certificate (BackendTLSPolicy): `reason` says which.",
                "An external authorizer or a name outside that can't be resolved.",
            ],
            look: &[
                "Dashboard *Weft / Gateway*: which route and backend, and which reasons.",
                "The conditions of the route: `kubectl get httproute -o yaml`, or `weft describe`.",
                "`weft why REQUEST_ID`: clients have the id in the answer.",
            ],
            remedy: &[
                "Take the weight off the failing backend, or mend what the route's condition names.",
                "For a reason that isn't `ok`, follow [the page of that reason](../reasons/README.md).",
            ],
        },
        proof: Proof {
            // Half of the failures are of HTTP, half of gRPC: neither alone is more than 5 %.
            series: &[
                (
                    r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="public", destination_namespace="shop", destination_workload="web", destination_service="", route="HTTPRoute/shop/public", rule="0", response_class="5xx", reason="ok", connection_security="mutual_tls"}"#,
                    "0+30x30",
                ),
                (
                    r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="public", destination_namespace="shop", destination_workload="web", destination_service="", route="HTTPRoute/shop/public", rule="0", response_class="2xx", reason="ok", grpc_status="14", connection_security="mutual_tls"}"#,
                    "0+30x30",
                ),
                (
                    r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="public", destination_namespace="shop", destination_workload="web", destination_service="", route="HTTPRoute/shop/public", rule="0", response_class="2xx", reason="ok", connection_security="mutual_tls"}"#,
                    "0+600x30",
                ),
            ],
            at: "20m",
            labels: &[("source_namespace", "shop"), ("source_workload", "public"), ("route", "HTTPRoute/shop/public")],
        },
    }
}

fn no_endpoint() -> Alert {
    let called = "cluster, destination_service_namespace, destination_service, route";
    Alert {
        name: "WeftNoEndpoint",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: format!(
            r#"sum by ({called}) (rate(weft_http_requests_total{{reporter="source", reason="no_endpoint"}}[5m])) > 0"#
        ),
        lasts: "5m",
        summary: "Requests to {{ $labels.destination_service_namespace }}/{{ $labels.destination_service }} {{ $labels.route }} find no endpoint.",
        description: "The Service, or the route's backend, has no endpoint that is ready: callers get 503.",
        page: Page {
            causes: &[
                "No pod of the Service is ready, or its selector matches none.",
                "The route names a Service with no pods, such as a version that was scaled to zero.",
                "Without Kubernetes: the pods' node has been away for longer than its patience.",
            ],
            look: &[
                "`kubectl get endpointslices -l kubernetes.io/service-name=NAME`; without Kubernetes `weft status`.",
                "`weft explain CALLER SERVICE` says which endpoints the plan has, and why others are left out.",
            ],
            remedy: &[
                "Bring a pod up, or correct the selector or the route's backendRef.",
                "If endpoints are ready and unused: `weft status` shows a node that doesn't follow the controller.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="unknown", destination_workload="unknown", destination_service_namespace="shop", destination_service="cart", route="HTTPRoute/shop/cart", rule="0", response_class="5xx", reason="no_endpoint", connection_security="none"}"#,
                "0+3x30",
            )],
            at: "20m",
            labels: &[
                ("destination_service_namespace", "shop"),
                ("destination_service", "cart"),
                ("route", "HTTPRoute/shop/cart"),
            ],
        },
    }
}

fn connect_failing() -> Alert {
    Alert {
        name: "WeftConnectFailing",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: format!(
            "sum by (cluster, destination_namespace, destination_workload, reason) \
             (rate(weft_http_requests_total{{reporter=\"source\", \
             reason=~\"connect_failed|connect_timeout|tunnel_refused|tunnel_reset\"}}[5m])) > {FEW}"
        ),
        lasts: "10m",
        summary: "Connections to {{ $labels.destination_namespace }}/{{ $labels.destination_workload }} fail: {{ $labels.reason }}.",
        description: "Clients' proxies can't reach the workload, or its node's proxy, and answer 503.",
        page: Page {
            causes: &[
                "`connect_failed`: the application doesn't listen on the port, or its pod has gone.",
                "`connect_timeout`: the network drops packets; often a NetworkPolicy that doesn't let port 15008 in.",
                "`tunnel_refused`, `tunnel_reset`: the destination's node proxy turned the stream away, or ended.",
            ],
            look: &[
                "Dashboard *Weft / Workload* of the workload: refused connections by reason, at both ends.",
                "Dashboard *Weft / Node proxy* of its node.",
                "`weft connectivity test` between the two namespaces.",
            ],
            remedy: &[
                "Let port 15008 in beside the application's port in NetworkPolicies.",
                "If one node is concerned: `kubectl -n weft-system get pods -o wide` and the log of its node proxy.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="cart", destination_service_namespace="shop", destination_service="cart", response_class="5xx", reason="connect_timeout", connection_security="none"}"#,
                "0+30x30",
            )],
            at: "20m",
            labels: &[
                ("destination_namespace", "shop"),
                ("destination_workload", "cart"),
                ("reason", "connect_timeout"),
            ],
        },
    }
}

fn endpoints_ejected() -> Alert {
    Alert {
        name: "WeftEndpointsEjected",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "sum by (cluster, destination_service_namespace, destination_service) (increase(weft_endpoint_ejections_total[15m])) > 5".to_owned(),
        lasts: "10m",
        summary: "Endpoints of {{ $labels.destination_service_namespace }}/{{ $labels.destination_service }} are taken out of balancing again and again.",
        description: "Single endpoints fail while others answer. Callers see little of it as long as the others last.",
        page: Page {
            causes: &[
                "One pod is unwell though its readiness probe passes.",
                "One node's network or proxy is unwell: all endpoints are on it.",
            ],
            look: &[
                "Dashboard *Weft / Service*: retries and ejections; *Weft / Node proxy*: endpoints out of balancing.",
                "The access log of errors names the endpoint: field `endpoint`.",
            ],
            remedy: &["Restart or remove that pod, and correct its readiness probe.", "Drain the node if it is the node."],
        },
        proof: Proof {
            series: &[(r#"weft_endpoint_ejections_total{destination_service_namespace="shop", destination_service="cart", destination_port="80", node="node-a"}"#, "0+1x40")],
            at: "30m",
            labels: &[("destination_service_namespace", "shop"), ("destination_service", "cart")],
        },
    }
}

fn retry_budget_spent() -> Alert {
    let called = "cluster, destination_service_namespace, destination_service, route";
    Alert {
        name: "WeftRetryBudgetSpent",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: format!(
            r#"sum by ({called}) (rate(weft_http_requests_total{{reporter="source", reason="retry_budget"}}[5m])) > 0"#
        ),
        lasts: "5m",
        summary: "Requests to {{ $labels.destination_service_namespace }}/{{ $labels.destination_service }} {{ $labels.route }} are no longer tried again.",
        description: "So many tries fail that more of them would make it worse: the budget of retries is used up, callers get 503.",
        page: Page {
            causes: &["The backend is overloaded or failing, and retries come on top."],
            look: &["Dashboard *Weft / Route*: retries, failures by backend and reason."],
            remedy: &[
                "Help the backend: more replicas, less traffic (weights), or an older version. The budget itself is rarely the problem.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"weft_http_requests_total{reporter="source", source_namespace="shop", source_workload="web", destination_namespace="shop", destination_workload="cart", destination_service_namespace="shop", destination_service="cart", route="HTTPRoute/shop/cart", rule="0", response_class="5xx", reason="retry_budget", connection_security="mutual_tls"}"#,
                "0+3x30",
            )],
            at: "20m",
            labels: &[
                ("destination_service_namespace", "shop"),
                ("destination_service", "cart"),
                ("route", "HTTPRoute/shop/cart"),
            ],
        },
    }
}

fn connections_shed() -> Alert {
    Alert {
        name: "WeftConnectionsShed",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "sum by (cluster, namespace, workload, reason) (rate(weft_tcp_connections_shed_total[5m])) > 0"
            .to_owned(),
        lasts: "5m",
        summary: "Connections to {{ $labels.namespace }}/{{ $labels.workload }} are reset on arrival: {{ $labels.reason }}.",
        description: "A budget of the workload or of the node is used up; clients are turned away so that the rest goes on.",
        page: Page {
            causes: &[
                "More clients than `limits` of the MeshPolicy let in.",
                "Clients that open connections and don't close them.",
            ],
            look: &["Dashboard *Weft / Namespace*: budgets of its pods. `weft top` shows who holds the connections."],
            remedy: &[
                "Raise the limit in the MeshPolicy if the pod can bear it, or add replicas.",
                "Mend the client that doesn't reuse or close connections.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"weft_tcp_connections_shed_total{namespace="shop", workload="orders", listener="inbound", reason="limit_connections", node="node-a"}"#,
                "0+5x30",
            )],
            at: "20m",
            labels: &[("namespace", "shop"), ("workload", "orders"), ("reason", "limit_connections")],
        },
    }
}

fn pod_near_connection_limit() -> Alert {
    Alert {
        name: "WeftPodNearConnectionLimit",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "max by (cluster, namespace, pod) (weft_budget_connections) / max by (cluster, namespace, pod) (weft_budget_connections_limit) > 0.9".to_owned(),
        lasts: "10m",
        summary: "Pod {{ $labels.namespace }}/{{ $labels.pod }} has more than 90 % of the connections it may have.",
        description: "At the limit, new connections are reset.",
        page: Page {
            causes: &["More clients than before.", "A limit that is meant for less.", "Clients that don't close connections."],
            look: &["Dashboard *Weft / Namespace*: since when. *Weft / Workload*: from whom."],
            remedy: &["Add replicas, or raise `limits.maxConnections` in the MeshPolicy.", "On a node proxy's default limit: raise `nodeProxy.resources.limits.memory`, by which it sizes itself."],
        },
        proof: Proof {
            series: &[
                (r#"weft_budget_connections{namespace="shop", pod="orders-1", node="node-a"}"#, "60x30"),
                (r#"weft_budget_connections_limit{namespace="shop", pod="orders-1", node="node-a"}"#, "64x30"),
            ],
            at: "20m",
            labels: &[("namespace", "shop"), ("pod", "orders-1")],
        },
    }
}

fn authorizer_failing() -> Alert {
    Alert {
        name: "WeftAuthorizerFailing",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: r#"sum by (cluster, namespace, workload, destination_service_namespace, destination_service) (rate(weft_external_auth_checks_total{result="failed"}[5m])) > 0"#.to_owned(),
        lasts: "5m",
        summary: "External authorizer {{ $labels.destination_service_namespace }}/{{ $labels.destination_service }} gives no answer.",
        description: "Nobody's answer is a no: requests of {{ $labels.namespace }}/{{ $labels.workload }} that need it get 403.",
        page: Page {
            causes: &["The authorizer is down, too slow, or answers something that isn't of its protocol.", "A policy denies the caller to call the authorizer."],
            look: &["Dashboard *Weft / Service* of the authorizer.", "The access log: reason `auth_failed`."],
            remedy: &["Bring the authorizer up. Take the filter out of the route only if its requests may go on unasked."],
        },
        proof: Proof {
            series: &[(r#"weft_external_auth_checks_total{namespace="shop", workload="public", destination_service_namespace="shop", destination_service="authz", destination_port="9000", result="failed", node="node-a"}"#, "0+5x30")],
            at: "20m",
            labels: &[("namespace", "shop"), ("workload", "public"), ("destination_service_namespace", "shop"), ("destination_service", "authz")],
        },
    }
}
