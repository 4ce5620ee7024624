//! Why a stream to an endpoint could not be had.

use std::net::SocketAddr;

use weft_core::identity::SpiffeId;
use weft_core::ids::{ServicePortKey, WorkloadUid};
use weft_core::reason::Reason;

/// Whether trying another endpoint can do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not a byte of the application was sent: another endpoint may be tried at once.
    NeverSent,
    /// Another endpoint would answer the same: the fault is ours or the client's.
    Pointless,
}

/// Why a stream to an endpoint could not be had. Nothing of the application was sent in any of these cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// TCP was refused, reset or unreachable.
    #[error("cannot connect to {to}: {kind}; is the application listening there?")]
    Tcp {
        /// The address that was dialled.
        to: SocketAddr,
        /// What the kernel said.
        kind: std::io::ErrorKind,
    },
    /// No answer in time.
    #[error("no answer from {to} in time")]
    Timeout {
        /// The address that was dialled.
        to: SocketAddr,
    },
    /// The peer's certificate is not the destination workload's.
    #[error("{to} did not prove to be {expected}; was the pod replaced?")]
    PeerIdentity {
        /// The address that was dialled.
        to: SocketAddr,
        /// Who was expected.
        expected: SpiffeId,
    },
    /// The peer's certificate, or one above it, has expired.
    #[error("the certificate of {to} has expired; can its node reach the CA, and are the clocks right?")]
    PeerExpired {
        /// The address that was dialled.
        to: SocketAddr,
    },
    /// The handshake failed for another reason.
    #[error("TLS handshake with {to} failed: {detail}")]
    Handshake {
        /// The address that was dialled.
        to: SocketAddr,
        /// What the TLS library said.
        detail: String,
    },
    /// There is a policy for TLS to the backend, and it can't be followed.
    #[error("TLS to {backend} can't be spoken as its BackendTLSPolicy has it: {why}")]
    InvalidBackendTls {
        /// The backend.
        backend: ServicePortKey,
        /// What is wrong.
        why: String,
    },
    /// This node has no valid certificate for the client pod.
    #[error("no valid certificate for {identity} on this node; is the CA reachable?")]
    NoCertificate {
        /// The identity without a certificate.
        identity: SpiffeId,
    },
    /// The client can't prove an identity, and the destination is in the mesh: in the clear it is never reached.
    #[error("{to} is in the mesh, and {client} has no identity there yet; take the pod out of the mesh to serve it so")]
    Outsider {
        /// The application's address.
        to: SocketAddr,
        /// Who wanted to connect.
        client: WorkloadUid,
    },
    /// The destination's node refused the stream.
    #[error("the proxy of {to} refused the connection with status {status}{}", said(*reason))]
    Refused {
        /// The application's address.
        to: SocketAddr,
        /// The HTTP status of its answer to CONNECT.
        status: u16,
        /// What it gave as its reason, if it is a proxy of ours.
        reason: Option<Reason>,
    },
    /// The destination's policy denied the call.
    #[error("the policy of {to} denies the call")]
    Denied {
        /// The application's address.
        to: SocketAddr,
    },
    /// The tunnel broke before the stream was open.
    #[error("the tunnel to {to} broke before the connection was open")]
    TunnelReset {
        /// The application's address.
        to: SocketAddr,
    },
    /// This proxy ends, and opens no more tunnels.
    #[error("this proxy is draining")]
    Draining,
    /// The destination would be one of the proxy's own listeners.
    #[error("{to} is a listener of the proxy itself")]
    Loop {
        /// The address.
        to: SocketAddr,
    },
    /// The destination is inside the cluster, but no configuration says what it is.
    #[error("no configuration names {to} yet; is the controller reachable?")]
    UnknownWorkload {
        /// The address.
        to: SocketAddr,
    },
    /// The destination pod has left this node.
    #[error("the workload at {to} has left this node")]
    WorkloadGone {
        /// The application's address.
        to: SocketAddr,
    },
    /// A budget of the workload is used up.
    #[error("a budget of the workload is used up: {0}")]
    Limit(Reason),
    /// The node is out of file descriptors or memory.
    #[error("the node is out of file descriptors or memory")]
    NodeExhausted,
}

/// What a peer gave as its reason, in brackets.
fn said(reason: Option<Reason>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

impl ConnectError {
    /// The code for logs and metrics.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Tcp { .. } => Reason::ConnectFailed,
            Self::Timeout { .. } => Reason::ConnectTimeout,
            Self::PeerIdentity { .. } => Reason::PeerIdentity,
            Self::PeerExpired { .. } => Reason::CertificateExpired,
            Self::Handshake { .. } => Reason::TlsHandshake,
            Self::InvalidBackendTls { .. } => Reason::InvalidBackend,
            Self::NoCertificate { .. } | Self::Outsider { .. } => Reason::NoCertificate,
            Self::Refused { reason: Some(reason), .. } => *reason,
            Self::Refused { reason: None, .. } => Reason::TunnelRefused,
            Self::Denied { .. } => Reason::PolicyDenied,
            Self::TunnelReset { .. } => Reason::TunnelReset,
            Self::Draining => Reason::Draining,
            Self::Loop { .. } => Reason::Loop,
            Self::UnknownWorkload { .. } => Reason::UnknownDestination,
            Self::WorkloadGone { .. } => Reason::WorkloadGone,
            Self::Limit(reason) => *reason,
            Self::NodeExhausted => Reason::NodeExhausted,
        }
    }

    /// Whether another endpoint may be tried.
    pub const fn retryable(&self) -> Retry {
        match self {
            Self::Tcp { .. }
            | Self::Timeout { .. }
            | Self::PeerIdentity { .. }
            | Self::PeerExpired { .. }
            | Self::Handshake { .. }
            | Self::Refused { .. }
            | Self::TunnelReset { .. }
            | Self::UnknownWorkload { .. }
            | Self::WorkloadGone { .. } => Retry::NeverSent,
            Self::NoCertificate { .. }
            | Self::InvalidBackendTls { .. }
            | Self::Outsider { .. }
            | Self::Denied { .. }
            | Self::Draining
            | Self::Loop { .. }
            | Self::Limit(_)
            | Self::NodeExhausted => Retry::Pointless,
        }
    }
}
