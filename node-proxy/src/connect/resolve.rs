//! How to get to an endpoint: a pure function of the snapshot.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_core::ids::NodeName;
use weft_core::snapshot::{Address, EndpointEntry, Snapshot};
use weft_core::workload::{Enrolment, Workload};

use super::{Target, Transport};

/// Where a client stands, as far as its way to an endpoint depends on that.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its node.
    pub node: &'a NodeName,
    /// Whether a NetworkPolicy selects it, or may: then nothing of it is handed over in memory.
    pub network_policy: bool,
}

/// How a client gets to an endpoint. A slice may be older than the pods: the workload that has the address now is the one
/// that counts.
pub fn resolve(snapshot: &Snapshot, entry: &EndpointEntry, client: Standing<'_>) -> Target {
    if let Some(workload) = snapshot.workload_at(entry.address.ip()) {
        return to_workload(snapshot, workload, entry.address, client);
    }
    let named = entry.workload.as_ref().map(|uid| snapshot.workload(uid));
    let host_network = matches!(named, Some(Some(w)) if w.enrolment == Enrolment::HostNetwork);
    let transport = match snapshot.address(entry.address.ip()) {
        Address::Outside if named.is_none() => Transport::Plain,
        _ if host_network => Transport::Plain,
        _ => Transport::Unknown,
    };
    Target { address: entry.address, transport, workload: named.flatten().cloned(), tls: None, proxy: None }
}

/// How a client gets to a workload's own address.
pub(crate) fn to_workload(
    snapshot: &Snapshot,
    workload: &Arc<Workload>,
    address: SocketAddr,
    client: Standing<'_>,
) -> Target {
    let in_memory = workload.node == *client.node
        && !snapshot.mesh().force_wire
        && !workload.network_policy
        && !client.network_policy;
    let transport = match workload.enrolment {
        Enrolment::Enrolled if in_memory => Transport::Local { uid: workload.uid.clone() },
        Enrolment::Enrolled => Transport::Hbone { expected: workload.identity.clone() },
        Enrolment::Outside | Enrolment::HostNetwork => Transport::Plain,
    };
    Target { address, transport, workload: Some(Arc::clone(workload)), tls: None, proxy: None }
}
