//! The pods of this node: their network namespaces, listeners and certificates.

mod client;
mod info;
mod manager;
mod net;
mod sockets;

pub use client::{AckHandle, InpodClient, InpodEvent, LinkState};
pub use info::{PodInfo, PodInfoError};
pub use manager::{AddError, Announcement, Listener, Manager};
pub use net::{ListenerRole, Outgoing, PodNet};
pub use sockets::PodSockets;
