//! The primary's task: the one place where the world changes, one batch at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_k8s::index::{IndexConfig, Output};
use weft_k8s::object::{Object, ObjectRef, StatusUpdate};
use weft_xds::server::Publisher;

use super::command::{Command, EnrolmentView, PrimaryHandle};
use super::listening::{Bound, Listening};
use super::tokens::write_private;
use super::world::{Saved, World};
use crate::publish::encode;

/// How long a node may be away before its pods count as not ready; as long as Kubernetes waits.
const NODE_GRACE: Duration = Duration::from_secs(40);
/// Requests that wait for the task; more make their senders wait.
const QUEUE: usize = 1024;

/// Changes of the manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// New or changed.
    pub applied: Vec<Object>,
    /// Gone.
    pub deleted: Vec<ObjectRef>,
    /// Told when they are published.
    pub published: Option<oneshot::Sender<()>>,
}

/// Settings of a primary.
#[derive(Clone, Debug)]
pub struct PrimarySettings {
    /// What the index needs.
    pub index: IndexConfig,
    /// Ranges for ClusterIPs, at most one of each family.
    pub service_ranges: Vec<IpNet>,
    /// Where addresses and pods are kept across restarts.
    pub state: PathBuf,
}

/// The task.
pub struct Primary {
    world: World,
    state: PathBuf,
    saved: Saved,
    snapshot: Arc<ArcSwap<Snapshot>>,
    publisher: Publisher,
    enrolment: watch::Sender<EnrolmentView>,
    commands: mpsc::Receiver<Command>,
    listening: watch::Receiver<Listening>,
    /// Until when what was heard of listeners counts.
    word_until: Option<Instant>,
    bound: watch::Sender<Bound>,
    away: HashMap<NodeName, Instant>,
}

impl Primary {
    /// A primary that goes on where the last one stopped.
    ///
    /// # Errors
    /// If the state can't be read: rather that than other addresses for the same Services.
    pub fn open(settings: PrimarySettings) -> anyhow::Result<(Self, PrimaryHandle)> {
        let file = settings.state.join("world.json");
        let saved = read_saved(&file)?;
        let world = World::new(settings.index, settings.service_ranges, saved.clone());
        let (sender, commands) = mpsc::channel(QUEUE);
        let (enrolment, enrolment_view) = watch::channel(EnrolmentView::default());
        let (listening, heard) = watch::channel(Listening::default());
        let (bound, told_bound) = watch::channel(Bound::new());
        let (snapshot, publisher) = (Arc::new(ArcSwap::default()), Publisher::default());
        let handle = PrimaryHandle {
            commands: sender,
            enrolment: enrolment_view,
            snapshot: Arc::clone(&snapshot),
            publisher: publisher.clone(),
            listening,
            bound: told_bound,
            expected: Arc::default(),
        };
        // Every node of the last run is away until it says otherwise.
        let away = saved.pods.iter().map(|pod| (pod.node.clone(), Instant::now())).collect();
        let primary = Self {
            world,
            state: file,
            saved,
            snapshot,
            publisher,
            enrolment,
            commands,
            listening: heard,
            word_until: None,
            bound,
            away,
        };
        Ok((primary, handle))
    }

    /// Runs until the last handle is gone. `statuses` is called with what changed, after it is published.
    pub async fn run(mut self, mut manifests: mpsc::Receiver<Manifests>, mut statuses: impl FnMut(Vec<StatusUpdate>)) {
        statuses(self.publish());
        loop {
            let mut published = None;
            let lost = self.away.values().min().map(|since| *since + NODE_GRACE);
            tokio::select! {
                // Edits first: a flood of reports must not hold them up.
                biased;
                Some(batch) = manifests.recv() => {
                    batch.deleted.iter().for_each(|reference| self.world.delete(reference));
                    batch.applied.into_iter().for_each(|object| self.world.apply(object));
                    self.note_enrolment();
                    published = batch.published;
                }
                Ok(()) = self.listening.changed() => {
                    let listening = self.listening.borrow_and_update().clone();
                    self.word_until = listening.until;
                    self.world.hear(listening);
                }
                () = sleep_until(self.word_until) => {
                    self.word_until = None;
                    self.world.hear(Listening::default());
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.execute(command),
                    None => return,
                },
                () = sleep_until(lost) => self.lose_nodes(),
            }
            while let Ok(command) = self.commands.try_recv() {
                self.execute(command);
            }
            let changed = self.publish();
            if !changed.is_empty() {
                statuses(changed);
            }
            // Whoever wanted to know may be gone.
            let _ = published.map(|done| done.send(()));
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::NodeUp { node, zone, pods } => {
                self.away.remove(&node);
                self.world.node_up(&node, zone, pods);
            }
            Command::NodeDown(node) => {
                self.away.insert(node, Instant::now());
            }
            Command::Attached(attachment) => self.world.attach(attachment),
            Command::Detached { node, namespace, name } => self.world.detach(&node, &(namespace, name)),
            Command::Decide { node, namespace, name, reply } => {
                let verdict = self.world.decide(&node, &(namespace, name), &self.snapshot.load());
                // The node may have given up waiting.
                let _ = reply.send(verdict);
            }
        }
    }

    fn lose_nodes(&mut self) {
        let now = Instant::now();
        let lost: Vec<_> =
            self.away.iter().filter(|(_, since)| **since + NODE_GRACE <= now).map(|(n, _)| n.clone()).collect();
        for node in lost {
            tracing::warn!(%node, "node is away: its pods are not ready");
            self.away.remove(&node);
            self.world.node_lost(&node);
        }
    }

    /// Publishes what is different and keeps what must survive.
    fn publish(&mut self) -> Vec<StatusUpdate> {
        let Output { changes, statuses } = self.world.commit();
        if !changes.is_empty() {
            self.snapshot.store(Arc::new(self.snapshot.load().apply(&changes)));
            self.world.published(self.publisher.publish(changes.iter().map(encode)));
        }
        self.bound.send_if_modified(|told| {
            let differs = *told != *self.world.bound();
            told.clone_from(self.world.bound());
            differs
        });
        let saved = self.world.saved();
        if saved != self.saved {
            match save(&self.state, &saved) {
                Ok(()) => self.saved = saved,
                Err(error) => tracing::error!(%error, file = %self.state.display(), "addresses are not kept"),
            }
        }
        statuses
    }

    /// Labels may have changed: agents ask again.
    fn note_enrolment(&mut self) {
        let namespaces_outside = self.world.namespaces_outside();
        self.enrolment.send_modify(|view| {
            view.revision += 1;
            view.namespaces_outside = namespaces_outside;
        });
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn read_saved(file: &Path) -> anyhow::Result<Saved> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Saved::default()),
        Err(error) => Err(error.into()),
    }
}

fn save(file: &Path, saved: &Saved) -> anyhow::Result<()> {
    Ok(write_private(file, &serde_json::to_vec_pretty(saved)?)?)
}

#[cfg(test)]
mod tests {
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
        Manifests {
            applied: parsed.objects.into_iter().map(|l| l.object).collect(),
            deleted: Vec::new(),
            published: None,
        }
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
        let gone =
            |node: &str| Command::Detached { node: node.into(), namespace: "shop".into(), name: "cart-1".into() };
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
        let text =
            MANIFESTS.replace("spec: { serviceAccountName: cart,", "spec: { nodeName: b, serviceAccountName: cart,");
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
        let disabled =
            MANIFESTS.replace("labels: { app: cart } }", "labels: { app: cart, weftmesh.io/mesh: disabled } }");
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
}
