//! The index: objects in by [`Index::apply`] and [`Index::delete`], changes and statuses out by [`Index::commit`].
//!
//! ```text
//!  apply/delete --> objects --+--> dirty routes   --> translate::route  --\
//!                             +--> dirty policies --> translate::authz   --> emitted --diff--> Output
//!                             +--> dirty pods     --> translate::workload-/
//! ```
//!
//! Invariants:
//! - What is emitted depends only on the objects that are there, never on the order in which they came.
//! - A change recomputes only what looks at the changed object: a route edit one route, whatever the size of the
//!   cluster. Who looks at what is kept in [`routes::RouteTable`] and [`policies::PolicyTable`].
//! - Nothing is reported that is equal to what was reported before.

mod backend_tls;
mod backend_traffic;
mod changed;
mod contended;
mod emit;
mod externals;
mod gateway_policies;
mod gateways;
mod lookup;
mod network;
mod pods;
mod policies;
mod provisioned;
mod routes;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::change::{Change, MeshConfig, Resource, ResourceKey};
use weft_core::ids::{GatewayKey, Name, Namespace, NodeName, RouteKey, ServiceKey};
use weft_core::service::{Service, SliceKey};

use crate::object::{Kind, Object, ObjectRef, ObjectStatus, StatusUpdate};
use crate::translate::gateway::GatewaySettings;
use crate::translate::{Problem, endpoints};

use backend_tls::BackendTlsTable;
use backend_traffic::TrafficTable;
use contended::Contended;
use emit::Emitted;
use externals::{ExternalTable, externals};
use gateway_policies::GatewayPolicies;
use gateways::GatewayTable;
use lookup::Grants;
use pods::pod_key;
use policies::PolicyTable;
pub use provisioned::{Bound, GATEWAY_NAME_LABEL};
use routes::RouteTable;
use telemetry::TelemetryTable;

/// Settings of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexConfig {
    /// Mesh-wide settings, emitted as they are.
    pub mesh: MeshConfig,
    /// The namespace of the mesh's own parts, which are never in it.
    pub mesh_namespace: Namespace,
    /// The namespace whose policies may apply to the whole mesh.
    pub root_namespace: Namespace,
    /// How Gateways are served; `None`: they are not, and nothing is said of them.
    pub gateways: Option<GatewaySettings>,
}

impl Default for IndexConfig {
    fn default() -> Self {
        let own = || Namespace::new("weft-system");
        Self { mesh: MeshConfig::default(), mesh_namespace: own(), root_namespace: own(), gateways: None }
    }
}

/// What a commit found different.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Changes of core resources, policies first and removals last.
    pub changes: Vec<Change>,
    /// Statuses that differ from those reported before.
    pub statuses: Vec<StatusUpdate>,
}

impl Output {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.statuses.is_empty()
    }
}

/// What has to be recomputed at the next commit.
#[derive(Debug, Default)]
struct Dirty {
    config: bool,
    pods: BTreeSet<(Namespace, Name)>,
    services: BTreeSet<ServiceKey>,
    slices: BTreeSet<SliceKey>,
    routes: BTreeSet<RouteKey>,
    policies: BTreeSet<ObjectRef>,
    mesh_policies: bool,
    telemetry: bool,
    all_gateways: bool,
    gateways: BTreeSet<GatewayKey>,
    /// XBackends whose status may differ.
    externals: BTreeSet<ServiceKey>,
    /// Namespaces of BackendTLSPolicies.
    backend_tls: BTreeSet<Namespace>,
    /// Namespaces of XBackendTrafficPolicies.
    traffic: BTreeSet<Namespace>,
}

/// Keeps objects and what they mean.
#[derive(Debug)]
pub struct Index {
    config: IndexConfig,
    /// Ordered by kind, namespace and name, so that "the pods of a namespace" is a range.
    objects: BTreeMap<ObjectRef, Object>,
    counts: BTreeMap<Kind, usize>,
    services: HashMap<ServiceKey, Arc<Service>>,
    pods_by_node: HashMap<NodeName, BTreeSet<(Namespace, Name)>>,
    grants: Grants,
    enforced: BTreeSet<Namespace>,
    routes: RouteTable,
    policies: PolicyTable,
    telemetry: TelemetryTable,
    gateway_policies: GatewayPolicies,
    gateways: GatewayTable,
    backend_tls: BackendTlsTable,
    traffic: TrafficTable,
    externals: ExternalTable,
    contended: Contended,
    emitted: Emitted,
    problems: HashMap<ObjectRef, Vec<Problem>>,
    statuses: HashMap<ObjectRef, (i64, ObjectStatus)>,
    dirty: Dirty,
}

impl Index {
    /// An empty index; its first commit emits the mesh-wide settings.
    pub fn new(config: IndexConfig) -> Self {
        Self {
            config,
            objects: BTreeMap::new(),
            counts: BTreeMap::new(),
            services: HashMap::new(),
            pods_by_node: HashMap::new(),
            grants: Grants::default(),
            enforced: BTreeSet::new(),
            routes: RouteTable::default(),
            policies: PolicyTable::default(),
            telemetry: TelemetryTable::default(),
            gateway_policies: GatewayPolicies::default(),
            gateways: GatewayTable::default(),
            backend_tls: BackendTlsTable::default(),
            traffic: TrafficTable::default(),
            externals: ExternalTable::default(),
            contended: Contended::default(),
            emitted: Emitted::default(),
            problems: HashMap::new(),
            statuses: HashMap::new(),
            dirty: Dirty { config: true, ..Dirty::default() },
        }
    }

    /// Takes a new or changed object; takes effect with the next [`Index::commit`].
    pub fn apply(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let reference = object.reference();
        let old = self.objects.insert(reference.clone(), object.clone());
        *self.counts.entry(reference.kind).or_default() += usize::from(old.is_none());
        if old.as_ref().is_some_and(|old| old.meta().uid != object.meta().uid) {
            // Made anew under the same name: nothing has been reported of this one.
            self.statuses.remove(&reference);
        }
        if old.as_ref() != Some(&object) {
            self.changed(&reference, old.as_ref(), Some(&object));
        }
    }

    /// Forgets an object; nothing if it is not there.
    pub fn delete(&mut self, reference: &ObjectRef) {
        if let Some(old) = self.objects.remove(reference) {
            self.counts.entry(reference.kind).and_modify(|count| *count -= 1);
            self.changed(reference, Some(&old), None);
        }
    }

    /// Takes all objects of a kind: those not in the list are deleted.
    pub fn resync(&mut self, kind: Kind, objects: impl IntoIterator<Item = Object>) {
        let mut seen = BTreeSet::new();
        for object in objects.into_iter().filter(|o| o.kind() == kind) {
            seen.insert(object.reference());
            self.apply(object);
        }
        let gone: Vec<_> = self.of_kind(kind).map(|(r, _)| r.clone()).filter(|r| !seen.contains(r)).collect();
        gone.iter().for_each(|reference| self.delete(reference));
    }

    /// Replaces the mesh-wide settings; takes effect with the next [`Index::commit`].
    pub fn set_mesh(&mut self, mesh: MeshConfig) {
        if self.config.mesh != mesh {
            self.config.mesh = mesh;
            self.dirty.config = true;
        }
    }

    /// The mesh-wide settings.
    pub fn mesh(&self) -> &MeshConfig {
        &self.config.mesh
    }

    /// The status of one object as it was reported last, with the generation that was looked at.
    pub fn status(&self, reference: &ObjectRef) -> Option<(i64, &ObjectStatus)> {
        self.statuses.get(reference).map(|(generation, status)| (*generation, status))
    }

    /// An object.
    pub fn get(&self, reference: &ObjectRef) -> Option<&Object> {
        self.objects.get(reference)
    }

    /// What the index was made with.
    pub const fn config(&self) -> &IndexConfig {
        &self.config
    }

    /// How many objects of a kind there are; costs nothing.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// All objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectRef, &Object)> {
        self.objects.range(ObjectRef::new(kind, "", "")..).take_while(move |(r, _)| r.kind == kind)
    }

    /// All objects of a kind in a namespace, by name.
    pub fn in_namespace(&self, kind: Kind, namespace: &Namespace) -> impl Iterator<Item = (&ObjectRef, &Object)> {
        let (from, ns) = (ObjectRef::new(kind, namespace.clone(), ""), namespace.clone());
        self.objects.range(from..).take_while(move |(r, _)| r.kind == kind && r.namespace == ns)
    }

    /// What is wrong with an object, as of the last commit.
    pub fn problems(&self, reference: &ObjectRef) -> &[Problem] {
        self.problems.get(reference).map(Vec::as_slice).unwrap_or_default()
    }

    /// All that is wrong, as of the last commit.
    pub fn all_problems(&self) -> impl Iterator<Item = (&ObjectRef, &Problem)> {
        self.problems.iter().flat_map(|(r, list)| list.iter().map(move |p| (r, p)))
    }

    /// All resources as of the last commit, by key.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.emitted.iter()
    }

    /// One resource as of the last commit.
    pub fn resource(&self, key: &ResourceKey) -> Option<&Resource> {
        self.emitted.get(key)
    }

    /// All statuses as of the last commit.
    pub fn statuses(&self) -> impl Iterator<Item = StatusUpdate> {
        self.statuses.iter().map(|(object, (generation, status))| StatusUpdate {
            object: object.clone(),
            generation: *generation,
            status: status.clone(),
        })
    }

    fn set_problems(&mut self, reference: &ObjectRef, problems: Vec<Problem>) {
        if problems.is_empty() {
            self.problems.remove(reference);
        } else {
            self.problems.insert(reference.clone(), problems);
        }
    }

    /// Recomputes what changed and reports what is different.
    pub fn commit(&mut self) -> Output {
        self.commit_with(|_listeners| None)
    }

    /// The same. `bound` is given what is different of the listeners, and says what is bound with these ([`Index::set_bound`]) in
    /// time for the statuses of Gateways; `None`: what was so far.
    pub fn commit_with(&mut self, bound: impl FnOnce(&[Change]) -> Option<Bound>) -> Output {
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut out = Output::default();
        if dirty.config {
            self.emitted.set(ResourceKey::Mesh, Some(Resource::Mesh(Arc::new(self.config.mesh.clone()))));
        }
        let (mut pods, mut routes) = (std::mem::take(&mut dirty.pods), std::mem::take(&mut dirty.routes));
        self.commit_policies(&mut dirty, &mut pods, &mut out);
        if dirty.telemetry {
            self.commit_telemetry(&mut pods);
        }
        for key in &pods {
            self.commit_pod(key);
        }
        let mut services = std::mem::take(&mut dirty.services);
        self.commit_traffic(&dirty.traffic, (&mut services, &mut routes), &mut out);
        services.into_iter().for_each(|key| self.emit_service(key));
        for key in dirty.slices {
            let reference = ObjectRef::new(Kind::EndpointSlice, key.namespace.clone(), key.name.clone());
            let (made, imported) = match self.objects.get(&reference) {
                Some(Object::EndpointSlice(slice)) => {
                    (endpoints::endpoint_slice(slice), endpoints::imported_slice(slice))
                }
                _ => (None, None),
            };
            let name = endpoints::imported_name(key.name.as_str());
            let of_import = SliceKey { namespace: key.namespace.clone(), name: Name::new(name) };
            for (key, made) in [(key, made), (of_import, imported)] {
                self.emitted.set(ResourceKey::EndpointSlice(key), made.map(|m| Resource::EndpointSlice(Arc::new(m))));
            }
        }
        let gateways = dirty.all_gateways || !dirty.gateways.is_empty();
        if gateways {
            let some = (!dirty.all_gateways).then_some(dirty.gateways);
            self.commit_gateways(some, &mut routes);
        }
        let routes = self.commit_routes(routes, &mut out);
        let listeners = self.emitted.so_far(|key| matches!(key, ResourceKey::Listener(_)));
        if let Some(bound) = bound(&listeners) {
            self.set_bound(bound);
        }
        self.report_gateways(&mut out);
        self.report_gateway_policies(&mut out);
        if dirty.telemetry || gateways {
            self.report_telemetry(&mut out);
        }
        let mut backend_tls = dirty.backend_tls;
        backend_tls.extend(self.backend_tls.naming(self.backends_of(&routes)));
        self.commit_backend_tls(&backend_tls, &mut out);
        let mut told = dirty.externals;
        told.extend(externals(self.backends_of(&routes)));
        self.report_externals(told, &mut out);
        out.changes = self.emitted.take_changes();
        out.statuses.sort_by(|a, b| a.object.cmp(&b.object));
        out
    }

    /// Reports a status unless it is the one reported before.
    fn report(&mut self, object: ObjectRef, generation: i64, status: ObjectStatus, out: &mut Output) {
        if self.statuses.get(&object).is_some_and(|(g, s)| *g == generation && *s == status) {
            return;
        }
        self.statuses.insert(object.clone(), (generation, status.clone()));
        out.statuses.push(StatusUpdate { object, generation, status });
    }
}

#[cfg(test)]
mod tests;
