//! The proxies of this node, as the agent sees them: what each was told and what it answered.
//!
//! A proxy that connects gets every workload (the snapshot), then single changes. While one proxy replaces another
//! both are connected: the newest gets new pods, the older keeps serving its connections and hears of removals only.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use weft_api::weft::agent::v1::{self as wire, from_agent, to_agent};
use weft_core::ids::SandboxId;
use weft_core::inpod::AGENT_PROTOCOL;
use weft_sys::{Netns, SeqPacket, SeqPacketListener};

/// A proxy says who it is at once.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// accept() fails only for lack of descriptors or memory: others need time to give some back.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the newest proxy said about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No proxy is connected.
    NoProxy,
    /// It was told and hasn't answered.
    Pending,
    /// It serves the pod.
    Acked,
    /// It can't, and why.
    Refused(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProxy => f.write_str("no node proxy is connected to the agent"),
            Self::Pending => f.write_str("the node proxy hasn't answered"),
            Self::Acked => f.write_str("the node proxy serves the pod"),
            Self::Refused(reason) => write!(f, "the node proxy refused the pod: {reason}"),
        }
    }
}

/// All proxies. Clones are the same.
#[derive(Clone, Debug)]
pub struct Proxies {
    inner: Arc<Mutex<Inner>>,
    /// Moves with every connection, answer and disconnection.
    changed: Arc<watch::Sender<u64>>,
    /// Moves with every connection and disconnection only.
    connections: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Inner {
    workloads: BTreeMap<SandboxId, (wire::Workload, Netns)>,
    /// Oldest first.
    links: Vec<Link>,
    last_id: u64,
}

/// One connected proxy.
#[derive(Debug)]
struct Link {
    id: u64,
    name: String,
    /// Unbounded, so that the order of messages is decided under one lock. Bounded in fact by the pods of a node.
    out: mpsc::UnboundedSender<(wire::FromAgent, Option<Netns>)>,
    sequence: u64,
    pods: BTreeMap<SandboxId, (u64, Answer)>,
}

impl Link {
    fn say(&mut self, kind: from_agent::Kind, netns: Option<Netns>) -> u64 {
        self.sequence += 1;
        let message = wire::FromAgent { sequence: self.sequence, kind: Some(kind) };
        // A closed channel is a connection that is ending; its task removes the link.
        let _ending = self.out.send((message, netns));
        self.sequence
    }

    fn add(&mut self, sandbox: &SandboxId, workload: &wire::Workload, netns: &Netns) {
        let sequence = self.say(from_agent::Kind::Add(workload.clone()), Some(netns.clone()));
        self.pods.insert(sandbox.clone(), (sequence, Answer::Pending));
    }
}

impl Default for Proxies {
    fn default() -> Self {
        Self {
            inner: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            connections: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Proxies {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Changes with every connection, answer and disconnection.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes with every connection and disconnection.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }

    /// How many proxies are connected.
    pub fn connected(&self) -> usize {
        self.lock().links.len()
    }

    /// Offers a pod to the newest proxy, unless it was offered as it is and not refused.
    pub fn offer(&self, workload: wire::Workload, netns: Netns) {
        let mut inner = self.lock();
        let sandbox = SandboxId::from(workload.sandbox.as_str());
        let same = inner.workloads.get(&sandbox).is_some_and(|(w, n)| *w == workload && *n == netns);
        inner.workloads.insert(sandbox.clone(), (workload.clone(), netns.clone()));
        if let Some(newest) = inner.links.last_mut() {
            match newest.pods.get(&sandbox) {
                Some((_, Answer::Pending | Answer::Acked)) if same => {}
                _ => newest.add(&sandbox, &workload, &netns),
            }
        }
    }

    /// Takes a pod back from every proxy that was told of it.
    pub fn withdraw(&self, sandbox: &SandboxId) {
        let mut inner = self.lock();
        inner.workloads.remove(sandbox);
        for link in &mut inner.links {
            if link.pods.remove(sandbox).is_some() {
                link.say(from_agent::Kind::Remove(wire::Removal { sandbox: sandbox.to_string() }), None);
            }
        }
    }

    /// What the newest proxy said.
    pub fn answer(&self, sandbox: &SandboxId) -> Answer {
        match self.lock().links.last() {
            None => Answer::NoProxy,
            Some(newest) => newest.pods.get(sandbox).map_or(Answer::Pending, |(_, answer)| answer.clone()),
        }
    }

    /// Waits until the newest proxy has acknowledged or refused, whichever proxy that is by then.
    pub async fn settled(&self, sandbox: &SandboxId) -> Answer {
        let mut changes = self.changes();
        loop {
            match self.answer(sandbox) {
                Answer::NoProxy | Answer::Pending => {}
                settled => return settled,
            }
            // The sender lives in `self`.
            let _never_closed = changes.changed().await;
        }
    }

    /// Serves the socket until the returned future is dropped.
    ///
    /// # Errors
    /// When it can't listen there.
    pub fn serve(&self, socket: &Path) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let listener = SeqPacketListener::bind(socket, 0o600)?;
        let proxies = self.clone();
        Ok(async move {
            let mut links = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok(socket) => { links.spawn(proxies.clone().converse(socket)); }
                        Err(error) => {
                            tracing::warn!(%error, "can't accept a node proxy");
                            tokio::time::sleep(ACCEPT_BACKOFF).await;
                        }
                    },
                    Some(_ended) = links.join_next() => {}
                }
            }
        })
    }

    async fn converse(self, socket: SeqPacket) {
        let hello = match tokio::time::timeout(HELLO_DEADLINE, hello(&socket)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) => return tracing::warn!(%error, "refused a node proxy"),
            Err(_) => return tracing::warn!("refused a node proxy that didn't say who it is"),
        };
        let (id, mut out) = self.join(&hello);
        // Leaves also when this future is dropped.
        let leave = Leave { proxies: &self, id };
        let write = async {
            while let Some((message, netns)) = out.recv().await {
                let fds: Vec<_> = netns.iter().map(|netns| netns.as_fd()).collect();
                socket.send(&message.encode_to_vec(), &fds).await?;
            }
            Ok(())
        };
        let read = async {
            loop {
                match receive(&socket).await? {
                    to_agent::Kind::Ack(ack) => self.acked(id, ack),
                    to_agent::Kind::Hello(_) => return Err(io::Error::other("a second hello")),
                }
            }
        };
        let ended: io::Result<()> = tokio::select! { ended = write => ended, ended = read => ended };
        tracing::info!(
            proxy = id,
            pid = hello.pid,
            error = ended.err().map(tracing::field::display),
            "a node proxy left"
        );
        drop(leave);
    }

    /// Registers a proxy and queues its snapshot, in one step.
    fn join(&self, hello: &wire::Hello) -> (u64, mpsc::UnboundedReceiver<(wire::FromAgent, Option<Netns>)>) {
        let (out, messages) = mpsc::unbounded_channel();
        let mut inner = self.lock();
        inner.last_id += 1;
        let name = format!("{} (pid {})", hello.version, hello.pid);
        let mut link = Link { id: inner.last_id, name, out, sequence: 0, pods: BTreeMap::new() };
        for (sandbox, (workload, netns)) in &inner.workloads {
            link.add(sandbox, workload, netns);
        }
        link.say(from_agent::Kind::SnapshotSent(wire::SnapshotSent {}), None);
        let id = link.id;
        tracing::info!(proxy = id, name = link.name, pods = inner.workloads.len(), "a node proxy connected");
        inner.links.push(link);
        drop(inner);
        self.moved();
        self.connections.send_modify(|n| *n += 1);
        (id, messages)
    }

    fn acked(&self, id: u64, ack: wire::Ack) {
        let mut inner = self.lock();
        let Some(link) = inner.links.iter_mut().find(|link| link.id == id) else { return };
        let pod = link.pods.iter_mut().find(|(_, (sequence, _))| *sequence == ack.sequence);
        match pod {
            Some((sandbox, (_, answer))) if ack.error.is_empty() => {
                tracing::debug!(%sandbox, proxy = id, "the node proxy serves the pod");
                *answer = Answer::Acked;
            }
            Some((sandbox, (_, answer))) => {
                tracing::warn!(%sandbox, proxy = id, reason = ack.error, "the node proxy refused the pod");
                *answer = Answer::Refused(ack.error);
            }
            None if ack.error.is_empty() => {}
            None => tracing::warn!(
                proxy = id,
                sequence = ack.sequence,
                reason = ack.error,
                "the node proxy refused a message"
            ),
        }
        drop(inner);
        self.moved();
    }

    /// Forgets a proxy. Another one that is the newest again gets what it wasn't told meanwhile.
    fn leave(&self, id: u64) {
        let mut inner = self.lock();
        inner.links.retain(|link| link.id != id);
        let Inner { workloads, links, .. } = &mut *inner;
        if let Some(newest) = links.last_mut() {
            for (sandbox, (workload, netns)) in workloads {
                if !newest.pods.contains_key(sandbox) {
                    newest.add(sandbox, workload, netns);
                }
            }
        }
        drop(inner);
        self.moved();
        self.connections.send_modify(|n| *n += 1);
    }
}

/// Forgets a proxy when its task ends, however it does.
struct Leave<'a> {
    proxies: &'a Proxies,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.proxies.leave(self.id);
    }
}

async fn hello(socket: &SeqPacket) -> io::Result<wire::Hello> {
    match receive(socket).await? {
        to_agent::Kind::Hello(hello) if hello.protocol == AGENT_PROTOCOL => Ok(hello),
        to_agent::Kind::Hello(hello) => {
            let what = format!("it speaks version {} of the conversation, the agent {AGENT_PROTOCOL}", hello.protocol);
            Err(io::Error::new(io::ErrorKind::Unsupported, what))
        }
        to_agent::Kind::Ack(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer before hello")),
    }
}

async fn receive(socket: &SeqPacket) -> io::Result<to_agent::Kind> {
    let message = socket.recv(0).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let message = wire::ToAgent::decode(message.bytes.as_slice()).map_err(io::Error::other)?;
    message.kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a kind of message the agent doesn't know"))
}
