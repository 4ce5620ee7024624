//! Alerts on the controller and on agents, which only a cluster has.

use super::{Alert, ON_NODE, Page, Proof, Scope, Severity};

pub(super) fn alerts() -> Vec<Alert> {
    vec![
        controller_down(),
        controller_no_leader(),
        push_slow(),
        resources_refused(),
        objects_unreadable(),
        api_server_failing(),
        agent_not_ready(),
        pods_unprotected(),
        node_bypassed(),
        pods_closed(),
        plugin_contested(),
    ]
}

fn controller_down() -> Alert {
    Alert {
        name: "WeftControllerDown",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: r#"absent(up{job="weft-controller"} == 1)"#.to_owned(),
        lasts: "5m",
        summary: "No replica of the controller is up.",
        description: "Traffic goes on as it is. Edits, new endpoints and new pods aren't seen, statuses aren't written.",
        page: Page {
            causes: &[
                "Its pods don't run: a node that is gone, a quota, an image.",
                "They run and can't be scraped: a NetworkPolicy (`networkPolicy.metricsFrom`).",
                "Prometheus has no target: the monitor isn't selected.",
            ],
            look: &[
                "`kubectl -n weft-system get pods -l app.kubernetes.io/name=weft-controller`, their events and logs.",
                "Prometheus' page of targets.",
            ],
            remedy: &["Mend what the events name. More replicas: `controller.replicas`, `ha-values.yaml`."],
        },
        proof: Proof {
            series: &[(r#"up{job="weft-controller", instance="10.0.0.2:15014"}"#, "1x3 0x30")],
            at: "20m",
            labels: &[],
        },
    }
}

fn controller_no_leader() -> Alert {
    Alert {
        name: "WeftControllerNoLeader",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr: "max by (cluster) (weft_controller_leader) == 0".to_owned(),
        lasts: "5m",
        summary: "No replica of the controller writes statuses.",
        description: "Configuration is served all the same. Statuses of routes and Gateways stay as they are; Gateways' pods aren't kept.",
        page: Page {
            causes: &[
                "The Lease can't be written: a right or the API server is missing.",
                "A replica that is gone still holds it: for fifteen seconds at most.",
            ],
            look: &["`kubectl -n weft-system get lease weft-controller -o yaml`; `weft_kube_lease_errors_total`."],
            remedy: &["Give back the right that the log names, or bring the API server back."],
        },
        proof: Proof {
            series: &[(r#"weft_controller_leader{job="weft-controller", instance="10.0.0.2:15014"}"#, "0x30")],
            at: "20m",
            labels: &[],
        },
    }
}

fn push_slow() -> Alert {
    Alert {
        name: "WeftPushSlow",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr:
            "histogram_quantile(0.99, sum by (cluster, le) (rate(weft_controller_push_to_ack_seconds_bucket[10m]))) > 5"
                .to_owned(),
        lasts: "10m",
        summary: "Edits take more than five seconds to reach nodes.",
        description: "The 99th percentile of the time from a push to the proxy's acknowledgement.",
        page: Page {
            causes: &["A node proxy or its node has no CPU left.", "The controller has none."],
            look: &[
                "Dashboard *Weft / Control plane and CA*: work on a change, and the time to the acknowledgement.",
                "Dashboard *Weft / Node proxy*: CPU by node.",
            ],
            remedy: &["Give the one that is short of CPU more: `controller.resources`, `nodeProxy.resources`."],
        },
        proof: Proof {
            series: &[
                (
                    r#"weft_controller_push_to_ack_seconds_bucket{job="weft-controller", instance="10.0.0.2:15014", le="1.0"}"#,
                    "0x40",
                ),
                (
                    r#"weft_controller_push_to_ack_seconds_bucket{job="weft-controller", instance="10.0.0.2:15014", le="10.0"}"#,
                    "0+10x40",
                ),
                (
                    r#"weft_controller_push_to_ack_seconds_bucket{job="weft-controller", instance="10.0.0.2:15014", le="+Inf"}"#,
                    "0+10x40",
                ),
            ],
            at: "30m",
            labels: &[],
        },
    }
}

fn resources_refused() -> Alert {
    Alert {
        name: "WeftResourcesRefused",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr: "max by (cluster) (weft_controller_refused_resources) > 0".to_owned(),
        lasts: "10m",
        summary: "Nodes refuse parts of the configuration.",
        description: "The edit of one object doesn't count on some nodes: its condition `weftmesh.io/Programmed` is False.",
        page: Page {
            causes: &["Node proxies older than the controller."],
            look: &["`weft status` lists what is refused, and by whom."],
            remedy: &["Finish the upgrade of the node proxies, or take the edit back."],
        },
        proof: Proof {
            series: &[(
                r#"weft_controller_refused_resources{job="weft-controller", instance="10.0.0.2:15014"}"#,
                "1x30",
            )],
            at: "20m",
            labels: &[],
        },
    }
}

fn objects_unreadable() -> Alert {
    Alert {
        name: "WeftObjectsUnreadable",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr: "max by (cluster) (weft_controller_unreadable_objects) > 0".to_owned(),
        lasts: "10m",
        summary: "Objects in the cluster can't be read.",
        description: "They count as they last could be: an unreadable policy denies its scope, an unreadable route answers 500.",
        page: Page {
            causes: &[
                "CRDs of a version whose fields the controller doesn't know.",
                "An object that was written past validation.",
            ],
            look: &["The controller's log names the object and the field."],
            remedy: &["Correct the object, or install CRDs of a release that is supported (docs/install.md)."],
        },
        proof: Proof {
            series: &[(
                r#"weft_controller_unreadable_objects{job="weft-controller", instance="10.0.0.2:15014"}"#,
                "2x30",
            )],
            at: "20m",
            labels: &[],
        },
    }
}

fn api_server_failing() -> Alert {
    Alert {
        name: "WeftApiServerFailing",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr: "sum by (cluster, job) (rate(weft_kube_watch_errors_total[5m])) > 0.1".to_owned(),
        lasts: "10m",
        summary: "{{ $labels.job }} can't watch objects of the cluster.",
        description: "What it knows grows old: the API server fails, or a right is missing.",
        page: Page {
            causes: &[
                "The API server is overloaded or away.",
                "A ClusterRole that was changed or is of an older release.",
            ],
            look: &[
                "Dashboard *Weft / Control plane and CA*: errors by resource. The log has the API server's answer.",
            ],
            remedy: &["403: install the release's roles again (`helm upgrade`). Anything else: the API server."],
        },
        proof: Proof {
            series: &[(
                r#"weft_kube_watch_errors_total{job="weft-controller", instance="10.0.0.2:15014", resource="pods"}"#,
                "0+30x30",
            )],
            at: "20m",
            labels: &[("job", "weft-controller")],
        },
    }
}

fn agent_not_ready() -> Alert {
    Alert {
        name: "WeftAgentNotReady",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: "max by (cluster, node) (weft_agent_ready) == 0".to_owned(),
        lasts: "10m",
        summary: "{{ $labels.node }} can't take pods of the mesh.",
        description: "Pods of the mesh that start there wait. Those that run go on.",
        page: Page {
            causes: &[
                "Its node proxy isn't there.",
                "The CNI plugin can't be installed: another directory than `cni.confDir`, `cni.binDir`.",
                "The probe through the data plane fails.",
            ],
            look: &[
                "`kubectl -n weft-system logs -l app.kubernetes.io/name=weft-agent` of that node; `/readyz` says what is missing.",
            ],
            remedy: &["Mend what `/readyz` names; the directories are in docs/install.md, *Platforms*."],
        },
        proof: Proof {
            series: &[(r#"weft_agent_ready{job="weft-agent", node="node-a"}"#, "0x30")],
            at: "20m",
            labels: ON_NODE,
        },
    }
}

fn pods_unprotected() -> Alert {
    Alert {
        name: "WeftPodsUnprotected",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: r#"sum by (cluster, node) (weft_agent_pods{protection="unprotected"}) > 0"#.to_owned(),
        lasts: "10m",
        summary: "Pods on {{ $labels.node }} talk in the clear although they should be in the mesh.",
        description: "They were started while the agent was away, or their network can't be found.",
        page: Page {
            causes: &[
                "The node's agent was away when they started and hasn't taken them in yet.",
                "A container runtime whose namespaces the agent doesn't find (`cni.netnsDir`).",
            ],
            look: &["`weft_agent_pod{state=\"unprotected\"}` names pods and why; `weft check`."],
            remedy: &[
                "Bring the agent back: it takes them in by itself.",
                "Delete the pod, so that it is made anew with the plugin.",
            ],
        },
        proof: Proof {
            series: &[(r#"weft_agent_pods{job="weft-agent", node="node-a", protection="unprotected"}"#, "2x30")],
            at: "20m",
            labels: ON_NODE,
        },
    }
}

fn node_bypassed() -> Alert {
    Alert {
        name: "WeftNodeBypassed",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: "max by (cluster, node) (weft_agent_bypass) > 0".to_owned(),
        lasts: "0m",
        summary: "Somebody has opened the pods of {{ $labels.node }}: they talk in the clear, past every policy.",
        description: "It stays so, over restarts and reboots, until it is taken back on the node.",
        page: Page {
            causes: &["Root on the node ran `weft node bypass`, the way back when its proxy can't be brought up."],
            look: &[
                "`/var/lib/weft/agent/bypass.log` on the node: who, when, why, and which pods.",
                "`weft_agent_bypass{strict=\"true\"}`: pods that are Strict are open, too. `weft_agent_pod{state=\"unprotected\"}` names all of them.",
            ],
            remedy: &[
                "Bring the node proxy back first (WeftNodeProxyDown, WeftNodeProxyRestarting).",
                "On the node, as root: `weft node bypass --off`, or in the agent's container `weft-agent bypass --off`.",
            ],
        },
        proof: Proof {
            series: &[(r#"weft_agent_bypass{job="weft-agent", node="node-a", strict="false"}"#, "0x3 1x30")],
            at: "10m",
            labels: ON_NODE,
        },
    }
}

fn pods_closed() -> Alert {
    Alert {
        name: "WeftPodsClosed",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: r#"sum by (cluster, node) (weft_agent_pods{protection="closed"}) > 0"#.to_owned(),
        lasts: "10m",
        summary: "Pods on {{ $labels.node }} are closed: nothing reaches them, and they reach nothing.",
        description: "They are enrolled and no proxy serves them.",
        page: Page {
            causes: &["The node proxy isn't there, or has no configuration."],
            look: &["`weft_agent_pod{state=\"closed\"}` says why for each pod."],
            remedy: &["As for WeftNodeProxyDown."],
        },
        proof: Proof {
            series: &[(r#"weft_agent_pods{job="weft-agent", node="node-a", protection="closed"}"#, "1x30")],
            at: "20m",
            labels: ON_NODE,
        },
    }
}

fn plugin_contested() -> Alert {
    Alert {
        name: "WeftPluginContested",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr: r#"sum by (cluster, node) (increase(weft_agent_installs_total{result=~"repaired|failed"}[30m])) > 2"#
            .to_owned(),
        lasts: "0m",
        summary: "Something on {{ $labels.node }} keeps undoing the CNI configuration.",
        description: "The agent puts its plugin back each time; pods that start in between aren't in the mesh.",
        page: Page {
            causes: &["Another CNI's operator, or the platform's, writes the same file."],
            look: &["The agent's log, and who else writes into the CNI directory."],
            remedy: &["Tell the other one to leave chained plugins alone: Cilium `cni.exclusive=false`."],
        },
        proof: Proof {
            series: &[(r#"weft_agent_installs_total{job="weft-agent", node="node-a", result="repaired"}"#, "0+1x40")],
            at: "35m",
            labels: ON_NODE,
        },
    }
}
