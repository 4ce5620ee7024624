//! Services (the frontends that clients dial) and their endpoints.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{Name, Namespace, NodeName, Port, SectionName, ServiceKey, WorkloadUid, Zone};
use crate::traffic::BackendTraffic;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its key.
    pub key: ServiceKey,
    /// ClusterIPs (and external addresses that mean the same frontend); empty when headless.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// What kind of frontend it is.
    pub kind: ServiceKind,
    /// `sessionAffinity: ClientIP` and its timeout.
    pub client_ip_affinity: Option<Duration>,
    /// `trafficDistribution`.
    pub distribution: TrafficDistribution,
    /// `internalTrafficPolicy: Local`: only endpoints on the client's node.
    pub node_local_only: bool,
    /// How an endpoint is picked.
    pub balancing: Balancing,
    /// Gateways tell its endpoints of clients by a header of the PROXY protocol, before everything else.
    pub proxy_protocol: Option<ProxyVersion>,
    /// What a policy asks for of the traffic to it.
    #[serde(skip)]
    pub traffic: Option<Box<BackendTraffic>>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Bytes, with a signature and a length.
    V2,
}

/// The kind of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// With at least one ClusterIP.
    ClusterIp,
    /// `clusterIP: None`: clients dial endpoints themselves.
    Headless,
    /// A DNS alias; clients dial what the name resolves to.
    ExternalName(String),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its name; empty if the only one and unnamed.
    pub name: SectionName,
    /// The port that clients dial.
    pub port: Port,
    /// What is spoken on it.
    pub protocol: AppProtocol,
}

/// What is spoken on a port: from `protocol`, `appProtocol`, or the name's prefix (`http`, `grpc-web`...).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppProtocol {
    /// HTTP; the client's version (1.1 or 2 with prior knowledge) is kept towards the endpoint.
    Http,
    /// HTTP/2 with prior knowledge towards the endpoint (`kubernetes.io/h2c`, `http2`).
    H2c,
    /// gRPC, which is HTTP/2 towards the endpoint.
    Grpc,
    /// HTTP/1.1 with WebSocket upgrades (`kubernetes.io/ws`).
    WebSocket,
    /// TLS from the application itself (`https`, `tls`, `kubernetes.io/wss`): bytes to us.
    Tls,
    /// TCP named as such: bytes, never looked at.
    Tcp,
    /// Nothing said: TCP unless an HTTPRoute or GRPCRoute attaches.
    Unspecified,
    /// UDP: not touched in the mesh.
    Udp,
}

impl AppProtocol {
    /// Whether the port carries HTTP in the clear by its own declaration.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::H2c | Self::Grpc | Self::WebSocket)
    }

    /// Whether a route without a port may attach to it (GEP-1426: ports that say TLS, TCP or UDP are skipped
    /// by HTTPRoute and GRPCRoute).
    pub const fn admits_http_route(self) -> bool {
        self.is_http() || matches!(self, Self::Unspecified)
    }
}

/// `spec.trafficDistribution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrafficDistribution {
    /// Any endpoint.
    #[default]
    Any,
    /// `PreferSameZone` and `PreferClose`.
    PreferSameZone,
    /// `PreferSameNode`
    PreferSameNode,
}

/// How one of the healthy endpoints is picked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Balancing {
    /// Peak-EWMA latency, power of two choices.
    #[default]
    PeakEwma,
    /// In turn.
    RoundRobin,
    /// Consistent hash of a request attribute.
    ConsistentHash(HashKey),
}

/// What a consistent hash is taken of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HashKey {
    /// The client's address.
    ClientIp,
    /// A request header, lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
}

/// The name of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SliceKey {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
}

/// A part of a Service's endpoints, as Kubernetes cuts them (at most 100 or so): one edit is one small message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Its key.
    pub key: SliceKey,
    /// The Service it belongs to.
    pub service: ServiceKey,
    /// Endpoint ports by the Service port's name.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of every endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: SectionName,
    /// The port on the endpoint.
    pub port: Port,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The workload behind it, if the slice names one.
    pub workload: Option<WorkloadUid>,
    /// Whether new connections may go there.
    pub health: EndpointHealth,
    /// Its node.
    pub node: Option<NodeName>,
    /// Its zone.
    pub zone: Option<Zone>,
}

/// EndpointSlice conditions, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndpointHealth {
    /// `ready`
    Ready,
    /// `serving` and `terminating`: used only if no endpoint is ready.
    Draining,
    /// Neither: never picked.
    NotReady,
}
