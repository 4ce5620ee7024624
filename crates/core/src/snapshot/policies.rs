//! Policies by what they apply to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Snapshot;
use crate::ids::{Namespace, PolicyKey};
use crate::policy::Scope;
use crate::telemetry::{Defaults, ParentSampling, Share, Telemetry, TelemetryPolicy, effective, gateway_of};
use crate::workload::Workload;

/// A policy that says what it applies to.
pub(super) trait Scoped {
    fn key(&self) -> &PolicyKey;
    fn scope(&self) -> &Scope;
}

impl Scoped for crate::policy::AuthorizationPolicy {
    fn key(&self) -> &PolicyKey {
        &self.key
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Scoped for crate::policy::MeshPolicy {
    fn key(&self) -> &PolicyKey {
        &self.key
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Scoped for TelemetryPolicy {
    fn key(&self) -> &PolicyKey {
        &self.key
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }
}

/// The policies of one kind. There are few, compared with workloads: an edit copies them.
#[derive(Debug)]
pub(super) struct PolicySet<P> {
    by_key: BTreeMap<PolicyKey, Arc<P>>,
    mesh: Vec<Arc<P>>,
    by_namespace: HashMap<Namespace, Vec<Arc<P>>>,
}

impl<P> Default for PolicySet<P> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), mesh: Vec::new(), by_namespace: HashMap::new() }
    }
}

impl<P> Clone for PolicySet<P> {
    fn clone(&self) -> Self {
        Self { by_key: self.by_key.clone(), mesh: self.mesh.clone(), by_namespace: self.by_namespace.clone() }
    }
}

impl<P: Scoped> PolicySet<P> {
    pub(super) fn insert(&mut self, policy: &Arc<P>) {
        self.remove(policy.key());
        match policy.scope() {
            Scope::Mesh => self.mesh.push(Arc::clone(policy)),
            Scope::Namespace(ns) => self.by_namespace.entry(ns.clone()).or_default().push(Arc::clone(policy)),
            Scope::Selected => {}
        }
        self.by_key.insert(policy.key().clone(), Arc::clone(policy));
    }

    pub(super) fn remove(&mut self, key: &PolicyKey) {
        let Some(policy) = self.by_key.remove(key) else { return };
        match policy.scope() {
            Scope::Mesh => self.mesh.retain(|p| p.key() != key),
            Scope::Namespace(ns) => {
                if let Some(list) = self.by_namespace.get_mut(ns) {
                    list.retain(|p| p.key() != key);
                    if list.is_empty() {
                        self.by_namespace.remove(ns);
                    }
                }
            }
            Scope::Selected => {}
        }
    }

    pub(super) fn get(&self, key: &PolicyKey) -> Option<&Arc<P>> {
        self.by_key.get(key)
    }

    pub(super) fn contains(&self, key: &PolicyKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Every policy that applies to a workload: the mesh's, its namespace's, and those it lists.
    pub(super) fn applying_to<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Arc<P>> {
        self.applying(workload, &workload.policies)
    }

    /// The same, of those that `listed` are what it lists.
    pub(super) fn applying<'a>(
        &'a self,
        workload: &'a Workload,
        listed: &'a [PolicyKey],
    ) -> impl Iterator<Item = &'a Arc<P>> {
        let selected = listed.iter().filter_map(|key| self.by_key.get(key));
        let selected = selected.filter(|policy| matches!(policy.scope(), Scope::Selected));
        let of_namespace = self.by_namespace.get(&workload.namespace).into_iter().flatten();
        self.mesh.iter().chain(of_namespace).chain(selected)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<P>> {
        self.by_key.values()
    }
}

/// What is told of workloads.
impl Snapshot {
    /// Whether a workload refuses plaintext on any of its ports.
    pub fn is_strict_somewhere(&self, workload: &Workload) -> bool {
        let policies: Vec<_> = self.mesh_policies.applying_to(workload).map(|policy| &**policy).collect();
        crate::authorize::is_strict_somewhere(&policies)
    }

    /// Whether there is a telemetry policy at all.
    pub fn has_telemetry_policies(&self) -> bool {
        !self.telemetry.is_empty()
    }

    /// What is told of a workload, or of the Gateway that it stands for.
    pub fn telemetry_for(&self, workload: &Workload, defaults: &Defaults) -> Telemetry {
        let gateway = gateway_of(&workload.uid);
        let all = self.telemetry_policies_for(workload);
        let mut told = effective(all.map(|policy| &**policy), gateway.as_ref(), defaults);
        if gateway.is_some()
            && !defaults.has_collector
            && !self.telemetry.iter().any(|it| it.tracing.provider.is_some())
        {
            // Nobody here traces: what applications say to each other in these headers is theirs.
            told.parent = ParentSampling::Respected(Share::ALL);
        }
        told
    }

    /// The telemetry policies of a workload, or of the Gateway that it stands for, in no order: the mesh's, its namespace's and
    /// those that select it. One that is for a Gateway in two ways is there twice.
    pub fn telemetry_policies_for<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<TelemetryPolicy>> {
        let gateway = gateway_of(&workload.uid);
        let is_for = move |policy: &&Arc<TelemetryPolicy>| {
            gateway.as_ref().is_some_and(|gateway| policy.gateways.contains(gateway))
        };
        let of_gateway = self.telemetry.iter().filter(is_for);
        self.telemetry.applying(workload, &workload.telemetry).chain(of_gateway)
    }

    /// All telemetry policies, by key.
    pub fn telemetry_policies(&self) -> impl Iterator<Item = &Arc<TelemetryPolicy>> {
        self.telemetry.iter()
    }
}
