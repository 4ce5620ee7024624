//! What the fuzz targets reach of this crate: for each parser of bytes that a peer chose a function, which says only what the
//! targets' properties are about. No part of the crate's interface.

use std::net::{IpAddr, SocketAddr};

pub use crate::connect::http_pool::fuzzing::answer;
pub use crate::external::fuzzing::addresses_in;
pub use crate::proxy_protocol::fuzzing::{proxy_header, write_proxy_header};
pub use crate::relay::http::fuzzing::{
    Authorized, FORWARDED, H3Section, H3Stream, WebCall, auth_grpc, auth_http, checked, denied, forwarded,
    h1_ambiguous, h2_in_block, h3_frames, h3_huffman, h3_section, h3_stream, hop, presented, trailers, web_call,
    web_text,
};
pub use crate::route::fuzzing::server_name;
pub use crate::trace::fuzzing::{said, unsampled};

/// What the start of a connection is read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// More is needed to say.
    More,
    /// It is none, and will be none.
    No,
    /// All of it.
    Whole(T),
}

/// Both ends of a connection: the client, and what it dialled.
pub type Ends = (SocketAddr, SocketAddr);

/// The hops that a header names, the client's first; `None`: one that is no address.
pub type Hops = Vec<Option<IpAddr>>;
