//! Who may follow the configuration: node proxies, by the tokens of their pods; and how far each has come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;
use weft_core::ids::{Namespace, NodeName, ServiceAccount};
use weft_k8s::object::ObjectRef;
use weft_kube::{ReviewError, Reviewed, Reviewer};
use weft_xds::server::{Access, Event, Publisher, Refusal, Sequence};

use super::board::Own;
use super::refusals::object_of;
use crate::standalone::bearer;

/// Publications whose time is remembered.
const REMEMBERED: usize = 1024;

/// A configuration that a node refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The node.
    pub node: NodeName,
    /// The object that the refused resource was made of.
    pub object: ObjectRef,
    /// The node's words.
    pub reason: String,
}

/// A node proxy that was let in.
#[derive(Debug)]
pub struct Client {
    /// Tells its stream from others, of the same node too.
    id: u64,
    node: NodeName,
    told: AtomicU64,
}

/// Lets node proxies in.
#[derive(Debug)]
pub struct NodeAccess {
    reviewer: Reviewer,
    account: (Namespace, ServiceAccount),
    publisher: Publisher,
    published: Mutex<VecDeque<(Sequence, Instant)>>,
    nacks: mpsc::Sender<Nack>,
    refused: Own,
    clients: AtomicU64,
}

impl NodeAccess {
    /// Lets pods of `account` in. What they refuse goes to `nacks` once, and is in `refused` as long as they do.
    pub fn new(
        reviewer: Reviewer,
        account: (Namespace, ServiceAccount),
        publisher: Publisher,
        (nacks, refused): (mpsc::Sender<Nack>, Own),
    ) -> Self {
        let clients = AtomicU64::default();
        Self { reviewer, account, publisher, published: Mutex::default(), nacks, refused, clients }
    }

    /// Notes when something was published.
    pub fn note_published(&self, sequence: Sequence) {
        let mut published = self.published.lock();
        published.push_back((sequence, Instant::now()));
        if published.len() > REMEMBERED {
            published.pop_front();
        }
    }

    async fn node_of(&self, token: &str) -> Result<NodeName, Status> {
        let failed = |error: ReviewError| match error {
            ReviewError::Invalid(why) => Status::unauthenticated(why),
            ReviewError::Unavailable(_) => Status::unavailable(error.to_string()),
        };
        let reviewed = self.reviewer.review(token).await.map_err(failed)?;
        let (namespace, account) = &self.account;
        if (&reviewed.namespace, &reviewed.service_account) != (namespace, account) {
            let Reviewed { namespace: of, service_account, .. } = reviewed;
            let text =
                format!("{of}/{service_account} may not follow the configuration: only {namespace}/{account} may");
            return Err(Status::permission_denied(text));
        }
        self.reviewer.node(token, &reviewed).await.map_err(failed)
    }

    /// Notes how long the client took for everything between what it had and what it has now.
    fn synced(&self, client: &Client, now: Sequence) {
        let before = Sequence(client.told.swap(now.0, Ordering::Relaxed));
        let published = self.published.lock();
        for (_, at) in published.iter().filter(|(sequence, _)| *sequence > before && *sequence <= now) {
            metrics::histogram!("weft_controller_push_to_ack_seconds").record(at.elapsed().as_secs_f64());
        }
    }
}

impl Access for NodeAccess {
    type Client = Client;

    async fn admit(&self, metadata: &MetadataMap, _extensions: &tonic::Extensions) -> Result<Client, Status> {
        let token = bearer(metadata).ok_or_else(|| Status::unauthenticated("a bearer token is needed"))?;
        let node = self.node_of(token).await.inspect_err(|status| {
            tracing::warn!(code = ?status.code(), reason = status.message(), "a client is not let in");
            metrics::counter!("weft_controller_clients_refused_total").increment(1);
        })?;
        let id = self.clients.fetch_add(1, Ordering::Relaxed);
        Ok(Client { id, node, told: AtomicU64::new(self.publisher.sequence().0) })
    }

    fn on_event(&self, client: &Client, event: Event) {
        match event {
            Event::Connected => {
                metrics::gauge!("weft_controller_clients").increment(1.0);
                tracing::info!(node = %client.node, "a node proxy follows the configuration");
            }
            Event::Disconnected => {
                metrics::gauge!("weft_controller_clients").decrement(1.0);
                tracing::info!(node = %client.node, "a node proxy went away");
                self.refused.edit(|refusals| refusals.leave(client.id, Instant::now()));
            }
            Event::Synced(sequence) => self.synced(client, sequence),
            Event::Nacked { type_url, reason, refused } => {
                tracing::error!(node = %client.node, %type_url, reason, "a node refuses configuration");
                metrics::counter!("weft_controller_nacks_total", "type" => type_url.as_str().to_owned()).increment(1);
                self.refused.edit(|all| {
                    all.refuse(client.id, &client.node, &type_url, &refused);
                    !refused.is_empty()
                });
                for Refusal { name, reason } in refused {
                    let Some(object) = object_of(&type_url, &name) else { continue };
                    // With more than can be told of, some are only in the log.
                    let _ = self.nacks.try_send(Nack { node: client.node.clone(), object, reason });
                }
            }
            Event::Mended { type_url, names } => {
                tracing::info!(node = %client.node, %type_url, ?names, "a node takes what it refused");
                self.refused.edit(|all| {
                    names.iter().for_each(|name| all.mend(client.id, &type_url, name));
                    true
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tonic::Code;
    use weft_kube_fake::{FakeApi, Reply};
    use weft_xds::TypeUrl;

    fn access() -> (NodeAccess, mpsc::Receiver<Nack>) {
        let api = FakeApi::new();
        api.answer(|request| {
            let pod_of = |name: &str, account: &str, node: Option<&str>| {
                let mut extra = json!({ "authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": ["u"] });
                if let Some(node) = node {
                    extra["authentication.kubernetes.io/node-name"] = json!([node]);
                }
                json!({ "authenticated": true, "audiences": ["weft"],
                    "user": { "username": format!("system:serviceaccount:{account}"), "extra": extra } })
            };
            let pod = |account: &str, node: Option<&str>| pod_of("p", account, node);
            if request.path.ends_with("/pods/old") {
                let spec = json!({ "serviceAccountName": "weft-node-proxy", "nodeName": "b", "containers": [] });
                return Some(Reply::Json(200, json!({ "metadata": { "name": "old", "uid": "u" }, "spec": spec })));
            }
            let status = match request.body["spec"]["token"].as_str()? {
                "proxy" => pod("weft-system:weft-node-proxy", Some("a")),
                "old" => pod_of("old", "weft-system:weft-node-proxy", None),
                "nowhere" => pod("weft-system:weft-node-proxy", None),
                "impostor" => pod("shop:weft-node-proxy", Some("a")),
                "down" => return Some(Reply::error(500, "InternalError")),
                _ => json!({ "authenticated": false }),
            };
            Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
        });
        let (nacks, received) = mpsc::channel(4);
        let account = ("weft-system".into(), "weft-node-proxy".into());
        let outlets = (nacks, Own::default());
        (NodeAccess::new(Reviewer::new(api.client(), "weft"), account, Publisher::default(), outlets), received)
    }

    #[tokio::test]
    async fn only_node_proxies_of_the_mesh_get_in() {
        let (access, _nacks) = access();
        let admit = async |header: Option<&str>| {
            let mut metadata = MetadataMap::new();
            header.map(|h| metadata.insert("authorization", h.parse().unwrap()));
            let admitted = access.admit(&metadata, &tonic::Extensions::default()).await;
            admitted.map(|client| client.node.to_string()).map_err(|status| status.code())
        };
        assert_eq!(admit(Some("Bearer proxy")).await, Ok("a".into()));
        assert_eq!(admit(None).await, Err(Code::Unauthenticated));
        assert_eq!(admit(Some("Bearer other")).await, Err(Code::Unauthenticated));
        assert_eq!(admit(Some("Bearer impostor")).await, Err(Code::PermissionDenied));
        // Tokens that don't say on which node: the pod does, if it is there.
        assert_eq!(admit(Some("Bearer old")).await, Ok("b".into()));
        assert_eq!(admit(Some("Bearer nowhere")).await, Err(Code::Unauthenticated));
        assert_eq!(admit(Some("Bearer down")).await, Err(Code::Unavailable));
    }

    #[tokio::test]
    async fn a_refusal_is_told_once_and_lasts_until_it_is_mended() {
        let (access, mut nacks) = access();
        let client = Client { id: 7, node: "a".into(), told: AtomicU64::new(0) };
        let type_url = TypeUrl::new("type.googleapis.com/weft.config.v1.Rule");
        let refusal = |name: &str| Refusal { name: name.into(), reason: "weight".into() };
        let refused = vec![refusal("HTTPRoute/shop/cart/0"), refusal("HTTPRoute/shop/web/0"), refusal("nonsense")];
        access.on_event(&client, Event::Nacked { type_url: type_url.clone(), reason: "...".into(), refused });
        let told = [nacks.try_recv().unwrap(), nacks.try_recv().unwrap()].map(|n| n.object.to_string());
        assert_eq!(told, ["HTTPRoute shop/cart", "HTTPRoute shop/web"]);
        assert!(nacks.try_recv().is_err(), "what is no object of ours is only in the log");
        let now = || access.refused.look().into_iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(now(), ["cart", "web"]);
        access.on_event(&client, Event::Mended { type_url, names: vec!["HTTPRoute/shop/cart/0".into()] });
        assert_eq!(now(), ["web"]);
        access.on_event(&client, Event::Disconnected);
        assert_eq!(now(), ["web"], "it may be back at once");
    }
}
