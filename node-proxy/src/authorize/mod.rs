//! May this connection reach the application? The only place where a [`Permit`] is made.
//!
//! Order matters: a connection is registered first and checked after, so that a policy that changes in between is seen
//! by one or the other. What can't be decided is refused.

mod decide;
mod registry;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use weft_core::authorize::HttpFacts;
use weft_core::ids::Port;
use weft_core::inpod::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};
use weft_core::policy::Mode;
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;

use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::store::Store;

use self::decide::{Told, Verdict, decide, decide_request};
pub use self::registry::{Registration, Registry};

/// How long a connection waits for the configuration of its destination.
const CONFIG_WAIT: Duration = Duration::from_secs(1);

/// A connection to a local pod, before it is authorized.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The destination pod.
    pub workload: Rc<LocalWorkload>,
    /// Who calls.
    pub peer: Peer,
    /// The application's address, as the peer named it.
    pub destination: SocketAddr,
}

/// The right to connect one byte stream to an application.
#[derive(Debug)]
#[must_use = "a permit that is not used should not have been made"]
pub struct Permit {
    inbound: Inbound,
    registration: Rc<Registration>,
}

impl Permit {
    /// What was permitted.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// Ends when the permission does; keep it for as long as the stream is open.
    pub fn into_registration(self) -> Rc<Registration> {
        self.registration
    }
}

/// The right to parse a connection's requests, each of which needs a permit of its own.
#[derive(Debug)]
pub struct HttpPermit {
    inbound: Inbound,
    port: Port,
    registration: Rc<Registration>,
}

impl HttpPermit {
    /// Decides about one request, as it will be forwarded, on the latest configuration.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn authorize(&self, store: &Store, request: HttpFacts<'_>) -> Result<Permit, Reason> {
        let snapshot = store.load();
        let workload = self.inbound.workload.pod.configured(&snapshot).ok_or(Reason::UnknownDestination)?;
        if let Some(refused) = refused_in_the_clear(&snapshot, workload, &self.inbound, self.port) {
            return Err(refused);
        }
        let observer = self.registration.observer();
        let call = (&self.inbound.peer, self.port);
        match decide_request(&snapshot, workload, call, (request, observer.as_deref())) {
            Verdict::Allow => Ok(Permit { inbound: self.inbound.clone(), registration: Rc::clone(&self.registration) }),
            Verdict::Deny(reason) => Err(reason),
            Verdict::PerRequest | Verdict::NotConfigured => Err(Reason::PolicyDenied),
        }
    }

    /// What was permitted.
    pub fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    /// Ends when no request of the connection can be permitted any more.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }
}

/// What a connection may do.
#[derive(Debug)]
pub enum Granted {
    /// Bytes both ways.
    Bytes(Permit),
    /// A policy looks at requests.
    Http(HttpPermit),
}

/// Decides about an inbound connection on the latest configuration and keeps it registered while it is open.
///
/// # Errors
/// The reason of the refusal.
pub async fn inbound(store: &Store, registry: &Registry, inbound: Inbound) -> Result<Granted, Reason> {
    let port = application_port(&inbound)?;
    let registration = Rc::new(registry.register(&inbound));
    let observer = registry.observer();
    let mut versions = store.subscribe();
    let deadline = tokio::time::Instant::now() + CONFIG_WAIT;
    loop {
        versions.borrow_and_update();
        match judge(store, &inbound, port, observer.as_deref()) {
            Verdict::Allow => return Ok(Granted::Bytes(Permit { inbound, registration })),
            Verdict::PerRequest => {
                registration.per_request();
                return Ok(Granted::Http(HttpPermit { inbound, port, registration }));
            }
            Verdict::Deny(reason) => return Err(reason),
            Verdict::NotConfigured => {}
        }
        match tokio::time::timeout_at(deadline, versions.changed()).await {
            Ok(Ok(())) => {}
            _ => return Err(Reason::UnknownDestination),
        }
    }
}

/// The port of the application, if the destination is one: an address of this pod, and none of the proxy's own ports.
fn application_port(inbound: &Inbound) -> Result<Port, Reason> {
    let destination = inbound.destination;
    if !inbound.workload.pod.has_address(destination.ip()) {
        return Err(Reason::UnknownDestination);
    }
    match destination.port() {
        OUTBOUND_PORT | INBOUND_PLAINTEXT_PORT | HBONE_PORT => Err(Reason::Loop),
        port => Port::new(port).ok_or(Reason::UnknownDestination),
    }
}

fn judge(store: &Store, inbound: &Inbound, port: Port, told: Told<'_>) -> Verdict {
    let snapshot = store.load();
    let Some(workload) = inbound.workload.pod.configured(&snapshot) else { return Verdict::NotConfigured };
    if let Some(refused) = refused_in_the_clear(&snapshot, workload, inbound, port) {
        return Verdict::Deny(refused);
    }
    decide(&snapshot, workload, (&inbound.peer, port), told)
}

fn refused_in_the_clear(snapshot: &Snapshot, workload: &Workload, inbound: &Inbound, port: Port) -> Option<Reason> {
    let plaintext = matches!(inbound.peer.identity, PeerIdentity::Unidentified);
    (plaintext && snapshot.mode_for(workload, port) == Mode::Strict).then_some(Reason::PlaintextRefused)
}

/// What the policy says now about a connection that is open: `None` while it may stay.
fn revoked(store: &Store, inbound: &Inbound, per_request: bool) -> Option<Reason> {
    let port = application_port(inbound).ok()?;
    match judge(store, inbound, port, None) {
        Verdict::Allow => None,
        // Its bytes are not looked at, so what the policy wants can't be done.
        Verdict::PerRequest => (!per_request).then_some(Reason::PolicyRevoked),
        Verdict::Deny(_) => Some(Reason::PolicyRevoked),
        // Parts of the configuration on their way: nothing was taken back.
        Verdict::NotConfigured => None,
    }
}
