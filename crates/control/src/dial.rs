//! Reaches a host by whichever of its addresses answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How much sooner one address is tried than the next.
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection to `address` (`host:port`), resolved anew: whoever answers there may have moved.
pub(crate) async fn dial(address: &str) -> io::Result<TcpStream> {
    let failed = |why: &dyn std::fmt::Display| io::Error::other(format!("{address}: {why}"));
    let found = tokio::net::lookup_host(address).await.map_err(|error| failed(&error))?;
    first(alternating(found), TcpStream::connect).await.map_err(|error| failed(&error))
}

/// Addresses of both families in turn, beginning with that of the first (RFC 8305, section 4).
fn alternating(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<_> = found.collect();
    let first_is_ipv4 = all.first().is_some_and(SocketAddr::is_ipv4);
    let (same, other): (Vec<_>, Vec<_>) = all.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    std::iter::from_fn(|| Some([same.next(), other.next()]).filter(|pair| pair.iter().any(Option::is_some)))
        .flatten()
        .flatten()
        .collect()
}

/// The first connection that comes about. Each address gets a head start before the next (RFC 8305, section 5), so that
/// one that swallows packets doesn't hold the others up.
async fn first<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let attempts = (0_u32..).zip(addresses).map(|(turn, address)| {
        let connect = &connect;
        async move {
            tokio::time::sleep(HEAD_START * turn).await;
            connect(address).await.map_err(|error| format!("{address}: {error}"))
        }
    });
    let mut attempts: FuturesUnordered<_> = attempts.collect();
    let mut failures = Vec::new();
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(connection) => return Ok(connection),
            Err(failure) => failures.push(failure),
        }
    }
    let why = if failures.is_empty() { "no address".to_owned() } else { failures.join("; ") };
    Err(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let want = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]);
        assert_eq!(alternating(found.into_iter()), want);
        assert_eq!(alternating(addresses(&["10.0.0.1:1"]).into_iter()), addresses(&["10.0.0.1:1"]));
    }

    /// One address swallows everything, one refuses, one answers.
    async fn answer(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            1 => std::future::pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => Ok(port),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_address_that_answers_wins_over_any_before_it() {
        let since = tokio::time::Instant::now();
        let all = addresses(&["[::1]:1", "10.0.0.1:2", "10.0.0.2:3", "10.0.0.3:4"]);
        assert_eq!(first(all, answer).await.unwrap(), 3);
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        let refused = first(addresses(&["[::1]:2", "10.0.0.1:2"]), answer).await.unwrap_err().to_string();
        assert!(refused.contains("[::1]:2: ") && refused.contains("10.0.0.1:2: "), "{refused}");
        assert_eq!(first(Vec::new(), answer).await.unwrap_err().to_string(), "no address");
    }

    #[tokio::test]
    async fn a_name_is_resolved_when_it_is_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Both families, of which one answers.
        let stream = dial(&format!("localhost:{port}")).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
        let error = dial("no-such-host.invalid:1").await.unwrap_err().to_string();
        assert!(error.starts_with("no-such-host.invalid:1: "), "{error}");
    }
}
