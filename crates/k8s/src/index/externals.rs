//! XBackends in the index: what was made of them, and the Gateways that send to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::backend_kind::BackendKind;
use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{Namespace, ServiceKey, ServicePortKey};

use super::{Index, Output};
use crate::object::route::ParentReference;
use crate::object::{GATEWAY_GROUP, Kind, Object, ObjectRef, ObjectStatus, RouteParentStatus};
use crate::translate::Problem;
use crate::translate::xbackend::{ExternalView, view};

/// What is known of XBackends besides the objects.
#[derive(Debug, Default)]
pub(super) struct ExternalTable {
    views: HashMap<ServiceKey, ExternalView>,
    /// Where Gateways speak TLS to each.
    tls: HashMap<ServiceKey, ServicePortKey>,
}

impl ExternalTable {
    /// Why nothing can be sent to one that is there.
    pub(super) fn refused(&self, key: &ServiceKey) -> Option<&Problem> {
        self.views.get(key)?.refused.as_ref()
    }
}

fn reference(key: &ServiceKey) -> ObjectRef {
    ObjectRef::new(Kind::XBackend, key.namespace.clone(), key.object().1)
}

fn key_of(reference: &ObjectRef) -> ServiceKey {
    ServiceKey::of_kind(BackendKind::XBackend, reference.namespace.clone(), reference.name.as_str())
}

/// Those of some backends that are XBackends.
pub(super) fn externals(backends: impl IntoIterator<Item = ServiceKey>) -> impl Iterator<Item = ServiceKey> {
    backends.into_iter().filter(|key| key.object().0 == BackendKind::XBackend)
}

impl Index {
    /// Understands an XBackend anew.
    pub(super) fn external_changed(&mut self, reference: &ObjectRef) {
        let key = key_of(reference);
        let domain = &self.config.mesh.cluster_domain;
        let made = match self.objects.get(reference) {
            Some(Object::XBackend(object)) => {
                Some(view(object, domain, |namespace, name| self.config_map(namespace, name)))
            }
            _ => None,
        };
        self.dirty.externals.insert(key.clone());
        if self.externals.views.get(&key) == made.as_ref() {
            return;
        }
        let tls = made.as_ref().and_then(|made| made.tls.clone());
        // First how it is spoken to: nothing goes out in the clear meanwhile.
        let place = tls.as_ref().map(|tls| tls.port.clone());
        let before = match &place {
            Some(place) => self.externals.tls.insert(key.clone(), place.clone()),
            None => self.externals.tls.remove(&key),
        };
        if let Some(gone) = before.filter(|before| place.as_ref() != Some(before)) {
            self.emitted.set(ResourceKey::BackendTls(gone), None);
        }
        if let (Some(place), Some(tls)) = (place, tls) {
            self.emitted.set(ResourceKey::BackendTls(place), Some(Resource::BackendTls(Arc::new(tls))));
        }
        self.set_problems(reference, made.iter().flat_map(ExternalView::problems).cloned().collect());
        let service = made.as_ref().and_then(|made| made.service.clone()).map(Arc::new);
        match made {
            Some(made) => drop(self.externals.views.insert(key.clone(), made)),
            None => drop(self.externals.views.remove(&key)),
        }
        // Also where there is no Service before and after: routes say why.
        self.dirty.routes.extend(self.routes.referring_to(&key));
        self.set_service(key, service);
    }

    /// A ConfigMap of a namespace has changed: the authorities of an XBackend may be in it.
    pub(super) fn authorities_changed(&mut self, namespace: &Namespace) {
        let there: Vec<_> =
            self.in_namespace(Kind::XBackend, namespace).map(|(reference, _)| reference.clone()).collect();
        there.iter().for_each(|reference| self.external_changed(reference));
    }

    /// Reports the statuses of XBackends: what each Gateway is told that sends to it.
    pub(super) fn report_externals(&mut self, keys: BTreeSet<ServiceKey>, out: &mut Output) {
        if self.config.gateways.is_none() {
            return;
        }
        for key in keys {
            let reference = reference(&key);
            let (Some(object), Some(view)) = (self.objects.get(&reference), self.externals.views.get(&key)) else {
                self.statuses.remove(&reference);
                continue;
            };
            let conditions = view.conditions();
            let entry = |gateway: weft_core::ids::GatewayKey| RouteParentStatus {
                parent_ref: ParentReference {
                    group: Some(GATEWAY_GROUP.to_owned()),
                    kind: Some("Gateway".to_owned()),
                    namespace: Some(gateway.namespace.to_string()),
                    name: gateway.name.to_string(),
                    ..ParentReference::default()
                },
                conditions: conditions.clone(),
            };
            let entries: Vec<_> = self.gateways_sending_to(&key).into_iter().map(entry).collect();
            let generation = object.generation();
            if !entries.is_empty() || self.statuses.contains_key(&reference) || super::routes::has_own_entry(object) {
                self.report(reference, generation, ObjectStatus::Parents(entries), out);
            }
        }
    }
}
