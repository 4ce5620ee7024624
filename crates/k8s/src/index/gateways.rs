//! Gateways in the index: which are ours, what was made of them, and how many routes each listener has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{CertificateKey, GatewayKey, ListenerKey, ListenerSetKey, Namespace, RouteKey};

use super::lookup::Serving;
use super::provisioned::{Holders, Provisioned};
use super::{Index, Output};
use crate::object::{CONTROLLER_NAME, Gateway, Kind, Object, ObjectRef, ObjectStatus};
use crate::translate::Problem;
use crate::translate::gateway::{
    DEFAULT_CLASS, GatewayView, ListenerView, OnMachine, Place, Served, claim_ports, set_status, status, view,
};

/// What is known of Gateways besides the objects.
#[derive(Debug, Default)]
pub(super) struct GatewayTable {
    views: BTreeMap<GatewayKey, GatewayView>,
    /// Listeners and certificates that were made of each.
    made: HashMap<GatewayKey, BTreeSet<ResourceKey>>,
    /// Routes by the listeners that accepted them, and the other way round.
    routes_of: HashMap<ListenerKey, BTreeSet<RouteKey>>,
    listeners_of: HashMap<RouteKey, Vec<ListenerKey>>,
    /// Whose status may differ.
    pub(super) stale: BTreeSet<GatewayKey>,
    /// Gateways, or ListenerSets of one, that may have another number of routes.
    stale_counts: BTreeSet<(GatewayKey, Option<ListenerSetKey>)>,
    /// Secrets and ConfigMaps that each refers to, whether they are there or not, and the other way round.
    looks_at: HashMap<GatewayKey, BTreeSet<ObjectRef>>,
    looked_at_by: HashMap<ObjectRef, BTreeSet<GatewayKey>>,
    /// How far each is served, and what is known of those in a cluster.
    pub(super) provisioned: Provisioned,
}

impl GatewayTable {
    pub(super) fn view(&self, key: &GatewayKey) -> Option<&GatewayView> {
        self.views.get(key)
    }

    pub(super) fn views(&self) -> impl Iterator<Item = &GatewayView> {
        self.views.values()
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
            self.stale_counts.insert((key.gateway, key.set));
        }
        for key in &listeners {
            self.routes_of.entry(key.clone()).or_default().insert(route.clone());
            self.stale_counts.insert((key.gateway.clone(), key.set.clone()));
        }
        if !listeners.is_empty() {
            self.listeners_of.insert(route.clone(), listeners);
        }
    }

    /// The Gateways that refer to a Secret or ConfigMap.
    pub(super) fn looking_at(&self, reference: &ObjectRef) -> impl Iterator<Item = GatewayKey> {
        self.looked_at_by.get(reference).into_iter().flatten().cloned()
    }

    fn set_looked_at(&mut self, key: &GatewayKey, references: BTreeSet<ObjectRef>) {
        for reference in self.looks_at.remove(key).unwrap_or_default() {
            if let Some(by) = self.looked_at_by.get_mut(&reference) {
                by.remove(key);
                if by.is_empty() {
                    self.looked_at_by.remove(&reference);
                }
            }
        }
        for reference in &references {
            self.looked_at_by.entry(reference.clone()).or_default().insert(key.clone());
        }
        if !references.is_empty() {
            self.looks_at.insert(key.clone(), references);
        }
    }

    /// The Gateways that a route is attached to.
    pub(super) fn of_route(&self, route: &RouteKey) -> BTreeSet<GatewayKey> {
        self.listeners_of.get(route).into_iter().flatten().map(|listener| listener.gateway.clone()).collect()
    }

    fn attached(&self, key: &ListenerKey) -> usize {
        self.routes_of.get(key).map_or(0, BTreeSet::len)
    }
}

fn reference(key: &GatewayKey) -> ObjectRef {
    ObjectRef::new(Kind::Gateway, key.namespace.clone(), key.name.clone())
}

fn reference_of_set(key: &ListenerSetKey) -> ObjectRef {
    ObjectRef::new(Kind::ListenerSet, key.namespace.clone(), key.name.clone())
}

/// What a Gateway has of a ListenerSet: why it is refused, and its listeners.
fn part<'a>(view: Option<&'a GatewayView>, set: &ListenerSetKey) -> Option<(Option<&'a Problem>, &'a [ListenerView])> {
    let view = view?;
    view.set(set).map(|set| (set.refused.as_ref(), set.listeners(view)))
}

impl Index {
    /// Whether a Gateway is of a class of ours. Without a cluster nobody has to make the usual class.
    fn is_ours(&self, gateway: &Gateway) -> bool {
        let name = gateway.spec.gateway_class_name.as_str();
        match self.objects.get(&ObjectRef::new(Kind::GatewayClass, "", name)) {
            Some(Object::GatewayClass(class)) => class.spec.controller_name == CONTROLLER_NAME,
            _ => name == DEFAULT_CLASS && !self.in_cluster(),
        }
    }

    /// What is said of a Gateway that was ours, and is of a class that isn't there any more; `None` if there is nothing to say.
    /// It is served on: whoever deletes a class, perhaps to make it anew, must not end the traffic of all its Gateways.
    fn without_class(&self, key: &GatewayKey, gateway: &Gateway) -> Option<Problem> {
        let class = gateway.spec.gateway_class_name.as_str();
        let before = self.gateways.views.get(key).filter(|_| self.in_cluster())?;
        let is_same = before.class == class && before.uid == gateway.metadata.uid.as_deref().unwrap_or_default();
        let is_gone = !self.objects.contains_key(&ObjectRef::new(Kind::GatewayClass, "", class));
        (is_same && is_gone).then(|| {
            let message = format!("GatewayClass {class} is gone; what serves the Gateway stays as it is");
            Problem::value("spec.gatewayClassName", message, "make the class anew, or delete the Gateway")
        })
    }

    /// Understands Gateways anew: `wanted`, or all of them. On one machine it is always all, because they may stand in each
    /// other's way there. Routes that look at one that differs are added to `routes`.
    pub(super) fn commit_gateways(&mut self, wanted: Option<BTreeSet<GatewayKey>>, routes: &mut BTreeSet<RouteKey>) {
        let Some(settings) = self.config.gateways.clone() else { return };
        let share_a_machine = settings.place != Place::Cluster;
        let keys = wanted.filter(|_| !share_a_machine).unwrap_or_else(|| {
            let there =
                self.of_kind(Kind::Gateway).map(|(it, _)| GatewayKey::new(it.namespace.clone(), it.name.clone()));
            there.chain(self.gateways.views.keys().cloned()).collect()
        });
        let lookup = Serving::new(self, &settings);
        let (mut views, mut looked_at) = (Vec::new(), Vec::new());
        for key in &keys {
            match self.objects.get(&reference(key)) {
                Some(Object::Gateway(gateway)) if self.is_ours(gateway) => views.push(view(gateway, &lookup)),
                Some(Object::Gateway(gateway)) => views.extend(self.without_class(key, gateway).map(|problem| {
                    let mut view = view(gateway, &lookup);
                    view.frozen = Some(problem);
                    view
                })),
                _ => {}
            }
            looked_at.push((key.clone(), lookup.take_looked_at()));
        }
        drop(lookup);
        if share_a_machine {
            claim_ports(&mut views);
        }
        for (key, references) in looked_at {
            self.gateways.set_looked_at(&key, references);
        }
        let mut views: BTreeMap<_, _> = views.into_iter().map(|view| (view.key.clone(), view)).collect();
        let replaced = keys.into_iter().map(|key| {
            let before = match views.remove(&key) {
                Some(view) => self.gateways.views.insert(key.clone(), view),
                None => self.gateways.views.remove(&key),
            };
            (key, before)
        });
        let replaced: Vec<_> = replaced.collect();
        for (key, before) in replaced {
            if before.as_ref() == self.gateways.views.get(&key) {
                continue;
            }
            self.gateway_policies.differs(before.as_ref(), self.gateways.views.get(&key));
            self.differs(before.as_ref(), &key, routes);
            self.emit_gateway(&key);
            self.gateways.stale.insert(key);
        }
        self.note_plans();
    }

    /// What the data plane gets of a Gateway: listeners that are served, and the certificates that they present, no others.
    fn emit_gateway(&mut self, key: &GatewayKey) {
        let mut resources = BTreeMap::new();
        let mut add = |resource: Resource| drop(resources.insert(resource.key(), resource));
        if let Some(view) = self.gateways.views.get(key) {
            let certificate =
                |key: &CertificateKey| view.certificates.get(key).map(|it| Resource::Certificate(Arc::new(it.clone())));
            for listener in view.programmed() {
                listener.protocol.certificates().iter().filter_map(certificate).for_each(&mut add);
                add(Resource::Listener(Arc::new(listener)));
            }
            if let Some(config) = view.config() {
                config.client_certificate.as_ref().and_then(certificate).into_iter().for_each(&mut add);
                add(Resource::GatewayConfig(Arc::new(config)));
            }
        }
        let made: BTreeSet<_> = resources.keys().cloned().collect();
        for gone in self.gateways.made.remove(key).unwrap_or_default().difference(&made) {
            self.emitted.set(gone.clone(), None);
        }
        for (key, resource) in resources {
            self.emitted.set(key, Some(resource));
        }
        if !made.is_empty() {
            self.gateways.made.insert(key.clone(), made);
        }
    }

    /// Reports the statuses of Gateways and ListenerSets that differ, by themselves or by their routes.
    pub(super) fn report_gateways(&mut self, out: &mut Output) {
        let Some(settings) = self.config.gateways.clone() else { return };
        let mut holders = std::mem::take(&mut self.gateways.stale_counts);
        for key in std::mem::take(&mut self.gateways.stale) {
            match self.gateways.views.get(&key) {
                Some(view) => holders.extend(view.sets.iter().map(|set| (key.clone(), Some(set.key.clone())))),
                None => drop(self.statuses.remove(&reference(&key))),
            }
            holders.insert((key, None));
        }
        // The same for thousands of ListenerSets of one Gateway, which come one after the other.
        let mut known: Option<(GatewayKey, Served<'_>)> = None;
        let addresses = Holders::default();
        for (key, set) in holders {
            let Some(view) = self.gateways.views.get(&key) else { continue };
            let attached = |listener: &ListenerView| self.gateways.attached(&listener.key(&key));
            let served = match known.take() {
                Some((of, served)) if of == key => served,
                _ => match &settings.place {
                    Place::Machine { addresses } => {
                        Served::ByMachine(OnMachine { addresses, unbound: self.unbound(&key) })
                    }
                    Place::Cluster => Served::ByPods(self.in_pods(view, &addresses)),
                },
            };
            let (reference, generation, status) = match &set {
                None => (reference(&key), view.generation, ObjectStatus::Gateway(status(view, &served, attached))),
                Some(set) => {
                    let Some(set) = view.set(set) else { continue };
                    let status = ObjectStatus::ListenerSet(set_status(set, view, &served, attached));
                    (reference_of_set(&set.key), set.generation, status)
                }
            };
            self.report(reference, generation, status, out);
            known = Some((key, served));
        }
    }

    /// Notes what became of a Gateway that differs and of its ListenerSets: what is wrong with each, and the routes that
    /// look at those that differ. Of a set that left, nothing is said any more.
    fn differs(&mut self, before: Option<&GatewayView>, key: &GatewayKey, routes: &mut BTreeSet<RouteKey>) {
        let now = self.gateways.views.get(key);
        let whole = |it: Option<&GatewayView>| it.map(|it| (it.refused.clone(), it.frozen.clone()));
        let same_whole = whole(before) == whole(now);
        let is_default = |view: Option<&GatewayView>| view.is_some_and(|view| view.is_default);
        let same_own = same_whole && before.map(GatewayView::own) == now.map(GatewayView::own);
        if !same_own {
            routes.extend(self.routes.attaching_to(key));
        }
        let defaults = (is_default(before), is_default(now));
        if defaults.0 != defaults.1 || (defaults.0 && !same_own) {
            routes.extend(self.routes.defaulting().cloned());
        }
        let mut problems = vec![(reference(key), now.map(|it| it.problems().cloned().collect()).unwrap_or_default())];
        let mut gone = Vec::new();
        let sets: BTreeSet<_> =
            before.into_iter().chain(now).flat_map(|it| it.sets.iter().map(|set| &set.key)).collect();
        for set in sets {
            if same_whole && part(before, set) == part(now, set) {
                continue;
            }
            routes.extend(self.routes.attaching_to_set(set));
            let here = now.and_then(|view| Some(view.set(set)?.problems(view).cloned().collect()));
            match here {
                Some(here) => problems.push((reference_of_set(set), here)),
                // Unless it went to another Gateway of ours, which has its say.
                None if self.gateways.views().all(|view| view.set(set).is_none()) => gone.push(reference_of_set(set)),
                None => {}
            }
        }
        for (reference, problems) in problems {
            self.set_problems(&reference, problems);
        }
        for reference in gone {
            self.statuses.remove(&reference);
            self.set_problems(&reference, Vec::new());
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
