//! The socket of a listener. One that listens at all addresses of the machine answers each client from the address that it
//! asked at (RFC 1122, section 4.1.3.5): a client, and whatever translates addresses on the way to it, takes no other.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::Poll;

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Both ends of a client's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    /// The client.
    pub(super) client: SocketAddr,
    /// The address of ours that it asked at, where there are several.
    pub(super) local: Option<IpAddr>,
}

/// A socket that clients send to.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UdpSocket,
    /// Whether it listens at all addresses.
    anywhere: bool,
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn new(at: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Every worker has a socket; the kernel keeps the datagrams of one client at one of them.
        socket.set_reuse_port(true)?;
        let anywhere = at.ip().is_unspecified();
        match at {
            SocketAddr::V4(_) if anywhere => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) if anywhere => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            SocketAddr::V4(_) | SocketAddr::V6(_) => {}
        }
        socket.bind(&at.into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, anywhere })
    }

    /// Waits until there may be something.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram; pending if there is none.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> Poll<io::Result<(usize, Ends)>> {
        let received = if self.anywhere {
            self.socket.try_io(Interest::READABLE, || receive_with_ends(&self.socket, buffer))
        } else {
            self.socket.try_recv_from(buffer).map(|(length, client)| (length, Ends { client, local: None }))
        };
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            received => Poll::Ready(received),
        }
    }

    /// Sends a datagram to a client. It is lost if the socket takes no more, as in the network.
    pub(super) fn send(&self, datagram: &[u8], to: Ends) {
        let sent = match to.local {
            Some(local) => send_from(&self.socket, datagram, local, to.client),
            None => SockRef::from(&self.socket).send_to(datagram, &to.client.into()),
        };
        if let Err(error) = sent {
            tracing::trace!(client = %to.client, "datagram lost: {error}");
        }
    }
}

fn receive_with_ends(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    // Room for one message about either family, the bigger one.
    let mut space = nix::cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let address = |from: &SockaddrStorage| {
        let v4 = from.as_sockaddr_in().map(|from| SocketAddr::from(*from));
        v4.or_else(|| from.as_sockaddr_in6().map(|from| SocketAddr::from(*from)))
    };
    let Some(client) = message.address.as_ref().and_then(address) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without a sender"));
    };
    let local = message.cmsgs()?.find_map(|about| match about {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    Ok((message.bytes, Ends { client, local }))
}

fn send_from(socket: &UdpSocket, datagram: &[u8], local: IpAddr, client: SocketAddr) -> io::Result<usize> {
    let (fd, parts, to) = (socket.as_raw_fd(), [IoSlice::new(datagram)], SockaddrStorage::from(client));
    let send = |about: ControlMessage<'_>| sendmsg(fd, &parts, &[about], MsgFlags::empty(), Some(&to));
    let sent = match local {
        IpAddr::V4(local) => {
            let none = in_addr { s_addr: 0 };
            let from = in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
            send(ControlMessage::Ipv4PacketInfo(&in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: none }))
        }
        IpAddr::V6(local) => {
            // A link's own addresses are the same on every link: the client's says which one is meant.
            let scope = match client {
                SocketAddr::V6(client) => client.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            let ipi6_addr = in6_addr { s6_addr: local.octets() };
            send(ControlMessage::Ipv6PacketInfo(&in6_pktinfo { ipi6_addr, ipi6_ifindex: scope }))
        }
    };
    Ok(sent?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks at an address of the machine and says who answers.
    async fn answerer(listener: &Listener, at: SocketAddr) -> SocketAddr {
        let client = UdpSocket::bind(SocketAddr::new(weft_sys::sock::unspecified(at.ip()), 0)).await.unwrap();
        client.send_to(b"x", at).await.unwrap();
        let mut buffer = [0; 16];
        loop {
            listener.readable().await.unwrap();
            if let Poll::Ready(received) = listener.try_receive(&mut buffer) {
                let (length, ends) = received.unwrap();
                assert_eq!((&buffer[..length], ends.client.port()), (&b"x"[..], client.local_addr().unwrap().port()));
                listener.send(b"y", ends);
                break;
            }
        }
        client.recv_from(&mut buffer).await.unwrap().1
    }

    #[tokio::test]
    async fn a_client_is_answered_from_the_address_that_it_asked_at() {
        for (listens, asked) in [
            ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.9.9"][..]),
            ("127.0.0.3:0", &["127.0.0.3"]),
            ("[::]:0", &["::1"]),
        ] {
            let listener = match Listener::new(listens.parse().unwrap()) {
                Ok(listener) => listener,
                Err(error) if weft_sys::sock::is_family_missing(&error) => continue,
                Err(error) => panic!("{listens}: {error}"),
            };
            let port = listener.socket.local_addr().unwrap().port();
            for address in asked {
                let at = SocketAddr::new(address.parse().unwrap(), port);
                assert_eq!(answerer(&listener, at).await, at, "{listens}");
            }
        }
    }
}
