//! A connection through both relays and a tunnel between them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "each test binary uses a part")]
mod common;

use std::future::Future;
use std::io::ErrorKind;
use std::rc::Rc;

use common::{PIPE, run};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_hbone::relay::{End, Options, Report, Socket, Stop, Which, between};
use weft_hbone::{
    ConnectRequest, Handler, OpenRequest, Responder, ServerLimits, Tunnel, TunnelLimits, serve_connection,
};

/// Relays its one stream to a pipe.
struct ToPipe(std::cell::RefCell<Option<DuplexStream>>, Rc<std::cell::Cell<Option<Report>>>);

impl Handler for ToPipe {
    fn handle(&self, _: ConnectRequest, responder: Responder) -> impl Future<Output = ()> + 'static {
        let (upstream, report) = (self.0.borrow_mut().take(), Rc::clone(&self.1));
        async move {
            let Some(upstream) = upstream else {
                return responder.refuse(StatusCode::SERVICE_UNAVAILABLE).unwrap();
            };
            let mut stream = responder.accept().unwrap();
            report.set(Some(between(&mut Socket::new(upstream), &mut stream, Options::default()).await));
        }
    }
}

struct Path {
    client: DuplexStream,
    server: DuplexStream,
    near: JoinHandle<Report>,
    far: Rc<std::cell::Cell<Option<Report>>>,
}

async fn path(options: Options<'static>) -> Path {
    let (ours, theirs) = duplex(PIPE);
    let (server, upstream) = duplex(10_000);
    let far = Rc::default();
    let handler = Rc::new(ToPipe(std::cell::RefCell::new(Some(upstream)), Rc::clone(&far)));
    tokio::task::spawn_local(serve_connection(theirs, handler, ServerLimits::default(), CancellationToken::new()));
    let tunnel = Tunnel::start(ours, TunnelLimits::default(), || {}).await.unwrap();
    let mut stream = tunnel.open(&OpenRequest::new("10.0.0.1:80".parse().unwrap())).await.unwrap();
    let (client, downstream) = duplex(10_000);
    let near =
        tokio::task::spawn_local(async move { between(&mut Socket::new(downstream), &mut stream, options).await });
    Path { client, server, near, far }
}

#[test]
fn eight_mebibytes_each_way_and_half_close() {
    run(async {
        let Path { client, server, near, far } = path(Options::default()).await;
        let sent: Vec<u8> = (0..8 << 20_u32).map(|i: u32| (i * 3 + (i >> 8) + (i >> 16)) as u8).collect();
        let mut tasks = Vec::new();
        for end in [client, server] {
            let (mut read, mut write) = tokio::io::split(end);
            let data = sent.clone();
            tasks.push(tokio::task::spawn_local(async move {
                write.write_all(&data).await.unwrap();
                write.shutdown().await.unwrap();
            }));
            let want = sent.clone();
            tasks.push(tokio::task::spawn_local(async move {
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                assert!(got == want);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        for report in [near.await.unwrap(), far.get().unwrap()] {
            assert_eq!((report.to_first, report.to_second), (8 << 20, 8 << 20));
            assert!(matches!(report.end, End::Closed(_)), "{report:?}");
        }
    });
}

#[test]
fn one_half_of_a_connection_may_end_long_before_the_other() {
    run(async {
        let Path { mut client, mut server, near, .. } = path(Options::default()).await;
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"request");
        tokio::time::sleep(std::time::Duration::from_secs(100)).await;
        server.write_all(b"response").await.unwrap();
        drop(server);
        got.clear();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"response");
        assert_eq!(near.await.unwrap().end, End::Closed(Which::First));
    });
}

#[test]
fn a_stopped_relay_resets_the_stream_under_the_other() {
    run(async {
        let stop = Stop::new();
        let Path { client, mut server, near, far } =
            path(Options { stop: Some(stop.signal()), ..Options::default() }).await;
        stop.stop("revoked");
        assert_eq!(near.await.unwrap().end, End::Stopped("revoked"));
        assert_eq!(server.read(&mut [0; 4]).await.unwrap_or(0), 0, "the application sees the end");
        assert_eq!(far.get().unwrap().end, End::Failed(Which::Second, ErrorKind::ConnectionReset));
        drop(client);
    });
}

#[test]
fn a_reset_is_seen_by_a_relay_whose_peer_has_half_closed() {
    run(async {
        let stop = Stop::new();
        let Path { mut client, mut server, near, far } =
            path(Options { stop: Some(stop.signal()), ..Options::default() }).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 4]).await.unwrap(), 0);
        stop.stop("revoked");
        near.await.unwrap();
        // The server's application says nothing and its relay must still end.
        common::until("the far relay ended", || far.get().is_some()).await;
        assert_eq!(far.get().unwrap().end, End::Failed(Which::Second, ErrorKind::ConnectionReset));
    });
}
