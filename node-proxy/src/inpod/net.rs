//! A pod's network namespace as the data plane uses it.
//!
//! A trait, so that the in-process tests run pods on loopback addresses of one namespace.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};
use weft_core::inpod::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};

/// What arrives at one of the listeners inside a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerRole {
    /// TCP that leaves the pod, redirected.
    Outbound,
    /// Plaintext TCP that enters the pod, redirected.
    InboundPlaintext,
    /// Tunnels.
    Hbone,
}

impl ListenerRole {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::InboundPlaintext, Self::Hbone];

    /// The port it listens on inside the pod.
    pub const fn port(self) -> u16 {
        match self {
            Self::Outbound => OUTBOUND_PORT,
            Self::InboundPlaintext => INBOUND_PLAINTEXT_PORT,
            Self::Hbone => HBONE_PORT,
        }
    }

    /// As logs and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::InboundPlaintext => "inbound_plaintext",
            Self::Hbone => "inbound_hbone",
        }
    }
}

/// A socket made inside the pod, marked and bound, and the address to connect it to.
#[derive(Debug)]
pub struct Outgoing {
    /// Not connected yet.
    pub socket: TcpSocket,
    /// Where to.
    pub to: SocketAddr,
}

/// Sockets inside one pod's network namespace.
pub trait PodNet: Send + Sync + fmt::Debug {
    /// Opens the listening sockets of a role: one for each address family that the pod has.
    ///
    /// # Errors
    /// What the kernel says; when neither family can be bound.
    fn listen(&self, role: ListenerRole) -> io::Result<Vec<std::net::TcpListener>>;

    /// The namespace, to hand it to a successor; `None` if there is none of its own.
    fn netns(&self) -> Option<&weft_sys::Netns> {
        None
    }

    /// Whether what it opens may carry the pod's identity into the mesh.
    fn in_mesh(&self) -> bool {
        true
    }

    /// Where a connection that was redirected to us was going.
    ///
    /// # Errors
    /// When the kernel does not know the connection.
    fn original_destination(&self, stream: &TcpStream) -> io::Result<SocketAddr>;

    /// A socket to connect to `to` with, bound to `source` if there is one; a source that is not the pod's own
    /// address is borrowed (transparent). The kernel picks the port.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` when `source` is of another family than `to`.
    fn outgoing(&self, source: Option<IpAddr>, to: SocketAddr) -> io::Result<Outgoing>;
}
