//! Alerts on node proxies, and Gateways' ones.

use super::{Alert, ON_NODE, Page, Proof, Scope, Severity};

pub(super) fn alerts() -> Vec<Alert> {
    vec![
        config_disconnected(),
        config_incomplete(),
        config_refused(),
        node_near_connection_limit(),
        accept_failing(),
        series_overflow(),
        node_proxy_down(),
        node_proxy_restarting(),
        panic(),
        file_descriptors_low(),
    ]
}

fn config_disconnected() -> Alert {
    Alert {
        name: "WeftConfigDisconnected",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "min by (cluster, node) (weft_config_connected) == 0".to_owned(),
        lasts: "5m",
        summary: "{{ $labels.node }} hears nothing from the controller.",
        description: "Its pods go on with the configuration it has: edits, new endpoints and new pods elsewhere aren't seen.",
        page: Page {
            causes: &[
                "No replica of the controller can be reached or is ready; without Kubernetes: the primary.",
                "The node's token or the roots aren't taken.",
                "A NetworkPolicy in the way of port 15010.",
            ],
            look: &[
                "`weft status`: which nodes follow. Dashboard *Weft / Control plane and CA*.",
                "The node proxy's log says what fails.",
            ],
            remedy: &[
                "Bring the controller back: see WeftControllerDown.",
                "Mend the network; the proxy connects by itself.",
            ],
        },
        proof: Proof { series: &[(r#"weft_config_connected{node="node-a"}"#, "1x3 0x30")], at: "20m", labels: ON_NODE },
    }
}

fn config_incomplete() -> Alert {
    Alert {
        name: "WeftConfigIncomplete",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: "min by (cluster, node) (weft_config_synced) == 0".to_owned(),
        lasts: "10m",
        summary: "The proxy of {{ $labels.node }} has had no whole configuration since it started.",
        description: "It serves from a saved copy, or nothing: pods that start there may have to wait.",
        page: Page {
            causes: &[
                "It has never reached the controller since its start.",
                "The controller has not listed all kinds of objects yet: its `/readyz` says which are missing.",
            ],
            look: &["`kubectl -n weft-system get pods`; `/readyz` of the node proxy and the controller."],
            remedy: &[
                "As for WeftConfigDisconnected; for a kind that can't be listed, the controller's log names the right or CRD that is missing.",
            ],
        },
        proof: Proof { series: &[(r#"weft_config_synced{node="node-a"}"#, "0x30")], at: "20m", labels: ON_NODE },
    }
}

fn config_refused() -> Alert {
    Alert {
        name: "WeftConfigRefused",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "sum by (cluster, node) (increase(weft_config_rejections_total[15m])) > 0".to_owned(),
        lasts: "0m",
        summary: "{{ $labels.node }} refuses a resource of its configuration.",
        description: "It keeps what it had of that one object; everything else counts. Mostly the node is older than the controller.",
        page: Page {
            causes: &[
                "A node proxy of an older version than the controller.",
                "A resource that is larger or newer than the proxy takes.",
            ],
            look: &[
                "`weft status` and the Event `RefusedByNode` name the object; its condition `weftmesh.io/Programmed` is False.",
            ],
            remedy: &["Finish the upgrade of the node proxies.", "Take back the edit of that object until then."],
        },
        proof: Proof {
            series: &[(r#"weft_config_rejections_total{node="node-a"}"#, "0x10 1x30")],
            at: "15m",
            labels: ON_NODE,
        },
    }
}

fn node_near_connection_limit() -> Alert {
    Alert {
        name: "WeftNodeNearConnectionLimit",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: "max by (cluster, node) (weft_node_connections / weft_node_connections_limit) > 0.9".to_owned(),
        lasts: "5m",
        summary: "{{ $labels.node }} has more than 90 % of the connections it takes.",
        description: "At the limit, new connections of all its pods are reset.",
        page: Page {
            causes: &[
                "Too many pods with too many connections for the proxy's memory.",
                "One pod that holds most of them.",
            ],
            look: &["Dashboard *Weft / Node proxy* of the node, and `weft top`."],
            remedy: &[
                "Raise `nodeProxy.resources.limits.memory`: one connection for each 128 KiB.",
                "Move pods to other nodes, or limit the one that holds most (MeshPolicy).",
            ],
        },
        proof: Proof {
            series: &[
                (r#"weft_node_connections{node="node-a"}"#, "15900x30"),
                (r#"weft_node_connections_limit{node="node-a"}"#, "16384x30"),
            ],
            at: "20m",
            labels: ON_NODE,
        },
    }
}

fn accept_failing() -> Alert {
    Alert {
        name: "WeftAcceptFailing",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: r#"sum by (cluster, node) (rate(weft_accept_failures_total{class=~"pressure|listener"}[5m])) > 0"#
            .to_owned(),
        lasts: "5m",
        summary: "The proxy of {{ $labels.node }} can't take connections.",
        description: "The kernel has no descriptors or memory left for it, or a listening socket is broken.",
        page: Page {
            causes: &[
                "The limit of file descriptors is lower than the proxy's limit of connections.",
                "The node is out of memory.",
            ],
            look: &["Dashboard *Weft / Node proxy*: file descriptors, memory, failures to accept by class."],
            remedy: &["Raise the limit of open files of the container runtime.", "Move pods away from the node."],
        },
        proof: Proof {
            series: &[(
                r#"weft_accept_failures_total{namespace="shop", workload="web", listener="outbound", class="pressure", node="node-a"}"#,
                "0+2x30",
            )],
            at: "20m",
            labels: ON_NODE,
        },
    }
}

fn series_overflow() -> Alert {
    Alert {
        name: "WeftSeriesOverflow",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "sum by (cluster, node) (increase(weft_telemetry_series_overflowed_total[15m])) > 0".to_owned(),
        lasts: "0m",
        summary: "{{ $labels.node }} has more series of metrics than its budget.",
        description: "What is beyond it is counted together, with `overflow` for its names: sums stay right, details are missing.",
        page: Page {
            causes: &["More pairs of callers and callees on one node than usual.", "Many routes that all of them use."],
            look: &["Dashboard *Weft / Node proxy*: series against the limit."],
            remedy: &[
                "Raise the budget of series (`nodeProxy.extraArgs`, as `weft node-proxy --help` lists it) if Prometheus can bear it.",
            ],
        },
        proof: Proof {
            series: &[(r#"weft_telemetry_series_overflowed_total{node="node-a"}"#, "0x10 40x30")],
            at: "15m",
            labels: ON_NODE,
        },
    }
}

fn node_proxy_down() -> Alert {
    Alert {
        name: "WeftNodeProxyDown",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: r#"max by (cluster, node) (up{job="weft-node-proxy"}) == 0"#.to_owned(),
        lasts: "3m",
        summary: "The proxy of {{ $labels.node }} can't be scraped.",
        description: "If it is down, connections of all pods of the mesh on that node are refused: nothing passes in the clear.",
        page: Page {
            causes: &[
                "The proxy is down, or doesn't start.",
                "It is up, and Prometheus can't reach port 15021: a NetworkPolicy (`networkPolicy.metricsFrom`).",
            ],
            look: &[
                "`kubectl -n weft-system get pods -o wide -l app.kubernetes.io/name=weft-node-proxy`, its log and that of its last run.",
                "Whether pods of the node reach anything: dashboard *Weft / Workload*.",
            ],
            remedy: &[
                "A proxy that doesn't start says why in its log: a token, roots, a successor that can't take over.",
                "Cordon the node while you look.",
            ],
        },
        proof: Proof {
            series: &[(r#"up{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "1x3 0x30")],
            at: "20m",
            labels: ON_NODE,
        },
    }
}

fn node_proxy_restarting() -> Alert {
    Alert {
        name: "WeftNodeProxyRestarting",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: r#"max by (cluster, node) (changes(process_start_time_seconds{job="weft-node-proxy"}[30m])) > 2"#
            .to_owned(),
        lasts: "0m",
        summary: "The proxy of {{ $labels.node }} starts again and again.",
        description: "Each time, connections of the node's pods are refused for a moment.",
        page: Page {
            causes: &["It is killed for its memory limit.", "A bug of ours."],
            look: &[
                "`kubectl -n weft-system describe pod`: the last state, OOMKilled or a signal. The log of the last run (`--previous`).",
            ],
            remedy: &[
                "Raise `nodeProxy.resources.limits.memory`.",
                "For a bug: `weft bugreport`, and the version before.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"process_start_time_seconds{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#,
                "100x5 400x5 800x5 1200x20",
            )],
            at: "25m",
            labels: ON_NODE,
        },
    }
}

fn panic() -> Alert {
    Alert {
        name: "WeftPanic",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        // A counter that appears has not increased yet, as Prometheus sees it; one that was there before Prometheus is none
        // that appears.
        expr: "sum by (cluster, node) (increase(weft_panics_total[15m])) > 0 or sum by (cluster, node) ((weft_panics_total \
               unless weft_panics_total offset 15m) and on (cluster, node) up{job=~\"weft-.*\"} offset 15m) > 0"
            .to_owned(),
        lasts: "0m",
        summary: "A bug of Weft's has ended a connection or request on {{ $labels.node }}.",
        description: "A panic was caught. It costs the one connection; the rest goes on.",
        page: Page {
            causes: &["A bug."],
            look: &["The node proxy's log has the place in the code."],
            remedy: &["Report it with `weft bugreport`. If it goes on, use the version before."],
        },
        proof: Proof {
            series: &[(r#"weft_panics_total{namespace="shop", workload="web", node="node-a"}"#, "_x10 1x30")],
            at: "15m",
            labels: ON_NODE,
        },
    }
}

fn file_descriptors_low() -> Alert {
    Alert {
        name: "WeftFileDescriptorsLow",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: r#"max by (cluster, job, instance) (process_open_fds{job=~"weft-.*"} / process_max_fds{job=~"weft-.*"}) > 0.85"#.to_owned(),
        lasts: "10m",
        summary: "{{ $labels.job }} at {{ $labels.instance }} is running out of file descriptors.",
        description: "Without descriptors it takes no more connections.",
        page: Page {
            causes: &["The limit of open files is lower than what the process needs.", "A leak."],
            look: &["Dashboard *Weft / Node proxy*: file descriptors beside connections: do they grow together?"],
            remedy: &["Raise the limit of open files of the container runtime.", "If descriptors grow and connections don't, report it with `weft bugreport` and replace the process."],
        },
        proof: Proof {
            series: &[
                (r#"process_open_fds{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "950x30"),
                (r#"process_max_fds{job="weft-node-proxy", instance="10.0.0.1:15021", node="node-a"}"#, "1024x30"),
            ],
            at: "20m",
            labels: &[("job", "weft-node-proxy"), ("instance", "10.0.0.1:15021")],
        },
    }
}
