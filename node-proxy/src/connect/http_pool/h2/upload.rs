//! The body of a request on its way to the endpoint.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, SendStream};
use bytes::Bytes;
use futures::FutureExt as _;
use http_body::{Body as _, Frame};
use tokio::task::AbortHandle;

use crate::relay::http::RequestBody;

/// A body that is being sent. Dropped, it is given up, and its stream reset.
pub(super) struct Uploading(Option<AbortHandle>);

impl Uploading {
    /// Lets it go on by itself, until it is over or the endpoint wants no more.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Sends a body as far as the endpoint's windows let it; `None`: that was all of it.
pub(super) fn start(body: RequestBody, stream: SendStream<Bytes>) -> Option<Uploading> {
    let mut upload = Box::pin(Upload { body, stream, next: None });
    // Most bodies are here already, and need no task.
    match upload.as_mut().now_or_never() {
        Some(()) => None,
        None => Some(Uploading(Some(tokio::task::spawn_local(upload).abort_handle()))),
    }
}

struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// What waits for a window, and whether it is the last of the body.
    next: Option<(Bytes, bool)>,
}

impl Future for Upload {
    type Output = ();

    /// Whatever goes wrong shows where the answer is waited for.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            // Also to be woken by it.
            if this.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            if let Some((data, last)) = this.next.take() {
                if this.stream.capacity() > 0 {
                    if this.stream.send_data(data, last).is_err() || last {
                        return Poll::Ready(());
                    }
                    continue;
                }
                this.next = Some((data, last));
                match ready!(this.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
            }
            let over = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => this.take(frame),
                Some(Err(error)) => {
                    this.stream.send_reset(reason_of(&error));
                    true
                }
                None => {
                    // Fails if the endpoint wants no more.
                    let _ = this.stream.send_data(Bytes::new(), true);
                    true
                }
            };
            if over {
                return Poll::Ready(());
            }
        }
    }
}

impl Upload {
    /// Whether that was the end.
    fn take(&mut self, frame: Frame<Bytes>) -> bool {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {
                let last = self.body.is_end_stream();
                self.stream.send_data(data, last).is_err() || last
            }
            Ok(data) => {
                // Not more: what waits must not take the connection's window from others.
                self.stream.reserve_capacity(1);
                self.next = Some((data, self.body.is_end_stream()));
                false
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.stream.reserve_capacity(0);
                    // Fails if the endpoint wants no more.
                    let _ = self.stream.send_trailers(trailers);
                    true
                }
                // Another kind than there are.
                Err(_) => false,
            },
        }
    }
}

/// Why a body broke off, as its client said it.
fn reason_of(error: &(dyn Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<::h2::Error>().and_then(::h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
