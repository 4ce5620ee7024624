//! `weft status` on a cluster: one screen.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;
use std::time::SystemTime;

use futures::FutureExt as _;
use serde::Serialize;

use super::checks::{self, components, objects, platform, trust};
use super::facts::{Facts, component_of, is_ready, name_of, node_of};
use super::finding::{Finding, Severity};
use super::pods::{PodView, Standing, labelled};
use super::read::Session;
use super::{helm, print};
use crate::{Output, table};

/// Pods and objects of which no more are listed; the checks have all.
const MANY: usize = 20;

/// A mesh, as one screen.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    pub mesh_namespace: String,
    pub kubernetes: String,
    pub components: Vec<Component>,
    pub nodes: Vec<NodeView>,
    /// Pods that are labelled for the mesh and protected.
    pub protected: usize,
    /// Those that aren't.
    pub not_protected: Vec<PodView>,
    pub not_accepted: Vec<objects::Refusal>,
    /// What ends first.
    pub nearest_expiry: Option<Expiry>,
    /// What is wrong, the worst first.
    pub problems: Vec<Finding>,
}

/// A part of the mesh.
#[derive(Clone, Debug, Serialize)]
pub struct Component {
    pub name: &'static str,
    pub ready: usize,
    pub pods: usize,
    pub version: String,
    /// Who leads, of those that have a leader.
    pub leader: String,
}

/// A node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    pub name: String,
    /// `ready`, `not ready` or `none`.
    pub agent: &'static str,
    pub proxy: &'static str,
    pub protected: usize,
    pub not_protected: usize,
    pub certificates: usize,
}

/// When something ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expiry {
    pub what: String,
    /// `2026-11-21T10:00:00Z`
    pub at: String,
}

/// Reads, and makes the screen.
pub async fn run(session: &Session, output: Output) -> anyhow::Result<ExitCode> {
    let facts = session.installed().boxed_local().await?;
    let overview = Overview::of(&facts, helm::oldest_kubernetes()?);
    print(output, &overview)?;
    let failed = overview.problems.iter().any(|p| matches!(p.severity, Severity::Error | Severity::Unknown));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Overview {
    /// The screen of what was read.
    pub fn of(facts: &Facts, required: platform::Version) -> Self {
        let pods = labelled(facts).unwrap_or_default();
        let report = checks::installed(facts, required);
        let problems = report.findings().into_iter().filter(|f| f.severity > Severity::Note).cloned().collect();
        let (protected, not_protected): (Vec<_>, Vec<_>) = pods.iter().partition(|p| p.standing == Standing::Protected);
        Self {
            mesh_namespace: facts.mesh.clone(),
            kubernetes: facts.server.version.clone(),
            components: components(facts),
            nodes: nodes(facts, &pods),
            protected: protected.len(),
            not_protected: not_protected.into_iter().cloned().collect(),
            not_accepted: facts.objects.as_ref().map(|o| objects::refusals(o)).unwrap_or_default(),
            nearest_expiry: nearest(facts),
            problems,
        }
    }
}

fn components(facts: &Facts) -> Vec<Component> {
    let tags = components::tags(facts);
    let leases = facts.leases.as_deref().unwrap_or_default();
    let all = components::DEPLOYMENTS.into_iter().chain(components::DAEMON_SETS);
    all.map(|name| Component {
        name,
        ready: facts.component(name).filter(|pod| is_ready(pod)).count(),
        pods: facts.component(name).count(),
        version: tags.get(name).map(|tags| tags.iter().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default(),
        leader: leases
            .iter()
            .find(|l| name_of(&l.metadata) == name)
            .and_then(components::holder)
            .unwrap_or_default()
            .to_owned(),
    })
    .collect()
}

fn nodes(facts: &Facts, pods: &[PodView]) -> Vec<NodeView> {
    let mut states: BTreeMap<(&str, &str), &'static str> = BTreeMap::new();
    for pod in facts.pods.iter().flatten().filter(|pod| pod.metadata.namespace.as_deref() == Some(facts.mesh.as_str()))
    {
        let Some(component) = component_of(pod) else { continue };
        let state = states.entry((node_of(pod), component)).or_insert("not ready");
        if is_ready(pod) {
            *state = "ready";
        }
    }
    let state = |node: &str, component: &str| states.get(&(node, component)).copied().unwrap_or("none");
    let leaves = trust::leaves(facts);
    let view = |name: &str| {
        let here = || pods.iter().filter(|pod| pod.node == name);
        let protected = here().filter(|pod| pod.standing == Standing::Protected).count();
        NodeView {
            name: name.to_owned(),
            agent: state(name, "weft-agent"),
            proxy: state(name, "weft-node-proxy"),
            protected,
            not_protected: here().count() - protected,
            certificates: leaves.iter().filter(|(_, node, end, _)| node == name && end.is_some()).count(),
        }
    };
    let mut views: Vec<_> = facts.nodes.iter().flatten().map(|node| view(name_of(&node.metadata))).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// The root, intermediate or workload certificate that ends first.
fn nearest(facts: &Facts) -> Option<Expiry> {
    let map = facts.trust.as_ref().ok()?.as_ref();
    let pem = map.and_then(|m| m.data.as_ref()?.get("root.pem"));
    let roots = pem.and_then(|pem| trust::ends(pem).ok()).unwrap_or_default();
    let roots = roots.into_iter().map(|end| ("the mesh's root".to_owned(), end));
    let authority = trust::authority(facts).into_iter().map(|(what, end)| (format!("the authority's {what}"), end));
    let leaves = trust::leaves(facts).into_iter();
    let leaves = leaves.filter_map(|(identity, node, end, _)| Some((format!("{identity} on node {node}"), end?)));
    let (what, at) = roots.chain(authority).chain(leaves).min_by_key(|(_, end)| *end)?;
    Some(Expiry { what, at: moment(at) })
}

/// `2026-11-21T10:00:00Z`
pub fn moment(at: SystemTime) -> String {
    let at = time::OffsetDateTime::from(at);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mesh in {}, Kubernetes {}", self.mesh_namespace, self.kubernetes)?;
        let rows = self
            .components
            .iter()
            .map(|c| vec![c.name.to_owned(), format!("{}/{}", c.ready, c.pods), c.version.clone(), c.leader.clone()]);
        write!(f, "\n{}", table(&["COMPONENT", "READY", "VERSION", "LEADER"], rows))?;
        let rows = self.nodes.iter().map(|n| {
            let numbers = [n.protected, n.not_protected, n.certificates].map(|n| n.to_string());
            [n.name.clone(), n.agent.to_owned(), n.proxy.to_owned()].into_iter().chain(numbers).collect()
        });
        let header = ["NODE", "AGENT", "PROXY", "PODS PROTECTED", "NOT PROTECTED", "CERTIFICATES"];
        write!(f, "\n{}", table(&header, rows))?;
        writeln!(f, "\npods protected: {}, not protected: {}", self.protected, self.not_protected.len())?;
        if !self.not_protected.is_empty() {
            let rows = self.not_protected.iter().take(MANY).map(|p| {
                vec![format!("{}/{}", p.namespace, p.name), p.standing.as_str().to_owned(), p.standing.why().to_owned()]
            });
            write!(f, "{}", table(&["POD", "STATE", "WHY"], rows))?;
            more(f, self.not_protected.len())?;
        }
        if !self.not_accepted.is_empty() {
            let rows = self.not_accepted.iter().take(MANY);
            let rows = rows.map(|r| vec![r.object.clone(), r.condition.clone(), r.reason.clone(), r.message.clone()]);
            write!(f, "\nnot accepted\n{}", table(&["OBJECT", "CONDITION", "REASON", "MESSAGE"], rows))?;
            more(f, self.not_accepted.len())?;
        }
        if let Some(Expiry { what, at }) = &self.nearest_expiry {
            writeln!(f, "\nnext to end: {what}, {at}")?;
        }
        if self.problems.is_empty() {
            return writeln!(f, "\nno problems");
        }
        writeln!(f, "\nproblems")?;
        self.problems.iter().take(MANY).try_for_each(|problem| write!(f, "{problem}"))?;
        more(f, self.problems.len())
    }
}

fn more(f: &mut fmt::Formatter<'_>, all: usize) -> fmt::Result {
    match all.saturating_sub(MANY) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more: see `weft check`"),
    }
}
