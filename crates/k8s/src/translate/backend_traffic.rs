//! XBackendTrafficPolicy -> [`BackendTraffic`] (GEP-3388, GEP-1619).
//!
//! A policy of which a part can't be used is not in force at all: its author is told, and nothing is done by halves.

use std::time::Duration;

use weft_core::backend_kind::BackendKind;
use weft_core::ids::{Namespace, ServiceKey};
use weft_core::traffic::{BackendTraffic, RetryConstraint};

use super::route::duration;
use super::session::{Owner, for_user, session};
use super::{Problem, Reason, summary};
use crate::object::{BackendTrafficPolicy, Condition, ConditionType, RetryConstraintSpec};

/// `budget.percent` if the policy does not say.
const DEFAULT_PERCENT: i64 = 20;
/// `minRetryRate.count` if the policy does not say.
const DEFAULT_COUNT: i64 = 10;
/// The most of it that the API allows.
const MAX_COUNT: i64 = 1_000_000;
/// The longest interval that the API allows.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// A policy, understood by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyView {
    /// What it is for, in its order.
    pub targets: Vec<Target>,
    traffic: BackendTraffic,
    /// Why it can't be used.
    refused: Vec<Problem>,
    /// Targets of other kinds.
    foreign: Vec<Problem>,
}

/// `targetRefs[]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `spec.targetRefs[n]`
    pub field: String,
    /// The backend.
    pub backend: ServiceKey,
}

/// Understands a policy.
pub fn view(policy: &BackendTrafficPolicy) -> PolicyView {
    let namespace = Namespace::new(policy.metadata.namespace.as_deref().unwrap_or("default"));
    let (mut refused, mut foreign, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (i, target) in policy.spec.target_refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{i}]");
        match BackendKind::find(&target.group, &target.kind) {
            Some(kind) => {
                let backend = ServiceKey::of_kind(kind, namespace.clone(), &target.name);
                targets.push(Target { field, backend });
            }
            None => {
                let message = format!("a policy can't be for kind {:?} in group {:?}", target.kind, target.group);
                let remedy = "name a Service of the core group";
                foreign.push(Problem::new(format!("{field}.kind"), Reason::InvalidKind, message, remedy));
            }
        }
    }
    let retry = policy.spec.retry_constraint.as_ref().and_then(|spec| retry(spec, &mut refused));
    let session = policy.spec.session_persistence.as_ref().and_then(|spec| {
        let owner = Owner::new(policy.metadata.uid.as_ref(), "XBackendTrafficPolicy");
        session("spec.sessionPersistence", spec, &owner, &mut refused)
    });
    PolicyView { targets, traffic: BackendTraffic { retry, session }, refused, foreign }
}

fn retry(spec: &RetryConstraintSpec, problems: &mut Vec<Problem>) -> Option<RetryConstraint> {
    let before = problems.len();
    let budget = spec.budget.clone().unwrap_or_default();
    let rate = spec.min_retry_rate.clone().unwrap_or_default();
    let field = |part: &str| format!("spec.retryConstraint.{part}");
    let mut number = |part: &str, value: i64, (least, most): (i64, i64)| {
        if !(least..=most).contains(&value) {
            let message = format!("{value} is out of range");
            problems.push(Problem::new(field(part), Reason::Invalid, message, format!("use {least} to {most}")));
        }
        value
    };
    let percent = number("budget.percent", budget.percent.unwrap_or(DEFAULT_PERCENT), (0, 100));
    let count = number("minRetryRate.count", rate.count.unwrap_or(DEFAULT_COUNT), (1, MAX_COUNT));
    let mut time = |part: &str, text: Option<&str>, (default, least): (&str, Duration)| {
        let read = duration(&field(part), text.unwrap_or(default));
        let invalid = |message| Problem::new(field(part), Reason::Invalid, message, "use up to 1h, as in 10s");
        match read {
            Ok(time) if (least..=MAX_INTERVAL).contains(&time) => Some(time),
            Ok(time) => {
                problems.push(invalid(format!("{time:?} is out of range")));
                None
            }
            Err(problem) => {
                problems.push(invalid(problem.message));
                None
            }
        }
    };
    let interval = time("budget.interval", budget.interval.as_deref(), ("10s", Duration::from_secs(1)));
    let least = Duration::from_millis(1);
    let min_interval = time("minRetryRate.interval", rate.interval.as_deref(), ("1s", least));
    if problems.len() > before {
        return None;
    }
    let (percent, min_retries) = (u8::try_from(percent).ok()?, u32::try_from(count).ok()?);
    Some(RetryConstraint { percent, interval: interval?, min_retries, min_interval: min_interval? })
}

impl PolicyView {
    /// What it asks for of the traffic to one of its targets; nothing if it can't be used.
    pub fn towards(&self, backend: &ServiceKey) -> Option<BackendTraffic> {
        if !self.refused.is_empty() {
            return None;
        }
        let session = self.traffic.session.as_ref().map(|session| for_user(session, &backend.to_string()));
        Some(BackendTraffic { retry: self.traffic.retry, session })
    }

    /// Whether it asks for sessions.
    pub fn has_session(&self) -> bool {
        self.traffic.session.is_some()
    }

    /// All that is wrong with it, apart from what became of its targets.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.refused.iter().chain(&self.foreign)
    }

    /// What is to be said of it at a target.
    pub fn condition(&self, lost: Option<&Problem>) -> Condition {
        let kind = ConditionType::Accepted;
        if let Some(problem) = lost {
            return Condition::new(kind, false, problem.reason.as_str(), problem.to_string());
        }
        if !self.refused.is_empty() {
            return Condition::new(kind, false, Reason::Invalid.as_str(), summary(&self.refused));
        }
        let mut text = String::from("The policy is in force");
        for problem in &self.foreign {
            text.push_str("; ");
            text.push_str(&problem.to_string());
        }
        Condition::new(kind, true, "Accepted", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view_of(spec: &str) -> PolicyView {
        let yaml = format!(
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\n\
             metadata: {{name: p, namespace: shop}}\nspec: {spec}"
        );
        view(&serde_norway::from_str(&yaml).unwrap())
    }

    const TARGET: &str = "targetRefs: [{group: '', kind: Service, name: web}]";

    #[test]
    fn what_is_not_said_is_what_the_api_says() {
        let web = ServiceKey::new("shop", "web");
        let made = |spec: &str| view_of(&format!("{{{TARGET}, {spec}}}")).towards(&web).unwrap().retry;
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        let default = RetryConstraint { percent: 20, interval: seconds(10), min_retries: 10, min_interval: seconds(1) };
        assert_eq!(made("retryConstraint: {}"), Some(default));
        assert_eq!(made("retryConstraint: {budget: {percent: 0}}"), Some(RetryConstraint { percent: 0, ..default }));
        let spec = "retryConstraint: {budget: {percent: 50, interval: 1m}, minRetryRate: {count: 3, interval: 500ms}}";
        let wanted = RetryConstraint { percent: 50, interval: seconds(60), min_retries: 3, min_interval: millis(500) };
        assert_eq!(made(spec), Some(wanted));
        assert_eq!(made("sessionPersistence: {}"), None);
    }

    #[test]
    fn what_is_wrong_is_named_and_costs_the_policy() {
        for (spec, said) in [
            ("retryConstraint: {budget: {percent: 101}}", "spec.retryConstraint.budget.percent: 101 is out of range"),
            ("retryConstraint: {budget: {interval: 500ms}}", "spec.retryConstraint.budget.interval: 500ms is out"),
            ("retryConstraint: {budget: {interval: 2h}}", "spec.retryConstraint.budget.interval: 7200s is out"),
            ("retryConstraint: {budget: {interval: x}}", "spec.retryConstraint.budget.interval: \"x\" is not a"),
            ("retryConstraint: {minRetryRate: {count: 0}}", "spec.retryConstraint.minRetryRate.count: 0 is out"),
            ("retryConstraint: {minRetryRate: {interval: 0s}}", "spec.retryConstraint.minRetryRate.interval: 0ns is"),
            ("sessionPersistence: {idleTimeout: 1h}", "spec.sessionPersistence.idleTimeout: is not supported"),
        ] {
            let view = view_of(&format!("{{{TARGET}, {spec}}}"));
            assert_eq!(view.towards(&view.targets[0].backend), None);
            let condition = view.condition(None);
            assert!(!condition.status && condition.reason == "Invalid", "{condition:?}");
            assert!(condition.message.starts_with(said), "{spec}: {}", condition.message);
        }
    }

    #[test]
    fn targets_are_backends() {
        let view = view_of(
            "{targetRefs: [{group: '', kind: Service, name: web}, {group: apps, kind: Deployment, name: web},
              {group: multicluster.x-k8s.io, kind: ServiceImport, name: store}]}",
        );
        let names: Vec<_> = view.targets.iter().map(|target| target.backend.described()).collect();
        assert_eq!(names, ["Service shop/web", "ServiceImport shop/store"]);
        let condition = view.condition(None);
        assert!(condition.status && condition.message.contains("spec.targetRefs[1].kind"), "{condition:?}");
    }
}
