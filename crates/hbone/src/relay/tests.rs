use std::net::SocketAddr;
use std::pin::pin;
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// An application on both ends of a relay: `(near app, far app, the relay)`.
fn pair(pipe: usize, options: Options<'static>) -> (DuplexStream, DuplexStream, JoinHandle<Report>) {
    let (near, first) = duplex(pipe);
    let (second, far) = duplex(pipe);
    let relay =
        tokio::task::spawn_local(
            async move { between(&mut Socket::new(first), &mut Socket::new(second), options).await },
        );
    (near, far, relay)
}

fn run<F: Future<Output = ()>>(paused: bool, test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60 * 60), test).await.expect("the test hangs");
    });
}

#[test]
fn bytes_go_both_ways_and_each_half_closes_by_itself() {
    run(true, async {
        let (mut near, mut far, relay) = pair(1024, Options::default());
        near.write_all(b"hello").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
        far.write_all(b"and back").await.unwrap();
        far.shutdown().await.unwrap();
        got.clear();
        near.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"and back");
        let want = Report { to_second: 5, to_first: 8, end: End::Closed(Which::First) };
        assert_eq!(relay.await.unwrap(), want);
    });
}

#[test]
fn a_megabyte_through_a_narrow_pipe_arrives_unchanged() {
    run(true, async {
        let (near, far, relay) = pair(3000, Options::default());
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 + (i >> 8)) as u8).collect();
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let echo = tokio::task::spawn_local(async move {
            tokio::io::copy(&mut far_read, &mut far_write).await.unwrap();
            far_write.shutdown().await.unwrap();
        });
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let data = sent.clone();
        let writer = tokio::task::spawn_local(async move {
            near_write.write_all(&data).await.unwrap();
            near_write.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        near_read.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        writer.await.unwrap();
        echo.await.unwrap();
        let report = relay.await.unwrap();
        assert_eq!((report.to_second, report.to_first), (1_000_000, 1_000_000));
    });
}

#[test]
fn an_idle_relay_ends_and_a_used_one_does_not() {
    run(true, async {
        let options = Options { idle: Some(Duration::from_secs(10)), ..Options::default() };
        let (mut near, mut far, relay) = pair(1024, options);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            near.write_all(b"x").await.unwrap();
            far.read_exact(&mut [0]).await.unwrap();
        }
        assert!(!relay.is_finished());
        let since = Instant::now();
        assert_eq!(relay.await.unwrap().end, End::Idle);
        assert!(since.elapsed() <= Duration::from_secs(20));
    });
}

#[test]
fn a_relay_with_bytes_to_write_is_not_idle() {
    run(true, async {
        let options = Options { idle: Some(Duration::from_secs(10)), ..Options::default() };
        let (mut near, mut far, relay) = pair(16, options);
        near.write_all(&[1; 30]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!relay.is_finished(), "the far side is slow, not gone");
        far.read_exact(&mut [0; 30]).await.unwrap();
        assert_eq!(relay.await.unwrap().end, End::Idle);
    });
}

#[test]
fn a_stop_ends_a_relay_with_its_reason() {
    run(true, async {
        let stop = Stop::new();
        let (mut near, _far, relay) = pair(1024, Options { stop: Some(stop.signal()), ..Options::default() });
        near.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.stop("revoked");
        stop.stop("too late");
        assert_eq!(relay.await.unwrap().end.reason(), "revoked");
        // Also when it was pulled before the relay began.
        let (_near, _far, relay) = pair(1024, Options { stop: Some(stop.signal()), ..Options::default() });
        assert_eq!(relay.await.unwrap().end, End::Stopped("revoked"));
    });
}

#[test]
fn one_turn_of_a_busy_relay_is_bounded() {
    run(true, async {
        let (mut near, first) = duplex(8 << 20);
        let (second, _far) = duplex(64 << 20);
        near.write_all(&vec![0; 8 << 20]).await.unwrap();
        let (mut first, mut second) = (Socket::new(first), Socket::new(second));
        let mut relay = pin!(tokio::task::coop::unconstrained(between(&mut first, &mut second, Options::default())));
        let mut cx = Context::from_waker(Waker::noop());
        let mut turns = 0;
        loop {
            assert!(relay.as_mut().poll(&mut cx).is_pending());
            turns += 1;
            // The pipe is empty when its writer has room for all of it again.
            let full = vec![0; 8 << 20];
            let mut room = pin!(near.write(&full));
            match room.as_mut().poll(&mut cx) {
                Poll::Ready(Ok(n)) => assert!(n <= BYTES_PER_TURN + crate::limits::BULK_FRAME, "{n} in one turn"),
                other => panic!("{other:?}"),
            }
            if turns == 8 {
                return;
            }
        }
    });
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

#[test]
fn a_reset_of_one_socket_resets_the_other() {
    run(false, async {
        let (near, first) = tcp_pair().await;
        let (second, mut far) = tcp_pair().await;
        let relay = tokio::task::spawn_local(async move {
            between(&mut Socket::new(first), &mut Socket::new(second), Options::default()).await
        });
        near.reset_on_drop();
        drop(near);
        let error = far.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(relay.await.unwrap().end, End::Failed(Which::First, io::ErrorKind::ConnectionReset));
    });
}

/// A budget of some bytes.
struct Budget {
    most: usize,
    told: Rc<RefCell<Vec<usize>>>,
}

impl Account for Budget {
    fn hold(&mut self, bytes: usize) -> bool {
        self.told.borrow_mut().push(bytes);
        bytes <= self.most
    }
}

#[test]
fn what_waits_for_a_slow_side_is_accounted_and_too_much_ends_the_relay() {
    run(true, async {
        for (most, reads) in [(1 << 20, true), (100, false)] {
            let told = Rc::<RefCell<Vec<usize>>>::default();
            let mut budget = Budget { most, told: Rc::clone(&told) };
            let (mut near, first) = duplex(4096);
            let (second, mut far) = duplex(10);
            let relay = tokio::task::spawn_local(async move {
                let options = Options { account: Some(&mut budget), ..Options::default() };
                between(&mut Socket::new(first), &mut Socket::new(second), options).await
            });
            near.write_all(&[7; 1000]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(told.borrow().first(), Some(&990), "ten fit into the pipe");
            if reads {
                far.read_exact(&mut [0; 1000]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(told.borrow().last(), Some(&0), "given back");
                drop(near);
                drop(far);
                assert!(matches!(relay.await.unwrap().end, End::Closed(_)));
            } else {
                assert_eq!(relay.await.unwrap().end, End::OverBudget);
            }
        }
    });
}

/// A stream whose window is filled behind the back of whoever doesn't read it.
struct Filling {
    first: Option<Bytes>,
    window: Rc<Cell<usize>>,
}

impl Side for Filling {
    const GATHER: usize = 1;

    fn poll_take(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.first.take().map_or(Poll::Pending, |chunk| Poll::Ready(Ok(Some(chunk))))
    }

    fn poll_put(&mut self, _: &mut Context<'_>, _: &mut VecDeque<Bytes>) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn release(&mut self, _: usize) {}

    fn unreleased(&mut self) -> usize {
        self.window.get()
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_aborted(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }

    fn reset(&mut self) {}
}

#[test]
fn what_fills_a_window_while_nobody_is_woken_is_accounted_too() {
    run(true, async {
        let told = Rc::<RefCell<Vec<usize>>>::default();
        let mut budget = Budget { most: 5000, told: Rc::clone(&told) };
        let window = Rc::new(Cell::new(1000));
        let mut from = Filling { first: Some(Bytes::from_static(&[7; 1000])), window: Rc::clone(&window) };
        let (second, _far) = duplex(10);
        let relay = tokio::task::spawn_local(async move {
            let options = Options { account: Some(&mut budget), ..Options::default() };
            between(&mut from, &mut Socket::new(second), options).await
        });
        for more in [1000, 2000, 5000, 5001] {
            window.set(more);
            tokio::time::sleep(2 * LOOK_AGAIN).await;
        }
        assert_eq!(relay.await.unwrap().end, End::OverBudget);
        assert_eq!(*told.borrow(), [1000, 2000, 5000, 5001]);
    });
}
