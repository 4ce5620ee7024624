//! Wire messages of Weft: delta discovery, resources, CA, node agent. No logic.
//!
//! One module for each protobuf package, by its name: package `weft.agent.v1` is [`weft::agent::v1`]. The `.proto`
//! files below `proto/` are the reference; a file added there is compiled without further ado. Clients and servers of their
//! services come with the feature `grpc`, so that the domain, which needs messages alone, stays free of any runtime.

#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::unwrap_used, clippy::large_futures)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use packages::*;
