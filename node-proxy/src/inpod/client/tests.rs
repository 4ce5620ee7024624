//! The client against an agent made of a socket.

use std::time::Duration;

use weft_sys::SeqPacketListener;

use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Agent {
    listener: SeqPacketListener,
    link: Option<SeqPacket>,
    sequence: u64,
}

struct Proxy {
    events: mpsc::Receiver<InpodEvent>,
    state: watch::Receiver<LinkState>,
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

fn start() -> (tempfile::TempDir, Agent, Proxy) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.sock");
    let listener = SeqPacketListener::bind(&path, 0o600).unwrap();
    let (client, state) = InpodClient::new(path, "test");
    let (send, events) = mpsc::channel(16);
    tokio::spawn(client.run(send));
    (dir, Agent { listener, link: None, sequence: 0 }, Proxy { events, state })
}

fn workload(sandbox: &str) -> wire::Workload {
    wire::Workload {
        sandbox: sandbox.into(),
        uid: format!("Kubernetes//Pod/shop/{sandbox}"),
        pod: Some(wire::PodRef { namespace: "shop".into(), name: sandbox.into(), uid: "u".into() }),
        service_account: "cart".into(),
        ips: vec!["10.0.0.1".into(), "fd00::1".into()],
        node: "n1".into(),
        node_addresses: Vec::new(),
    }
}

impl Agent {
    async fn connected(&mut self) {
        let link = soon(self.listener.accept()).await.unwrap();
        let hello = receive(&link).await;
        let wire::to_agent::Kind::Hello(hello) = hello else { panic!("{hello:?}") };
        assert_eq!((hello.protocol, hello.pid), (AGENT_PROTOCOL, std::process::id()));
        (self.link, self.sequence) = (Some(link), 0);
    }

    fn link(&self) -> &SeqPacket {
        self.link.as_ref().expect("connected")
    }

    async fn say(&mut self, kind: wire::from_agent::Kind, netns: Option<&Netns>) -> u64 {
        use std::os::fd::AsFd as _;
        self.sequence += 1;
        let message = wire::FromAgent { sequence: self.sequence, kind: Some(kind) }.encode_to_vec();
        let fds: Vec<_> = netns.iter().map(|n| n.as_fd()).collect();
        self.link().send(&message, &fds).await.unwrap();
        self.sequence
    }

    async fn add(&mut self, sandbox: &str, netns: &Netns) -> u64 {
        self.say(wire::from_agent::Kind::Add(workload(sandbox)), Some(netns)).await
    }

    async fn remove(&mut self, sandbox: &str) -> u64 {
        self.say(wire::from_agent::Kind::Remove(wire::Removal { sandbox: sandbox.into() }), None).await
    }

    async fn snapshot_sent(&mut self) -> u64 {
        self.say(wire::from_agent::Kind::SnapshotSent(wire::SnapshotSent {}), None).await
    }

    async fn acked(&self, sequence: u64) -> String {
        let ack = receive(self.link()).await;
        let wire::to_agent::Kind::Ack(ack) = ack else { panic!("{ack:?}") };
        assert_eq!(ack.sequence, sequence);
        ack.error
    }
}

async fn receive(link: &SeqPacket) -> wire::to_agent::Kind {
    let message = soon(link.recv(0)).await.unwrap().expect("not closed");
    wire::ToAgent::decode(message.bytes.as_slice()).unwrap().kind.unwrap()
}

impl Proxy {
    async fn added(&mut self) -> (Arc<PodInfo>, Netns, AckHandle) {
        match soon(self.events.recv()).await.unwrap() {
            InpodEvent::Add { pod, netns, ack } => (pod, netns, ack),
            other => panic!("{other:?}"),
        }
    }

    async fn takes(&mut self, sandbox: &str) {
        let (pod, _, ack) = self.added().await;
        assert_eq!(pod.sandbox.as_str(), sandbox);
        ack.done();
    }

    async fn removed(&mut self, sandbox: &str) {
        match soon(self.events.recv()).await.unwrap() {
            InpodEvent::Remove { sandbox: gone, ack } if gone.as_str() == sandbox => ack.done(),
            other => panic!("{other:?}"),
        }
    }

    async fn snapshot_done(&mut self) {
        let event = soon(self.events.recv()).await.unwrap();
        assert!(matches!(event, InpodEvent::SnapshotDone), "{event:?}");
    }

    async fn is(&mut self, state: LinkState) {
        soon(self.state.wait_for(|s| *s == state)).await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_then_single_changes_each_answered() {
    let (_dir, mut agent, mut proxy) = start();
    let here = Netns::current().unwrap();
    agent.connected().await;
    proxy.is(LinkState::Snapshot).await;
    let add = agent.add("a", &here).await;
    let (pod, netns, ack) = proxy.added().await;
    assert_eq!(pod.uid.as_str(), "Kubernetes//Pod/shop/a");
    assert_eq!(pod.ips.len(), 2);
    assert_eq!(netns, here);
    ack.done();
    assert_eq!(agent.acked(add).await, "");
    let sent = agent.snapshot_sent().await;
    proxy.snapshot_done().await;
    assert_eq!(agent.acked(sent).await, "");
    proxy.is(LinkState::Live).await;

    let add = agent.add("b", &here).await;
    proxy.added().await.2.refuse("no more room");
    assert_eq!(agent.acked(add).await, "no more room");
    let remove = agent.remove("a").await;
    proxy.removed("a").await;
    assert_eq!(agent.acked(remove).await, "");
    let remove = agent.remove("b").await;
    assert_eq!(agent.acked(remove).await, "", "what was refused is not held: nothing to remove, no event");
}

#[tokio::test]
async fn a_dropped_handle_refuses() {
    let (_dir, mut agent, mut proxy) = start();
    agent.connected().await;
    let add = agent.add("a", &Netns::current().unwrap()).await;
    drop(proxy.added().await);
    assert_eq!(agent.acked(add).await, "the proxy gave no answer");
}

#[tokio::test]
async fn messages_that_are_no_pods_are_refused_and_the_link_lives() {
    let (_dir, mut agent, mut proxy) = start();
    agent.connected().await;
    let here = Netns::current().unwrap();
    let no_fd = agent.say(wire::from_agent::Kind::Add(workload("a")), None).await;
    assert_eq!(agent.acked(no_fd).await, "no network namespace came with it");
    let bad = wire::Workload { ips: vec!["300.1.1.1".into()], ..workload("a") };
    let bad = agent.say(wire::from_agent::Kind::Add(bad), Some(&here)).await;
    assert!(agent.acked(bad).await.contains("300.1.1.1"));
    let bad = wire::Workload { service_account: String::new(), ..workload("a") };
    let bad = agent.say(wire::from_agent::Kind::Add(bad), Some(&here)).await;
    assert_eq!(agent.acked(bad).await, "service_account is empty");
    let add = agent.add("a", &here).await;
    proxy.takes("a").await;
    assert_eq!(agent.acked(add).await, "");
}

#[tokio::test]
async fn an_agent_that_restarts_changes_only_what_changed() {
    let (_dir, mut agent, mut proxy) = start();
    let here = Netns::current().unwrap();
    agent.connected().await;
    for sandbox in ["kept", "gone", "refused", "silent"] {
        agent.add(sandbox, &here).await;
    }
    proxy.takes("kept").await;
    proxy.takes("gone").await;
    proxy.added().await.2.refuse("not now");
    let silent = proxy.added().await;
    agent.snapshot_sent().await;
    proxy.snapshot_done().await;

    agent.link = None;
    proxy.is(LinkState::Connecting).await;
    agent.connected().await;
    // Pods stay while the agent is away and until its snapshot is complete.
    let kept = agent.add("kept", &here).await;
    assert_eq!(agent.acked(kept).await, "", "acknowledged without asking again");
    let refused = agent.add("refused", &here).await;
    proxy.takes("refused").await;
    assert_eq!(agent.acked(refused).await, "");
    let again = agent.add("silent", &here).await;
    let (pod, _, ack) = proxy.added().await;
    assert_eq!(pod.sandbox.as_str(), "silent");
    silent.2.refuse("an answer to the former connection");
    ack.done();
    assert_eq!(agent.acked(again).await, "");
    agent.snapshot_sent().await;
    proxy.removed("gone").await;
    proxy.snapshot_done().await;
    proxy.is(LinkState::Live).await;
}

#[tokio::test]
async fn it_ends_with_its_consumer() {
    let (_dir, mut agent, proxy) = start();
    agent.connected().await;
    drop(proxy);
    assert!(soon(agent.link().recv(0)).await.unwrap().is_none(), "the connection is closed");
}
