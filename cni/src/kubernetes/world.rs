//! The objects of the API server that decide who is in the mesh. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use weft_core::ids::{Namespace, PodUid, Port};
use weft_core::policy::Mode;
use weft_core::snapshot::Snapshot;
use weft_k8s::index::{Index, IndexConfig};
use weft_k8s::object::{Kind, Object, ObjectRef};
use weft_k8s::translate::enrolment::{Exempt, asks, exempt, says};
use weft_k8s::translate::workload::pod_uid;
use weft_kube::Watched;

use super::policy::SeenPolicy;
use crate::agent::{Decision, Enrolled, Outside, PodRef, Undecided};
use crate::rules::OlderFlows;

/// What the kubelet calls a static pod: its uid at the API server is another.
const STATIC_UID: &str = "kubernetes.io/config.hash";
/// Stands for the address of a pod that has none yet, so that the index knows its policies (RFC 5737).
const NO_ADDRESS_YET: &str = "192.0.2.255";

/// A pod of this node that has its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPod {
    /// Who it is, with the uid that its cgroups have.
    pub pod: PodRef,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it should be in the mesh.
    pub enrolled: bool,
}

/// A pod that stays outside although its labels, or its namespace's, ask for the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The pod, as events name it.
    pub pod: core::ObjectReference,
    /// Why.
    pub why: Outside,
}

/// The pods of one node, and what decides about them.
#[derive(Debug)]
pub struct World {
    own: Namespace,
    index: Index,
    snapshot: Snapshot,
    listed: BTreeSet<Kind>,
    /// Pods of any node whose own label asks for the mesh; none before they have been listed.
    asking: Option<BTreeSet<ObjectRef>>,
    /// Namespaces that a former agent on this node knew to be outside, until the first list.
    remembered: BTreeSet<Namespace>,
    leaving: bool,
}

/// All that follows: whoever acts on decisions acts again when it is another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    decisions: BTreeMap<(String, String, Option<PodUid>), Decision>,
    outside: Vec<Namespace>,
    running: usize,
}

impl World {
    /// Nothing is known yet but what a former agent remembered. `own` is the mesh's namespace, `root` the one whose policies
    /// may apply to the whole mesh.
    pub fn new(own: Namespace, root: Namespace, remembered: impl IntoIterator<Item = Namespace>) -> Self {
        let config = IndexConfig { mesh_namespace: own.clone(), root_namespace: root, ..IndexConfig::default() };
        Self {
            index: Index::new(config),
            own,
            snapshot: Snapshot::default(),
            listed: BTreeSet::new(),
            asking: None,
            remembered: remembered.into_iter().collect(),
            leaving: false,
        }
    }

    /// Pods of this node.
    pub fn pods(&mut self, news: Watched<core::Pod>) {
        self.take(Kind::Pod, news, prepared);
    }

    /// Namespaces of the cluster.
    pub fn namespaces(&mut self, news: Watched<core::Namespace>) {
        self.take(Kind::Namespace, news, |mut namespace| {
            namespace.metadata.managed_fields = None;
            Object::from(namespace)
        });
    }

    /// Pods of any node, also of this one, whose own label asks for the mesh.
    pub fn asking(&mut self, news: Watched<ObjectRef>) {
        let asking = self.asking.get_or_insert_default();
        match news {
            Watched::Restarted(all) => *asking = all.into_iter().collect(),
            Watched::Applied(pod) => {
                asking.insert(pod);
            }
            Watched::Deleted(pod) => {
                asking.remove(&pod);
            }
        }
    }

    /// Whether a pod is known to be one of them.
    pub fn is_asking(&self, pod: &ObjectRef) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.contains(pod))
    }

    /// MeshPolicies of the cluster.
    pub fn policies(&mut self, news: Watched<SeenPolicy>) {
        // One that can't be read stays what it was: without it more would pass than with an old one.
        let known = |seen: SeenPolicy| seen.object.or_else(|| self.index.get(&seen.reference).cloned());
        let news = match news {
            Watched::Restarted(all) => Some(Watched::Restarted(all.into_iter().filter_map(known).collect())),
            Watched::Applied(one) => known(one).map(Watched::Applied),
            Watched::Deleted(one) => known(one).map(Watched::Deleted),
        };
        if let Some(news) = news {
            self.take(Kind::MeshPolicy, news, std::convert::identity);
        }
    }

    /// The cluster doesn't serve MeshPolicies: there are none, until some come.
    pub fn no_policies(&mut self) {
        self.listed.insert(Kind::MeshPolicy);
    }

    /// From now on no pod is in the mesh.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether everything has been listed once.
    pub fn is_listed(&self) -> bool {
        let kinds = [Kind::Pod, Kind::Namespace, Kind::MeshPolicy];
        self.asking.is_some() && kinds.iter().all(|kind| self.listed.contains(kind))
    }

    fn take<K>(&mut self, kind: Kind, news: Watched<K>, object: impl Fn(K) -> Object) {
        match news {
            Watched::Restarted(all) => {
                self.index.resync(kind, all.into_iter().map(object));
                self.listed.insert(kind);
            }
            Watched::Applied(one) => self.index.apply(object(one)),
            Watched::Deleted(one) => self.index.delete(&object(one).reference()),
        }
        let out = self.index.commit();
        if !out.changes.is_empty() {
            self.snapshot = self.snapshot.apply(&out.changes);
        }
    }

    /// Decides one pod.
    ///
    /// # Errors
    /// When not enough is known.
    pub fn decide(&self, pod: &PodRef) -> Result<Decision, Undecided> {
        if self.leaving {
            return Ok(Decision::Outside(Outside::Uninstalling));
        }
        // Needs no API server: the mesh's own pods start before anything works.
        if pod.namespace == self.own {
            return Ok(Decision::Outside(Outside::Infrastructure));
        }
        if !self.is_listed() {
            let what = "pods, namespaces and policies have not all been read from the API server yet";
            return Err(Undecided::NotReady(what.into()));
        }
        let object = self.pod(pod).ok_or_else(|| Undecided::UnknownPod(pod.clone()))?;
        let Some(namespace) = self.namespace(&pod.namespace) else {
            return Err(Undecided::NotReady(format!("namespace {} is not known yet", pod.namespace)));
        };
        Ok(self.judge(object, namespace))
    }

    /// Why a pod that starts now is outside, by what a former agent knew of its namespace; nothing once all is listed.
    pub fn presumed(&self, pod: &PodRef) -> Option<Outside> {
        (!self.is_listed() && self.remembered.contains(&pod.namespace)).then_some(Outside::NotLabelled)
    }

    /// Whether there is news to decide a pod on; without it a little patience may help.
    pub fn has_news_of(&self, pod: &PodRef) -> bool {
        let decided = self.leaving || pod.namespace == self.own;
        decided || (self.is_listed() && self.pod(pod).is_some() && self.namespace(&pod.namespace).is_some())
    }

    /// Whether the cluster no longer has a pod. Unknown is not gone.
    pub fn is_gone(&self, pod: &PodRef) -> bool {
        self.is_listed() && self.pod(pod).is_none()
    }

    /// The namespaces that don't ask for the mesh, and none of whose pods does. Pods of other nodes count as well:
    /// another of the same kind may start here at any time.
    pub fn namespaces_outside(&self) -> Vec<Namespace> {
        if !self.is_listed() {
            return self.remembered.iter().cloned().collect();
        }
        let namespaces = self.index.of_kind(Kind::Namespace).filter_map(|(reference, object)| match object {
            Object::Namespace(namespace) => Some((Namespace::new(&reference.name), namespace)),
            _ => None,
        });
        let outside = |name: &Namespace, namespace: &core::Namespace| {
            let mut pods = self.index.in_namespace(Kind::Pod, name).filter_map(|(_, object)| as_pod(object));
            let (bare, labels) = (core::Pod::default(), namespace.metadata.labels.as_ref());
            let asked = asks(&bare, labels) || pods.any(|pod| asks(pod, labels)) || self.is_asked_in(name);
            *name == self.own || !asked
        };
        namespaces.filter(|(name, namespace)| self.leaving || outside(name, namespace)).map(|(name, _)| name).collect()
    }

    /// Pods of this node that have a network of their own.
    pub fn running(&self) -> Vec<RunningPod> {
        let pods = self.index.of_kind(Kind::Pod).filter_map(|(_, object)| as_pod(object));
        let alive = pods.filter(|pod| !is_host_network(pod) && !has_ended(pod));
        let running = alive.map(|object| {
            let pod = pod_ref(object);
            let enrolled = matches!(self.decide(&pod), Ok(Decision::Enrolled(_)));
            RunningPod { pod, ips: addresses(object), enrolled }
        });
        running.filter(|pod| !pod.ips.is_empty()).collect()
    }

    /// Pods that ask for the mesh and stay outside.
    pub fn refused(&self) -> Vec<Refused> {
        let pods = self.index.of_kind(Kind::Pod).filter_map(|(_, object)| as_pod(object));
        let refused = pods.filter(|pod| !has_ended(pod)).filter_map(|pod| {
            let reference = pod_ref(pod);
            // Its own pods in its own namespace are no surprise to anybody.
            if reference.namespace == self.own && says(pod.metadata.labels.as_ref()) != Some(true) {
                return None;
            }
            match self.judge(pod, self.namespace(&reference.namespace)?) {
                Decision::Outside(why) if why.overrides_labels() && why != Outside::Uninstalling => {
                    Some(Refused { pod: object_reference(pod), why })
                }
                _ => None,
            }
        });
        refused.collect()
    }

    /// What follows from all of it.
    pub fn picture(&self) -> Picture {
        let pods = self.index.of_kind(Kind::Pod).filter_map(|(_, object)| as_pod(object));
        let decided = pods.filter_map(|object| {
            let pod = pod_ref(object);
            let decision = self.decide(&pod).ok()?;
            Some(((pod.namespace.to_string(), pod.name.to_string(), pod.uid), decision))
        });
        Picture {
            decisions: decided.collect(),
            outside: self.namespaces_outside(),
            running: self.running().iter().map(|pod| pod.ips.len()).sum(),
        }
    }

    fn judge(&self, pod: &core::Pod, namespace: &core::Namespace) -> Decision {
        if self.leaving {
            return Decision::Outside(Outside::Uninstalling);
        }
        if !asks(pod, namespace.metadata.labels.as_ref()) {
            let disabled = says(pod.metadata.labels.as_ref()) == Some(false);
            return Decision::Outside(if disabled { Outside::Disabled } else { Outside::NotLabelled });
        }
        if let Some(why) = exempt(pod, namespace.metadata.labels.as_ref(), &self.own) {
            return Decision::Outside(outside(why));
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let workload = self.snapshot.workload(&pod_uid(&namespace_of(pod), name));
        // Any port stands for the workload's own mode.
        let mode = workload.zip(Port::new(u16::MAX)).map(|(w, port)| self.snapshot.mode_for(w, port));
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|a| !a.is_empty());
        Decision::Enrolled(Enrolled {
            service_account: account.unwrap_or("default").into(),
            older_flows: if mode == Some(Mode::Strict) { OlderFlows::Close } else { OlderFlows::Keep },
            strict: workload.map(|workload| self.snapshot.is_strict_somewhere(workload)),
        })
    }

    /// Whether a pod of a namespace asks for the mesh by its own label, on any node.
    fn is_asked_in(&self, namespace: &Namespace) -> bool {
        let first = ObjectRef::new(Kind::Pod, namespace.clone(), "");
        let mut pods = self.asking.iter().flat_map(|asking| asking.range(first.clone()..));
        pods.next().is_some_and(|pod| pod.namespace == *namespace)
    }

    fn pod(&self, pod: &PodRef) -> Option<&core::Pod> {
        let object = self.index.get(&ObjectRef::new(Kind::Pod, pod.namespace.clone(), pod.name.clone()))?;
        let found = as_pod(object)?;
        let uids = [runtime_uid(found), found.metadata.uid.as_deref()];
        let same = pod.uid.as_ref().is_none_or(|uid| uids.contains(&Some(uid.as_str())));
        same.then_some(found)
    }

    fn namespace(&self, name: &Namespace) -> Option<&core::Namespace> {
        match self.index.get(&ObjectRef::new(Kind::Namespace, "", name.as_str()))? {
            Object::Namespace(namespace) => Some(namespace),
            _ => None,
        }
    }
}

/// The agent's word for why a pod is never enrolled.
const fn outside(why: Exempt) -> Outside {
    match why {
        Exempt::HostNetwork => Outside::HostNetwork,
        Exempt::Infrastructure => Outside::Infrastructure,
        Exempt::Gateway => Outside::Gateway,
        Exempt::Istio => Outside::Istio,
        Exempt::IstioAmbient => Outside::IstioAmbient,
        Exempt::Linkerd => Outside::Linkerd,
    }
}

/// As it is kept: without what nobody here reads, and with an address.
fn prepared(mut pod: core::Pod) -> Object {
    pod.metadata.managed_fields = None;
    let status = pod.status.get_or_insert_default();
    if status.pod_ips.as_ref().is_none_or(Vec::is_empty) && status.pod_ip.as_ref().is_none_or(String::is_empty) {
        status.pod_ips = Some(vec![core::PodIP { ip: NO_ADDRESS_YET.to_owned() }]);
    }
    Object::Pod(Arc::new(pod))
}

fn addresses(pod: &core::Pod) -> Vec<IpAddr> {
    let status = pod.status.iter();
    let texts = status.flat_map(|s| s.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(s.pod_ip.as_deref()));
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in texts.filter(|text| *text != NO_ADDRESS_YET).filter_map(|text| text.parse().ok()) {
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

fn as_pod(object: &Object) -> Option<&core::Pod> {
    match object {
        Object::Pod(pod) => Some(pod),
        _ => None,
    }
}

fn namespace_of(pod: &core::Pod) -> Namespace {
    Namespace::new(pod.metadata.namespace.as_deref().unwrap_or("default"))
}

fn runtime_uid(pod: &core::Pod) -> Option<&str> {
    let hash = pod.metadata.annotations.as_ref().and_then(|a| a.get(STATIC_UID));
    hash.map(String::as_str).or(pod.metadata.uid.as_deref())
}

fn pod_ref(pod: &core::Pod) -> PodRef {
    PodRef {
        namespace: namespace_of(pod),
        name: pod.metadata.name.as_deref().unwrap_or_default().into(),
        uid: runtime_uid(pod).map(PodUid::new),
    }
}

fn object_reference(pod: &core::Pod) -> core::ObjectReference {
    let meta = pod.metadata.clone();
    core::ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: meta.namespace,
        name: meta.name,
        uid: meta.uid,
        ..core::ObjectReference::default()
    }
}

fn is_host_network(pod: &core::Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

fn has_ended(pod: &core::Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests;
