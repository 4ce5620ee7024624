//! AuthorizationPolicies at Gateways: which listeners have which, and what their statuses say.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::ids::{GatewayKey, ListenerKey, ListenerSetKey, PolicyKey, SectionName};

use super::{Index, Output};
use crate::object::{Condition, ConditionType, Kind, Object, ObjectRef, ObjectStatus};
use crate::translate::gateway::{GatewayView, ListenerView, parent_of_set};
use crate::translate::{GatewayTarget, ListenerHolder, Problem, Reason, authz, blind_spots_at};

/// The policies that have Gateways or ListenerSets for targets.
#[derive(Debug, Default)]
pub(super) struct GatewayPolicies {
    targets: BTreeMap<PolicyKey, Vec<GatewayTarget>>,
    /// The same the other way round: thousands of listeners have few policies each.
    by_holder: BTreeMap<ListenerHolder, BTreeSet<PolicyKey>>,
    /// Whose status may differ.
    stale: BTreeSet<PolicyKey>,
    /// How many statuses were made.
    #[cfg(test)]
    pub(super) made: usize,
}

impl GatewayPolicies {
    /// The policies of a listener, by key.
    pub(super) fn of(&self, listener: &ListenerKey) -> Vec<PolicyKey> {
        let covers = |key: &&PolicyKey| self.targets.get(*key).into_iter().flatten().any(|it| it.covers(listener));
        let holders = [ListenerHolder::Gateway(listener.gateway.clone())].into_iter();
        let holders = holders.chain(listener.set.clone().map(ListenerHolder::Set));
        // A policy may name both.
        let found: BTreeSet<_> = holders.flat_map(|holder| self.at(&holder).filter(covers)).collect();
        found.into_iter().cloned().collect()
    }

    fn at<'a>(&'a self, holder: &ListenerHolder) -> impl Iterator<Item = &'a PolicyKey> + use<'a> {
        self.by_holder.get(holder).into_iter().flatten()
    }

    /// Whether a policy is one of them.
    pub(super) fn has(&self, key: &PolicyKey) -> bool {
        self.targets.contains_key(key)
    }

    /// What has listeners has come, gone, or other listeners: the statuses of its policies may differ, and no others.
    pub(super) fn touched(&mut self, holder: &ListenerHolder) {
        let keys: Vec<_> = self.at(holder).cloned().collect();
        self.stale.extend(keys);
    }

    /// A Gateway is understood in another way than before.
    pub(super) fn differs(&mut self, before: Option<&GatewayView>, now: Option<&GatewayView>) {
        let Some(key) = before.or(now).map(|view| view.key.clone()).filter(|_| shape(before) != shape(now)) else {
            return;
        };
        self.touched(&ListenerHolder::Gateway(key));
        let sets: BTreeSet<_> = before.into_iter().chain(now).flat_map(|it| it.sets.iter().map(|it| &it.key)).collect();
        for set in sets {
            if shape_of_set(before, set) != shape_of_set(now, set) {
                self.touched(&ListenerHolder::Set(set.clone()));
            }
        }
    }

    /// Replaces the targets of a policy and gives those of before.
    fn set(&mut self, key: &PolicyKey, targets: Vec<GatewayTarget>) -> Vec<GatewayTarget> {
        let old = self.targets.remove(key).unwrap_or_default();
        for target in &old {
            if let Some(policies) = self.by_holder.get_mut(&target.holder) {
                policies.remove(key);
                if policies.is_empty() {
                    self.by_holder.remove(&target.holder);
                }
            }
        }
        self.stale.remove(key);
        for target in &targets {
            self.by_holder.entry(target.holder.clone()).or_default().insert(key.clone());
        }
        if !targets.is_empty() {
            self.targets.insert(key.clone(), targets);
            self.stale.insert(key.clone());
        }
        old
    }
}

/// What the status of a policy depends on of listeners: which there are, and what is spoken on them.
type Shape<'a> = Option<Vec<(Option<&'a ListenerSetKey>, &'a SectionName, &'a str)>>;

fn shape_of(listeners: &[ListenerView]) -> Shape<'_> {
    Some(listeners.iter().map(|it| (it.set.as_ref(), &it.name, it.protocol.as_str())).collect())
}

fn shape(view: Option<&GatewayView>) -> Shape<'_> {
    shape_of(&view?.listeners)
}

fn shape_of_set<'a>(view: Option<&'a GatewayView>, set: &ListenerSetKey) -> Shape<'a> {
    let view = view?;
    shape_of(view.set(set)?.listeners(view))
}

impl Index {
    /// Notes the Gateways that a policy judges clients of; those that it does now or did before are looked at again.
    pub(super) fn note_gateway_targets(
        &mut self,
        key: &PolicyKey,
        targets: Vec<GatewayTarget>,
        gateways: &mut BTreeSet<GatewayKey>,
    ) {
        let old = self.gateway_policies.set(key, targets.clone());
        if old != targets {
            gateways.extend(old.iter().chain(&targets).filter_map(|target| self.gateway_of(&target.holder)));
        }
    }

    fn gateway_of(&self, holder: &ListenerHolder) -> Option<GatewayKey> {
        match holder {
            ListenerHolder::Gateway(key) => Some(key.clone()),
            ListenerHolder::Set(key) => {
                let reference = ObjectRef::new(Kind::ListenerSet, key.namespace.clone(), key.name.clone());
                match self.objects.get(&reference) {
                    Some(Object::ListenerSet(set)) => parent_of_set(set),
                    _ => None,
                }
            }
        }
    }

    fn view_of(&self, holder: &ListenerHolder) -> Option<&GatewayView> {
        let view = self.gateways.view(&self.gateway_of(holder)?)?;
        match holder {
            ListenerHolder::Gateway(_) => Some(view),
            ListenerHolder::Set(set) => view.set(set).map(|_| view),
        }
    }

    /// Why a policy isn't in force at a target, if it isn't.
    pub(super) fn missing_gateway(&self, target: &GatewayTarget, field: &str) -> Option<Problem> {
        // Where no Gateways are served, nobody looks at them.
        self.config.gateways.as_ref()?;
        let missing = |part: &str, message: String, remedy: &str| {
            Some(Problem::new(format!("{field}{part}"), Reason::TargetNotFound, message, remedy))
        };
        let name = match &target.holder {
            ListenerHolder::Gateway(key) => format!("Gateway {key}"),
            ListenerHolder::Set(key) => format!("ListenerSet {key}"),
        };
        let Some(view) = self.view_of(&target.holder) else {
            let (kind, namespace, object) = match &target.holder {
                ListenerHolder::Gateway(key) => (Kind::Gateway, &key.namespace, &key.name),
                ListenerHolder::Set(key) => (Kind::ListenerSet, &key.namespace, &key.name),
            };
            if self.objects.contains_key(&ObjectRef::new(kind, namespace.clone(), object.clone())) {
                let message = format!("{name} is served by nobody here: its class is another controller's");
                return missing(".name", message, "target a Gateway of a class whose controllerName is ours");
            }
            return missing(".name", format!("{name} does not exist"), "create it, or correct the name");
        };
        let section = target.section.as_ref().filter(|_| target.listeners(view).next().is_none())?;
        missing(".sectionName", format!("{name} has no listener {section}"), "create it, or correct the name")
    }

    /// Reports the policies at Gateways whose status may differ, now that Gateways are understood.
    pub(super) fn report_gateway_policies(&mut self, out: &mut Output) {
        for key in std::mem::take(&mut self.gateway_policies.stale) {
            let reference = ObjectRef::new(Kind::AuthorizationPolicy, key.namespace.clone(), key.name.clone());
            let Some(Object::AuthorizationPolicy(policy)) = self.objects.get(&reference).cloned() else { continue };
            let mut made = authz::translate(&policy, self);
            #[cfg(test)]
            {
                self.gateway_policies.made += 1;
            }
            self.note_blind_spots(&mut made);
            let views = made.gateways.iter().filter_map(|target| Some((target, self.view_of(&target.holder)?)));
            let listeners = views.flat_map(|(target, view)| target.listeners(view));
            if let Some(text) = blind_spots_at(&made.policy, listeners) {
                let condition = Condition::new(ConditionType::PartiallyEnforced, true, "UnsupportedProtocol", &text);
                let at_gateway = |target: &str| GatewayTarget::is_kind(target);
                let of_gateways = made.ancestors.iter_mut().filter(|it| at_gateway(&it.ancestor_ref.kind));
                of_gateways.for_each(|ancestor| ancestor.conditions.push(condition.clone()));
                let remedy = "give these listeners a policy of their own, by sectionName";
                made.problems.push(Problem::new("spec.rules", Reason::Note, text, remedy));
            }
            self.set_problems(&reference, made.problems);
            let generation = policy.metadata.generation.unwrap_or(0);
            self.report(reference, generation, ObjectStatus::Ancestors(made.ancestors), out);
        }
    }
}
