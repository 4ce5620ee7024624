//! Which pods are to be in the mesh, and how each of them stands.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::Serialize;
use weft_k8s::translate::enrolment::{Exempt, asks, exempt};
use weft_k8s::translate::labels::Labels;

use super::facts::{Facts, Pages, Read, has_ended, name_of, namespace_of, node_of};
use super::metrics::Metrics;

/// The metric in which an agent names the pods of its node that are enrolled.
const AGENT_POD: &str = "weft_agent_pod";
/// The metric in which an agent counts the pods of its node by how they stand.
const AGENT_COUNTS: &str = "weft_agent_pods";

/// How a pod that is labelled for the mesh stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum Standing {
    /// Its traffic goes through the mesh.
    Protected,
    /// It has no traffic: neither in the clear nor through the mesh.
    Closed(String),
    /// Its traffic is in the clear.
    Unprotected(String),
    /// It can't be in the mesh, whatever its labels say.
    Never(String),
    /// It doesn't run anywhere yet.
    Waiting(String),
    /// It isn't known.
    Unknown(String),
}

impl Standing {
    /// One word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Closed(_) => "closed",
            Self::Unprotected(_) => "unprotected",
            Self::Never(_) => "never",
            Self::Waiting(_) => "waiting",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why it isn't protected.
    pub fn why(&self) -> &str {
        match self {
            Self::Protected => "",
            Self::Closed(why) | Self::Unprotected(why) | Self::Never(why) | Self::Waiting(why) | Self::Unknown(why) => {
                why
            }
        }
    }
}

/// A pod that is labelled for the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub node: String,
    #[serde(flatten)]
    pub standing: Standing,
}

/// Why a pod is never in the mesh, whatever its labels say.
pub fn never(pod: &Pod, namespaces: &BTreeMap<&str, &Labels>, mesh: &str) -> Option<String> {
    let of_namespace = namespaces.get(namespace_of(&pod.metadata)).copied();
    let why = match exempt(pod, of_namespace, &weft_core::ids::Namespace::new(mesh))? {
        Exempt::HostNetwork => "it is on its node's network",
        Exempt::Infrastructure => "it belongs to the mesh's own machinery",
        Exempt::Gateway => "it is a gateway, which ends connections itself",
        Exempt::Istio => "Istio has its traffic: take the pod out of Istio first",
        Exempt::IstioAmbient => "label istio.io/dataplane-mode gives it to Istio: remove that label first",
        Exempt::Linkerd => "it has a proxy of Linkerd: remove the sidecar first",
    };
    Some(why.to_owned())
}

/// All pods whose labels, or whose namespaces' labels, ask for the mesh, by namespace and name.
pub fn labelled(facts: &Facts) -> Read<Vec<PodView>> {
    let (pods, namespaces) =
        (facts.pods.as_ref().map_err(Clone::clone)?, facts.namespaces.as_ref().map_err(Clone::clone)?);
    let labels = labels_of(namespaces);
    let said = Said::of(facts);
    let mut views: Vec<_> = pods
        .iter()
        .filter(|pod| !has_ended(pod) && wants(pod, &labels))
        .map(|pod| PodView {
            namespace: namespace_of(&pod.metadata).to_owned(),
            name: name_of(&pod.metadata).to_owned(),
            node: node_of(pod).to_owned(),
            standing: standing(pod, (&labels, &facts.mesh), &said),
        })
        .collect();
    views.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(views)
}

/// Labels of namespaces by name.
pub fn labels_of(namespaces: &[Namespace]) -> BTreeMap<&str, &Labels> {
    namespaces.iter().filter_map(|n| Some((name_of(&n.metadata), n.metadata.labels.as_ref()?))).collect()
}

/// Whether a pod's own label, else its namespace's, asks for the mesh.
pub fn wants(pod: &Pod, namespaces: &BTreeMap<&str, &Labels>) -> bool {
    asks(pod, namespaces.get(namespace_of(&pod.metadata)).copied())
}

/// What agents say, by node.
pub struct Said<'a>(BTreeMap<&'a str, Node<'a>>);

/// A node's agent, and how many pods it should protect.
#[derive(Default)]
struct Node<'a> {
    pages: Option<&'a Pages>,
    expected: usize,
}

impl<'a> Said<'a> {
    /// Of the pods that run.
    pub fn of(facts: &'a Facts) -> Self {
        let agents = facts.component("weft-agent");
        let agents =
            agents.map(|pod| (node_of(pod), Node { pages: facts.pages.get(name_of(&pod.metadata)), expected: 0 }));
        let mut nodes: BTreeMap<_, _> = agents.collect();
        let labels = labels_of(facts.namespaces.as_deref().unwrap_or_default());
        let pods = facts.pods.iter().flatten().filter(|pod| !has_ended(pod) && wants(pod, &labels));
        for pod in pods.filter(|pod| never(pod, &labels, &facts.mesh).is_none()) {
            if let Some(node) = nodes.get_mut(node_of(pod)) {
                node.expected += 1;
            }
        }
        Self(nodes)
    }

    /// What the agent of a node says of a pod, `None` if it isn't enrolled there; `Err` is why it says nothing.
    pub fn about(&self, pod: &Pod, is_enrolled: bool) -> Result<Option<Standing>, String> {
        let (node, namespace, name) = (node_of(pod), namespace_of(&pod.metadata), name_of(&pod.metadata));
        let Some(found) = self.0.get(node) else {
            return Err(format!("node {node} has no agent"));
        };
        let metrics = match found.pages {
            Some(Pages { metrics: Ok(metrics), .. }) => metrics,
            Some(Pages { metrics: Err(error), .. }) => {
                return Err(format!("the agent of {node} doesn't answer: {}", error.why));
            }
            None => return Err(format!("the agent of {node} isn't running")),
        };
        if metrics.of(AGENT_POD).next().is_none() && metrics.of(AGENT_COUNTS).next().is_some() {
            let fits = by_counts(metrics, node, found.expected)?;
            return Ok(fits.filter(|_| is_enrolled));
        }
        let mut of = metrics.of(AGENT_POD).filter(|s| s.label("namespace") == namespace && s.label("pod") == name);
        Ok(of.find(|s| s.value > 0.0).map(|sample| {
            let why = sample.label("why").to_owned();
            match sample.label("state") {
                "protected" => Standing::Protected,
                "closed" => Standing::Closed(why),
                "outside" => Standing::Never(why),
                _ => Standing::Unprotected(why),
            }
        }))
    }
}

/// What an agent's numbers say of each of its pods: that all are as they should be, or that nobody can tell which aren't.
fn by_counts(metrics: &Metrics, node: &str, expected: usize) -> Result<Option<Standing>, String> {
    let count = |state: &str| {
        let of = metrics.of(AGENT_COUNTS).filter(|s| s.label("protection") == state || s.label("state") == state);
        of.map(|s| s.value as usize).sum::<usize>()
    };
    let (protected, closed, unprotected) = (count("protected"), count("closed"), count("unprotected"));
    if protected == expected && closed + unprotected == 0 {
        return Ok((expected > 0).then_some(Standing::Protected));
    }
    Err(format!(
        "the agent of {node} protects {protected} pods where {expected} are enrolled; {closed} have no traffic, \
         {unprotected} are in the clear"
    ))
}

fn standing(pod: &Pod, (labels, mesh): (&BTreeMap<&str, &Labels>, &str), said: &Said<'_>) -> Standing {
    if let Some(why) = never(pod, labels, mesh) {
        return Standing::Never(why);
    }
    let node = node_of(pod);
    if node.is_empty() {
        return Standing::Waiting("it has no node yet".to_owned());
    }
    match said.about(pod, true) {
        // The labels say otherwise, and nothing here says why it couldn't be: the agent has yet to follow.
        Ok(Some(Standing::Never(why))) => Standing::Unknown(format!("the agent of {node} has it outside: {why}")),
        Ok(Some(standing)) => standing,
        Ok(None) => Standing::Unknown(format!("the agent of {node} doesn't know it yet")),
        Err(why) => Standing::Unknown(why),
    }
}
