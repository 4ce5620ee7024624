//! The policies' word on a connection.

use weft_core::ids::Port;
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

/// Decides.
pub(super) fn decide(snapshot: &Snapshot, workload: &Workload, _peer: &Peer, _port: Port) -> Verdict {
    // Until policies can be evaluated, a workload that has one is closed.
    if snapshot.policies_for(workload).is_empty() { Verdict::Allow } else { Verdict::Deny(Reason::PolicyDenied) }
}
