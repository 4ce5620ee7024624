//! The objects of a standalone mesh: manifests, the pods that nodes report, and what follows from them.
//!
//! Stands in for what a cluster's own controllers do: ClusterIPs, EndpointSlices, pod addresses and readiness.
//! No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_core::ids::{Name, Namespace, NodeName, Port, Zone};
use weft_core::policy::Mode;
use weft_core::snapshot::Snapshot;
use weft_core::workload::Enrolment;
use weft_k8s::derive::endpoints::{MANAGED_BY, endpoint_slices};
use weft_k8s::derive::ipam::{Assignments, assign};
use weft_k8s::index::{Index, IndexConfig, Output};
use weft_k8s::object::{Kind, Object, ObjectRef};
use weft_k8s::translate::Problem;
use weft_k8s::translate::enrolment::{enrolment, says};
use weft_k8s::translate::workload::{ZONE_LABEL, pod_uid};
use weft_xds::server::Sequence;

use super::command::{Attachment, Verdict};
use super::listening::{Bound, Listening, Published};
use crate::audit;

/// A pod's name.
type PodName = (Namespace, Name);

/// The objects; see the module.
#[derive(Debug)]
pub struct World {
    index: Index,
    service_ranges: Vec<IpNet>,
    /// Pods and Services as the manifests have them; the index has them completed.
    manifests: BTreeMap<ObjectRef, Object>,
    attached: BTreeMap<PodName, Attachment>,
    zones: BTreeMap<NodeName, Zone>,
    /// Nodes that have been away for long: their pods are not ready.
    lost: BTreeSet<NodeName>,
    addresses: Assignments,
    problems: Vec<(String, Problem)>,
    /// Namespaces whose endpoints must be derived again.
    dirty: BTreeSet<Namespace>,
    services_changed: bool,
    /// The listeners of Gateways that are published, how far the proxy is with them, and what of them is bound by that.
    listeners: Published,
    listening: Listening,
    bound: Bound,
}

impl World {
    /// An empty world that goes on with the addresses and pods of an earlier run.
    pub fn new(config: IndexConfig, service_ranges: Vec<IpNet>, saved: Saved) -> Self {
        let attached = saved.pods.into_iter().map(|a| ((a.namespace.clone(), a.name.clone()), a)).collect();
        let mut world = Self {
            index: Index::new(config),
            service_ranges,
            manifests: BTreeMap::new(),
            attached,
            zones: BTreeMap::new(),
            lost: BTreeSet::new(),
            addresses: saved.addresses,
            problems: Vec::new(),
            dirty: BTreeSet::new(),
            services_changed: true,
            listeners: Published::default(),
            listening: Listening::default(),
            bound: Bound::new(),
        };
        let pods: Vec<_> = world.attached.keys().cloned().collect();
        pods.iter().for_each(|pod| world.compose(pod));
        world
    }

    /// Takes a new or changed manifest.
    pub fn apply(&mut self, object: Object) {
        let reference = object.reference();
        match reference.kind {
            Kind::Pod => {
                let pod = (reference.namespace.clone(), reference.name.clone());
                self.manifests.insert(reference, object);
                self.compose(&pod);
            }
            Kind::Service => {
                self.dirty.insert(reference.namespace.clone());
                self.services_changed = true;
                self.manifests.insert(reference, object);
            }
            _ => {
                audit::note(self.index.get(&reference), Some(&object));
                self.index.apply(object);
            }
        }
    }

    /// Forgets a manifest.
    pub fn delete(&mut self, reference: &ObjectRef) {
        self.manifests.remove(reference);
        match reference.kind {
            Kind::Pod => self.compose(&(reference.namespace.clone(), reference.name.clone())),
            Kind::Service => {
                self.dirty.insert(reference.namespace.clone());
                self.services_changed = true;
                self.index.delete(reference);
            }
            _ => {
                audit::note(self.index.get(reference), None);
                self.index.delete(reference);
            }
        }
    }

    /// A node's agent is there, with exactly these pods.
    pub fn node_up(&mut self, node: &NodeName, zone: Option<Zone>, pods: Vec<Attachment>) {
        self.lost.remove(node);
        match zone {
            Some(zone) => drop(self.zones.insert(node.clone(), zone)),
            None => drop(self.zones.remove(node)),
        }
        let named: BTreeSet<PodName> = pods.iter().map(|a| (a.namespace.clone(), a.name.clone())).collect();
        let gone: Vec<_> = self.on_node(node).filter(|pod| !named.contains(pod)).collect();
        gone.iter().for_each(|pod| self.detach(node, pod));
        pods.into_iter().for_each(|pod| self.attach(pod));
        let all: Vec<_> = self.on_node(node).collect();
        all.iter().for_each(|pod| self.compose(pod));
    }

    /// A node has been away for so long that nothing should be sent there.
    pub fn node_lost(&mut self, node: &NodeName) {
        self.lost.insert(node.clone());
        let pods: Vec<_> = self.on_node(node).collect();
        pods.iter().for_each(|pod| self.compose(pod));
    }

    /// A pod got its network, or its readiness changed. A node that says so of a pod that is another node's by its
    /// manifest is not believed: it would get the pod's identity and its traffic.
    pub fn attach(&mut self, attachment: Attachment) {
        let pod = (attachment.namespace.clone(), attachment.name.clone());
        if let Some(owner) = self.assigned(&pod).filter(|owner| *owner != attachment.node) {
            let (namespace, name) = &pod;
            tracing::error!(node = %attachment.node, %owner, "node reports pod {namespace}/{name}, which is for another node: not believed");
            return;
        }
        self.attached.insert(pod.clone(), attachment);
        self.compose(&pod);
    }

    /// A pod lost its network; only the word of the node that has it counts.
    pub fn detach(&mut self, node: &NodeName, pod: &PodName) {
        if self.attached.get(pod).is_some_and(|a| a.node == *node) {
            self.attached.remove(pod);
            self.compose(pod);
        }
    }

    /// Derives what follows and reports what is different since the last time.
    pub fn commit(&mut self) -> Output {
        self.assign_addresses();
        for namespace in std::mem::take(&mut self.dirty) {
            self.derive(&namespace);
        }
        let Self { index, listeners, listening, bound, .. } = self;
        index.commit_with(|changes| {
            listeners.note(changes);
            let now = listeners.bound(listening);
            let differs = *bound != now;
            bound.clone_from(&now);
            differs.then_some(now)
        })
    }

    /// What was committed is published, as of this point.
    pub fn published(&mut self, at: Sequence) {
        self.listeners.at(at);
    }

    /// The proxy that listens for Gateways has come so far. Takes effect with the next [`World::commit`].
    pub fn hear(&mut self, listening: Listening) {
        self.listening = listening;
    }

    /// What is bound of the listeners of Gateways, as of the last [`World::commit`].
    pub const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// What must survive a restart.
    pub fn saved(&self) -> Saved {
        Saved { addresses: self.addresses.clone(), pods: self.attached.values().cloned().collect() }
    }

    /// What can't be given an address, and why.
    pub fn address_problems(&self) -> &[(String, Problem)] {
        &self.problems
    }

    /// The index, for questions.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The node that a pod is for, if its manifest says so.
    fn assigned(&self, (namespace, name): &PodName) -> Option<NodeName> {
        match self.manifests.get(&ObjectRef::new(Kind::Pod, namespace.clone(), name.clone())) {
            Some(Object::Pod(pod)) => pod.spec.as_ref()?.node_name.as_deref().map(NodeName::new),
            _ => None,
        }
    }

    /// Whether a pod is to be enrolled, by its labels and its namespace's, on the node that asks.
    pub fn decide(&self, node: &NodeName, pod: &PodName, snapshot: &Snapshot) -> Verdict {
        let (namespace, name) = pod;
        if let Some(owner) = self.assigned(pod).filter(|owner| owner != node) {
            return Verdict::Undecided(format!(
                "by its manifest pod {namespace}/{name} is for node {owner}, not {node}"
            ));
        }
        let bare = bare_pod(namespace, name);
        let manifest = self.manifests.get(&ObjectRef::new(Kind::Pod, namespace.clone(), name.clone()));
        let object = match manifest {
            Some(Object::Pod(pod)) => pod,
            _ => &bare,
        };
        match enrolment(object, self.namespace_labels(namespace), self.mesh_namespace()) {
            Enrolment::Enrolled => {
                let workload = snapshot.workload(&pod_uid(namespace, name.as_str()));
                // Any port stands for the workload's own mode.
                let mode = workload.zip(Port::new(u16::MAX)).map(|(w, port)| snapshot.mode_for(w, port));
                let account = object.spec.as_ref().and_then(|s| s.service_account_name.clone());
                Verdict::Enrolled {
                    service_account: account.filter(|a| !a.is_empty()).unwrap_or_else(|| "default".into()).into(),
                    close_older_flows: mode == Some(Mode::Strict),
                }
            }
            Enrolment::Outside if says_no(object) => Verdict::Disabled,
            Enrolment::Outside | Enrolment::HostNetwork => Verdict::NotLabelled,
        }
    }

    /// Namespaces in which nothing is enrolled: what the plugin may let pass while the agent is away.
    pub fn namespaces_outside(&self) -> Vec<Namespace> {
        let namespaces = self.index.of_kind(Kind::Namespace).map(|(reference, _)| Namespace::new(&reference.name));
        let outside = |ns: &Namespace| {
            let (labels, mesh) = (self.namespace_labels(ns), self.mesh_namespace());
            let pods = self.manifests.range(ObjectRef::new(Kind::Pod, ns.clone(), "")..);
            let mut pods = pods.take_while(|(r, _)| r.kind == Kind::Pod && r.namespace == *ns);
            let is_in = |pod| enrolment(pod, labels, mesh) == Enrolment::Enrolled;
            let any = pods.any(|(_, o)| matches!(o, Object::Pod(pod) if is_in(pod)));
            !any && !is_in(&bare_pod(ns, &Name::new("any")))
        };
        namespaces.filter(outside).collect()
    }

    fn mesh_namespace(&self) -> &Namespace {
        &self.index.config().mesh_namespace
    }

    fn namespace_labels(&self, namespace: &Namespace) -> Option<&BTreeMap<String, String>> {
        let reference = ObjectRef::new(Kind::Namespace, "", namespace.as_str());
        match self.index.get(&reference) {
            Some(Object::Namespace(namespace)) => namespace.metadata.labels.as_ref(),
            _ => None,
        }
    }

    fn on_node<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = PodName> + 'a {
        self.attached.iter().filter(move |(_, a)| a.node == *node).map(|(pod, _)| pod.clone())
    }

    /// Puts a pod into the index as its manifest has it, with the addresses its node reports; a pod that no node has
    /// isn't scheduled, and one without a manifest has no labels of its own.
    fn compose(&mut self, pod: &PodName) {
        let (namespace, name) = pod;
        self.dirty.insert(namespace.clone());
        let reference = ObjectRef::new(Kind::Pod, namespace.clone(), name.clone());
        let manifest = match self.manifests.get(&reference) {
            Some(Object::Pod(pod)) => Some((**pod).clone()),
            _ => None,
        };
        let attachment = self.attached.get(pod);
        let Some(mut object) = manifest.or_else(|| attachment.map(|_| bare_pod(namespace, name))) else {
            self.index.delete(&reference);
            return;
        };
        let spec = object.spec.get_or_insert_default();
        match attachment {
            Some(attachment) => {
                spec.node_name = Some(attachment.node.to_string());
                object.metadata.uid = attachment.uid.as_ref().map(ToString::to_string);
                let ready = attachment.ready && !self.lost.contains(&attachment.node);
                object.status = Some(status(attachment, ready));
                if let Some(zone) = self.zones.get(&attachment.node) {
                    let labels = object.metadata.labels.get_or_insert_default();
                    labels.entry(ZONE_LABEL.into()).or_insert_with(|| zone.to_string());
                }
            }
            None => object.status = None,
        }
        self.index.apply(Object::Pod(Arc::new(object)));
    }

    fn assign_addresses(&mut self) {
        if !std::mem::take(&mut self.services_changed) {
            return;
        }
        let services: Vec<core::Service> = self
            .manifests
            .values()
            .filter_map(|o| match o {
                Object::Service(service) => Some((**service).clone()),
                _ => None,
            })
            .collect();
        let borrowed: Vec<_> = services.iter().collect();
        (self.addresses, self.problems) = assign(&self.service_ranges, &self.addresses, &borrowed);
        for mut service in services {
            self.addresses.complete(&mut service);
            self.index.apply(Object::Service(Arc::new(service)));
        }
    }

    /// The EndpointSlices of a namespace's Services, from selectors and pods. Slices that a manifest gives are kept.
    fn derive(&mut self, namespace: &Namespace) {
        let pods: Vec<Arc<core::Pod>> = self
            .index
            .in_namespace(Kind::Pod, namespace)
            .filter_map(|(_, o)| match o {
                Object::Pod(pod) => Some(Arc::clone(pod)),
                _ => None,
            })
            .collect();
        let services = self.index.in_namespace(Kind::Service, namespace).filter_map(|(_, o)| match o {
            Object::Service(service) => Some(service),
            _ => None,
        });
        let made: Vec<_> = services
            .flat_map(|service| endpoint_slices(service, pods.iter().map(|pod| &**pod)))
            .map(|slice| Object::EndpointSlice(Arc::new(slice)))
            .collect();
        let wanted: BTreeSet<ObjectRef> = made.iter().map(Object::reference).collect();
        let slices = self.index.in_namespace(Kind::EndpointSlice, namespace);
        let stale: Vec<_> =
            slices.filter(|(r, o)| is_derived(o) && !wanted.contains(*r)).map(|(r, _)| r.clone()).collect();
        stale.iter().for_each(|reference| self.index.delete(reference));
        made.into_iter().for_each(|slice| self.index.apply(slice));
    }
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Saved {
    /// ClusterIPs: a Service keeps its address.
    pub addresses: Assignments,
    /// Pods as last reported: until their node is back, they are taken to be where they were.
    pub pods: Vec<Attachment>,
}

fn is_derived(object: &Object) -> bool {
    let labels = object.meta().labels.as_ref();
    labels.and_then(|l| l.get("endpointslice.kubernetes.io/managed-by")).is_some_and(|by| by == MANAGED_BY)
}

fn says_no(pod: &core::Pod) -> bool {
    says(pod.metadata.labels.as_ref()) == Some(false)
}

fn bare_pod(namespace: &Namespace, name: &Name) -> core::Pod {
    let metadata =
        ObjectMeta { namespace: Some(namespace.to_string()), name: Some(name.to_string()), ..ObjectMeta::default() };
    core::Pod { metadata, spec: Some(core::PodSpec::default()), status: None }
}

fn status(attachment: &Attachment, ready: bool) -> core::PodStatus {
    let ips: Vec<_> = attachment.ips.iter().map(|ip| core::PodIP { ip: ip.to_string() }).collect();
    let condition = core::PodCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        ..core::PodCondition::default()
    };
    core::PodStatus {
        phase: Some("Running".into()),
        pod_ip: ips.first().map(|ip| ip.ip.clone()),
        pod_ips: Some(ips),
        conditions: Some(vec![condition]),
        ..core::PodStatus::default()
    }
}
