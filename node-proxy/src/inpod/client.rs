//! The proxy's end of the conversation with the node agent.
//!
//! ```text
//!   connect, Hello --> Add + netns, Add + netns, ..., SnapshotSent --> Add, Remove, ...      each answered by an Ack
//!      ^                                                                  |
//!      +------------------------- backoff <--- connection lost ----------+
//! ```
//!
//! Invariants:
//! - Losing the agent changes nothing: pods stay until a new, complete snapshot says otherwise.
//! - The answer to an `Add` is the consumer's. On a new connection a pod that was taken is acknowledged again without
//!   an event; one that was refused, or not answered yet, is offered again.
//! - A pod whose network namespace was replaced is removed, then added.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use weft_api::weft::agent::v1 as wire;
use weft_core::ids::SandboxId;
use weft_core::inpod::AGENT_PROTOCOL;
use weft_sys::{Message, Netns, SeqPacket};

use super::info::PodInfo;

/// Wait before the first new attempt, doubled with each that fails.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The longest wait: the agent's socket is local, so trying is cheap.
const LAST_BACKOFF: Duration = Duration::from_secs(2);

/// What the agent wants.
#[derive(Debug)]
pub enum InpodEvent {
    /// Serve this pod. Replaces what is held for the same sandbox.
    Add {
        /// Who it is.
        pod: Arc<PodInfo>,
        /// Where its sockets are made.
        netns: Netns,
        /// Acknowledge when all listeners of the pod are open: from then on its traffic is redirected to them.
        ack: AckHandle,
    },
    /// This pod is gone or has left the mesh.
    Remove {
        /// Which.
        sandbox: SandboxId,
        /// Acknowledge when nothing new is accepted for it.
        ack: AckHandle,
    },
    /// Every pod of the node has been seen since the connection was made.
    SnapshotDone,
}

/// How the conversation stands; for readiness and the staleness gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// No agent.
    Connecting,
    /// The agent is sending its pods.
    Snapshot,
    /// In step with the agent.
    Live,
}

/// The obligation to answer one event. Dropped without an answer it refuses.
#[derive(Debug)]
#[must_use = "the agent waits for the answer"]
pub struct AckHandle {
    answers: Option<mpsc::UnboundedSender<Answer>>,
    ticket: Ticket,
}

/// What an answer answers.
#[derive(Clone, Debug)]
struct Ticket {
    /// Grows with each event.
    event: u64,
    sandbox: SandboxId,
    /// Connection and sequence of the agent's message; none for an event of our own making.
    message: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Answer {
    ticket: Ticket,
    result: Result<(), String>,
}

impl AckHandle {
    /// Done as asked.
    pub fn done(mut self) {
        self.answer(Ok(()));
    }

    /// Not possible; the agent shows the reason to a person.
    pub fn refuse(mut self, reason: impl Into<String>) {
        self.answer(Err(reason.into()));
    }

    fn answer(&mut self, result: Result<(), String>) {
        if let Some(answers) = self.answers.take() {
            // Nobody listens once the client has ended.
            let _ended = answers.send(Answer { ticket: self.ticket.clone(), result });
        }
    }
}

impl Drop for AckHandle {
    fn drop(&mut self) {
        self.answer(Err("the proxy gave no answer".to_owned()));
    }
}

/// A pod that the consumer was given.
struct Held {
    pod: Arc<PodInfo>,
    netns: Netns,
    /// The event that gave it.
    event: u64,
    /// Whether the consumer took it.
    taken: bool,
}

/// Speaks with the agent; run it as a task.
pub struct InpodClient {
    socket: PathBuf,
    version: String,
    state: watch::Sender<LinkState>,
    held: HashMap<SandboxId, Held>,
    last_event: u64,
    connection: u64,
    /// Unbounded, because [`AckHandle`] answers from `Drop`; holds at most one entry for each event handed out.
    answers: (mpsc::UnboundedSender<Answer>, mpsc::UnboundedReceiver<Answer>),
}

/// Why a connection to the agent is over.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the agent closed the connection")]
    Closed,
    #[error("a message that can't be read: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Not an error: nobody takes events any more.
    #[error("the proxy is ending")]
    ConsumerGone,
}

impl InpodClient {
    /// For the agent at `socket`; `version` is the proxy's own, for the agent's log. The receiver shows the state.
    pub fn new(socket: impl Into<PathBuf>, version: impl Into<String>) -> (Self, watch::Receiver<LinkState>) {
        let (state, shown) = watch::channel(LinkState::Connecting);
        let client = Self {
            socket: socket.into(),
            version: version.into(),
            state,
            held: HashMap::new(),
            last_event: 0,
            connection: 0,
            answers: mpsc::unbounded_channel(),
        };
        (client, shown)
    }

    /// Connects, again and again, and sends events until their receiver is dropped.
    pub async fn run(mut self, events: mpsc::Sender<InpodEvent>) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let ended = self.converse(&events).await;
            let was = self.state.send_replace(LinkState::Connecting);
            match ended {
                LinkError::ConsumerGone => return,
                error if was == LinkState::Connecting => tracing::debug!(%error, "no node agent yet"),
                error => tracing::warn!(%error, pods = self.held.len(), "lost the node agent; pods are kept"),
            }
            if was == LinkState::Live {
                backoff = FIRST_BACKOFF;
            }
            let jittered = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = tokio::time::sleep(jittered) => backoff = (backoff * 2).min(LAST_BACKOFF),
                () = events.closed() => return,
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn converse(&mut self, events: &mpsc::Sender<InpodEvent>) -> LinkError {
        let result = async {
            let link = SeqPacket::connect(&self.socket)?;
            self.connection += 1;
            let hello =
                wire::Hello { protocol: AGENT_PROTOCOL, pid: std::process::id(), version: self.version.clone() };
            send(&link, wire::to_agent::Kind::Hello(hello)).await?;
            self.state.send_replace(LinkState::Snapshot);
            let mut seen = Some(HashSet::new());
            loop {
                tokio::select! {
                    biased;
                    () = events.closed() => return Err::<(), _>(LinkError::ConsumerGone),
                    Some(answer) = self.answers.1.recv() => self.answered(&link, answer).await?,
                    message = link.recv(1) => {
                        let message = message?.ok_or(LinkError::Closed)?;
                        self.message(&link, message, &mut seen, events).await?;
                    }
                }
            }
        };
        result.await.err().unwrap_or(LinkError::Closed)
    }

    async fn message(
        &mut self,
        link: &SeqPacket,
        message: Message,
        seen: &mut Option<HashSet<SandboxId>>,
        events: &mpsc::Sender<InpodEvent>,
    ) -> Result<(), LinkError> {
        let Message { bytes, fds } = message;
        let wire::FromAgent { sequence, kind } = wire::FromAgent::decode(bytes.as_slice())?;
        match kind {
            Some(wire::from_agent::Kind::Add(workload)) => {
                let netns = fds.into_iter().next().ok_or_else(|| io::Error::other("no network namespace came with it"));
                match (PodInfo::try_from(workload), netns.and_then(Netns::from_fd)) {
                    (Ok(pod), Ok(netns)) => {
                        if let Some(seen) = seen {
                            seen.insert(pod.sandbox.clone());
                        }
                        self.add(link, sequence, (pod, netns), events).await
                    }
                    (Err(e), _) => ack(link, sequence, e.to_string()).await,
                    (_, Err(e)) => ack(link, sequence, e.to_string()).await,
                }
            }
            Some(wire::from_agent::Kind::Remove(wire::Removal { sandbox })) => {
                let sandbox = SandboxId::from(sandbox);
                if self.held.remove(&sandbox).is_none() {
                    return ack(link, sequence, String::new()).await;
                }
                self.remove(sandbox, Some(sequence), events).await
            }
            Some(wire::from_agent::Kind::SnapshotSent(wire::SnapshotSent {})) => {
                if let Some(seen) = seen.take() {
                    self.forget_all_but(&seen, events).await?;
                }
                events.send(InpodEvent::SnapshotDone).await.map_err(|_| LinkError::ConsumerGone)?;
                self.state.send_replace(LinkState::Live);
                ack(link, sequence, String::new()).await
            }
            None => ack(link, sequence, "a kind of message this proxy doesn't know".to_owned()).await,
        }
    }

    async fn add(
        &mut self,
        link: &SeqPacket,
        sequence: u64,
        (pod, netns): (PodInfo, Netns),
        events: &mpsc::Sender<InpodEvent>,
    ) -> Result<(), LinkError> {
        if let Some(held) = self.held.get(&pod.sandbox) {
            if held.taken && held.netns == netns && *held.pod == pod {
                return ack(link, sequence, String::new()).await;
            }
            if held.netns != netns {
                self.held.remove(&pod.sandbox);
                self.remove(pod.sandbox.clone(), None, events).await?;
            }
        }
        let ack = self.handle(pod.sandbox.clone(), Some(sequence));
        let pod = Arc::new(pod);
        let held = Held { pod: pod.clone(), netns: netns.clone(), event: ack.ticket.event, taken: false };
        self.held.insert(pod.sandbox.clone(), held);
        events.send(InpodEvent::Add { pod, netns, ack }).await.map_err(|_| LinkError::ConsumerGone)
    }

    async fn remove(
        &mut self,
        sandbox: SandboxId,
        sequence: Option<u64>,
        events: &mpsc::Sender<InpodEvent>,
    ) -> Result<(), LinkError> {
        let ack = self.handle(sandbox.clone(), sequence);
        events.send(InpodEvent::Remove { sandbox, ack }).await.map_err(|_| LinkError::ConsumerGone)
    }

    async fn forget_all_but(
        &mut self,
        seen: &HashSet<SandboxId>,
        events: &mpsc::Sender<InpodEvent>,
    ) -> Result<(), LinkError> {
        let gone: Vec<_> =
            self.held.extract_if(|sandbox, _| !seen.contains(sandbox)).map(|(sandbox, _)| sandbox).collect();
        for sandbox in gone {
            self.remove(sandbox, None, events).await?;
        }
        Ok(())
    }

    fn handle(&mut self, sandbox: SandboxId, sequence: Option<u64>) -> AckHandle {
        self.last_event += 1;
        let message = sequence.map(|sequence| (self.connection, sequence));
        AckHandle { answers: Some(self.answers.0.clone()), ticket: Ticket { event: self.last_event, sandbox, message } }
    }

    /// Remembers an answer, and passes it on unless its connection is gone.
    async fn answered(&mut self, link: &SeqPacket, answer: Answer) -> Result<(), LinkError> {
        let Ticket { event, sandbox, message } = answer.ticket;
        if let Some(held) = self.held.get_mut(&sandbox).filter(|held| held.event == event) {
            match &answer.result {
                Ok(()) => held.taken = true,
                Err(reason) => {
                    tracing::warn!(pod = %held.pod.uid, %reason, "a pod can't be served");
                    self.held.remove(&sandbox);
                }
            }
        }
        match message {
            Some((connection, sequence)) if connection == self.connection => {
                ack(link, sequence, answer.result.err().unwrap_or_default()).await
            }
            _ => Ok(()),
        }
    }
}

async fn ack(link: &SeqPacket, sequence: u64, error: String) -> Result<(), LinkError> {
    send(link, wire::to_agent::Kind::Ack(wire::Ack { sequence, error })).await
}

async fn send(link: &SeqPacket, kind: wire::to_agent::Kind) -> Result<(), LinkError> {
    Ok(link.send(&wire::ToAgent { kind: Some(kind) }.encode_to_vec(), &[]).await?)
}

#[cfg(test)]
mod tests;
