//! HBONE: TCP connections carried as HTTP/2 `CONNECT` streams of shared, mutually authenticated connections (tunnels).
//!
//! ```text
//!  app --TCP--> relay::between(Socket, TunnelStream) --h2 frames--> tunnel (any IO) --> serve_connection --> relay --TCP--> app
//!                          Pool::open(key, request)                                     Handler::handle(request, responder)
//! ```
//!
//! Wire compatible with Istio's ambient data plane: HTTP/2, `CONNECT` with `:authority` = `ip:port` of the destination, `200` =
//! opened, any other status = refused; an optional `baggage` header describes the peer and is trusted for nothing.
//!
//! Invariants:
//! - everything here belongs to one thread (a current-thread runtime inside a `LocalSet`): tunnels, pools and streams never
//!   cross threads, so that the path has no lock of ours and no shared cache line;
//! - the crate knows nothing of TLS: tunnels run over any `AsyncRead + AsyncWrite + Unpin`;
//! - back-pressure is end to end: bytes count against the peer's window until the *reader* has taken them;
//! - nothing a peer sends can panic, and every queue a peer can fill has a limit in [`limits`].

#![forbid(unsafe_code)]

pub mod baggage;
pub mod limits;
pub mod pool;
pub mod relay;
pub mod server;

mod drive;
mod error;
mod io;
mod request;
mod responder;
mod stream;
mod tunnel;

pub use error::{DialError, DialFailure, OpenError, StreamError};
pub use limits::{ServerLimits, TunnelLimits};
pub use pool::{Connector, Pool};
pub use request::{AuthorityError, ConnectRequest, OpenRequest, parse_authority};
pub use responder::Responder;
pub use server::{Handler, ServeEnd, ServeReport, serve_connection};
pub use stream::TunnelStream;
pub use tunnel::{Tunnel, TunnelState};

/// The header of an answer to CONNECT that says why it is a refusal, as a code of the peer's. No part of HBONE: a peer of
/// another kind sends none.
pub const REASON: &str = "x-weft-reason";

/// Asserts at compile time that a type stays within a number of bytes, so that per-connection memory can't grow unnoticed.
macro_rules! assert_size {
    ($type:ty, $max:expr) => {
        const _: () = assert!(std::mem::size_of::<$type>() <= $max, "type grew beyond its budget");
    };
}
pub(crate) use assert_size;
