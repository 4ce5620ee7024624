//! The client's end of a connection whose bytes are relayed.

use tokio::net::TcpStream;

use crate::relay::encrypted::{Abort, Encrypted};
use crate::route::Replayed;

/// As it came, or as TLS of ours gives it.
pub(crate) enum ClientStream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS was ended here.
    Tls(Box<Encrypted<Replayed>>),
}

impl ClientStream {
    /// Closes with a reset when it is dropped: the client must not take a refusal for an empty answer.
    pub(crate) fn reset(&self) {
        match self {
            Self::Tcp(stream) => super::reset(stream),
            Self::Tls(stream) => stream.carrier().abort_on_drop(),
        }
    }
}

impl From<TcpStream> for ClientStream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}
