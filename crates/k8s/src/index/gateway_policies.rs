//! AuthorizationPolicies at Gateways: which listeners have which, and what their statuses say.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::ids::{GatewayKey, ListenerKey, PolicyKey};

use super::{Index, Output};
use crate::object::{Condition, ConditionType, Kind, Object, ObjectRef, ObjectStatus};
use crate::translate::gateway::{GatewayView, parent_of_set};
use crate::translate::{GatewayTarget, ListenerHolder, Problem, Reason, authz, blind_spots_at};

/// The policies that have Gateways or ListenerSets for targets.
#[derive(Debug, Default)]
pub(super) struct GatewayPolicies {
    targets: BTreeMap<PolicyKey, Vec<GatewayTarget>>,
    /// Whose status may differ.
    stale: BTreeSet<PolicyKey>,
}

impl GatewayPolicies {
    /// The policies of a listener, by key.
    pub(super) fn of(&self, listener: &ListenerKey) -> Vec<PolicyKey> {
        let covers = |targets: &[GatewayTarget]| targets.iter().any(|target| target.covers(listener));
        self.targets.iter().filter(|(_, targets)| covers(targets)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether a policy is one of them.
    pub(super) fn has(&self, key: &PolicyKey) -> bool {
        self.targets.contains_key(key)
    }

    /// The status of all of them may differ.
    pub(super) fn all_stale(&mut self) {
        self.stale.extend(self.targets.keys().cloned());
    }
}

impl Index {
    /// Notes the Gateways that a policy judges clients of; those that it does now or did before are looked at again.
    pub(super) fn note_gateway_targets(
        &mut self,
        key: &PolicyKey,
        targets: Vec<GatewayTarget>,
        gateways: &mut BTreeSet<GatewayKey>,
    ) {
        let old = self.gateway_policies.targets.remove(key).unwrap_or_default();
        self.gateway_policies.stale.remove(key);
        if old != targets {
            gateways.extend(old.iter().chain(&targets).filter_map(|target| self.gateway_of(&target.holder)));
        }
        if !targets.is_empty() {
            self.gateway_policies.targets.insert(key.clone(), targets);
            self.gateway_policies.stale.insert(key.clone());
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
