//! Clients that say exactly what happened.
//!
//! All are futures: run them where they should be, `pod.block_on(clients::get(addr, "/"))`.

mod grpc;
mod http;
mod load;
mod tcp;

pub use self::grpc::{Grpc, GrpcReply, GrpcStream};
pub use self::http::{Connection, Echo, Reply, get, request, websocket};
pub use self::load::{Load, Report};
pub use self::tcp::{banner, connect, exchange, pull, push, udp_exchange};
