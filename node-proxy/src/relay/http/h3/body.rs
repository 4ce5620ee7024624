//! The body of a request as it comes: frame by frame, and only as fast as somebody takes it, since a client may send no more
//! than what was read and a window.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use quinn::{ReadError, RecvStream};

use super::super::body::BodyError;
use super::code::Code;
use super::frames::{Fault, Frames, HEADERS, Piece, Use};
use super::head;
use super::qpack::{Most, Unread, decode};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Why a request's stream can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client is wrong in a way that ends the connection.
    Connection(Code),
    /// The client is wrong in a way that ends the stream.
    Stream(Code),
    /// A field section is larger than what is taken.
    TooLarge,
    /// The client reset the stream, or the connection is over.
    Gone,
}

impl From<Unread> for Broken {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Malformed => Self::Connection(Code::QpackDecompressionFailed),
            Unread::TooLarge => Self::TooLarge,
        }
    }
}

/// The receiving half of a request's stream.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: RecvStream,
    frames: Frames,
    /// What was read and not looked at yet.
    bytes: Bytes,
    /// Nothing more comes.
    ended: bool,
}

impl Receiver {
    pub(super) fn new(stream: RecvStream, most: Most) -> Self {
        let frames = Frames::new(Use::Request { section: most.bytes });
        Self { stream, frames, bytes: Bytes::new(), ended: false }
    }

    /// The next piece; `None`: the client has said all.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            match self.frames.next(&mut self.bytes) {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(Fault::Connection(code)) => return Poll::Ready(Err(Broken::Connection(code))),
                Err(Fault::TooLarge) => return Poll::Ready(Err(Broken::TooLarge)),
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match ready!(pin!(self.stream.read_chunk(CHUNK, true)).poll(cx)) {
                Ok(Some(chunk)) => self.bytes = chunk.bytes,
                Ok(None) => {
                    self.ended = true;
                    if !self.frames.is_between() {
                        return Poll::Ready(Err(Broken::Connection(Code::FrameError)));
                    }
                }
                Err(ReadError::Reset(_)) => {
                    self.ended = true;
                    return Poll::Ready(Err(Broken::Gone));
                }
                Err(_) => return Poll::Ready(Err(Broken::Gone)),
            }
        }
    }

    /// Asks the client to send no more, and why.
    pub(super) fn stop(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            // Fails only for a stream that has ended.
            let _ = self.stream.stop(code.into());
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Whoever was to read it doesn't need more (RFC 9114, section 4.1).
        self.stop(Code::NoError);
    }
}

/// What the body of a request and whoever answers it tell each other.
#[derive(Debug, Default)]
pub(super) struct Talk {
    wanted: Cell<bool>,
    broken: Cell<Option<Broken>>,
    /// That it broke was said.
    heard: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the one who answers hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Somebody wants the body.
    Wanted,
    /// It broke.
    Broken(Broken),
}

impl Talk {
    fn say(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether the body broke.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    /// What was said since.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Heard> {
        if let Some(broken) = self.broken.get().filter(|_| !self.heard.replace(true)) {
            return Poll::Ready(Heard::Broken(broken));
        }
        if self.wanted.take() {
            return Poll::Ready(Heard::Wanted);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Http3Body {
    receiver: Receiver,
    talk: Rc<Talk>,
    most: Most,
    /// Read already, to find out whether there is a body.
    first: Option<Piece>,
    /// What is still to come by the request's own word (`Content-Length`).
    left: Option<u64>,
    asked: bool,
    over: bool,
}

impl Http3Body {
    pub(super) fn new(
        receiver: Receiver,
        talk: &Rc<Talk>,
        most: Most,
        (first, left): (Option<Piece>, Option<u64>),
    ) -> Self {
        let over = first.is_none() && receiver.ended;
        Self { receiver, talk: Rc::clone(talk), most, first, left, asked: false, over }
    }

    fn piece(&mut self, piece: Option<Piece>) -> Result<Option<Frame<Bytes>>, Broken> {
        let malformed = Broken::Stream(Code::MessageError);
        match piece {
            Some(Piece::Data(data)) => {
                if let Some(left) = &mut self.left {
                    *left = left.checked_sub(data.len() as u64).ok_or(malformed)?;
                }
                Ok(Some(Frame::data(data)))
            }
            _ if self.left.is_some_and(|left| left > 0) => Err(malformed),
            Some(Piece::Frame(HEADERS, section)) => {
                let trailers = head::trailers(decode(&section, self.most)?).map_err(|why| {
                    tracing::debug!("malformed trailers: {why}");
                    malformed
                })?;
                self.over = true;
                Ok(Some(Frame::trailers(trailers)))
            }
            // There is no other kind on a request's stream.
            Some(Piece::Frame(..)) => Err(Broken::Connection(Code::FrameUnexpected)),
            None => {
                self.over = true;
                Ok(None)
            }
        }
    }
}

impl Body for Http3Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut this.asked, true) {
            this.talk.wanted.set(true);
            this.talk.say();
        }
        let piece = match this.first.take() {
            Some(piece) => Ok(Some(piece)),
            None => ready!(this.receiver.poll_next(cx)),
        };
        match piece.and_then(|piece| this.piece(piece)) {
            Ok(frame) => Poll::Ready(frame.map(Ok)),
            Err(broken) => {
                // For trailers there is no status.
                let broken = if broken == Broken::TooLarge { Broken::Stream(Code::ExcessiveLoad) } else { broken };
                this.over = true;
                if let Broken::Stream(code) = broken {
                    this.receiver.stop(code);
                }
                this.talk.broken.set(Some(broken));
                this.talk.say();
                Poll::Ready(Some(Err(BodyError::Stream)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.over => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
