//! The configuration of a node at one moment, immutable, indexed for what the data plane asks.
//!
//! Invariants: a frontend exists for every TCP or UDP port of every known Service, compiled from its current
//! slices and rules; applying changes costs what they touch, not what the cluster holds; the order of the
//! changes in a batch doesn't matter (a rule may come before its Service).

mod few;
mod frontend;
mod gateways;
mod keyed;
mod policies;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use self::few::{Few, edit_few, put};
pub use self::frontend::{EndpointEntry, EndpointList, Frontend, RouteSet};
use self::gateways::Gateways;
pub use self::gateways::{GatewayListener, GatewayPort};
use self::policies::PolicySet;
use crate::change::{Change, MeshConfig, Resource, ResourceKey};
use crate::gateway::{BackendTls, Bind, Certificate, GatewayConfig, GatewayRule, Listener};
use crate::ids::{CertificateKey, GatewayKey, Port, RuleKey, ServiceKey, ServicePortKey, WorkloadUid};
use crate::policy::{AuthorizationPolicy, MeshPolicy, Mode, WorkloadLimits};
use crate::route::{Parent, RouteRule};
use crate::service::{EndpointSlice, Service, SliceKey};
use crate::sharded::{ShardedMap, ShardedSet};
use crate::telemetry::TelemetryPolicy;
use crate::workload::{Enrolment, Workload};

/// The authorization policies of one workload; most have few.
pub type Policies = SmallVec<[Arc<AuthorizationPolicy>; 4]>;

/// A node's configuration; see the module.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    mesh: Arc<MeshConfig>,
    workloads: ShardedSet<Arc<Workload>>,
    services: ShardedSet<Arc<Service>>,
    addresses: ShardedSet<AddressOwner>,
    slices: ShardedSet<Arc<EndpointSlice>>,
    slices_of: ShardedMap<ServiceKey, Few<EndpointSlice>>,
    rules: ShardedSet<Arc<RouteRule>>,
    rules_of: ShardedMap<ServicePortKey, Few<RouteRule>>,
    frontends: ShardedSet<Arc<Frontend>>,
    authorization: Arc<PolicySet<AuthorizationPolicy>>,
    mesh_policies: Arc<PolicySet<MeshPolicy>>,
    telemetry: Arc<PolicySet<TelemetryPolicy>>,
    gateways: Gateways,
}

/// The Services of a snapshot. Equal to those of a later one if none of them came, went or was written since; that takes no
/// time to see.
#[derive(Clone, Debug)]
pub struct AllServices(ShardedSet<Arc<Service>>);

impl PartialEq for AllServices {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }
}

/// Who has an address, and which one of its addresses that is.
#[derive(Clone, Debug)]
enum AddressOwner {
    Service(Arc<Service>, u16),
    Workload(Arc<Workload>, u16),
}

/// What an address means.
#[derive(Clone, Copy, Debug)]
pub enum Address<'a> {
    /// A Service's frontend.
    Service(&'a Arc<Service>),
    /// A workload's own address.
    Workload(&'a Arc<Workload>),
    /// Inside the cluster's ranges, but nothing we know of yet.
    InCluster,
    /// Not ours.
    Outside,
}

impl Snapshot {
    /// The snapshot after a batch of changes.
    pub fn apply(&self, changes: &[Change]) -> Self {
        let mut next = self.clone();
        let mut dirty = Dirty::default();
        for change in changes {
            match change {
                Change::Upsert(resource) => next.upsert(resource, &mut dirty),
                Change::Remove(key) => next.remove(key, &mut dirty),
            }
        }
        next.rebuild(&dirty);
        next
    }

    /// The mesh-wide settings.
    pub fn mesh(&self) -> &Arc<MeshConfig> {
        &self.mesh
    }

    /// What an address means.
    pub fn address(&self, ip: IpAddr) -> Address<'_> {
        match self.addresses.get(&ip) {
            Some(AddressOwner::Service(service, _)) => Address::Service(service),
            Some(AddressOwner::Workload(workload, _)) => Address::Workload(workload),
            None if self.mesh.cluster_ranges.iter().any(|range| range.contains(&ip)) => Address::InCluster,
            None => Address::Outside,
        }
    }

    /// A workload by its id.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that has an address of its own; none for a host-network pod.
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        match self.addresses.get(&ip)? {
            AddressOwner::Workload(workload, _) => Some(workload),
            AddressOwner::Service(..) => None,
        }
    }

    /// A Service by its key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// A Service port with its endpoints and routes.
    pub fn frontend(&self, key: &ServicePortKey) -> Option<&Arc<Frontend>> {
        self.frontends.get(key)
    }

    /// The authorization policies that apply to a workload.
    pub fn policies_for(&self, workload: &Workload) -> Policies {
        self.authorization.applying_to(workload).cloned().collect()
    }

    /// Whether every policy that a workload lists is here. While one is not (it is on its way, or gone), what applies to
    /// the workload is not known.
    pub fn has_policies_of(&self, workload: &Workload) -> bool {
        let here = |key| self.authorization.contains(key) || self.mesh_policies.contains(key);
        workload.policies.iter().all(here)
    }

    /// The authorization policies of a Gateway's listener; `None` while one of them is not here (it is on its way, or gone):
    /// then nobody knows what applies.
    pub fn policies_at(&self, listener: &Listener) -> Option<Policies> {
        listener.policies.iter().map(|key| self.authorization.get(key).cloned()).collect()
    }

    /// Whether a workload takes plaintext on a port.
    pub fn mode_for(&self, workload: &Workload, port: Port) -> Mode {
        crate::authorize::effective_mode(self.mesh_policies.applying_to(workload).map(|p| &**p), port)
    }

    /// The budgets of a workload, each from the most specific policy that gives it.
    pub fn limits_for(&self, workload: &Workload) -> WorkloadLimits {
        crate::authorize::effective_limits(self.mesh_policies.applying_to(workload).map(|p| &**p))
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// All Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// All Services as a whole, to learn later whether one has changed.
    pub fn all_services(&self) -> AllServices {
        AllServices(self.services.clone())
    }

    /// All rules of Services, in no order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<RouteRule>> {
        self.rules.iter()
    }

    /// All authorization policies, by key.
    pub fn authorization_policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.authorization.iter()
    }

    /// All mesh policies, by key.
    pub fn mesh_policies(&self) -> impl Iterator<Item = &Arc<MeshPolicy>> {
        self.mesh_policies.iter()
    }

    /// What listens at a place for Gateways.
    pub fn gateway_port(&self, bind: &Bind) -> Option<&Arc<GatewayPort>> {
        self.gateways.port(bind)
    }

    /// All places that are listened on for Gateways, in no order.
    pub fn gateway_ports(&self) -> impl Iterator<Item = &Arc<GatewayPort>> {
        self.gateways.ports()
    }

    /// All listeners of Gateways, in no order.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.gateways.listeners()
    }

    /// All rules of Gateways, in no order.
    pub fn gateway_rules(&self) -> impl Iterator<Item = &Arc<GatewayRule>> {
        self.gateways.rules()
    }

    /// A certificate that a Gateway presents.
    pub fn certificate(&self, key: &CertificateKey) -> Option<&Arc<Certificate>> {
        self.gateways.certificate(key)
    }

    /// What a Gateway has besides its listeners.
    pub fn gateway_config(&self, key: &GatewayKey) -> Option<&Arc<GatewayConfig>> {
        self.gateways.config(key)
    }

    /// How Gateways speak TLS to a Service port; `None`: they don't.
    pub fn backend_tls(&self, key: &ServicePortKey) -> Option<&Arc<BackendTls>> {
        self.gateways.backend_tls(key)
    }

    /// Everything as resources, for a copy on disk and for tests; without private keys, so without certificates.
    pub fn resources(&self) -> Vec<Resource> {
        let mut all = vec![Resource::Mesh(Arc::clone(&self.mesh))];
        all.extend(self.workloads().cloned().map(Resource::Workload));
        all.extend(self.services().cloned().map(Resource::Service));
        all.extend(self.slices.iter().cloned().map(Resource::EndpointSlice));
        all.extend(self.rules().cloned().map(Resource::Rule));
        all.extend(self.authorization_policies().cloned().map(Resource::Authorization));
        all.extend(self.mesh_policies().cloned().map(Resource::MeshPolicy));
        all.extend(self.telemetry_policies().cloned().map(Resource::Telemetry));
        all.extend(self.gateways.resources());
        all
    }

    fn upsert(&mut self, resource: &Resource, dirty: &mut Dirty) {
        match resource {
            Resource::Workload(workload) => self.upsert_workload(workload),
            Resource::Service(service) => {
                self.remove_service(&service.key, dirty);
                for (ip, at) in service.addresses.iter().zip(0..=u16::MAX) {
                    self.addresses.insert(ip, AddressOwner::Service(Arc::clone(service), at));
                }
                self.services.insert(&service.key, Arc::clone(service));
                dirty.services.insert(service.key.clone());
            }
            Resource::EndpointSlice(slice) => {
                self.remove_slice(&slice.key, dirty);
                edit_few(&mut self.slices_of, &slice.service, |few| put(few, slice, |it| &it.key));
                self.slices.insert(&slice.key, Arc::clone(slice));
                dirty.services.insert(slice.service.clone());
            }
            Resource::Rule(rule) => {
                self.remove_rule(rule.key(), dirty);
                for port in service_ports(rule) {
                    edit_few(&mut self.rules_of, port, |few| put(few, rule, RouteRule::key));
                    dirty.ports.insert(port.clone());
                }
                self.rules.insert(rule.key(), Arc::clone(rule));
            }
            Resource::Listener(_)
            | Resource::Certificate(_)
            | Resource::GatewayRule(_)
            | Resource::GatewayConfig(_)
            | Resource::BackendTls(_) => self.gateways.upsert(resource, &mut dirty.gateways),
            Resource::Authorization(policy) => Arc::make_mut(&mut self.authorization).insert(policy),
            Resource::MeshPolicy(policy) => Arc::make_mut(&mut self.mesh_policies).insert(policy),
            Resource::Telemetry(policy) => Arc::make_mut(&mut self.telemetry).insert(policy),
            Resource::Mesh(mesh) => self.mesh = Arc::clone(mesh),
        }
    }

    fn remove(&mut self, key: &ResourceKey, dirty: &mut Dirty) {
        match key {
            ResourceKey::Workload(uid) => self.remove_workload(uid),
            ResourceKey::Service(key) => self.remove_service(key, dirty),
            ResourceKey::EndpointSlice(key) => self.remove_slice(key, dirty),
            ResourceKey::Rule(key) => self.remove_rule(key, dirty),
            ResourceKey::Listener(_)
            | ResourceKey::Certificate(_)
            | ResourceKey::GatewayRule(_)
            | ResourceKey::GatewayConfig(_)
            | ResourceKey::BackendTls(_) => self.gateways.remove(key, &mut dirty.gateways),
            ResourceKey::Authorization(key) => Arc::make_mut(&mut self.authorization).remove(key),
            ResourceKey::MeshPolicy(key) => Arc::make_mut(&mut self.mesh_policies).remove(key),
            ResourceKey::Telemetry(key) => Arc::make_mut(&mut self.telemetry).remove(key),
            ResourceKey::Mesh => self.mesh = Arc::default(),
        }
    }

    fn upsert_workload(&mut self, workload: &Arc<Workload>) {
        self.remove_workload(&workload.uid);
        self.workloads.insert(&workload.uid, Arc::clone(workload));
        // A host-network pod shares its node's address with everything else there: it names nobody.
        if workload.enrolment != Enrolment::HostNetwork {
            for (ip, at) in workload.addresses.iter().zip(0..=u16::MAX) {
                self.addresses.insert(ip, AddressOwner::Workload(Arc::clone(workload), at));
            }
        }
    }

    fn remove_workload(&mut self, uid: &WorkloadUid) {
        let Some(workload) = self.workloads.remove(uid) else { return };
        for ip in &workload.addresses {
            // The address may belong to a newer pod by now.
            if matches!(self.addresses.get(ip), Some(AddressOwner::Workload(owner, _)) if owner.uid == *uid) {
                self.addresses.remove(ip);
            }
        }
    }

    fn remove_service(&mut self, key: &ServiceKey, dirty: &mut Dirty) {
        let Some(service) = self.services.remove(key) else { return };
        for ip in &service.addresses {
            if matches!(self.addresses.get(ip), Some(AddressOwner::Service(owner, _)) if owner.key == *key) {
                self.addresses.remove(ip);
            }
        }
        dirty.services.insert(key.clone());
        for port in &service.ports {
            dirty.ports.insert(ServicePortKey { service: key.clone(), port: port.port });
        }
    }

    fn remove_slice(&mut self, key: &SliceKey, dirty: &mut Dirty) {
        let Some(slice) = self.slices.remove(key) else { return };
        edit_few(&mut self.slices_of, &slice.service, |few| few.retain(|it| it.key != *key));
        dirty.services.insert(slice.service.clone());
    }

    fn remove_rule(&mut self, key: &RuleKey, dirty: &mut Dirty) {
        let Some(rule) = self.rules.remove(key) else { return };
        for port in service_ports(&rule) {
            edit_few(&mut self.rules_of, port, |few| few.retain(|it| it.key() != key));
            dirty.ports.insert(port.clone());
        }
    }

    fn rebuild(&mut self, dirty: &Dirty) {
        self.gateways.rebuild(&dirty.gateways);
        let mut ports = dirty.ports.clone();
        for key in &dirty.services {
            let Some(service) = self.services.get(key) else { continue };
            ports.extend(service.ports.iter().map(|p| ServicePortKey { service: key.clone(), port: p.port }));
        }
        for key in ports {
            match self.compile(&key) {
                Some(frontend) => self.frontends.insert(&key, Arc::new(frontend)),
                None => drop(self.frontends.remove(&key)),
            }
        }
    }

    fn compile(&self, key: &ServicePortKey) -> Option<Frontend> {
        let service = self.services.get(&key.service)?;
        let port = service.ports.iter().find(|p| p.port == key.port)?;
        let parts = frontend::Parts {
            service,
            port,
            slices: self.slices_of.get(&key.service).map_or(&[], |few| few),
            rules: self.rules_of.get(key).map_or(&[], |few| few),
            before: self.frontends.get(key),
        };
        Some(parts.build())
    }
}

/// What a batch of changes made stale.
#[derive(Default)]
struct Dirty {
    services: BTreeSet<ServiceKey>,
    ports: BTreeSet<ServicePortKey>,
    gateways: gateways::Dirty,
}

fn service_ports(rule: &RouteRule) -> impl Iterator<Item = &ServicePortKey> {
    rule.parents().iter().filter_map(|parent| match parent {
        Parent::Service { port, .. } => Some(port),
        Parent::Listener(_) => None,
    })
}
