//! What stands between the mesh and its traffic: load balancing in sockets, network policies.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use weft_k8s::translate::labels;

use crate::cluster::facts::{has_ended, name_of, namespace_of};
use crate::cluster::finding::{Check, Finding, Severity};
use crate::cluster::pods::{labels_of, never, wants};

/// The port of tunnels inside pods.
const TUNNEL: i32 = 15008;

/// Whether the CNI replaces ClusterIPs inside the pods' sockets, where nobody sees them any more.
pub fn socket_load_balancing(cilium: Option<&ConfigMap>, felix: Option<&Value>) -> Check {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    if let Some(config) = cilium {
        seen.push("Cilium");
        findings.extend(self::cilium(config));
    }
    if let Some(spec) = felix.and_then(|felix| felix.get("spec")) {
        seen.push("Calico");
        findings.extend(calico(spec));
    }
    let summary = if seen.is_empty() { "neither Cilium nor Calico with eBPF".to_owned() } else { seen.join(", ") };
    Check::new("socket load balancing", summary, findings)
}

fn cilium(config: &ConfigMap) -> Vec<Finding> {
    let value = |key: &str| config.data.as_ref().and_then(|data| data.get(key)).map_or("", String::as_str);
    let object = "ConfigMap kube-system/cilium-config";
    let mut findings = Vec::new();
    let replaces = matches!(value("kube-proxy-replacement"), "true" | "strict");
    if (replaces || value("bpf-lb-sock") == "true") && value("bpf-lb-sock-hostns-only") != "true" {
        let what = "Cilium replaces ClusterIPs in the pods' sockets: routes of Services would not apply";
        let remedy = "set socketLB.hostNamespaceOnly=true in Cilium's chart (bpf-lb-sock-hostns-only: \"true\") and restart its agents";
        findings.push(Finding::new(Severity::Error, object, what).remedy(remedy));
    }
    // Cilium's own default is to be alone.
    if value("cni-exclusive") != "false" {
        let what = "Cilium takes other plugins out of the nodes' CNI configuration";
        let remedy = "set cni.exclusive=false in Cilium's chart (cni-exclusive: \"false\") and restart its agents";
        findings.push(Finding::new(Severity::Warning, object, what).remedy(remedy));
    }
    findings
}

fn calico(spec: &Value) -> Vec<Finding> {
    let is_on = |key: &str| spec.get(key).and_then(Value::as_bool);
    if is_on("bpfEnabled") != Some(true) {
        return Vec::new();
    }
    let balancing = spec.get("bpfConnectTimeLoadBalancing").and_then(Value::as_str);
    // The older field counts where the newer isn't given; without both it is on, for TCP.
    if balancing == Some("Disabled")
        || balancing.is_none() && is_on("bpfConnectTimeLoadBalancingEnabled") == Some(false)
    {
        return Vec::new();
    }
    let what = "Calico's eBPF data plane replaces ClusterIPs in the pods' sockets: routes of Services would not apply";
    let remedy = "kubectl patch felixconfiguration default --type=merge -p '{\"spec\":{\"bpfConnectTimeLoadBalancing\":\"Disabled\",\"bpfHostNetworkedNATWithoutCTLB\":\"Enabled\"}}'";
    vec![Finding::new(Severity::Error, "FelixConfiguration default", what).remedy(remedy)]
}

/// Whether network policies let tunnels through wherever they let pods' own ports through.
pub fn policies(policies: &[NetworkPolicy], namespaces: &[Namespace], pods: &[Pod], mesh: &str) -> Check {
    let labels = labels_of(namespaces);
    let enrolled: Vec<_> = pods
        .iter()
        .filter(|pod| !has_ended(pod) && wants(pod, &labels) && never(pod, &labels, mesh).is_none())
        .collect();
    let mut findings = Vec::new();
    let mut looked = 0;
    for policy in policies {
        let selected: Vec<_> = enrolled.iter().filter(|pod| selects(policy, pod)).collect();
        if selected.is_empty() {
            continue;
        }
        looked += 1;
        let others = policies.iter().filter(|other| selected.iter().all(|pod| selects(other, pod)));
        let others: Vec<_> = others.collect();
        let names: Vec<_> = selected.iter().take(3).map(|pod| name_of(&pod.metadata)).collect();
        let more = selected.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let of = format!("{}{more}", names.join(", "));
        for direction in [Direction::In, Direction::Out] {
            findings.extend(missing(policy, &others, direction, &of));
        }
    }
    Check::new("network policies", format!("{looked} select pods of the mesh"), findings)
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    namespace_of(&policy.metadata) == namespace_of(&pod.metadata)
        && labels::under_network_policy(policy, pod.metadata.labels.as_ref())
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// A rule of a policy: who, and which ports. `None` is everybody, and every port.
struct Rule<'a> {
    peers: Option<&'a [NetworkPolicyPeer]>,
    ports: Option<&'a [NetworkPolicyPort]>,
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> Vec<Rule<'_>> {
    fn some<T>(list: Option<&Vec<T>>) -> Option<&[T]> {
        list.map(Vec::as_slice).filter(|list| !list.is_empty())
    }
    let Some(spec) = policy.spec.as_ref() else { return Vec::new() };
    match direction {
        Direction::In => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|r| Rule { peers: some(r.from.as_ref()), ports: some(r.ports.as_ref()) }).collect()
        }
        Direction::Out => {
            let rules = spec.egress.iter().flatten();
            rules.map(|r| Rule { peers: some(r.to.as_ref()), ports: some(r.ports.as_ref()) }).collect()
        }
    }
}

/// Rules that let some ports through and not the tunnels', which no policy makes good for the same peers.
fn missing(policy: &NetworkPolicy, all: &[&NetworkPolicy], direction: Direction, pods: &str) -> Option<Finding> {
    let lets_tunnels = |peers: Option<&[NetworkPolicyPeer]>| {
        let mut rules = all.iter().flat_map(|policy| rules(policy, direction));
        rules.any(|rule| rule.ports.is_none_or(has_tunnel) && (rule.peers.is_none() || rule.peers == peers))
    };
    let is_mesh = |rule: &Rule<'_>| match direction {
        Direction::In => true,
        // Names, and addresses outside of the cluster, are none of the mesh's business.
        Direction::Out => {
            rule.ports.is_some_and(|p| !p.iter().all(is_dns))
                && rule.peers.is_none_or(|p| p.iter().any(|p| p.ip_block.is_none()))
        }
    };
    let numbers: BTreeSet<_> = rules(policy, direction)
        .into_iter()
        .enumerate()
        .filter(|(_, rule)| {
            rule.ports.is_some_and(|ports| !has_tunnel(ports)) && is_mesh(rule) && !lets_tunnels(rule.peers)
        })
        .map(|(number, _)| number)
        .collect();
    let first = numbers.first()?;
    let (severity, list, way) = match direction {
        Direction::In => (Severity::Error, "ingress", "in to"),
        Direction::Out => (Severity::Warning, "egress", "out of"),
    };
    let (namespace, name) = (namespace_of(&policy.metadata), name_of(&policy.metadata));
    let what = format!("it lets some ports {way} {pods}, and not {TUNNEL}, which traffic of the mesh takes");
    let add = |number: &usize| {
        format!(
            "{{\"op\":\"add\",\"path\":\"/spec/{list}/{number}/ports/-\",\"value\":{{\"protocol\":\"TCP\",\"port\":{TUNNEL}}}}}"
        )
    };
    let patch: Vec<_> = numbers.iter().map(add).collect();
    let remedy = format!(
        "add port {TUNNEL} to spec.{list}[{first}].ports{}:\nkubectl -n {namespace} patch networkpolicy {name} --type=json -p '[{}]'",
        if numbers.len() > 1 { " and the others" } else { "" },
        patch.join(",")
    );
    Some(Finding::new(severity, format!("NetworkPolicy {namespace}/{name}"), what).remedy(remedy))
}

fn has_tunnel(ports: &[NetworkPolicyPort]) -> bool {
    ports.iter().any(|port| {
        let tcp = port.protocol.as_deref().is_none_or(|p| p == "TCP");
        tcp && match &port.port {
            None => true,
            Some(IntOrString::Int(first)) => (*first..=port.end_port.unwrap_or(*first)).contains(&TUNNEL),
            Some(IntOrString::String(_)) => false,
        }
    })
}

fn is_dns(port: &NetworkPolicyPort) -> bool {
    matches!(port.port, Some(IntOrString::Int(53 | 5353 | 9153)))
        || matches!(&port.port, Some(IntOrString::String(name)) if name.starts_with("dns"))
}
