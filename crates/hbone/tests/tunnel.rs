//! Streams of one tunnel: bytes, half-close, resets, flow control, the server's answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "each test binary uses a part")]
mod common;

use std::io::ErrorKind;

use bytes::Bytes;
use common::{CONNECTING_FOREVER, DROP, ECHO, HOLD, PANIC, REFUSE, World, run, to, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_hbone::baggage::{Baggage, keys};
use weft_hbone::{OpenError, ServerLimits, StreamError, TunnelLimits, TunnelStream};

#[test]
fn an_opened_stream_carries_bytes_both_ways_and_half_closes() {
    run(async {
        let world = World::default();
        let mut stream = world.open(ECHO).await;
        stream.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut got).await.unwrap(), 0, "the echo's half-close");
        assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn the_server_may_half_close_first_and_go_on_reading() {
    run(async {
        let world = World::default();
        let mut client = world.open(HOLD).await;
        let mut server = world.pipes.backend.held.borrow_mut().pop().unwrap();
        server.write_all(b"bye").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
        client.write_all(b"still here").await.unwrap();
        client.shutdown().await.unwrap();
        got.clear();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"still here");
    });
}

fn pattern(seed: u8, len: usize) -> Bytes {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}

#[test]
fn sixty_four_mebibytes_each_way_arrive_unchanged() {
    run(async {
        let world = World::default();
        let stream = world.open(ECHO).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let block = pattern(7, 1 << 20);
        let sent = block.clone();
        let writer = tokio::task::spawn_local(async move {
            for _ in 0..64 {
                write.write_all(&sent).await.unwrap();
            }
            write.shutdown().await.unwrap();
        });
        let mut got = vec![0; 1 << 20];
        for i in 0..64 {
            read.read_exact(&mut got).await.unwrap();
            assert!(got == block, "block {i}");
        }
        assert_eq!(read.read(&mut got).await.unwrap(), 0);
        writer.await.unwrap();
    });
}

#[test]
fn many_streams_share_one_tunnel_and_do_not_mix() {
    run(async {
        let world = World::default();
        let mut tasks = Vec::new();
        for i in 0..100_u8 {
            let mut stream = world.open(ECHO).await;
            tasks.push(tokio::task::spawn_local(async move {
                let sent = pattern(i, 10_000 + usize::from(i) * 100);
                let mut got = vec![0; sent.len()];
                for _ in 0..10 {
                    stream.write_all(&sent).await.unwrap();
                    stream.read_exact(&mut got).await.unwrap();
                    assert!(got == sent);
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(world.dials(), 1);
    });
}

async fn send_until_blocked(stream: &mut TunnelStream) -> usize {
    let mut sent = 0;
    loop {
        let mut chunk = Bytes::from_static(&[0; 16 << 10]);
        let send = std::future::poll_fn(|cx| stream.poll_send(cx, &mut chunk));
        match tokio::time::timeout(std::time::Duration::from_secs(1), send).await {
            Ok(n) => sent += n.unwrap(),
            Err(_) => return sent,
        }
    }
}

#[test]
fn a_full_tunnel_of_stalled_readers_does_not_stall_one_more_stream() {
    run(async {
        let world = World::default();
        let mut stalled = Vec::new();
        for _ in 0..99 {
            let mut stream = world.open(HOLD).await;
            // What the peer buffers is bounded by the window, what we buffer by the send buffer.
            let sent = send_until_blocked(&mut stream).await;
            let limits = TunnelLimits::DEFAULT;
            assert!(sent >= limits.stream_window as usize, "the window is used: {sent}");
            assert!(sent <= limits.stream_window as usize + limits.send_buffer, "and it is a bound: {sent}");
            stalled.push(stream);
        }
        let mut stream = world.open(ECHO).await;
        let sent = pattern(1, 200_000);
        let mut got = vec![0; sent.len()];
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let (w, r) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
        w.unwrap();
        r.unwrap();
        assert!(got == sent);
        assert_eq!(world.dials(), 1, "all on one tunnel");
    });
}

#[test]
fn a_stalled_stream_goes_on_when_its_reader_does() {
    run(async {
        let world = World::default();
        let mut client = world.open(HOLD).await;
        let mut server = world.pipes.backend.held.borrow_mut().pop().unwrap();
        let sent = send_until_blocked(&mut client).await;
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), sent);
    });
}

#[test]
fn a_reset_reaches_the_other_end_as_connection_reset() {
    run(async {
        let world = World::default();
        let mut client = world.open(HOLD).await;
        let mut server = world.pipes.backend.held.borrow_mut().pop().unwrap();
        client.write_all(b"x").await.unwrap();
        server.reset(h2::Reason::CANCEL);
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let inner = error.get_ref().unwrap().downcast_ref::<StreamError>();
        assert_eq!(inner, Some(&StreamError::Reset(h2::Reason::CANCEL)));
        assert!(client.write(b"y").await.is_err());
        // And by dropping, the other way.
        let client = world.open(HOLD).await;
        let mut server = world.pipes.backend.held.borrow_mut().pop().unwrap();
        drop(client);
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn refusals_carry_their_status() {
    run(async {
        let world = World::default();
        let error = world.pool.open(&1, &to(REFUSE)).await.unwrap_err();
        assert_eq!((error.reason(), error.never_sent()), ("refused_by_policy", true));
        let error = world.pool.open(&1, &to(DROP)).await.unwrap_err();
        assert!(matches!(error, OpenError::Reset(h2::Reason::INTERNAL_ERROR)), "{error}");
        assert_eq!(world.dials(), 1, "the tunnel is none the worse");
        assert_eq!(world.pool.stats().streams, 0);
    });
}

#[test]
fn a_panic_ends_its_own_stream_only() {
    run(async {
        let world = World::default();
        let mut neighbour = world.open(ECHO).await;
        assert!(matches!(world.pool.open(&1, &to(PANIC)).await, Err(OpenError::Reset(_))));
        neighbour.write_all(b"ok").await.unwrap();
        let mut got = [0; 2];
        neighbour.read_exact(&mut got).await.unwrap();
        drop(neighbour);
        world.pool.drain();
        let report = world.pipes.reports.borrow_mut().pop().unwrap();
        let report = report.await.unwrap();
        assert_eq!((report.panics, report.streams), (1, 2), "{report:?}");
    });
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_and_its_handler_too() {
    run(async {
        let world = World::default();
        let error = world.pool.open(&1, &to(CONNECTING_FOREVER)).await.unwrap_err();
        assert!(matches!(error, OpenError::TimedOut));
        let backend = &world.pipes.backend;
        until("the handler is dropped", || backend.cancelled.get() == 1).await;
    });
}

#[test]
fn baggage_and_headers_reach_the_handler() {
    run(async {
        let world = World::default();
        let said = Baggage::new().with(keys::NAMESPACE, "shop").with(keys::SERVICE_VERSION, "v1, beta");
        let mut request = to(ECHO).with_baggage(&said);
        request.headers_mut().insert("forwarded", "for=10.9.9.9".parse().unwrap());
        drop(world.pool.open(&1, &request).await.unwrap());
        let seen = world.pipes.backend.seen.borrow_mut().pop().unwrap();
        assert_eq!(seen.baggage(), said);
        assert_eq!(seen.headers["forwarded"], "for=10.9.9.9");
        assert_eq!(seen.authority.to_string(), "10.0.0.1:1");
    });
}

#[test]
fn headers_beyond_the_limit_are_refused_and_the_tunnel_survives() {
    run(async {
        let world = World::default();
        let mut request = to(ECHO);
        request.headers_mut().insert("x-big", "y".repeat(20 << 10).parse().unwrap());
        let error = world.pool.open(&1, &request).await.unwrap_err();
        // The codec answers 431 for a header list over its limit (RFC 6585 section 5).
        assert!(matches!(&error, OpenError::Refused { status, .. } if status.as_u16() == 431), "{error}");
        assert_eq!(ServerLimits::default().tunnel.max_header_list_bytes, 16 << 10);
        drop(world.open(ECHO).await);
        assert_eq!(world.dials(), 1);
    });
}
