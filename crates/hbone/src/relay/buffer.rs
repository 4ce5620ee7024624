//! The read buffer of a thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::limits::BULK_FRAME;

/// Reads up to this size are copied out; bigger ones take their piece of the buffer with them. So a piece pins at most eight
/// times its own size, and a connection that sends little doesn't hold 64 KiB per message.
const COPY_UP_TO: usize = 8 << 10;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads what is there, at most one bulk frame. `None` is the end.
pub(super) fn poll_read<IO: AsyncRead + Unpin>(cx: &mut Context<'_>, io: &mut IO) -> Poll<io::Result<Option<Bytes>>> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        // Frees nothing and allocates nothing while the last piece was copied out or has been written.
        buffer.reserve(BULK_FRAME);
        let mut limited = bytes::BufMut::limit(&mut *buffer, BULK_FRAME);
        let n = ready!(poll_read_buf(Pin::new(io), cx, &mut limited))?;
        Poll::Ready(Ok(match n {
            0 => None,
            n if n <= COPY_UP_TO => Some(Bytes::copy_from_slice(buffer)),
            _ => Some(buffer.split().freeze()),
        }))
    })
}
