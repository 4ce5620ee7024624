//! The endpoint of a place: its socket, its parameters, and who is let in.

use std::any::Any;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;
use weft_core::gateway::Bind;
use weft_tls::{GatewayTls, QuicChoice, quic_server};

use super::connection::Front;
use crate::gateway::terminate::Terminators;
use crate::identify::LocalWorkload;
use crate::route::server_name_in;
use crate::worker::{Node, Worker};

/// Requests at once on one connection; fewer than with HTTP/2, because each may have a head that isn't whole yet in memory.
const STREAMS: u32 = 100;
/// Streams of one direction: the control stream, QPACK's two, and some that nobody knows.
const UNI_STREAMS: u32 = 8;
/// Bytes that a client may send into one stream and into all of a connection before they are read. What waits is ours to hold.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of answers that are under way to a client, or wait to be.
const SEND_WINDOW: u64 = 1 << 20;
/// So often within the time that a client may say nothing it is asked for a word, which also keeps those from forgetting it who keep
/// track of datagrams on the way.
const ASKED: u32 = 3;
/// Clients that begin and wait to be looked at, and bytes that each of them and all of them may have sent until then.
const INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 64 << 10;
const ALL_INCOMING_BYTES: u64 = 16 << 20;
/// What the kernel should hold of datagrams that nobody has read yet, bytes. It may give less.
const SOCKET_BUFFER: usize = 2 << 20;

/// Listens beside a place of TCP until it is `gone`, and until its connections have ended.
///
/// # Errors
/// What the kernel says: somebody else has the port, or the address isn't this machine's.
pub(super) fn listen(
    (worker, source): (&Rc<Worker>, &Rc<LocalWorkload>),
    terminators: &Arc<Terminators>,
    tcp: Bind,
    gone: &CancellationToken,
) -> io::Result<()> {
    let choice = ByHello { node: Arc::clone(&worker.node), terminators: Arc::clone(terminators), tcp };
    let config = server_config(choice, worker.node.limits.quic_silence)?;
    // All of them or none.
    let sockets = sockets(tcp)?;
    let open = |socket| Endpoint::new(EndpointConfig::default(), Some(config.clone()), socket, Arc::new(TokioRuntime));
    let endpoints: Vec<_> = sockets.into_iter().map(open).collect::<io::Result<_>>()?;
    let front = Rc::new(Front::new(Rc::clone(worker), Rc::clone(source), tcp, gone.clone()));
    for endpoint in endpoints {
        drop(spawn_local(Rc::clone(&front).run(endpoint)));
    }
    Ok(())
}

/// Keys of tokens and of stateless resets are made anew for each endpoint and go nowhere: with a key that other pods have, whoever
/// sees a connection's packets could have one of those pods end it (RFC 9000, section 21.11).
fn server_config(choice: ByHello, silence: Duration) -> io::Result<ServerConfig> {
    let crypto = quic_server(Arc::new(choice)).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport(silence)?))
        // A client has the address that it was let in with.
        .migration(false)
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(ALL_INCOMING_BYTES);
    Ok(config)
}

fn transport(silence: Duration) -> io::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(IdleTimeout::try_from(silence).map_err(io::Error::other)?))
        .keep_alive_interval(Some(silence / ASKED))
        // Nobody here speaks in datagrams (RFC 9221).
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

/// Of each family that the machine has, if no address is asked for.
fn sockets(tcp: Bind) -> io::Result<Vec<std::net::UdpSocket>> {
    let families: &[IpAddr] = match &tcp.address {
        Some(address) => std::slice::from_ref(address),
        None => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    let (mut open, mut missing) = (Vec::new(), None);
    for address in families {
        match socket(SocketAddr::new(*address, tcp.port.get())) {
            Ok(socket) => open.push(socket),
            Err(error) if tcp.address.is_none() && weft_sys::sock::is_family_missing(&error) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if open.is_empty() => Err(error),
        _ => Ok(open),
    }
}

/// Nobody else may listen there: see the module.
fn socket(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // With less it works, too.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// Who ends TLS: the listener that has the name in the ClientHello, if it speaks HTTP/3 and has a certificate.
struct ByHello {
    node: Arc<Node>,
    terminators: Arc<Terminators>,
    tcp: Bind,
}

impl QuicChoice for ByHello {
    fn choose(&self, client_hello: &[u8]) -> Option<(GatewayTls, Arc<dyn Any + Send + Sync>)> {
        let snapshot = self.node.store.load();
        let name = server_name_in(client_hello).unwrap_or_default();
        let found = snapshot.gateway_port(&self.tcp)?.listeners.find(&name)?;
        let listener = Some(&found.listener).filter(|listener| listener.speaks_http3())?;
        let tls = self.terminators.of(&snapshot, listener).ok()?;
        Some((tls, Arc::clone(listener) as Arc<dyn Any + Send + Sync>))
    }
}
