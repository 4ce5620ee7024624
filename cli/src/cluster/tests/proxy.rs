use serde_json::json;

use super::*;
use crate::cluster::tests::healthy;

const PAGE: &str = r#"
weft_certificate_expiry_timestamp_seconds{identity="spiffe://cluster.local/ns/shop/sa/cart"} 1795327200
weft_certificate_expiry_timestamp_seconds{identity="spiffe://cluster.local/ns/shop/sa/web"} 0
weft_certificate_renewal_failures{identity="spiffe://cluster.local/ns/shop/sa/web"} 4
weft_node_connections 3
weft_node_connections_limit 16384
weft_tunnels{namespace="shop",workload="web"} 2
weft_tunnels{namespace="shop",workload="cart"} 1
weft_tcp_connections{reporter="source",source_namespace="shop",source_workload="web",destination_namespace="shop",destination_workload="cart",destination_service_namespace="shop",destination_service="cart",destination_port="80",connection_security="mutual_tls"} 2
weft_tcp_connections{reporter="destination",source_namespace="unknown",source_workload="unknown",destination_namespace="shop",destination_workload="web",destination_service_namespace="",destination_service="",destination_port="",connection_security="plaintext"} 1
weft_tcp_connections{reporter="destination",source_namespace="a",source_workload="a",destination_namespace="shop",destination_workload="web",connection_security="plaintext"} 0
"#;

#[test]
fn certificates_and_connections_of_a_node() {
    let metrics = Metrics::parse(PAGE);
    insta::assert_snapshot!(Certs::of(&metrics).to_string());
    insta::assert_json_snapshot!(Certs::of(&metrics));
    insta::assert_snapshot!(Connections::of(&metrics).to_string());
    insta::assert_json_snapshot!(Connections::of(&metrics));
}

#[test]
fn a_configuration_in_short() {
    let dump = json!({
        "workloads": [{}, {}], "authorizationPolicies": [{}], "meshPolicies": [],
        "services": [{ "service": "shop/cart", "addresses": ["10.96.0.1"], "ports": [
            { "port": 80, "protocol": "Http", "endpoints": [{ "health": "Ready" }, { "health": "Draining" }] },
            { "port": 81, "protocol": "Tcp", "endpoints": [] }] }],
        "rules": [{ "rule": "HTTPRoute/shop/canary#0", "parents": ["Service/shop/cart:80"], "invalid": null },
            { "rule": "HTTPRoute/shop/bad#0", "parents": [], "invalid": "no such backend" }],
    });
    insta::assert_snapshot!(Config(&dump).to_string());
}

#[test]
fn the_proxy_of_a_node_is_the_newest_that_is_ready() {
    let mut own = healthy().pods.unwrap();
    assert_eq!(proxy_of(&own, "n2"), Ok("weft-node-proxy-2"));
    let mut second = own.iter().find(|p| p.metadata.name.as_deref() == Some("weft-node-proxy-2")).unwrap().clone();
    second.metadata.name = Some("weft-node-proxy-9".into());
    second.metadata.creation_timestamp = serde_json::from_value(json!("2026-11-21T10:00:00Z")).unwrap();
    own.push(second.clone());
    assert_eq!(proxy_of(&own, "n2"), Ok("weft-node-proxy-9"));
    // It starts beside the one that still serves.
    own.last_mut().unwrap().status = None;
    assert_eq!(proxy_of(&own, "n2"), Ok("weft-node-proxy-2"));
    assert!(proxy_of(&own, "n7").unwrap_err().contains("no proxy on node n7"));
    assert!(proxy_of(&own, "").unwrap_err().contains("has no node yet"));
}
