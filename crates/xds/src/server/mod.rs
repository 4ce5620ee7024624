//! The server: a [`Publisher`] and the streams that read from it.

mod publisher;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream as FuturesStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use weft_api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

pub use self::publisher::{Publisher, Sequence};
use self::stream::{FellBehind, Heard, Nack, Stream};
use crate::TypeUrl;

/// Largest request taken, bytes: the versions of everything a client holds come in one.
const MAX_REQUEST: usize = 64 << 20;
/// The longest that a client may take to answer a response, and to take one in. After a response of a type comes no other
/// before its answer: one that is lost would leave the client with what it has for ever. A client applies a response in
/// milliseconds; this is long enough for one on a node that is overloaded.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may connect, what each may see, and what becomes known of them.
pub trait Access: Send + Sync + 'static {
    /// A client that was let in.
    type Client: Send + Sync + 'static;

    /// Lets a client in by what it presented.
    ///
    /// # Errors
    /// The status that ends the stream: `UNAUTHENTICATED` or `PERMISSION_DENIED`.
    fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &tonic::Extensions,
    ) -> impl Future<Output = Result<Self::Client, Status>> + Send;

    /// A client asks for something of a type for the first time in its stream.
    ///
    /// # Errors
    /// The status that ends the stream, as `INVALID_ARGUMENT` for a type that nobody knows.
    fn on_type(&self, _client: &Self::Client, _type_url: &TypeUrl) -> Result<(), Status> {
        Ok(())
    }

    /// Whether there is something of a type that a client may not see; only then is [`Access::may_see`] asked. What a client
    /// has of a type that isn't restricted costs the server nothing.
    fn is_restricted(&self, _client: &Self::Client, _type_url: &TypeUrl) -> bool {
        false
    }

    /// Whether a client may see a resource.
    fn may_see(&self, _client: &Self::Client, _type_url: &TypeUrl, _name: &str) -> bool {
        true
    }

    /// Something became known of a client.
    fn on_event(&self, client: &Self::Client, event: Event);
}

/// What became known of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its stream is open.
    Connected,
    /// It has applied everything up to here.
    Synced(Sequence),
    /// It rejected something, for this reason.
    Nacked {
        /// The type of the response.
        type_url: TypeUrl,
        /// The client's words.
        reason: String,
        /// The resources that they name, with the reason of each.
        refused: Vec<Refusal>,
    },
    /// What it rejected before, in this stream, it has taken by now in another version, or it is gone.
    Mended {
        /// The type.
        type_url: TypeUrl,
        /// The names.
        names: Vec<Arc<str>>,
    },
    /// Its stream ended.
    Disconnected,
}

/// A resource that a client rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name within its type.
    pub name: Arc<str>,
    /// The client's reason.
    pub reason: String,
}

/// The gRPC service over a publisher.
#[derive(Debug)]
pub struct Server<A> {
    publisher: Publisher,
    access: Arc<A>,
    max_age: Option<Duration>,
}

impl<A: Access> Server<A> {
    /// The service, to be added to a tonic router. Its streams last as long as their clients.
    pub fn service(publisher: Publisher, access: Arc<A>) -> AggregatedDiscoveryServiceServer<Self> {
        Self { publisher, access, max_age: None }.into_service()
    }

    /// As [`Server::service`], but each stream ends after `max_age`, give or take a quarter at random, so that its client
    /// is admitted anew. Clients that came at the same time don't all return at the same time.
    pub fn service_with_age(
        publisher: Publisher,
        access: Arc<A>,
        max_age: Duration,
    ) -> AggregatedDiscoveryServiceServer<Self> {
        Self { publisher, access, max_age: Some(max_age) }.into_service()
    }

    fn into_service(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

#[tonic::async_trait]
impl<A: Access> AggregatedDiscoveryService for Server<A> {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn FuturesStream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let client = self.access.admit(&metadata, &extensions).await?;
        let (sender, responses) = mpsc::channel(1);
        let conversation = Conversation {
            publisher: self.publisher.clone(),
            access: Arc::clone(&self.access),
            client,
            sender,
            stream: Stream::default(),
            synced: None,
            ends: self.max_age.map(|age| Instant::now() + age.mul_f64(0.75 + fastrand::f64() / 2.0)),
        };
        tokio::spawn(conversation.run(requests));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

/// One client's stream with its I/O.
struct Conversation<A: Access> {
    publisher: Publisher,
    access: Arc<A>,
    client: A::Client,
    sender: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    stream: Stream,
    synced: Option<Sequence>,
    /// When the client has to prove itself again.
    ends: Option<Instant>,
}

impl<A: Access> Conversation<A> {
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        self.access.on_event(&self.client, Event::Connected);
        if let Err(status) = self.talk(&mut requests).await {
            // Nobody listens any more if this fails, or takes too long.
            let _ = timeout(PATIENCE, self.sender.send(Err(status))).await;
        }
        self.access.on_event(&self.client, Event::Disconnected);
    }

    async fn talk(&mut self, requests: &mut Streaming<DeltaDiscoveryRequest>) -> Result<(), Status> {
        let mut published = self.publisher.subscribe();
        loop {
            let oldest = self.stream.oldest_unanswered().map(|(type_url, since)| (type_url.clone(), since));
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => self.hear(&request)?,
                    None => return Ok(()),
                },
                changed = published.changed() => if changed.is_err() { return Ok(()) },
                () = self.sender.closed() => return Ok(()),
                status = overdue(oldest) => return Err(status),
                status = too_old(self.ends) => return Err(status),
            }
            while let Some(response) = self.next_response()? {
                let type_url = response.type_url.clone();
                match timeout(PATIENCE, self.sender.send(Ok(response))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_closed)) => return Ok(()),
                    Err(_elapsed) => return Err(not_taken(&type_url)),
                }
            }
            self.note_synced();
        }
    }

    fn hear(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        if !self.stream.has(&request.type_url) {
            self.access.on_type(&self.client, &TypeUrl::new(&request.type_url))?;
            // Having everything means more from now on: it is told anew.
            self.synced = None;
        }
        match self.stream.on_request(request, &self.publisher.read()) {
            Heard::Nack(Nack { type_url, reason, refused, mended }) => {
                self.note_mended(&type_url, mended);
                self.access.on_event(&self.client, Event::Nacked { type_url, reason, refused });
                Ok(())
            }
            Heard::Ack(type_url, mended) => {
                self.note_mended(&type_url, mended);
                Ok(())
            }
            Heard::TooMuch => Err(Status::resource_exhausted("too many types or names in one stream")),
            Heard::Subscription | Heard::Stale => Ok(()),
        }
    }

    fn note_mended(&self, type_url: &TypeUrl, names: Vec<Arc<str>>) {
        if !names.is_empty() {
            self.access.on_event(&self.client, Event::Mended { type_url: type_url.clone(), names });
        }
    }

    fn next_response(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let state = self.publisher.read();
        let behind =
            |FellBehind| Status::aborted("too much has changed since this client was told last: say what you have");
        self.stream.catch_up(&state).map_err(behind)?;
        let may_see = |type_url: &TypeUrl, name: &str| self.access.may_see(&self.client, type_url, name);
        let restricted = |type_url: &TypeUrl| self.access.is_restricted(&self.client, type_url).then_some(&may_see);
        Ok(self.stream.next_response(&state, restricted))
    }

    fn note_synced(&mut self) {
        let synced = self.stream.synced();
        if synced.is_some() && synced != self.synced {
            self.synced = synced;
            if let Some(sequence) = synced {
                self.access.on_event(&self.client, Event::Synced(sequence));
            }
        }
    }
}

/// Ends when the response that has waited longest for its answer has waited too long; never if there is none.
async fn overdue(oldest: Option<(TypeUrl, Instant)>) -> Status {
    let Some((type_url, since)) = oldest else { return std::future::pending().await };
    sleep_until(since + PATIENCE).await;
    let waited = since.elapsed().as_secs();
    Status::aborted(format!("a response of {type_url} has no answer after {waited} s: say what you have"))
}

/// Ends when the client has to prove itself again.
async fn too_old(ends: Option<Instant>) -> Status {
    let Some(ends) = ends else { return std::future::pending().await };
    sleep_until(ends).await;
    Status::unavailable("this stream has lasted as long as one may: prove yourself again")
}

fn not_taken(type_url: &str) -> Status {
    let waited = PATIENCE.as_secs();
    Status::aborted(format!("a response of {type_url} was not taken in {waited} s: say what you have"))
}
