//! Linux mechanisms that need care: network namespace entry, file descriptor passing, socket options.
//!
//! The only crate that may hold `unsafe`. It holds two blocks (`seqpacket::register`, `memory::give_back`): the kernel
//! interfaces come from `nix`, `rustix` and `socket2`, whose functions are safe. Invariants kept here:
//!
//! - A thread that entered a namespace always leaves it ([`Netns::run`]), also when the closure panics; if the kernel
//!   refuses the way back, the process aborts, because a thread stuck in a pod's namespace would open sockets for
//!   the wrong pod.
//! - Every descriptor received is close-on-exec, and a message that lost bytes or descriptors is an error.
//! - Errors are `io::Error` with what was tried in front of what the kernel said.

mod context;
pub mod memory;
pub mod netns;
pub mod seqpacket;
pub mod sock;

pub use context::{ErrorContext, is_disk_full, os_error};
pub use netns::{Netns, NetnsId};
pub use seqpacket::{Message, PreparedListener, SeqPacket, SeqPacketListener};
