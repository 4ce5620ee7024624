//! The parts of the mesh: whether they run, everywhere, and what they miss.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use weft_k8s::object::WEFT_GROUP;
use weft_k8s::translate::labels::has_all;

use crate::cluster::facts::{COMPONENTS, Crd, Facts, Pages, Read, is_ready, name_of, node_of};
use crate::cluster::finding::{Check, Finding, Severity};

/// Parts with one process for the cluster, and parts with one on every node.
pub const DEPLOYMENTS: [&str; 2] = ["weft-controller", "weft-ca"];
pub const DAEMON_SETS: [&str; 2] = ["weft-agent", "weft-node-proxy"];
/// A holder that is silent for longer than so many times the lease's duration has gone, and nobody followed.
const SILENCE: i64 = 3;

/// Whether the kinds of policies are there.
pub fn own_kinds(crds: &Read<Vec<Crd>>) -> Check {
    let name = "kinds of policies";
    let crds = match crds {
        Ok(crds) => crds,
        Err(why) => return Check::unknown(name, why),
    };
    let missing = ["MeshPolicy", "AuthorizationPolicy"].into_iter();
    let missing = missing.filter(|kind| !crds.iter().any(|crd| crd.group == WEFT_GROUP && crd.kind == *kind));
    let missing: Vec<_> = missing.collect();
    let finding = (!missing.is_empty()).then(|| {
        Finding::new(
            Severity::Error,
            "CustomResourceDefinitions",
            format!("the cluster doesn't know {}", missing.join(" and ")),
        )
        .remedy("install with --set crds.enabled=true, or the chart weft-crds")
    });
    Check::new(name, "", finding.into_iter().collect())
}

/// Why a pod isn't ready, as its containers have it.
pub fn why_not_ready(pod: &Pod) -> String {
    let Some(status) = pod.status.as_ref() else { return "it has no status yet".to_owned() };
    let containers =
        || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = |c: &ContainerStatus| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        let message = waiting.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
        (reason != "PodInitializing").then(|| format!("{reason}{message}"))
    };
    if let Some(why) = containers().find_map(waiting) {
        return why;
    }
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.clone().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        return condition.message.clone().unwrap_or_else(|| "it has no node".to_owned());
    }
    match containers().find(|c| !c.ready) {
        Some(container) if container.restart_count > 0 => {
            format!("its container has restarted {} times", container.restart_count)
        }
        _ => status.phase.clone().map_or("not ready".to_owned(), |phase| format!("{phase}, not ready")),
    }
}

/// Why pods of a component aren't ready: the first two that say so.
fn reasons(facts: &Facts, component: &str) -> String {
    let pods: Vec<_> = facts.component(component).filter(|pod| !is_ready(pod)).collect();
    let said = pods.iter().take(2).map(|pod| format!("{} ({})", name_of(&pod.metadata), why_not_ready(pod)));
    said.collect::<Vec<_>>().join(", ")
}

/// Whether Deployments and DaemonSets are there and ready.
pub fn workloads(facts: &Facts) -> Check {
    let name = "components";
    let (deployments, daemon_sets) = match (&facts.deployments, &facts.daemon_sets) {
        (Ok(deployments), Ok(daemon_sets)) => (deployments, daemon_sets),
        (Err(why), _) | (_, Err(why)) => return Check::unknown(name, why),
    };
    let mut found: BTreeMap<&str, (i32, i32)> = BTreeMap::new();
    for deployment in deployments {
        let ready = deployment.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        found.insert(
            name_of(&deployment.metadata),
            (ready, deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)),
        );
    }
    for set in daemon_sets {
        let status = set.status.as_ref();
        found.insert(name_of(&set.metadata), status.map_or((0, 0), |s| (s.number_ready, s.desired_number_scheduled)));
    }
    let mesh = &facts.mesh;
    let mut findings = Vec::new();
    let mut summary = Vec::new();
    for (kind, component) in
        DEPLOYMENTS.map(|d| ("Deployment", d)).into_iter().chain(DAEMON_SETS.map(|d| ("DaemonSet", d)))
    {
        let object = format!("{kind} {mesh}/{component}");
        let Some((ready, wanted)) = found.get(component) else {
            findings.push(Finding::new(Severity::Error, object, "it isn't there").remedy("weft install"));
            continue;
        };
        summary.push(format!("{component} {ready}/{wanted}"));
        if ready < wanted {
            let severity = if kind == "Deployment" && *ready > 0 { Severity::Warning } else { Severity::Error };
            let what = format!("{ready} of {wanted} are ready: {}", reasons(facts, component));
            let remedy = format!("kubectl -n {mesh} describe pods -l app.kubernetes.io/name={component}");
            findings.push(Finding::new(severity, object, what).remedy(remedy));
        } else if *wanted == 0 {
            findings.push(
                Finding::new(Severity::Error, object, "it is to have no pods")
                    .remedy("see its replicas, nodeSelector and tolerations"),
            );
        }
    }
    Check::new(name, summary.join(", "), findings)
}

/// Nodes that a DaemonSet is for.
fn is_for(set: &DaemonSet, node: &Node) -> bool {
    let template = set.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    let wanted = template.and_then(|spec| spec.node_selector.as_ref());
    let none = BTreeMap::new();
    wanted.is_none_or(|wanted| has_all(wanted, node.metadata.labels.as_ref().unwrap_or(&none)))
}

/// Whether each node has an agent and a proxy that are ready.
pub fn nodes(facts: &Facts) -> Check {
    let name = "nodes";
    let (nodes, sets) = match (&facts.nodes, &facts.daemon_sets, &facts.pods) {
        (Ok(nodes), Ok(sets), Ok(_)) => (nodes, sets),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return Check::unknown(name, why),
    };
    let mut findings = Vec::new();
    let mut covered = 0;
    for node in nodes {
        let node_name = name_of(&node.metadata);
        let wanted: Vec<_> =
            sets.iter().filter(|set| DAEMON_SETS.contains(&name_of(&set.metadata)) && is_for(set, node)).collect();
        let mut lacks = Vec::new();
        for set in &wanted {
            let component = name_of(&set.metadata);
            let pods: Vec<_> = facts.component(component).filter(|pod| node_of(pod) == node_name).collect();
            match pods.as_slice() {
                [] => lacks.push(format!("no {component}")),
                pods if pods.iter().any(|pod| is_ready(pod)) => {}
                [pod, ..] => lacks.push(format!("{component} isn't ready: {}", why_not_ready(pod))),
            }
        }
        let tainted =
            node.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|t| t.key == "weftmesh.io/agent-not-ready");
        if tainted && lacks.is_empty() {
            lacks.push("it still has the taint weftmesh.io/agent-not-ready, which its agent takes away when traffic has passed".to_owned());
        }
        if lacks.is_empty() {
            covered += usize::from(!wanted.is_empty());
            continue;
        }
        let remedy = format!("kubectl -n {} get pods -o wide --field-selector spec.nodeName={node_name}", facts.mesh);
        findings.push(Finding::new(Severity::Error, format!("Node {node_name}"), lacks.join("; ")).remedy(remedy));
    }
    Check::new(name, format!("{covered} of {} carry the mesh", nodes.len()), findings)
}

/// Image tags by component.
pub fn tags(facts: &Facts) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut tags: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (component, _) in COMPONENTS {
        for pod in facts.component(component) {
            let images = pod.spec.iter().flat_map(|s| &s.containers).filter(|c| c.name == component);
            tags.entry(component)
                .or_default()
                .extend(images.filter_map(|c| c.image.as_deref()).map(|i| tag(i).to_owned()));
        }
    }
    tags
}

/// The tag of an image, or its digest if it has no tag.
pub fn tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => digest.unwrap_or("latest"),
    }
}

/// Whether all parts are of one version.
pub fn images(facts: &Facts) -> Check {
    let tags = tags(facts);
    let all: BTreeSet<_> = tags.values().flatten().collect();
    let list = all.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(", ");
    let finding = (all.len() > 1).then(|| {
        let each = tags
            .iter()
            .map(|(component, tags)| format!("{component} {}", tags.iter().cloned().collect::<Vec<_>>().join("+")));
        Finding::new(
            Severity::Warning,
            format!("Namespace {}", facts.mesh),
            format!("versions differ: {}", each.collect::<Vec<_>>().join(", ")),
        )
        .remedy("wait for the upgrade that is under way (kubectl rollout status), or run weft install again")
    });
    Check::new("images", list, finding.into_iter().collect())
}

/// Who leads, by lease.
pub fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Whether somebody leads.
pub fn leases(leases: &[Lease], facts: &Facts) -> Check {
    let mut findings = Vec::new();
    let mut summary = Vec::new();
    // By the API server's clock: the caller's may be wrong, which is another check's business.
    let now = facts.server.date.unwrap_or(facts.server.now);
    let now = now.duration_since(std::time::SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    for component in DEPLOYMENTS {
        let object = format!("Lease {}/{component}", facts.mesh);
        let logs = format!("kubectl -n {} logs deployment/{component}", facts.mesh);
        let lease = leases.iter().find(|lease| name_of(&lease.metadata) == component);
        let what = match (lease, lease.and_then(holder)) {
            (None, _) => "it isn't there: no replica has led yet".to_owned(),
            (_, None) => "nobody holds it: statuses and secrets aren't written".to_owned(),
            (Some(lease), Some(holder)) => {
                let spec = lease.spec.as_ref();
                let renewed = spec.and_then(|s| s.renew_time.as_ref()).map_or(0, |t| t.0.as_second());
                let duration = i64::from(spec.and_then(|s| s.lease_duration_seconds).unwrap_or(15));
                let silent = i64::try_from(now).unwrap_or(0) - renewed;
                if silent <= duration * SILENCE {
                    summary.push(format!("{component}: {holder}"));
                    continue;
                }
                format!("{holder} hasn't renewed it for {silent} s, and nobody has taken it")
            }
        };
        findings.push(Finding::new(Severity::Error, object, what).remedy(logs));
    }
    Check::new("leases", summary.join(", "), findings)
}

/// What the mesh's pods say they miss.
pub fn readiness(facts: &Facts) -> Check {
    let name = "readiness";
    if let Err(why) = &facts.pods {
        return Check::unknown(name, why);
    }
    let mut findings = Vec::new();
    let (mut ready, mut all) = (0, 0);
    for (component, _) in COMPONENTS {
        for pod in facts.component(component) {
            all += 1;
            let object = format!("Pod {}/{} on node {}", facts.mesh, name_of(&pod.metadata), node_of(pod));
            let logs = format!("kubectl -n {} logs {}", facts.mesh, name_of(&pod.metadata));
            match facts.pages.get(name_of(&pod.metadata)) {
                Some(Pages { missing: Ok(missing), .. }) if missing.is_empty() => ready += 1,
                Some(Pages { missing: Ok(missing), .. }) => {
                    let what = format!("it waits for {}", missing.join(", "));
                    findings.push(Finding::new(Severity::Error, object, what).remedy(logs));
                }
                // A pod that isn't ready can't be asked: the check of components has it.
                Some(Pages { missing: Err(_), .. }) | None if !is_ready(pod) => {}
                Some(Pages { missing: Err(why), .. }) => {
                    let remedy = "let this account use the subresource pods/proxy, and the API server's address through NetworkPolicies";
                    findings.push(Finding::new(Severity::Unknown, object, why.why.clone()).remedy(remedy));
                }
                None => {}
            }
        }
    }
    Check::new(name, format!("{ready} of {all} pods"), findings)
}
