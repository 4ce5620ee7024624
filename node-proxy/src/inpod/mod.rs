//! The pods of this node: their network namespaces, listeners and certificates.

mod client;
mod info;
mod net;

pub use client::{AckHandle, InpodClient, InpodEvent, LinkState};
pub use info::{PodInfo, PodInfoError};
pub use net::{ListenerRole, Outgoing, PodNet};
