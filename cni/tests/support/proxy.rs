//! A node proxy that opens listeners in the pods it is given, and nothing else.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use weft_api::weft::agent::v1 as wire;
use weft_core::inpod::{AGENT_PROTOCOL, HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};
use weft_sys::{Netns, SeqPacket};

/// What it holds, by sandbox: whom, where, and the listeners there.
pub type Pods = BTreeMap<String, (wire::Workload, Netns, Vec<tokio::net::TcpListener>)>;

/// Connected to the agent until dropped.
pub struct FakeProxy {
    pub pods: Arc<Mutex<Pods>>,
    changed: watch::Receiver<u32>,
    task: AbortHandle,
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeProxy {
    /// Connects once the agent listens. Refuses pods with `refuse` when it is given.
    pub async fn connect(socket: &Path, refuse: Option<&'static str>) -> Result<Self> {
        Self::start(socket, refuse, false).await
    }

    /// As a proxy whose configuration names nothing: what leaves a pod goes where it was going.
    pub async fn relaying(socket: &Path) -> Result<Self> {
        Self::start(socket, None, true).await
    }

    async fn start(socket: &Path, refuse: Option<&'static str>, relays: bool) -> Result<Self> {
        let link = crate::support::soon("the agent listens", async {
            loop {
                match SeqPacket::connect(socket) {
                    Ok(link) => return anyhow::Ok(link),
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            }
        });
        let link = link.await?;
        let hello = wire::Hello { protocol: AGENT_PROTOCOL, pid: std::process::id(), version: "fake".into() };
        say(&link, wire::to_agent::Kind::Hello(hello)).await?;
        let pods = Arc::<Mutex<Pods>>::default();
        let (moved, changed) = watch::channel(0);
        let task = tokio::spawn(serve(link, pods.clone(), refuse, relays, moved)).abort_handle();
        Ok(Self { pods, changed, task })
    }

    /// Waits until the pods it holds satisfy a condition.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&Pods) -> bool) -> Result<()> {
        let pods = self.pods.clone();
        let wait = self.changed.wait_for(|_| condition(&pods.lock().expect("not poisoned")));
        crate::support::soon(what, wait).await.map(drop)
    }

    /// The sandboxes it holds.
    pub fn held(&self) -> Vec<String> {
        self.pods.lock().expect("not poisoned").keys().cloned().collect()
    }
}

async fn serve(
    link: SeqPacket,
    pods: Arc<Mutex<Pods>>,
    refuse: Option<&str>,
    relays: bool,
    moved: watch::Sender<u32>,
) -> Result<()> {
    let mut relaying = BTreeMap::new();
    while let Some(message) = link.recv(1).await? {
        let from = wire::FromAgent::decode(message.bytes.as_slice())?;
        let mut error = String::new();
        match from.kind.context("a known kind")? {
            wire::from_agent::Kind::Add(workload) => match refuse {
                Some(reason) => error = reason.to_owned(),
                None => {
                    let netns = Netns::from_fd(message.fds.into_iter().next().context("a namespace")?)?;
                    // What is there is closed first: the ports are the same.
                    pods.lock().expect("not poisoned").remove(&workload.sandbox);
                    drop(relaying.remove(&workload.sandbox));
                    let mut listeners = listen(&netns)?;
                    if relays {
                        let mut tasks = tokio::task::JoinSet::new();
                        tasks.spawn(relay(listeners.remove(0), netns.clone()));
                        relaying.insert(workload.sandbox.clone(), tasks);
                    }
                    pods.lock().expect("not poisoned").insert(workload.sandbox.clone(), (workload, netns, listeners));
                }
            },
            wire::from_agent::Kind::Remove(removal) => {
                pods.lock().expect("not poisoned").remove(&removal.sandbox);
                relaying.remove(&removal.sandbox);
            }
            wire::from_agent::Kind::SnapshotSent(_) => {}
        }
        say(&link, wire::to_agent::Kind::Ack(wire::Ack { sequence: from.sequence, error })).await?;
        moved.send_modify(|n| *n += 1);
    }
    Ok(())
}

async fn relay(listener: tokio::net::TcpListener, netns: Netns) -> Result<()> {
    let mut streams = tokio::task::JoinSet::new();
    loop {
        let (mut from, _) = listener.accept().await?;
        let netns = netns.clone();
        streams.spawn(async move {
            let to = weft_sys::sock::original_dst(&from)?;
            let mut to = crate::support::dial_marked(&netns, None, to).await?;
            anyhow::Ok(tokio::io::copy_bidirectional(&mut from, &mut to).await?)
        });
    }
}

/// Two proxies share the ports, as in a replacement, hence `reuse_port`.
fn listen(netns: &Netns) -> Result<Vec<tokio::net::TcpListener>> {
    let mut listeners = Vec::new();
    for port in [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT] {
        let mut options = weft_sys::sock::Listen::new(SocketAddr::new([0, 0, 0, 0].into(), port));
        options.reuse_port = true;
        options.mark = Some(weft_core::inpod::PROXY_MARK);
        listeners.push(tokio::net::TcpListener::from_std(weft_sys::sock::listen(Some(netns), &options)?)?);
    }
    Ok(listeners)
}

async fn say(link: &SeqPacket, kind: wire::to_agent::Kind) -> Result<()> {
    Ok(link.send(&wire::ToAgent { kind: Some(kind) }.encode_to_vec(), &[]).await?)
}
