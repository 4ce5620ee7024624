//! TelemetryPolicies in the index. They are few and look at each other, so all are made anew. Of two with the very same
//! target the older is in force there.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use weft_core::change::{Resource, ResourceKey};
use weft_core::ids::{Name, Namespace, PolicyKey, ServiceKey};

use super::{Index, Output};
use crate::object::{Kind, Object, ObjectRef, ObjectStatus, TelemetryPolicy, WEFT_GROUP, created_seconds};
use crate::translate::labels::Labels;
use crate::translate::telemetry::{Lookup, Target, Translated, translate};
use crate::translate::{Problem, Reason, Selection};

/// What is known of telemetry policies besides the objects.
#[derive(Debug, Default)]
pub(super) struct TelemetryTable {
    /// Policies that select workloads.
    selected: BTreeMap<PolicyKey, Vec<Selection>>,
    /// Services that policies name, as targets or as collectors.
    services: BTreeSet<ServiceKey>,
}

impl TelemetryTable {
    /// The policies that select a pod, by key.
    pub(super) fn selecting(&self, namespace: &Namespace, labels: Option<&Labels>) -> Vec<PolicyKey> {
        let none = Labels::new();
        let labels = labels.unwrap_or(&none);
        let selects = |list: &[Selection]| list.iter().any(|selection| selection.selects(namespace, labels));
        self.selected.iter().filter(|(_, list)| selects(list)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether a policy names a Service.
    pub(super) fn names(&self, service: &ServiceKey) -> bool {
        self.services.contains(service)
    }
}

impl Lookup for Index {
    fn permitted(&self, from: &Namespace, to: &ServiceKey) -> bool {
        let from = (WEFT_GROUP, Kind::TelemetryPolicy.as_str(), from);
        self.grants.permits_from(from, ("", Kind::Service.as_str(), &to.namespace, to.name.as_str()))
    }
}

impl Index {
    /// All of them, the oldest first, with what each comes to beside the others.
    fn telemetry_policies(&self) -> Vec<(ObjectRef, Arc<TelemetryPolicy>, Translated)> {
        let mut all: Vec<(ObjectRef, Arc<TelemetryPolicy>)> = Vec::new();
        for (reference, object) in self.of_kind(Kind::TelemetryPolicy) {
            if let Object::TelemetryPolicy(policy) = object {
                all.push((reference.clone(), Arc::clone(policy)));
            }
        }
        all.sort_by_key(|(reference, policy)| (created_seconds(&policy.metadata), reference.clone()));
        let mut taken: HashMap<Target, ObjectRef> = HashMap::new();
        let mut made = Vec::with_capacity(all.len());
        for (reference, object) in all {
            let mut translated = translate(&object, self);
            // One that isn't in force keeps nobody out.
            let places = translated.is_valid().then_some(&mut translated.places);
            for (i, place) in places.into_iter().flatten().enumerate() {
                let Some(meant) = &place.meant else { continue };
                match taken.entry(meant.clone()) {
                    Entry::Occupied(winner) => {
                        let winner = winner.get();
                        let field = format!("spec.targetRefs[{i}]");
                        let message = match *winner == reference {
                            true => "is there twice".to_owned(),
                            false => format!("{winner} is older and has the same target"),
                        };
                        place.problem =
                            Some(Problem::new(field, Reason::Conflicted, message, "merge the two, or remove one"));
                    }
                    Entry::Vacant(free) => {
                        free.insert(reference.clone());
                    }
                }
            }
            made.push((reference, object, translated));
        }
        made
    }

    /// Emits what they come to, and notes whom they select; those are looked at again.
    pub(super) fn commit_telemetry(&mut self, pods: &mut BTreeSet<(Namespace, Name)>) {
        let all = self.telemetry_policies();
        self.telemetry.services = all.iter().flat_map(|(_, object, _)| services_of(object)).collect();
        let mut gone: BTreeSet<PolicyKey> = self
            .emitted
            .iter()
            .filter_map(|resource| match resource {
                Resource::Telemetry(policy) => Some(policy.key.clone()),
                _ => None,
            })
            .collect();
        let mut selected = BTreeMap::new();
        for (_, _, translated) in &all {
            let Some((policy, selections)) = translated.resource() else { continue };
            gone.remove(&policy.key);
            if !selections.is_empty() {
                selected.insert(policy.key.clone(), selections);
            }
            self.emitted.set(ResourceKey::Telemetry(policy.key.clone()), Some(Resource::Telemetry(Arc::new(policy))));
        }
        for key in gone {
            self.emitted.set(ResourceKey::Telemetry(key), None);
        }
        let before = std::mem::replace(&mut self.telemetry.selected, selected);
        let now = &self.telemetry.selected;
        let differ = |key: &&PolicyKey| before.get(*key) != now.get(*key);
        let keys: BTreeSet<_> = before.keys().chain(now.keys()).filter(differ).collect();
        for selection in keys.iter().flat_map(|key| [before.get(*key), now.get(*key)]).flatten().flatten() {
            self.add_selected(selection, pods);
        }
    }

    /// Reports what became of them, now that Gateways are understood.
    pub(super) fn report_telemetry(&mut self, out: &mut Output) {
        let mut there = BTreeSet::new();
        for (reference, object, translated) in self.telemetry_policies() {
            self.set_problems(&reference, translated.all_problems());
            let generation = object.metadata.generation.unwrap_or(0);
            self.report(reference.clone(), generation, ObjectStatus::Ancestors(translated.ancestors()), out);
            there.insert(reference);
        }
        let forgotten = |r: &ObjectRef| r.kind == Kind::TelemetryPolicy && !there.contains(r);
        self.statuses.retain(|r, _| !forgotten(r));
        self.problems.retain(|r, _| !forgotten(r));
    }
}

fn services_of(policy: &TelemetryPolicy) -> Vec<ServiceKey> {
    let own = policy.metadata.namespace.as_deref().unwrap_or("default");
    let targets = policy.spec.target_refs.iter().flatten().filter(|target| target.kind == Kind::Service.as_str());
    let mut services: Vec<_> =
        targets.map(|target| ServiceKey::new(own, target.name.as_deref().unwrap_or_default())).collect();
    let of_traces = policy.spec.tracing.as_ref().and_then(|tracing| tracing.provider.as_ref());
    let of_lines = policy.spec.access_log.as_ref().and_then(|log| log.provider.as_ref());
    let backends = of_traces.into_iter().chain(of_lines).map(|provider| &provider.backend_ref);
    services.extend(backends.map(|it| ServiceKey::new(it.namespace.as_deref().unwrap_or(own), it.name.as_str())));
    services
}
