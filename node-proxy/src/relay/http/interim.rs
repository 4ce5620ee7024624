//! Answers before the answer (RFC 9110, section 15.2): what the endpoint says before its final status.
//!
//! A `100 Continue` opens the gate that holds a body back whose client waits for one; the codec then says 100 to that
//! client itself. Others (`103 Early Hints`) are written to the client by [`super::wire`], because the codec has no word
//! for them. All of this on HTTP/1.1 only: the codec shows and takes no interim answers on HTTP/2.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use parking_lot::Mutex;
use tokio::time::{Duration, Sleep};

/// How long a body is held back for an endpoint that says nothing; many never do (RFC 9110, section 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of interim answers that may wait for a client.
const MOST: usize = 16 << 10;

/// Interim answers on their way to one client connection.
#[derive(Debug, Default)]
pub(super) struct Interim {
    bytes: Mutex<Vec<u8>>,
    some: AtomicBool,
    /// The request that may have some: what an endpoint says too late is another's.
    request: AtomicU64,
    wire: AtomicWaker,
}

impl Interim {
    /// Another request begins: what was not written is dropped.
    pub(super) fn next_request(&self) {
        self.request.fetch_add(1, Ordering::Relaxed);
        if self.some.swap(false, Ordering::Acquire) {
            self.bytes.lock().clear();
        }
    }

    fn add(&self, request: u64, status: StatusCode, headers: &HeaderMap) {
        if request != self.request.load(Ordering::Relaxed) {
            return;
        }
        let mut bytes = self.bytes.lock();
        let before = bytes.len();
        if write_head(&mut bytes, status, headers).is_err() || bytes.len() > MOST {
            bytes.truncate(before);
        }
        self.some.store(!bytes.is_empty(), Ordering::Release);
        drop(bytes);
        self.wire.wake();
    }

    /// The task is woken when something waits.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.wire.register(cx.waker());
    }

    /// What waits.
    pub(super) fn take(&self) -> Vec<u8> {
        if !self.some.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.bytes.lock())
    }
}

fn write_head(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) -> std::io::Result<()> {
    const OF_ONE_CONNECTION: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ];
    write!(out, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default())?;
    for (name, value) in headers.iter().filter(|(name, _)| !OF_ONE_CONNECTION.contains(name)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Holds a body back until its endpoint wants it.
pub(super) struct Gate {
    open: Arc<Open>,
    patience: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct Open {
    yes: AtomicBool,
    body: AtomicWaker,
}

impl Gate {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.body.register(cx.waker());
        if self.open.yes.load(Ordering::Acquire) { Poll::Ready(()) } else { self.patience.as_mut().poll(cx) }
    }
}

/// Takes the interim answers to one request.
pub(crate) struct Listener {
    client: Arc<Interim>,
    number: u64,
    /// The gate of a body that waits.
    gate: Option<Arc<Open>>,
}

impl Listener {
    /// The endpoint said something before its answer.
    pub(super) fn told(&self, answer: &Response<()>) {
        if answer.status() != StatusCode::CONTINUE {
            self.client.add(self.number, answer.status(), answer.headers());
        } else if let Some(open) = &self.gate {
            open.yes.store(true, Ordering::Release);
            open.body.wake();
        }
    }
}

/// Listens for interim answers to a request that is about to be sent; the gate, if its client waits for a 100.
pub(super) fn listen(parts: &Parts, client: Arc<Interim>) -> (Listener, Option<Box<Gate>>) {
    let number = client.request.load(Ordering::Relaxed);
    let expects = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let waits = parts.version == Version::HTTP_11 && parts.headers.get(header::EXPECT).is_some_and(expects);
    let gate = waits.then(Arc::<Open>::default);
    let held = gate.clone().map(|open| {
        let patience = Box::pin(tokio::time::sleep(PATIENCE));
        Box::new(Gate { open, patience })
    });
    (Listener { client, number, gate }, held)
}
