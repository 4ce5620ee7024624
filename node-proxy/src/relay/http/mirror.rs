//! Copies of a request for mirrors: each has its own connection, its answer is thrown away, and one that cannot keep
//! up is cut off, so that the original never waits.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::body::BodyError;

/// Frames that a mirror may lag behind the original: at most 16 reads of the codec.
const MAX_LAG: usize = 16;

enum Piece {
    Frame(Frame<Bytes>),
    End,
}

/// The original's end: hands over frames without waiting.
pub(crate) struct Tee(mpsc::Sender<Piece>);

/// The mirror's end: a body that breaks off when the original does.
pub(crate) struct Copy {
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
    hint: SizeHint,
}

/// A tee and its copy; the hint is the original's.
pub(crate) fn tee(hint: SizeHint) -> (Tee, Copy) {
    let (sender, pieces) = mpsc::channel(MAX_LAG);
    (Tee(sender), Copy { pieces, ended: false, hint })
}

impl Tee {
    /// Whether the mirror kept up.
    pub(crate) fn frame(&mut self, frame: &Frame<Bytes>) -> bool {
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => return true,
        };
        self.0.try_send(Piece::Frame(copy)).is_ok()
    }

    /// The original is complete.
    pub(crate) fn end(self) {
        // A mirror that is full or gone breaks off.
        let _ = self.0.try_send(Piece::End);
    }
}

impl Copy {
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.hint
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Frame(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Piece::End) => {
                self.ended = true;
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(BodyError::Broken))),
        }
    }
}
