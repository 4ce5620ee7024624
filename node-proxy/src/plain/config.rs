//! The file of a plain proxy.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use weft_core::change::{Change, Resource};
use weft_core::ids::{Name, Port, RouteKey, RouteKind, RuleKey, ServiceKey, ServicePortKey};
use weft_core::route::{
    BackendTarget, Created, HeaderModifier, HttpAction, HttpBackend, HttpFilter, HttpMatch, HttpRule, Parent,
    PathMatch, RouteRule, Timeouts,
};
use weft_core::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, EndpointSlice, Service, ServiceKind, ServicePort, SliceKey,
    SlicePort, TrafficDistribution,
};

use super::Front;
use crate::telemetry::LogPolicy;

/// All of it. Every Service listens on an address of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainConfig {
    /// Worker threads; 1 by default.
    #[serde(default = "one")]
    pub workers: usize,
    /// Which requests are logged.
    #[serde(default)]
    pub access_log: AccessLogSetting,
    /// Whether requests are counted; they are unless a benchmark wants to know what that costs.
    #[serde(default = "yes")]
    pub metrics: bool,
    /// Services by name.
    pub services: BTreeMap<String, PlainService>,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessLogSetting {
    /// None.
    Off,
    /// Those that failed.
    #[default]
    Errors,
    /// All.
    All,
}

/// One Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainService {
    /// Where clients connect; a Service without it is only a backend.
    pub listen: Option<SocketAddr>,
    /// `http`, `h2c` or `grpc`.
    #[serde(default)]
    pub protocol: PlainProtocol,
    /// Its endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// Its routes; none: everything goes to the endpoints.
    #[serde(default)]
    pub routes: Vec<PlainRoute>,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlainProtocol {
    /// HTTP; the client's version is kept.
    #[default]
    Http,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// gRPC.
    Grpc,
}

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainRoute {
    /// The path prefix.
    pub prefix: String,
    /// Services by weight.
    pub backends: BTreeMap<String, u32>,
    /// Headers set on requests.
    #[serde(default)]
    pub set_request_headers: BTreeMap<String, String>,
}

/// What is wrong with a plain configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlain {
    /// A header that is none.
    #[error("service {0}: {1:?} is not a header")]
    Header(String, String),
    /// An endpoint without a port.
    #[error("service {0}: an endpoint or listener has port 0")]
    Port(String),
}

const fn one() -> usize {
    1
}

const fn yes() -> bool {
    true
}

/// The port of every Service here; listeners stand for ClusterIPs.
const PORT: u16 = 80;

impl AccessLogSetting {
    pub(super) fn policy(self) -> LogPolicy {
        match self {
            Self::Off => LogPolicy::Off,
            Self::Errors => LogPolicy::Errors,
            Self::All => LogPolicy::All,
        }
    }
}

fn key(name: &str) -> Option<ServicePortKey> {
    Some(ServicePortKey { service: ServiceKey::new("plain", name), port: Port::new(PORT)? })
}

impl PlainConfig {
    /// The same as resources.
    ///
    /// # Errors
    /// [`InvalidPlain`].
    pub fn changes(&self) -> Result<Vec<Change>, InvalidPlain> {
        let mut resources = Vec::new();
        for (name, service) in &self.services {
            let key = key(name).ok_or_else(|| InvalidPlain::Port(name.clone()))?;
            resources.push(Resource::Service(Arc::new(service.service(&key))));
            for (endpoint, index) in service.endpoints.iter().zip(0_u32..) {
                let port = Port::new(endpoint.port()).ok_or_else(|| InvalidPlain::Port(name.clone()))?;
                resources.push(Resource::EndpointSlice(Arc::new(slice(&key, endpoint, port, index))));
            }
            for (route, index) in service.routes.iter().zip(0_u16..) {
                resources.push(Resource::Rule(Arc::new(route.rule(name, &key, index)?)));
            }
        }
        Ok(resources.into_iter().map(Change::Upsert).collect())
    }

    /// A set of listeners for one worker; workers share the ports.
    pub(super) fn bind(&self) -> io::Result<Vec<Front>> {
        let mut fronts = Vec::new();
        for (name, service) in &self.services {
            let Some((address, key)) = service.listen.zip(key(name)) else { continue };
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(4096)?;
            fronts.push((socket.into(), key));
        }
        Ok(fronts)
    }
}

impl PlainService {
    fn service(&self, key: &ServicePortKey) -> Service {
        let protocol = match self.protocol {
            PlainProtocol::Http => AppProtocol::Http,
            PlainProtocol::H2c => AppProtocol::H2c,
            PlainProtocol::Grpc => AppProtocol::Grpc,
        };
        Service {
            key: key.service.clone(),
            addresses: Vec::new(),
            ports: vec![ServicePort { name: "main".into(), port: key.port, protocol }],
            kind: ServiceKind::ClusterIp,
            client_ip_affinity: None,
            distribution: TrafficDistribution::Any,
            node_local_only: false,
            proxy_protocol: None,
            balancing: Balancing::PeakEwma,
            traffic: None,
        }
    }
}

fn slice(key: &ServicePortKey, endpoint: &SocketAddr, port: Port, index: u32) -> EndpointSlice {
    let name = Name::from(format!("{}-{index}", key.service.name));
    let (health, address) = (EndpointHealth::Ready, endpoint.ip());
    EndpointSlice {
        key: SliceKey { namespace: "plain".into(), name },
        service: key.service.clone(),
        ports: vec![SlicePort { name: "main".into(), port }],
        endpoints: vec![Endpoint { address, workload: None, health, node: None, zone: None }],
    }
}

impl PlainRoute {
    fn rule(&self, name: &str, parent: &ServicePortKey, index: u16) -> Result<RouteRule, InvalidPlain> {
        let backend = |(service, weight): (&String, &u32)| {
            let target = BackendTarget::Service(key(service)?);
            Some(HttpBackend { target, weight: *weight, filters: Vec::new() })
        };
        let header = |(header, value): (&String, &String)| match (header.parse(), value.parse()) {
            (Ok(header), Ok(value)) => Ok((header, value)),
            _ => Err(InvalidPlain::Header(name.to_owned(), header.clone())),
        };
        let set: Vec<_> = self.set_request_headers.iter().map(header).collect::<Result<_, _>>()?;
        let modifier = HeaderModifier { set, ..HeaderModifier::default() };
        let filters = if modifier.set.is_empty() { vec![] } else { vec![HttpFilter::RequestHeaders(modifier)] };
        let route = RouteKey { kind: RouteKind::Http, namespace: "plain".into(), name: name.into() };
        let path = PathMatch::Prefix(self.prefix.clone());
        Ok(RouteRule::Http(HttpRule {
            key: RuleKey { route, index },
            name: None,
            created: Created::default(),
            parents: vec![Parent::Service { port: parent.clone(), consumer: None }],
            hostnames: Vec::new(),
            matches: vec![HttpMatch { path, method: None, headers: Vec::new(), query: Vec::new() }],
            filters,
            action: HttpAction::Forward(self.backends.iter().filter_map(backend).collect()),
            timeouts: Timeouts::default(),
            retry: None,
            sessions: Default::default(),
        }))
    }
}
