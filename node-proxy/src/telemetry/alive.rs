//! Who there still is: series of what is gone are taken away, so that a node's metrics don't grow with its history.

use std::collections::HashSet;

use weft_core::ids::{PolicyKey, RuleKey, ServicePortKey};
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;

use super::labels::WorkloadLabel;

/// What labels may name.
#[derive(Debug, Default)]
pub struct Alive {
    pub(super) workloads: HashSet<WorkloadLabel>,
    pub(super) services: HashSet<ServicePortKey>,
    pub(super) rules: HashSet<RuleKey>,
    /// As text: events name them so.
    pub(super) service_names: HashSet<String>,
    pub(super) policy_names: HashSet<String>,
}

impl Alive {
    /// What a configuration names, and the pods of this node whether it does or not.
    pub fn of<'a>(snapshot: &Snapshot, local: impl IntoIterator<Item = &'a Workload>) -> Self {
        let mut alive = Self::default();
        alive.workloads.extend(snapshot.workloads().map(|workload| WorkloadLabel::of(workload)));
        alive.workloads.extend(local.into_iter().map(WorkloadLabel::of));
        for service in snapshot.services() {
            let ports = service.ports.iter().map(|it| ServicePortKey { service: service.key.clone(), port: it.port });
            for key in ports {
                alive.service_names.insert(key.to_string());
                alive.services.insert(key);
            }
        }
        alive.rules.extend(snapshot.rules().map(|rule| rule.key().clone()));
        alive.rules.extend(snapshot.gateway_rules().map(|it| it.rule.key().clone()));
        alive.policy_names.extend(snapshot.authorization_policies().map(|policy| policy_name(&policy.key)));
        alive
    }

    /// Whether an event's label is of something that is gone.
    pub(super) fn names(&self, label: &str, value: &str) -> bool {
        match label {
            DESTINATION_SERVICE => self.service_names.contains(value),
            POLICY => value.is_empty() || self.policy_names.contains(value),
            _ => true,
        }
    }
}

/// The label of a Service port in an event.
pub(crate) const DESTINATION_SERVICE: &str = "destination_service";
/// The label of an authorization policy in an event.
pub(crate) const POLICY: &str = "policy";

/// A policy as metrics name it.
pub(crate) fn policy_name(key: &PolicyKey) -> String {
    key.to_string()
}
