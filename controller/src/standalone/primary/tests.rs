use super::*;
use crate::standalone::{Attachment, Verdict};
use weft_core::change::{Change, ResourceKey};
use weft_core::ids::{Port, ServiceKey, ServicePortKey};
use weft_core::wire;
use weft_k8s::parse;
use weft_xds::Update;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { weftmesh.io/mesh: enabled } }
---
apiVersion: v1
kind: Namespace
metadata: { name: legacy }
---
apiVersion: v1
kind: Pod
metadata: { name: cart-1, namespace: shop, labels: { app: cart } }
spec: { serviceAccountName: cart, containers: [{ name: app, image: x, ports: [{ name: http, containerPort: 8080 }] }] }
---
apiVersion: v1
kind: Service
metadata: { name: cart, namespace: shop }
spec: { selector: { app: cart }, ports: [{ name: http, port: 80, targetPort: http, appProtocol: http }] }
"#;

fn manifests(text: &str) -> Manifests {
    let parsed = parse::parse("test.yaml", text);
    assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
    Manifests { applied: parsed.objects.into_iter().map(|l| l.object).collect(), deleted: Vec::new(), published: None }
}

fn attachment(node: &str, ip: &str) -> Attachment {
    Attachment {
        namespace: "shop".into(),
        name: "cart-1".into(),
        uid: None,
        node: node.into(),
        ips: vec![ip.parse().unwrap()],
        ready: true,
    }
}

struct Running {
    handle: PrimaryHandle,
    manifests: mpsc::Sender<Manifests>,
    state: tempfile::TempDir,
}

fn start(state: tempfile::TempDir) -> Running {
    let settings = PrimarySettings {
        index: IndexConfig::default(),
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        state: state.path().to_owned(),
    };
    let (primary, handle) = Primary::open(settings).unwrap();
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(primary.run(receiver, |_| ()));
    Running { handle, manifests: sender, state }
}

impl Running {
    async fn decide(&self, namespace: &str, name: &str) -> Verdict {
        let (reply, verdict) = oneshot::channel();
        let node = NodeName::new("a");
        self.handle.send(Command::Decide { node, namespace: namespace.into(), name: name.into(), reply }).await;
        verdict.await.unwrap()
    }

    /// Waits until everything sent before is done.
    async fn settle(&self) {
        self.decide("shop", "anything").await;
        tokio::task::yield_now().await;
    }

    fn endpoints(&self) -> Vec<String> {
        let key = ServicePortKey { service: ServiceKey::new("shop", "cart"), port: Port::new(80).unwrap() };
        let snapshot = self.handle.snapshot.load();
        let entries = snapshot.frontend(&key).map(|f| f.endpoints.entries.clone()).unwrap_or_default();
        entries.iter().map(|e| format!("{} {:?}", e.address, e.health)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_gets_an_address_and_the_pods_that_nodes_report() {
    let running = start(tempfile::tempdir().unwrap());
    running.manifests.send(manifests(MANIFESTS)).await.unwrap();
    running.settle().await;
    assert!(running.endpoints().is_empty());
    let (node, zone) = (NodeName::new("a"), None);
    running.handle.send(Command::NodeUp { node, zone, pods: vec![attachment("a", "10.0.0.1")] }).await;
    running.settle().await;
    assert_eq!(running.endpoints(), ["10.0.0.1:8080 Ready"]);
    let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    assert!(running.handle.is_bound(&NodeName::new("a"), &identity));
    assert!(!running.handle.is_bound(&NodeName::new("b"), &identity), "another node has no such pod");
    assert!(running.handle.publisher.len() >= 4);
}

#[tokio::test(start_paused = true)]
async fn only_the_node_that_has_a_pod_can_take_it_away_and_a_lost_node_makes_it_not_ready() {
    let running = start(tempfile::tempdir().unwrap());
    running.manifests.send(manifests(MANIFESTS)).await.unwrap();
    running.handle.send(Command::Attached(attachment("a", "10.0.0.1"))).await;
    let gone = |node: &str| Command::Detached { node: node.into(), namespace: "shop".into(), name: "cart-1".into() };
    running.handle.send(gone("b")).await;
    running.settle().await;
    assert_eq!(running.endpoints(), ["10.0.0.1:8080 Ready"]);
    running.handle.send(Command::NodeDown("a".into())).await;
    running.settle().await;
    assert_eq!(running.endpoints(), ["10.0.0.1:8080 Ready"], "it may be back soon");
    tokio::time::sleep(NODE_GRACE + Duration::from_secs(1)).await;
    running.settle().await;
    assert_eq!(running.endpoints(), ["10.0.0.1:8080 NotReady"]);
    running.handle.send(gone("a")).await;
    running.settle().await;
    assert!(running.endpoints().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_gets_nothing_for_a_pod_that_is_for_another() {
    let running = start(tempfile::tempdir().unwrap());
    let text = MANIFESTS.replace("spec: { serviceAccountName: cart,", "spec: { nodeName: b, serviceAccountName: cart,");
    assert_ne!(text, MANIFESTS);
    running.manifests.send(manifests(&text)).await.unwrap();
    running.settle().await;
    assert!(matches!(running.decide("shop", "cart-1").await, Verdict::Undecided(why) if why.contains("node b")));
    running.handle.send(Command::Attached(attachment("a", "10.0.0.1"))).await;
    running.settle().await;
    let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    assert!(running.endpoints().is_empty() && !running.handle.is_bound(&NodeName::new("a"), &identity));
    running.handle.send(Command::Attached(attachment("b", "10.0.0.2"))).await;
    running.settle().await;
    assert_eq!(running.endpoints(), ["10.0.0.2:8080 Ready"]);
    assert!(running.handle.is_bound(&NodeName::new("b"), &identity));
}

#[tokio::test(start_paused = true)]
async fn addresses_and_pods_survive_a_restart() {
    let running = start(tempfile::tempdir().unwrap());
    running.manifests.send(manifests(MANIFESTS)).await.unwrap();
    running.handle.send(Command::Attached(attachment("a", "10.0.0.1"))).await;
    running.settle().await;
    let address =
        |r: &Running| r.handle.snapshot.load().service(&ServiceKey::new("shop", "cart")).unwrap().addresses.clone();
    let before = address(&running);
    let again = start(running.state);
    let more = MANIFESTS.replace(
        "name: cart, namespace: shop }\nspec: { selector",
        "name: aardvark, namespace: shop }\nspec: { selector",
    );
    again.manifests.send(manifests(&more)).await.unwrap();
    again.manifests.send(manifests(MANIFESTS)).await.unwrap();
    again.settle().await;
    assert_eq!(address(&again), before);
    assert_eq!(again.endpoints(), ["10.0.0.1:8080 Ready"]);
}

#[tokio::test(start_paused = true)]
async fn enrolment_follows_labels() {
    let running = start(tempfile::tempdir().unwrap());
    running.manifests.send(manifests(MANIFESTS)).await.unwrap();
    running.settle().await;
    let account = |name: &str| Verdict::Enrolled { service_account: name.into(), close_older_flows: false };
    assert_eq!(running.decide("shop", "cart-1").await, account("cart"));
    assert_eq!(running.decide("shop", "without-manifest").await, account("default"));
    assert_eq!(running.decide("legacy", "x").await, Verdict::NotLabelled);
    assert_eq!(running.handle.enrolment.borrow().namespaces_outside, ["legacy".into()]);
    let disabled = MANIFESTS.replace("labels: { app: cart } }", "labels: { app: cart, weftmesh.io/mesh: disabled } }");
    running.manifests.send(manifests(&disabled)).await.unwrap();
    running.settle().await;
    assert_eq!(running.decide("shop", "cart-1").await, Verdict::Disabled);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_decodes_to_what_the_primary_has() {
    let running = start(tempfile::tempdir().unwrap());
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop");
    for file in std::fs::read_dir(shop).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        running.manifests.send(manifests(&text)).await.unwrap();
    }
    running.settle().await;
    running.settle().await;
    let resources = running.handle.snapshot.load().resources();
    let any = |wanted: fn(&ResourceKey) -> bool| resources.iter().any(|r| wanted(&r.key()));
    assert!(any(|key| matches!(key, ResourceKey::Service(_))));
    assert!(any(|key| matches!(key, ResourceKey::Rule(_))));
    assert!(any(|key| matches!(key, ResourceKey::Authorization(_))));
    assert!(any(|key| matches!(key, ResourceKey::MeshPolicy(_))));
    for resource in resources {
        let Update::Set(encoded) = encode(&Change::Upsert(resource.clone())) else { panic!("a removal") };
        let decoded = wire::decode(encoded.name.type_url.as_str(), &encoded.name.name, &encoded.body).unwrap();
        assert_eq!(decoded, resource);
    }
}
