//! Routes in the index: who refers to what, who asks for which Service port, and what was made of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weft_core::change::{Resource, ResourceKey};
use weft_core::gateway::by_scope;
use weft_core::ids::{GatewayKey, ListenerSetKey, Namespace, RouteKey, RouteKind, ServiceKey};

use super::{Index, Output};
use crate::object::{CONTROLLER_NAME, Kind, Object, ObjectRef, ObjectStatus};
use crate::translate::route::parents::{Binding, Claim, bind};
use crate::translate::route::{RouteView, asking, translate};

/// What is known of routes besides the objects.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    /// Routes by the Services they name, as parent or backend.
    references: HashMap<ServiceKey, BTreeSet<RouteKey>>,
    /// Routes by the namespaces, not their own, that they name Services of; with the number of such references.
    crossing: HashMap<Namespace, BTreeMap<RouteKey, usize>>,
    /// Routes by the Gateways they name as parents.
    attaching: HashMap<GatewayKey, BTreeSet<RouteKey>>,
    /// And those that attach to default Gateways.
    defaulting: BTreeSet<RouteKey>,
    /// And by the ListenerSets.
    attaching_to_sets: HashMap<ListenerSetKey, BTreeSet<RouteKey>>,
    /// Who asks for a port, by kind; the first kind has it.
    claims: HashMap<Claim, BTreeMap<RouteKind, BTreeSet<RouteKey>>>,
    bindings: HashMap<RouteKey, Vec<Binding>>,
    rules: HashMap<RouteKey, Vec<ResourceKey>>,
}

fn services_of(view: &RouteView<'_>) -> BTreeSet<ServiceKey> {
    view.parent_services().chain(view.backend_services()).collect()
}

impl RouteTable {
    pub(super) fn note_references(&mut self, view: &RouteView<'_>) {
        for gateway in view.parent_gateways() {
            self.attaching.entry(gateway).or_default().insert(view.key.clone());
        }
        if view.uses_defaults {
            self.defaulting.insert(view.key.clone());
        }
        for set in view.parent_sets() {
            self.attaching_to_sets.entry(set).or_default().insert(view.key.clone());
        }
        for service in services_of(view) {
            if service.namespace != view.key.namespace {
                let of_namespace = self.crossing.entry(service.namespace.clone()).or_default();
                *of_namespace.entry(view.key.clone()).or_default() += 1;
            }
            self.references.entry(service).or_default().insert(view.key.clone());
        }
    }

    pub(super) fn forget_references(&mut self, view: &RouteView<'_>) {
        for gateway in view.parent_gateways() {
            if let Some(routes) = self.attaching.get_mut(&gateway) {
                routes.remove(&view.key);
                if routes.is_empty() {
                    self.attaching.remove(&gateway);
                }
            }
        }
        self.defaulting.remove(&view.key);
        for set in view.parent_sets() {
            if let Some(routes) = self.attaching_to_sets.get_mut(&set) {
                routes.remove(&view.key);
                if routes.is_empty() {
                    self.attaching_to_sets.remove(&set);
                }
            }
        }
        for service in services_of(view) {
            if let Some(routes) = self.references.get_mut(&service) {
                routes.remove(&view.key);
                if routes.is_empty() {
                    self.references.remove(&service);
                }
            }
            if let Some(routes) = self.crossing.get_mut(&service.namespace)
                && let Some(count) = routes.get_mut(&view.key)
            {
                *count -= 1;
                if *count == 0 {
                    routes.remove(&view.key);
                }
            }
        }
    }

    pub(super) fn referring_to(&self, service: &ServiceKey) -> Vec<RouteKey> {
        self.references.get(service).into_iter().flatten().cloned().collect()
    }

    pub(super) fn attaching_to(&self, gateway: &GatewayKey) -> Vec<RouteKey> {
        self.attaching.get(gateway).into_iter().flatten().cloned().collect()
    }

    pub(super) fn attaching_to_set(&self, set: &ListenerSetKey) -> Vec<RouteKey> {
        self.attaching_to_sets.get(set).into_iter().flatten().cloned().collect()
    }

    pub(super) fn attaching(&self) -> impl Iterator<Item = &RouteKey> {
        let named = self.attaching.values().chain(self.attaching_to_sets.values());
        named.chain([&self.defaulting]).flatten()
    }

    /// The routes that attach to default Gateways.
    pub(super) fn defaulting(&self) -> impl Iterator<Item = &RouteKey> {
        self.defaulting.iter()
    }

    pub(super) fn crossing_into(&self, namespace: &Namespace) -> Vec<RouteKey> {
        self.crossing.get(namespace).into_iter().flat_map(|m| m.keys()).cloned().collect()
    }

    pub(super) fn holder(&self, claim: &Claim) -> Option<RouteKind> {
        self.claims.get(claim)?.keys().next().copied()
    }

    /// Replaces what a route asks for; gives the claims that have another holder now.
    fn rebind(&mut self, route: &RouteKey, bindings: Vec<Binding>) -> Vec<Claim> {
        let claims = |list: &[Binding]| -> BTreeSet<Claim> {
            list.iter().filter_map(|b| b.claims.as_ref().ok()).flatten().cloned().collect()
        };
        let old = self.bindings.remove(route).map(|b| claims(&b)).unwrap_or_default();
        let new = claims(&bindings);
        let mut moved = Vec::new();
        for claim in old.symmetric_difference(&new) {
            let before = self.holder(claim);
            if new.contains(claim) {
                self.claims.entry(claim.clone()).or_default().entry(route.kind).or_default().insert(route.clone());
            } else if let Some(kinds) = self.claims.get_mut(claim) {
                if let Some(routes) = kinds.get_mut(&route.kind) {
                    routes.remove(route);
                    if routes.is_empty() {
                        kinds.remove(&route.kind);
                    }
                }
                if kinds.is_empty() {
                    self.claims.remove(claim);
                }
            }
            if self.holder(claim) != before {
                moved.push(claim.clone());
            }
        }
        if !bindings.is_empty() {
            self.bindings.insert(route.clone(), bindings);
        }
        moved
    }

    fn claimants(&self, claim: &Claim) -> impl Iterator<Item = &RouteKey> {
        self.claims.get(claim).into_iter().flat_map(|kinds| kinds.values()).flatten()
    }
}

pub(super) fn reference(key: &RouteKey) -> ObjectRef {
    let kind = match key.kind {
        RouteKind::Grpc => Kind::GrpcRoute,
        RouteKind::Http => Kind::HttpRoute,
        RouteKind::Tls => Kind::TlsRoute,
        RouteKind::Tcp => Kind::TcpRoute,
        RouteKind::Udp => Kind::UdpRoute,
    };
    ObjectRef::new(kind, key.namespace.clone(), key.name.clone())
}

impl Index {
    /// Makes rules and statuses of routes anew; gives those that were looked at.
    pub(super) fn commit_routes(&mut self, mut dirty: BTreeSet<RouteKey>, out: &mut Output) -> BTreeSet<RouteKey> {
        // First who asks for what, for all of them, so that the outcome does not depend on their order.
        let (mut moved, mut touched) = (Vec::new(), BTreeSet::new());
        for key in &dirty {
            let view = self.objects.get(&reference(key)).and_then(RouteView::new);
            let bindings = view.as_ref().map(|view| bind(view, self)).unwrap_or_default();
            let asking = view.and_then(|view| asking(&view, self));
            moved.extend(self.routes.rebind(key, bindings));
            self.contended.ask(key, asking, &mut touched);
        }
        dirty.extend(self.contended.settle(touched));
        for claim in &moved {
            dirty.extend(self.routes.claimants(claim).cloned());
        }
        for key in &dirty {
            self.commit_route(key, out);
        }
        dirty
    }

    /// The Services that some routes send to.
    pub(super) fn backends_of<'a>(&'a self, routes: &'a BTreeSet<RouteKey>) -> impl Iterator<Item = ServiceKey> + 'a {
        let views = routes.iter().filter_map(|key| self.objects.get(&reference(key)).and_then(RouteView::new));
        views.flat_map(|view| view.backend_services())
    }

    fn commit_route(&mut self, key: &RouteKey, out: &mut Output) {
        let reference = reference(key);
        let Some(object) = self.objects.get(&reference).cloned() else {
            self.set_rules(key, Vec::new());
            self.gateways.set_attached(key, Vec::new());
            self.set_problems(&reference, Vec::new());
            self.statuses.remove(&reference);
            return;
        };
        let Some(view) = RouteView::new(&object) else { return };
        let bindings = self.routes.bindings.get(key).cloned().unwrap_or_default();
        let made = translate(&view, &bindings, self);
        self.set_rules(key, made.rules.into_iter().flat_map(by_scope).collect());
        self.gateways.set_attached(key, made.listeners);
        // A route that never had a parent of ours is not ours; one that lost its last has entries to be removed.
        if !made.parents.is_empty() || self.statuses.contains_key(&reference) || has_own_entry(&object) {
            self.set_problems(&reference, made.problems);
            self.report(reference, object.generation(), ObjectStatus::Parents(made.parents), out);
        }
    }

    fn set_rules(&mut self, route: &RouteKey, rules: Vec<Resource>) {
        let keys: Vec<_> = rules.iter().map(Resource::key).collect();
        for old in self.routes.rules.remove(route).unwrap_or_default() {
            if !keys.contains(&old) {
                self.emitted.set(old, None);
            }
        }
        for rule in rules {
            self.emitted.set(rule.key(), Some(rule));
        }
        if !keys.is_empty() {
            self.routes.rules.insert(route.clone(), keys);
        }
    }
}

/// Whether the status in the cluster has an entry of ours.
pub(super) fn has_own_entry(object: &Object) -> bool {
    let status = match object {
        Object::HttpRoute(r) => r.status.as_ref(),
        Object::GrpcRoute(r) => r.status.as_ref(),
        Object::TlsRoute(r) => r.status.as_ref(),
        Object::TcpRoute(r) => r.status.as_ref(),
        Object::UdpRoute(r) => r.status.as_ref(),
        Object::XBackend(it) => it.status.as_ref(),
        _ => None,
    };
    status
        .into_iter()
        .flat_map(|s| &s.parents)
        .any(|entry| entry.pointer("/controllerName").and_then(|name| name.as_str()) == Some(CONTROLLER_NAME))
}
