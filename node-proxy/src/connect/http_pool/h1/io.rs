//! Bytes from and to an endpoint, with as few copies as each kind of stream allows.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::super::super::UpstreamStream;

/// The most that one read takes.
const READ: usize = 64 * 1024;
/// Reads up to this size are copied out of the thread's buffer; bigger ones take their piece of it along.
const COPY_UP_TO: usize = 8 * 1024;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Appends what has come; false at the end of what the endpoint sends.
pub(super) fn poll_receive(
    stream: &mut UpstreamStream,
    cx: &mut Context<'_>,
    received: &mut Bytes,
) -> Poll<io::Result<bool>> {
    let more = match stream {
        UpstreamStream::Tunnel(tunnel) => match ready!(tunnel.poll_data(cx)) {
            Some(data) => {
                let data = data?;
                // What is taken is on its way to the client, which is asked for room before more is taken.
                tunnel.release(data.len());
                data
            }
            None => return Poll::Ready(Ok(false)),
        },
        UpstreamStream::Tcp(tcp) => {
            ready!(tcp.poll_read_ready(cx))?;
            ready!(poll_read(tcp, cx))?
        }
        UpstreamStream::Local(local) => ready!(poll_read(local, cx))?,
        UpstreamStream::Tls(tls) => ready!(poll_read(tls, cx))?,
        UpstreamStream::Pipe(pipe) => ready!(poll_read(pipe, cx))?,
    };
    if more.is_empty() {
        return Poll::Ready(Ok(false));
    }
    if received.is_empty() {
        *received = more;
    } else {
        *received = [received.as_ref(), &more].concat().into();
    }
    Poll::Ready(Ok(true))
}

fn poll_read<T: AsyncRead + Unpin>(io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        // Allocates nothing while the last piece was copied out or is written.
        buffer.reserve(READ);
        let mut limited = bytes::BufMut::limit(&mut *buffer, READ);
        let n = ready!(poll_read_buf(Pin::new(io), cx, &mut limited))?;
        Poll::Ready(Ok(if n <= COPY_UP_TO { Bytes::copy_from_slice(buffer) } else { buffer.split().freeze() }))
    })
}

/// Sends from the front of both, in this order; one of them must have something.
pub(super) fn poll_send(
    stream: &mut UpstreamStream,
    cx: &mut Context<'_>,
    (head, data): (&mut BytesMut, &mut Bytes),
) -> Poll<io::Result<()>> {
    if let UpstreamStream::Tunnel(tunnel) = stream {
        if head.is_empty() {
            ready!(tunnel.poll_send(cx, data))?;
            return Poll::Ready(Ok(()));
        }
        let mut frozen = head.split().freeze();
        let polled = tunnel.poll_send(cx, &mut frozen);
        if !frozen.is_empty() {
            head.extend_from_slice(&frozen);
        }
        return polled.map_ok(drop);
    }
    let written = if data.is_empty() {
        ready!(Pin::new(&mut *stream).poll_write(cx, head))?
    } else {
        let slices = [IoSlice::new(head), IoSlice::new(data)];
        let from = usize::from(head.is_empty());
        ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices.get(from..).unwrap_or_default()))?
    };
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    let of_head = written.min(head.len());
    head.advance(of_head);
    data.advance(written - of_head);
    Poll::Ready(Ok(()))
}

/// Whether a stream from which nothing is expected has something, its end included.
pub(super) fn is_readable(stream: &mut UpstreamStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    match stream {
        UpstreamStream::Tunnel(tunnel) => tunnel.poll_data(&mut cx).is_ready(),
        other => Pin::new(other).poll_read(&mut cx, &mut buf).is_ready(),
    }
}

/// Whether an empty line, which ends a head, ends behind `searched`.
pub(super) fn has_empty_line(bytes: &[u8], searched: usize) -> bool {
    // Two bytes back: the line end before may have come earlier.
    let new = bytes.get(searched.saturating_sub(2)..).unwrap_or_default();
    searched == 0 || new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}
