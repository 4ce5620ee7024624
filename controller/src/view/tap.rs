//! `POST /v1/tap`: requests as they pass, of all proxies in one stream of lines ([`weft_core::tap`]).
//!
//! Each proxy looks for itself at what is asked for, at its own limits; what it sends comes together here. A reader that is
//! slow makes the proxies' queues full, where it is dropped and counted: nothing is held here.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use weft_core::tap::{LONGEST, Line, Lines, PATH, Record, Tap};
use weft_kube::User;

use super::auth::{Refused, Resource};
use super::proxies::{Proxies, Proxy};
use super::server::{Answer, Asked, View, streamed};

/// Taps of one replica at the same time.
pub const AT_ONCE: usize = 16;
/// How often proxies that have come are looked for, the right is asked about again, and a reader hears that nothing happens.
const LOOK: Duration = Duration::from_secs(15);
const REVIEW: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(10);
/// Lines that may wait on their way.
const QUEUE: usize = 64;
/// Proxies that are connected to at the same time.
const DIALS: usize = 64;
/// Of what a proxy says against it, so many bytes are read.
const EXCUSE: usize = 4096;

/// Begins a tap, if whoever asks may.
pub(super) async fn answer(view: &Arc<View>, asked: &Asked) -> Result<Answer, Refused> {
    let bad = |why: String| Refused::new(StatusCode::BAD_REQUEST, why);
    let tap: Tap = serde_json::from_slice(&asked.body).map_err(|error| bad(format!("no tap: {error}")))?;
    tap.check().map_err(bad)?;
    let namespace = &tap.filter.namespace;
    let filter = serde_json::to_string(&tap.filter).unwrap_or_default();
    let user = view.guard.authorize(asked.token(), namespace, Resource::Taps).await.inspect_err(|refused| {
        tracing::warn!(target: "audit", namespace, filter, status = refused.status.as_u16(), why = refused.why, "tap refused");
    })?;
    let turn = Arc::clone(&view.taps).try_acquire_owned();
    let turn = turn.map_err(|_| Refused::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY))?;
    let (seconds, query) = (tap.seconds, tap.query);
    tracing::info!(target: "audit", user = user.name(), namespace, filter, seconds, query, "tap");
    let (lines, sent) = mpsc::channel(QUEUE);
    let running = Running::new(Arc::clone(view), tap, (user, asked.token().unwrap_or_default().to_owned()), lines);
    tokio::spawn(async move {
        running.run().await;
        drop(turn);
    });
    let frames = ReceiverStream::new(sent).map(|line: Line| Ok(Frame::data(Bytes::from(line.text()))));
    Ok(streamed(StatusCode::OK, "application/x-ndjson", BodyExt::boxed_unsync(StreamBody::new(frames))))
}

const TOO_MANY: &str = "16 taps run already, which is all that one replica of the controller serves: try again later";

/// What is heard of a proxy.
enum Heard {
    Joined,
    Line(Line),
    Gone(String),
}

/// A tap under way.
struct Running {
    view: Arc<View>,
    tap: Tap,
    who: (User, String),
    lines: mpsc::Sender<Line>,
    count: u64,
    /// Those that are listened to, or were gone since the last look.
    known: HashSet<IpAddr>,
    /// Why proxies aren't heard, as it was said.
    excuses: HashMap<Arc<str>, String>,
    dropped: HashMap<IpAddr, u64>,
}

impl Running {
    fn new(view: Arc<View>, tap: Tap, who: (User, String), lines: mpsc::Sender<Line>) -> Self {
        let (known, excuses, dropped) = (HashSet::new(), HashMap::new(), HashMap::new());
        Self { view, tap, who, lines, count: 0, known, excuses, dropped }
    }

    /// Runs until it has lasted for its time, has seen enough, its reader is gone or may not read any more.
    async fn run(mut self) {
        let end = sleep_until(Instant::now() + Duration::from_secs(u64::from(self.tap.seconds)));
        tokio::pin!(end);
        let (heard, mut hears) = mpsc::channel(QUEUE);
        let (mut listeners, dials) = (JoinSet::new(), Arc::new(Semaphore::new(DIALS)));
        let (mut look, mut review, mut quiet) = (interval(LOOK), interval(REVIEW), interval(QUIET));
        for ticks in [&mut look, &mut review, &mut quiet] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let why = loop {
            let line = tokio::select! {
                () = self.lines.closed() => return self.over("its reader is gone"),
                () = &mut end => break format!("{} s are over", self.tap.seconds),
                _ = look.tick() => {
                    while listeners.try_join_next().is_some() {}
                    for proxy in self.newcomers().await {
                        // When it ends is decided here.
                        let tap = Tap { seconds: LONGEST, count: 0, ..self.tap.clone() };
                        let proxies = self.view.proxies.clone();
                        let (heard, dials) = (heard.clone(), Arc::clone(&dials));
                        listeners.spawn(listen(proxies, proxy, tap, heard, dials));
                    }
                    None
                }
                _ = review.tick() => match self.may_go_on().await {
                    Ok(()) => None,
                    Err(refused) => break refused.why,
                },
                _ = quiet.tick() => Some(Line::Quiet),
                Some((proxy, what)) = hears.recv() => self.hear(&proxy, what),
            };
            if let Some(line) = line {
                quiet.reset();
                if self.lines.send(line).await.is_err() {
                    return self.over("its reader is gone");
                }
            }
            if self.tap.count > 0 && self.count >= self.tap.count {
                break format!("{} are seen", self.count);
            }
        };
        self.over(&why);
        // Who doesn't read any more doesn't read the end either.
        let _ = tokio::time::timeout(QUIET, self.lines.send(Line::End(why))).await;
    }

    fn over(&self, why: &str) {
        let (user, namespace) = (self.who.0.name(), &self.tap.filter.namespace);
        tracing::info!(target: "audit", user, namespace, seen = self.count, why, "tap is over");
    }

    async fn may_go_on(&self) -> Result<(), Refused> {
        let asked = self.view.guard.authorize(Some(&self.who.1), &self.tap.filter.namespace, Resource::Taps).await;
        match asked {
            // What nobody can say now was said at the beginning.
            Err(refused) if refused.status == StatusCode::SERVICE_UNAVAILABLE => Ok(()),
            asked => asked.map(drop),
        }
    }

    /// Proxies that aren't listened to yet.
    async fn newcomers(&mut self) -> Vec<Proxy> {
        let all = match self.view.proxies.all().await {
            Ok(all) => all,
            Err(why) => {
                // Those that are known go on; without any, the reader sees that nobody has joined.
                tracing::warn!("tap: {why}");
                return Vec::new();
            }
        };
        all.into_iter().filter(|proxy| self.known.insert(proxy.address)).collect()
    }

    fn hear(&mut self, proxy: &Proxy, what: Heard) -> Option<Line> {
        match what {
            Heard::Joined => {
                self.excuses.remove(&proxy.name);
                Some(Line::Joined(vec![proxy.name.to_string()]))
            }
            Heard::Line(Line::Seen(record)) => self.seen(proxy, record),
            Heard::Line(Line::Dropped(dropped)) => {
                self.dropped.insert(proxy.address, dropped);
                Some(Line::Dropped(self.dropped.values().fold(0, |sum, more| sum.saturating_add(*more))))
            }
            Heard::Line(_) => None,
            Heard::Gone(why) => {
                // It is asked again at the next look, if it is still there.
                self.known.remove(&proxy.address);
                let said = self.excuses.insert(Arc::clone(&proxy.name), why.clone());
                (said.as_ref() != Some(&why)).then(|| Line::Left { proxy: proxy.name.to_string(), why })
            }
        }
    }

    /// What a proxy shows beyond what was allowed is shown to nobody, whatever is wrong with it.
    fn seen(&mut self, proxy: &Proxy, mut record: Box<Record>) -> Option<Line> {
        let allowed = self.tap.filter.is_within(&record.source_namespace, &record.destination_namespace);
        if !allowed || self.tap.count > 0 && self.count >= self.tap.count {
            return None;
        }
        self.count = self.count.saturating_add(1);
        record.proxy = proxy.name.to_string();
        record.cut();
        Some(Line::Seen(record))
    }
}

/// Listens to one proxy to the end of its answer.
async fn listen(proxies: Proxies, proxy: Proxy, tap: Tap, heard: mpsc::Sender<(Proxy, Heard)>, dials: Arc<Semaphore>) {
    let why = match follow(&proxies, &proxy, &tap, &heard, &dials).await {
        Ok(why) => why,
        Err(error) => format!("{error:#}"),
    };
    let _ = heard.send((proxy, Heard::Gone(why))).await;
}

async fn follow(
    proxies: &Proxies,
    proxy: &Proxy,
    tap: &Tap,
    heard: &mpsc::Sender<(Proxy, Heard)>,
    dials: &Semaphore,
) -> anyhow::Result<String> {
    let turn = dials.acquire().await?;
    let io = proxies.dial(proxy).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let request = Request::builder().method(Method::POST).uri(format!("http://proxy{PATH}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let response = sender.send_request(request.body(Full::new(Bytes::from(serde_json::to_vec(tap)?)))?).await?;
    drop(turn);
    let status = response.status();
    if !status.is_success() {
        let said = Limited::new(response.into_body(), EXCUSE).collect().await.map_err(anyhow::Error::from_boxed)?;
        return Ok(format!("{status}: {}", String::from_utf8_lossy(&said.to_bytes()).trim()));
    }
    if heard.send((proxy.clone(), Heard::Joined)).await.is_err() {
        return Ok(String::new());
    }
    read(response.into_body(), proxy, heard).await
}

/// Hands lines on, and says why they ended.
async fn read(mut body: Incoming, proxy: &Proxy, heard: &mpsc::Sender<(Proxy, Heard)>) -> anyhow::Result<String> {
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        for line in lines.push(&data)? {
            if let Line::End(why) = line {
                return Ok(why);
            }
            if heard.send((proxy.clone(), Heard::Line(line))).await.is_err() {
                return Ok(String::new());
            }
        }
    }
    Ok("it has ended without a word".to_owned())
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[path = "tests/tap.rs"]
pub(super) mod tests;
