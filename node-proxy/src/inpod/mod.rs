//! The pods of this node: their network namespaces, listeners and certificates.

mod client;
mod info;
mod link;
mod manager;
mod net;
mod sockets;

pub use client::{AckHandle, InpodClient, InpodEvent, LinkState};
pub use info::{PodInfo, PodInfoError};
pub use link::{follow_agent, workload_of};
pub use manager::{AddError, Announcement, Listener, Manager, Served};
pub use net::{ListenerRole, Outgoing, PodNet};
pub use sockets::PodSockets;
