//! Listeners of Gateways with the routes attached to them, compiled once per change, by where they listen.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::frontend::RouteSet;
use super::{ShardedMap, edit_set};
use crate::change::{Resource, ResourceKey};
use crate::gateway::{BackendTls, Bind, Certificate, GatewayConfig, GatewayRule, Listener, PortLayer};
use crate::ids::{CertificateKey, GatewayKey, GatewayRuleKey, ListenerKey, RouteKind, ServicePortKey};
use crate::matching::{HttpTable, L4Table, ListenerTable, Named};
use crate::route::{HostnameMatch, Parent, RouteRule};

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
    listeners: BTreeSet<ListenerKey>,
    /// Places that listeners left.
    binds: BTreeSet<Bind>,
}

/// All there is of Gateways.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateways {
    listeners: ShardedMap<ListenerKey, Arc<Listener>>,
    rules: ShardedMap<GatewayRuleKey, Arc<GatewayRule>>,
    rules_of: ShardedMap<ListenerKey, BTreeSet<GatewayRuleKey>>,
    compiled: ShardedMap<ListenerKey, Arc<GatewayListener>>,
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
        self.listeners.iter().map(|(_, listener)| listener)
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
        self.rules.iter().map(|(_, rule)| rule)
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
            Resource::Certificate(it) => drop(self.certificates.insert(it.key.clone(), Arc::clone(it))),
            Resource::GatewayConfig(it) => drop(self.configs.insert(it.key.clone(), Arc::clone(it))),
            Resource::BackendTls(it) => drop(self.backends.insert(it.port.clone(), Arc::clone(it))),
            Resource::Workload(_)
            | Resource::Service(_)
            | Resource::EndpointSlice(_)
            | Resource::Rule(_)
            | Resource::Authorization(_)
            | Resource::MeshPolicy(_)
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
            | ResourceKey::Mesh => {}
        }
    }

    fn upsert_listener(&mut self, listener: &Arc<Listener>, dirty: &mut Dirty) {
        // Its routes are most often the same: their table is made of the one before.
        let before = self.compiled.get(&listener.key).cloned();
        self.remove_listener(&listener.key, dirty);
        if let Some(before) = before {
            self.compiled.insert(listener.key.clone(), before);
        }
        for bind in listener.binds() {
            edit_set(&mut self.listeners_at, &bind, |set| set.insert(listener.key.clone()));
        }
        self.listeners.insert(listener.key.clone(), Arc::clone(listener));
        dirty.listeners.insert(listener.key.clone());
    }

    fn remove_listener(&mut self, key: &ListenerKey, dirty: &mut Dirty) {
        let Some(listener) = self.listeners.remove(key) else { return };
        self.compiled.remove(key);
        dirty.listeners.remove(key);
        for bind in listener.binds() {
            edit_set(&mut self.listeners_at, &bind, |set| set.remove(key));
            dirty.binds.insert(bind);
        }
    }

    fn upsert_rule(&mut self, rule: &Arc<GatewayRule>, dirty: &mut Dirty) {
        let of = rule.key();
        let before = self.rules.get(&of);
        if before.is_some_and(|before| listeners_of(&before.rule).eq(listeners_of(&rule.rule))) {
            // The usual edit: a listener may have thousands of rules, and their set would be copied twice.
            dirty.listeners.extend(listeners_of(&rule.rule).cloned());
        } else {
            self.remove_rule(&of, dirty);
            for listener in listeners_of(&rule.rule) {
                edit_set(&mut self.rules_of, listener, |set| set.insert(of.clone()));
                dirty.listeners.insert(listener.clone());
            }
        }
        self.rules.insert(of, Arc::clone(rule));
    }

    fn remove_rule(&mut self, key: &GatewayRuleKey, dirty: &mut Dirty) {
        let Some(rule) = self.rules.remove(key) else { return };
        for listener in listeners_of(&rule.rule) {
            edit_set(&mut self.rules_of, listener, |set| set.remove(key));
            dirty.listeners.insert(listener.clone());
        }
    }

    /// Compiles listeners, and the places where they listen.
    pub(super) fn rebuild(&mut self, dirty: &Dirty) {
        let mut binds = dirty.binds.clone();
        for key in &dirty.listeners {
            let Some(listener) = self.listeners.get(key).map(Arc::clone) else { continue };
            let attached = self.rules_of.get(key).into_iter().flatten().filter_map(|rule| self.rules.get(rule));
            let before = self.compiled.get(key).map(|before| &before.routes);
            let routes = routes(&listener, attached.map(|it| Arc::clone(&it.rule)).collect(), before);
            binds.extend(listener.binds());
            self.compiled.insert(key.clone(), Arc::new(GatewayListener { listener, routes }));
        }
        binds.into_iter().for_each(|bind| self.compile_port(bind));
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

/// The rules of the kinds that the listener takes, compiled. A host that comes here is one of the listener's already: with
/// the hostnames of the rules that is the intersection of both.
fn routes(listener: &Listener, mut rules: Vec<Arc<RouteRule>>, before: Option<&RouteSet>) -> RouteSet {
    rules.retain(|rule| listener.kinds.contains(&rule.key().route.kind));
    match rules.iter().map(|rule| rule.key().route.kind).min() {
        None => RouteSet::None,
        Some(RouteKind::Grpc | RouteKind::Http) => RouteSet::Http(Arc::new(match before {
            Some(RouteSet::Http(before)) => before.edited(rules),
            _ => HttpTable::new(rules),
        })),
        Some(RouteKind::Tls) => RouteSet::Tls(Arc::new(L4Table::new(rules))),
        Some(RouteKind::Tcp) => RouteSet::Tcp(Arc::new(L4Table::new(rules))),
        Some(RouteKind::Udp) => RouteSet::Udp(Arc::new(L4Table::new(rules))),
    }
}
