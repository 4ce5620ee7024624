//! The client: keeps a stream open, applies updates, acknowledges or rejects them.

mod held;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use weft_api::envoy::config::core::v3::Node;
use weft_api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use self::held::{Held, Owed};
use crate::{MORE, ResourceName, TypeUrl, Update};

/// Largest response taken, bytes; the servers of today make them far smaller.
const MAX_RESPONSE: usize = 64 << 20;
/// Between two attempts to connect: from the first to the last, doubling, each shortened by up to half at random.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// The longest that nothing may come while the server still owes an answer to this stream, and that it may take to take a
/// request in. Each type waits for its answer: one that is lost would leave us with what we have for ever, connected. A
/// server answers in milliseconds; this is long enough for one that all nodes come to at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where updates go.
pub trait Sink {
    /// Applies a batch and returns what it rejects. What isn't rejected is applied when this returns.
    fn apply(&mut self, updates: Vec<Update>) -> impl Future<Output = Vec<Rejection>>;
}

/// A resource that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource.
    pub name: ResourceName,
    /// Why, for the person who wrote it.
    pub reason: String,
    /// Whether the sink holds it all the same: it can be read, but isn't in force yet. Then its end is told too, and a new
    /// stream brings it again.
    pub held: bool,
}

impl Rejection {
    /// A resource that the sink hasn't taken.
    pub fn new(name: ResourceName, reason: impl Into<String>) -> Self {
        Self { name, reason: reason.into(), held: false }
    }
}

/// How to reach the server.
pub trait Transport {
    /// Opens a channel.
    fn connect(&self) -> impl Future<Output = Result<Channel, Status>>;

    /// Adds credentials to the request that opens the stream; called for each stream, as tokens change.
    ///
    /// # Errors
    /// If there is no valid credential; tried again later.
    fn authorize(&self, request: &mut tonic::metadata::MetadataMap) -> Result<(), Status>;
}

/// What a client wants.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The client's unique name.
    pub node: String,
    /// Name and version of the program.
    pub agent: (String, String),
    /// Types of which it wants every resource; of what changes at once it is told in this order.
    pub types: Vec<TypeUrl>,
}

/// How the client stands.
#[derive(Clone, Debug, Default)]
pub struct ClientStatus {
    /// A stream is open.
    pub connected: bool,
    /// Every type was answered as a whole, in however many responses, at least once since the start.
    pub synced: bool,
    /// The types that were answered as a whole at least once since the start, those asked for on demand among them.
    pub answered: BTreeSet<TypeUrl>,
    /// When the server was last heard.
    pub heard: Option<Instant>,
    /// The server's sequence that came with the last response.
    pub version: String,
    /// Responses rejected in part since the start.
    pub nacks: u64,
    /// Why the last stream ended.
    pub last_error: Option<String>,
}

/// Asks for more on demand.
#[derive(Clone, Debug)]
pub enum Demand {
    /// All resources of a type that isn't among [`Settings::types`], from now on, and in each stream after those. Nobody waits
    /// for them to be in sync.
    SubscribeAll(TypeUrl),
    /// From now on.
    Subscribe(ResourceName),
    /// No longer; the caller forgets what it had.
    Unsubscribe(ResourceName),
}

/// A delta xDS client.
#[derive(Debug)]
pub struct Client<T, S> {
    settings: Settings,
    transport: T,
    sink: S,
    held: Held,
    demands: mpsc::Receiver<Demand>,
    status: watch::Sender<ClientStatus>,
}

/// The caller's side of a client.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Demands for single resources.
    pub demands: mpsc::Sender<Demand>,
    /// How the client stands.
    pub status: watch::Receiver<ClientStatus>,
}

impl<T: Transport, S: Sink> Client<T, S> {
    /// A client that runs once [`Client::run`] is polled.
    pub fn new(settings: Settings, transport: T, sink: S) -> (Self, Handle) {
        let (demands_sender, demands) = mpsc::channel(1024);
        let (status, status_receiver) = watch::channel(ClientStatus::default());
        let held = Held::new(&settings.types);
        let client = Self { settings, transport, sink, held, demands, status };
        (client, Handle { demands: demands_sender, status: status_receiver })
    }

    /// Says what the caller has from before this client was made, say from a file: of that, what is gone is removed.
    #[must_use]
    pub fn holding(mut self, names: impl IntoIterator<Item = ResourceName>) -> Self {
        self.held.hold(names);
        self
    }

    /// Runs for ever: what was applied stays applied while the server is away.
    pub async fn run(mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            let started = Instant::now();
            let status = match self.stream().await {
                Ok(()) => Status::unavailable("the server ended the stream"),
                Err(status) => status,
            };
            tracing::warn!(code = ?status.code(), reason = status.message(), "configuration stream ended");
            self.status.send_modify(|s| {
                s.connected = false;
                s.last_error = Some(format!("{:?}: {}", status.code(), status.message()));
            });
            // A stream that lasted was a good one.
            backoff = if started.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
            tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn stream(&mut self) -> Result<(), Status> {
        let channel = self.transport.connect().await?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let (requests, outgoing) = mpsc::channel(16);
        // Sent from a queue of its own: the stream's first requests must not wait for the server's first answer.
        let mut queue: Vec<_> = self.held.initial_requests(&self.node());
        queue.reverse();
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        self.transport.authorize(request.metadata_mut())?;
        let opening = client.delta_aggregated_resources(request);
        let mut owed = Owed::to(&queue);
        let first = queue.pop();
        if let Some(first) = first {
            send(&requests, first).await?;
        }
        let opened = timeout(PATIENCE, opening).await;
        let mut responses = opened.map_err(|_elapsed| late("the server has not opened the stream"))??.into_inner();
        while let Some(request) = queue.pop() {
            send(&requests, request).await?;
        }
        self.status.send_modify(|s| {
            s.connected = true;
            s.last_error = None;
        });
        loop {
            tokio::select! {
                response = responses.message() => match response? {
                    Some(response) => {
                        let (type_url, more) = (TypeUrl::new(&response.type_url), has_more(&response));
                        send(&requests, self.on_response(response).await).await?;
                        owed.heard(type_url, more);
                    }
                    None => return Ok(()),
                },
                status = overdue(&owed) => return Err(status),
                Some(demand) = self.demands.recv() => send(&requests, self.held.demand(&demand)).await?,
            }
        }
    }

    /// Applies a response and makes its ACK or NACK.
    async fn on_response(&mut self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
        let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
        let (version, more) = (response.system_version_info.clone(), has_more(&response));
        let (updates, versions, mut rejections) = held::updates(response);
        rejections.extend(self.sink.apply(updates).await);
        self.held.applied(versions, &rejections);
        let answered = (!more).then(|| TypeUrl::new(&type_url));
        if let Some(answered) = &answered {
            self.held.answered(answered);
        }
        let synced = self.held.all_answered();
        self.status.send_modify(|s| {
            s.answered.extend(answered);
            s.heard = Some(Instant::now());
            s.version = version;
            s.synced |= synced;
            s.nacks += u64::from(!rejections.is_empty());
        });
        let error_detail = held::error_detail(&rejections);
        DeltaDiscoveryRequest { type_url, response_nonce: nonce, error_detail, ..DeltaDiscoveryRequest::default() }
    }

    fn node(&self) -> Node {
        Node {
            id: self.settings.node.clone(),
            cluster: String::new(),
            user_agent_name: self.settings.agent.0.clone(),
            user_agent_version: self.settings.agent.1.clone(),
        }
    }
}

/// Whether more of the same type follows.
fn has_more(response: &DeltaDiscoveryResponse) -> bool {
    response.system_version_info.ends_with(MORE)
}

async fn send(requests: &mpsc::Sender<DeltaDiscoveryRequest>, request: DeltaDiscoveryRequest) -> Result<(), Status> {
    let sent = timeout(PATIENCE, requests.send(request)).await;
    let sent = sent.map_err(|_elapsed| late("the server has taken no request"))?;
    sent.map_err(|_| Status::unavailable("the stream is closed"))
}

/// Ends when nothing has come for too long though something is owed; never if nothing is.
async fn overdue(owed: &Owed) -> Status {
    let Some((type_url, since)) = owed.waiting() else { return std::future::pending().await };
    sleep_until(since + PATIENCE).await;
    late(&format!("the server owes all or the rest of {type_url} and has sent nothing"))
}

fn late(what: &str) -> Status {
    Status::deadline_exceeded(format!("{what} for {} s", PATIENCE.as_secs()))
}
