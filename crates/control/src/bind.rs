//! Listening on every address, also where the kernel has no IPv6.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// Listens on `address`. On a machine without IPv6, `[::]` means every IPv4 address.
///
/// # Errors
/// Those of the socket; where IPv4 doesn't work either, why IPv6 didn't.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    either(address, TcpListener::bind).await
}

async fn either<T, F>(address: SocketAddr, bind: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    match bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).await.map_err(|_| error)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listens as a kernel without IPv6 does, whose port 1 is taken.
    async fn without_ipv6(address: SocketAddr) -> io::Result<SocketAddr> {
        match (address.port(), address.is_ipv6()) {
            (1, _) => Err(io::ErrorKind::AddrInUse.into()),
            // EAFNOSUPPORT
            (_, true) => Err(io::Error::from_raw_os_error(97)),
            (2, false) => Err(io::ErrorKind::PermissionDenied.into()),
            (_, false) => Ok(address),
        }
    }

    #[tokio::test]
    async fn everywhere_is_everywhere_in_ipv4_where_there_is_no_ipv6() {
        let bound = |text: &str| either(text.parse().unwrap(), without_ipv6);
        assert_eq!(bound("[::]:15012").await.unwrap(), "0.0.0.0:15012".parse().unwrap());
        assert_eq!(bound("127.0.0.1:15012").await.unwrap(), "127.0.0.1:15012".parse().unwrap());
        assert_eq!(bound("[::1]:15012").await.unwrap_err().raw_os_error(), Some(97), "one address isn't another");
        assert_eq!(bound("[::]:1").await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bound("[::]:2").await.unwrap_err().raw_os_error(), Some(97), "the first reason");
        bind("[::]:0".parse().unwrap()).await.unwrap();
    }
}
