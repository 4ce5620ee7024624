//! What translations may ask the index.

use std::collections::HashMap;

use k8s_openapi::api::core::v1 as k8s;
use weft_core::ids::{CertificateKey, GatewayKey, Name, Namespace, RouteKind, ServiceKey, ServicePortKey};
use weft_core::service::Service;

use super::Index;
use crate::object::{GATEWAY_GROUP, Kind, Object, ObjectRef};
use crate::translate::labels::Labels;
use crate::translate::route::{GatewayParent, Lookup, parents::Claim};
use crate::translate::{TargetLookup, gateway};

impl Lookup for Index {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(|s| &**s)
    }

    fn permitted(&self, from: RouteKind, namespace: &Namespace, to: &ServiceKey) -> bool {
        self.grants.permits((from.as_str(), namespace), ("Service", &to.namespace, &to.name))
    }

    fn holder(&self, port: &ServicePortKey, consumer: Option<&Namespace>) -> Option<RouteKind> {
        self.routes.holder(&Claim { port: port.clone(), consumer: consumer.cloned() })
    }

    fn gateway(&self, key: &GatewayKey) -> GatewayParent<'_> {
        let reference = ObjectRef::new(Kind::Gateway, key.namespace.clone(), key.name.clone());
        match self.gateways.view(key) {
            Some(view) => GatewayParent::Ours(view),
            None if self.config.gateways.is_none() || self.objects.contains_key(&reference) => GatewayParent::NotOurs,
            None => GatewayParent::Missing,
        }
    }

    fn namespace_labels(&self, namespace: &Namespace) -> Option<&Labels> {
        let reference = ObjectRef::new(Kind::Namespace, "", namespace.as_str());
        self.objects.get(&reference).and_then(|object| object.meta().labels.as_ref())
    }
}

impl gateway::Lookup for Serving<'_> {
    fn secret(&self, key: &CertificateKey) -> Option<&k8s::Secret> {
        let reference = ObjectRef::new(Kind::Secret, key.namespace.clone(), key.name.clone());
        match self.index.objects.get(&reference) {
            Some(Object::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    fn permitted(&self, from: &Namespace, to: &CertificateKey) -> bool {
        self.index.grants.permits(("Gateway", from), ("Secret", &to.namespace, &to.name))
    }

    fn settings(&self) -> &gateway::GatewaySettings {
        self.settings
    }
}

/// An index that serves Gateways.
pub(super) struct Serving<'a> {
    pub(super) index: &'a Index,
    pub(super) settings: &'a gateway::GatewaySettings,
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
    fn permits(&self, (kind, namespace): (&str, &Namespace), to: (&str, &Namespace, &Name)) -> bool {
        let (to_kind, to_namespace, to_name) = to;
        let grants = self.0.get(to_namespace).into_iter().flatten();
        grants.into_iter().any(|(_, object)| {
            let Object::ReferenceGrant(grant) = object else { return false };
            let from_ok = grant
                .spec
                .from
                .iter()
                .any(|f| f.group == GATEWAY_GROUP && f.kind == kind && f.namespace == namespace.as_str());
            let named = |name: Option<&str>| name.is_none_or(|n| n.is_empty() || n == to_name.as_str());
            from_ok && grant.spec.to.iter().any(|t| t.group.is_empty() && t.kind == to_kind && named(t.name.as_deref()))
        })
    }
}
