//! The policies' word on a connection or request.

use std::sync::Arc;

use weft_core::authorize::{Audited, CallFacts, Decision, DenyCause, HttpFacts, Outcome, evaluate};
use weft_core::ids::Port;
use weft_core::policy::{AuthorizationPolicy, Operation};
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;

use crate::identify::Peer;
use crate::observe::{Observer, PolicyWord};

/// Who hears what policies said; nobody when an open connection is looked at again.
pub(super) type Told<'a> = Option<&'a dyn Observer>;

/// The policies' word on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Bytes may flow.
    Allow,
    /// It depends on the requests.
    PerRequest,
    /// No.
    Deny(Reason),
    /// Of the node's own address: what the pod declares for the kubelet, and it depends on what comes.
    Probes,
    /// Not all of the configuration is there yet.
    NotConfigured,
}

/// Who calls where, on which terms, and who hears of the decision.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) peer: &'a Peer,
    pub(super) port: Port,
    /// A probe that the pod declares needs no ALLOW policy, as for a NetworkPolicy: probes would fail with the first
    /// policy that names callers. A DENY policy that matches holds for it too.
    pub(super) declared: bool,
    pub(super) told: Told<'a>,
}

/// Decides about a connection to a port of the application.
pub(super) fn decide(snapshot: &Snapshot, workload: &Workload, call: Call<'_>) -> Verdict {
    let policies = snapshot.policies_for(workload);
    if !snapshot.has_policies_of(workload) {
        return Verdict::NotConfigured;
    }
    if policies.is_empty() {
        return Verdict::Allow;
    }
    if needs_http(&policies, call.port) {
        return Verdict::PerRequest;
    }
    evaluated((snapshot, &policies), workload, call, None)
}

/// Decides about a connection whose bytes nobody looks at: what asks for a look at requests fails closed.
pub(super) fn decide_blind(snapshot: &Snapshot, workload: &Workload, call: Call<'_>) -> Verdict {
    if !snapshot.has_policies_of(workload) {
        return Verdict::NotConfigured;
    }
    evaluated((snapshot, &snapshot.policies_for(workload)), workload, call, None)
}

/// Decides about one request.
pub(super) fn decide_request(snapshot: &Snapshot, workload: &Workload, call: Call<'_>, http: HttpFacts<'_>) -> Verdict {
    if !snapshot.has_policies_of(workload) {
        return Verdict::NotConfigured;
    }
    evaluated((snapshot, &snapshot.policies_for(workload)), workload, call, Some(http))
}

/// Why a request is denied, for people; empty if it is not, by now.
pub(super) fn why_denied(snapshot: &Snapshot, workload: &Workload, call: Call<'_>, http: HttpFacts<'_>) -> String {
    if !snapshot.has_policies_of(workload) {
        return "not all AuthorizationPolicies of the pod are known".to_owned();
    }
    let facts = CallFacts {
        identity: call.peer.identity.spiffe(),
        trust_domains: &snapshot.mesh().trust_domains,
        peer_ip: call.peer.address.ip(),
        dst_port: call.port,
        http: Some(http),
    };
    match evaluate(&snapshot.policies_for(workload), &facts).decision {
        Decision::Deny(DenyCause::Policy(policy)) => format!("AuthorizationPolicy {policy}"),
        Decision::Deny(DenyCause::NoAllowMatched) => "no AuthorizationPolicy of action ALLOW matched".to_owned(),
        Decision::Allow { .. } => String::new(),
    }
}

fn evaluated(
    (snapshot, policies): (&Snapshot, &[Arc<AuthorizationPolicy>]),
    workload: &Workload,
    Call { peer, port, declared, told }: Call<'_>,
    http: Option<HttpFacts<'_>>,
) -> Verdict {
    let facts = CallFacts {
        identity: peer.identity.spiffe(),
        trust_domains: &snapshot.mesh().trust_domains,
        peer_ip: peer.address.ip(),
        dst_port: port,
        http,
    };
    let verdict = evaluate(policies, &facts);
    let said = decided(&verdict.decision, declared);
    if let Some(observer) = told {
        report(observer, (workload, &peer.address), &facts, &verdict.audits);
        if !policies.is_empty() {
            observer.decided(workload, said);
        }
        if said.said != ALLOW {
            observer.audited(workload, &peer.address, &facts, said);
        }
    }
    if said.said == ALLOW {
        return Verdict::Allow;
    }
    tracing::debug!(workload = %workload.uid, policy = ?said.policy, peer = ?facts.identity, address = %peer.address,
        port = %facts.dst_port, "denied by policy");
    Verdict::Deny(Reason::PolicyDenied)
}

/// Tells what policies have to say that decide nothing.
pub(super) fn report(
    observer: &dyn Observer,
    (workload, address): (&Workload, &dyn std::fmt::Display),
    facts: &CallFacts<'_>,
    audits: &[Audited<'_>],
) {
    for audited in audits {
        let said = match audited.outcome {
            Outcome::Matched => "matched",
            Outcome::WouldAllow => "would_allow",
            Outcome::WouldDeny => "would_deny",
        };
        let word = PolicyWord { policy: Some(audited.policy), said, enforced: false };
        observer.decided(workload, word);
        observer.audited(workload, address, facts, word);
    }
}

pub(super) const ALLOW: &str = "allow";

pub(super) fn decided<'a>(decision: &Decision<'a>, declared: bool) -> PolicyWord<'a> {
    let (policy, said) = match *decision {
        Decision::Allow { by } => (by, ALLOW),
        Decision::Deny(DenyCause::NoAllowMatched) if declared => (None, ALLOW),
        Decision::Deny(DenyCause::NoAllowMatched) => (None, "deny"),
        Decision::Deny(DenyCause::Policy(policy)) => (Some(policy), "deny"),
    };
    PolicyWord { policy, said, enforced: true }
}

/// Whether one of the policies looks at requests on this port.
fn needs_http(policies: &[Arc<AuthorizationPolicy>], port: Port) -> bool {
    let on_port = |operation: &Operation| {
        (operation.ports.is_empty() || operation.ports.contains(&port)) && !operation.not_ports.contains(&port)
    };
    let mut operations = policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.to);
    operations.any(|operation| operation.needs_http() && on_port(operation))
}
