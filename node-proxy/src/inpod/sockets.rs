//! Sockets inside a real pod's network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream};
use weft_core::inpod::PROXY_MARK;
use weft_sys::Netns;
use weft_sys::sock::{self, Connect, Listen};

use super::net::{ListenerRole, Outgoing, PodNet};

/// A pod's network namespace, held open. Sockets made in it carry the proxy's mark, so that no rule redirects them.
#[derive(Debug)]
pub struct PodSockets {
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl PodSockets {
    /// The namespace of a pod with its addresses.
    pub fn new(netns: Netns, addresses: Vec<IpAddr>) -> Self {
        Self { netns, addresses }
    }
}

impl PodNet for PodSockets {
    fn netns(&self) -> Option<&Netns> {
        Some(&self.netns)
    }

    fn listen(&self, role: ListenerRole) -> io::Result<Vec<std::net::TcpListener>> {
        let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let mut open = Vec::with_capacity(families.len());
        let mut missing = None;
        for family in families {
            let options = Listen { mark: Some(PROXY_MARK), ..Listen::new(SocketAddr::new(family, role.port())) };
            match sock::listen(Some(&self.netns), &options) {
                Ok(listener) => open.push(listener),
                Err(error) if sock::is_family_missing(&error) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if open.is_empty() => Err(error),
            _ => Ok(open),
        }
    }

    fn original_destination(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        sock::original_dst(stream)
    }

    fn outgoing(&self, source: Option<IpAddr>, to: SocketAddr) -> io::Result<Outgoing> {
        let options = Connect {
            mark: Some(PROXY_MARK),
            source: source.map(|ip| SocketAddr::new(ip, 0)),
            transparent: source.is_some_and(|ip| !self.addresses.contains(&ip)),
        };
        let socket = sock::prepare(Some(&self.netns), &options, to)?;
        sock::set_nodelay(&socket)?;
        Ok(Outgoing { socket: TcpSocket::from_std_stream(socket.into()), to })
    }
}
