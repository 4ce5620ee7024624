//! TCP sockets as the data plane needs them: marked, in a namespace, and bound to a borrowed address.
//!
//! A socket belongs to the namespace it was made in, whichever thread uses it later. So every constructor takes the
//! namespace, enters it for the one system call, and returns a non-blocking socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

use crate::{ErrorContext, Netns, os_error};

/// Settings of a listening socket.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where to listen. An IPv6 address takes IPv6 only, so that both families can be bound on one port.
    pub addr: SocketAddr,
    /// `SO_MARK`; accepted sockets inherit it. Needs `CAP_NET_ADMIN` (or `CAP_NET_RAW`) in the namespace.
    pub mark: Option<u32>,
    /// Accept connections to addresses that aren't local (`IP_TRANSPARENT`); needs `CAP_NET_ADMIN`.
    pub transparent: bool,
    /// Let several sockets share the port (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Connections that may wait for accept; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
}

impl Listen {
    /// A listener at `addr` with a backlog of 4096 and nothing special.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, mark: None, transparent: false, reuse_port: false, backlog: 4096 }
    }
}

/// Settings of an outgoing connection.
#[derive(Clone, Debug, Default)]
pub struct Connect {
    /// `SO_MARK`.
    pub mark: Option<u32>,
    /// The source address. Port 0 leaves the port to the kernel, chosen at connect for the whole 4-tuple
    /// (`IP_BIND_ADDRESS_NO_PORT`), so that ports are shared between destinations.
    pub source: Option<SocketAddr>,
    /// The source may be an address of somebody else (`IP_TRANSPARENT`); replies come back only by a policy route.
    pub transparent: bool,
}

/// Keepalive of a connection: probes after `idle`, then every `interval`, `retries` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is dead.
    pub retries: u32,
}

fn tcp_socket(netns: Option<&Netns>, addr: SocketAddr) -> io::Result<Socket> {
    let make = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP));
        socket.context(|| "TCP socket")
    };
    match netns {
        Some(netns) => netns.run(make)?,
        None => make(),
    }
}

fn set_transparent(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
    .context(|| "IP_TRANSPARENT")
}

/// Opens a non-blocking listening socket in `netns` (`None`: the caller's).
///
/// # Errors
/// What the kernel says; see [`is_family_missing`] for namespaces with one family only.
pub fn listen(netns: Option<&Netns>, options: &Listen) -> io::Result<std::net::TcpListener> {
    let open = || -> io::Result<std::net::TcpListener> {
        let socket = tcp_socket(netns, options.addr)?;
        if options.addr.is_ipv6() {
            socket.set_only_v6(true).context(|| "IPV6_V6ONLY")?;
        }
        socket.set_reuse_address(true).context(|| "SO_REUSEADDR")?;
        if options.reuse_port {
            socket.set_reuse_port(true).context(|| "SO_REUSEPORT")?;
        }
        if let Some(mark) = options.mark {
            socket.set_mark(mark).context(|| "SO_MARK")?;
        }
        if options.transparent {
            set_transparent(&socket, options.addr)?;
        }
        socket.bind(&options.addr.into()).context(|| "bind")?;
        socket.listen(options.backlog).context(|| "listen")?;
        Ok(socket.into())
    };
    open().context(|| format!("TCP listener {}", options.addr))
}

/// A socket in `netns` with its options and source address set, not connected yet.
///
/// # Errors
/// What the kernel says; `InvalidInput` when source and destination are of different families.
pub fn prepare(netns: Option<&Netns>, options: &Connect, to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp_socket(netns, to)?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark).context(|| "SO_MARK")?;
    }
    if let Some(source) = options.source {
        if source.is_ipv4() != to.is_ipv4() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "source and destination of different families"));
        }
        if options.transparent {
            set_transparent(&socket, to)?;
        }
        if source.port() == 0 {
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).context(|| "IP_BIND_ADDRESS_NO_PORT")?;
        } else {
            // The tuple of a connection that has just ended may be taken again.
            socket.set_reuse_address(true).context(|| "SO_REUSEADDR")?;
        }
        socket.bind(&source.into()).context(|| format!("bind to source {source}"))?;
    }
    Ok(socket)
}

/// Connects to `to` from within `netns`. The thread is inside the namespace only while the socket is made, never
/// across an await. Sets `TCP_NODELAY`. Has no timeout of its own.
///
/// # Errors
/// What the kernel says, with the addresses in front.
pub async fn connect(netns: Option<&Netns>, options: &Connect, to: SocketAddr) -> io::Result<TcpStream> {
    let run = async {
        let socket = prepare(netns, options, to)?;
        set_nodelay(&socket)?;
        tokio::net::TcpSocket::from_std_stream(socket.into()).connect(to).await
    };
    run.await.context(|| match options.source {
        Some(source) => format!("connect to {to} from {source}"),
        None => format!("connect to {to}"),
    })
}

/// Where a redirected connection was going: the destination before NAT (`SO_ORIGINAL_DST`, both families).
///
/// For a connection that no rule redirected it is the local address. A v4-mapped IPv6 address is returned as IPv4.
///
/// # Errors
/// `NotFound` when connection tracking doesn't know the connection.
pub fn original_dst(stream: &impl AsFd) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = socket.local_addr()?.as_socket();
    let found = match local.map(|a| canonical(a).is_ipv4()) {
        Some(true) => socket.original_dst_v4(),
        _ => socket.original_dst_v6(),
    };
    let addr = found.context(|| "SO_ORIGINAL_DST")?.as_socket();
    addr.map(canonical)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "SO_ORIGINAL_DST is not an IP address"))
}

/// An IPv4 address that came mapped into IPv6 (`::ffff:a.b.c.d`), as IPv4; any other as it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Sends small writes at once (`TCP_NODELAY`).
///
/// # Errors
/// When the socket is not TCP or closed.
pub fn set_nodelay(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true).context(|| "TCP_NODELAY")
}

/// Turns keepalive on, or off with `None`.
///
/// # Errors
/// When the socket is not TCP or closed, or a value is out of the kernel's range (1..=32767 s, 1..=127 probes).
pub fn set_keepalive(socket: &impl AsFd, keepalive: Option<Keepalive>) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let set = match keepalive {
        None => socket.set_keepalive(false),
        Some(k) => {
            let k = TcpKeepalive::new().with_time(k.idle).with_interval(k.interval).with_retries(k.retries);
            socket.set_tcp_keepalive(&k)
        }
    };
    set.context(|| "keepalive")
}

/// The mark of a socket (`SO_MARK`).
///
/// # Errors
/// When the socket is closed.
pub fn mark(socket: &impl AsFd) -> io::Result<u32> {
    SockRef::from(socket).mark().context(|| "SO_MARK")
}

/// Aborts the connection when the socket is closed: the peer gets a reset (`SO_LINGER` of 0).
///
/// # Errors
/// When the socket is closed.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).context(|| "SO_LINGER")
}

/// Whether an error of [`listen`] or [`connect`] says that the namespace lacks this address family.
pub fn is_family_missing(error: &io::Error) -> bool {
    matches!(os_error(error), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The wildcard address of the family of `like`.
pub fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
