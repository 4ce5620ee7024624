//! OTLP over gRPC: spans, and lines of the access log, on their way: for each a queue, a thread of its own, batches by
//! collector.
//!
//! One request to a collector is under way at a time. While it is, what is for that collector waits, up to a limit; a
//! collector that is slow or away costs what is meant for it and nothing else. No worker ever waits.

mod resolve;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};
use weft_api::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use weft_api::opentelemetry::proto::resource::v1::Resource;
use weft_core::ids::NodeName;
use weft_core::telemetry::Collector;

use self::resolve::endpoint;
use crate::store::Store;

/// The version of the semantic conventions that attributes are named by.
pub(crate) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
/// How many may wait for the thread.
pub(crate) const QUEUE: usize = 4096;
/// How many are in one request to a collector.
const BATCH: usize = 512;
/// How many bytes of them, about: far from the 4 MiB that servers of gRPC take.
const BATCH_BYTES: usize = 1 << 20;
/// How many may wait for one collector.
const WAITING: usize = 4096;
/// How long one waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// How many pauses a connection is kept, and what is known of its collector, without anything for it.
const KEPT: u32 = 60;
/// How long connecting may take, and how long a request.
const CONNECT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where things go that no policy sends elsewhere, and what they say of the proxy.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// A collector of OTLP over gRPC, as `http://host:port`.
    pub endpoint: Option<String>,
    /// The node, said of everything.
    pub node: NodeName,
}

/// Whose a span or a line is: its resource, with the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) service: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
}

impl Owner {
    /// The resource, by OpenTelemetry's conventions for services and Kubernetes.
    pub(crate) fn resource(self, node: &NodeName) -> Resource {
        Resource {
            attributes: vec![
                text("service.name", self.service),
                text("service.namespace", self.namespace.clone()),
                text("k8s.namespace.name", self.namespace),
                text("k8s.pod.name", self.pod),
                text("k8s.node.name", node.as_str()),
            ],
        }
    }
}

/// Something that is told.
pub(crate) trait Signal: fmt::Debug + Send + Sized + 'static {
    /// What there are many of, for people.
    const NAME: &'static str;
    /// What its thread is called.
    const THREAD: &'static str;

    /// Where it goes.
    fn collector(&self) -> &Collector;

    /// How many bytes it has in a request, about.
    fn size(&self) -> usize;

    /// Counts some that nobody gets.
    fn dropped(reason: &'static str, count: usize);

    /// Sends some, and says how many were refused.
    fn export(
        batch: Vec<Self>,
        node: &NodeName,
        channel: Channel,
    ) -> impl Future<Output = Result<i64, tonic::Status>> + Send + 'static + use<Self>;
}

/// The workers' end of a queue; the default one takes nothing.
#[derive(Debug)]
pub(crate) struct Queue<T>(Option<mpsc::Sender<Box<T>>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Signal> Queue<T> {
    /// Queues something, or drops and counts it.
    pub(crate) fn send(&self, it: Box<T>) {
        let Some(queue) = &self.0 else { return };
        if queue.try_send(it).is_err() {
            T::dropped("queue", 1);
        }
    }

    /// A queue that nothing empties but its other end.
    #[cfg(test)]
    pub(crate) fn bare() -> (Self, mpsc::Receiver<Box<T>>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Self(Some(sender)), queue)
    }
}

/// Starts the thread. It ends when nobody can send it anything any more.
///
/// # Errors
/// A thread that can't be made.
pub(crate) fn start<T: Signal>(settings: ExportSettings, store: Arc<Store>) -> io::Result<Queue<T>> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(T::THREAD.into()).spawn(move || {
        runtime.block_on(Exporter::<T> { settings, store, sinks: HashMap::new() }.run(queue));
    })?;
    Ok(Queue(Some(sender)))
}

/// What waits for one collector.
#[derive(Debug)]
struct Sink<T> {
    waiting: Vec<T>,
    /// A request is under way.
    busy: bool,
    /// How often there was nothing to send, in a row.
    idle: u32,
    connection: Option<Connection>,
    /// It failed the last time, and somebody was told.
    failing: bool,
}

impl<T> Default for Sink<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), busy: false, idle: 0, connection: None, failing: false }
    }
}

#[derive(Clone, Debug)]
struct Connection {
    address: Option<SocketAddr>,
    channel: Channel,
}

struct Exporter<T> {
    settings: ExportSettings,
    store: Arc<Store>,
    sinks: HashMap<Collector, Sink<T>>,
}

/// How a request ended.
type Sent = (Collector, Result<Connection, (usize, String)>);

impl<T: Signal> Exporter<T> {
    async fn run(mut self, mut queue: mpsc::Receiver<Box<T>>) {
        let mut tick = tokio::time::interval(PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                next = queue.recv() => match next {
                    Some(it) => self.take(*it, &mut under_way),
                    None => break,
                },
                Some(sent) = under_way.join_next() => self.sent(sent),
                _ = tick.tick(), if !self.sinks.is_empty() => self.flush(&mut under_way),
            }
        }
        self.flush(&mut under_way);
        while let Some(sent) = under_way.join_next().await {
            self.sent(sent);
        }
    }

    fn take(&mut self, it: T, under_way: &mut JoinSet<Sent>) {
        let collector = it.collector().clone();
        let sink = self.sinks.entry(collector.clone()).or_default();
        if sink.waiting.len() >= WAITING {
            return T::dropped("collector", 1);
        }
        sink.waiting.push(it);
        if sink.waiting.len() >= BATCH {
            self.export(&collector, under_way);
        }
    }

    fn flush(&mut self, under_way: &mut JoinSet<Sent>) {
        // Collectors that a policy named once and nobody uses any more.
        self.sinks.retain(|_, sink| sink.busy || !sink.waiting.is_empty() || sink.idle <= KEPT);
        let all: Vec<_> = self.sinks.keys().cloned().collect();
        all.iter().for_each(|collector| self.export(collector, under_way));
    }

    fn export(&mut self, collector: &Collector, under_way: &mut JoinSet<Sent>) {
        let Some(sink) = self.sinks.get_mut(collector).filter(|sink| !sink.busy) else { return };
        if sink.waiting.is_empty() {
            sink.idle += 1;
            return;
        }
        sink.idle = 0;
        let batch: Vec<_> = sink.waiting.drain(..batch(&sink.waiting)).collect();
        let kept = sink.connection.take();
        sink.busy = true;
        let (count, collector) = (batch.len(), collector.clone());
        let ready = self.connection(&collector, kept).map(|connection| {
            let request = T::export(batch, &self.settings.node, connection.channel.clone());
            (connection, request)
        });
        under_way.spawn(async move {
            let sent = match ready {
                Ok((connection, request)) => sent::<T>(connection, request.await),
                Err(why) => Err(why),
            };
            (collector, sent.map_err(|why| (count, why)))
        });
    }

    fn connection(&self, collector: &Collector, kept: Option<Connection>) -> Result<Connection, String> {
        let (address, uri) = match collector {
            Collector::Default => (None, self.settings.endpoint.clone().ok_or("no collector is configured")?),
            Collector::Service(port) => {
                let last = kept.as_ref().and_then(|kept| kept.address);
                let found = endpoint(&self.store.load(), port, last);
                let address = found.ok_or_else(|| format!("Service {port} has no endpoint that is ready"))?;
                (Some(address), format!("http://{address}"))
            }
        };
        if let Some(kept) = kept.filter(|kept| kept.address == address) {
            return Ok(kept);
        }
        let endpoint = Endpoint::from_shared(uri).map_err(|error| error.to_string())?;
        let channel = endpoint.connect_timeout(CONNECT).timeout(TIMEOUT).connect_lazy();
        Ok(Connection { address, channel })
    }

    fn sent(&mut self, sent: Result<Sent, tokio::task::JoinError>) {
        let Ok((collector, result)) = sent else { return };
        let Some(sink) = self.sinks.get_mut(&collector) else { return };
        sink.busy = false;
        match result {
            Ok(connection) => {
                sink.connection = Some(connection);
                sink.failing = false;
            }
            Err((count, why)) => {
                T::dropped("export", count);
                if !std::mem::replace(&mut sink.failing, true) {
                    tracing::warn!(?collector, "{} can't be delivered: {why}", T::NAME);
                }
            }
        }
    }
}

/// How many of those that wait are in the next request: one in any case.
fn batch<T: Signal>(waiting: &[T]) -> usize {
    let mut bytes = 0;
    let fits = |it: &&T| {
        bytes += it.size();
        bytes <= BATCH_BYTES
    };
    waiting.iter().take(BATCH).take_while(fits).count().max(1).min(waiting.len())
}

/// Counts what the collector refused of a request.
fn sent<T: Signal>(connection: Connection, answer: Result<i64, tonic::Status>) -> Result<Connection, String> {
    let refused = answer.map_err(|status| format!("{}: {}", status.code(), status.message()))?;
    if refused > 0 {
        T::dropped("refused", usize::try_from(refused).unwrap_or_default());
    }
    Ok(connection)
}

/// Groups what is told by whose it is.
pub(crate) fn by_owner<T>(all: impl IntoIterator<Item = (Owner, T)>) -> HashMap<Owner, Vec<T>> {
    let mut grouped: HashMap<Owner, Vec<T>> = HashMap::new();
    for (owner, it) in all {
        grouped.entry(owner).or_default().push(it);
    }
    grouped
}

/// Who made what is told.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "weft".into(), version: env!("CARGO_PKG_VERSION").into() }
}

/// A moment in the form of OTLP.
pub(crate) fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A text as a value.
pub(crate) fn words(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.into())) }
}

/// An attribute with a text.
pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(words(value)) }
}

/// An attribute with a number.
pub(crate) fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    let value = value.try_into().unwrap_or(i64::MAX);
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(any_value::Value::IntValue(value)) }) }
}
