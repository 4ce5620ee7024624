//! Lines of the access log up to a collector.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use weft_api::opentelemetry::proto::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use weft_api::opentelemetry::proto::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use weft_api::opentelemetry::proto::common::v1::any_value;
use weft_api::opentelemetry::proto::logs::v1::LogRecord;
use weft_core::service::AppProtocol;
use weft_core::telemetry::{AccessLogPolicy, LogMode, LogOutput, Share, TracingPolicy};

use super::trace::{leading_to, said, telemetry};
use super::world::*;
use crate::otlp::ExportSettings;
use crate::relay::http::HttpSettings;
use crate::telemetry::{AccessLog, LogFormat, LogPolicy, start_lines};
use crate::trace;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector in this process: what it was sent, as (service, node, record).
struct Collector(mpsc::UnboundedSender<(String, String, LogRecord)>);

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        for of in request.into_inner().resource_logs {
            let whose = of.resource.unwrap_or_default().attributes;
            let (service, node) = (said(&whose, "service.name"), said(&whose, "k8s.node.name"));
            let records = of.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            records.for_each(|record| drop(self.0.send((service.clone(), node.clone(), record))));
        }
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

#[test]
fn lines_reach_the_collector_that_the_policy_names_with_their_trace_and_no_other_output() {
    // Real sockets, so a real clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut records) = mpsc::unbounded_channel();
        let server = tonic::transport::Server::builder().add_service(LogsServiceServer::new(Collector(sender)));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

        let log = AccessLogPolicy {
            mode: Some(LogMode::All),
            output: Some(LogOutput::Collector(key("otel"))),
            ..AccessLogPolicy::default()
        };
        let spans = TracingPolicy {
            enabled: Some(true),
            provider: Some(key("otel")),
            sampling: Some(Share::NONE),
            ..TracingPolicy::default()
        };
        let mut changes = leading_to(address);
        changes.push(telemetry(log.clone(), spans.clone()));
        // The exporter looks the collector up in a configuration of its own here: the world's isn't made yet.
        let store = Arc::<crate::store::Store>::default();
        store.apply(&changes);
        let settings = ExportSettings { endpoint: None, node: "n1".into() };
        let (made, queue) = AccessLog::new(LogPolicy::All, LogFormat::Json);
        let made = made.exporting(start_lines(settings.clone(), Arc::clone(&store)).unwrap(), false).sending(
            trace::start(settings, store).unwrap(),
            false,
            Share::NONE,
        );
        let world = World::telling(changes, HttpSettings::default(), (made, queue));
        world.app(1, echo());
        world.app(2, echo());
        let mut client = world.connect(Version::HTTP_11).await;
        let request = Request::get("/ok").header("traceparent", PARENT).body(empty()).unwrap();
        assert_eq!(client.ask(request).await.0, 200);
        let (whose, node, record) = records.recv().await.expect("the collector is there");
        assert_eq!((whose.as_str(), node.as_str()), (world.local().owner.name.as_str(), "n1"));
        let word = |key: &str| said(&record.attributes, key);
        assert_eq!((word("url.path"), word("http.response.status_code")), ("/ok".into(), "200".into()));
        assert_eq!((word("weft.direction"), word("weft.reason")), ("outbound".into(), "ok".into()));
        let body = record.body.clone().and_then(|body| body.value);
        let Some(any_value::Value::StringValue(body)) = body else { panic!("{record:?}") };
        assert!(body.contains(" path=/ok status=200 ") && body.starts_with("time="), "{body}");
        let hex = record.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!((hex.as_str(), record.span_id.len(), record.flags), (&PARENT[3..35], 8, 1));
        assert_eq!((world.logged().len(), record.severity_text.as_str()), (0, "INFO"));

        // Failures as errors, without a trace where there is none.
        world.apply(&service("web", AppProtocol::Http, &[]));
        let mut other = world.connect(Version::HTTP_11).await;
        assert_eq!(other.get("/gone").await.0, 503);
        let (_, _, record) = records.recv().await.expect("the collector is there");
        assert_eq!(record.severity_text, "ERROR");
        assert_eq!((record.trace_id.len(), record.span_id.len()), (0, 0));
        assert_eq!(said(&record.attributes, "weft.reason"), "no_endpoint");

        // A policy that sends them nowhere else has them written.
        let standard = AccessLogPolicy { output: Some(LogOutput::Standard), ..log };
        world.apply(&[telemetry(standard, spans)]);
        assert_eq!(other.get("/here").await.0, 503);
        let lines = world.logged();
        assert_eq!((lines.len(), lines[0]["path"].as_str()), (1, Some("/here")));
        assert!(records.try_recv().is_err());
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}
