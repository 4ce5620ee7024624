//! The API server and the nodes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeSystemInfo};

use crate::cluster::facts::{Server, name_of};
use crate::cluster::finding::{Check, Finding, Severity};

/// Major and minor.
pub type Version = (u32, u32);

/// The oldest kernel with all that the rules in pods use.
const KERNEL: Version = (5, 10);

/// The first two numbers of `v1.34.2+k3s1` or `5.15.0-1051-gke`.
pub fn version(text: &str) -> Option<Version> {
    let mut numbers = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the API server is new enough.
pub fn api_server(server: &Server, (major, minor): Version) -> Check {
    let old = version(&server.version).is_none_or(|version| version < (major, minor));
    let finding = old.then(|| {
        Finding::new(
            Severity::Error,
            "API server",
            format!("it is {}, and {major}.{minor} is the oldest that will do", server.version),
        )
        .remedy("upgrade the cluster")
    });
    Check::new("API server", server.version.clone(), finding.into_iter().collect())
}

fn info(node: &Node) -> Option<&NodeSystemInfo> {
    node.status.as_ref()?.node_info.as_ref()
}

fn is_linux(info: &NodeSystemInfo) -> bool {
    info.operating_system == "linux"
}

/// Whether the nodes' kernels are new enough.
pub fn kernels(nodes: &[Node]) -> Check {
    let mut findings = Vec::new();
    let mut linux = 0;
    for (node, info) in nodes.iter().filter_map(|node| Some((node, info(node)?))) {
        let object = format!("Node {}", name_of(&node.metadata));
        if !is_linux(info) {
            let what = format!("it runs {}: its pods can't be in the mesh", info.operating_system);
            findings.push(Finding::new(Severity::Note, object, what));
            continue;
        }
        linux += 1;
        if version(&info.kernel_version).is_none_or(|found| found < KERNEL) {
            let (major, minor) = KERNEL;
            let what = format!("its kernel is {}, and {major}.{minor} is the oldest that will do", info.kernel_version);
            let remedy = "give the node a newer image, or keep the mesh away from it with nodeProxy.nodeSelector and agent.nodeSelector";
            findings.push(Finding::new(Severity::Error, object, what).remedy(remedy));
        }
    }
    let oldest = nodes.iter().filter_map(info).filter(|i| is_linux(i)).map(|i| i.kernel_version.as_str());
    let oldest = oldest.min_by_key(|text| version(text)).unwrap_or("none");
    Check::new("kernels", format!("{linux} nodes, the oldest kernel is {oldest}"), findings)
}

/// Whether the nodes' container runtimes call CNI plugins, and whether there are images for their processors.
pub fn runtimes(nodes: &[Node]) -> Check {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (node, info) in nodes.iter().filter_map(|node| Some((node, info(node)?))).filter(|(_, info)| is_linux(info)) {
        let runtime = &info.container_runtime_version;
        seen.insert(runtime.as_str());
        let object = format!("Node {}", name_of(&node.metadata));
        match runtime.split("://").next() {
            Some("containerd" | "cri-o") => {}
            Some("docker") => findings.push(
                Finding::new(
                    Severity::Warning,
                    object.clone(),
                    format!("its runtime is {runtime}, which keeps network namespaces in a directory of its own"),
                )
                .remedy("install with --set platform=minikube, or --set cni.netnsDir=/var/run/docker/netns"),
            ),
            _ => findings.push(
                Finding::new(
                    Severity::Warning,
                    object.clone(),
                    format!("its runtime is {runtime}, which nobody has tried"),
                )
                .remedy("see whether it calls CNI plugins from /etc/cni/net.d; else set cni.confDir and cni.binDir"),
            ),
        }
        if !matches!(info.architecture.as_str(), "amd64" | "arm64") {
            let what = format!("there are no images for {}", info.architecture);
            let remedy = "keep the mesh away from it with nodeProxy.nodeSelector and agent.nodeSelector";
            findings.push(Finding::new(Severity::Error, object, what).remedy(remedy));
        }
    }
    Check::new("container runtimes", seen.into_iter().collect::<Vec<_>>().join(", "), findings)
}
