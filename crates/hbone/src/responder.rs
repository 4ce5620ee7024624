//! The answer to one stream of a tunnel.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderValue, Response, StatusCode, Version};

use crate::error::StreamError;
use crate::stream::TunnelStream;

/// An answer that is nothing but a status.
pub(crate) fn status_only(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_2;
    response
}

/// Answers one stream, once. Dropped without an answer, the stream is reset with INTERNAL_ERROR.
#[must_use = "an unanswered stream is reset"]
pub struct Responder {
    unanswered: Rc<RefCell<Option<Unanswered>>>,
}

/// A stream that waits for its handler. The task shares it with the [`Responder`], to see a reset meanwhile.
pub(crate) type Unanswered = (SendResponse<Bytes>, RecvStream);

impl Responder {
    pub(crate) fn new(unanswered: Rc<RefCell<Option<Unanswered>>>) -> Self {
        Self { unanswered }
    }

    /// Answers 200: the destination is connected.
    ///
    /// # Errors
    /// The stream or its tunnel is gone.
    pub fn accept(self) -> io::Result<TunnelStream> {
        let (mut respond, recv) = self.take()?;
        let send = respond.send_response(status_only(StatusCode::OK), false).map_err(StreamError::from)?;
        Ok(TunnelStream::new(send, recv, None))
    }

    /// Answers with a status other than 200: 401 if policy denies, 503 if the destination can't be connected.
    ///
    /// # Errors
    /// The stream or its tunnel is gone.
    pub fn refuse(self, status: StatusCode) -> io::Result<()> {
        self.refuse_with(status_only(status))
    }

    /// The same, with more on why for a peer of our kind ([`crate::REASON`]); others pass it over.
    ///
    /// # Errors
    /// The stream or its tunnel is gone.
    pub fn refuse_because(self, status: StatusCode, reason: &'static str) -> io::Result<()> {
        let mut response = status_only(status);
        response.headers_mut().insert(crate::REASON, HeaderValue::from_static(reason));
        self.refuse_with(response)
    }

    fn refuse_with(self, response: Response<()>) -> io::Result<()> {
        let (mut respond, _recv) = self.take()?;
        respond.send_response(response, true).map_err(StreamError::from)?;
        Ok(())
    }

    fn take(&self) -> io::Result<Unanswered> {
        self.unanswered.borrow_mut().take().ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Ok((mut respond, _recv)) = self.take() {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// What a stream costs while its handler waits, without the handler.
const _: () = assert!(std::mem::size_of::<Responder>() <= 16);

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}
