//! Spans on their way to a collector.

use std::io;
use std::sync::Arc;

use prost::Message;
use tonic::transport::Channel;
use weft_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use weft_api::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use weft_api::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use weft_core::ids::NodeName;
use weft_core::telemetry::Collector;

use crate::otlp::{self, ExportSettings, Owner, Queue, SCHEMA, Signal};
use crate::store::Store;

/// A span that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) collector: Collector,
    pub(crate) owner: Owner,
    pub(crate) span: Span,
}

impl Signal for Finished {
    const NAME: &'static str = "spans";
    const THREAD: &'static str = "otlp-spans";

    fn collector(&self) -> &Collector {
        &self.collector
    }

    fn size(&self) -> usize {
        self.span.encoded_len()
    }

    fn dropped(reason: &'static str, count: usize) {
        metrics::counter!("weft_trace_spans_dropped_total", "reason" => reason).increment(count as u64);
    }

    fn export(
        batch: Vec<Self>,
        node: &NodeName,
        channel: Channel,
    ) -> impl Future<Output = Result<i64, tonic::Status>> + Send + 'static + use<> {
        let request = request(batch, node);
        async move {
            let answer = TraceServiceClient::new(channel).export(request).await?.into_inner();
            Ok(answer.partial_success.map_or(0, |partial| partial.rejected_spans))
        }
    }
}

/// The workers' end of the queue; the default one takes nothing.
#[derive(Clone, Debug, Default)]
pub struct Spans(Queue<Finished>);

impl Spans {
    /// Queues a span, or drops and counts it.
    pub(crate) fn send(&self, span: Box<Finished>) {
        self.0.send(span);
    }
}

/// Starts the thread that sends spans. It ends when nobody can send it anything any more.
///
/// # Errors
/// A thread that can't be made.
pub fn start(settings: ExportSettings, store: Arc<Store>) -> io::Result<Spans> {
    otlp::start(settings, store).map(Spans)
}

/// One request of spans, by whose they are.
fn request(batch: Vec<Finished>, node: &NodeName) -> ExportTraceServiceRequest {
    let spans = otlp::by_owner(batch.into_iter().map(|finished| (finished.owner, finished.span)));
    let spans = spans.into_iter().map(|(owner, spans)| ResourceSpans {
        resource: Some(owner.resource(node)),
        scope_spans: vec![ScopeSpans { scope: Some(otlp::scope()), spans }],
        schema_url: SCHEMA.into(),
    });
    ExportTraceServiceRequest { resource_spans: spans.collect() }
}
