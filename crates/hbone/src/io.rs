//! The transport of a tunnel as the codec sees it: small frames are gathered, reads are rationed.
//!
//! The `h2` codec flushes its writer after every DATA frame of 256 bytes and more, which over TLS is one record and one system
//! call per frame. [`SharedIo`] takes such writes into a buffer, answers the codec's flush at once, and the driver flushes once per
//! turn ([`SharedIo::poll_flush_gathered`]): requests of many streams leave in one record. A frame that is big by itself goes
//! straight through, after what was gathered, in one vectored write, without a copy.
//!
//! Reading ahead of the TLS library, which asks for 4 KiB at a time, was tried and lost some 10 %: the calls it saves cost less
//! than another pass over the bytes. What is left in a profile of bulk over TLS is the library's own copy into the record before
//! it encrypts (8 %) and out of it after it decrypts (3 %); the codec's and ours are below 1 %.
//!
//! Reads are rationed per turn of the driver, so that a tunnel whose socket never runs dry yields to its neighbours.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::TLS_RECORD;

/// Writes below this are copied into the gather buffer; from here on the copy would cost more than the call it saves.
const GATHER_BELOW: usize = TLS_RECORD / 2;

/// The gather buffer: one record's worth. It is given back when it has been flushed, so an idle tunnel holds none.
const GATHER_MAX: usize = TLS_RECORD;

/// How much one turn of the driver reads before it lets other tasks run: some 0.5 ms of a core.
const READS_PER_TURN: usize = 512 << 10;

struct Inner<IO> {
    io: IO,
    gathered: BytesMut,
    /// The codec has asked for a flush that has not been done.
    flush_wanted: bool,
    ration: usize,
}

/// A transport shared by the codec, which owns one handle, and the driver, which flushes through another.
pub(crate) struct SharedIo<IO>(Rc<RefCell<Inner<IO>>>);

impl<IO> Clone for SharedIo<IO> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> SharedIo<IO> {
    pub(crate) fn new(io: IO) -> Self {
        let inner = Inner { io, gathered: BytesMut::new(), flush_wanted: false, ration: READS_PER_TURN };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// A new turn of the driver: reading may go on.
    pub(crate) fn begin_turn(&self) {
        self.0.borrow_mut().ration = READS_PER_TURN;
    }

    /// Writes what was gathered and flushes the transport, if the codec wanted it. The end of every turn.
    pub(crate) fn poll_flush_gathered(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if !inner.flush_wanted {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_empty(cx))?;
        ready!(Pin::new(&mut inner.io).poll_flush(cx))?;
        inner.flush_wanted = false;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> Inner<IO> {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(n);
        }
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, bufs: &[IoSlice<'_>]) {
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(GATHER_MAX);
        }
        for buf in bufs {
            self.gathered.extend_from_slice(buf);
        }
        self.flush_wanted = true;
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if total < GATHER_BELOW {
            if self.gathered.len() + total > GATHER_MAX {
                ready!(self.poll_empty(cx))?;
            }
            self.gather(bufs);
            return Poll::Ready(Ok(total));
        }
        self.flush_wanted = true;
        if self.gathered.is_empty() {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        let ahead = self.gathered.len();
        let n = {
            // The codec hands over at most a few slices; what doesn't fit here is simply not written this time.
            let mut all = [IoSlice::new(&[]); 8];
            let slices = std::iter::once(self.gathered.as_ref()).chain(bufs.iter().map(|buf| &**buf));
            for (slot, slice) in all.iter_mut().zip(slices) {
                *slot = IoSlice::new(slice);
            }
            ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.gathered.advance(n.min(ahead));
        if n > ahead {
            return Poll::Ready(Ok(n - ahead));
        }
        // Nothing of the new bytes was taken. Finish what is gathered first, then come back for them.
        ready!(self.poll_empty(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for SharedIo<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.ration == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        inner.ration = inner.ration.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for SharedIo<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_put(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_put(cx, bufs)
    }

    /// True whatever the transport is: the codec then never copies a payload of 256 bytes or more into its own buffer.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Answers at once: the driver flushes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().flush_wanted = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_empty(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Records what it is given, call by call, taking at most `limit` bytes a call and nothing every other call.
    struct Sink {
        calls: Vec<Vec<u8>>,
        limit: usize,
        balky: bool,
    }

    impl Sink {
        fn new(limit: usize) -> Self {
            Self { calls: Vec::new(), limit, balky: false }
        }
    }

    impl AsyncRead for Sink {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.balky = !self.balky;
            if self.balky && self.limit < usize::MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
            bytes.truncate(self.limit);
            let n = bytes.len();
            self.calls.push(bytes);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn write_all(io: &mut SharedIo<Sink>, header: &[u8], payload: &[u8]) {
        let total = header.len() + payload.len();
        let mut done = 0;
        while done < total {
            let head = header.get(done..).unwrap_or_default();
            let rest = payload.get(done.saturating_sub(header.len())..).unwrap_or_default();
            let slices = [IoSlice::new(head), IoSlice::new(rest)];
            done += poll_fn(|cx| Pin::new(&mut *io).poll_write_vectored(cx, &slices)).await.unwrap();
            // The codec asks for a flush after every frame.
            poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn small_frames_leave_together_and_a_big_one_follows_in_the_same_call() {
        let mut io = SharedIo::new(Sink::new(usize::MAX));
        for _ in 0..10 {
            write_all(&mut io, b"123456789", &[1; 1000]).await;
        }
        assert!(io.0.borrow().io.calls.is_empty(), "nothing leaves before the end of the turn");
        poll_fn(|cx| io.poll_flush_gathered(cx)).await.unwrap();
        assert_eq!(io.0.borrow().io.calls.iter().map(Vec::len).collect::<Vec<_>>(), [10_090]);
        write_all(&mut io, b"123456789", &[1; 100]).await;
        write_all(&mut io, b"123456789", &[2; 60_000]).await;
        poll_fn(|cx| io.poll_flush_gathered(cx)).await.unwrap();
        assert_eq!(io.0.borrow().io.calls.last().map(Vec::len), Some(109 + 60_009));
        assert_eq!(io.0.borrow().gathered.capacity(), 0, "an idle tunnel holds no buffer");
    }

    #[tokio::test]
    async fn a_turn_reads_no_more_than_its_ration() {
        let (mut near, far) = tokio::io::duplex(2 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut near, &vec![0; 2 << 20]).await.unwrap();
        let mut io = SharedIo::new(far);
        let mut got = vec![0; 64 << 10];
        for _ in 0..8 {
            io.read_exact(&mut got).await.unwrap();
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut buf = ReadBuf::new(&mut got);
        assert!(Pin::new(&mut io).poll_read(&mut cx, &mut buf).is_pending());
        io.begin_turn();
        assert!(Pin::new(&mut io).poll_read(&mut cx, &mut buf).is_ready());
    }

    proptest! {
        #[test]
        fn bytes_keep_their_order_however_little_the_transport_takes(
            sizes in proptest::collection::vec(0_usize..40_000, 1..20),
            limit in 1_usize..30_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut io = SharedIo::new(Sink::new(limit.max(500)));
                let mut want = Vec::new();
                for (i, size) in sizes.iter().enumerate() {
                    let header = [i as u8; 9];
                    let payload: Vec<u8> = (0..*size).map(|b| (b ^ i) as u8).collect();
                    want.extend_from_slice(&header);
                    want.extend_from_slice(&payload);
                    write_all(&mut io, &header, &payload).await;
                }
                poll_fn(|cx| io.poll_flush_gathered(cx)).await.unwrap();
                assert!(io.0.borrow().io.calls.concat() == want);
            });
        }
    }
}
