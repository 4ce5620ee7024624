//! The conversation with nodes: joining, and one session for each agent.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_api::weft::node::v1 as wire;
use weft_api::weft::node::v1::nodes_server::{Nodes, NodesServer};
use weft_core::identity::SpiffeId;
use weft_core::ids::{NodeName, Zone};

use super::command::{Attachment, Command, EnrolmentView, PrimaryHandle, Verdict};
use super::tokens::{JoinRefused, Tokens, bearer};

/// Most addresses of one pod that are taken.
const MAX_POD_IPS: usize = 8;

/// Gives the mesh's current roots, DER.
pub type Roots = Arc<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>;

/// The gRPC service.
pub struct NodeService {
    primary: PrimaryHandle,
    tokens: Arc<Tokens>,
    roots: Roots,
}

impl NodeService {
    /// The service, to be added to a tonic router.
    pub fn server(primary: PrimaryHandle, tokens: Arc<Tokens>, roots: Roots) -> NodesServer<Self> {
        NodesServer::new(Self { primary, tokens, roots })
    }
}

#[tonic::async_trait]
impl Nodes for NodeService {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let request = request.into_inner();
        let node_token =
            self.tokens.join(&request.token, &NodeName::new(&request.node)).map_err(|refused| match refused {
                JoinRefused::BadToken => Status::permission_denied(refused.to_string()),
                JoinRefused::BadName(_) => Status::invalid_argument(refused.to_string()),
                JoinRefused::State(_) => Status::internal(refused.to_string()),
            })?;
        tracing::info!(node = request.node, "node joined");
        let mesh = Arc::clone(self.primary.snapshot.load().mesh());
        Ok(Response::new(wire::JoinReply {
            node_token,
            trust_domain: mesh.trust_domains.own().to_string(),
            roots: (self.roots)(),
            cluster_domain: mesh.cluster_domain.clone(),
        }))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<wire::ToNode, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::FromNode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let token = bearer(request.metadata()).ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        let node = self.tokens.node_of(token).ok_or_else(|| Status::unauthenticated("the token is not valid"))?;
        let (sender, replies) = mpsc::channel(64);
        let session = Session { node, primary: self.primary.clone(), sender };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }
}

struct Session {
    node: NodeName,
    primary: PrimaryHandle,
    sender: mpsc::Sender<Result<wire::ToNode, Status>>,
}

impl Session {
    async fn run(self, mut messages: Streaming<wire::FromNode>) {
        if let Err(status) = self.talk(&mut messages).await {
            // Nobody listens any more if this fails.
            let _ = self.sender.send(Err(status)).await;
        }
        self.primary.send(Command::NodeDown(self.node.clone())).await;
        tracing::info!(node = %self.node, "node session ended");
    }

    async fn talk(&self, messages: &mut Streaming<wire::FromNode>) -> Result<(), Status> {
        let mut enrolment = self.primary.enrolment.clone();
        let first = enrolment.borrow_and_update().clone();
        self.tell(to_wire(first)).await;
        loop {
            tokio::select! {
                message = messages.message() => match message?.and_then(|m| m.message) {
                    Some(message) => self.hear(message).await?,
                    None => return Ok(()),
                },
                changed = enrolment.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let view = enrolment.borrow_and_update().clone();
                    self.tell(to_wire(view)).await;
                }
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    async fn hear(&self, message: wire::from_node::Message) -> Result<(), Status> {
        use wire::from_node::Message;
        let command = match message {
            Message::Hello(hello) => {
                let pods: Result<_, _> = hello.pods.into_iter().map(|pod| self.attachment(pod)).collect();
                let zone = (!hello.zone.is_empty()).then(|| Zone::from(hello.zone));
                Command::NodeUp { node: self.node.clone(), zone, pods: pods? }
            }
            Message::Attached(pod) => Command::Attached(self.attachment(pod)?),
            Message::Detached(pod) => {
                Command::Detached { node: self.node.clone(), namespace: pod.namespace.into(), name: pod.name.into() }
            }
            Message::Decide(request) => {
                let verdict = self.decide(&request).await;
                self.tell(decision(request.id, verdict)).await;
                return Ok(());
            }
        };
        if self.primary.send(command).await { Ok(()) } else { Err(Status::unavailable("the primary is stopping")) }
    }

    async fn decide(&self, request: &wire::DecisionRequest) -> Verdict {
        let (reply, verdict) = oneshot::channel();
        let (namespace, name) = (request.namespace.as_str().into(), request.name.as_str().into());
        self.primary.send(Command::Decide { node: self.node.clone(), namespace, name, reply }).await;
        let verdict = verdict.await.unwrap_or_else(|_| Verdict::Undecided("the primary is stopping".into()));
        if let Verdict::Enrolled { service_account, .. } = &verdict {
            let domain = self.primary.snapshot.load().mesh().trust_domains.own().clone();
            let identity = SpiffeId::new(domain, request.namespace.as_str(), service_account.as_str());
            self.primary.expect(&self.node, identity);
        }
        verdict
    }

    fn attachment(&self, pod: wire::PodAttached) -> Result<Attachment, Status> {
        let ips: Result<Vec<_>, _> = pod.ips.iter().take(MAX_POD_IPS).map(|ip| ip.parse()).collect();
        let ips = ips.map_err(|_| {
            Status::invalid_argument(format!("pod {}/{}: not an IP address in {:?}", pod.namespace, pod.name, pod.ips))
        })?;
        Ok(Attachment {
            namespace: pod.namespace.into(),
            name: pod.name.into(),
            uid: (!pod.uid.is_empty()).then(|| pod.uid.into()),
            node: self.node.clone(),
            ips,
            ready: pod.ready,
        })
    }

    async fn tell(&self, message: wire::to_node::Message) {
        // A node that went away is noticed by the loop.
        let _ = self.sender.send(Ok(wire::ToNode { message: Some(message) })).await;
    }
}

fn to_wire(view: EnrolmentView) -> wire::to_node::Message {
    wire::to_node::Message::Enrolment(wire::Enrolment {
        revision: view.revision,
        namespaces_outside: view.namespaces_outside.iter().map(ToString::to_string).collect(),
    })
}

fn decision(id: u64, verdict: Verdict) -> wire::to_node::Message {
    use wire::decision::Verdict as Wire;
    let verdict = match verdict {
        Verdict::Enrolled { service_account, close_older_flows } => {
            Wire::Enrolled(wire::Enrolled { service_account: service_account.to_string(), close_older_flows })
        }
        Verdict::NotLabelled => Wire::Outside(wire::Outside::NotLabelled.into()),
        Verdict::Disabled => Wire::Outside(wire::Outside::Disabled.into()),
        Verdict::Undecided(why) => Wire::Undecided(why),
    };
    wire::to_node::Message::Decision(wire::Decision { id, verdict: Some(verdict) })
}
