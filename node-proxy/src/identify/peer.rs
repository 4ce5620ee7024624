//! The other end of an inbound connection.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_core::identity::SpiffeId;
use weft_tls::PeerInfo;

/// Who is at the other end of an inbound connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Proven identity, or why there is none.
    pub identity: PeerIdentity,
    /// The connection's own source address; port 0 when the connection is in memory.
    pub address: SocketAddr,
}

/// The identity of a peer.
#[derive(Clone, Debug)]
pub enum PeerIdentity {
    /// By the certificate of a tunnel.
    Certificate(Arc<PeerInfo>),
    /// A pod of this node, whose connection we accepted inside its own namespace.
    FirstHand(SpiffeId),
    /// Plaintext from an address of this node: the kubelet with its probes, or whoever else has the node's address.
    Node,
    /// Plaintext: nobody vouches for the peer.
    Unidentified,
}

impl PeerIdentity {
    /// The identity, if there is one.
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        match self {
            Self::Certificate(peer) => Some(peer.identity()),
            Self::FirstHand(id) => Some(id),
            Self::Node | Self::Unidentified => None,
        }
    }

    /// How the connection came, as logs and metrics name it.
    pub const fn transport(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "hbone",
            Self::FirstHand(_) => "local",
            Self::Node => "node",
            Self::Unidentified => "plaintext",
        }
    }
}
