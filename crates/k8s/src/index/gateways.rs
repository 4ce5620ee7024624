//! Gateways in the index: which are ours, what was made of them, and how many routes each listener has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{GatewayKey, ListenerKey, Namespace, RouteKey};

use super::lookup::Serving;
use super::{Index, Output};
use crate::object::{CONTROLLER_NAME, Gateway, Kind, Object, ObjectRef, ObjectStatus};
use crate::translate::gateway::{DEFAULT_CLASS, GatewayView, claim_ports, status, view};

/// What is known of Gateways besides the objects.
#[derive(Debug, Default)]
pub(super) struct GatewayTable {
    views: BTreeMap<GatewayKey, GatewayView>,
    /// Listeners and certificates that were made of them.
    made: BTreeSet<ResourceKey>,
    /// Routes by the listeners that accepted them, and the other way round.
    routes_of: HashMap<ListenerKey, BTreeSet<RouteKey>>,
    listeners_of: HashMap<RouteKey, Vec<ListenerKey>>,
    /// Whose status may differ.
    stale: BTreeSet<GatewayKey>,
}

impl GatewayTable {
    pub(super) fn view(&self, key: &GatewayKey) -> Option<&GatewayView> {
        self.views.get(key)
    }

    /// Replaces the listeners that a route is attached to.
    pub(super) fn set_attached(&mut self, route: &RouteKey, listeners: Vec<ListenerKey>) {
        if self.listeners_of.get(route).map(Vec::as_slice).unwrap_or_default() == listeners.as_slice() {
            return;
        }
        for key in self.listeners_of.remove(route).unwrap_or_default() {
            if let Some(routes) = self.routes_of.get_mut(&key) {
                routes.remove(route);
                if routes.is_empty() {
                    self.routes_of.remove(&key);
                }
            }
            self.stale.insert(key.gateway);
        }
        for key in &listeners {
            self.routes_of.entry(key.clone()).or_default().insert(route.clone());
            self.stale.insert(key.gateway.clone());
        }
        if !listeners.is_empty() {
            self.listeners_of.insert(route.clone(), listeners);
        }
    }

    fn attached(&self, key: &ListenerKey) -> usize {
        self.routes_of.get(key).map_or(0, BTreeSet::len)
    }
}

fn reference(key: &GatewayKey) -> ObjectRef {
    ObjectRef::new(Kind::Gateway, key.namespace.clone(), key.name.clone())
}

impl Index {
    /// Whether a Gateway is of a class of ours. Without a cluster nobody has to make the usual class.
    fn is_ours(&self, gateway: &Gateway) -> bool {
        let name = gateway.spec.gateway_class_name.as_str();
        match self.objects.get(&ObjectRef::new(Kind::GatewayClass, "", name)) {
            Some(Object::GatewayClass(class)) => class.spec.controller_name == CONTROLLER_NAME,
            _ => name == DEFAULT_CLASS,
        }
    }

    /// Understands all Gateways anew, because they may stand in each other's way. Routes that look at one that differs
    /// are added to `routes`.
    pub(super) fn commit_gateways(&mut self, routes: &mut BTreeSet<RouteKey>) {
        let Some(settings) = self.config.gateways.clone() else { return };
        let lookup = Serving { index: self, settings: &settings };
        let ours = self.of_kind(Kind::Gateway).filter_map(|(_, object)| match object {
            Object::Gateway(gateway) if self.is_ours(gateway) => Some(view(gateway, &lookup)),
            _ => None,
        });
        let mut views: Vec<_> = ours.collect();
        claim_ports(&mut views);
        let views: BTreeMap<_, _> = views.into_iter().map(|view| (view.key.clone(), view)).collect();
        let before = std::mem::replace(&mut self.gateways.views, views);
        let keys: BTreeSet<_> = before.keys().chain(self.gateways.views.keys()).cloned().collect();
        for key in keys {
            let now = self.gateways.views.get(&key);
            if before.get(&key) == now {
                continue;
            }
            let problems = now.map(|view| view.problems().cloned().collect()).unwrap_or_default();
            routes.extend(self.routes.attaching_to(&key));
            self.set_problems(&reference(&key), problems);
            self.gateways.stale.insert(key);
        }
        self.emit_gateways();
    }

    /// What the data plane gets: listeners that are served, and the certificates that they present, no others.
    fn emit_gateways(&mut self) {
        let mut resources = BTreeMap::new();
        for view in self.gateways.views.values() {
            for listener in view.programmed() {
                for key in listener.protocol.certificates() {
                    let found = view.certificates.iter().find(|certificate| certificate.key == *key);
                    if let Some(certificate) = found {
                        let resource = Resource::Certificate(Arc::new(certificate.clone()));
                        resources.insert(resource.key(), resource);
                    }
                }
                let resource = Resource::Listener(Arc::new(listener));
                resources.insert(resource.key(), resource);
            }
        }
        let made: BTreeSet<_> = resources.keys().cloned().collect();
        for gone in std::mem::take(&mut self.gateways.made).difference(&made) {
            self.emitted.set(gone.clone(), None);
        }
        for (key, resource) in resources {
            self.emitted.set(key, Some(resource));
        }
        self.gateways.made = made;
    }

    /// Reports the statuses of Gateways that differ, by themselves or by their routes.
    pub(super) fn report_gateways(&mut self, out: &mut Output) {
        let Some(settings) = self.config.gateways.clone() else { return };
        for key in std::mem::take(&mut self.gateways.stale) {
            let reference = reference(&key);
            let Some(view) = self.gateways.views.get(&key) else {
                self.statuses.remove(&reference);
                continue;
            };
            let attached = |name: &weft_core::ids::SectionName| {
                self.gateways.attached(&ListenerKey { gateway: key.clone(), name: name.clone() })
            };
            let status = ObjectStatus::Gateway(status(view, &settings, attached));
            self.report(reference, view.generation, status, out);
        }
    }

    /// The routes of a namespace that attach to Gateways, whose listeners may look at the namespace's labels.
    pub(super) fn gateway_routes_in(&self, namespace: &Namespace) -> Vec<RouteKey> {
        if self.config.gateways.is_none() {
            return Vec::new();
        }
        self.routes.attaching().filter(|route| route.namespace == *namespace).cloned().collect()
    }
}
