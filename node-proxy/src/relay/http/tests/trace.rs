//! Spans of both ends of a call, up to a collector; and which requests are logged, by policy.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use weft_api::opentelemetry::proto::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use weft_api::opentelemetry::proto::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use weft_api::opentelemetry::proto::common::v1::{KeyValue, any_value};
use weft_api::opentelemetry::proto::trace::v1::Span;
use weft_api::opentelemetry::proto::trace::v1::span::SpanKind;
use weft_api::opentelemetry::proto::trace::v1::status::StatusCode;
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::PolicyKey;
use weft_core::policy::Scope;
use weft_core::route::*;
use weft_core::service::{AppProtocol, Endpoint, EndpointHealth, EndpointSlice, SliceKey, SlicePort};
use weft_core::telemetry::{
    AccessLogPolicy, AttributeSource, LogFormat, LogMode, ParentSampling, Share, SpanAttribute, TelemetryPolicy,
    TracingPolicy,
};

use super::gateway::{at, http};
use super::inbound::{Loopback, policy, workload};
use super::world::*;
use crate::authorize::{Granted, Inbound, Registry, inbound};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};
use crate::otlp::ExportSettings;
use crate::relay::front::HttpRelay;
use crate::relay::http::{HttpFront, HttpSettings};
use crate::telemetry::{AccessLog, LogPolicy};
use crate::trace::start;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(super) fn telemetry(access_log: AccessLogPolicy, tracing: TracingPolicy) -> Change {
    Change::Upsert(Resource::Telemetry(Arc::new(TelemetryPolicy {
        key: PolicyKey::new("root", "t"),
        scope: Scope::Mesh,
        gateways: Vec::new(),
        created_unix_seconds: 0,
        access_log,
        tracing,
    })))
}

/// A collector in this process: what it was sent, as (service, span).
struct Collector(mpsc::UnboundedSender<(String, Span)>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for of in request.into_inner().resource_spans {
            let service = said(&of.resource.unwrap_or_default().attributes, "service.name");
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.for_each(|span| drop(self.0.send((service.clone(), span))));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

pub(super) fn said(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|it| it.key == key).and_then(|it| it.value.clone()?.value);
    match found {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Starts a collector, and the Service `otel` that leads to it.
async fn collector() -> (Vec<Change>, mpsc::UnboundedReceiver<(String, Span)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, spans) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (leading_to(address), spans)
}

/// The Service `otel`, whose endpoint is at an address.
pub(super) fn leading_to(address: std::net::SocketAddr) -> Vec<Change> {
    let mut changes = service("otel", AppProtocol::Grpc, &[]);
    changes.push(Change::Upsert(Resource::EndpointSlice(Arc::new(EndpointSlice {
        key: SliceKey { namespace: "shop".into(), name: "otel".into() },
        service: key("otel").service,
        ports: vec![SlicePort { name: "main".into(), port: weft_core::ids::Port::new(address.port()).unwrap() }],
        endpoints: vec![Endpoint {
            address: address.ip(),
            workload: None,
            health: EndpointHealth::Ready,
            node: None,
            zone: None,
        }],
    }))));
    changes
}

/// Lets endpoint 1 of `web` be the proxy of the pod `cart-1`, in front of a socket of its application.
fn destination(world: &World, app: std::net::SocketAddr) {
    let engine = Rc::clone(&world.engine);
    let (store, registry) = (Arc::clone(&world.store), Registry::new(Rc::clone(&engine.observer)));
    world.raw(
        1,
        Rc::new(move |stream, _| {
            let pod = crate::plain::pod_of(workload(), Arc::new(Loopback));
            let identity = PeerIdentity::FirstHand(SpiffeId::new(TrustDomain::default(), "shop", "web"));
            let peer = Peer { identity, address: "127.0.0.1:4000".parse().unwrap() };
            let asked = Inbound { workload: Rc::new(LocalWorkload::new(pod)), peer, destination: app };
            let (front, store, registry) = (HttpFront(Rc::clone(&engine)), Arc::clone(&store), registry.clone());
            tokio::task::spawn_local(async move {
                let Ok(Granted::Http(permit)) = inbound(&store, &registry, asked).await else {
                    panic!("the policy looks at requests")
                };
                front.inbound(Box::new(stream), permit).await;
            });
        }),
    );
}

/// An application that fails the first request.
async fn failing_once() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    let served = Rc::new(Cell::new(0));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served = Rc::clone(&served);
            let answer: App = Rc::new(move |request, address| match served.replace(served.get() + 1) {
                0 => status(503)(request, address),
                _ => echo()(request, address),
            });
            tokio::task::spawn_local(serve_app(stream, app, answer));
        }
    });
    app
}

#[test]
fn one_trace_has_the_callers_span_those_of_both_proxies_and_the_tries_that_failed() {
    // Real sockets, so a real clock.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let (mut changes, mut spans) = collector().await;
        let user = SpanAttribute { name: "user".into(), value: AttributeSource::Header("x-user".into()) };
        changes.push(telemetry(
            AccessLogPolicy::default(),
            TracingPolicy { provider: Some(key("otel")), attributes: vec![user], ..TracingPolicy::default() },
        ));
        let codes = vec![http::StatusCode::SERVICE_UNAVAILABLE];
        let retry = Some(Retry { attempts: 1, backoff: Duration::from_millis(1), codes });
        changes.extend(service("web", AppProtocol::Http, &[1]));
        changes.push(upsert(HttpRule { retry, ..rule(0, "/", vec![backend("web")]) }));
        changes.extend([Change::Upsert(Resource::Workload(Arc::new(workload()))), policy("GET")]);
        let (log, queue) = AccessLog::new(LogPolicy::All, LogFormat::Json);
        let store = Arc::<crate::store::Store>::default();
        // The exporter looks the collector up in a configuration of its own here: the world's isn't made yet.
        store.apply(&changes);
        let exporter = start(ExportSettings { endpoint: None, node: "n1".into() }, store).unwrap();
        let log = log.sending(exporter, false, Share::NONE);
        let world = World::telling(changes, HttpSettings::default(), (log, queue));
        destination(&world, failing_once().await);

        let mut client = world.connect(Version::HTTP_11).await;
        let request =
            Request::get("/ok").header("traceparent", PARENT).header("tracestate", "a=b").header("x-user", "u");
        assert_eq!(client.ask(request.body(empty()).unwrap()).await.0, 200);

        let mut all = Vec::new();
        while all.len() < 3 {
            all.push(spans.recv().await.expect("the collector is there"));
        }
        let of_kind = |kind: SpanKind| all.iter().filter(move |(_, span)| span.kind == i32::from(kind));
        let callers: Vec<_> = of_kind(SpanKind::Client).collect();
        let [(service, caller)] = callers[..] else { panic!("{all:?}") };
        let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&caller.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((hex(&caller.parent_span_id).as_str(), caller.trace_state.as_str()), ("00f067aa0ba902b7", "a=b"));
        assert_eq!(service, world.local().owner.name.as_str());
        let word = |key: &str| said(&caller.attributes, key);
        assert_eq!(caller.name, "GET HTTPRoute/shop/r");
        assert_eq!((word("weft.route"), word("weft.rule")), ("HTTPRoute/shop/r".into(), "0".into()));
        assert_eq!((word("http.response.status_code"), word("http.request.resend_count")), ("200".into(), "1".into()));
        assert_eq!((word("url.path"), word("user"), word("weft.reason")), ("/ok".into(), "u".into(), "ok".into()));
        assert!(caller.status.is_none() && caller.end_time_unix_nano > caller.start_time_unix_nano);
        let [event] = &caller.events[..] else { panic!("{:?}", caller.events) };
        assert_eq!(
            (said(&event.attributes, "weft.outcome"), said(&event.attributes, "weft.endpoint")),
            ("503".into(), address(1).to_string())
        );
        assert!((caller.start_time_unix_nano..=caller.end_time_unix_nano).contains(&event.time_unix_nano));

        let mut codes = Vec::new();
        for (service, called) in of_kind(SpanKind::Server) {
            assert_eq!(service, "cart");
            assert_eq!((&called.trace_id, &called.parent_span_id), (&caller.trace_id, &caller.span_id));
            assert_ne!(called.span_id, caller.span_id);
            assert_eq!(said(&called.attributes, "weft.source.identity"), "spiffe://cluster.local/ns/shop/sa/web");
            assert_eq!(said(&called.attributes, "weft.destination.workload"), "shop/cart-1");
            let failed = called.status.as_ref().is_some_and(|status| status.code == i32::from(StatusCode::Error));
            codes.push((said(&called.attributes, "http.response.status_code"), failed));
        }
        codes.sort();
        assert_eq!(codes, [("200".to_owned(), false), ("503".to_owned(), true)]);

        // The log says which trace, also of a request that isn't sampled.
        let unsampled = PARENT.replace("-01", "-00");
        let request = Request::get("/ok").header("traceparent", unsampled).body(empty()).unwrap();
        assert_eq!(client.ask(request).await.0, 200);
        let traces: Vec<_> = world.logged().iter().map(|line| line["trace_id"].as_str().unwrap().to_owned()).collect();
        assert!(traces.len() >= 4 && traces.iter().all(|id| id == "4bf92f3577b34da6a3ce929d0e0e4736"), "{traces:?}");
        // Nothing of it came: what comes next is of the next request.
        let next = "0af7651916cd43dd8448eb211c80319c";
        let request =
            Request::get("/ok").header("traceparent", PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", next));
        assert_eq!(client.ask(request.body(empty()).unwrap()).await.0, 200);
        for _ in 0..2 {
            let (_, span) = spans.recv().await.expect("the collector is there");
            assert_eq!(hex(&span.trace_id), next);
        }
        // Not as much of a path as a client likes.
        let request = Request::get(format!("/{}", "x".repeat(3000))).header("traceparent", PARENT);
        assert_eq!(client.ask(request.body(empty()).unwrap()).await.0, 403);
        for _ in 0..2 {
            let (_, span) = spans.recv().await.expect("the collector is there");
            assert_eq!(said(&span.attributes, "url.path").len(), 1024);
        }
    };
    let limited = async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs") };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

#[test]
fn a_client_of_a_gateway_that_traces_nothing_has_no_say_in_what_pods_trace() {
    on_worker(async {
        let parent = Some(ParentSampling::Ignored);
        let untraced = telemetry(AccessLogPolicy::default(), TracingPolicy { parent, ..TracingPolicy::default() });
        let to_web = at(&["any"], rule(0, "", vec![backend("web")]));
        let world = World::new([vec![http("any"), to_web, untraced], service("web", AppProtocol::Http, &[1])].concat());
        let seen = Rc::<std::cell::RefCell<Vec<String>>>::default();
        let noted = Rc::clone(&seen);
        world.app(
            1,
            Rc::new(move |request, address| {
                let said = request.headers().get("traceparent").map(|value| value.to_str().unwrap().to_owned());
                noted.borrow_mut().extend(said);
                echo()(request, address)
            }),
        );
        let ask = || Request::get("/").header("host", "a.com").header("traceparent", PARENT).body(empty()).unwrap();
        assert_eq!(world.connect_gateway(Version::HTTP_11, None).await.ask(ask()).await.0, 200);
        assert_eq!(world.connect(Version::HTTP_11).await.ask(ask()).await.0, 200);
        assert_eq!(*seen.borrow(), [PARENT.replace("-01", "-00"), PARENT.to_owned()], "a pod's own word passes");
    });
}

#[test]
fn a_policy_says_which_requests_are_logged_from_one_request_to_the_next() {
    on_worker(async {
        let world = World::with(Vec::new(), HttpSettings::default(), LogPolicy::Errors);
        world.app(1, echo());
        world.app(2, echo());
        let mut client = world.connect(Version::HTTP_11).await;
        client.get("/a").await;
        assert_eq!(world.logged().len(), 0);
        let all = AccessLogPolicy { mode: Some(LogMode::All), ..AccessLogPolicy::default() };
        world.apply(&[telemetry(all.clone(), TracingPolicy::default())]);
        client.get("/b").await;
        let lines = world.logged();
        assert_eq!(
            (lines.len(), lines[0]["path"].as_str(), lines[0]["direction"].as_str()),
            (1, Some("/b"), Some("outbound"))
        );
        let none = AccessLogPolicy { sampling: Some(Share::NONE), ..all };
        world.apply(&[telemetry(none, TracingPolicy::default())]);
        client.get("/c").await;
        assert_eq!(world.logged().len(), 0, "none of those that don't fail");
        world.down(1, true);
        world.down(2, true);
        let mut other = world.connect(Version::HTTP_11).await;
        world.apply(&service("web", AppProtocol::Http, &[]));
        assert_eq!(other.get("/d").await.0, 503);
        assert_eq!(world.logged().len(), 1, "all that do");
        let off = AccessLogPolicy { mode: Some(LogMode::Disabled), ..AccessLogPolicy::default() };
        world.apply(&[telemetry(off, TracingPolicy::default())]);
        assert_eq!(other.get("/e").await.0, 503);
        assert_eq!(world.logged().len(), 0);
        world.apply(&[Change::Remove(ResourceKey::Telemetry(PolicyKey::new("root", "t")))]);
        assert_eq!(other.get("/f").await.0, 503);
        assert_eq!(world.logged().len(), 1, "the settings count again");
    });
}
