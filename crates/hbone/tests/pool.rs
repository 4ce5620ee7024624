//! The pool: single flight, limits, idleness, GOAWAY, eviction, drain.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[allow(dead_code, reason = "each test binary uses a part")]
mod common;

use std::time::Duration;

use common::{ECHO, HOLD, World, run, to, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_hbone::{DialFailure, OpenError, ServeEnd, ServerLimits, TunnelLimits, TunnelStream};

async fn works(stream: &mut TunnelStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
}

/// Opens so many streams at the same moment.
async fn open_at_once(world: &World, count: usize) -> Vec<Result<TunnelStream, OpenError>> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let pool = world.pool.clone();
        tasks.push(tokio::task::spawn_local(async move { pool.open(&1, &to(ECHO)).await }));
    }
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await.unwrap());
    }
    streams
}

#[test]
fn waiting_streams_share_one_dial() {
    run(async {
        let world = World::default();
        world.pipes.delay.set(Duration::from_millis(100));
        let mut streams = open_at_once(&world, 100).await;
        for stream in &mut streams {
            works(stream.as_mut().unwrap()).await;
        }
        assert_eq!(world.dials(), 1);
        assert_eq!(world.pool.stats().streams, 100);
    });
}

#[test]
fn all_waiters_hear_of_a_failed_dial_and_the_next_stream_dials_again() {
    run(async {
        let world = World::default();
        world.pipes.delay.set(Duration::from_millis(100));
        world.pipes.fail.set(Some(DialFailure::Identity));
        for result in open_at_once(&world, 10).await {
            let error = result.unwrap_err();
            assert_eq!((error.reason(), error.never_sent()), ("dial_identity", true));
        }
        assert_eq!((world.dials(), world.pool.stats().keys), (1, 0));
        world.pipes.fail.set(None);
        works(&mut world.open(ECHO).await).await;
        assert_eq!(world.dials(), 2);
    });
}

#[test]
fn a_dial_is_bounded_and_survives_the_waiter_that_started_it() {
    run(async {
        let world = World::default();
        world.pipes.delay.set(Duration::from_secs(3600));
        let error = world.pool.open(&1, &to(ECHO)).await.unwrap_err();
        assert_eq!(error.reason(), "dial_timeout");
        world.pipes.delay.set(Duration::from_secs(2));
        let request = to(ECHO);
        let first = world.pool.open(&1, &request);
        assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err());
        works(&mut world.open(ECHO).await).await;
        assert_eq!(world.dials(), 2, "the second waiter joined the first one's dial");
    });
}

#[test]
fn a_full_tunnel_is_joined_by_another() {
    run(async {
        let world =
            World::new(TunnelLimits { streams_per_tunnel: 10, ..TunnelLimits::default() }, ServerLimits::default());
        let mut streams = open_at_once(&world, 25).await;
        for stream in &mut streams {
            works(stream.as_mut().unwrap()).await;
        }
        assert_eq!((world.dials(), world.pool.stats().tunnels), (3, 3));
    });
}

#[test]
fn the_peers_stream_limit_counts_too() {
    run(async {
        let server = ServerLimits { max_concurrent_streams: 3, ..ServerLimits::default() };
        let world = World::new(TunnelLimits::default(), server);
        let mut streams = Vec::new();
        for _ in 0..7 {
            streams.push(world.open(ECHO).await);
        }
        for stream in &mut streams {
            works(stream).await;
        }
        assert_eq!(world.dials(), 3);
    });
}

#[test]
fn an_idle_tunnel_is_closed_and_a_used_one_is_not() {
    run(async {
        let world = World::default();
        let stream = world.open(ECHO).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(world.pool.stats().tunnels, 1, "a quiet stream keeps its tunnel");
        drop(stream);
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(world.open(ECHO).await);
        tokio::time::sleep(Duration::from_secs(80)).await;
        assert_eq!((world.pool.stats().tunnels, world.dials()), (1, 1), "used 80 seconds ago");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(world.pool.stats().keys, 0, "idle for 100 seconds");
        let report = world.pipes.reports.borrow_mut().pop().unwrap();
        assert_eq!(report.await.unwrap().end, ServeEnd::Finished, "closed in good order");
    });
}

#[test]
fn goaway_lets_streams_finish_and_sends_new_ones_elsewhere() {
    run(async {
        let world = World::default();
        let mut old = world.open(ECHO).await;
        works(&mut old).await;
        world.pipes.drain.take().cancel();
        // GOAWAY travels; a stream meanwhile may still land on the old tunnel, and works.
        tokio::time::sleep(Duration::from_millis(10)).await;
        works(&mut old).await;
        let mut new = world.open(ECHO).await;
        works(&mut new).await;
        assert_eq!(world.dials(), 2);
        old.shutdown().await.unwrap();
        assert_eq!(old.read(&mut [0; 4]).await.unwrap(), 0);
        drop(old);
        let first = world.pipes.reports.borrow_mut().remove(0);
        assert_eq!(first.await.unwrap().end, ServeEnd::Finished);
    });
}

#[test]
fn a_drain_has_a_deadline() {
    run(async {
        let world = World::default();
        let mut stream = world.open(HOLD).await;
        world.pipes.drain.take().cancel();
        tokio::time::sleep(Duration::from_secs(29)).await;
        stream.write_all(b"still open").await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(stream.read(&mut [0; 4]).await.is_err());
        let report = world.pipes.reports.borrow_mut().pop().unwrap();
        assert_eq!(report.await.unwrap().end, ServeEnd::DrainDeadline);
    });
}

#[test]
fn eviction_spares_streams_and_killing_does_not() {
    run(async {
        let world = World::default();
        let mut one = world.pool.open(&1, &to(ECHO)).await.unwrap();
        let mut two = world.pool.open(&2, &to(ECHO)).await.unwrap();
        assert_eq!(world.pool.evict(|key| *key == 1), 1);
        works(&mut one).await;
        works(&mut world.pool.open(&1, &to(ECHO)).await.unwrap()).await;
        assert_eq!(world.dials(), 3, "an evicted tunnel takes no new stream");
        assert_eq!(world.pool.kill(|key| *key == 2), 1);
        assert!(two.read(&mut [0; 4]).await.is_err());
        works(&mut one).await;
    });
}

#[test]
fn a_tunnel_dialled_for_an_evicted_key_is_not_used() {
    run(async {
        let world = World::default();
        world.pipes.delay.set(Duration::from_secs(1));
        let pool = world.pool.clone();
        let waiting = tokio::task::spawn_local(async move { pool.open(&1, &to(ECHO)).await });
        until("the dial has begun", || world.dials() == 1).await;
        world.pool.kill(|_| true);
        assert!(waiting.await.unwrap().unwrap_err().never_sent());
        assert_eq!(world.pool.stats().keys, 0);
    });
}

#[test]
fn a_draining_pool_opens_nothing_and_lets_streams_finish() {
    run(async {
        let world = World::default();
        let mut stream = world.open(ECHO).await;
        world.pool.drain();
        assert!(matches!(world.pool.open(&1, &to(ECHO)).await, Err(OpenError::Draining)));
        works(&mut stream).await;
        drop(stream);
        let report = world.pipes.reports.borrow_mut().pop().unwrap();
        assert_eq!(report.await.unwrap().end, ServeEnd::Finished);
    });
}

/// A stream that waits on a tunnel whose server says nothing; what becomes of it.
async fn waiting(world: &World) -> tokio::task::JoinHandle<Result<TunnelStream, OpenError>> {
    world.pipes.silent.set(true);
    let pool = world.pool.clone();
    let opening = tokio::task::spawn_local(async move { pool.open(&1, &to(ECHO)).await });
    until("a tunnel", || world.pool.stats().tunnels == 1).await;
    opening
}

#[test]
fn a_server_that_answers_keeps_its_streams_whatever_is_believed_of_it() {
    run(async {
        let world = World::default();
        let mut stream = world.open(ECHO).await;
        for _ in 0..3 {
            world.pool.doubt(|_| true);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_secs(80)).await;
        works(&mut stream).await;
        assert_eq!((world.dials(), world.pool.stats().tunnels), (1, 1));
    });
}

#[test]
fn what_waits_for_a_server_that_is_gone_ends() {
    run(async {
        let world = World::default();
        let opening = waiting(&world).await;
        world.pool.doubt(|key| *key == 2);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!opening.is_finished(), "it was another that is gone");
        let began = tokio::time::Instant::now();
        world.pool.doubt(|key| *key == 1);
        let error = opening.await.unwrap().unwrap_err();
        assert!(!matches!(error, OpenError::TimedOut), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        until("no tunnel", || world.pool.stats().keys == 0).await;
    });
}

#[test]
fn a_doubt_shortens_what_a_ping_under_way_is_waited_for_also_on_a_tunnel_that_takes_no_more_streams() {
    run(async {
        let limits = TunnelLimits { open_timeout: Duration::from_secs(600), ..TunnelLimits::default() };
        let world = World::new(limits, ServerLimits::default());
        let opening = waiting(&world).await;
        tokio::time::sleep(limits.ping_interval + Duration::from_secs(1)).await;
        world.pool.evict(|_| true);
        let began = tokio::time::Instant::now();
        world.pool.doubt(|_| true);
        assert!(opening.await.unwrap().is_err());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    });
}

#[test]
fn a_dial_to_a_server_that_is_gone_is_given_up_and_the_next_one_is_another() {
    run(async {
        let world = World::default();
        world.pipes.delay.set(Duration::from_secs(5));
        let (pool, began) = (world.pool.clone(), tokio::time::Instant::now());
        let waiting = tokio::task::spawn_local(async move { pool.open(&1, &to(ECHO)).await });
        until("a dial", || world.pool.stats().dialling == 1).await;
        world.pool.doubt(|_| true);
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!((error.reason(), error.never_sent()), ("dial_unreachable", true));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // Whoever has the address next is dialled anew, whatever becomes of the dial before.
        works(&mut world.open(ECHO).await).await;
        assert_eq!((world.dials(), world.pool.stats().tunnels), (2, 1));
    });
}
