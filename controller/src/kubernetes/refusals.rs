//! What node proxies refuse at the moment: a replica's own view, what all replicas told each other, and how people are
//! told. No I/O.
//!
//! A node tells the one replica that it follows. Each replica keeps its part under its own name in one ConfigMap
//! (see [`super::board`]); whoever leads puts the parts together and writes conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_core::backend_kind::BackendKind;
use weft_core::change::ResourceKey;
use weft_core::ids::{GatewayRuleKey, Name, Namespace, NodeName, RouteKind, ServiceKey};
use weft_core::wire;
use weft_k8s::object::{Condition, ConditionType, Kind, ObjectRef, ObjectStatus};
use weft_xds::TypeUrl;
use weft_xds::server::Refusal;

/// Reason of the Event and of the condition.
pub const REASON: &str = "RefusedByNode";
/// A proxy that went away may be back at once, with the same opinion: it is remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Most objects of a replica, nodes of an object and bytes of a reason that are told to others: a ConfigMap has a
/// mebibyte at most.
const MOST_OBJECTS: usize = 100;
const MOST_NODES: usize = 10;
const MOST_BYTES: usize = 256;
/// Nodes that a message names.
const NAMED: usize = 3;

/// An object that nodes refuse, by which of them and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its kind, as `HTTPRoute`.
    pub kind: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Reasons by node, not more than ten of them.
    pub nodes: BTreeMap<String, String>,
    /// How many nodes refuse it.
    pub count: usize,
}

impl Refused {
    /// The object; `None` for a kind that this version doesn't know.
    pub fn object(&self) -> Option<ObjectRef> {
        let kind = Kind::ALL.iter().copied().find(|kind| kind.as_str() == self.kind)?;
        Some(ObjectRef::new(kind, self.namespace.as_str(), self.name.as_str()))
    }

    /// For people: how many nodes, some of their names, and why.
    pub fn message(&self) -> String {
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (node, reason) in self.nodes.iter().take(NAMED) {
            reasons.entry(reason).or_default().push(node);
        }
        let said: Vec<_> = reasons.iter().map(|(reason, nodes)| format!("{} ({reason})", nodes.join(", "))).collect();
        let more = self.count.saturating_sub(self.nodes.len().min(NAMED));
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let said = said.join("; ");
        // Of a listener nothing was there before: it is tried again.
        if [Kind::Gateway, Kind::ListenerSet].iter().any(|kind| kind.as_str() == self.kind) {
            return format!("refused by {} of the Gateway's pods, which try again: {said}{more}", self.count);
        }
        format!("refused by {} of the node proxies, which keep what they had: {said}{more}", self.count)
    }
}

/// What one replica tells.
pub type Report = Vec<Refused>;

/// What the clients of this replica refuse.
#[derive(Debug, Default)]
pub struct Refusals {
    clients: BTreeMap<u64, OfClient>,
}

#[derive(Debug)]
struct OfClient {
    node: NodeName,
    /// By type and name of the resource.
    refused: BTreeMap<(TypeUrl, String), String>,
    left: Option<Instant>,
}

impl Refusals {
    /// A client, of this node, refuses resources of a type.
    pub fn refuse(&mut self, client: u64, node: &NodeName, type_url: &TypeUrl, all: &[Refusal]) {
        let new = || OfClient { node: node.clone(), refused: BTreeMap::new(), left: None };
        if !all.is_empty() {
            let refused = all.iter().map(|it| ((type_url.clone(), it.name.to_string()), first_bytes(&it.reason)));
            self.clients.entry(client).or_insert_with(new).refused.extend(refused);
        }
    }

    /// It has taken it by now.
    pub fn mend(&mut self, client: u64, type_url: &TypeUrl, name: &str) {
        if let Some(of_client) = self.clients.get_mut(&client) {
            of_client.refused.remove(&(type_url.clone(), name.to_owned()));
            if of_client.refused.is_empty() {
                self.clients.remove(&client);
            }
        }
    }

    /// A client went away; `false` if it refused nothing.
    pub fn leave(&mut self, client: u64, now: Instant) -> bool {
        self.clients.get_mut(&client).map(|of_client| of_client.left = Some(now)).is_some()
    }

    /// Forgets clients that went away a while ago.
    pub fn tidy(&mut self, now: Instant) {
        self.clients.retain(|_, c| c.left.is_none_or(|left| now.duration_since(left) < REMEMBERED));
    }

    /// How many resources are refused by somebody.
    pub fn resources(&self) -> usize {
        self.clients.values().flat_map(|c| c.refused.keys()).collect::<BTreeSet<_>>().len()
    }

    /// By object, as it is told to other replicas.
    pub fn report(&self) -> Report {
        let mut objects: BTreeMap<ObjectRef, BTreeMap<String, String>> = BTreeMap::new();
        for of_client in self.clients.values() {
            for ((type_url, name), reason) in &of_client.refused {
                let Some(object) = object_of(type_url, name) else { continue };
                objects.entry(object).or_default().insert(of_client.node.to_string(), reason.clone());
            }
        }
        let refused = |(object, nodes): (ObjectRef, BTreeMap<String, String>)| Refused {
            kind: object.kind.as_str().to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            count: nodes.len(),
            nodes: nodes.into_iter().take(MOST_NODES).collect(),
        };
        objects.into_iter().take(MOST_OBJECTS).map(refused).collect()
    }
}

/// What all replicas refuse, by object.
pub fn merged<'a>(reports: impl Iterator<Item = &'a Report>) -> BTreeMap<ObjectRef, Refused> {
    let mut all: BTreeMap<ObjectRef, Refused> = BTreeMap::new();
    for refused in reports.flatten() {
        let Some(object) = refused.object() else { continue };
        match all.get_mut(&object) {
            Some(one) => {
                // A node that moves from one replica to another is in both for a moment.
                let twice = refused.nodes.keys().filter(|node| one.nodes.contains_key(*node)).count();
                one.count += refused.count.saturating_sub(twice);
                one.nodes.extend(refused.nodes.iter().map(|(node, reason)| (node.clone(), reason.clone())));
            }
            None => drop(all.insert(object, refused.clone())),
        }
    }
    all
}

/// Adds the condition to every entry of ours: whatever the controller thinks of the object, nodes don't do it.
pub fn mark(status: &mut ObjectStatus, refused: &Refused) {
    let condition = Condition::new(ConditionType::Programmed, false, REASON, refused.message());
    match status {
        ObjectStatus::Parents(parents) => parents.iter_mut().for_each(|p| p.conditions.push(condition.clone())),
        ObjectStatus::Ancestors(all) => all.iter_mut().for_each(|a| a.conditions.push(condition.clone())),
        ObjectStatus::GatewayAncestors(all) => all.iter_mut().for_each(|a| a.conditions.push(condition.clone())),
        ObjectStatus::Gateway(gateway) => gateway.conditions.push(condition.clone()),
        ObjectStatus::ListenerSet(set) => set.conditions.push(condition.clone()),
    }
}

/// The object that a resource is made of.
pub fn object_of(type_url: &TypeUrl, name: &str) -> Option<ObjectRef> {
    let (kind, namespace, name) = match wire::parse_name(type_url.as_str(), name).ok()? {
        ResourceKey::Rule(rule) | ResourceKey::GatewayRule(GatewayRuleKey { rule, .. }) => {
            let kind = match rule.route.kind {
                RouteKind::Grpc => Kind::GrpcRoute,
                RouteKind::Http => Kind::HttpRoute,
                RouteKind::Tls => Kind::TlsRoute,
                RouteKind::Tcp => Kind::TcpRoute,
                RouteKind::Udp => Kind::UdpRoute,
            };
            (kind, rule.route.namespace, rule.route.name)
        }
        ResourceKey::Service(key) => backend(&key),
        ResourceKey::EndpointSlice(key) => {
            // That of a ServiceImport has another name as well.
            let name = key.name.as_str().rsplit(':').next().unwrap_or_default().into();
            (Kind::EndpointSlice, key.namespace, name)
        }
        ResourceKey::Authorization(key) => (Kind::AuthorizationPolicy, key.namespace, key.name),
        ResourceKey::MeshPolicy(key) => {
            let name = key.name.as_str().strip_prefix("MeshPolicy:").unwrap_or(key.name.as_str()).into();
            (Kind::MeshPolicy, key.namespace, name)
        }
        ResourceKey::Telemetry(key) => (Kind::TelemetryPolicy, key.namespace, key.name),
        ResourceKey::Workload(uid) => {
            let (namespace, name) = uid.as_str().strip_prefix("Kubernetes//Pod/")?.split_once('/')?;
            (Kind::Pod, namespace.into(), name.into())
        }
        ResourceKey::Listener(key) => match key.set {
            Some(set) => (Kind::ListenerSet, set.namespace, set.name),
            None => (Kind::Gateway, key.gateway.namespace, key.gateway.name),
        },
        ResourceKey::Certificate(key) => (Kind::Secret, key.secret.namespace, key.secret.name),
        ResourceKey::GatewayConfig(key) => (Kind::Gateway, key.namespace, key.name),
        ResourceKey::BackendTls(key) => backend(&key.service),
        ResourceKey::Mesh => return None,
    };
    Some(ObjectRef::new(kind, namespace, name))
}

fn backend(key: &ServiceKey) -> (Kind, Namespace, Name) {
    let (kind, name) = key.object();
    let kind = match kind {
        BackendKind::Service => Kind::Service,
        BackendKind::ServiceImport => Kind::ServiceImport,
        BackendKind::XBackend => Kind::XBackend,
    };
    (kind, key.namespace.clone(), name.into())
}

/// What of a reason is told, whole characters only.
pub(super) fn first_bytes(reason: &str) -> String {
    reason.get(..reason.floor_char_boundary(MOST_BYTES)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(refusals: &mut Refusals, client: u64, kind: &str, name: &str, reason: &str) {
        let node = match client {
            0 => NodeName::from("a"),
            1 => NodeName::from("b"),
            _ => NodeName::from(format!("n{client:02}").as_str()),
        };
        refusals.refuse(client, &node, &url(kind), &[Refusal { name: name.into(), reason: reason.into() }]);
    }

    fn url(name: &str) -> TypeUrl {
        TypeUrl::new(format!("type.googleapis.com/weft.config.v1.{name}"))
    }

    #[test]
    fn resources_name_the_objects_they_are_made_of() {
        let of = |kind: &str, name: &str| object_of(&url(kind), name).map(|o| o.to_string());
        assert_eq!(of("Rule", "HTTPRoute/shop/cart/0").as_deref(), Some("HTTPRoute shop/cart"));
        assert_eq!(of("MeshPolicy", "shop/MeshPolicy:strict").as_deref(), Some("MeshPolicy shop/strict"));
        assert_eq!(of("Workload", "Kubernetes//Pod/shop/cart-1").as_deref(), Some("Pod shop/cart-1"));
        assert_eq!(of("Service", "shop/XBackend:api").as_deref(), Some("XBackend shop/api"));
        assert_eq!(of("EndpointSlice", "shop/ServiceImport:s-1").as_deref(), Some("EndpointSlice shop/s-1"));
        assert_eq!((of("Rule", "nothing of ours"), of("MeshConfig", "mesh")), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn two_rules_are_one_object_and_a_client_that_left_is_remembered_for_a_while() {
        let mut refusals = Refusals::default();
        refuse(&mut refusals, 0, "Rule", "HTTPRoute/shop/cart/0", "weight");
        refuse(&mut refusals, 0, "Rule", "HTTPRoute/shop/cart/1", "weight");
        refuse(&mut refusals, 1, "Rule", "HTTPRoute/shop/cart/0", "weight");
        let report = refusals.report();
        assert_eq!((report.len(), report[0].count, refusals.resources()), (1, 2, 2));
        assert_eq!(report[0].message(), "refused by 2 of the node proxies, which keep what they had: a, b (weight)");

        refusals.mend(0, &url("Rule"), "HTTPRoute/shop/cart/0");
        assert_eq!(refusals.report()[0].count, 2, "one of its rules is still refused by a");
        refusals.mend(0, &url("Rule"), "HTTPRoute/shop/cart/1");
        assert_eq!(refusals.report()[0].count, 1);
        assert!(refusals.leave(1, Instant::now()) && !refusals.leave(0, Instant::now()));
        refusals.tidy(Instant::now() + REMEMBERED / 2);
        assert_eq!(refusals.report().len(), 1);
        refusals.tidy(Instant::now() + REMEMBERED);
        assert_eq!(refusals.report(), Report::new());
    }

    #[test]
    fn what_is_told_has_limits_and_parts_add_up() {
        let mut refusals = Refusals::default();
        for client in 0..20 {
            refuse(&mut refusals, client, "Service", "shop/cart", &"ä".repeat(1000));
            for n in 0..200 {
                refuse(&mut refusals, client, "Service", &format!("other/s{n}"), "x");
            }
        }
        let report = refusals.report();
        assert_eq!((report.len(), report[0].nodes.len(), report[0].count), (MOST_OBJECTS, MOST_NODES, 20));
        let of = |nodes: &[&str]| {
            let nodes: BTreeMap<_, _> = nodes.iter().map(|n| ((*n).to_owned(), "x".to_owned())).collect();
            vec![Refused {
                kind: "Service".into(),
                namespace: "shop".into(),
                name: "cart".into(),
                count: nodes.len(),
                nodes,
            }]
        };
        let all = merged([of(&["a", "b"]), of(&["b", "c", "d"]), vec![Refused::default()]].iter());
        let one = all.values().next().unwrap();
        assert_eq!((all.len(), one.count), (1, 4));
        assert!(one.message().ends_with("a, b, c (x) and 1 more"), "{}", one.message());
    }
}
