//! The client of configuration: delta xDS into the store.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use weft_core::change::{Change, Resource};
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_core::wire;
use weft_xds::client::{Client, Demand, Handle, Rejection, Settings, Sink, Transport};
use weft_xds::{ResourceName, TypeUrl, Update};

use super::bound::Binding;
use crate::gateway::Progress;
use crate::store::ConfigSink;
use weft_control::{PROCESS_SINCE, TokenSource, authorize};

/// When a node that listens for Gateways asks for their listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListensFrom {
    /// At once: its workers start without waiting for the control plane.
    TheStart,
    /// When its workers run, which wait for the rest of the configuration: a listener is acknowledged only by them.
    ItsWorkers,
}

/// Follows the control plane's configuration.
#[derive(Debug)]
pub struct ConfigClient {
    client: Client<Control, StoreSink>,
}

impl ConfigClient {
    /// A node's client, which applies what it gets through `sink`. It asks for nothing that is only for Gateways.
    pub fn new(node: &NodeName, channel: Channel, token: TokenSource, sink: ConfigSink) -> (Self, Handle) {
        let settings = settings(node.as_str(), &wire::NODE_TYPE_URLS);
        let control = Control { channel, token, since: None };
        let (client, handle) = Client::new(settings, control, StoreSink { sink, binding: None });
        (Self { client }, handle)
    }

    /// The same of a node that listens for the mesh's Gateways too, and acknowledges listeners as [`ConfigClient::of_gateway`]
    /// does. It says which process it is, because one that was replaced follows on until its last connection has ended. Must be
    /// called on a runtime.
    pub fn with_gateways(
        node: &NodeName,
        channel: Channel,
        token: TokenSource,
        sink: ConfigSink,
        (progress, from): (Progress, ListensFrom),
    ) -> (Self, Handle) {
        let control = Control { channel, token, since: Some(since_boot()) };
        let mut settings = settings(node.as_str(), &wire::TYPE_URLS);
        settings.types.retain(|type_url| type_url.as_str() != wire::LISTENER || from == ListensFrom::TheStart);
        let (client, handle) = Self::binding(settings, control, sink, progress.clone());
        progress.await_listeners();
        tokio::spawn(know_listeners(progress, handle.clone(), from));
        (client, handle)
    }

    /// The client of one Gateway's proxy, of this name. It acknowledges listeners when the workers, whose `progress` this is,
    /// have bound them. Must be called on a runtime.
    pub fn of_gateway(
        name: &str,
        channel: Channel,
        token: TokenSource,
        sink: ConfigSink,
        progress: Progress,
    ) -> (Self, Handle) {
        let settings = settings(name, &wire::GATEWAY_CLIENT_TYPE_URLS);
        Self::binding(settings, Control { channel, token, since: None }, sink, progress)
    }

    fn binding(settings: Settings, control: Control, sink: ConfigSink, progress: Progress) -> (Self, Handle) {
        let binding = Binding::new(progress);
        let sink = StoreSink { sink, binding: Some(binding.clone()) };
        let (client, handle) = Client::new(settings, control, sink);
        tokio::spawn(binding.mend(handle.demands.clone()));
        (Self { client }, handle)
    }

    /// Starts from a configuration that was saved: what is in it and gone by now is removed with the first answers.
    #[must_use]
    pub fn holding(mut self, saved: &Snapshot) -> Self {
        let name = |resource: Resource| {
            let key = resource.key();
            ResourceName::new(TypeUrl::new(wire::type_url(&key)), wire::name(&key).as_str())
        };
        self.client = self.client.holding(saved.resources().into_iter().map(name));
        self
    }

    /// Runs for ever.
    pub async fn run(self) {
        self.client.run().await;
    }
}

/// Asks for listeners once every worker runs, if that is not done yet, and says when the workers know them.
async fn know_listeners(progress: Progress, Handle { demands, mut status }: Handle, from: ListensFrom) {
    let listeners = TypeUrl::new(wire::LISTENER);
    if from == ListensFrom::ItsWorkers {
        progress.reached(0).await;
        // Nobody follows the configuration any more if this fails.
        let _ = demands.send(Demand::SubscribeAll(listeners.clone())).await;
    }
    if status.wait_for(|status| status.answered.contains(&listeners)).await.is_ok() {
        progress.know();
    }
}

/// Nanoseconds since the machine started, which no setting of a clock changes; 0 if it doesn't say.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

fn settings(name: &str, types: &[&str]) -> Settings {
    Settings {
        node: name.to_owned(),
        agent: (env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into()),
        types: types.iter().map(TypeUrl::new).collect(),
    }
}

struct Control {
    channel: Channel,
    token: TokenSource,
    /// When this process was started, if that is said.
    since: Option<u64>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Transport for Control {
    async fn connect(&self) -> Result<Channel, Status> {
        Ok(self.channel.clone())
    }

    fn authorize(&self, request: &mut MetadataMap) -> Result<(), Status> {
        authorize(&self.token, request)?;
        if let Some(since) = self.since {
            request.insert(PROCESS_SINCE, since.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct StoreSink {
    sink: ConfigSink,
    /// Whether what is applied has to be bound as well before it is acknowledged.
    binding: Option<Binding>,
}

impl Sink for StoreSink {
    async fn apply(&mut self, updates: Vec<Update>) -> Vec<Rejection> {
        let (changes, mut rejections) = decode(updates);
        let Some(binding) = &self.binding else {
            // The proxy is going down if nobody applies: then nobody asks any more, either.
            self.sink.apply(changes).await;
            return rejections;
        };
        if let Some(version) = self.sink.apply(changes.clone()).await {
            rejections.extend(binding.settle(version, &changes).await);
        }
        rejections
    }
}

/// Reads updates; what can't be read is rejected by itself.
fn decode(updates: Vec<Update>) -> (Vec<Change>, Vec<Rejection>) {
    let (mut changes, mut rejections) = (Vec::new(), Vec::new());
    for update in updates {
        let change = match &update {
            Update::Set(it) => {
                let decoded = wire::decode(it.name.type_url.as_str(), &it.name.name, &it.body);
                decoded.map(Change::Upsert).map_err(|e| e.to_string())
            }
            Update::Remove(name) => {
                let key = wire::parse_name(name.type_url.as_str(), &name.name);
                key.map(Change::Remove).map_err(|e| e.to_string())
            }
        };
        match change {
            Ok(change) => changes.push(change),
            Err(reason) => {
                tracing::warn!(resource = %update.name(), reason, "configuration rejected");
                rejections.push(Rejection::new(update.name().clone(), reason));
            }
        }
    }
    (changes, rejections)
}

#[cfg(test)]
mod tests;
