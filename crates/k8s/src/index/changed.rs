//! Who looks at an object that changed: what has to be made anew at the next commit.

use std::sync::Arc;

use weft_core::backend_kind::BackendKind;
use weft_core::ids::{GatewayKey, ListenerSetKey, Namespace, ServiceKey};
use weft_core::service::{Service, SliceKey};

use super::Index;
use super::externals::externals;
use super::pods::pod_key;
use crate::object::{Kind, Object, ObjectRef};
use crate::translate::gateway::parent_of_set;
use crate::translate::route::RouteView;
use crate::translate::{ListenerHolder, service, service_import, workload};

impl Index {
    /// Notes what looks at a changed object.
    pub(super) fn changed(&mut self, reference: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        match reference.kind {
            Kind::Namespace => self.namespace_changed(reference, old, new),
            Kind::Node => self.node_changed(reference, old, new),
            Kind::Service => {
                self.gateway_service_changed(reference, old, new);
                self.service_changed(reference, old, new);
            }
            Kind::ServiceImport => self.import_changed(reference, new),
            Kind::XBackend if differ_in_status_only(old, new) => {}
            Kind::XBackend => self.external_changed(reference),
            Kind::EndpointSlice => {
                let key = SliceKey { namespace: reference.namespace.clone(), name: reference.name.clone() };
                self.dirty.slices.insert(key);
            }
            Kind::Pod => self.pod_changed(reference, old, new),
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
                self.route_changed(old, new);
            }
            Kind::ReferenceGrant => {
                self.grants.set(reference, new);
                self.dirty.routes.extend(self.routes.crossing_into(&reference.namespace));
                self.dirty.all_gateways = true;
                self.dirty.telemetry = true;
            }
            // A status follows from what is known here, and thousands of routes may look at the Gateway.
            Kind::Gateway
            | Kind::GatewayClass
            | Kind::ListenerSet
            | Kind::BackendTlsPolicy
            | Kind::BackendTrafficPolicy
                if differ_in_status_only(old, new) => {}
            Kind::ListenerSet => {
                self.dirty.gateways.extend([old, new].into_iter().flatten().filter_map(gateway_of_set));
                let key = ListenerSetKey::new(reference.namespace.clone(), reference.name.clone());
                self.dirty.routes.extend(self.routes.attaching_to_set(&key));
                // A policy says whether it is there at all, whoever serves it.
                self.gateway_policies.touched(&ListenerHolder::Set(key));
            }
            Kind::Secret => self.dirty.gateways.extend(self.gateways.looking_at(reference)),
            Kind::ConfigMap => {
                self.dirty.gateways.extend(self.gateways.looking_at(reference));
                self.authorities_changed(&reference.namespace);
                if self.backend_tls.has(&reference.namespace) {
                    self.dirty.backend_tls.insert(reference.namespace.clone());
                }
            }
            Kind::BackendTlsPolicy => {
                self.dirty.backend_tls.insert(reference.namespace.clone());
            }
            Kind::BackendTrafficPolicy => {
                self.dirty.traffic.insert(reference.namespace.clone());
            }
            Kind::Gateway => {
                let key = GatewayKey::new(reference.namespace.clone(), reference.name.clone());
                // Routes are told whether it is there at all, whoever serves it.
                self.dirty.routes.extend(self.routes.attaching_to(&key));
                self.gateway_policies.touched(&ListenerHolder::Gateway(key.clone()));
                self.dirty.gateways.insert(key);
            }
            Kind::GatewayClass | Kind::GatewayParameters => self.dirty.all_gateways = true,
            Kind::NetworkPolicy => {
                for policy in [old, new].into_iter().flatten() {
                    let selected = self.selected_by(policy);
                    self.dirty.pods.extend(selected);
                }
            }
            Kind::ServiceAccount => self.account_changed(reference),
            Kind::MeshPolicy => self.dirty.mesh_policies = true,
            Kind::TelemetryPolicy => self.dirty.telemetry = true,
            Kind::AuthorizationPolicy => {
                self.dirty.policies.insert(reference.clone());
            }
        }
    }

    fn route_changed(&mut self, old: Option<&Object>, new: Option<&Object>) {
        if let Some(view) = old.and_then(RouteView::new) {
            self.routes.forget_references(&view);
            self.dirty.backend_tls.extend(self.backend_tls.naming(view.backend_services()));
            self.dirty.externals.extend(externals(view.backend_services()));
        }
        if let Some(view) = new.and_then(RouteView::new) {
            self.routes.note_references(&view);
        }
        let key = new.or(old).and_then(RouteView::new).map(|v| v.key);
        self.dirty.routes.extend(key);
    }

    fn namespace_changed(&mut self, reference: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        let labels = |o: Option<&Object>| o.and_then(|o| o.meta().labels.clone()).unwrap_or_default();
        let namespace = Namespace::new(reference.name.as_str());
        if labels(old) != labels(new) {
            let pods: Vec<_> = self.in_namespace(Kind::Pod, &namespace).map(|(r, _)| pod_key(r)).collect();
            self.dirty.pods.extend(pods);
            self.dirty.routes.extend(self.gateway_routes_in(&namespace));
            // A Gateway may take ListenerSets by the labels of their namespace.
            let sets = self.in_namespace(Kind::ListenerSet, &namespace);
            let gateways: Vec<_> = sets.filter_map(|(_, set)| gateway_of_set(set)).collect();
            self.dirty.gateways.extend(gateways);
        }
        if old.is_none() || new.is_none() {
            let root = self.config.root_namespace.clone();
            let policies: Vec<_> =
                self.in_namespace(Kind::AuthorizationPolicy, &root).map(|(r, _)| r.clone()).collect();
            self.dirty.policies.extend(policies);
            self.dirty.mesh_policies = true;
            self.dirty.telemetry = true;
        }
        self.note_label_problem(reference, new);
    }

    pub(super) fn note_label_problem(&mut self, reference: &ObjectRef, new: Option<&Object>) {
        let found = new.and_then(|o| workload::check_enrolment_label(o.meta().labels.as_ref()));
        self.set_problems(reference, found.into_iter().collect());
    }

    fn service_changed(&mut self, reference: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        let key = ServiceKey::new(reference.namespace.clone(), reference.name.clone());
        let (translated, problems) = match new {
            Some(Object::Service(object)) => {
                let (made, problems) = service::service(object);
                (Some(Arc::new(made)), problems)
            }
            _ => (None, Vec::new()),
        };
        self.set_problems(reference, problems);
        self.dirty.policies.extend(self.policies.looking_at(&key));
        self.dirty.telemetry |= self.telemetry.names(&key);
        // The mesh knows a port of one number; UDPRoutes look at the other one.
        let ports = |object: Option<&Object>| match object {
            Some(Object::Service(service)) => service.spec.as_ref().and_then(|spec| spec.ports.clone()),
            _ => None,
        };
        if ports(old) != ports(new) {
            self.dirty.routes.extend(self.routes.referring_to(&key));
        }
        self.set_service(key, translated);
    }

    fn import_changed(&mut self, reference: &ObjectRef, new: Option<&Object>) {
        let (translated, problems) = match new {
            Some(Object::ServiceImport(object)) => {
                let (made, problems) = service_import::service_import(object);
                (Some(Arc::new(made)), problems)
            }
            _ => (None, Vec::new()),
        };
        self.set_problems(reference, problems);
        let (namespace, name) = (reference.namespace.clone(), reference.name.as_str());
        self.set_service(ServiceKey::of_kind(BackendKind::ServiceImport, namespace, name), translated);
    }

    /// Replaces what routes can send to.
    pub(super) fn set_service(&mut self, key: ServiceKey, translated: Option<Arc<Service>>) {
        if self.services.get(&key) == translated.as_ref() {
            return;
        }
        match translated {
            Some(made) => self.services.insert(key.clone(), made),
            None => self.services.remove(&key),
        };
        self.dirty.routes.extend(self.routes.referring_to(&key));
        self.dirty.backend_tls.extend(self.backend_tls.naming([key.clone()]));
        if self.traffic.names(&key) {
            self.dirty.traffic.insert(key.namespace.clone());
        }
        self.dirty.services.insert(key);
    }
}

/// The Gateway that a ListenerSet names.
fn gateway_of_set(object: &Object) -> Option<GatewayKey> {
    match object {
        Object::ListenerSet(set) => parent_of_set(set),
        _ => None,
    }
}

/// Whether the specification and the metadata of a Gateway, its class, a ListenerSet or a BackendTLSPolicy are the same.
fn differ_in_status_only(old: Option<&Object>, new: Option<&Object>) -> bool {
    match (old, new) {
        (Some(Object::Gateway(old)), Some(Object::Gateway(new))) => {
            old.spec == new.spec && old.metadata == new.metadata
        }
        (Some(Object::GatewayClass(old)), Some(Object::GatewayClass(new))) => {
            old.spec == new.spec && old.metadata == new.metadata
        }
        (Some(Object::ListenerSet(old)), Some(Object::ListenerSet(new))) => {
            old.spec == new.spec && old.metadata == new.metadata
        }
        (Some(Object::BackendTrafficPolicy(old)), Some(Object::BackendTrafficPolicy(new))) => {
            old.spec == new.spec && old.metadata == new.metadata
        }
        (Some(Object::XBackend(old)), Some(Object::XBackend(new))) => {
            old.spec == new.spec && old.metadata == new.metadata
        }
        (Some(Object::BackendTlsPolicy(old)), Some(Object::BackendTlsPolicy(new))) => {
            old.spec == new.spec && old.metadata == new.metadata
        }
        _ => false,
    }
}
