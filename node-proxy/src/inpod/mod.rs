//! The pods of this node: their network namespaces, listeners and certificates.

mod net;

pub use net::{ListenerRole, Outgoing, PodNet};
