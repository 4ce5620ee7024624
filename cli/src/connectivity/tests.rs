//! What is told apart, over real sockets of the loopback device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::check::{Share, Tally, Wish};
use super::outcome::{Outcome, Url, request};
use super::server;

async fn listener() -> (TcpListener, Url) {
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    (listener, url)
}

/// A server that reads a request and then answers these bytes.
async fn answering(bytes: &'static [u8]) -> Url {
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let read = stream.read(&mut [0; 1024]).await.unwrap();
        assert!(read > 0);
        stream.write_all(bytes).await.unwrap();
    });
    url
}

#[tokio::test]
async fn an_answer_is_its_text() {
    let (listener, url) = listener().await;
    tokio::spawn(server::accept(listener, "catalog-v1"));
    assert_eq!(request(&url).await, Outcome::Answered("catalog-v1".into()));
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_refused() {
    let outcome = request(&answering(b"").await).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "closed after the request: {outcome}");

    let (listener, url) = listener().await;
    tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let outcome = request(&url).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "closed at once: {outcome}");

    let (listener, url) = self::listener().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_zero_linger().unwrap();
    });
    let outcome = request(&url).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "reset: {outcome}");
}

#[tokio::test]
async fn a_403_is_a_refusal_and_a_503_is_not() {
    let outcome = request(&answering(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    let outcome = request(&answering(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome}");
}

#[tokio::test]
async fn a_server_that_is_not_there_refuses_nothing() {
    let (listener, url) = listener().await;
    drop(listener);
    let outcome = request(&url).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "nobody listens: {outcome}");
    assert!(!Wish::Refuse.holds(&outcome) && !Wish::Reach.holds(&outcome));
    let outcome = request(&"http://no-such-name.invalid/".parse().unwrap()).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "{outcome}");
}

#[test]
fn shares_are_counted_of_all_requests() {
    let mut tally = Tally::default();
    for number in 0..1000 {
        let outcome = match number % 10 {
            0 => Outcome::Answered("v2".into()),
            _ => Outcome::Answered("v1".into()),
        };
        tally.add(outcome);
    }
    let shares: Vec<Share> = ["v1=90", "v2=10%"].map(|share| share.parse().unwrap()).into();
    assert_eq!(tally.complaints(&shares), Vec::<String>::new());
    let off: Vec<Share> = ["v1=50", "v3=10"].map(|share| share.parse().unwrap()).into();
    assert_eq!(tally.complaints(&off).len(), 2, "{tally}");
    tally.add(Outcome::Refused("reset".into()));
    assert_eq!(tally.complaints(&[]), ["1 of 1001 requests got no answer"]);
}

#[test]
fn mistakes_say_what_is_expected() {
    for wrong in ["https://a/", "a:80", "http://", "/"] {
        let said = wrong.parse::<Url>().unwrap_err();
        assert!(said.contains("http://HOST[:PORT][/PATH]"), "{wrong}: {said}");
    }
    for wrong in ["v1", "=10", "v1=ten", "v1=110", "v1=-1"] {
        assert!(wrong.parse::<Share>().unwrap_err().contains("NAME=PERCENT"), "{wrong}");
    }
    for right in ["http://a", "http://a:8080/x?y", "http://[::1]:80/"] {
        right.parse::<Url>().unwrap();
    }
}
