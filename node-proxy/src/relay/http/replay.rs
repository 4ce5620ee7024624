//! A request's body from the client, kept for another try as far as it fits, and copied to mirrors.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use weft_core::reason::Reason;

use super::body::{BodyError, Progress};
use super::client::ClientBody;
use super::interim::Gate;
use super::mirror::Tee;

/// Most bytes of a request's body that are kept for another try.
pub(crate) const REPLAY_LIMIT: usize = 64 * 1024;

/// The client's body, and the mirrors that get a copy of each frame.
pub(crate) struct Source {
    body: ClientBody,
    progress: Progress,
    tees: Vec<Tee>,
    gate: Option<Box<Gate>>,
    pause: Option<Box<Pause>>,
}

/// Looks whether anything came, whenever its time is up: a body may pause for between one and two limits.
struct Pause {
    timer: Pin<Box<Sleep>>,
    moved: bool,
}

impl Source {
    pub(super) fn new(body: ClientBody, progress: &Progress, tees: Vec<Tee>, gate: Option<Box<Gate>>) -> Self {
        Self { body, progress: progress.clone(), tees, gate, pause: None }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.progress.asked();
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll(cx));
            self.gate = None;
        }
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if self.is_too_slow(cx) => {
                self.progress.failed(Reason::BodyTimeout);
                self.tees.clear();
                return Poll::Ready(Some(Err(BodyError::Slow)));
            }
            Poll::Pending => return Poll::Pending,
        };
        if let Some(pause) = &mut self.pause {
            pause.moved = true;
        }
        match &frame {
            Some(Ok(frame)) => {
                self.progress.add(frame.data_ref().map_or(0, Bytes::len));
                self.tees.retain_mut(|tee| tee.frame(frame));
                if !self.body.is_end_stream() {
                    self.progress.gave(&self.body.size_hint());
                }
            }
            Some(Err(error)) => {
                let malformed = matches!(error, BodyError::Malformed);
                self.progress.failed(if malformed { Reason::BadRequest } else { Reason::DownstreamReset });
                self.tees.clear();
            }
            None => self.tees.drain(..).for_each(Tee::end),
        }
        Poll::Ready(frame)
    }

    fn is_too_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(limit) = self.progress.patience() else { return false };
        let new = || Box::new(Pause { timer: Box::pin(sleep(limit)), moved: false });
        let pause = self.pause.get_or_insert_with(new);
        while pause.timer.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut pause.moved) {
                return true;
            }
            pause.timer.as_mut().reset(Instant::now() + limit);
        }
        false
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.progress.over();
    }
}

/// What all tries of one request share.
struct Shared {
    source: RefCell<Source>,
    kept: RefCell<Vec<Kept>>,
    bytes: Cell<usize>,
    /// More came than is kept: there can be no other try.
    overflown: Cell<bool>,
    ended: Cell<bool>,
    /// The number of the try that may read.
    current: Cell<u32>,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Makes the body of each try.
#[derive(Clone)]
pub(crate) struct Replays(Rc<Shared>);

impl Replays {
    pub(crate) fn new(source: Source) -> Self {
        Self(Rc::new(Shared {
            source: RefCell::new(source),
            kept: RefCell::default(),
            bytes: Cell::new(0),
            overflown: Cell::new(false),
            ended: Cell::new(false),
            current: Cell::new(0),
        }))
    }

    /// Whether the body can be sent from its start once more.
    pub(crate) fn can_replay(&self) -> bool {
        !self.0.overflown.get()
    }

    /// The body from its start. What an earlier try still holds breaks off.
    pub(crate) fn next(&self) -> Replay {
        self.0.current.set(self.0.current.get() + 1);
        Replay { shared: Rc::clone(&self.0), number: self.0.current.get(), position: 0 }
    }

    /// No further try will be made: nothing more is kept.
    pub(crate) fn settle(&self) {
        self.0.overflown.set(true);
    }
}

/// The body of one try.
pub(crate) struct Replay {
    shared: Rc<Shared>,
    number: u32,
    position: usize,
}

impl Replay {
    pub(crate) fn is_end_stream(&self) -> bool {
        self.shared.ended.get() && self.position >= self.shared.kept.borrow().len()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        // Exact while nothing was read, which is when a codec asks.
        let mut hint = self.shared.source.borrow().size_hint();
        let kept: u64 = self.shared.kept.borrow().iter().skip(self.position).map(Kept::len).sum();
        match hint.exact() {
            Some(left) => hint.set_exact(left + kept),
            None => hint = SizeHint::default(),
        }
        hint
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &*self.shared;
        if shared.current.get() != self.number {
            return Poll::Ready(Some(Err(BodyError::Broken)));
        }
        if let Some(kept) = shared.kept.borrow().get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(kept.clone().into_frame())));
        }
        if shared.ended.get() {
            return Poll::Ready(None);
        }
        let frame = ready!(shared.source.borrow_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if shared.keep(frame) {
                    self.position += 1;
                } else {
                    self.position = 0;
                }
            }
            Some(Err(_)) => shared.overflown.set(true),
            None => shared.ended.set(true),
        }
        Poll::Ready(frame)
    }
}

impl Shared {
    /// Whether the frame was kept; if not, nothing is any more.
    fn keep(&self, frame: &Frame<Bytes>) -> bool {
        let mut kept = self.kept.borrow_mut();
        let bytes = self.bytes.get() + frame.data_ref().map_or(0, Bytes::len);
        if self.overflown.get() || bytes > REPLAY_LIMIT {
            self.overflown.set(true);
            kept.clear();
            return false;
        }
        self.bytes.set(bytes);
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => kept.push(Kept::Data(data.clone())),
            (None, Some(trailers)) => kept.push(Kept::Trailers(trailers.clone())),
            (None, None) => return false,
        }
        true
    }
}

impl Kept {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}
