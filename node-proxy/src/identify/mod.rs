//! Who calls: the pod that owns the listener's namespace, or the peer of a tunnel by its certificate.
//!
//! Never by an address: addresses move between pods, namespaces and keys don't.

mod peer;
mod pod;

pub use peer::{Peer, PeerIdentity};
pub use pod::{Known, LocalWorkload, Pod};
