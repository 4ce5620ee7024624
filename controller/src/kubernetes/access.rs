//! Who may follow the configuration: node proxies, by the tokens of their pods; and how far each has come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;
use weft_core::change::ResourceKey;
use weft_core::ids::{Namespace, NodeName, RouteKind, ServiceAccount};
use weft_core::wire;
use weft_k8s::object::{Kind, ObjectRef};
use weft_kube::{ReviewError, Reviewed, Reviewer};
use weft_xds::TypeUrl;
use weft_xds::server::{Access, Event, Publisher, Sequence};

use crate::standalone::bearer;

/// Publications whose time is remembered.
const REMEMBERED: usize = 1024;

/// A configuration that a node refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The node.
    pub node: NodeName,
    /// The object that the refused resource was made of, if one is named.
    pub object: Option<ObjectRef>,
    /// The node's words.
    pub reason: String,
}

/// A node proxy that was let in.
#[derive(Debug)]
pub struct Client {
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
}

impl NodeAccess {
    /// Lets pods of `account` in. What they refuse goes to `nacks`.
    pub fn new(
        reviewer: Reviewer,
        account: (Namespace, ServiceAccount),
        publisher: Publisher,
        nacks: mpsc::Sender<Nack>,
    ) -> Self {
        Self { reviewer, account, publisher, published: Mutex::default(), nacks }
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
        Ok(Client { node, told: AtomicU64::new(self.publisher.sequence().0) })
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
            }
            Event::Synced(sequence) => self.synced(client, sequence),
            Event::Nacked { type_url, reason } => {
                tracing::error!(node = %client.node, %type_url, reason, "a node refuses configuration");
                metrics::counter!("weft_controller_nacks_total", "type" => type_url.as_str().to_owned()).increment(1);
                let nack = Nack { node: client.node.clone(), object: object_of(&type_url, &reason), reason };
                // With more than can be told of, some are only in the log.
                let _ = self.nacks.try_send(nack);
            }
        }
    }
}

/// The object behind the first resource that a refusal names: `name: reason; name: reason`.
fn object_of(type_url: &TypeUrl, reason: &str) -> Option<ObjectRef> {
    let (name, _) = reason.split_once(": ")?;
    let (kind, namespace, name) = match wire::parse_name(type_url.as_str(), name).ok()? {
        ResourceKey::Rule(rule) => {
            let kind = match rule.route.kind {
                RouteKind::Grpc => Kind::GrpcRoute,
                RouteKind::Http => Kind::HttpRoute,
                RouteKind::Tls => Kind::TlsRoute,
                RouteKind::Tcp => Kind::TcpRoute,
                RouteKind::Udp => Kind::UdpRoute,
            };
            (kind, rule.route.namespace, rule.route.name)
        }
        ResourceKey::Service(key) => (Kind::Service, key.namespace, key.name),
        ResourceKey::EndpointSlice(key) => (Kind::EndpointSlice, key.namespace, key.name),
        ResourceKey::Authorization(key) => (Kind::AuthorizationPolicy, key.namespace, key.name),
        ResourceKey::MeshPolicy(key) => {
            let name = key.name.as_str().strip_prefix("MeshPolicy:").unwrap_or(key.name.as_str()).into();
            (Kind::MeshPolicy, key.namespace, name)
        }
        ResourceKey::Workload(uid) => {
            let (namespace, name) = uid.as_str().strip_prefix("Kubernetes//Pod/")?.split_once('/')?;
            (Kind::Pod, namespace.into(), name.into())
        }
        ResourceKey::Mesh => return None,
    };
    Some(ObjectRef::new(kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tonic::Code;
    use weft_kube_fake::{FakeApi, Reply};

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
        (NodeAccess::new(Reviewer::new(api.client(), "weft"), account, Publisher::default(), nacks), received)
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
    async fn a_refusal_names_its_object() {
        let (access, mut nacks) = access();
        let client = Client { node: "a".into(), told: AtomicU64::new(0) };
        let url = |name: &str| TypeUrl::new(format!("type.googleapis.com/weft.config.v1.{name}"));
        let mut refused = |kind: &str, reason: &str| {
            access.on_event(&client, Event::Nacked { type_url: url(kind), reason: reason.into() });
            nacks.try_recv().unwrap().object.map(|o| o.to_string())
        };
        assert_eq!(
            refused("Rule", "HTTPRoute/shop/cart/0: weight; and 3 more").as_deref(),
            Some("HTTPRoute shop/cart")
        );
        assert_eq!(refused("MeshPolicy", "shop/MeshPolicy:strict: x").as_deref(), Some("MeshPolicy shop/strict"));
        assert_eq!(refused("Workload", "Kubernetes//Pod/shop/cart-1: x").as_deref(), Some("Pod shop/cart-1"));
        assert_eq!(refused("Rule", "no name in it"), None);
    }
}
