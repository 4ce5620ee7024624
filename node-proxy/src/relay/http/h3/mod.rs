//! HTTP/3 (RFC 9114) as clients from outside speak it to a Gateway.
//!
//! ```text
//!  QUIC connection --streams--> connection --one each--> exchange --head, body--> the same path as a request of HTTP/2
//!                      \--> control (settings, GOAWAY)       <--frames-- its answer
//! ```
//!
//! A server's half only, without server push, extended CONNECT and QPACK's dynamic table. What a client sends is held to
//! limits before it is gathered, and what is malformed ends its stream or the connection, with the code that the RFC has for it,
//! before anybody reads a meaning into it.

mod body;
mod code;
mod connection;
mod control;
mod exchange;
mod frames;
pub mod fuzzing;
mod head;
mod huffman;
mod qpack;
mod table;
mod varint;

pub(crate) use body::Http3Body;
pub(super) use connection::serve;
