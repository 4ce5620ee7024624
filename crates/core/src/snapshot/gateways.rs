//! Listeners of Gateways with the routes attached to them, compiled once per change, by where they listen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::frontend::RouteSet;
use crate::change::{Resource, ResourceKey};
use crate::gateway::{BackendTls, Bind, Certificate, GatewayConfig, GatewayRule, Listener, PortLayer};
use crate::ids::{CertificateKey, GatewayKey, GatewayRuleKey, ListenerKey, RouteKind, ServicePortKey};
use crate::matching::{HttpTable, L4Table, ListenerTable, Named};
use crate::route::{HostnameMatch, Parent, RouteRule};
use crate::sharded::{ShardedMap, ShardedSet};

/// A listener as the data plane uses it.
#[derive(Debug)]
pub struct GatewayListener {
    /// The listener.
    pub listener: Arc<Listener>,
    /// The routes attached to it; without any nothing is found.
    pub routes: RouteSet,
}

impl Named for GatewayListener {
    fn key(&self) -> &ListenerKey {
        &self.listener.key
    }

    fn hostname(&self) -> Option<&HostnameMatch> {
        self.listener.hostname.as_ref()
    }
}

/// What listens at one place.
#[derive(Debug)]
pub struct GatewayPort {
    /// Where.
    pub bind: Bind,
    /// Whose.
    pub gateway: GatewayKey,
    /// How its listeners are told apart.
    pub layer: PortLayer,
    /// Its listeners.
    pub listeners: ListenerTable<GatewayListener>,
}

/// What a batch of changes made stale.
#[derive(Default)]
pub(super) struct Dirty {
    /// Listeners, with the rules that they may have had differently before the batch, as they had them.
    listeners: BTreeMap<ListenerKey, Edited>,
    /// Places that listeners left.
    binds: BTreeSet<Bind>,
}

/// Rules as they were attached before; `None`: they weren't.
type Edited = BTreeMap<GatewayRuleKey, Option<Arc<GatewayRule>>>;

/// All there is of Gateways.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateways {
    listeners: ShardedSet<Arc<Listener>>,
    rules: ShardedSet<Arc<GatewayRule>>,
    rules_of: ShardedMap<ListenerKey, ShardedSet<Arc<GatewayRule>>>,
    compiled: ShardedSet<Arc<GatewayListener>>,
    listeners_at: ShardedMap<Bind, BTreeSet<ListenerKey>>,
    ports: ShardedMap<Bind, Arc<GatewayPort>>,
    certificates: ShardedMap<CertificateKey, Arc<Certificate>>,
    configs: ShardedMap<GatewayKey, Arc<GatewayConfig>>,
    backends: ShardedMap<ServicePortKey, Arc<BackendTls>>,
}

impl Gateways {
    pub(super) fn port(&self, bind: &Bind) -> Option<&Arc<GatewayPort>> {
        self.ports.get(bind)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = &Arc<GatewayPort>> {
        self.ports.iter().map(|(_, port)| port)
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.iter()
    }

    pub(super) fn certificate(&self, key: &CertificateKey) -> Option<&Arc<Certificate>> {
        self.certificates.get(key)
    }

    pub(super) fn config(&self, key: &GatewayKey) -> Option<&Arc<GatewayConfig>> {
        self.configs.get(key)
    }

    pub(super) fn backend_tls(&self, key: &ServicePortKey) -> Option<&Arc<BackendTls>> {
        self.backends.get(key)
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<GatewayRule>> {
        self.rules.iter()
    }

    /// All but certificates: those are in no copy.
    pub(super) fn resources(&self) -> impl Iterator<Item = Resource> + '_ {
        let backends = self.backends.iter().map(|(_, it)| Resource::BackendTls(Arc::clone(it)));
        let configs = self.configs.iter().map(|(_, it)| Resource::GatewayConfig(Arc::clone(it)));
        let rules = self.rules().cloned().map(Resource::GatewayRule);
        backends.chain(configs).chain(rules).chain(self.listeners().cloned().map(Resource::Listener))
    }

    /// Takes what is of Gateways; the rest is not looked at.
    pub(super) fn upsert(&mut self, resource: &Resource, dirty: &mut Dirty) {
        match resource {
            Resource::Listener(it) => self.upsert_listener(it, dirty),
            Resource::GatewayRule(it) => self.upsert_rule(it, dirty),
            Resource::Certificate(it) => self.certificates.insert(it.key.clone(), Arc::clone(it)),
            Resource::GatewayConfig(it) => self.configs.insert(it.key.clone(), Arc::clone(it)),
            Resource::BackendTls(it) => self.backends.insert(it.port.clone(), Arc::clone(it)),
            Resource::Workload(_)
            | Resource::Service(_)
            | Resource::EndpointSlice(_)
            | Resource::Rule(_)
            | Resource::Authorization(_)
            | Resource::MeshPolicy(_)
            | Resource::Telemetry(_)
            | Resource::Mesh(_) => {}
        }
    }

    /// Removes what is of Gateways; the rest is not looked at.
    pub(super) fn remove(&mut self, key: &ResourceKey, dirty: &mut Dirty) {
        match key {
            ResourceKey::Listener(key) => self.remove_listener(key, dirty),
            ResourceKey::GatewayRule(key) => self.remove_rule(key, dirty),
            ResourceKey::Certificate(key) => drop(self.certificates.remove(key)),
            ResourceKey::GatewayConfig(key) => drop(self.configs.remove(key)),
            ResourceKey::BackendTls(key) => drop(self.backends.remove(key)),
            ResourceKey::Workload(_)
            | ResourceKey::Service(_)
            | ResourceKey::EndpointSlice(_)
            | ResourceKey::Rule(_)
            | ResourceKey::Authorization(_)
            | ResourceKey::MeshPolicy(_)
            | ResourceKey::Telemetry(_)
            | ResourceKey::Mesh => {}
        }
    }

    fn upsert_listener(&mut self, listener: &Arc<Listener>, dirty: &mut Dirty) {
        // Its routes are most often the same: their table is made of the one before.
        let before = self.compiled.get(&listener.key).cloned();
        let edited = dirty.listeners.remove(&listener.key).unwrap_or_default();
        self.remove_listener(&listener.key, dirty);
        if let Some(before) = before {
            self.compiled.insert(&listener.key, before);
        }
        for bind in listener.binds() {
            self.edit_listeners_at(bind, |set| set.insert(listener.key.clone()));
        }
        self.listeners.insert(&listener.key, Arc::clone(listener));
        dirty.listeners.insert(listener.key.clone(), edited);
    }

    fn remove_listener(&mut self, key: &ListenerKey, dirty: &mut Dirty) {
        let Some(listener) = self.listeners.remove(key) else { return };
        self.compiled.remove(key);
        dirty.listeners.remove(key);
        for bind in listener.binds() {
            self.edit_listeners_at(bind, |set| set.remove(key));
            dirty.binds.insert(bind);
        }
    }

    /// A place without listeners is not kept.
    fn edit_listeners_at(&mut self, bind: Bind, edit: impl FnOnce(&mut BTreeSet<ListenerKey>) -> bool) {
        self.listeners_at.edit(&bind, || bind, |set| _ = edit(set));
        if self.listeners_at.get(&bind).is_some_and(BTreeSet::is_empty) {
            self.listeners_at.remove(&bind);
        }
    }

    fn upsert_rule(&mut self, rule: &Arc<GatewayRule>, dirty: &mut Dirty) {
        let of = rule.key();
        self.remove_rule(&of, dirty);
        for listener in listeners_of(&rule.rule) {
            self.note(listener, &of, None, dirty);
            self.rules_of.edit(listener, || listener.clone(), |rules| rules.insert(&of, Arc::clone(rule)));
        }
        self.rules.insert(&of, Arc::clone(rule));
    }

    fn remove_rule(&mut self, key: &GatewayRuleKey, dirty: &mut Dirty) {
        let Some(rule) = self.rules.remove(key) else { return };
        for listener in listeners_of(&rule.rule) {
            self.note(listener, key, Some(&rule), dirty);
            self.rules_of.edit(listener, || listener.clone(), |rules| _ = rules.remove(key));
            if self.rules_of.get(listener).is_some_and(ShardedSet::is_empty) {
                self.rules_of.remove(listener);
            }
        }
    }

    /// Notes that a listener has a rule differently from now on, and how it had it. What isn't compiled yet will be as a whole.
    fn note(&self, listener: &ListenerKey, key: &GatewayRuleKey, before: Option<&Arc<GatewayRule>>, dirty: &mut Dirty) {
        if self.compiled.get(listener).is_some() {
            // The first word counts: what came later in the batch was never compiled.
            let edited = dirty.listeners.entry(listener.clone()).or_default();
            edited.entry(key.clone()).or_insert_with(|| before.cloned());
        }
    }

    /// Compiles listeners, and the places where they listen: what an edit touches, whatever else there is.
    pub(super) fn rebuild(&mut self, dirty: &Dirty) {
        let mut binds = dirty.binds.clone();
        for (key, edited) in &dirty.listeners {
            let Some(listener) = self.listeners.get(key).cloned() else { continue };
            let before = self.compiled.get(key).cloned();
            let routes = before.as_ref().and_then(|before| self.edited(before, &listener, edited));
            let routes = routes.unwrap_or_else(|| self.routes(&listener));
            let stays = before.is_some_and(|before| Arc::ptr_eq(&before.listener, &listener));
            let compiled = Arc::new(GatewayListener { listener: Arc::clone(&listener), routes });
            self.compiled.insert(key, Arc::clone(&compiled));
            binds.extend(listener.binds().filter(|bind| !stays || !self.compile_at(*bind, &compiled)));
        }
        binds.into_iter().for_each(|bind| self.compile_port(bind));
    }

    /// The routes of a listener, of those before and what was edited; `None` if they have to be compiled as a whole.
    fn edited(&self, before: &GatewayListener, listener: &Listener, edited: &Edited) -> Option<RouteSet> {
        let RouteSet::Http(table) = &before.routes else { return None };
        if before.listener.kinds != listener.kinds {
            return None;
        }
        if edited.is_empty() {
            return Some(before.routes.clone());
        }
        let rules = self.rules_of.get(&listener.key);
        let takes = |rule: &&Arc<RouteRule>| listener.kinds.contains(&rule.key().route.kind);
        let gone = edited.values().flatten().map(|it| &it.rule).filter(takes);
        let new = edited.keys().filter_map(|key| rules?.get(key)).map(|it| &it.rule).filter(takes);
        let table = table.edited(gone, new);
        (!table.is_empty()).then(|| RouteSet::Http(Arc::new(table)))
    }

    /// The rules of the kinds that a listener takes, compiled. A host that comes here is one of the listener's already: with
    /// the hostnames of the rules that is the intersection of both.
    fn routes(&self, listener: &Listener) -> RouteSet {
        let attached = self.rules_of.get(&listener.key).into_iter().flat_map(ShardedSet::iter).map(|it| &it.rule);
        let taken = attached.filter(|rule| listener.kinds.contains(&rule.key().route.kind));
        let rules: Vec<_> = taken.cloned().collect();
        match rules.iter().map(|rule| rule.key().route.kind).min() {
            None => RouteSet::None,
            Some(RouteKind::Grpc | RouteKind::Http) => RouteSet::Http(Arc::new(HttpTable::new(&rules))),
            Some(RouteKind::Tls) => RouteSet::Tls(Arc::new(L4Table::new(&rules))),
            Some(RouteKind::Tcp) => RouteSet::Tcp(Arc::new(L4Table::new(&rules))),
            Some(RouteKind::Udp) => RouteSet::Udp(Arc::new(L4Table::new(&rules))),
        }
    }

    /// Puts a listener in the place of its version before; `false` if that isn't in use at this place.
    fn compile_at(&mut self, bind: Bind, listener: &Arc<GatewayListener>) -> bool {
        let Some(port) = self.ports.get(&bind) else { return false };
        let Some(listeners) = port.listeners.with(listener) else { return false };
        let port = GatewayPort { bind, gateway: port.gateway.clone(), layer: port.layer, listeners };
        self.ports.insert(bind, Arc::new(port));
        true
    }

    fn compile_port(&mut self, bind: Bind) {
        let keys = self.listeners_at.get(&bind).into_iter().flatten();
        let mut listeners: Vec<_> = keys.filter_map(|key| self.compiled.get(key)).cloned().collect();
        // One place has one layer and is one Gateway's; the controller sees to that. Were it otherwise, the first listener
        // would have it.
        let Some(first) = listeners.first().map(|first| Arc::clone(&first.listener)) else {
            self.ports.remove(&bind);
            return;
        };
        let (layer, gateway) = (first.protocol.layer(), first.key.gateway.clone());
        listeners.retain(|it| it.listener.protocol.layer() == layer && it.listener.key.gateway == gateway);
        let port = GatewayPort { bind, gateway, layer, listeners: ListenerTable::new(listeners) };
        self.ports.insert(bind, Arc::new(port));
    }
}

fn listeners_of(rule: &RouteRule) -> impl Iterator<Item = &ListenerKey> {
    rule.parents().iter().filter_map(|parent| match parent {
        Parent::Listener(listener) => Some(listener),
        Parent::Service { .. } => None,
    })
}
