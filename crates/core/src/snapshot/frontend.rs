//! Frontends: a Service port with its endpoints and the routes attached to it, compiled once per change.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::ids::{Namespace, NodeName, RouteKind, ServicePortKey, WorkloadUid, Zone};
use crate::matching::{HttpTable, L4Table};
use crate::route::{Parent, RouteRule};
use crate::service::{AppProtocol, EndpointHealth, EndpointSlice, Service, ServicePort};

/// A Service port as the data plane uses it.
#[derive(Debug)]
pub struct Frontend {
    /// Its key.
    pub key: ServicePortKey,
    /// The Service.
    pub service: Arc<Service>,
    /// What is spoken on the port.
    pub protocol: AppProtocol,
    /// Its endpoints.
    pub endpoints: Arc<EndpointList>,
    routes: FrontendRoutes,
}

impl Frontend {
    /// The routes that apply to a client: if its namespace has consumer routes only those, else the producer's
    /// (GEP-1426).
    pub fn routes_for(&self, client: &Namespace) -> &RouteSet {
        self.routes.consumers.get(client).unwrap_or(&self.routes.producer)
    }
}

/// Endpoints of a frontend. The `Arc` around it changes only with its content, so balancers key their state
/// on it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EndpointList {
    /// The endpoints, in the order of their slices.
    pub entries: Vec<EndpointEntry>,
}

/// One endpoint of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointEntry {
    /// Address and target port.
    pub address: SocketAddr,
    /// The workload behind it, if its slice names one.
    pub workload: Option<WorkloadUid>,
    /// Whether it may be picked.
    pub health: EndpointHealth,
    /// Its node.
    pub node: Option<NodeName>,
    /// Its zone.
    pub zone: Option<Zone>,
}

/// The routes of a frontend for one kind of client; one kind of route per port (GRPCRoute, HTTPRoute, TLSRoute,
/// TCPRoute, in this order).
#[derive(Clone, Debug, Default)]
pub enum RouteSet {
    /// No route: the Service's own endpoints.
    #[default]
    None,
    /// HTTPRoutes or GRPCRoutes.
    Http(Arc<HttpTable>),
    /// TLSRoutes.
    Tls(Arc<L4Table>),
    /// TCPRoutes.
    Tcp(Arc<L4Table>),
    /// UDPRoutes; a Service has none of these.
    Udp(Arc<L4Table>),
}

#[derive(Debug, Default)]
struct FrontendRoutes {
    producer: RouteSet,
    consumers: BTreeMap<Namespace, RouteSet>,
}

/// What a frontend is made of.
pub(super) struct Parts<'a> {
    pub(super) service: &'a Arc<Service>,
    pub(super) port: &'a ServicePort,
    pub(super) slices: &'a [Arc<EndpointSlice>],
    pub(super) rules: &'a [Arc<RouteRule>],
    pub(super) before: Option<&'a Arc<Frontend>>,
}

impl Parts<'_> {
    /// Compiles the frontend, keeping the endpoint list of the one before if it says the same.
    pub(super) fn build(self) -> Frontend {
        let key = ServicePortKey { service: self.service.key.clone(), port: self.port.port };
        let endpoints = endpoint_list(self.port, self.slices);
        let endpoints = match self.before {
            Some(before) if *before.endpoints == endpoints => Arc::clone(&before.endpoints),
            _ => Arc::new(endpoints),
        };
        let routes = frontend_routes(&key, self.rules);
        Frontend { key, service: Arc::clone(self.service), protocol: self.port.protocol, endpoints, routes }
    }
}

fn endpoint_list(port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> EndpointList {
    let mut entries = Vec::new();
    for slice in slices {
        let Some(target) = slice.ports.iter().find(|p| p.name == port.name) else { continue };
        entries.extend(slice.endpoints.iter().map(|endpoint| EndpointEntry {
            address: SocketAddr::new(endpoint.address, target.port.get()),
            workload: endpoint.workload.clone(),
            health: endpoint.health,
            node: endpoint.node.clone(),
            zone: endpoint.zone.clone(),
        }));
    }
    // Most Services have one slice and few endpoints, and there are thousands.
    entries.shrink_to_fit();
    EndpointList { entries }
}

fn frontend_routes(key: &ServicePortKey, rules: &[Arc<RouteRule>]) -> FrontendRoutes {
    let mut producer = Vec::new();
    let mut consumers: BTreeMap<Namespace, Vec<Arc<RouteRule>>> = BTreeMap::new();
    for rule in rules {
        for parent in rule.parents() {
            match parent {
                Parent::Service { port, consumer: None } if port == key => producer.push(Arc::clone(rule)),
                Parent::Service { port, consumer: Some(ns) } if port == key => {
                    consumers.entry(ns.clone()).or_default().push(Arc::clone(rule));
                }
                Parent::Service { .. } | Parent::Listener(_) => {}
            }
        }
    }
    FrontendRoutes {
        producer: route_set(producer),
        consumers: consumers.into_iter().map(|(ns, rules)| (ns, route_set(rules))).collect(),
    }
}

/// Keeps the rules of the first kind that has any and compiles them.
fn route_set(mut rules: Vec<Arc<RouteRule>>) -> RouteSet {
    let Some(kind) = rules.iter().map(|rule| rule.key().route.kind).min() else { return RouteSet::None };
    rules.retain(|rule| rule.key().route.kind == kind);
    rules.dedup_by(|a, b| Arc::ptr_eq(a, b));
    match kind {
        RouteKind::Grpc | RouteKind::Http => RouteSet::Http(Arc::new(HttpTable::without_hostnames(&rules))),
        RouteKind::Tls => RouteSet::Tls(Arc::new(L4Table::new(&rules))),
        RouteKind::Tcp => RouteSet::Tcp(Arc::new(L4Table::new(&rules))),
        // A UDP rule never stands for a TCP connection.
        RouteKind::Udp => RouteSet::None,
    }
}
