//! Policies in the index: which select which pods, and what was made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{GatewayKey, Name, Namespace, PolicyKey, ServiceKey};
use weft_core::policy::AuthorizationPolicy;

use super::{Dirty, Index, Output, pod_key};
use crate::object::{Condition, ConditionType, Kind, MeshPolicy, Object, ObjectRef, ObjectStatus, created_seconds};
use crate::translate::authz::Translated;
use crate::translate::labels::Labels;
use crate::translate::{Applies, GatewayTarget, Pods, Problem, Reason, Selection, authz, mesh_policy};

/// What is known of policies besides the objects.
#[derive(Debug, Default)]
pub(super) struct PolicyTable {
    /// Policies that select workloads, by their key in the data plane.
    selected: BTreeMap<PolicyKey, Applies>,
    /// Policies to look at again when a Service changes: those that name it, and those that ask about HTTP.
    by_service: BTreeMap<ServiceKey, BTreeSet<ObjectRef>>,
    about_http: BTreeSet<ObjectRef>,
}

impl PolicyTable {
    /// The policies that select a pod, by key.
    pub(super) fn selecting(&self, namespace: &Namespace, labels: Option<&Labels>) -> Vec<PolicyKey> {
        let none = Labels::new();
        let labels = labels.unwrap_or(&none);
        let selects = |applies: &Applies| applies.selections().iter().any(|s| s.selects(namespace, labels));
        self.selected.iter().filter(|(_, applies)| selects(applies)).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn looking_at(&self, service: &ServiceKey) -> BTreeSet<ObjectRef> {
        self.by_service.get(service).into_iter().flatten().chain(&self.about_http).cloned().collect()
    }

    /// Notes the Services that an object names as targets.
    fn note_services(&mut self, reference: &ObjectRef, object: Option<&Object>) {
        self.by_service.retain(|_, policies| {
            policies.remove(reference);
            !policies.is_empty()
        });
        let Some(Object::AuthorizationPolicy(policy)) = object else { return };
        for target in policy.spec.target_refs.iter().flatten().filter(|t| t.kind == "Service") {
            let name = target.name.as_deref().unwrap_or_default();
            let key = ServiceKey::new(reference.namespace.clone(), name);
            self.by_service.entry(key).or_default().insert(reference.clone());
        }
    }
}

impl Index {
    pub(super) fn commit_policies(
        &mut self,
        dirty: &mut Dirty,
        pods: &mut BTreeSet<(Namespace, Name)>,
        out: &mut Output,
    ) {
        for reference in &dirty.policies {
            self.commit_authorization(reference, (pods, &mut dirty.gateways), out);
        }
        if dirty.mesh_policies {
            self.commit_mesh_policies(pods, out);
        }
    }

    fn commit_authorization(
        &mut self,
        reference: &ObjectRef,
        (pods, gateways): (&mut BTreeSet<(Namespace, Name)>, &mut BTreeSet<GatewayKey>),
        out: &mut Output,
    ) {
        let key = PolicyKey::new(reference.namespace.clone(), reference.name.clone());
        let object = self.objects.get(reference).cloned();
        self.policies.note_services(reference, object.as_ref());
        let Some(Object::AuthorizationPolicy(policy)) = object else {
            self.policies.about_http.remove(reference);
            self.select(&key, None, pods);
            self.note_gateway_targets(&key, Vec::new(), gateways);
            self.emitted.set(ResourceKey::Authorization(key), None);
            self.set_problems(reference, Vec::new());
            self.statuses.remove(reference);
            return;
        };
        let mut made = authz::translate(&policy, self);
        self.note_gateway_targets(&key, made.gateways.clone(), gateways);
        if made.policy.rules.iter().flat_map(|r| &r.to).any(authz::looks_at_http) {
            self.policies.about_http.insert(reference.clone());
        } else {
            self.policies.about_http.remove(reference);
        }
        self.note_blind_spots(&mut made);
        self.select(&key, Some(&made.applies), pods);
        let at_gateways = self.gateway_policies.has(&key);
        self.emitted.set(ResourceKey::Authorization(key), Some(Resource::Authorization(Arc::new(made.policy))));
        if at_gateways {
            // Its status is told when Gateways are understood.
            return;
        }
        self.set_problems(reference, made.problems);
        let generation = policy.metadata.generation.unwrap_or(0);
        self.report(reference.clone(), generation, ObjectStatus::Ancestors(made.ancestors), out);
    }

    /// Notes the Service ports whose requests a policy asks about and can't see.
    pub(super) fn note_blind_spots(&self, made: &mut Translated<AuthorizationPolicy>) {
        if !made.policy.rules.iter().flat_map(|r| &r.to).any(authz::looks_at_http) {
            return;
        }
        let services = self.services_of(&made.applies);
        let Some(text) = authz::blind_spots(&made.policy, &made.applies, services) else { return };
        let condition = Condition::new(ConditionType::PartiallyEnforced, true, "UnsupportedProtocol", &text);
        // What Gateways can't judge is said of them by itself.
        let of_pods = made.ancestors.iter_mut().filter(|it| !GatewayTarget::is_kind(&it.ancestor_ref.kind));
        of_pods.for_each(|a| a.conditions.push(condition.clone()));
        let remedy = "name the HTTP ports in to[].ports, or authorize these ports without HTTP conditions";
        made.problems.push(Problem::new("spec.rules", Reason::Note, text, remedy));
    }

    /// The Services of the namespaces a policy applies to.
    fn services_of<'a>(
        &'a self,
        applies: &Applies,
    ) -> Box<dyn Iterator<Item = &'a k8s_openapi::api::core::v1::Service> + 'a> {
        let as_service = |(_, object): (&'a ObjectRef, &'a Object)| match object {
            Object::Service(service) => Some(&**service),
            _ => None,
        };
        let mut namespaces: BTreeSet<Namespace> = BTreeSet::new();
        match applies {
            Applies::Mesh => return Box::new(self.of_kind(Kind::Service).filter_map(as_service)),
            Applies::Namespace(ns) => drop(namespaces.insert(ns.clone())),
            Applies::Selected(list) if list.iter().any(|s| s.namespace.is_none()) => {
                return Box::new(self.of_kind(Kind::Service).filter_map(as_service));
            }
            Applies::Selected(list) => namespaces.extend(list.iter().filter_map(|s| s.namespace.clone())),
        }
        let found: Vec<_> = namespaces.iter().flat_map(|ns| self.in_namespace(Kind::Service, ns)).collect();
        Box::new(found.into_iter().filter_map(as_service))
    }

    /// MeshPolicies are few and look at each other: all are made anew. Of two for the very same workloads the
    /// older is in force. One that is enforced and one that isn't both are: else whoever wrote the other one first would
    /// keep what is enforced away from their namespace.
    fn commit_mesh_policies(&mut self, pods: &mut BTreeSet<(Namespace, Name)>, out: &mut Output) {
        let mut all: Vec<(ObjectRef, Arc<MeshPolicy>)> = Vec::new();
        for (reference, object) in self.of_kind(Kind::MeshPolicy) {
            if let Object::MeshPolicy(policy) = object {
                all.push((reference.clone(), Arc::clone(policy)));
            }
        }
        all.sort_by_key(|(reference, policy)| (created_seconds(&policy.metadata), reference.clone()));
        let is_mesh = |key: &&PolicyKey| key.name.as_str().starts_with("MeshPolicy:");
        let mut gone: BTreeSet<PolicyKey> = self.policies.selected.keys().filter(is_mesh).cloned().collect();
        gone.extend(self.emitted.iter().filter_map(|r| match r {
            Resource::MeshPolicy(p) => Some(p.key.clone()),
            _ => None,
        }));
        let mut taken: Vec<((Applies, bool), ObjectRef)> = Vec::new();
        for (reference, object) in &all {
            let mut made = mesh_policy::translate(object, self);
            let place = (made.applies.clone(), made.policy.enforced);
            let winner = taken.iter().find(|(other, _)| *other == place && !is_nothing(&other.0));
            if let Some((_, winner)) = winner {
                let message = format!("{winner} is older and has the same target");
                let problem =
                    Problem::new("spec.targetRefs", Reason::Conflicted, message, "merge the two, or remove one");
                for ancestor in &mut made.ancestors {
                    let accepted = Condition::new(ConditionType::Accepted, false, "Conflicted", problem.to_string());
                    ancestor.conditions = vec![accepted];
                }
                made.problems.push(problem);
            } else {
                taken.push((place, reference.clone()));
                gone.remove(&made.policy.key);
                self.select(&made.policy.key, Some(&made.applies), pods);
                let key = ResourceKey::MeshPolicy(made.policy.key.clone());
                self.emitted.set(key, Some(Resource::MeshPolicy(Arc::new(made.policy))));
            }
            self.set_problems(reference, made.problems);
            let generation = object.metadata.generation.unwrap_or(0);
            self.report(reference.clone(), generation, ObjectStatus::Ancestors(made.ancestors), out);
        }
        for key in gone {
            self.select(&key, None, pods);
            self.emitted.set(ResourceKey::MeshPolicy(key), None);
        }
        let there: BTreeSet<_> = all.into_iter().map(|(r, _)| r).collect();
        let forgotten = |r: &ObjectRef| r.kind == Kind::MeshPolicy && !there.contains(r);
        self.statuses.retain(|r, _| !forgotten(r));
        self.problems.retain(|r, _| !forgotten(r));
    }

    /// Notes which workloads a policy selects; those that it selects now or selected before are looked at again.
    fn select(&mut self, key: &PolicyKey, applies: Option<&Applies>, pods: &mut BTreeSet<(Namespace, Name)>) {
        let new = applies.filter(|a| matches!(a, Applies::Selected(_))).cloned();
        let old = match &new {
            Some(applies) => self.policies.selected.insert(key.clone(), applies.clone()),
            None => self.policies.selected.remove(key),
        };
        if old == new {
            return;
        }
        for selection in old.iter().chain(&new).flat_map(Applies::selections) {
            self.add_selected(selection, pods);
        }
    }

    /// Adds the pods of a selection.
    pub(super) fn add_selected(&self, selection: &Selection, pods: &mut BTreeSet<(Namespace, Name)>) {
        let matching = |(r, o): &(&ObjectRef, &Object)| match &selection.pods {
            Pods::All => true,
            _ => selection.selects(&r.namespace, o.meta().labels.as_ref().unwrap_or(&Labels::new())),
        };
        match &selection.namespace {
            Some(ns) => pods.extend(self.in_namespace(Kind::Pod, ns).filter(matching).map(|(r, _)| pod_key(r))),
            None => pods.extend(self.of_kind(Kind::Pod).filter(matching).map(|(r, _)| pod_key(r))),
        }
    }
}

/// Targets that were not found select nothing: two of them are not in each other's way.
fn is_nothing(applies: &Applies) -> bool {
    matches!(applies, Applies::Selected(list) if list.is_empty())
}
