//! A proxy that can't bind a listener, the primary that hears it, and the status that follows.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weft_controller::standalone::{Manifests, Primary, PrimarySettings};
use weft_k8s::index::IndexConfig;
use weft_k8s::object::{Condition, ConditionType, GatewayStatus, ObjectStatus, StatusUpdate};
use weft_k8s::parse;
use weft_k8s::translate::gateway::{GatewaySettings, KeyPairCheck, Place};
use weft_xds::server::Refusal;

use super::*;

const GATEWAYS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: edge }
spec:
  gatewayClassName: weft
  listeners: [{ name: http, port: 80, protocol: HTTP }, { name: more, port: 81, protocol: HTTP }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: other, namespace: edge }
spec: { gatewayClassName: weft, listeners: [{ name: http, port: 90, protocol: HTTP }] }
";
const TAKEN: &str = "*:81 can't be listened on: Address already in use (os error 98)";

/// A primary on node `n1`, with what it says of Gateways.
struct Mesh {
    access: NodeAccess,
    primary: PrimaryHandle,
    manifests: mpsc::Sender<Manifests>,
    updates: mpsc::UnboundedReceiver<Vec<StatusUpdate>>,
    said: BTreeMap<String, GatewayStatus>,
    _state: tempfile::TempDir,
}

impl Mesh {
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let tokens = Arc::new(Tokens::open(state.path()).unwrap());
        let place = Place::Machine { addresses: vec!["192.0.2.1".parse().unwrap()] };
        let gateways = GatewaySettings { place, check: KeyPairCheck(|_, _| Ok(())) };
        let index = IndexConfig { gateways: Some(gateways), ..IndexConfig::default() };
        let settings = PrimarySettings { index, service_ranges: Vec::new(), state: state.path().to_owned() };
        let (task, primary) = Primary::open(settings).unwrap();
        let (manifests, receiver) = mpsc::channel(4);
        let (sender, updates) = mpsc::unbounded_channel();
        tokio::spawn(task.run(receiver, move |changed| drop(sender.send(changed))));
        let access = NodeAccess::new(tokens, "n1".into(), &primary);
        let mesh = Self { access, primary, manifests, updates, said: BTreeMap::new(), _state: state };
        mesh.apply(GATEWAYS).await;
        mesh
    }

    async fn apply(&self, text: &str) {
        let parsed = parse::parse("test.yaml", text);
        assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
        let (published, done) = oneshot::channel();
        let applied = parsed.objects.into_iter().map(|it| it.object).collect();
        self.manifests.send(Manifests { applied, deleted: Vec::new(), published: Some(published) }).await.unwrap();
        done.await.unwrap();
    }

    /// A proxy of a node that asks for listeners, and says when it was started.
    async fn proxy(&self, node: &str, since: u64) -> Client {
        let token = self.access.tokens.issue(&node.into()).unwrap();
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        metadata.insert(PROCESS_SINCE, since.into());
        let client = self.access.admit(&metadata, &tonic::Extensions::default()).await.unwrap();
        self.access.on_event(&client, Event::Connected);
        self.access.on_type(&client, &TypeUrl::new(LISTENER)).unwrap();
        client
    }

    fn synced(&self, client: &Client) {
        self.access.on_event(client, Event::Synced(self.primary.publisher.sequence()));
    }

    fn nacked(&self, client: &Client, names: &[&str]) {
        let refused = names.iter().map(|name| Refusal { name: (*name).into(), reason: TAKEN.into() }).collect();
        let type_url = TypeUrl::new(LISTENER);
        self.access.on_event(client, Event::Nacked { type_url, reason: "...".into(), refused });
    }

    fn mended(&self, client: &Client, name: &str) {
        self.access.on_event(client, Event::Mended { type_url: TypeUrl::new(LISTENER), names: vec![name.into()] });
    }

    /// `Programmed` of each Gateway and of each of its listeners, by its reason, and the messages.
    fn told(&self) -> (Vec<String>, Vec<String>) {
        let of = |name: &str, conditions: &[Condition]| {
            let found = conditions.iter().find(|it| it.kind == ConditionType::GatewayProgrammed).unwrap();
            assert_eq!(found.status, found.reason == "Programmed");
            (format!("{name} {}", found.reason), found.message.clone())
        };
        let of_gateway = |(name, status): (&String, &GatewayStatus)| {
            let listeners = status.listeners.iter().map(|it| of(&format!("{name}/{}", it.name), &it.conditions));
            [of(name, &status.conditions)].into_iter().chain(listeners).collect::<Vec<_>>()
        };
        self.said.iter().flat_map(of_gateway).unzip()
    }

    /// Waits until it is said so.
    async fn says(&mut self, wanted: &[&str]) {
        while self.told().0 != wanted {
            let told = self.told();
            let next = tokio::time::timeout(Duration::from_secs(40), self.updates.recv());
            let updates = next.await.unwrap_or_else(|_| panic!("wanted: {wanted:?}, told: {told:?}")).unwrap();
            for StatusUpdate { object, status, .. } in updates {
                if let ObjectStatus::Gateway(status) = status {
                    self.said.insert(object.name.to_string(), status);
                }
            }
        }
    }

    /// Nothing else is said any more of what has been heard so far.
    async fn says_no_more(&mut self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(self.updates.try_recv().is_err());
    }
}

const GOOD: [&str; 5] =
    ["gw Programmed", "gw/http Programmed", "gw/more Programmed", "other Programmed", "other/http Programmed"];
const REFUSED: [&str; 5] =
    ["gw Programmed", "gw/http Programmed", "gw/more RefusedByProxy", "other Programmed", "other/http Programmed"];
const PENDING: [&str; 5] = ["gw Pending", "gw/http Pending", "gw/more Pending", "other Pending", "other/http Pending"];

#[tokio::test]
async fn a_gateway_is_programmed_when_the_proxy_of_the_own_node_has_bound_it() {
    let mut mesh = Mesh::start().await;
    mesh.says(&PENDING).await;
    let elsewhere = mesh.proxy("n2", 900).await;
    mesh.synced(&elsewhere);
    mesh.says_no_more().await;

    let proxy = mesh.proxy("n1", 100).await;
    mesh.nacked(&proxy, &["edge/gw/more"]);
    mesh.synced(&proxy);
    mesh.says(&REFUSED).await;
    let (_, messages) = mesh.told();
    assert_eq!(messages.iter().filter(|it| it.contains(TAKEN)).count(), 2, "{messages:?}");
    assert!(messages[0].contains("listener more: *:81"), "{messages:?}");
    let gateway = weft_core::ids::GatewayKey::new("edge", "gw");
    assert_eq!(mesh.primary.bound.borrow()[&gateway].values().collect::<Vec<_>>(), [TAKEN]);

    mesh.mended(&proxy, "edge/gw/more");
    mesh.says(&GOOD).await;
    mesh.nacked(&proxy, &["edge/gw/more", "edge/gw/http"]);
    let all = [&["gw RefusedByProxy", "gw/http RefusedByProxy"][..], &REFUSED[2..]].concat();
    mesh.says(&all).await;
}

/// Meanwhile the proxy listens on.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_made_anew_changes_nothing_and_one_that_stays_away_is_told() {
    let mut mesh = Mesh::start().await;
    let proxy = mesh.proxy("n1", 100).await;
    mesh.synced(&proxy);
    mesh.says(&GOOD).await;
    mesh.access.on_event(&proxy, Event::Disconnected);
    mesh.says_no_more().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let again = mesh.proxy("n1", 100).await;
    mesh.synced(&again);
    tokio::time::sleep(Duration::from_secs(60)).await;
    mesh.says_no_more().await;

    mesh.access.on_event(&again, Event::Disconnected);
    tokio::time::sleep(Duration::from_secs(29)).await;
    mesh.says_no_more().await;
    mesh.says(&PENDING).await;
    let again = mesh.proxy("n1", 100).await;
    mesh.synced(&again);
    mesh.says(&GOOD).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_was_replaced_has_no_say_and_an_edit_waits_for_the_proxy_again() {
    let mut mesh = Mesh::start().await;
    let older = mesh.proxy("n1", 100).await;
    mesh.synced(&older);
    mesh.says(&GOOD).await;
    let newer = mesh.proxy("n1", 200).await;
    mesh.says_no_more().await;
    mesh.nacked(&newer, &["edge/gw/more"]);
    mesh.synced(&newer);
    mesh.says(&REFUSED).await;
    mesh.synced(&older);
    // It comes back with another stream.
    mesh.access.on_event(&older, Event::Disconnected);
    let older = mesh.proxy("n1", 100).await;
    mesh.synced(&older);
    mesh.says_no_more().await;

    mesh.apply(&GATEWAYS.replace("port: 81", "port: 82")).await;
    mesh.says(&["gw Pending", "gw/http Pending", "gw/more Pending", "other Programmed", "other/http Programmed"]).await;
    mesh.mended(&newer, "edge/gw/more");
    mesh.says_no_more().await;
    mesh.synced(&newer);
    mesh.says(&GOOD).await;

    // Its successor is gone for good: it listens nowhere all the same.
    mesh.access.on_event(&newer, Event::Disconnected);
    mesh.says(&PENDING).await;
    mesh.synced(&older);
    mesh.says_no_more().await;
}
