//! Alerts on certificates, handshakes and what isn't encrypted.

use super::{Alert, Page, Proof, Scope, Severity};

pub(super) fn alerts() -> Vec<Alert> {
    vec![
        certificate_ends_soon(),
        certificate_not_renewed(),
        trusted_root_ends_soon(),
        handshakes_failing(),
        plaintext_refused(),
        strict_audit_findings(),
    ]
}

fn certificate_ends_soon() -> Alert {
    Alert {
        name: "WeftCertificateEndsSoon",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: "min by (cluster, node, identity) (weft_certificate_expiry_timestamp_seconds > 0) - time() < 3600"
            .to_owned(),
        lasts: "5m",
        summary: "The certificate of {{ $labels.identity }} on {{ $labels.node }} ends within an hour.",
        description: "Certificates live for a day and are renewed at half of it. When this one ends, its connections end too.",
        page: Page {
            causes: &[
                "The node's proxy can't reach the authority, or is refused.",
                "The authority doesn't issue.",
                "A clock that is wrong by hours.",
            ],
            look: &[
                "Dashboard *Weft / Security*: renewals that failed. *Weft / Control plane and CA*: certificates issued, requests refused.",
                "The node proxy's log: what the authority answers. `weft check`.",
            ],
            remedy: &[
                "Bring the authority back: see WeftAuthorityDown.",
                "`kubectl -n weft-system get networkpolicies`: proxies must reach port 15012.",
                "Correct the node's clock.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"weft_certificate_expiry_timestamp_seconds{identity="spiffe://cluster.local/ns/shop/sa/web", node="node-a"}"#,
                "4000x30",
            )],
            at: "20m",
            labels: &[("node", "node-a"), ("identity", "spiffe://cluster.local/ns/shop/sa/web")],
        },
    }
}

fn certificate_not_renewed() -> Alert {
    Alert {
        name: "WeftCertificateNotRenewed",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: "max by (cluster, node, identity) (weft_certificate_renewal_failures) >= 3".to_owned(),
        lasts: "10m",
        summary: "{{ $labels.node }} gets no certificate for {{ $labels.identity }}.",
        description: "Three tries and more have failed. A pod without a certificate reaches nobody that is in the mesh.",
        page: Page {
            causes: &[
                "The authority can't be reached, or doesn't issue.",
                "The node has no pod of that identity any more, and hasn't heard of it.",
            ],
            look: &[
                "Dashboard *Weft / Control plane and CA*: refused requests by reason.",
                "The node proxy's log names the authority's answer.",
            ],
            remedy: &["As for WeftCertificateEndsSoon."],
        },
        proof: Proof {
            series: &[(
                r#"weft_certificate_renewal_failures{identity="spiffe://cluster.local/ns/shop/sa/web", node="node-a"}"#,
                "0+1x30",
            )],
            at: "20m",
            labels: &[("node", "node-a"), ("identity", "spiffe://cluster.local/ns/shop/sa/web")],
        },
    }
}

fn trusted_root_ends_soon() -> Alert {
    Alert {
        name: "WeftTrustedRootEndsSoon",
        severity: Severity::Critical,
        scope: Scope::Mesh,
        expr: "min by (cluster, trust_domain) (weft_trusted_root_expiry_timestamp_seconds > 0) - time() < 30 * 86400"
            .to_owned(),
        lasts: "1h",
        summary: "The last trusted root of {{ $labels.trust_domain }} ends within 30 days.",
        description: "When it ends, nobody in the mesh can talk to anybody. A rotation takes a day.",
        page: Page {
            causes: &[
                "The rotation by time, a tenth of the root's life before its end, hasn't happened.",
                "CA certificates come from elsewhere (`ca.issuerSecret`, `ca.cacertsSecret`) and weren't replaced there.",
            ],
            look: &[
                "`weft-ca show --kubernetes`, and `weft_ca_rotation_stage`.",
                "docs/authority.md, *Replacing the root*.",
            ],
            remedy: &[
                "Start a rotation: `weft-ca rotate start --kubernetes`.",
                "Where the certificates come from elsewhere, renew them there.",
            ],
        },
        proof: Proof {
            series: &[(
                r#"weft_trusted_root_expiry_timestamp_seconds{trust_domain="cluster.local", node="node-a"}"#,
                "86400x120",
            )],
            at: "90m",
            labels: &[("trust_domain", "cluster.local")],
        },
    }
}

fn handshakes_failing() -> Alert {
    let by = "cluster, namespace, workload, role";
    Alert {
        name: "WeftHandshakesFailing",
        severity: Severity::Warning,
        scope: Scope::Mesh,
        expr: format!(
            "sum by ({by}) (rate(weft_tls_handshakes_total{{result!=\"ok\"}}[5m])) / sum by ({by}) \
             (rate(weft_tls_handshakes_total[5m])) > 0.1 and sum by ({by}) \
             (rate(weft_tls_handshakes_total{{result!=\"ok\"}}[5m])) > 0.02"
        ),
        lasts: "10m",
        summary: "More than 10 % of the TLS handshakes of {{ $labels.namespace }}/{{ $labels.workload }} as {{ $labels.role }} fail.",
        description: "Its peers can't be verified, can't verify it, or give up.",
        page: Page {
            causes: &[
                "Roots differ: a rotation that hasn't reached a node (`weft_trusted_roots`).",
                "A certificate that has ended: `certificate_expired`.",
                "Somebody else answers at an address of the mesh: `peer_identity`.",
                "At a Gateway: clients without a certificate, or of another TLS version.",
            ],
            look: &[
                "Dashboard *Weft / Security*: handshakes by result, version and cipher.",
                "`weft authz` and the node proxy's log name the peer.",
            ],
            remedy: &[
                "Follow [the page of the reason](../reasons/README.md).",
                "With roots that differ: `kubectl -n weft-system get configmap weft-trust`, and restart what hasn't read it.",
            ],
        },
        proof: Proof {
            series: &[
                (
                    r#"weft_tls_handshakes_total{namespace="shop", workload="web", role="client", result="peer_identity", tls_version="", cipher="", node="node-a"}"#,
                    "0+6x30",
                ),
                (
                    r#"weft_tls_handshakes_total{namespace="shop", workload="web", role="client", result="ok", tls_version="1.3", cipher="TLS13_AES_256_GCM_SHA384", node="node-a"}"#,
                    "0+6x30",
                ),
            ],
            at: "20m",
            labels: &[("namespace", "shop"), ("workload", "web"), ("role", "client")],
        },
    }
}

fn plaintext_refused() -> Alert {
    Alert {
        name: "WeftPlaintextRefused",
        severity: Severity::Info,
        scope: Scope::Mesh,
        expr: r#"sum by (cluster, namespace, workload) (rate(weft_tcp_connections_refused_total{reason="plaintext_refused"}[10m])) > 0"#.to_owned(),
        lasts: "15m",
        summary: "Somebody outside of the mesh keeps calling Strict workload {{ $labels.namespace }}/{{ $labels.workload }}.",
        description: "Such connections are reset: the workload takes none but mutual TLS.",
        page: Page {
            causes: &["A client that isn't enrolled.", "A probe or a scraper from elsewhere than the node."],
            look: &["The access log of errors: reason `plaintext_refused`, with the client's address."],
            remedy: &["Enrol the client's namespace, or let the workload be Permissive.", "Probes that the pod declares pass; others need an enrolled client."],
        },
        proof: Proof {
            series: &[(r#"weft_tcp_connections_refused_total{namespace="shop", workload="payments", direction="inbound", reason="plaintext_refused", node="node-b"}"#, "0+2x60")],
            at: "40m",
            labels: &[("namespace", "shop"), ("workload", "payments")],
        },
    }
}

fn strict_audit_findings() -> Alert {
    Alert {
        name: "WeftStrictAuditFindings",
        severity: Severity::Info,
        scope: Scope::Mesh,
        expr: "sum by (cluster, namespace, workload) (rate(weft_strict_audit_total[10m])) > 0".to_owned(),
        lasts: "15m",
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} still has callers without mutual TLS.",
        description: "Its mode is StrictAudit: Strict would refuse them.",
        page: Page {
            causes: &["Callers that aren't enrolled yet."],
            look: &["Dashboard *Weft / Security*: connections in the clear, from whom to whom."],
            remedy: &["Enrol them before the mode becomes Strict, or decide that they may be refused."],
        },
        proof: Proof {
            series: &[(r#"weft_strict_audit_total{namespace="shop", workload="payments", node="node-b"}"#, "0+2x60")],
            at: "40m",
            labels: &[("namespace", "shop"), ("workload", "payments")],
        },
    }
}
