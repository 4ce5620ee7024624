//! HTTP between two ends: outbound for routes and HTTP ports, inbound where a policy looks at requests.
//!
//! ```text
//!  downstream: wire -> codec -> check -> route / authorize -> forward -> upstream: pool -> codec
//!                       (serve)         (outbound / inbound)  (tries)
//! ```
//!
//! Invariants: a request is checked and brought into one form before anything looks at it, and forwarded in that form;
//! bodies stream and are never collected; each request ends in exactly one record (metrics and access log), whatever
//! way it ends; nothing here is shared with another worker.

mod admit;
mod attempt;
mod auth;
mod begin;
mod body;
mod check;
mod client;
mod downstream;
mod engine;
mod extended;
mod factory;
mod finish;
mod forward;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod gather;
mod given_up;
mod grpc_web;
mod h3;
mod hop;
mod inbound;
mod interim;
mod mark;
mod mirror;
mod mirrored;
mod origin;
mod outbound;
mod replay;
mod reply;
mod serve;
mod session;
mod span;
mod stalled;
#[cfg(test)]
mod tests;
mod told;
mod trail;
mod upstream;
mod waiting;
mod wire;

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) use body::RequestBody;
pub use engine::{Engine, EngineParts, HttpSettings, Resolve};
pub use factory::Telemetered;
pub(crate) use gather::{Gathered, Gathering, gather};
pub(crate) use hop::strip as strip_hop_headers;

use crate::authorize::HttpPermit;
use crate::connect::http_pool::AppConnections;
use crate::identify::LocalWorkload;
use crate::observe::{Connection, Direction, Ended};
use crate::relay::front::{ByteStream, GatewayConnection, HttpRelay, OutboundConnection, QuicConnection};
use downstream::{Called, Caller, Downstream, Front, Side};

/// The engine as the connection pipelines call it.
#[derive(Clone)]
pub struct HttpFront(pub Rc<Engine>);

impl HttpFront {
    /// Serves a connection to a Service, over any stream.
    pub async fn serve_outbound<T>(&self, io: T, connection: OutboundConnection) -> Ended
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let OutboundConnection { source, client, destination, frontend } = connection;
        let workload = source.workload(&self.0.view());
        let told = Connection {
            direction: Direction::Outbound,
            workload: Arc::clone(&workload),
            remote: None,
            identity: None,
            service: Some(frontend.key.clone()),
            client,
            destination,
            endpoint: None,
            // As the first request went, which is not known yet.
            transport: "none",
            http: true,
        };
        let front = Front::Service(frontend.key.clone());
        let caller = Caller { source, workload, client, dialled: destination, front, way: OnceCell::new() };
        drop(frontend);
        self.serve(io, Side::Outbound(caller), told).await
    }

    /// Both ends of a connection to a Gateway.
    fn at_gateway(&self, connection: GatewayConnection) -> (Side, Connection) {
        let GatewayConnection { source, client, local, bind, listener } = connection;
        let workload = source.workload(&self.0.view());
        let told = Connection {
            direction: Direction::Outbound,
            workload: Arc::clone(&workload),
            remote: None,
            identity: None,
            service: None,
            client,
            destination: local,
            endpoint: None,
            // As the first request went, which is not known yet.
            transport: "none",
            http: true,
        };
        let front = Front::Gateway { bind, listener };
        let caller = Caller { source, workload, client, dialled: local, front, way: OnceCell::new() };
        (Side::Outbound(caller), told)
    }

    async fn serve_gateway(&self, io: Box<dyn ByteStream>, connection: GatewayConnection) -> Ended {
        let (side, told) = self.at_gateway(connection);
        self.serve(io, side, told).await
    }

    async fn serve_http3(&self, quic: QuicConnection, connection: GatewayConnection) -> Ended {
        let started = Instant::now();
        let (side, told) = self.at_gateway(connection);
        let conn = Downstream::new(&self.0, self.0.register(), side, told);
        conn.watched.mark_outside();
        let ended = h3::serve(quic.connection, Rc::clone(&conn), quic.leaving).await;
        conn.closed(&ended, started.elapsed());
        ended
    }

    async fn serve_inbound(&self, io: Box<dyn ByteStream>, permit: HttpPermit) -> Ended {
        let inbound = permit.inbound();
        let view = self.0.view();
        let told = Connection {
            direction: Direction::Inbound,
            workload: inbound.workload.workload(&view),
            remote: view.workload_at(inbound.peer.address.ip().to_canonical()).cloned(),
            identity: inbound.peer.identity.spiffe().cloned(),
            service: None,
            client: inbound.peer.address,
            destination: inbound.destination,
            endpoint: Some(inbound.destination),
            transport: downstream::peer_security(inbound).transport(),
            http: true,
        };
        drop(view);
        let app = AppConnections::new(self.0.settings.pool);
        self.serve(io, Side::Inbound(Called { permit, app }), told).await
    }

    async fn serve<T>(&self, io: T, side: Side, told: Connection) -> Ended
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let started = Instant::now();
        let conn = Downstream::new(&self.0, self.0.register(), side, told);
        if conn.side.is_gateway() {
            conn.watched.mark_outside();
        }
        let ended = serve::serve(io, Rc::clone(&conn)).await;
        conn.closed(&ended, started.elapsed());
        ended
    }
}

impl HttpRelay for HttpFront {
    fn inbound(&self, io: Box<dyn ByteStream>, permit: HttpPermit) -> LocalBoxFuture<'static, ()> {
        let front = self.clone();
        Box::pin(async move {
            let _reported: Ended = front.serve_inbound(io, permit).await;
        })
    }

    fn gateway(&self, io: Box<dyn ByteStream>, connection: GatewayConnection) -> LocalBoxFuture<'static, ()> {
        let front = self.clone();
        Box::pin(async move {
            let _reported: Ended = front.serve_gateway(io, connection).await;
        })
    }

    fn http3(&self, quic: QuicConnection, connection: GatewayConnection) -> LocalBoxFuture<'static, ()> {
        let front = self.clone();
        Box::pin(async move {
            let _reported: Ended = front.serve_http3(quic, connection).await;
        })
    }

    fn forget(&self, pod: &Rc<LocalWorkload>) {
        self.0.forget(pod);
    }

    fn outbound(&self, io: TcpStream, connection: OutboundConnection) -> LocalBoxFuture<'static, ()> {
        let front = self.clone();
        Box::pin(async move {
            // Answers are small and latency counts; a socket that refuses works all the same.
            drop(io.set_nodelay(true));
            let _reported: Ended = front.serve_outbound(io, connection).await;
        })
    }
}
