//! Listeners of Gateways with the routes attached to them, compiled once per change, by where they listen.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::frontend::RouteSet;
use super::{ShardedMap, edit_set};
use crate::gateway::{Bind, Certificate, Listener, PortLayer};
use crate::ids::{CertificateKey, GatewayKey, ListenerKey, RouteKind, RuleKey};
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

/// All there is of Gateways.
#[derive(Clone, Debug, Default)]
pub(super) struct Gateways {
    listeners: ShardedMap<ListenerKey, Arc<Listener>>,
    rules_of: ShardedMap<ListenerKey, BTreeSet<RuleKey>>,
    compiled: ShardedMap<ListenerKey, Arc<GatewayListener>>,
    listeners_at: ShardedMap<Bind, BTreeSet<ListenerKey>>,
    ports: ShardedMap<Bind, Arc<GatewayPort>>,
    certificates: ShardedMap<CertificateKey, Arc<Certificate>>,
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

    pub(super) fn set_certificate(&mut self, certificate: &Arc<Certificate>) {
        self.certificates.insert(certificate.key.clone(), Arc::clone(certificate));
    }

    pub(super) fn remove_certificate(&mut self, key: &CertificateKey) {
        self.certificates.remove(key);
    }

    pub(super) fn upsert(&mut self, listener: &Arc<Listener>, dirty: &mut BTreeSet<ListenerKey>) {
        self.remove(&listener.key, dirty);
        for bind in listener.binds() {
            edit_set(&mut self.listeners_at, &bind, |set| set.insert(listener.key.clone()));
        }
        self.listeners.insert(listener.key.clone(), Arc::clone(listener));
        dirty.insert(listener.key.clone());
    }

    /// The places that it leaves are compiled anew at once: nothing else would tell which they were.
    pub(super) fn remove(&mut self, key: &ListenerKey, dirty: &mut BTreeSet<ListenerKey>) {
        let Some(listener) = self.listeners.remove(key) else { return };
        self.compiled.remove(key);
        dirty.remove(key);
        for bind in listener.binds() {
            edit_set(&mut self.listeners_at, &bind, |set| set.remove(key));
            self.compile_port(bind);
        }
    }

    pub(super) fn attach(&mut self, rule: &RouteRule, dirty: &mut BTreeSet<ListenerKey>) {
        for key in listeners_of(rule) {
            edit_set(&mut self.rules_of, &key, |set| set.insert(rule.key().clone()));
            dirty.insert(key);
        }
    }

    pub(super) fn detach(&mut self, rule: &RouteRule, dirty: &mut BTreeSet<ListenerKey>) {
        for key in listeners_of(rule) {
            edit_set(&mut self.rules_of, &key, |set| set.remove(rule.key()));
            dirty.insert(key);
        }
    }

    /// Compiles listeners, and the places where they listen.
    pub(super) fn rebuild(&mut self, dirty: &BTreeSet<ListenerKey>, rules: &ShardedMap<RuleKey, Arc<RouteRule>>) {
        let mut binds = BTreeSet::new();
        for key in dirty {
            let Some(listener) = self.listeners.get(key).map(Arc::clone) else { continue };
            let attached = self.rules_of.get(key).into_iter().flatten().filter_map(|rule| rules.get(rule));
            let routes = routes(&listener, attached.cloned().collect());
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

fn listeners_of(rule: &RouteRule) -> impl Iterator<Item = ListenerKey> + '_ {
    rule.parents().iter().filter_map(|parent| match parent {
        Parent::Listener { gateway, listener } => {
            Some(ListenerKey { gateway: gateway.clone(), name: listener.clone() })
        }
        Parent::Service { .. } => None,
    })
}

/// The rules of the kinds that the listener takes, compiled. A host that comes here is one of the listener's already: with
/// the hostnames of the rules that is the intersection of both.
fn routes(listener: &Listener, mut rules: Vec<Arc<RouteRule>>) -> RouteSet {
    rules.retain(|rule| listener.kinds.contains(&rule.key().route.kind));
    match rules.iter().map(|rule| rule.key().route.kind).min() {
        None => RouteSet::None,
        Some(RouteKind::Grpc | RouteKind::Http) => RouteSet::Http(Arc::new(HttpTable::new(rules))),
        Some(RouteKind::Tls) => RouteSet::Tls(Arc::new(L4Table::new(rules))),
        Some(RouteKind::Tcp) => RouteSet::Tcp(Arc::new(L4Table::new(rules))),
        Some(RouteKind::Udp) => RouteSet::None,
    }
}
