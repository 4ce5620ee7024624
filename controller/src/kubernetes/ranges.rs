//! The ranges that the cluster's pods and Services get their addresses from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;
use weft_k8s::object::{Kind, Object, ObjectRef};

/// Namespace and name of the EndpointSlice that API servers keep of themselves.
const API_SERVERS: (&str, &str) = ("default", "kubernetes");

/// What the operator said; what isn't said is taken from the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenRanges {
    /// Of pods.
    pub pods: Vec<IpNet>,
    /// Of Services.
    pub services: Vec<IpNet>,
}

/// All ranges, neighbours merged, sorted. `cidrs` are the `spec`s of ServiceCIDR objects. What isn't a range is left
/// out.
pub fn cluster_ranges<'a>(
    given: &GivenRanges,
    nodes: impl Iterator<Item = &'a Node>,
    cidrs: impl Iterator<Item = &'a Value>,
) -> Vec<IpNet> {
    let mut found: BTreeSet<IpNet> = given.pods.iter().chain(&given.services).map(IpNet::trunc).collect();
    if given.pods.is_empty() {
        for spec in nodes.filter_map(|node| node.spec.as_ref()) {
            let texts = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
            found.extend(texts.filter_map(|text| parse(text)));
        }
    }
    if given.services.is_empty() {
        for spec in cidrs {
            let texts = spec.get("cidrs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            found.extend(texts.filter_map(parse));
        }
    }
    let mut merged = IpNet::aggregate(&found.into_iter().collect());
    merged.sort();
    merged
}

/// The object in which API servers tell their addresses, wherever they run.
pub fn api_servers() -> ObjectRef {
    ObjectRef::new(Kind::EndpointSlice, API_SERVERS.0, API_SERVERS.1)
}

/// Whether ranges or addresses follow from an object.
pub fn follow_from(reference: &ObjectRef) -> bool {
    let place = || (reference.namespace.as_str(), reference.name.as_str());
    reference.kind == Kind::Node || reference.kind == Kind::EndpointSlice && place() == API_SERVERS
}

/// The addresses of nodes, and of API servers, which need not be nodes; neighbours merged, sorted.
pub fn node_addresses<'a>(nodes: impl Iterator<Item = &'a Node>, api_servers: Option<&Object>) -> Vec<IpNet> {
    let of_nodes = nodes.filter_map(|node| node.status.as_ref()?.addresses.as_deref()).flatten();
    let slice = api_servers.and_then(|object| match object {
        Object::EndpointSlice(slice) => Some(slice),
        _ => None,
    });
    let of_servers = slice.into_iter().flat_map(|slice| &slice.endpoints).flat_map(|it| &it.addresses);
    let texts = of_nodes.map(|it| &it.address).chain(of_servers);
    // Names are among them, too.
    let found: Vec<IpNet> = texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(IpNet::from).collect();
    let mut merged = IpNet::aggregate(&found);
    merged.sort();
    merged
}

fn parse(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|range| range.trunc())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn ranges(given: &GivenRanges) -> Vec<String> {
        let node = |cidrs: Value| serde_json::from_value(json!({ "metadata": {}, "spec": cidrs })).unwrap();
        let nodes: Vec<Node> = vec![
            node(json!({ "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"] })),
            node(json!({ "podCIDRs": ["10.1.1.0/24", "what"] })),
            node(json!({})),
        ];
        let services = json!({ "cidrs": ["10.96.0.0/16", "fd00:2::/112"] });
        let found = cluster_ranges(given, nodes.iter(), std::iter::once(&services));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_nodes_and_api_servers_are_those_of_all_kinds_and_no_names() {
        let node = |addresses: Value| -> Node {
            serde_json::from_value(json!({ "metadata": {}, "status": { "addresses": addresses } })).unwrap()
        };
        let of = |kind: &str, address: &str| json!({ "type": kind, "address": address });
        let nodes = [
            node(json!([of("InternalIP", "192.0.2.10"), of("Hostname", "a"), of("ExternalIP", "198.51.100.1")])),
            node(json!([of("InternalIP", "192.0.2.11"), of("InternalIP", "fd00::b")])),
            Node::default(),
        ];
        let of = |servers| node_addresses(nodes.iter(), servers).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(None), ["192.0.2.10/31", "198.51.100.1/32", "fd00::b/128"]);
        let servers = json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["192.0.2.77"] }], "metadata": {} });
        let servers = Object::EndpointSlice(Arc::new(serde_json::from_value(servers).unwrap()));
        assert_eq!(of(Some(&servers)), ["192.0.2.10/31", "192.0.2.77/32", "198.51.100.1/32", "fd00::b/128"]);
    }

    #[test]
    fn from_the_cluster_unless_they_are_given() {
        assert_eq!(ranges(&GivenRanges::default()), ["10.1.0.0/23", "10.96.0.0/16", "fd00:1::/64", "fd00:2::/112"]);
        let pods = vec!["10.0.0.1/8".parse().unwrap()];
        let given = GivenRanges { pods, services: Vec::new() };
        assert_eq!(ranges(&given), ["10.0.0.0/8", "fd00:2::/112"]);
    }
}
