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

use crate::store::ConfigSink;
use weft_control::{TokenSource, authorize};

/// Follows the control plane's configuration.
#[derive(Debug)]
pub struct ConfigClient {
    client: Client<Control, StoreSink>,
}

impl ConfigClient {
    /// A client that applies what it gets through `sink`.
    pub fn new(node: &NodeName, channel: Channel, token: TokenSource, sink: ConfigSink) -> (Self, Handle) {
        let settings = Settings {
            node: node.to_string(),
            agent: (env!("CARGO_PKG_NAME").into(), env!("CARGO_PKG_VERSION").into()),
            types: wire::TYPE_URLS.iter().map(TypeUrl::new).collect(),
        };
        let (client, handle) = Client::new(settings, Control { channel, token }, StoreSink(sink));
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
struct StoreSink(ConfigSink);

impl Sink for StoreSink {
    async fn apply(&mut self, updates: Vec<Update>) -> Vec<Rejection> {
        let (changes, rejections) = decode(updates);
        // The proxy is going down if nobody applies: then nobody asks any more, either.
        self.0.apply(changes).await;
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
                rejections.push(Rejection { name: update.name().clone(), reason });
            }
        }
    }
    (changes, rejections)
}

#[cfg(test)]
mod tests;
