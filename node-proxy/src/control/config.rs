//! The client of configuration: delta xDS into the store.

use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use weft_core::change::{Change, Resource};
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_core::wire;
use weft_xds::client::{Client, Handle, Rejection, Settings, Sink, Transport};
use weft_xds::{ResourceName, TypeUrl, Update};

use super::bound::Binding;
use crate::gateway::Progress;
use crate::store::ConfigSink;
use weft_control::{TokenSource, authorize};

/// Follows the control plane's configuration.
#[derive(Debug)]
pub struct ConfigClient {
    client: Client<Control, StoreSink>,
}

impl ConfigClient {
    /// A node's client, which applies what it gets through `sink`. It asks for nothing that is only for Gateways.
    pub fn new(node: &NodeName, channel: Channel, token: TokenSource, sink: ConfigSink) -> (Self, Handle) {
        Self::of_node(settings(node.as_str(), &wire::NODE_TYPE_URLS), channel, token, sink)
    }

    /// The same of a node that listens for the mesh's Gateways too.
    pub fn with_gateways(node: &NodeName, channel: Channel, token: TokenSource, sink: ConfigSink) -> (Self, Handle) {
        Self::of_node(settings(node.as_str(), &wire::TYPE_URLS), channel, token, sink)
    }

    fn of_node(settings: Settings, channel: Channel, token: TokenSource, sink: ConfigSink) -> (Self, Handle) {
        let (client, handle) = Client::new(settings, Control { channel, token }, StoreSink { sink, binding: None });
        (Self { client }, handle)
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
        let binding = Binding::new(progress);
        let sink = StoreSink { sink, binding: Some(binding.clone()) };
        let (client, handle) = Client::new(settings, Control { channel, token }, sink);
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
        authorize(&self.token, request)
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
