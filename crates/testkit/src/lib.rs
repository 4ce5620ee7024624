//! Test-only: a small world of network namespaces, captures, servers and clients with opinions.
//!
//! ```text
//!   harness   a test binary's main: enters private namespaces, then runs its tests one by one
//!   world     nodes and pods, each a network namespace, IPv4 and IPv6, joined by a wire
//!   cni       a CNI runtime in miniature: ADD, CHECK, DEL, GC of a chain of plugins
//!   capture   packets seen on an interface, and what must never be readable in them
//!   servers   answer with their own name, so that a test knows who answered
//!   clients   record every failure; none is hidden behind an average
//! ```
//!
//! Nothing here touches the machine's own network: a test binary lives in its own mount, network and process
//! namespaces (and user namespace, when it isn't root), which vanish with it, however it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test fails"
)]

pub mod capture;
pub mod clients;
pub mod cni;
pub mod harness;
pub mod netns;
pub mod pattern;
pub mod process;
pub mod servers;
pub mod task;
pub mod websocket;
pub mod world;

pub use capture::{Capture, Packets};
pub use cni::{Attachment, CniChain, CniError};
pub use netns::Netns;
pub use process::Process;
pub use servers::Server;
pub use task::Task;
pub use world::{Node, Pod, World};
