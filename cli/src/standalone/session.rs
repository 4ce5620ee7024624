//! A node's session with the primary: what the agent has is reported, who is enrolled is asked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use weft_api::weft::node::v1 as wire;
use weft_api::weft::node::v1::nodes_client::NodesClient;
use weft_cni::agent::{Decision, Enrolled, EnrolmentSource, LocalPod, Outside, PodRef, Protection, Undecided};
use weft_cni::rules::OlderFlows;
use weft_control::{TokenSource, authorize};
use weft_core::ids::{Namespace, SandboxId};

use super::sleep_until;

/// Pauses between attempts to open the session: the first, and the longest. Short: pods can't start meanwhile.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The agent's source of enrolment, fed by the session.
#[derive(Debug)]
pub struct PrimaryLink {
    questions: mpsc::Sender<Question>,
    revision: watch::Receiver<u64>,
    outside: Arc<Mutex<Vec<Namespace>>>,
}

#[derive(Debug)]
struct Question {
    pod: PodRef,
    answer: oneshot::Sender<Result<Decision, Undecided>>,
}

impl EnrolmentSource for PrimaryLink {
    fn decide<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<Decision, Undecided>> {
        async move {
            let (answer, decided) = oneshot::channel();
            let lost = || Undecided::NotReady("the primary cannot be reached".into());
            self.questions.send(Question { pod: pod.clone(), answer }).await.map_err(|_| lost())?;
            decided.await.unwrap_or_else(|_| Err(lost()))
        }
        .boxed()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    fn namespaces_outside(&self) -> Vec<Namespace> {
        self.outside.lock().clone()
    }
}

/// The session's task.
pub struct Session {
    channel: Channel,
    zone: String,
    token: TokenSource,
    questions: mpsc::Receiver<Question>,
    revision: watch::Sender<u64>,
    outside: Arc<Mutex<Vec<Namespace>>>,
}

/// A session over a channel to the primary, and the source that the agent asks.
pub fn session(channel: Channel, token: TokenSource, zone: String) -> (Session, PrimaryLink) {
    let (sender, questions) = mpsc::channel(64);
    let (revision, revised) = watch::channel(0);
    let outside = Arc::new(Mutex::new(Vec::new()));
    let link = PrimaryLink { questions: sender, revision: revised, outside: Arc::clone(&outside) };
    (Session { channel, zone, token, questions, revision, outside }, link)
}

/// How long a pod whose traffic could flow may be without a proxy before it is reported as not ready: a proxy that is
/// being replaced, or starts again, is back long before.
const GRACE: Duration = Duration::from_secs(5);

/// One stream's state.
struct Open {
    sender: mpsc::Sender<wire::FromNode>,
    reported: BTreeMap<SandboxId, wire::PodAttached>,
    /// Pods that were ready, and since when they aren't.
    closed: BTreeMap<SandboxId, Instant>,
    waiting: HashMap<u64, Question>,
    questions: u64,
}

impl Session {
    /// Keeps a session open for ever and reports the agent's pods.
    pub async fn run(mut self, mut pods: watch::Receiver<Arc<[LocalPod]>>) {
        let mut pause = PAUSES.0;
        loop {
            let since = Instant::now();
            if let Err(status) = self.talk(&mut pods).await {
                tracing::warn!(code = ?status.code(), reason = status.message(), again_in = ?pause, "session with the primary ended");
            }
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            // A session that lasted was a good one.
            pause = if since.elapsed() > PAUSES.1 * 2 { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        }
    }

    async fn talk(&mut self, pods: &mut watch::Receiver<Arc<[LocalPod]>>) -> Result<(), Status> {
        let (sender, outgoing) = mpsc::channel(64);
        let (reported, closed) = (BTreeMap::new(), BTreeMap::new());
        let mut open = Open { sender, reported, closed, waiting: HashMap::new(), questions: 0 };
        let current = Arc::clone(&pods.borrow_and_update());
        open.reported = current.iter().map(|pod| (pod.sandbox.clone(), report(pod))).collect();
        let hello = wire::Hello { pods: open.reported.values().cloned().collect(), zone: self.zone.clone() };
        open.say(wire::from_node::Message::Hello(hello)).await?;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        authorize(&self.token, request.metadata_mut())?;
        let mut messages = NodesClient::new(self.channel.clone()).session(request).await?.into_inner();
        loop {
            tokio::select! {
                message = next(&mut messages) => match message? {
                    Some(message) => self.hear(&mut open, message),
                    None => return Err(Status::unavailable("the primary ended the session")),
                },
                changed = pods.changed() => {
                    if changed.is_err() {
                        return Err(Status::cancelled("the agent is gone"));
                    }
                    let current = Arc::clone(&pods.borrow_and_update());
                    open.report_changes(&current).await?;
                }
                () = sleep_until(open.grace_ends()) => {
                    let current = Arc::clone(&pods.borrow());
                    open.report_changes(&current).await?;
                }
                Some(question) = self.questions.recv() => open.ask(question).await?,
            }
        }
    }

    fn hear(&self, open: &mut Open, message: wire::to_node::Message) {
        match message {
            wire::to_node::Message::Decision(decision) => {
                if let Some(question) = open.waiting.remove(&decision.id) {
                    let answer = read(decision, &question.pod);
                    // The agent's deadline may have passed.
                    let _ = question.answer.send(answer);
                }
            }
            wire::to_node::Message::Enrolment(enrolment) => {
                let namespaces = enrolment.namespaces_outside.iter().map(Namespace::new).collect();
                *self.outside.lock() = namespaces;
                self.revision.send_modify(|revision| *revision += 1);
            }
        }
    }
}

impl Open {
    async fn say(&self, message: wire::from_node::Message) -> Result<(), Status> {
        let message = wire::FromNode { message: Some(message) };
        self.sender.send(message).await.map_err(|_| Status::unavailable("the session is closed"))
    }

    async fn ask(&mut self, question: Question) -> Result<(), Status> {
        self.questions += 1;
        let request = wire::DecisionRequest {
            id: self.questions,
            namespace: question.pod.namespace.to_string(),
            name: question.pod.name.to_string(),
        };
        self.waiting.retain(|_, waiting| !waiting.answer.is_closed());
        self.waiting.insert(self.questions, question);
        self.say(wire::from_node::Message::Decide(request)).await
    }

    /// When the first pod that is without a proxy has been so for too long.
    fn grace_ends(&self) -> Option<Instant> {
        let over = |sandbox: &SandboxId| self.reported.get(sandbox).is_some_and(|pod| pod.ready);
        self.closed.iter().filter(|(sandbox, _)| over(sandbox)).map(|(_, since)| *since + GRACE).min()
    }

    fn with_grace(&mut self, pod: &LocalPod) -> wire::PodAttached {
        let mut report = report(pod);
        if report.ready {
            self.closed.remove(&pod.sandbox);
        } else if self.reported.get(&pod.sandbox).is_some_and(|before| before.ready) {
            let since = *self.closed.entry(pod.sandbox.clone()).or_insert_with(Instant::now);
            report.ready = since.elapsed() < GRACE;
        }
        report
    }

    async fn report_changes(&mut self, pods: &[LocalPod]) -> Result<(), Status> {
        let current: BTreeMap<_, _> = pods.iter().map(|pod| (pod.sandbox.clone(), self.with_grace(pod))).collect();
        self.closed.retain(|sandbox, _| current.contains_key(sandbox));
        let before = std::mem::replace(&mut self.reported, current.clone());
        for (sandbox, pod) in &before {
            let replaced = current.values().any(|p| p.namespace == pod.namespace && p.name == pod.name);
            if !current.contains_key(sandbox) && !replaced {
                let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
                let gone = wire::PodDetached { namespace, name, uid };
                self.say(wire::from_node::Message::Detached(gone)).await?;
            }
        }
        for (sandbox, pod) in current {
            if before.get(&sandbox) != Some(&pod) {
                self.say(wire::from_node::Message::Attached(pod)).await?;
            }
        }
        Ok(())
    }
}

async fn next(messages: &mut Streaming<wire::ToNode>) -> Result<Option<wire::to_node::Message>, Status> {
    Ok(messages.message().await?.and_then(|m| m.message))
}

fn report(pod: &LocalPod) -> wire::PodAttached {
    wire::PodAttached {
        namespace: pod.pod.namespace.to_string(),
        name: pod.pod.name.to_string(),
        uid: pod.pod.uid.as_ref().map(ToString::to_string).unwrap_or_default(),
        ips: pod.ips.iter().map(ToString::to_string).collect(),
        ready: !matches!(pod.protection, Protection::Closed(_)),
    }
}

fn read(decision: wire::Decision, pod: &PodRef) -> Result<Decision, Undecided> {
    use wire::decision::Verdict;
    match decision.verdict {
        Some(Verdict::Enrolled(enrolled)) => Ok(Decision::Enrolled(Enrolled {
            service_account: enrolled.service_account.into(),
            older_flows: if enrolled.close_older_flows { OlderFlows::Close } else { OlderFlows::Keep },
            // Single ports may be Strict all the same.
            strict: enrolled.close_older_flows.then_some(true),
        })),
        Some(Verdict::Outside(why)) => Ok(Decision::Outside(match wire::Outside::try_from(why) {
            Ok(wire::Outside::Disabled) => Outside::Disabled,
            _ => Outside::NotLabelled,
        })),
        Some(Verdict::Undecided(why)) => Err(Undecided::NotReady(why)),
        None => Err(Undecided::UnknownPod(pod.clone())),
    }
}
