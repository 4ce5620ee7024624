//! Configuration over a stream, from a server in the same process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tonic::transport::Endpoint;
use weft_core::change::MeshConfig;
use weft_core::gateway::{Bind, Listener, ListenerProtocol};
use weft_core::ids::{GatewayKey, ListenerKey, PolicyKey, Port};
use weft_core::policy::{MeshPolicy, Scope, WorkloadLimits};
use weft_xds::Encoded;
use weft_xds::server::{Access, Event, Publisher, Server};

use super::*;
use crate::gateway::{Failing, Progress};
use crate::store::{ConfigSource, SavedFile, Store};

#[test]
fn a_resource_that_cannot_be_read_is_rejected_by_name_and_the_rest_applied() {
    let resource = Resource::Mesh(Arc::new(MeshConfig { force_wire: true, ..MeshConfig::default() }));
    let key = resource.key();
    let name = |text: &str| ResourceName::new(TypeUrl::new(wire::type_url(&key)), text);
    let good = Encoded { name: name(&wire::name(&key)), body: Bytes::from(wire::encode(&resource)) };
    let bad = Encoded { name: name("no such name"), body: Bytes::from_static(b"\xff\xff") };
    let (changes, rejections) = decode(vec![Update::Set(bad), Update::Set(good)]);
    assert_eq!(changes, vec![Change::Upsert(resource)]);
    assert_eq!(rejections.len(), 1);
    assert_eq!(&*rejections[0].name.name, "no such name");
}

/// Lets everybody in.
struct Open;

impl Access for Open {
    type Client = ();

    async fn admit(&self, _: &MetadataMap, _: &tonic::Extensions) -> Result<(), Status> {
        Ok(())
    }

    fn may_see(&self, (): &(), _: &TypeUrl, _: &str) -> bool {
        true
    }

    fn on_event(&self, (): &(), _: Event) {}
}

/// Lets everybody in, and tells what becomes known of them.
struct Hearing(tokio::sync::mpsc::UnboundedSender<Event>);

impl Access for Hearing {
    type Client = ();

    async fn admit(&self, _: &MetadataMap, _: &tonic::Extensions) -> Result<(), Status> {
        Ok(())
    }

    fn is_restricted(&self, (): &(), _: &TypeUrl) -> bool {
        true
    }

    fn on_event(&self, (): &(), event: Event) {
        let _ = self.0.send(event);
    }
}

/// A channel to a server of what was published.
fn serve(publisher: &Publisher) -> Channel {
    serve_to(publisher, Open)
}

/// The same, with somebody at its door.
fn serve_to<A: Access>(publisher: &Publisher, access: A) -> Channel {
    let (connections, accepted) = tokio::sync::mpsc::channel::<tokio::io::DuplexStream>(1);
    let incoming = futures::stream::unfold(accepted, |mut accepted| async move {
        accepted.recv().await.map(|io| (Ok::<_, std::io::Error>(io), accepted))
    });
    let service = Server::service(publisher.clone(), Arc::new(access));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let connections = connections.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            connections.send(theirs).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(ours))
        }
    });
    Endpoint::from_static("http://server").connect_with_connector_lazy(connector)
}

fn policy(name: &str) -> Resource {
    Resource::MeshPolicy(Arc::new(MeshPolicy {
        key: PolicyKey::new("shop", name),
        scope: Scope::Mesh,
        created_unix_seconds: 0,
        mode: None,
        port_modes: vec![(Port::new(80).unwrap(), weft_core::policy::Mode::Strict)],
        enforced: false,
        limits: WorkloadLimits::default(),
    }))
}

fn published(resource: &Resource) -> Update {
    let key = resource.key();
    let name = ResourceName::new(TypeUrl::new(wire::type_url(&key)), wire::name(&key));
    Update::Set(Encoded { name, body: Bytes::from(wire::encode(resource)) })
}

/// A node that was down while an object went: its file still has it.
#[tokio::test]
async fn what_is_in_the_saved_configuration_and_gone_since_goes_with_the_first_answers() {
    let folder = tempfile::tempdir().unwrap();
    let file = SavedFile::new(folder.path().join("config"));
    let (kept, gone) = (policy("kept"), policy("gone"));
    let before = Snapshot::default().apply(&[Change::Upsert(kept.clone()), Change::Upsert(gone)]);
    file.write(&before).unwrap();

    let publisher = Publisher::default();
    publisher.publish([published(&kept), published(&policy("new"))]);
    let saved = file.read().unwrap().unwrap();
    let store = Arc::new(Store::new(saved.clone()));
    let (sink, source) = ConfigSource::channel();
    let follower = Arc::clone(&store);
    tokio::spawn(async move { follower.follow(source).await });
    let token: TokenSource = Arc::new(|| Ok("token".into()));
    let (client, mut handle) = ConfigClient::new(&"n1".into(), serve(&publisher), token, sink);
    tokio::spawn(client.holding(&saved).run());

    let synced = handle.status.wait_for(|status| status.synced);
    tokio::time::timeout(Duration::from_secs(10), synced).await.expect("in time").unwrap();
    let names: Vec<_> = store.load().mesh_policies().map(|policy| policy.key.to_string()).collect();
    assert_eq!(names, ["shop/kept", "shop/new"]);
}

fn http_listener() -> Resource {
    Resource::Listener(Arc::new(Listener {
        key: ListenerKey::new(GatewayKey::new("edge", "web"), "http"),
        addresses: Vec::new(),
        port: Port::new(80).unwrap(),
        hostname: None,
        protocol: ListenerProtocol::Http,
        kinds: Vec::new(),
        client_validation: None,
        policies: Vec::new(),
        http3: false,
    }))
}

/// The whole way: a worker that can't bind, a controller that hears it, and the place that becomes free.
#[tokio::test]
async fn a_listener_is_acknowledged_when_it_is_bound() {
    let publisher = Publisher::default();
    publisher.publish([published(&http_listener()), published(&policy("all"))]);
    let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (store, progress) = (Arc::<Store>::default(), Progress::new(1));
    let (sink, source) = ConfigSource::channel();
    let follower = Arc::clone(&store);
    tokio::spawn(async move { follower.follow(source).await });
    let token: TokenSource = Arc::new(|| Ok("token".into()));
    let channel = serve_to(&publisher, Hearing(events));
    let (client, handle) = ConfigClient::of_gateway("edge/web-1", channel, token, sink, progress.clone());
    tokio::spawn(client.run());
    let mut next = async |wanted: fn(&Event) -> bool| {
        let heard = async {
            loop {
                let event = heard.recv().await.expect("the server is gone");
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), heard).await.expect("in time")
    };
    // As a worker does: it looks at each version.
    let listen = |failing: Failing| {
        let (progress, mut versions) = (progress.clone(), store.subscribe());
        tokio::spawn(async move {
            loop {
                progress.report(0, *versions.borrow_and_update(), &failing);
                if versions.changed().await.is_err() {
                    return;
                }
            }
        })
    };
    let place = Bind::tcp(None, Port::new(80).unwrap());
    let worker = listen(Failing::from([(place, "in use".to_owned())]));
    match next(|event| matches!(event, Event::Nacked { .. })).await {
        Event::Nacked { refused, .. } => {
            let told: Vec<_> = refused.iter().map(|it| (&*it.name, it.reason.as_str())).collect();
            assert_eq!(told, [("edge/web/http", "in use")]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.load().listeners().count(), 1, "it is tried again");
    worker.abort();
    listen(Failing::new());
    match next(|event| matches!(event, Event::Mended { .. })).await {
        Event::Mended { names, .. } => assert_eq!(names.iter().map(|it| &**it).collect::<Vec<_>>(), ["edge/web/http"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(handle.status.borrow().nacks, 1);
}

/// Hears from whom the stream is and what it asks for, type by type; and then as [`Hearing`].
struct Asking(Hearing, tokio::sync::mpsc::UnboundedSender<String>);

impl Access for Asking {
    type Client = ();

    async fn admit(&self, metadata: &MetadataMap, _: &tonic::Extensions) -> Result<(), Status> {
        let since = metadata.get(PROCESS_SINCE).and_then(|since| since.to_str().ok()?.parse::<u64>().ok());
        let _ = self.1.send(format!("known: {}", since.is_some_and(|since| since > 0)));
        Ok(())
    }

    fn on_type(&self, (): &(), type_url: &TypeUrl) -> Result<(), Status> {
        let _ = self.1.send(type_url.to_string());
        Ok(())
    }

    fn on_event(&self, (): &(), event: Event) {
        self.0.on_event(&(), event);
    }
}

/// A node whose workers start when it has its configuration: it must not wait for them before.
#[tokio::test]
async fn a_node_without_configuration_asks_for_listeners_when_its_workers_run() {
    let publisher = Publisher::default();
    publisher.publish([published(&http_listener()), published(&policy("all"))]);
    let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (store, progress) = (Arc::<Store>::default(), Progress::new(1));
    let (sink, source) = ConfigSource::channel();
    let follower = Arc::clone(&store);
    tokio::spawn(async move { follower.follow(source).await });
    let token: TokenSource = Arc::new(|| Ok("token".into()));
    let channel = serve_to(&publisher, Asking(Hearing(events), asks));
    let listens = (progress.clone(), ListensFrom::ItsWorkers);
    let (client, mut handle) = ConfigClient::with_gateways(&"n1".into(), channel, token, sink, listens);
    tokio::spawn(client.run());
    let synced = handle.status.wait_for(|status| status.synced);
    tokio::time::timeout(Duration::from_secs(5), synced).await.expect("workers were waited for").unwrap();
    let told: Vec<_> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
    assert_eq!(told.len(), wire::TYPE_URLS.len(), "who it is, and every type but one: {told:?}");
    assert!(told[0] == "known: true" && !told.contains(&wire::LISTENER.to_owned()), "{told:?}");
    assert_eq!((store.load().listeners().count(), store.load().mesh_policies().count()), (0, 1));
    assert!(!handle.status.borrow().answered.contains(&TypeUrl::new(wire::LISTENER)));

    // Its worker runs, and can't listen where the listener is.
    let place = Bind::tcp(None, Port::new(80).unwrap());
    let (reports, mut versions) = (progress.clone(), store.subscribe());
    tokio::spawn(async move {
        loop {
            reports.report(0, *versions.borrow_and_update(), &Failing::from([(place, "in use".to_owned())]));
            if versions.changed().await.is_err() {
                return;
            }
        }
    });
    let refused = async {
        loop {
            if let Event::Nacked { refused, .. } = heard.recv().await.expect("the server is gone") {
                return refused;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(30), refused).await.expect("in time");
    assert_eq!(refused.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["edge/web/http"]);
    assert_eq!((asked.try_recv().ok().as_deref(), store.load().listeners().count()), (Some(wire::LISTENER), 1));
    tokio::time::timeout(Duration::from_secs(5), progress.listening()).await.expect("nobody waits for ever");
}

/// A process that takes over waits for this: without a Gateway, too, it must not wait for ever.
#[tokio::test]
async fn a_proxy_listens_when_the_controller_has_said_where_and_nowhere_is_an_answer() {
    for from in [ListensFrom::TheStart, ListensFrom::ItsWorkers] {
        let publisher = Publisher::default();
        publisher.publish([published(&policy("all"))]);
        let (store, progress) = (Arc::<Store>::default(), Progress::new(1));
        let (sink, source) = ConfigSource::channel();
        tokio::spawn(async move { store.follow(source).await });
        let token: TokenSource = Arc::new(|| Ok("token".into()));
        let listens = (progress.clone(), from);
        let (client, handle) = ConfigClient::with_gateways(&"n1".into(), serve(&publisher), token, sink, listens);
        progress.report(0, 0, &Failing::new());
        let early = tokio::time::timeout(Duration::from_millis(200), progress.listening()).await;
        assert!(early.is_err(), "nothing has been heard: {from:?}");
        tokio::spawn(client.run());
        let listening = tokio::time::timeout(Duration::from_secs(5), progress.listening()).await;
        assert!(listening.is_ok(), "{from:?}: {:?}", handle.status.borrow());
    }
}
