//! The PROXY protocol, versions 1 and 2: a header before everything else of a connection, by which a load balancer tells whose
//! connection it is (`haproxy.org/download/2.8/doc/proxy-protocol.txt`).
//!
//! Reading is strict: a header that two readers could understand differently is none, and what has the beginning of one and
//! isn't one ends its connection. Who may send one at all is decided elsewhere, by the connection's address.

pub mod fuzzing;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

pub use write::ProxyHeader;

use read::{Parsed, parse};

/// The longest header that is read, in bytes. One of version 1 has 107 at most; extensions of version 2 rarely some hundred.
const LONGEST: usize = 4096;

/// Both ends of a connection, as a header has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    /// The client.
    pub(crate) source: SocketAddr,
    /// What the client dialled.
    pub(crate) destination: SocketAddr,
}

/// What a connection began with.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Whose connection it is; `None`: whose it looks like. There was no header, or it says so (`LOCAL`, `UNKNOWN`).
    pub(crate) ends: Option<Ends>,
    /// What was read and is not of the header.
    pub(crate) rest: Vec<u8>,
}

/// Why a connection is no good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// There has to be a header, and there is none.
    #[error("no header of the PROXY protocol")]
    Missing,
    /// There is something like one.
    #[error("a malformed header of the PROXY protocol: {0}")]
    Malformed(&'static str),
    /// It takes too long to come.
    #[error("a header of the PROXY protocol that isn't whole in time")]
    Slow,
    /// The client is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads a header, and as little as possible behind it, for at most `limit`.
///
/// # Errors
/// [`Refused`]; with `required`, also where there is none. Without, one who says nothing at all waits to be spoken to.
pub(crate) async fn read(stream: &mut TcpStream, required: bool, limit: Duration) -> Result<Opening, Refused> {
    let deadline = Instant::now() + limit;
    let mut bytes = Vec::with_capacity(256);
    loop {
        match parse(&bytes) {
            Parsed::Whole { length, ends } => {
                let rest = bytes.split_off(length.min(bytes.len()));
                return Ok(Opening { ends, rest });
            }
            Parsed::Absent if required => return Err(Refused::Missing),
            Parsed::Absent => return Ok(Opening { ends: None, rest: bytes }),
            Parsed::Malformed(why) => return Err(Refused::Malformed(why)),
            Parsed::Incomplete => {}
        }
        if bytes.len() >= LONGEST {
            return Err(Refused::Malformed("too long"));
        }
        let room = LONGEST - bytes.len();
        match timeout_at(deadline, (&mut *stream).take(room as u64).read_buf(&mut bytes)).await {
            // A client that only connects and leaves, as checks of health do.
            Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => drop(read?),
            Err(_) if bytes.is_empty() && !required => return Ok(Opening { ends: None, rest: bytes }),
            Err(_) => return Err(Refused::Slow),
        }
    }
}
