//! What becomes of a connection that a pod opens: a pure function of the snapshot and the facts.
//!
//! Nothing here waits for a byte: whether HTTP is parsed follows from the Service's declaration and its routes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::ids::{Port, ServicePortKey};
use crate::inpod::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};
use crate::matching::{HttpTable, L4Table};
use crate::reason::Reason;
use crate::service::Service;
use crate::snapshot::{Address, Frontend, RouteSet, Snapshot};
use crate::workload::{Enrolment, Workload};

/// What is known when a pod's connection was intercepted.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// The pod, known from the network namespace that the connection came from.
    pub client: &'a Workload,
    /// What it dialled.
    pub destination: SocketAddr,
}

/// What to do with the connection.
#[derive(Clone, Debug)]
pub enum ConnectionPlan {
    /// Parse HTTP and route each request; without a table each goes to the frontend's own endpoints.
    Http {
        /// What was dialled.
        frontend: Arc<Frontend>,
        /// The routes for this client.
        table: Option<Arc<HttpTable>>,
    },
    /// Route by the name in the TLS ClientHello, then relay.
    Tls {
        /// What was dialled.
        frontend: Arc<Frontend>,
        /// The routes for this client.
        table: Arc<L4Table>,
    },
    /// Relay bytes at once; without a table to the frontend's own endpoints.
    Tcp {
        /// What was dialled.
        frontend: Arc<Frontend>,
        /// The routes for this client.
        table: Option<Arc<L4Table>>,
    },
    /// An enrolled workload's own address: relay through a tunnel to it.
    Workload {
        /// The workload.
        workload: Arc<Workload>,
        /// Its address and port.
        destination: SocketAddr,
    },
    /// Not ours: relay unchanged to where it was going.
    Passthrough {
        /// Where it was going.
        destination: SocketAddr,
        /// Why it is not ours.
        why: PassthroughReason,
    },
    /// Inside the cluster, but no configuration names it yet: wait a little, then refuse.
    AwaitConfig,
    /// Refuse.
    Refuse(Reason),
}

/// Why a connection is not the mesh's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassthroughReason {
    /// An address outside the cluster.
    Outside,
    /// A workload that is not enrolled.
    NotEnrolled,
}

impl PassthroughReason {
    /// The code for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::NotEnrolled => "not_enrolled",
        }
    }
}

/// Decides; see the module.
pub fn plan_connection(snapshot: &Snapshot, facts: &ConnectionFacts<'_>) -> ConnectionPlan {
    let destination = SocketAddr::new(canonical(facts.destination.ip()), facts.destination.port());
    match snapshot.address(destination.ip()) {
        Address::Service(service) => plan_service(snapshot, service, facts, destination.port()),
        Address::Workload(workload) => plan_workload(workload, destination),
        Address::InCluster => ConnectionPlan::AwaitConfig,
        Address::Outside => ConnectionPlan::Passthrough { destination, why: PassthroughReason::Outside },
    }
}

/// An IPv4 address in IPv6 clothes is the IPv4 address.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn plan_service(snapshot: &Snapshot, service: &Service, facts: &ConnectionFacts<'_>, port: u16) -> ConnectionPlan {
    let key = Port::new(port).map(|port| ServicePortKey { service: service.key.clone(), port });
    let Some(frontend) = key.and_then(|key| snapshot.frontend(&key)) else {
        return ConnectionPlan::Refuse(Reason::UnknownPort);
    };
    let frontend = Arc::clone(frontend);
    match frontend.routes_for(&facts.client.namespace).clone() {
        RouteSet::Http(table) => ConnectionPlan::Http { frontend, table: Some(table) },
        RouteSet::Tls(table) => ConnectionPlan::Tls { frontend, table },
        RouteSet::Tcp(table) => ConnectionPlan::Tcp { frontend, table: Some(table) },
        // Routes of datagrams say nothing of a connection.
        RouteSet::None | RouteSet::Udp(_) if frontend.protocol.is_http() => {
            ConnectionPlan::Http { frontend, table: None }
        }
        RouteSet::None | RouteSet::Udp(_) => ConnectionPlan::Tcp { frontend, table: None },
    }
}

fn plan_workload(workload: &Arc<Workload>, destination: SocketAddr) -> ConnectionPlan {
    match workload.enrolment {
        // The proxy's own ports are nobody's destination: a connection there would come back to us.
        Enrolment::Enrolled if matches!(destination.port(), OUTBOUND_PORT | INBOUND_PLAINTEXT_PORT | HBONE_PORT) => {
            ConnectionPlan::Refuse(Reason::Loop)
        }
        Enrolment::Enrolled => ConnectionPlan::Workload { workload: Arc::clone(workload), destination },
        Enrolment::Outside | Enrolment::HostNetwork => {
            ConnectionPlan::Passthrough { destination, why: PassthroughReason::NotEnrolled }
        }
    }
}
