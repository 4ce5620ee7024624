//! Lines of decisions of authorization policies, among those of the access log: what was refused, and what policies that
//! decide nothing have said. `"audit":"authorization"` tells them apart.

use std::fmt::Display;

use serde::Serialize;
use weft_core::authorize::CallFacts;
use weft_core::workload::Workload;

use crate::observe::PolicyWord;
use crate::util::{LONGEST_TOLD, clip};

/// One line; docs/access-log.md says what each field means.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct AuditEntry {
    pub(super) time: String,
    audit: &'static str,
    decision: &'static str,
    mode: &'static str,
    policy: String,
    workload: String,
    workload_identity: String,
    source_identity: String,
    source_address: String,
    port: u16,
    method: String,
    authority: String,
    path: String,
}

impl AuditEntry {
    /// Whether somebody was refused something.
    pub(super) fn is_refusal(&self) -> bool {
        self.mode == "enforce" && self.decision == "deny"
    }

    /// How long the texts are that peers have the length of.
    pub(super) fn texts(&self) -> usize {
        self.method.len() + self.authority.len() + self.path.len()
    }

    /// Of a call to a workload, or to a Gateway.
    pub(super) fn new(workload: &Workload, address: &dyn Display, call: &CallFacts<'_>, word: PolicyWord<'_>) -> Self {
        let http = call.http.as_ref();
        let cut = |text: &str| clip(text, LONGEST_TOLD).to_owned();
        Self {
            time: String::new(),
            audit: "authorization",
            decision: word.said,
            mode: if word.enforced { "enforce" } else { "audit" },
            policy: word.policy.map(ToString::to_string).unwrap_or_default(),
            workload: format!("{}/{}", workload.namespace, workload.name),
            workload_identity: workload.identity.to_string(),
            source_identity: call.identity.map(ToString::to_string).unwrap_or_default(),
            source_address: address.to_string(),
            port: call.dst_port.get(),
            method: http.map(|http| cut(http.method.as_str())).unwrap_or_default(),
            authority: http.map(|http| cut(http.host)).unwrap_or_default(),
            path: http.map(|http| cut(http.path)).unwrap_or_default(),
        }
    }
}
