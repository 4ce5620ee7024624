//! A load generator: bounded in rate and in count, with every latency and every failure on record.
//!
//! With a rate, requests are due at fixed times and latency counts from when a request was due, not from when it could be
//! sent: a server that stalls pays for everybody it kept waiting (no coordinated omission).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Method, Version};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::http::{Connection, Reply, request};

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub addr: SocketAddr,
    /// `HTTP_11`, or `HTTP_2` with prior knowledge.
    pub version: Version,
    /// The path, or a whole URI.
    pub target: String,
    /// Headers of each request.
    pub headers: Vec<(String, String)>,
    /// The body of each request; GET without, POST with one.
    pub body: Bytes,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Requests to send over all connections.
    pub requests: u64,
    /// Requests per second over all connections; as fast as answers come without.
    pub rate: Option<f64>,
    /// A new connection for each request.
    pub reconnect: bool,
    /// How long one request, with its connection, may take.
    pub deadline: Duration,
    /// The status that counts as success.
    pub expect: u16,
}

/// What happened. `ok` and the failures add up to the requests asked for.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests answered with the expected status and a whole body.
    pub ok: u64,
    /// All others, by what went wrong.
    pub failures: BTreeMap<String, u64>,
    /// Answers by the name of the server that gave them.
    pub pods: BTreeMap<String, u64>,
    /// Microseconds of each successful request.
    pub latency: Histogram<u64>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Load {
    /// 1,000 GETs over one HTTP/1.1 connection, as fast as they are answered.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            version: Version::HTTP_11,
            target: "/".to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            connections: 1,
            requests: 1000,
            rate: None,
            reconnect: false,
            deadline: Duration::from_secs(10),
            expect: 200,
        }
    }

    /// Sends it all and waits for all of it.
    ///
    /// # Errors
    /// Only when this is no load at all; failures of requests are in the report.
    pub async fn run(self) -> Result<Report> {
        ensure!(self.connections > 0 && self.rate.is_none_or(|r| r > 0.0), "no load: {self:?}");
        let start = Instant::now();
        let shared = Arc::new((self, AtomicU64::new(0)));
        let mut workers = JoinSet::new();
        for _ in 0..shared.0.connections {
            workers.spawn(worker(shared.clone(), start));
        }
        let mut report = Report::empty()?;
        while let Some(part) = workers.join_next().await {
            report.merge(&part??)?;
        }
        report.elapsed = start.elapsed();
        Ok(report)
    }
}

async fn worker(shared: Arc<(Load, AtomicU64)>, start: Instant) -> Result<Report> {
    let (load, next) = &*shared;
    let mut report = Report::empty()?;
    let mut connection = None;
    loop {
        let n = next.fetch_add(1, Relaxed);
        if n >= load.requests {
            return Ok(report);
        }
        let due = load.rate.map(|rate| start + Duration::from_secs_f64(n as f64 / rate));
        if let Some(due) = due {
            sleep_until(due).await;
        }
        let since = due.unwrap_or_else(Instant::now);
        match timeout(load.deadline, one(load, &mut connection)).await {
            Ok(Ok(reply)) => {
                report.count(load, &reply, since.elapsed())?;
                // RFC 9112, section 9.6: no more requests on it.
                if reply.header("connection").is_some_and(|text| text.eq_ignore_ascii_case("close")) {
                    connection = None;
                }
            }
            Ok(Err(e)) => {
                connection = None;
                report.fail(format!("{e:#}"));
            }
            Err(_) => {
                connection = None;
                report.fail(format!("no answer in {:?}", load.deadline));
            }
        }
    }
}

async fn one(load: &Load, connection: &mut Option<Connection>) -> Result<Reply> {
    if load.reconnect {
        *connection = None;
    }
    let connection = match connection {
        Some(open) => open,
        none => none.insert(Connection::open(load.addr, load.version).await?),
    };
    let method = if load.body.is_empty() { Method::GET } else { Method::POST };
    let headers: Vec<_> = load.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    connection.send(request(method, &load.target, &headers, load.body.clone())).await
}

impl Report {
    fn empty() -> Result<Self> {
        let latency = Histogram::new(3)?;
        let (failures, pods) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { ok: 0, failures, pods, latency, elapsed: Duration::ZERO })
    }

    fn count(&mut self, load: &Load, reply: &Reply, took: Duration) -> Result<()> {
        if reply.status.as_u16() != load.expect {
            self.fail(format!("status {}", reply.status));
            return Ok(());
        }
        self.ok += 1;
        let pod = reply.header(crate::servers::POD_HEADER.as_str()).unwrap_or_default();
        *self.pods.entry(pod.to_owned()).or_default() += 1;
        Ok(self.latency.record(took.as_micros().try_into()?)?)
    }

    fn fail(&mut self, why: String) {
        *self.failures.entry(why).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        self.ok += other.ok;
        for (mine, theirs) in [(&mut self.failures, &other.failures), (&mut self.pods, &other.pods)] {
            theirs.iter().for_each(|(k, n)| *mine.entry(k.clone()).or_default() += n);
        }
        Ok(self.latency.add(&other.latency)?)
    }

    /// How many requests failed, whatever the reason.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Successful requests per second.
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share (0.5, 0.99) of successful requests stayed within.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(share))
    }
}
