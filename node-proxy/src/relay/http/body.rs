//! Bodies on their way through: never collected, never boxed on the common path.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use weft_core::reason::Reason;

use super::finish::Finish;
use super::grpc_web::WebResponse;
use super::mirror::Copy;
use super::replay::{Replay, Source};
use super::stalled::Taken;
use super::wire::Watched;
use crate::connect::Target;
use crate::connect::http_pool::{ExchangeError, UpstreamBody};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The codec's word.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The client's stream ended before the body, or what came on it wasn't one.
    #[error("the client's stream broke off")]
    Stream,
    /// The endpoint's side.
    #[error(transparent)]
    Endpoint(#[from] ExchangeError),
    /// Its time ran out.
    #[error("the request ran out of time")]
    Timeout,
    /// The client sent nothing of it for too long.
    #[error("the client is too slow")]
    Slow,
    /// It isn't what its content type says.
    #[error("the body is malformed")]
    Malformed,
    /// The original of a mirrored request broke off.
    #[error("the original broke off")]
    Broken,
}

/// How a request's body does on its way upstream.
#[derive(Clone, Default)]
pub(crate) struct Progress(Rc<State>);

#[derive(Default)]
struct State {
    bytes: Cell<u64>,
    answered: Cell<bool>,
    fault: Cell<Option<Reason>>,
    patience: Option<Duration>,
    /// Who is asked.
    target: RefCell<Option<Rc<Target>>>,
    taken: RefCell<Option<Taken>>,
}

impl Progress {
    /// Of a body that must not pause for longer than this before there is an answer.
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self(Rc::new(State { patience, ..State::default() }))
    }

    /// Bytes so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.bytes.get()
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes as u64);
    }

    /// The endpoint answers: from now on both may take their time.
    pub(crate) fn answered(&self) {
        self.0.answered.set(true);
    }

    /// There is a body, and it comes on this connection.
    pub(super) fn comes_on(&self, watched: &Rc<Watched>) {
        *self.0.taken.borrow_mut() = Some(Taken::of(watched));
    }

    /// The next piece of it is asked for.
    pub(super) fn asked(&self) {
        if let Some(taken) = &*self.0.taken.borrow() {
            taken.asked();
        }
    }

    /// A piece of it was given, and so much is left.
    pub(super) fn gave(&self, left: &SizeHint) {
        if let Some(taken) = &*self.0.taken.borrow() {
            taken.gave(left);
        }
    }

    /// Nothing more of it is wanted.
    pub(super) fn over(&self) {
        self.0.taken.take();
    }

    /// How long the body may pause.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.0.patience.filter(|_| !self.0.answered.get())
    }

    /// Why the client's side broke it off.
    pub(crate) fn fault(&self) -> Option<Reason> {
        self.0.fault.get()
    }

    /// Whom it goes to, at this try.
    pub(crate) fn goes_to(&self, target: &Rc<Target>) {
        *self.0.target.borrow_mut() = Some(Rc::clone(target));
    }

    /// Whom it went to at the last try.
    pub(crate) fn target(&self) -> Option<Rc<Target>> {
        self.0.target.borrow().clone()
    }

    pub(crate) fn failed(&self, why: Reason) {
        self.0.fault.set(Some(why));
    }
}

/// A request's body towards the endpoint.
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// As it comes.
    Stream(Source),
    /// As it comes, kept for another try as far as it fits.
    Replay(Replay),
    /// What a mirror gets.
    Copy(Copy),
    /// Read whole before it was decided.
    Whole(Bytes),
}

impl RequestBody {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(source) => source.poll_frame(cx),
            Self::Replay(replay) => replay.poll_frame(cx),
            Self::Copy(copy) => copy.poll_frame(cx),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Replay(replay) => replay.is_end_stream(),
            Self::Copy(_) => false,
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Replay(replay) => replay.size_hint(),
            Self::Copy(copy) => copy.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// An answer's body towards the client; when it ends or is dropped, the exchange is over.
pub(crate) struct ResponseBody {
    kind: ResponseKind,
    /// Until it is over.
    finish: Option<Finish>,
    taken: Option<Taken>,
}

enum ResponseKind {
    Local(Bytes),
    Stream(EndpointBody),
}

/// What an endpoint answers, as its client gets it.
enum EndpointBody {
    /// As it comes.
    Plain(UpstreamBody),
    /// Made gRPC-Web's.
    Web(Box<WebResponse>),
}

impl EndpointBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match self {
            Self::Plain(body) => Pin::new(body).poll_frame(cx),
            Self::Web(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Web(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Web(_) => SizeHint::default(),
        }
    }

    /// What no frame shows any more.
    fn grpc_status(&self) -> Option<u8> {
        match self {
            Self::Plain(_) => None,
            Self::Web(body) => body.status(),
        }
    }
}

impl ResponseBody {
    /// A text of our own.
    pub(crate) fn local(text: Bytes, finish: Option<Finish>) -> Self {
        Self { kind: ResponseKind::Local(text), finish, taken: None }
    }

    /// The endpoint's answer. One without a body is over at once.
    pub(crate) fn upstream(body: UpstreamBody, mut finish: Finish) -> Self {
        let finish = if body.is_end_stream() {
            finish.complete(true);
            None
        } else {
            Some(finish)
        };
        Self::stream(EndpointBody::Plain(body), finish)
    }

    /// The endpoint's answer, made gRPC-Web's: it always has a last frame.
    pub(crate) fn web(body: WebResponse, finish: Finish) -> Self {
        Self::stream(EndpointBody::Web(Box::new(body)), Some(finish))
    }

    fn stream(body: EndpointBody, finish: Option<Finish>) -> Self {
        let taken = finish.as_ref().map(|finish| Taken::of(finish.watched()));
        // Nobody may ever ask for its first piece.
        if let Some(taken) = &taken {
            taken.gave(&body.size_hint());
        }
        Self { kind: ResponseKind::Stream(body), finish, taken }
    }

    fn over(&mut self, whole: bool) {
        self.taken = None;
        if let Some(mut finish) = self.finish.take() {
            finish.complete(whole);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let body = match &mut this.kind {
            ResponseKind::Local(text) => {
                let text = std::mem::take(text);
                this.over(true);
                return Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))));
            }
            ResponseKind::Stream(body) => body,
        };
        if let Some(taken) = &this.taken {
            taken.asked();
        }
        let polled = body.poll_frame(cx);
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if this.finish.as_mut().is_some_and(|finish| finish.poll_deadline(cx)) {
                    this.over(false);
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
                return Poll::Pending;
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                let (ended, status) = (body.is_end_stream(), body.grpc_status());
                if let Some(finish) = &mut this.finish {
                    finish.frame(frame);
                    finish.told(status);
                }
                if ended {
                    this.over(true);
                } else if let Some(taken) = &this.taken {
                    taken.gave(&body.size_hint());
                }
            }
            Some(Err(_)) => this.over(false),
            None => this.over(true),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Endpoint)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseKind::Local(text) => text.is_empty(),
            ResponseKind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseKind::Local(text) => SizeHint::with_exact(text.len() as u64),
            ResponseKind::Stream(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_moves_cheaply() {
        assert!(size_of::<RequestBody>() <= 96, "{}", size_of::<RequestBody>());
    }
}
