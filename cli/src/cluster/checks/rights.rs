//! What the caller may do, what clocks say, and what the namespace of the mesh admits.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;

use crate::cluster::facts::{Right, Server, name_of};
use crate::cluster::finding::{Check, Finding, Severity};

/// How far clocks may be apart; dates of the API server have whole seconds.
const APART: Duration = Duration::from_secs(30);
/// What the agent's pods need: the host's paths, network and processes.
const LEVEL: &str = "pod-security.kubernetes.io/enforce";

/// Whether the caller may make what the chart has.
pub fn rights(rights: &[Right]) -> Check {
    let missing = rights.iter().filter(|right| !right.allowed).map(|right| {
        let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
        let place = right.namespace.as_ref().map_or("in the cluster".to_owned(), |n| format!("in namespace {n}"));
        let cluster = right.namespace.is_none();
        let remedy = match cluster {
            true => "let an administrator install with --set resourceScope=cluster, and the rest with --set resourceScope=namespace",
            false => "ask an administrator for a RoleBinding of ClusterRole admin there",
        };
        Finding::new(Severity::Error, format!("{}{group}", right.resource), format!("you may not {} them {place}", right.verb)).remedy(remedy)
    });
    let findings: Vec<_> = missing.collect();
    Check::new("rights to install", format!("{} of {}", rights.len() - findings.len(), rights.len()), findings)
}

/// Whether the API server's clock says what ours says: certificates have a beginning and an end.
pub fn clock(server: &Server) -> Check {
    let name = "clock";
    let Some(date) = server.date else {
        let finding = Finding::new(Severity::Note, "API server", "it doesn't tell the time");
        return Check::new(name, "", vec![finding]);
    };
    let (apart, which) = match server.now.duration_since(date) {
        Ok(behind) => (behind, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    let seconds = apart.as_secs();
    let finding = (apart > APART).then(|| {
        Finding::new(
            Severity::Warning,
            "API server",
            format!(
                "its clock is {seconds} s {which} this machine's: one of them is wrong, and certificates are for a time"
            ),
        )
        .remedy("see whether both have their time from NTP (`chronyc tracking`, `timedatectl`)")
    });
    Check::new(name, format!("{seconds} s apart"), finding.into_iter().collect())
}

/// Whether the mesh's namespace admits the agent's pods.
pub fn pod_security(namespaces: &[Namespace], mesh: &str) -> Check {
    let name = "pod security";
    let Some(namespace) = namespaces.iter().find(|n| name_of(&n.metadata) == mesh) else {
        return Check::new(name, format!("namespace {mesh} isn't there yet"), Vec::new());
    };
    let level = namespace.metadata.labels.as_ref().and_then(|labels| labels.get(LEVEL)).map(String::as_str);
    let finding = level.filter(|level| *level != "privileged").map(|level| {
        let what = format!("it admits pods of level {level} only, and the agent needs its node's network and paths");
        Finding::new(Severity::Error, format!("Namespace {mesh}"), what)
            .remedy(format!("kubectl label --overwrite namespace {mesh} {LEVEL}=privileged"))
    });
    Check::new(name, format!("level {}", level.unwrap_or("of the cluster's default")), finding.into_iter().collect())
}
