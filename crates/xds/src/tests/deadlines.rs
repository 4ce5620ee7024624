//! Nobody waits for ever for what was lost on the way, and no stream lasts for ever. The clock is paused.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Streaming};
use weft_api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};

use super::*;
use crate::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

const HOUR: Duration = Duration::from_secs(3600);

/// A client by hand: it answers what the test says, or nothing.
struct Raw {
    _client: AggregatedDiscoveryServiceClient<Channel>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Raw {
    async fn open(world: &World, types: &[&str]) -> Self {
        let mut client = AggregatedDiscoveryServiceClient::new(world.wire.connect().await.unwrap());
        let (requests, outgoing) = mpsc::channel(16);
        for type_url in types {
            let subscription = DeltaDiscoveryRequest {
                type_url: (*type_url).to_owned(),
                resource_names_subscribe: vec!["*".to_owned()],
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(subscription).await.unwrap();
        }
        let mut request = Request::new(ReceiverStream::new(outgoing));
        world.wire.authorize(request.metadata_mut()).unwrap();
        let responses = client.delta_aggregated_resources(request).await.unwrap().into_inner();
        Self { _client: client, requests, responses }
    }

    async fn read(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let read = timeout(HOUR * 2, self.responses.message()).await.expect("neither a response nor an end");
        read.map(|response| response.expect("an end without a reason"))
    }

    async fn answer(&self, response: DeltaDiscoveryResponse) {
        let DeltaDiscoveryResponse { type_url, nonce: response_nonce, .. } = response;
        let answer = DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() };
        self.requests.send(answer).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_an_answer_ends_the_stream_and_an_idle_stream_goes_on() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "1"), set("u", "a", "1")]);
    let mut raw = Raw::open(&world, &["t", "u"]).await;
    for _ in 0..2 {
        let response = raw.read().await.unwrap();
        raw.answer(response).await;
    }
    assert!(timeout(HOUR, raw.responses.message()).await.is_err(), "nothing is outstanding: nothing is said");

    // The answer of one type says nothing of another's.
    world.publisher.publish([set("t", "a", "2"), set("u", "a", "2")]);
    let began = Instant::now();
    for _ in 0..2 {
        let response = raw.read().await.unwrap();
        if response.type_url == "t" {
            raw.answer(response).await;
        }
    }
    let status = raw.read().await.unwrap_err();
    assert_eq!((status.code(), began.elapsed().as_secs()), (Code::Aborted, 60));
    assert!(status.message().starts_with("a response of u has no answer after 60 s"), "{status:?}");
    world.event(|e| *e == Event::Disconnected).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_in_is_let_go() {
    let mut world = World::new(Publisher::default());
    // Far more than what the connection takes in before the client reads.
    let (large, types) = ("x".repeat(3 << 20), ["t0", "t1", "t2", "t3", "t4", "t5"]);
    world.publisher.publish(types.iter().map(|type_url| set(type_url, "a", &large)));
    let _raw = Raw::open(&world, &types).await;
    let gone = async { while world.events.recv().await.expect("the server is gone") != Event::Disconnected {} };
    timeout(HOUR, gone).await.expect("the server waits for ever");
}

#[tokio::test(start_paused = true)]
async fn streams_end_at_their_age_but_not_all_at_once_and_their_clients_return() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "1")]);
    world.stop();
    let service = Server::service_with_age(world.publisher.clone(), Arc::clone(&world.door), HOUR);
    world.start_with(tonic::transport::Server::builder().add_service(service));
    let clients: Vec<_> = (0..8).map(|_| world.client(&["t"])).collect();
    let (began, mut ended) = (Instant::now(), Vec::new());
    while ended.len() < clients.len() {
        let event = timeout(HOUR * 2, world.events.recv()).await.expect("no stream ends").unwrap();
        if event == Event::Disconnected {
            ended.push(began.elapsed());
        }
    }
    let (first, last) = (ended[0], ended[ended.len() - 1]);
    assert!(first >= HOUR * 3 / 4 && last <= HOUR * 5 / 4 + Duration::from_secs(1), "{ended:?}");
    assert!(last - first > Duration::from_secs(60), "{ended:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(clients.iter().all(|(handle, _)| handle.status.borrow().connected), "they return at once");

    let mut raw = Raw::open(&world, &["t"]).await;
    let response = raw.read().await.unwrap();
    raw.answer(response).await;
    let status = raw.read().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().ends_with(": prove yourself again"), "{status:?}");
}

/// A server that says in each stream what its script says. The last script's stream stays open, and silent.
struct Scripted {
    scripts: Vec<Vec<DeltaDiscoveryResponse>>,
    streams: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Scripted {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn futures::Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut requests = request.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = requests.message().await {} });
        let (turn, last) = (self.streams.fetch_add(1, Ordering::Relaxed), self.scripts.len() - 1);
        let script = futures::stream::iter(self.scripts[turn.min(last)].clone()).map(Ok::<_, Status>);
        let stream: Self::DeltaAggregatedResourcesStream =
            if turn < last { Box::pin(script) } else { Box::pin(script.chain(futures::stream::pending())) };
        Ok(Response::new(stream))
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_begins_anew_while_its_stream_lacks_an_answer_and_only_then() {
    let (all, none): (&[&str], &[&str]) = (&["t 1", "u 1"], &[]);
    let (one, part): (&[&str], &[&str]) = (&["t 1"], &["t 1", "u 1+"]);
    for (case, scripts, is_quiet) in [
        ("everything was answered", vec![all], true),
        ("nothing", vec![none], false),
        ("one type", vec![one], false),
        ("the rest of a type", vec![part], false),
        ("everything, but to an earlier stream", vec![all, none], false),
    ] {
        let response = |text: &&str| {
            let (type_url, version) = text.split_once(' ').unwrap();
            DeltaDiscoveryResponse {
                type_url: type_url.into(),
                system_version_info: version.into(),
                nonce: "1".into(),
                ..DeltaDiscoveryResponse::default()
            }
        };
        let scripts: Vec<Vec<_>> = scripts.iter().map(|script| script.iter().map(response).collect()).collect();
        let streams = Arc::new(AtomicUsize::new(0));
        let service = AggregatedDiscoveryServiceServer::new(Scripted { scripts, streams: Arc::clone(&streams) });
        let mut world = World::new(Publisher::default());
        world.stop();
        world.start_with(tonic::transport::Server::builder().add_service(service));
        let (_handle, _contents) = world.client(&["t", "u"]);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let streams = streams.load(Ordering::Relaxed);
        assert_eq!(streams == 1, is_quiet, "{case}: {streams}");
        assert!(is_quiet || (10..=25).contains(&streams), "{case}: {streams}");
    }
}
