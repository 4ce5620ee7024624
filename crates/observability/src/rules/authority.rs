//! Alerts on the certificate authority of a cluster.

use super::{Alert, Page, Proof, Scope, Severity};

pub(super) fn alerts() -> Vec<Alert> {
    vec![authority_down(), authority_no_leader(), authority_secret_unusable(), authority_intermediate_ends_soon()]
}

fn authority_down() -> Alert {
    Alert {
        name: "WeftAuthorityDown",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: r#"absent(up{job="weft-ca"} == 1)"#.to_owned(),
        lasts: "5m",
        summary: "No replica of the certificate authority is up.",
        description: "Certificates that are there last for half a day yet. New workloads get none and reach nobody in the mesh.",
        page: Page {
            causes: &["Its pods don't run.", "They run and can't be scraped, as for WeftControllerDown."],
            look: &[
                "`kubectl -n weft-system get pods -l app.kubernetes.io/name=weft-ca`, events and logs.",
                "Whether Secret `weft-ca` is there, and ConfigMap `weft-trust`.",
            ],
            remedy: &[
                "Mend what the events name. If Secret `weft-ca` is gone while no replica runs, put the copy back before one starts (docs/authority.md).",
            ],
        },
        proof: Proof {
            series: &[(r#"up{job="weft-ca", instance="10.0.0.3:15014"}"#, "1x3 0x30")],
            at: "20m",
            labels: &[],
        },
    }
}

fn authority_no_leader() -> Alert {
    Alert {
        name: "WeftAuthorityNoLeader",
        severity: Severity::Warning,
        scope: Scope::Cluster,
        expr: "max by (cluster) (weft_ca_leader) == 0".to_owned(),
        lasts: "5m",
        summary: "No replica of the authority keeps its Secret.",
        description: "Certificates are issued. The intermediate isn't renewed and a rotation doesn't go on.",
        page: Page {
            causes: &["The Lease `weft-ca` can't be written."],
            look: &["`kubectl -n weft-system get lease weft-ca -o yaml`; the log."],
            remedy: &["Give back the right that the log names, or bring the API server back."],
        },
        proof: Proof {
            series: &[(r#"weft_ca_leader{job="weft-ca", instance="10.0.0.3:15014"}"#, "0x30")],
            at: "20m",
            labels: &[],
        },
    }
}

fn authority_secret_unusable() -> Alert {
    Alert {
        name: "WeftAuthoritySecretUnusable",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: "max by (cluster, secret) (weft_ca_bad_secret) == 1".to_owned(),
        lasts: "2m",
        summary: "Secret {{ $labels.secret }} of the authority can't be used.",
        description: "What was read before goes on until the process ends: a restart would leave it without a key.",
        page: Page {
            causes: &[
                "Somebody edited the Secret.",
                "CA certificates from elsewhere that don't fit: a chain without its root, a key of another certificate.",
            ],
            look: &["The authority's log says what is wrong with it."],
            remedy: &["Put the copy back, or correct it at its source. Don't restart the authority before."],
        },
        proof: Proof {
            series: &[(r#"weft_ca_bad_secret{job="weft-ca", instance="10.0.0.3:15014", secret="weft-ca"}"#, "1x30")],
            at: "20m",
            labels: &[("secret", "weft-ca")],
        },
    }
}

fn authority_intermediate_ends_soon() -> Alert {
    Alert {
        name: "WeftAuthorityIntermediateEndsSoon",
        severity: Severity::Critical,
        scope: Scope::Cluster,
        expr: "min by (cluster) (weft_ca_intermediate_expiry_timestamp_seconds > 0) - time() < 7 * 86400".to_owned(),
        lasts: "1h",
        summary: "The certificate that issues all others ends within a week.",
        description: "Ours is renewed at half its life, so something keeps it from that; one from elsewhere is renewed there.",
        page: Page {
            causes: &[
                "No leader (WeftAuthorityNoLeader).",
                "`ca.issuerSecret` or `ca.cacertsSecret`: nobody renewed it there.",
            ],
            look: &["`weft-ca show --kubernetes`; for cert-manager: `kubectl get certificate`."],
            remedy: &["Bring a leader back, or renew the certificate at its source."],
        },
        proof: Proof {
            series: &[(
                r#"weft_ca_intermediate_expiry_timestamp_seconds{job="weft-ca", instance="10.0.0.3:15014"}"#,
                "86400x120",
            )],
            at: "90m",
            labels: &[],
        },
    }
}
