//! What translations may ask the index.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use gateway_api::experimental::listenersets::ListenerSet;
use k8s_openapi::api::core::v1 as k8s;
use weft_core::ids::{
    GatewayKey, ListenerKey, ListenerSetKey, Namespace, PolicyKey, Port, RouteKey, RouteKind, SecretKey, ServiceKey,
    ServicePortKey,
};
use weft_core::service::Service;
use weft_core::traffic::BackendTraffic;

use super::Index;
use crate::object::{GATEWAY_GROUP, GatewayParameters, GatewayParametersSpec, Kind, Object, ObjectRef};
use crate::translate::labels::Labels;
use crate::translate::route::{GatewayParent, Lookup, SetParent, parents::Claim};
use crate::translate::service::is_open_for_both;
use crate::translate::{GatewayTarget, Problem, Reason, TargetLookup, gateway};

impl Lookup for Index {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(|s| &**s)
    }

    fn refused_backend(&self, key: &ServiceKey) -> Option<&Problem> {
        self.externals.refused(key)
    }

    fn traffic(&self, key: &ServiceKey) -> Option<&BackendTraffic> {
        self.traffic.of(key)
    }

    fn is_open_for_both(&self, service: &ServiceKey, port: Port) -> bool {
        self.raw_service(service).is_some_and(|service| is_open_for_both(service, port))
    }

    fn permitted(&self, from: RouteKind, namespace: &Namespace, to: &ServiceKey) -> bool {
        let (kind, name) = to.object();
        self.grants.permits_in(kind.group(), (from.as_str(), namespace), (kind.as_str(), &to.namespace, name))
    }

    fn holder(&self, port: &ServicePortKey, consumer: Option<&Namespace>) -> Option<RouteKind> {
        self.routes.holder(&Claim { port: port.clone(), consumer: consumer.cloned() })
    }

    fn gateway(&self, key: &GatewayKey) -> GatewayParent<'_> {
        let reference = ObjectRef::new(Kind::Gateway, key.namespace.clone(), key.name.clone());
        match self.gateways.view(key) {
            Some(view) => GatewayParent::Ours(view),
            None if self.answers_for_missing() && !self.objects.contains_key(&reference) => GatewayParent::Missing,
            None => GatewayParent::NotOurs,
        }
    }

    fn ahead(&self, listener: &ListenerKey, route: &RouteKey) -> Option<&RouteKey> {
        self.contended.ahead(listener, route)
    }

    fn default_gateways(&self) -> Vec<&gateway::GatewayView> {
        self.gateways.views().filter(|view| view.is_default).collect()
    }

    fn listener_set(&self, key: &ListenerSetKey) -> SetParent<'_> {
        let reference = ObjectRef::new(Kind::ListenerSet, key.namespace.clone(), key.name.clone());
        let Some(Object::ListenerSet(object)) = self.objects.get(&reference) else {
            return if self.answers_for_missing() { SetParent::Missing } else { SetParent::NotOurs };
        };
        let gateway = gateway::parent_of_set(object).and_then(|gateway| self.gateways.view(&gateway));
        let found = gateway.and_then(|view| Some((view, view.set(key)?)));
        found.map_or(SetParent::NotOurs, |(view, set)| SetParent::Ours(view, set))
    }

    fn namespace_labels(&self, namespace: &Namespace) -> Option<&Labels> {
        let reference = ObjectRef::new(Kind::Namespace, "", namespace.as_str());
        self.objects.get(&reference).and_then(|object| object.meta().labels.as_ref())
    }
}

impl Index {
    /// Whether there is nobody else who might serve a Gateway that isn't there: in a cluster, nobody knows whose it will be.
    fn answers_for_missing(&self) -> bool {
        self.config.gateways.as_ref().is_some_and(|settings| settings.place != gateway::Place::Cluster)
    }
}

impl gateway::Lookup for Serving<'_> {
    fn secret(&self, key: &SecretKey) -> Option<&k8s::Secret> {
        let reference = ObjectRef::new(Kind::Secret, key.namespace.clone(), key.name.clone());
        let found = self.index.objects.get(&reference);
        self.looked_at.borrow_mut().insert(reference);
        match found {
            Some(Object::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    fn config_map(&self, namespace: &Namespace, name: &str) -> Option<&k8s::ConfigMap> {
        self.looked_at.borrow_mut().insert(ObjectRef::new(Kind::ConfigMap, namespace.clone(), name));
        self.index.config_map(namespace, name)
    }

    fn policies(&self, listener: &ListenerKey) -> Vec<PolicyKey> {
        self.index.gateway_policies.of(listener)
    }

    fn listener_sets(&self, gateway: &GatewayKey) -> Vec<&ListenerSet> {
        self.sets.get(gateway).cloned().unwrap_or_default()
    }

    fn namespace_labels(&self, namespace: &Namespace) -> Option<&Labels> {
        Lookup::namespace_labels(self.index, namespace)
    }

    fn permitted(&self, from: (&str, &Namespace), (kind, namespace, name): (&str, &Namespace, &str)) -> bool {
        self.index.grants.permits(from, (kind, namespace, name))
    }

    fn parameters(&self, namespace: &str, name: &str) -> Option<&GatewayParameters> {
        self.index.gateway_parameters(namespace, name)
    }

    fn class_parameters(&self, class: &str) -> Result<GatewayParametersSpec, Problem> {
        let reference = ObjectRef::new(Kind::GatewayClass, "", class);
        if self.index.in_cluster() && !self.index.objects.contains_key(&reference) {
            let message = format!("GatewayClass {class} does not exist");
            return Err(Problem::new("spec.gatewayClassName", Reason::InvalidParameters, message, "create it"));
        }
        self.index.class_parameters(class)
    }

    fn went_by(&self, gateway: &GatewayKey, uid: &str, class: &str) -> Option<gateway::WentBy> {
        self.index.went_by(gateway, uid, class)
    }

    fn settings(&self) -> &gateway::GatewaySettings {
        self.settings
    }
}

/// An index that serves Gateways.
pub(super) struct Serving<'a> {
    index: &'a Index,
    settings: &'a gateway::GatewaySettings,
    /// ListenerSets by the Gateways that they name.
    sets: HashMap<GatewayKey, Vec<&'a ListenerSet>>,
    /// The Secrets and ConfigMaps that were asked for: Gateways are to be looked at again when these change, and no others.
    looked_at: RefCell<BTreeSet<ObjectRef>>,
}

impl<'a> Serving<'a> {
    pub(super) fn new(index: &'a Index, settings: &'a gateway::GatewaySettings) -> Self {
        let mut sets: HashMap<GatewayKey, Vec<&ListenerSet>> = HashMap::new();
        for (_, object) in index.of_kind(Kind::ListenerSet) {
            let Object::ListenerSet(set) = object else { continue };
            if let Some(gateway) = gateway::parent_of_set(set) {
                sets.entry(gateway).or_default().push(set);
            }
        }
        Self { index, settings, sets, looked_at: RefCell::default() }
    }

    /// What was asked for since the last time.
    pub(super) fn take_looked_at(&self) -> BTreeSet<ObjectRef> {
        self.looked_at.take()
    }
}

impl Index {
    /// A ConfigMap.
    pub(super) fn config_map(&self, namespace: &Namespace, name: &str) -> Option<&k8s::ConfigMap> {
        match self.objects.get(&ObjectRef::new(Kind::ConfigMap, namespace.clone(), name)) {
            Some(Object::ConfigMap(config_map)) => Some(config_map),
            _ => None,
        }
    }
}

impl TargetLookup for Index {
    fn raw_service(&self, key: &ServiceKey) -> Option<&k8s::Service> {
        let reference = ObjectRef::new(Kind::Service, key.namespace.clone(), key.name.clone());
        match self.objects.get(&reference) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }

    fn has_namespace(&self, namespace: &Namespace) -> bool {
        self.objects.contains_key(&ObjectRef::new(Kind::Namespace, "", namespace.as_str()))
    }

    fn root_namespace(&self) -> &Namespace {
        &self.config.root_namespace
    }

    fn missing_at(&self, target: &GatewayTarget, field: &str) -> Option<Problem> {
        self.missing_gateway(target, field)
    }
}

/// The ReferenceGrants, by the namespace they open.
#[derive(Debug, Default)]
pub(super) struct Grants(HashMap<Namespace, HashMap<ObjectRef, Object>>);

impl Grants {
    pub(super) fn set(&mut self, reference: &ObjectRef, grant: Option<&Object>) {
        let of_namespace = self.0.entry(reference.namespace.clone()).or_default();
        match grant {
            Some(grant) => of_namespace.insert(reference.clone(), grant.clone()),
            None => of_namespace.remove(reference),
        };
    }

    /// Every field has to be the very one: group, kind and namespace of who refers; group, kind and (if the grant
    /// has one) name of what is referred to, in the grant's own namespace.
    fn permits(&self, from: (&str, &Namespace), to: (&str, &Namespace, &str)) -> bool {
        self.permits_in("", from, to)
    }

    /// The same of what is referred to in a group.
    fn permits_in(&self, group: &str, (kind, namespace): (&str, &Namespace), to: (&str, &Namespace, &str)) -> bool {
        self.permits_from((GATEWAY_GROUP, kind, namespace), (group, to.0, to.1, to.2))
    }

    /// The same of who refers by its group too.
    pub(super) fn permits_from(&self, from: (&str, &str, &Namespace), to: (&str, &str, &Namespace, &str)) -> bool {
        let (from_group, kind, namespace) = from;
        let (group, to_kind, to_namespace, to_name) = to;
        let grants = self.0.get(to_namespace).into_iter().flatten();
        grants.into_iter().any(|(_, object)| {
            let Object::ReferenceGrant(grant) = object else { return false };
            let from_ok = grant
                .spec
                .from
                .iter()
                .any(|f| f.group == from_group && f.kind == kind && f.namespace == namespace.as_str());
            let named = |name: Option<&str>| name.is_none_or(|n| n.is_empty() || n == to_name);
            from_ok && grant.spec.to.iter().any(|t| t.group == group && t.kind == to_kind && named(t.name.as_deref()))
        })
    }
}
