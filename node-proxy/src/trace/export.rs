//! Spans on their way: a queue, a thread of its own, batches by collector.
//!
//! One request to a collector is under way at a time. While it is, spans for that collector wait, up to a limit; a
//! collector that is slow or away costs its own spans and nobody else's.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::transport::{Channel, Endpoint};
use weft_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use weft_api::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use weft_api::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use weft_api::opentelemetry::proto::resource::v1::Resource;
use weft_api::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use weft_core::ids::NodeName;
use weft_core::telemetry::Collector;

use super::resolve::endpoint;
use crate::store::Store;

/// Spans that may wait for the thread.
const QUEUE: usize = 4096;
/// Spans of one request to a collector.
const BATCH: usize = 512;
/// Spans that may wait for one collector.
const WAITING: usize = 4096;
/// How long a span waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// How many pauses a connection is kept, and what is known of its collector, without a span for it.
const KEPT: u32 = 60;
/// How long connecting may take, and how long a request.
const CONNECT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go that no policy sends elsewhere, and what they say of the proxy.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// A collector of OTLP over gRPC, as `http://host:port`.
    pub endpoint: Option<String>,
    /// The node, said of every span.
    pub node: NodeName,
}

/// Whose a span is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) service: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
}

/// A span that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) collector: Collector,
    pub(crate) owner: Owner,
    pub(crate) span: Span,
}

/// The workers' end of the queue; the default one takes nothing.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<mpsc::Sender<Box<Finished>>>);

impl Spans {
    /// Queues a span, or drops and counts it.
    pub(crate) fn send(&self, span: Box<Finished>) {
        let Some(queue) = &self.0 else { return };
        if queue.try_send(span).is_err() {
            dropped("queue", 1);
        }
    }
}

fn dropped(reason: &'static str, spans: usize) {
    metrics::counter!("weft_trace_spans_dropped_total", "reason" => reason).increment(spans as u64);
}

/// Starts the thread. It ends when nobody can send it anything any more.
///
/// # Errors
/// A thread that can't be made.
pub fn start(settings: ExportSettings, store: Arc<Store>) -> io::Result<Spans> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("otlp".into()).spawn(move || {
        runtime.block_on(Exporter { settings, store, sinks: HashMap::new() }.run(queue));
    })?;
    Ok(Spans(Some(sender)))
}

/// What waits for one collector.
#[derive(Debug, Default)]
struct Sink {
    waiting: Vec<Finished>,
    /// A request is under way.
    busy: bool,
    /// How often there was nothing to send, in a row.
    idle: u32,
    connection: Option<Connection>,
    /// It failed the last time, and somebody was told.
    failing: bool,
}

#[derive(Clone, Debug)]
struct Connection {
    address: Option<SocketAddr>,
    channel: Channel,
}

struct Exporter {
    settings: ExportSettings,
    store: Arc<Store>,
    sinks: HashMap<Collector, Sink>,
}

/// How a request ended.
type Sent = (Collector, Result<Connection, (usize, String)>);

impl Exporter {
    async fn run(mut self, mut queue: mpsc::Receiver<Box<Finished>>) {
        let mut tick = tokio::time::interval(PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                span = queue.recv() => match span {
                    Some(span) => self.take(span, &mut under_way),
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

    fn take(&mut self, span: Box<Finished>, under_way: &mut JoinSet<Sent>) {
        let collector = span.collector.clone();
        let sink = self.sinks.entry(collector.clone()).or_default();
        if sink.waiting.len() >= WAITING {
            return dropped("collector", 1);
        }
        sink.waiting.push(*span);
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
        let batch: Vec<_> = sink.waiting.drain(..sink.waiting.len().min(BATCH)).collect();
        let kept = sink.connection.take();
        sink.busy = true;
        let (connection, count) = (self.connection(collector, kept), batch.len());
        let (collector, request) = (collector.clone(), request(batch, &self.settings.node));
        under_way.spawn(async move {
            let sent = match connection {
                Ok(connection) => send(connection, request).await,
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
            Err((spans, why)) => {
                dropped("export", spans);
                if !std::mem::replace(&mut sink.failing, true) {
                    tracing::warn!(?collector, "spans can't be delivered: {why}");
                }
            }
        }
    }
}

async fn send(connection: Connection, request: ExportTraceServiceRequest) -> Result<Connection, String> {
    let mut client = TraceServiceClient::new(connection.channel.clone());
    match client.export(request).await {
        Ok(answer) => {
            let refused = answer.into_inner().partial_success.filter(|partial| partial.rejected_spans > 0);
            if let Some(partial) = refused {
                dropped("refused", usize::try_from(partial.rejected_spans).unwrap_or_default());
            }
            Ok(connection)
        }
        Err(status) => Err(format!("{}: {}", status.code(), status.message())),
    }
}

/// One request of spans, by whose they are.
fn request(batch: Vec<Finished>, node: &NodeName) -> ExportTraceServiceRequest {
    let mut by_owner: HashMap<Owner, Vec<Span>> = HashMap::new();
    for finished in batch {
        by_owner.entry(finished.owner).or_default().push(finished.span);
    }
    let resource = |owner: Owner| Resource {
        attributes: vec![
            text("service.name", owner.service),
            text("service.namespace", owner.namespace.clone()),
            text("k8s.namespace.name", owner.namespace),
            text("k8s.pod.name", owner.pod),
            text("k8s.node.name", node.as_str()),
        ],
    };
    let scope = InstrumentationScope { name: "weft".into(), version: env!("CARGO_PKG_VERSION").into() };
    let spans = by_owner.into_iter().map(|(owner, spans)| ResourceSpans {
        resource: Some(resource(owner)),
        scope_spans: vec![ScopeSpans { scope: Some(scope.clone()), spans }],
        schema_url: "https://opentelemetry.io/schemas/1.37.0".into(),
    });
    ExportTraceServiceRequest { resource_spans: spans.collect() }
}

/// An attribute with a text.
pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) }) }
}

/// An attribute with a number.
pub(crate) fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    let value = value.try_into().unwrap_or(i64::MAX);
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(any_value::Value::IntValue(value)) }) }
}
