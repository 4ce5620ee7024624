//! Tunnels to other pods' proxies: who dials whom, from where, with which certificate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use weft_core::identity::SpiffeId;
use weft_core::inpod::HBONE_PORT;
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_hbone::{Connector, DialError, DialFailure, OpenError, OpenRequest, Pool, TunnelStream};
use weft_tls::{CertStore, ExpectedPeer, HandshakeError, PeerInfo, PeerRefused, TlsStream};

use super::ConnectError;
use crate::identify::LocalWorkload;
use crate::observe::{Handshake, HandshakeRole, Observer};
use crate::worker::{Node, Pods, Turns};
use weft_core::ids::SandboxId;

/// How long a dial waits for the client pod's first certificate.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(2);

/// Who dials whom: streams of different keys never share a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// The client pod.
    pub client: SandboxId,
    /// The proxy's listener in the server pod.
    pub server: SocketAddr,
    /// The identity that the server must prove.
    pub expected: SpiffeId,
}

impl TunnelKey {
    /// Whether no workload has the server's address and account any more. Its trust domain may have another name by now.
    fn is_gone(&self, snapshot: &Snapshot) -> bool {
        let SpiffeId { namespace, service_account, .. } = &self.expected;
        let is_it = |now: &SpiffeId| now.namespace == *namespace && now.service_account == *service_account;
        !snapshot.workload_at(self.server.ip()).is_some_and(|workload| is_it(&workload.identity))
    }
}

/// The tunnels of one worker.
#[derive(Clone)]
pub struct Tunnels(Pool<TunnelKey, PodConnector>, Peers);

/// Who proved to be at the other end, by the serial number of the certificate.
type Peers = Rc<RefCell<HashMap<TunnelKey, Vec<PeerInfo>>>>;

impl Tunnels {
    /// No tunnels yet.
    pub fn new(node: Arc<Node>, pods: Rc<Pods>, observer: Rc<dyn Observer>, turns: Rc<Turns>) -> Self {
        let limits = node.limits.tunnel;
        let peers = Peers::default();
        Self(Pool::new(PodConnector { node, pods, observer, turns, peers: Rc::clone(&peers) }, limits), peers)
    }

    /// Opens a stream to an application through a tunnel from `source`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(
        &self,
        source: &LocalWorkload,
        application: SocketAddr,
        expected: &SpiffeId,
    ) -> Result<TunnelStream, ConnectError> {
        let key = TunnelKey {
            client: source.pod.sandbox.clone(),
            server: SocketAddr::new(application.ip(), HBONE_PORT),
            expected: expected.clone(),
        };
        let opened = self.0.open(&key, &OpenRequest::new(application)).await;
        opened.map_err(|error| connect_error(error, application, &key, source.identity()))
    }

    /// The pool, for gauges.
    pub fn stats(&self) -> weft_hbone::pool::PoolStats {
        self.0.stats()
    }

    /// The roots have changed: what a peer proved with one that is gone ends, and the other tunnels, which were verified
    /// with older roots, take no new streams.
    pub fn recheck_trust(&self, certificates: &CertStore) {
        let refused = |peer: &PeerInfo| peer.recheck(certificates.trust(), certificates.clock()).is_err();
        let peers = self.1.borrow();
        let untrusted = |key: &TunnelKey| peers.get(key).is_some_and(|known| known.iter().any(refused));
        let killed = self.0.kill(untrusted);
        if killed > 0 {
            tracing::info!(tunnels = killed, "tunnels ended: their peers are no longer trusted");
        }
        self.0.evict(|_| true);
        drop(peers);
        self.forget_peers();
    }

    /// Forgets who was at the other end of tunnels that are gone.
    pub fn forget_peers(&self) {
        self.1.borrow_mut().retain(|key, _| self.0.knows(key));
    }

    /// No new streams on the tunnels of a pod that stand now.
    pub fn renew_pod(&self, sandbox: &SandboxId) {
        self.0.evict(|key| key.client == *sandbox);
    }

    /// Pods that are gone answer nothing, and their networks, gone with them, don't say so: what waits for one of them is ended. Dials
    /// at once, tunnels when a PING is not answered either.
    pub fn doubt_gone(&self, snapshot: &Snapshot) {
        self.0.doubt(|key| key.is_gone(snapshot));
    }

    /// Ends the tunnels of a pod that is gone.
    pub fn forget_pod(&self, sandbox: &SandboxId) {
        self.0.kill(|key| key.client == *sandbox);
    }
}

/// Dials inside the client pod's namespace, so that the source address comes from the kernel.
struct PodConnector {
    node: Arc<Node>,
    pods: Rc<Pods>,
    observer: Rc<dyn Observer>,
    turns: Rc<Turns>,
    peers: Peers,
}

impl PodConnector {
    /// Who dials may go by an older snapshot. A server that goes later is told by [`Tunnels::doubt_gone`].
    fn is_there(&self, key: &TunnelKey) -> Result<(), DialError> {
        let gone = key.is_gone(&self.node.store.load());
        if gone {
            Err(DialError::new(DialFailure::Unreachable, "no workload has this address any more"))
        } else {
            Ok(())
        }
    }

    fn remember(&self, key: &TunnelKey, peer: PeerInfo) {
        let mut peers = self.peers.borrow_mut();
        let known = peers.entry(key.clone()).or_default();
        if !known.iter().any(|other| other.serial() == peer.serial()) {
            known.push(peer);
        }
    }

    fn shaken(&self, client: &LocalWorkload, handshake: Handshake) {
        let workload = client.workload(&self.node.store.load());
        self.observer.handshake(&workload, handshake);
    }
}

impl Connector<TunnelKey> for PodConnector {
    type Io = TlsStream<TcpStream>;

    async fn connect(&self, key: &TunnelKey) -> Result<Self::Io, DialError> {
        let Some(client) = self.pods.by_sandbox(&key.client) else {
            return Err(DialError::new(DialFailure::Io, format_args!("pod {} has left this node", key.client)));
        };
        self.is_there(key)?;
        let pod = &client.pod;
        let ready = pod.lease.ready(CERTIFICATE_WAIT).await;
        ready.map_err(|error| {
            self.shaken(&client, failed(Reason::NoCertificate, Duration::ZERO));
            DialError::new(DialFailure::NoCertificate, error)
        })?;
        let outgoing = pod.net.outgoing(None, key.server)?;
        let tcp = outgoing.socket.connect(outgoing.to).await?;
        let expected = ExpectedPeer::one(key.expected.clone());
        let client_tls = pod.lease.client();
        let began = Instant::now();
        let shaken = Box::pin(self.turns.take(client_tls.connect(tcp, key.server.ip(), &expected))).await;
        let (tls, peer) = shaken.map_err(|error| {
            self.shaken(&client, failed(handshake_reason(&error), began.elapsed()));
            DialError::new(dial_failure(&error), format_args!("{} -> {}: {error}", pod.identity, key.server))
        })?;
        let (took, version, cipher) = (began.elapsed(), peer.version(), peer.cipher());
        self.shaken(&client, Handshake { role: HandshakeRole::Client, result: Reason::Ok, took, version, cipher });
        self.remember(key, peer);
        Ok(tls)
    }
}

fn failed(reason: Reason, took: Duration) -> Handshake {
    Handshake::failed(HandshakeRole::Client, reason, took)
}

/// The code for metrics.
pub(crate) fn handshake_reason(error: &HandshakeError) -> Reason {
    match error {
        HandshakeError::NoCertificate(_) => Reason::NoCertificate,
        HandshakeError::Peer(PeerRefused::Expired { .. }) => Reason::CertificateExpired,
        HandshakeError::Peer(_) => Reason::PeerIdentity,
        HandshakeError::Timeout(_) => Reason::ConnectTimeout,
        _ => Reason::TlsHandshake,
    }
}

fn dial_failure(error: &HandshakeError) -> DialFailure {
    match error {
        HandshakeError::NoCertificate(_) => DialFailure::NoCertificate,
        HandshakeError::Peer(PeerRefused::Expired { .. }) => DialFailure::Expired,
        HandshakeError::Peer(_) => DialFailure::Identity,
        HandshakeError::Timeout(_) => DialFailure::TimedOut,
        HandshakeError::Io(_) => DialFailure::Io,
        _ => DialFailure::Tls,
    }
}

fn connect_error(error: OpenError, to: SocketAddr, key: &TunnelKey, client: &SpiffeId) -> ConnectError {
    match error {
        OpenError::Dial(dial) => {
            tracing::debug!(client = %client, server = %key.server, expected = %key.expected, "no tunnel: {dial}");
            match dial.failure() {
                DialFailure::TimedOut => ConnectError::Timeout { to: key.server },
                DialFailure::Identity => ConnectError::PeerIdentity { to: key.server, expected: key.expected.clone() },
                DialFailure::Expired => ConnectError::PeerExpired { to: key.server },
                DialFailure::NoCertificate => ConnectError::NoCertificate { identity: client.clone() },
                DialFailure::Exhausted => ConnectError::NodeExhausted,
                DialFailure::Refused => {
                    ConnectError::Tcp { to: key.server, kind: std::io::ErrorKind::ConnectionRefused }
                }
                DialFailure::Unreachable => {
                    ConnectError::Tcp { to: key.server, kind: std::io::ErrorKind::HostUnreachable }
                }
                DialFailure::Io => ConnectError::Tcp { to: key.server, kind: std::io::ErrorKind::Other },
                DialFailure::Tls | DialFailure::Http2 => {
                    ConnectError::Handshake { to: key.server, detail: dial.to_string() }
                }
            }
        }
        OpenError::Refused { status, .. } if matches!(status.as_u16(), 401 | 403) => ConnectError::Denied { to },
        OpenError::Refused { status, reason } => {
            let reason = reason.and_then(|code| Reason::of_code(&code)).filter(|reason| *reason != Reason::Ok);
            ConnectError::Refused { to, status: status.as_u16(), reason }
        }
        OpenError::TimedOut => ConnectError::Timeout { to },
        OpenError::Draining => ConnectError::Draining,
        OpenError::GoAway | OpenError::Reset(_) | OpenError::Broken => ConnectError::TunnelReset { to },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use weft_core::change::{Change, Resource};
    use weft_core::workload::Workload;

    use crate::balance::tests::workload;

    #[test]
    fn a_certificate_that_has_expired_is_told_from_one_of_somebody_else() {
        let expired = HandshakeError::Peer(PeerRefused::Expired { not_after: 1, now: 2 });
        assert_eq!(handshake_reason(&expired), Reason::CertificateExpired);
        assert_eq!(dial_failure(&expired), DialFailure::Expired);
        assert_eq!(handshake_reason(&HandshakeError::Peer(PeerRefused::UnknownRoot)), Reason::PeerIdentity);
    }

    #[test]
    fn what_a_peer_gives_as_its_reason_is_taken_if_it_is_one() {
        let to: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let identity = SpiffeId::new(weft_core::identity::TrustDomain::default(), "shop", "cart");
        let key = TunnelKey { client: "s".into(), server: to, expected: identity.clone() };
        let reason = |status: u16, code: Option<&str>| {
            let status = StatusCode::from_u16(status).unwrap();
            let error = OpenError::Refused { status, reason: code.map(ToOwned::to_owned) };
            connect_error(error, to, &key, &identity).reason()
        };
        assert_eq!(reason(503, Some("connect_failed")), Reason::ConnectFailed);
        assert_eq!(reason(429, Some("limit_connections")), Reason::LimitConnections);
        for nothing in [None, Some("ok"), Some("x"), Some("")] {
            assert_eq!(reason(503, nothing), Reason::TunnelRefused, "{nothing:?}");
        }
        assert_eq!(reason(401, Some("connect_failed")), Reason::PolicyDenied);
    }

    #[test]
    fn a_server_is_gone_when_nobody_of_its_account_has_its_address() {
        let identity = |text: &str| text.parse::<SpiffeId>().unwrap();
        let key = TunnelKey {
            client: "s".into(),
            server: "10.0.0.9:15008".parse().unwrap(),
            expected: identity("spiffe://cluster.local/ns/shop/sa/web"),
        };
        let with = |who: &str| {
            let workload = Workload { identity: identity(who), ..workload("n1", None) };
            Snapshot::default().apply(&[Change::Upsert(Resource::Workload(Arc::new(workload)))])
        };
        assert!(!key.is_gone(&with("spiffe://cluster.local/ns/shop/sa/web")));
        assert!(!key.is_gone(&with("spiffe://renamed.example/ns/shop/sa/web")), "the mesh has another name now");
        assert!(key.is_gone(&with("spiffe://cluster.local/ns/shop/sa/cart")));
        assert!(key.is_gone(&with("spiffe://cluster.local/ns/other/sa/web")));
        assert!(key.is_gone(&Snapshot::default()));
    }
}
