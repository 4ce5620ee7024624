//! Client and server against each other, over an in-memory connection.

mod again;
mod deadlines;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::client::{Client, ClientStatus, Demand, Handle, Rejection, Settings, Sink, Transport};
use crate::server::{Access, Event, Publisher, Refusal, Sequence, Server};
use crate::{Encoded, ResourceName, TypeUrl, Update};

type Contents = BTreeMap<ResourceName, Bytes>;

fn name(type_url: &str, name: &str) -> ResourceName {
    ResourceName::new(TypeUrl::new(type_url), name)
}

fn set(type_url: &str, text: &str, body: &str) -> Update {
    Update::Set(Encoded { name: name(type_url, text), body: Bytes::copy_from_slice(body.as_bytes()) })
}

/// A sink that keeps what it is given and rejects bodies that say "bad".
struct Keeper(watch::Sender<Contents>);

impl Sink for Keeper {
    async fn apply(&mut self, updates: Vec<Update>) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        self.0.send_modify(|contents| {
            for update in updates {
                match update {
                    Update::Set(it) if &it.body[..] == b"bad" => {
                        rejections.push(Rejection::new(it.name, "said bad"));
                    }
                    Update::Set(it) => drop(contents.insert(it.name, it.body)),
                    Update::Remove(name) => drop(contents.remove(&name)),
                }
            }
        });
        rejections
    }
}

/// Lets anybody in with the right token and hides names that start with `secret`.
struct Door {
    events: mpsc::UnboundedSender<Event>,
    restricted: bool,
}

impl Access for Door {
    type Client = ();

    async fn admit(&self, metadata: &MetadataMap, _: &tonic::Extensions) -> Result<(), Status> {
        match metadata.get("authorization") {
            Some(token) if token == "Bearer good" => Ok(()),
            _ => Err(Status::unauthenticated("no token")),
        }
    }

    fn is_restricted(&self, (): &(), type_url: &TypeUrl) -> bool {
        self.restricted && type_url.as_str() != "open"
    }

    fn may_see(&self, (): &(), _: &TypeUrl, name: &str) -> bool {
        !name.starts_with("secret")
    }

    fn on_event(&self, (): &(), event: Event) {
        let _ = self.events.send(event);
    }
}

/// Connects to whichever server runs at the moment.
#[derive(Clone)]
struct Wire {
    servers: Arc<Mutex<Option<mpsc::Sender<tokio::io::DuplexStream>>>>,
    cables: Arc<Mutex<tokio::task::JoinSet<()>>>,
    token: &'static str,
}

impl Transport for Wire {
    async fn connect(&self) -> Result<Channel, Status> {
        let servers = self.servers.lock().unwrap().clone().ok_or_else(|| Status::unavailable("down"))?;
        let cables = Arc::clone(&self.cables);
        let connector = tower::service_fn(move |_: Uri| {
            let (servers, cables) = (servers.clone(), Arc::clone(&cables));
            async move {
                let (ours, mut near) = tokio::io::duplex(1 << 16);
                let (mut far, theirs) = tokio::io::duplex(1 << 16);
                cables.lock().unwrap().spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                servers.send(theirs).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        let endpoint = Endpoint::from_static("http://server");
        endpoint.connect_with_connector(connector).await.map_err(|e| Status::unavailable(e.to_string()))
    }

    fn authorize(&self, request: &mut MetadataMap) -> Result<(), Status> {
        request.insert("authorization", self.token.parse().unwrap());
        Ok(())
    }
}

struct World {
    publisher: Publisher,
    wire: Wire,
    events: mpsc::UnboundedReceiver<Event>,
    door: Arc<Door>,
    server: Option<JoinHandle<()>>,
}

impl World {
    fn new(publisher: Publisher) -> Self {
        Self::with_door(publisher, false)
    }

    fn with_door(publisher: Publisher, restricted: bool) -> Self {
        let (events_sender, events) = mpsc::unbounded_channel();
        let wire = Wire { servers: Arc::default(), cables: Arc::default(), token: "Bearer good" };
        let mut world =
            Self { publisher, wire, events, door: Arc::new(Door { events: events_sender, restricted }), server: None };
        world.start();
        world
    }

    /// Ends the server and cuts its connections.
    fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        *self.wire.servers.lock().unwrap() = None;
        self.wire.cables.lock().unwrap().abort_all();
    }

    fn start(&mut self) {
        let service = Server::service(self.publisher.clone(), Arc::clone(&self.door));
        self.start_with(tonic::transport::Server::builder().add_service(service));
    }

    fn start_with(&mut self, router: tonic::transport::server::Router) {
        let (connections, accepted) = mpsc::channel::<tokio::io::DuplexStream>(4);
        *self.wire.servers.lock().unwrap() = Some(connections);
        let incoming = futures::stream::unfold(accepted, |mut accepted| async move {
            accepted.recv().await.map(|io| (Ok::<_, std::io::Error>(io), accepted))
        });
        self.server = Some(tokio::spawn(async move {
            let _ = router.serve_with_incoming(incoming).await;
        }));
    }

    fn client(&self, types: &[&str]) -> (Handle, watch::Receiver<Contents>) {
        self.client_holding(types, Contents::new())
    }

    fn client_holding(&self, types: &[&str], held: Contents) -> (Handle, watch::Receiver<Contents>) {
        let names: Vec<_> = held.keys().cloned().collect();
        let (contents, received) = watch::channel(held);
        let settings = Settings {
            node: "a".into(),
            agent: ("test".into(), "0".into()),
            types: types.iter().map(TypeUrl::new).collect(),
        };
        let (client, handle) = Client::new(settings, self.wire.clone(), Keeper(contents));
        tokio::spawn(client.holding(names).run());
        (handle, received)
    }

    async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = within(self.events.recv()).await.expect("the server is gone");
            if wanted(&event) {
                return event;
            }
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

async fn until<T>(receiver: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    within(receiver.wait_for(condition)).await.expect("the sender lives");
}

#[tokio::test]
async fn a_client_gets_all_of_its_types_and_each_change_after() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "1"), set("t", "b", "1"), set("other", "x", "1")]);
    let (mut handle, mut contents) = world.client(&["t", "empty"]);
    until(&mut handle.status, |s: &ClientStatus| s.synced && s.connected).await;
    assert_eq!(contents.borrow().len(), 2, "of its types only; an empty type is answered too");
    let at = world.publisher.publish([set("t", "a", "2"), Update::Remove(name("t", "b")), set("t", "c", "1")]);
    until(&mut contents, |c| c.len() == 2 && c.get(&name("t", "a")).is_some_and(|b| &b[..] == b"2")).await;
    world.event(|e| *e == Event::Synced(at)).await;
}

#[tokio::test]
async fn a_client_is_not_in_sync_before_it_has_every_piece() {
    let world = World::new(Publisher::default());
    world.publisher.publish((0..5_000).map(|n| set("t", &format!("n{n}"), "1")));
    let (mut handle, contents) = world.client(&["t"]);
    until(&mut handle.status, |s| s.synced).await;
    assert_eq!(contents.borrow().len(), 5_000);
}

#[tokio::test]
async fn after_a_part_comes_the_end_even_if_it_is_empty() {
    let world = World::with_door(Publisher::default(), true);
    // As much as one response takes, and then something that the client may not see.
    world.publisher.publish((0..1_000).map(|n| set("t", &format!("n{n}"), "1")).chain([set("t", "secret-1", "1")]));
    let (mut handle, contents) = world.client(&["t"]);
    until(&mut handle.status, |s| s.synced).await;
    assert_eq!(contents.borrow().len(), 1_000);
}

#[tokio::test]
async fn a_rejected_resource_is_named_and_costs_no_other() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "1"), set("t", "b", "bad"), set("t", "c", "1")]);
    let (_handle, mut contents) = world.client(&["t"]);
    until(&mut contents, |c| c.len() == 2).await;
    let nack = world.event(|e| matches!(e, Event::Nacked { .. })).await;
    let refused = vec![Refusal { name: "b".into(), reason: "said bad".into() }];
    assert_eq!(nack, Event::Nacked { type_url: TypeUrl::new("t"), reason: "b: said bad".into(), refused });
    world.publisher.publish([set("t", "b", "good")]);
    until(&mut contents, |c| c.len() == 3).await;
    let mended = world.event(|e| matches!(e, Event::Mended { .. })).await;
    assert_eq!(mended, Event::Mended { type_url: TypeUrl::new("t"), names: vec!["b".into()] });
}

#[tokio::test]
async fn what_is_refused_is_mended_by_its_own_ack_only_or_when_it_is_gone() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "bad"), set("t", "b", "bad")]);
    let (_handle, _contents) = world.client(&["t"]);
    let names = |refused: &[Refusal]| refused.iter().map(|r| r.name.to_string()).collect::<Vec<_>>();
    match world.event(|e| matches!(e, Event::Nacked { .. })).await {
        Event::Nacked { refused, .. } => assert_eq!(names(&refused), ["a", "b"]),
        other => panic!("{other:?}"),
    }
    let at = world.publisher.publish([set("t", "c", "1")]);
    let next = world.event(|e| matches!(e, Event::Mended { .. }) || *e == Event::Synced(at)).await;
    assert_eq!(next, Event::Synced(at), "the ACK of another resource says nothing of these");
    world.publisher.publish([Update::Remove(name("t", "a"))]);
    let mended = world.event(|e| matches!(e, Event::Mended { .. })).await;
    assert_eq!(mended, Event::Mended { type_url: TypeUrl::new("t"), names: vec!["a".into()] });
}

#[tokio::test(start_paused = true)]
async fn after_a_break_only_what_differs_is_sent() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish((0..50).map(|i| set("t", &format!("n{i}"), "1")));
    let (mut handle, mut contents) = world.client(&["t"]);
    until(&mut contents, |c| c.len() == 50).await;
    world.stop();
    until(&mut handle.status, |s| !s.connected).await;
    // Another replica: a publisher of its own, with the same content but for three names.
    world.publisher = Publisher::default();
    world.publisher.publish((0..49).map(|i| set("t", &format!("n{i}"), if i == 7 { "2" } else { "1" })));
    world.publisher.publish([set("t", "new", "1")]);
    contents.mark_unchanged();
    world.start();
    until(&mut contents, |c| c.contains_key(&name("t", "new"))).await;
    assert_eq!(&contents.borrow()[&name("t", "n7")][..], b"2");
    assert!(!contents.borrow().contains_key(&name("t", "n49")), "what is gone meanwhile is removed");
    assert_eq!(contents.borrow().len(), 50);
}

#[tokio::test]
async fn what_a_client_had_before_it_ran_is_removed_if_it_is_gone() {
    let world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "new"), set("t", "b", "1")]);
    let held = [("t", "a"), ("t", "gone"), ("empty", "gone")].map(|(t, n)| (name(t, n), Bytes::from_static(b"old")));
    let (_handle, mut contents) = world.client_holding(&["t", "empty"], held.into());
    until(&mut contents, |c| c.len() == 2 && c.contains_key(&name("t", "b"))).await;
    assert_eq!(&contents.borrow()[&name("t", "a")][..], b"new");
}

#[tokio::test]
async fn names_on_demand_come_and_go_and_absent_ones_are_said_to_be_absent() {
    let world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "1"), set("t", "b", "1")]);
    let (mut handle, mut contents) = world.client(&["sync"]);
    until(&mut handle.status, |s| s.synced).await;
    assert!(contents.borrow().is_empty());
    handle.demands.send(Demand::Subscribe(name("t", "a"))).await.unwrap();
    until(&mut contents, |c| c.len() == 1).await;
    handle.demands.send(Demand::Unsubscribe(name("t", "a"))).await.unwrap();
    handle.demands.send(Demand::Subscribe(name("t", "b"))).await.unwrap();
    until(&mut contents, |c| c.contains_key(&name("t", "b"))).await;
    world.publisher.publish([set("t", "a", "2"), set("t", "b", "2")]);
    until(&mut contents, |c| &c[&name("t", "b")][..] == b"2").await;
    assert_eq!(&contents.borrow()[&name("t", "a")][..], b"1", "no longer subscribed");
}

#[tokio::test]
async fn a_client_never_sees_what_it_may_not() {
    let world = World::with_door(Publisher::default(), true);
    world.publisher.publish([set("t", "secret-1", "1"), set("t", "a", "1")]);
    let (mut handle, contents) = world.client(&["t"]);
    until(&mut handle.status, |s| s.synced).await;
    handle.demands.send(Demand::Subscribe(name("t", "secret-1"))).await.unwrap();
    world.publisher.publish([set("t", "secret-1", "2"), set("t", "b", "1")]);
    let mut contents = contents;
    until(&mut contents, |c| c.contains_key(&name("t", "b"))).await;
    assert!(!contents.borrow().contains_key(&name("t", "secret-1")));
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_stays_outside_and_says_why() {
    let mut world = World::new(Publisher::default());
    world.wire.token = "Bearer stolen";
    let (mut handle, _contents) = world.client(&["t"]);
    let refused = |s: &ClientStatus| s.last_error.as_deref().is_some_and(|e| e.contains("no token"));
    until(&mut handle.status, refused).await;
}

#[tokio::test]
async fn what_is_gone_is_told_to_a_client_that_has_everything_and_one_that_slept_too_long_begins_anew() {
    let mut world = World::new(Publisher::default());
    world.publisher.publish([set("t", "a", "1"), set("t", "b", "1")]);
    let (_handle, mut contents) = world.client(&["t"]);
    until(&mut contents, |c| c.len() == 2).await;
    world.event(|e| matches!(e, Event::Synced(_))).await;
    world.publisher.publish([Update::Remove(name("t", "a"))]);
    until(&mut contents, |c| c.len() == 1).await;
    // More at once than is remembered: what is gone with it can only be found by what the client says that it has.
    let many = (0..100_001).map(|n| set("t", &format!("n{n}"), "1"));
    world.publisher.publish(many.chain([Update::Remove(name("t", "b"))]));
    world.event(|e| *e == Event::Disconnected).await;
    until(&mut contents, |c| c.len() == 100_001).await;
    assert!(!contents.borrow().contains_key(&name("t", "b")));
}

#[test]
fn what_is_the_same_makes_no_change() {
    let publisher = Publisher::default();
    assert_eq!(publisher.publish([set("t", "a", "1")]), Sequence(1));
    assert_eq!(publisher.publish([set("t", "a", "1"), Update::Remove(name("t", "gone"))]), Sequence(1));
    assert_eq!(publisher.publish([set("t", "a", "2")]), Sequence(2));
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    Settle,
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..20_u8, 0..4_u8).prop_map(|(n, v)| Step::Set(n, v)),
        2 => (0..20_u8).prop_map(Step::Remove),
        1 => Just(Step::Settle),
        1 => Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is published in whatever order, and however often the stream breaks, the client ends with it.
    #[test]
    fn the_client_ends_with_what_was_published(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(Publisher::default());
            let mut expected = Contents::new();
            let (mut handle, mut contents) = world.client(&["t"]);
            for step in steps {
                match step {
                    Step::Set(n, v) => {
                        let (n, v) = (format!("n{n}"), format!("v{v}"));
                        world.publisher.publish([set("t", &n, &v)]);
                        expected.insert(name("t", &n), Bytes::from(v));
                    }
                    Step::Remove(n) => {
                        let removed = name("t", &format!("n{n}"));
                        expected.remove(&removed);
                        world.publisher.publish([Update::Remove(removed)]);
                    }
                    Step::Settle => until(&mut contents, |c| *c == expected).await,
                    Step::Reconnect => {
                        world.stop();
                        world.start();
                        tokio::task::yield_now().await;
                    }
                }
            }
            until(&mut handle.status, |s| s.synced).await;
            until(&mut contents, |c| *c == expected).await;
        });
    }
}
