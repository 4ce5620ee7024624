//! The task of a connection: reads and writes its frames, and notices an endpoint that is gone without a word.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::client::Connection;
use ::h2::{Ping, PingPong};
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::Link;
use crate::connect::UpstreamStream;
use crate::relay::http::{Gathered, Gathering};

/// Without an answer for so long, while one is waited for, the endpoint is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A connection that answers no ping for so long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs it to its end.
pub(super) async fn run(
    mut connection: Connection<Gathering<UpstreamStream>, Bytes>,
    written: Gathered<UpstreamStream>,
    link: Rc<Link>,
) {
    let _closed = Closed(Rc::clone(&link));
    let mut watch = connection.ping_pong().map(Watch::new);
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        if watch.as_mut().is_some_and(|watch| watch.is_dead(cx, &link)) {
            return Poll::Ready(None);
        }
        let ended = connection.as_mut().poll(cx);
        // Whether or not that was its last word.
        match written.poll_send(cx) {
            Poll::Ready(Err(_)) if ended.is_pending() => Poll::Ready(None),
            _ => ended.map(Some),
        }
    });
    match ended.await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!("upstream connection ended: {error}"),
        None => tracing::debug!("upstream connection ended: the endpoint is gone"),
    }
}

/// Whatever way it ends, nobody sends another request on it.
struct Closed(Rc<Link>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Asks an endpoint that is silent.
struct Watch {
    pings: PingPong,
    /// Until it is time to ask, or to have heard.
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl Watch {
    fn new(pings: PingPong) -> Self {
        Self { pings, timer: Box::pin(sleep(PING_INTERVAL)), asked: false }
    }

    fn is_dead(&mut self, cx: &mut Context<'_>, link: &Link) -> bool {
        loop {
            if self.asked && self.pings.poll_pong(cx).is_ready() {
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            if self.asked {
                return true;
            }
            let silent = !link.heard.replace(false) && link.sent.get() > 0;
            self.asked = silent && self.pings.send_ping(Ping::opaque()).is_ok();
            let wait = if self.asked { PING_TIMEOUT } else { PING_INTERVAL };
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }
}
