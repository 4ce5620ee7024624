//! What translations may ask the index.

use std::collections::HashMap;

use k8s_openapi::api::core::v1 as k8s;
use weft_core::ids::{Namespace, RouteKind, ServiceKey, ServicePortKey};
use weft_core::service::Service;

use super::Index;
use crate::object::{GATEWAY_GROUP, Kind, Object, ObjectRef};
use crate::translate::TargetLookup;
use crate::translate::route::{Lookup, parents::Claim};

impl Lookup for Index {
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(|s| &**s)
    }

    fn permitted(&self, from: RouteKind, namespace: &Namespace, to: &ServiceKey) -> bool {
        self.grants.permits(from, namespace, to)
    }

    fn holder(&self, port: &ServicePortKey, consumer: Option<&Namespace>) -> Option<RouteKind> {
        self.routes.holder(&Claim { port: port.clone(), consumer: consumer.cloned() })
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

    /// Every field has to be the very one: group, kind and namespace of the route; group, kind and (if the grant
    /// has one) name of the Service, in the grant's own namespace.
    fn permits(&self, from: RouteKind, namespace: &Namespace, to: &ServiceKey) -> bool {
        let grants = self.0.get(&to.namespace).into_iter().flatten();
        grants.into_iter().any(|(_, object)| {
            let Object::ReferenceGrant(grant) = object else { return false };
            let from_ok = grant
                .spec
                .from
                .iter()
                .any(|f| f.group == GATEWAY_GROUP && f.kind == from.as_str() && f.namespace == namespace.as_str());
            let named = |name: Option<&str>| name.is_none_or(|n| n.is_empty() || n == to.name.as_str());
            from_ok
                && grant.spec.to.iter().any(|t| t.group.is_empty() && t.kind == "Service" && named(t.name.as_deref()))
        })
    }
}
