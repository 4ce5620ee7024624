//! XBackendTrafficPolicies in the index: which is in force for which backend.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{Namespace, RouteKey, ServiceKey};
use weft_core::service::Service;
use weft_core::traffic::BackendTraffic;

use super::{Index, Output};
use crate::object::route::ParentReference;
use crate::object::{BackendTrafficPolicy, Kind, Object, ObjectRef, ObjectStatus, RouteParentStatus, created_seconds};
use crate::translate::backend_traffic::{PolicyView, Target, view};
use crate::translate::{Problem, Reason};

/// What is known of XBackendTrafficPolicies besides the objects. They reach no further than their namespace.
#[derive(Debug, Default)]
pub(super) struct TrafficTable {
    /// What holds for which backend.
    in_force: BTreeMap<Namespace, HashMap<ServiceKey, BackendTraffic>>,
    /// The backends that policies name, by namespace.
    targeted: BTreeMap<Namespace, BTreeSet<ServiceKey>>,
    reported: BTreeMap<Namespace, BTreeSet<ObjectRef>>,
}

impl TrafficTable {
    /// What is asked for of the traffic to a backend.
    pub(super) fn of(&self, backend: &ServiceKey) -> Option<&BackendTraffic> {
        self.in_force.get(&backend.namespace)?.get(backend)
    }

    /// Whether a policy names a backend.
    pub(super) fn names(&self, backend: &ServiceKey) -> bool {
        self.targeted.get(&backend.namespace).is_some_and(|backends| backends.contains(backend))
    }
}

/// A policy with what became of its targets: why it is not in force there, if it isn't.
struct Settled {
    object: Arc<BackendTrafficPolicy>,
    reference: ObjectRef,
    view: PolicyView,
    lost: Vec<Option<Problem>>,
}

impl Index {
    /// Settles the policies of some namespaces anew; adds what looks at their backends to what is to be made anew.
    pub(super) fn commit_traffic(
        &mut self,
        namespaces: &BTreeSet<Namespace>,
        (services, routes): (&mut BTreeSet<ServiceKey>, &mut BTreeSet<RouteKey>),
        out: &mut Output,
    ) {
        for namespace in namespaces {
            let (settled, now) = self.settle_traffic(namespace);
            let before = self.traffic.in_force.remove(namespace).unwrap_or_default();
            let touched = before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key));
            for key in touched {
                services.insert(key.clone());
                routes.extend(self.routes.referring_to(key));
            }
            if !now.is_empty() {
                self.traffic.in_force.insert(namespace.clone(), now);
            }
            let targets = settled.iter().flat_map(|it| &it.view.targets).map(|target| target.backend.clone());
            let targets: BTreeSet<_> = targets.collect();
            match targets.is_empty() {
                true => self.traffic.targeted.remove(namespace),
                false => self.traffic.targeted.insert(namespace.clone(), targets),
            };
            let there: BTreeSet<_> = settled.iter().map(|policy| policy.reference.clone()).collect();
            let reported = self.traffic.reported.insert(namespace.clone(), there.clone()).unwrap_or_default();
            for gone in reported.difference(&there) {
                self.statuses.remove(gone);
                self.set_problems(gone, Vec::new());
            }
            settled.into_iter().for_each(|policy| self.report_traffic(policy, out));
        }
    }

    /// Which policy is in force where: the oldest of those with the same target (GEP-713).
    fn settle_traffic(&self, namespace: &Namespace) -> (Vec<Settled>, HashMap<ServiceKey, BackendTraffic>) {
        let policies = self.in_namespace(Kind::BackendTrafficPolicy, namespace);
        let mut policies: Vec<_> = policies
            .filter_map(|(reference, object)| match object {
                Object::BackendTrafficPolicy(policy) => Some((created_seconds(&policy.metadata), reference, policy)),
                _ => None,
            })
            .collect();
        policies.sort_by_key(|(created, reference, _)| (*created, (*reference).clone()));
        let mut taken: HashMap<ServiceKey, ObjectRef> = HashMap::new();
        let (mut settled, mut in_force) = (Vec::new(), HashMap::new());
        for (_, reference, policy) in policies {
            let view = view(policy);
            let lost = view.targets.iter().map(|target| {
                let holder = taken.entry(target.backend.clone()).or_insert_with(|| reference.clone());
                if holder != reference {
                    return Some(conflicted(target, holder));
                }
                let problem = self.unfit(&view, target);
                if let Some(traffic) = view.towards(&target.backend).filter(|_| problem.is_none()) {
                    in_force.insert(target.backend.clone(), traffic);
                }
                problem
            });
            let lost = lost.collect();
            settled.push(Settled { object: Arc::clone(policy), reference: reference.clone(), view, lost });
        }
        (settled, in_force)
    }

    /// Why a policy can't be in force for a target.
    fn unfit(&self, policy: &PolicyView, target: &Target) -> Option<Problem> {
        let name = target.backend.described();
        let Some(service) = self.services.get(&target.backend) else {
            let (field, remedy) = (format!("{}.name", target.field), "create it, or correct the targetRef");
            return Some(Problem::new(field, Reason::TargetNotFound, format!("{name} does not exist"), remedy));
        };
        // As for the sessions of a rule (GEP-1619, "Session Affinity in K8S Services").
        let excludes = service.client_ip_affinity.is_some() && policy.has_session();
        let message = || format!("{name} has sessionAffinity ClientIP, which excludes it");
        let field = "spec.sessionPersistence";
        excludes.then(|| Problem::new(field, Reason::Conflicted, message(), "remove one of the two"))
    }

    fn report_traffic(&mut self, policy: Settled, out: &mut Output) {
        let Settled { object, reference, view, lost } = policy;
        let mut seen = BTreeSet::new();
        let entries = view.targets.iter().zip(&lost).filter(|(target, _)| seen.insert(target.backend.clone()));
        let entries = entries.map(|(target, lost)| {
            let (kind, name) = target.backend.object();
            RouteParentStatus {
                parent_ref: ParentReference {
                    group: Some(kind.group().to_owned()),
                    kind: Some(kind.as_str().to_owned()),
                    namespace: Some(target.backend.namespace.to_string()),
                    name: name.to_owned(),
                    ..ParentReference::default()
                },
                conditions: vec![view.condition(lost.as_ref())],
            }
        });
        let entries = entries.collect();
        let problems = view.problems().chain(lost.iter().flatten()).cloned().collect();
        self.set_problems(&reference, problems);
        let generation = object.metadata.generation.unwrap_or(0);
        self.report(reference, generation, ObjectStatus::GatewayAncestors(entries), out);
    }

    /// A Service as the data plane has it.
    pub(super) fn with_traffic(&self, service: &Arc<Service>) -> Arc<Service> {
        match self.traffic.of(&service.key) {
            Some(traffic) => Arc::new(Service { traffic: Some(Box::new(traffic.clone())), ..Service::clone(service) }),
            None => Arc::clone(service),
        }
    }

    /// The resource of a backend, if it is there.
    pub(super) fn emit_service(&mut self, key: ServiceKey) {
        let resource = self.services.get(&key).map(|service| Resource::Service(self.with_traffic(service)));
        self.emitted.set(ResourceKey::Service(key), resource);
    }
}

fn conflicted(target: &Target, holder: &ObjectRef) -> Problem {
    let message = format!("{holder} is older, or comes first, and has the same target");
    Problem::new(&target.field, Reason::Conflicted, message, "merge the two, or remove one")
}
