//! May this connection reach the application? The only place where a [`Permit`] is made.
//!
//! Order matters: a connection is registered first and checked after, so that a policy that changes in between is seen
//! by one or the other. What can't be decided is refused.

mod decide;
pub(crate) mod gateway;
mod probe;
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
use weft_core::workload::{ProbeCall, Workload};

use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::store::Store;

use self::decide::{Call, Told, Verdict, decide, decide_blind, decide_request};
pub use self::probe::ProbeFacts;
pub(crate) use self::probe::has_any as has_probes;
use self::registry::Carries;
pub use self::registry::{Registration, Registry};

/// How long a connection or a request waits for the configuration that it is judged by.
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
    /// Decides about one request, as it will be forwarded, on the latest configuration. While a policy that the pod has is on
    /// its way, or has gone before the pod is told, the request waits for a moment, as a connection does.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub async fn authorize(
        &self,
        store: &Store,
        request: HttpFacts<'_>,
        facts: &ProbeFacts<'_>,
    ) -> Result<Permit, Reason> {
        match self.judge(store, request, facts) {
            Some(judged) => judged,
            None => {
                let judged = Box::pin(settled(store, || self.judge(store, request, facts))).await;
                judged.unwrap_or(Err(Reason::PolicyDenied))
            }
        }
    }

    /// `None` while not all of the pod's policies are here.
    fn judge(&self, store: &Store, request: HttpFacts<'_>, facts: &ProbeFacts<'_>) -> Option<Result<Permit, Reason>> {
        let snapshot = store.load();
        let Some(workload) = self.inbound.workload.pod.judged_as(&snapshot) else {
            return Some(Err(Reason::UnknownDestination));
        };
        let workload = &*workload;
        let probes = self.from_node().then(|| probe::declared(workload, self.port)).into_iter().flatten();
        let declared = probe::is_probe(probes, (request.method, request.path), facts);
        if !declared && let Some(refused) = refused_in_the_clear(&snapshot, workload, &self.inbound, self.port) {
            return Some(Err(self.no_probe(workload).unwrap_or(refused)));
        }
        let observer = self.registration.observer();
        let call = Call { peer: &self.inbound.peer, port: self.port, declared, told: observer.as_deref() };
        match decide_request(&snapshot, workload, call, request) {
            Verdict::Allow => {
                Some(Ok(Permit { inbound: self.inbound.clone(), registration: Rc::clone(&self.registration) }))
            }
            Verdict::Deny(reason) => Some(Err(self.no_probe(workload).filter(|_| !declared).unwrap_or(reason))),
            Verdict::PerRequest | Verdict::Probes => Some(Err(Reason::PolicyDenied)),
            Verdict::NotConfigured => None,
        }
    }

    /// Why a request was denied, for people: the policy that says so, or that none allows it.
    pub fn why_denied(&self, store: &Store, request: HttpFacts<'_>) -> String {
        let snapshot = store.load();
        let Some(workload) = self.inbound.workload.pod.judged_as(&snapshot) else { return String::new() };
        let call = Call { peer: &self.inbound.peer, port: self.port, declared: false, told: None };
        decide::why_denied(&snapshot, &workload, call, request)
    }

    /// Whether a request is decided by its body too.
    pub fn looks_at_body(&self, store: &Store, parts: &http::request::Parts) -> bool {
        let snapshot = store.load();
        let workload = self.inbound.workload.pod.judged_as(&snapshot).filter(|_| self.from_node());
        let is_grpc = |call: &ProbeCall| matches!(call, ProbeCall::Grpc { .. });
        parts.version == http::Version::HTTP_2
            && parts.uri.path() == probe::GRPC_CHECK
            && workload.is_some_and(|workload| probe::declared(&workload, self.port).any(is_grpc))
    }

    /// Whether the connection is one from the node's own address.
    pub fn from_node(&self) -> bool {
        matches!(self.inbound.peer.identity, PeerIdentity::Node)
    }

    /// The reason for whom it concerns: there are probes on this port, and the request is none of them.
    fn no_probe(&self, workload: &Workload) -> Option<Reason> {
        (self.from_node() && probe::has_any(workload, self.port)).then_some(Reason::NotAProbe)
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

/// The right of a connection from the node's own address to show that it is a probe.
#[derive(Debug)]
pub struct ProbePermit(HttpPermit);

impl ProbePermit {
    /// For a client that speaks TLS, whose bytes can't be looked at.
    ///
    /// # Errors
    /// The reason, unless the pod declares a probe over TLS on this port and no policy denies it.
    pub fn tls(self, store: &Store) -> Result<Permit, Reason> {
        let HttpPermit { inbound, port, registration } = self.0;
        let observer = registration.observer();
        tls_probe(store, &inbound, port, observer.as_deref())?;
        registration.carries(Carries::Tls);
        Ok(Permit { inbound, registration })
    }

    /// For a client that sends requests, each of which needs a permit of its own.
    ///
    /// # Errors
    /// The reason, where no request can get one: the pod declares none on this port, and no policy looks at them.
    pub fn requests(self, store: &Store) -> Result<HttpPermit, Reason> {
        let snapshot = store.load();
        let HttpPermit { inbound, port, .. } = &self.0;
        let workload = &*inbound.workload.pod.judged_as(&snapshot).ok_or(Reason::UnknownDestination)?;
        let is_request = |call: &ProbeCall| matches!(call, ProbeCall::Http { .. } | ProbeCall::Grpc { .. });
        let is_judged = || {
            let call = Call { peer: &inbound.peer, port: *port, declared: false, told: None };
            refused_in_the_clear(&snapshot, workload, inbound, *port).is_none()
                && decide(&snapshot, workload, call) == Verdict::PerRequest
        };
        if probe::declared(workload, *port).any(is_request) || is_judged() {
            Ok(self.0)
        } else {
            Err(Reason::NotAProbe)
        }
    }

    /// Ends when the permission does.
    pub fn registration(&self) -> &Registration {
        self.0.registration()
    }
}

/// What a connection may do.
#[derive(Debug)]
pub enum Granted {
    /// Bytes both ways.
    Bytes(Permit),
    /// A policy looks at requests.
    Http(HttpPermit),
    /// Only what the pod declares for the kubelet.
    Probe(ProbePermit),
}

/// Decides about an inbound connection on the latest configuration and keeps it registered while it is open.
///
/// # Errors
/// The reason of the refusal.
pub async fn inbound(store: &Store, registry: &Registry, inbound: Inbound) -> Result<Granted, Reason> {
    let port = application_port(&inbound)?;
    let registration = Rc::new(registry.register(&inbound));
    let observer = registry.observer();
    let judged = settled(store, || match judge(store, &inbound, port, observer.as_deref()) {
        Verdict::NotConfigured => None,
        verdict => Some(verdict),
    });
    match judged.await {
        Some(Verdict::Allow) => Ok(Granted::Bytes(Permit { inbound, registration })),
        Some(Verdict::PerRequest) => {
            registration.carries(Carries::Requests);
            Ok(Granted::Http(HttpPermit { inbound, port, registration }))
        }
        Some(Verdict::Probes) => {
            registration.carries(Carries::Requests);
            Ok(Granted::Probe(ProbePermit(HttpPermit { inbound, port, registration })))
        }
        Some(Verdict::Deny(reason)) => Err(reason),
        Some(Verdict::NotConfigured) | None => Err(Reason::UnknownDestination),
    }
}

/// What is decided once all that it depends on is here: `look` says `None` until then. `None`: it takes too long.
async fn settled<T>(store: &Store, look: impl Fn() -> Option<T>) -> Option<T> {
    let mut versions = store.subscribe();
    let deadline = tokio::time::Instant::now() + CONFIG_WAIT;
    loop {
        versions.borrow_and_update();
        if let Some(decided) = look() {
            return Some(decided);
        }
        match tokio::time::timeout_at(deadline, versions.changed()).await {
            Ok(Ok(())) => {}
            _ => return None,
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
    let Some(workload) = inbound.workload.pod.judged_as(&snapshot) else { return Verdict::NotConfigured };
    let workload = &*workload;
    let clear = refused_in_the_clear(&snapshot, workload, inbound, port);
    let call = Call { peer: &inbound.peer, port, declared: false, told };
    let probes = matches!(inbound.peer.identity, PeerIdentity::Node) && probe::has_any(workload, port);
    match clear {
        _ if probes => {}
        Some(refused) => return Verdict::Deny(refused),
        None => return decide(&snapshot, workload, call),
    }
    // What is said is said once: here about the connection, or later about each of its requests.
    let (quiet, declared) = (Call { told: None, ..call }, Call { declared: true, told: None, ..call });
    match (clear, decide(&snapshot, workload, quiet), decide(&snapshot, workload, declared)) {
        (_, Verdict::NotConfigured, _) => Verdict::NotConfigured,
        (None, Verdict::Allow, _) => decide(&snapshot, workload, call),
        (_, _, Verdict::Deny(_)) => decide(&snapshot, workload, Call { told, ..declared }),
        _ => Verdict::Probes,
    }
}

fn refused_in_the_clear(snapshot: &Snapshot, workload: &Workload, inbound: &Inbound, port: Port) -> Option<Reason> {
    let plaintext = matches!(inbound.peer.identity, PeerIdentity::Node | PeerIdentity::Unidentified);
    (plaintext && snapshot.mode_for(workload, port) == Mode::Strict).then_some(Reason::PlaintextRefused)
}

/// Whether a TLS connection may be a probe. Who declares none over TLS is refused, and so is everything where a policy
/// wants to see requests that it then matches without having seen them.
fn tls_probe(store: &Store, inbound: &Inbound, port: Port, told: Told<'_>) -> Result<(), Reason> {
    let snapshot = store.load();
    let workload = &*inbound.workload.pod.judged_as(&snapshot).ok_or(Reason::UnknownDestination)?;
    if !probe::declared(workload, port).any(|call| *call == ProbeCall::Https) {
        return Err(Reason::NotAProbe);
    }
    match decide_blind(&snapshot, workload, Call { peer: &inbound.peer, port, declared: true, told }) {
        Verdict::Allow => Ok(()),
        Verdict::Deny(reason) => Err(reason),
        Verdict::PerRequest | Verdict::Probes | Verdict::NotConfigured => Err(Reason::PolicyDenied),
    }
}

/// What the policy says now about a connection that is open: `None` while it may stay.
fn revoked(store: &Store, inbound: &Inbound, carries: Carries) -> Option<Reason> {
    let port = application_port(inbound).ok()?;
    match (judge(store, inbound, port, None), carries) {
        (Verdict::Allow, _) => None,
        // Each request is judged by itself.
        (Verdict::PerRequest | Verdict::Probes, Carries::Requests) => None,
        (Verdict::Probes, Carries::Tls) => tls_probe(store, inbound, port, None).err().map(|_| Reason::PolicyRevoked),
        // Its bytes are not looked at, so what the policy wants can't be done.
        (Verdict::PerRequest | Verdict::Probes, Carries::Bytes | Carries::Tls) => Some(Reason::PolicyRevoked),
        (Verdict::Deny(_), _) => Some(Reason::PolicyRevoked),
        // Parts of the configuration on their way: nothing was taken back.
        (Verdict::NotConfigured, _) => None,
    }
}
