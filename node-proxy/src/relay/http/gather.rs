//! What an HTTP/2 codec writes, in few pieces.
//!
//! The codec flushes what it has before each frame that comes after one with data. The answers of streams that are ready at
//! once would each be a record of TLS, and a call of the kernel. So what it writes is put together here while it is polled,
//! and goes out when it has nothing more to say for now, or when it is enough for a call of its own.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is put together: what two records of TLS have room for (RFC 8446, section 5.1).
const FULL: usize = 32 << 10;

/// The stream as the codec has it. What was written is sent by [`Gathered`], which has to be asked for that after the codec
/// was polled.
#[derive(Debug)]
pub(crate) struct Gathering<T>(Rc<RefCell<Gather<T>>>);

/// Sends what the codec wrote.
#[derive(Debug)]
pub(crate) struct Gathered<T>(Rc<RefCell<Gather<T>>>);

#[derive(Debug)]
struct Gather<T> {
    io: T,
    /// What the stream has not taken yet, from `at` on. An idle connection has no memory for it.
    queue: Vec<u8>,
    at: usize,
    /// The stream took something since it was flushed.
    unflushed: bool,
    /// It took no more: the codec has to wait, too.
    blocked: bool,
}

/// A stream for a codec, and who sends what the codec writes.
pub(crate) fn gather<T>(io: T) -> (Gathering<T>, Gathered<T>) {
    let both = Rc::new(RefCell::new(Gather { io, queue: Vec::new(), at: 0, unflushed: false, blocked: false }));
    (Gathering(Rc::clone(&both)), Gathered(both))
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    /// Sends what was written so far.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_all(cx);
        self.blocked = sent.is_pending();
        sent
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.queue.get(self.at..).filter(|rest| !rest.is_empty()) {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += taken;
            self.unflushed = true;
        }
        (self.queue, self.at) = (Vec::new(), 0);
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.blocked || self.queue.len() + total > FULL {
            ready!(self.poll_send(cx))?;
        }
        if total > FULL {
            let taken = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
            self.unflushed = true;
            return Poll::Ready(Ok(taken));
        }
        if self.queue.capacity() == 0 {
            self.queue.reserve_exact(FULL);
        }
        bufs.iter().for_each(|buf| self.queue.extend_from_slice(buf));
        Poll::Ready(Ok(total))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathering<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathering<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, bufs)
    }

    /// Or the codec would copy what is copied here.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to wait for, unless the stream takes no more.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gather = self.0.borrow_mut();
        if gather.blocked { gather.poll_send(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gather = self.0.borrow_mut();
        ready!(gather.poll_send(cx))?;
        Pin::new(&mut gather.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use proptest::prelude::*;

    use super::*;

    /// Takes as much as it has room for.
    #[derive(Debug, Default)]
    struct Stream {
        room: usize,
        writes: Vec<Vec<u8>>,
        /// What it took since it was flushed: with TLS it would still be in its buffer.
        unflushed: usize,
        closed: bool,
    }

    impl AsyncWrite for Stream {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.unflushed += taken;
            self.writes.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.unflushed = 0;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closed = true;
            Poll::Ready(Ok(()))
        }
    }

    struct World {
        codec: Gathering<Stream>,
        sends: Gathered<Stream>,
    }

    impl World {
        fn new(room: usize) -> Self {
            let (codec, sends) = gather(Stream { room, ..Stream::default() });
            Self { codec, sends }
        }

        /// Writes as the codec does: head and data beside each other.
        fn writes(&mut self, head: &[u8], data: &[u8]) -> Poll<usize> {
            let bufs = [IoSlice::new(head), IoSlice::new(data)];
            let waker = noop_waker();
            let wrote = Pin::new(&mut self.codec).poll_write_vectored(&mut Context::from_waker(&waker), &bufs);
            wrote.map(Result::unwrap)
        }

        fn flushes(&mut self) -> Poll<()> {
            let waker = noop_waker();
            Pin::new(&mut self.codec).poll_flush(&mut Context::from_waker(&waker)).map(Result::unwrap)
        }

        fn sends(&self) -> Poll<()> {
            let waker = noop_waker();
            self.sends.poll_send(&mut Context::from_waker(&waker)).map(Result::unwrap)
        }

        fn gives_room(&self, room: usize) {
            self.sends.0.borrow_mut().io.room = room;
        }

        fn sizes(&self) -> Vec<usize> {
            self.sends.0.borrow().io.writes.iter().map(Vec::len).collect()
        }
    }

    #[test]
    fn what_the_codec_writes_goes_out_together() {
        let mut world = World::new(usize::MAX);
        for _ in 0..10 {
            assert_eq!(world.writes(b"head", &[7; 1000]), Poll::Ready(1004));
            assert!(world.flushes().is_ready(), "the codec takes the next frame then");
        }
        assert!(world.sizes().is_empty());
        assert!(world.sends().is_ready());
        assert_eq!(world.sizes(), [10_040]);
        assert_eq!(world.sends.0.borrow().io.unflushed, 0);
        assert_eq!(world.sends.0.borrow().queue.capacity(), 0, "an idle connection has no memory for it");
        assert!(world.sends().is_ready());
        assert_eq!(world.sizes(), [10_040], "nothing is sent twice");
    }

    #[test]
    fn only_so_much_is_put_together() {
        let mut world = World::new(usize::MAX);
        for _ in 0..3 {
            assert!(world.writes(&[], &[7; FULL / 2]).is_ready());
        }
        assert_eq!(world.sizes(), [FULL]);
        assert!(world.writes(&[], &[8; FULL + 1]).is_ready());
        assert_eq!(world.sizes()[..2], [FULL, FULL / 2], "what came before goes out before");
        assert!(world.sends().is_ready());
        assert_eq!(world.sends.0.borrow().io.writes.last().unwrap()[..], [8; FULL + 1], "not copied");
    }

    #[test]
    fn the_codec_waits_for_a_stream_that_takes_no_more() {
        let mut world = World::new(0);
        assert!(world.writes(b"head", b"data").is_ready());
        assert!(world.sends().is_pending());
        assert!(world.writes(b"more", &[]).is_pending() && world.flushes().is_pending());
        world.gives_room(5);
        assert!(world.sends().is_pending() && world.writes(b"more", &[]).is_pending());
        world.gives_room(100);
        assert!(world.writes(b"more", &[]).is_ready() && world.flushes().is_ready() && world.sends().is_ready());
        assert_eq!(world.sends.0.borrow().io.writes.concat(), b"headdatamore");
    }

    #[test]
    fn the_end_of_a_connection_comes_after_its_last_byte() {
        let mut world = World::new(0);
        assert!(world.writes(b"goodbye", &[]).is_ready());
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut world.codec).poll_shutdown(&mut cx).is_pending());
        assert!(!world.sends.0.borrow().io.closed);
        world.gives_room(100);
        assert!(Pin::new(&mut world.codec).poll_shutdown(&mut cx).is_ready());
        let gather = world.sends.0.borrow();
        assert_eq!((gather.io.writes.concat(), gather.io.closed), (b"goodbye".to_vec(), true));
    }

    proptest! {
        #[test]
        fn every_byte_goes_out_once_and_in_order(
            steps in prop::collection::vec((0..4_u8, 1..2 * FULL), 1..60),
        ) {
            let (mut world, mut written) = (World::new(0), Vec::new());
            for (step, size) in steps {
                match step {
                    0 | 1 => {
                        let from = written.len();
                        let bytes: Vec<u8> = (from..from + size).map(|at| (at % 251) as u8).collect();
                        if let Poll::Ready(taken) = world.writes(&bytes[..size / 3], &bytes[size / 3..]) {
                            written.extend_from_slice(&bytes[..taken]);
                        }
                    }
                    2 => drop(world.sends()),
                    _ => world.gives_room(size),
                }
                prop_assert!(world.sends.0.borrow().queue.capacity() <= FULL);
            }
            world.gives_room(usize::MAX);
            prop_assert!(world.sends().is_ready());
            let out = world.sends.0.borrow().io.writes.concat();
            prop_assert!(out == written, "{} bytes of {}", out.len(), written.len());
        }
    }
}
