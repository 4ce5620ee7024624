//! The policies' word on a connection or request.

use std::sync::Arc;

use weft_core::authorize::{CallFacts, Decision, HttpFacts, evaluate};
use weft_core::ids::Port;
use weft_core::policy::{AuthorizationPolicy, Operation};
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;

use crate::identify::Peer;

/// The policies' word on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Bytes may flow.
    Allow,
    /// It depends on the requests.
    PerRequest,
    /// No.
    Deny(Reason),
    /// Not all of the configuration is there yet.
    NotConfigured,
}

/// Decides about a connection to a port of the application.
pub(super) fn decide(snapshot: &Snapshot, workload: &Workload, peer: &Peer, port: Port) -> Verdict {
    let policies = snapshot.policies_for(workload);
    if !snapshot.has_policies_of(workload) {
        return Verdict::NotConfigured;
    }
    if policies.is_empty() {
        return Verdict::Allow;
    }
    if needs_http(&policies, port) {
        return Verdict::PerRequest;
    }
    call(&policies, workload, peer, port, None)
}

/// Decides about one request.
pub(super) fn decide_request(
    snapshot: &Snapshot,
    workload: &Workload,
    peer: &Peer,
    port: Port,
    http: HttpFacts<'_>,
) -> Verdict {
    if !snapshot.has_policies_of(workload) {
        return Verdict::NotConfigured;
    }
    call(&snapshot.policies_for(workload), workload, peer, port, Some(http))
}

fn call(
    policies: &[Arc<AuthorizationPolicy>],
    workload: &Workload,
    peer: &Peer,
    dst_port: Port,
    http: Option<HttpFacts<'_>>,
) -> Verdict {
    let facts = CallFacts { identity: peer.identity.spiffe(), peer_ip: peer.address.ip(), dst_port, http };
    let verdict = evaluate(policies, &facts);
    for audited in &verdict.audits {
        tracing::info!(workload = %workload.uid, policy = %audited.policy, outcome = ?audited.outcome,
            peer = ?peer.identity.spiffe(), address = %peer.address, port = %dst_port, "policy audit");
    }
    match verdict.decision {
        Decision::Allow { .. } => Verdict::Allow,
        Decision::Deny(cause) => {
            tracing::debug!(workload = %workload.uid, ?cause, peer = ?peer.identity.spiffe(), address = %peer.address,
                port = %dst_port, "denied by policy");
            Verdict::Deny(Reason::PolicyDenied)
        }
    }
}

/// Whether one of the policies looks at requests on this port.
fn needs_http(policies: &[Arc<AuthorizationPolicy>], port: Port) -> bool {
    let on_port = |operation: &Operation| {
        (operation.ports.is_empty() || operation.ports.contains(&port)) && !operation.not_ports.contains(&port)
    };
    let mut operations = policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.to);
    operations.any(|operation| operation.needs_http() && on_port(operation))
}
