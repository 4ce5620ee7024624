//! BackendTLSPolicies in the index: which is in force where, and for which Gateways.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{GatewayKey, Namespace, RouteKey, SectionName, ServiceKey};

use super::routes::reference as reference_of_route;
use super::{Index, Output};
use crate::object::route::ParentReference;
use crate::object::{GATEWAY_GROUP, Kind, Object, ObjectRef, ObjectStatus, RouteParentStatus, created_seconds};
use crate::translate::backend_tls::{Outcome, PolicyTarget, PolicyView, ports, view};
use crate::translate::route::RouteView;
use crate::translate::{Problem, Reason};

/// What is known of BackendTLSPolicies besides the objects. They reach no further than their namespace.
#[derive(Debug, Default)]
pub(super) struct BackendTlsTable {
    /// The Services that policies name, and what was made of them, by namespace.
    targeted: BTreeMap<Namespace, BTreeSet<ServiceKey>>,
    made: BTreeMap<Namespace, BTreeSet<ResourceKey>>,
    reported: BTreeMap<Namespace, BTreeSet<ObjectRef>>,
}

impl BackendTlsTable {
    /// The namespaces whose policies name one of these Services.
    pub(super) fn naming<'a>(
        &'a self,
        services: impl IntoIterator<Item = ServiceKey> + 'a,
    ) -> impl Iterator<Item = Namespace> + 'a {
        let is_named = |service: &ServiceKey| {
            self.targeted.get(&service.namespace).is_some_and(|services| services.contains(service))
        };
        services.into_iter().filter(is_named).map(|service| service.namespace)
    }

    /// Whether a namespace has policies.
    pub(super) fn has(&self, namespace: &Namespace) -> bool {
        self.targeted.contains_key(namespace)
    }
}

/// A policy with what became of its targets.
struct Settled {
    object: Arc<BackendTlsPolicy>,
    view: PolicyView,
    outcomes: Vec<Outcome>,
}

impl Index {
    /// Settles the policies of some namespaces anew.
    pub(super) fn commit_backend_tls(&mut self, namespaces: &BTreeSet<Namespace>, out: &mut Output) {
        if self.config.gateways.is_none() {
            return;
        }
        for namespace in namespaces {
            let (settled, resources) = self.settle(namespace);
            self.set_made(namespace, resources);
            let targets = settled.iter().flat_map(|it| &it.view.targets).map(|target| target.service.clone());
            let targets: BTreeSet<_> = targets.collect();
            match settled.is_empty() {
                true => self.backend_tls.targeted.remove(namespace),
                false => self.backend_tls.targeted.insert(namespace.clone(), targets.clone()),
            };
            let gateways = targets.into_iter().map(|service| {
                let gateways = self.gateways_sending_to(&service);
                (service, gateways)
            });
            let gateways: HashMap<_, _> = gateways.collect();
            let mut there = BTreeSet::new();
            for policy in settled {
                let name = policy.object.metadata.name.as_deref().unwrap_or_default();
                let reference = ObjectRef::new(Kind::BackendTlsPolicy, namespace.clone(), name);
                there.insert(reference.clone());
                self.report_policy(reference, &policy, &gateways, out);
            }
            let before = self.backend_tls.reported.insert(namespace.clone(), there.clone()).unwrap_or_default();
            for gone in before.difference(&there) {
                self.statuses.remove(gone);
                self.set_problems(gone, Vec::new());
            }
        }
    }

    /// Which policy is in force where: the oldest of those with the same target, and one that names a port before one that
    /// names none.
    fn settle(&self, namespace: &Namespace) -> (Vec<Settled>, BTreeMap<ResourceKey, Resource>) {
        let mut policies: Vec<_> = self
            .in_namespace(Kind::BackendTlsPolicy, namespace)
            .filter_map(|(reference, object)| match object {
                Object::BackendTlsPolicy(policy) => Some((created_seconds(&policy.metadata), reference, policy)),
                _ => None,
            })
            .collect();
        policies.sort_by_key(|(created, reference, _)| (*created, (*reference).clone()));
        let mut taken: HashMap<(ServiceKey, Option<SectionName>), ObjectRef> = HashMap::new();
        let (mut settled, mut resources) = (Vec::new(), BTreeMap::new());
        for (_, reference, policy) in policies {
            let view = view(policy, |namespace, name| self.config_map(namespace, name));
            let outcomes = view.targets.iter().map(|target| {
                let place = (target.service.clone(), target.section.clone());
                match taken.get(&place).filter(|holder| *holder != reference) {
                    Some(holder) => Outcome::Lost(conflicted(target, holder)),
                    None => {
                        taken.insert(place, reference.clone());
                        self.put_in_force(&view, target, &mut resources)
                    }
                }
            });
            let outcomes = outcomes.collect();
            settled.push(Settled { object: Arc::clone(policy), view, outcomes });
        }
        (settled, resources.into_iter().map(|(key, (_, resource))| (key, resource)).collect())
    }

    fn put_in_force(
        &self,
        policy: &PolicyView,
        target: &PolicyTarget,
        resources: &mut BTreeMap<ResourceKey, (bool, Resource)>,
    ) -> Outcome {
        let remedy = "create it, or correct the targetRef";
        let not_found = |part: &str, message: String| {
            Outcome::Lost(Problem::new(format!("{}{part}", target.field), Reason::TargetNotFound, message, remedy))
        };
        let Some(service) = self.services.get(&target.service) else {
            return not_found(".name", format!("Service {} does not exist", target.service));
        };
        let mut any = false;
        for port in ports(target, service) {
            any = true;
            let (key, is_named) = (ResourceKey::BackendTls(port.clone()), target.section.is_some());
            if is_named || !resources.get(&key).is_some_and(|(named, _)| *named) {
                resources.insert(key, (is_named, Resource::BackendTls(Arc::new(policy.towards(port)))));
            }
        }
        match &target.section {
            Some(section) if !any => {
                not_found(".sectionName", format!("Service {} has no port named {section:?}", target.service))
            }
            _ => Outcome::InForce,
        }
    }

    fn set_made(&mut self, namespace: &Namespace, resources: BTreeMap<ResourceKey, Resource>) {
        let keys: BTreeSet<_> = resources.keys().cloned().collect();
        for gone in self.backend_tls.made.remove(namespace).unwrap_or_default().difference(&keys) {
            self.emitted.set(gone.clone(), None);
        }
        for (key, resource) in resources {
            self.emitted.set(key, Some(resource));
        }
        if !keys.is_empty() {
            self.backend_tls.made.insert(namespace.clone(), keys);
        }
    }

    /// The Gateways with a route that sends to a Service.
    pub(super) fn gateways_sending_to(&self, service: &ServiceKey) -> BTreeSet<GatewayKey> {
        let sends = |route: &RouteKey| {
            let view = self.objects.get(&reference_of_route(route)).and_then(RouteView::new);
            view.is_some_and(|view| view.backend_services().contains(service))
        };
        let routes = self.routes.referring_to(service).into_iter().filter(sends);
        routes.flat_map(|route| self.gateways.of_route(&route)).collect()
    }

    fn report_policy(
        &mut self,
        reference: ObjectRef,
        policy: &Settled,
        gateways: &HashMap<ServiceKey, BTreeSet<GatewayKey>>,
        out: &mut Output,
    ) {
        let each = || policy.view.targets.iter().zip(&policy.outcomes);
        let mut ancestors: BTreeMap<&GatewayKey, Vec<&Outcome>> = BTreeMap::new();
        for (target, outcome) in each() {
            for gateway in gateways.get(&target.service).into_iter().flatten() {
                ancestors.entry(gateway).or_default().push(outcome);
            }
        }
        let entries = ancestors.into_iter().map(|(gateway, outcomes)| RouteParentStatus {
            parent_ref: ParentReference {
                group: Some(GATEWAY_GROUP.to_owned()),
                kind: Some("Gateway".to_owned()),
                namespace: Some(gateway.namespace.to_string()),
                name: gateway.name.to_string(),
                ..ParentReference::default()
            },
            conditions: policy.view.conditions(&outcomes),
        });
        let entries = entries.collect();
        let lost = policy.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Lost(problem) => Some(problem),
            Outcome::InForce => None,
        });
        self.set_problems(&reference, policy.view.problems().chain(lost).cloned().collect());
        let generation = policy.object.metadata.generation.unwrap_or(0);
        self.report(reference, generation, ObjectStatus::GatewayAncestors(entries), out);
    }
}

fn conflicted(target: &PolicyTarget, holder: &ObjectRef) -> Problem {
    let message = format!("{holder} is older, or comes first, and has the same target");
    Problem::new(&target.field, Reason::Conflicted, message, "merge the two, or remove one")
}
