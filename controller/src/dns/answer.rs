//! What a cluster name means: a pure function of the snapshot (Kubernetes DNS specification 1.1).

use std::net::IpAddr;

use weft_core::ids::{Port, ServiceKey, ServicePortKey};
use weft_core::service::{AppProtocol, EndpointHealth, Service, ServiceKind};
use weft_core::snapshot::{EndpointEntry, Snapshot};

/// What is asked for; other types of a name that exists have no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A
    Ipv4,
    /// AAAA
    Ipv6,
    /// SRV
    Service,
    /// Any other type.
    Other,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not a name of the cluster: somebody else knows.
    NotOurs,
    /// A name of the cluster that doesn't exist (NXDOMAIN).
    NoSuchName,
    /// Addresses of the wanted family; empty is NODATA.
    Addresses(Vec<IpAddr>),
    /// An ExternalName.
    Alias(String),
    /// Ports and the names that have them.
    Services(Vec<Target>),
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host's name, absolute, without the last dot.
    pub host: String,
    /// Its port.
    pub port: Port,
}

/// Answers a question for a name without its last dot.
pub fn answer(snapshot: &Snapshot, name: &str, wanted: Wanted) -> Answer {
    let name = name.to_ascii_lowercase();
    let domain = &snapshot.mesh().cluster_domain;
    let Some(inside) = strip_domain(&name, domain) else { return Answer::NotOurs };
    let labels: Vec<&str> = inside.split('.').filter(|label| !label.is_empty()).collect();
    match labels.as_slice() {
        [service, namespace, "svc"] => of_service(snapshot, &ServiceKey::new(*namespace, *service), wanted),
        [host, service, namespace, "svc"] => of_host(snapshot, &ServiceKey::new(*namespace, *service), host, wanted),
        [port, protocol, service, namespace, "svc"] => {
            of_port(snapshot, &ServiceKey::new(*namespace, *service), (port, protocol), wanted)
        }
        // Names that only stand between others exist, without data.
        [] | ["svc"] => Answer::Addresses(Vec::new()),
        [namespace, "svc"] if snapshot.services().any(|s| s.key.namespace.as_str() == *namespace) => {
            Answer::Addresses(Vec::new())
        }
        _ => Answer::NoSuchName,
    }
}

fn strip_domain<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let inside = name.strip_suffix(domain)?;
    inside.strip_suffix('.').or_else(|| inside.is_empty().then_some(""))
}

fn of_service(snapshot: &Snapshot, key: &ServiceKey, wanted: Wanted) -> Answer {
    let Some(service) = snapshot.service(key) else { return Answer::NoSuchName };
    match &service.kind {
        ServiceKind::ExternalName(target) => Answer::Alias(target.trim_end_matches('.').to_owned()),
        ServiceKind::ClusterIp => family(service.addresses.iter().copied(), wanted),
        ServiceKind::Headless => {
            let endpoints = endpoints(snapshot, service);
            // A headless Service without endpoints doesn't resolve.
            if endpoints.is_empty() {
                return Answer::NoSuchName;
            }
            family(endpoints.iter().map(|e| e.address.ip()), wanted)
        }
    }
}

/// `<pod>.<service>.<namespace>.svc`: one endpoint of a headless Service.
fn of_host(snapshot: &Snapshot, key: &ServiceKey, host: &str, wanted: Wanted) -> Answer {
    let headless = snapshot.service(key).filter(|service| service.kind == ServiceKind::Headless);
    let Some(service) = headless else { return Answer::NoSuchName };
    let endpoints = endpoints(snapshot, service);
    let matching: Vec<_> = endpoints.iter().filter(|e| host_name(snapshot, e) == host).collect();
    if matching.is_empty() {
        return Answer::NoSuchName;
    }
    family(matching.iter().map(|e| e.address.ip()), wanted)
}

/// `_<port>._<protocol>.<service>.<namespace>.svc`
fn of_port(snapshot: &Snapshot, key: &ServiceKey, labels: (&str, &str), wanted: Wanted) -> Answer {
    let Some(service) = snapshot.service(key) else { return Answer::NoSuchName };
    let (Some(name), Some(protocol)) = (labels.0.strip_prefix('_'), labels.1.strip_prefix('_')) else {
        return Answer::NoSuchName;
    };
    let transport = |p: AppProtocol| if p == AppProtocol::Udp { "udp" } else { "tcp" };
    let named = |p: &&weft_core::service::ServicePort| p.name.as_str() == name && transport(p.protocol) == protocol;
    let Some(port) = service.ports.iter().find(named) else { return Answer::NoSuchName };
    if wanted != Wanted::Service {
        return Answer::Addresses(Vec::new());
    }
    let domain = &snapshot.mesh().cluster_domain;
    let suffix = format!("{}.{}.svc.{domain}", key.name, key.namespace);
    if service.kind != ServiceKind::Headless {
        return Answer::Services(vec![Target { host: suffix, port: port.port }]);
    }
    let frontend = ServicePortKey { service: key.clone(), port: port.port };
    let entries = snapshot.frontend(&frontend).map(|f| f.endpoints.entries.as_slice()).unwrap_or_default();
    let target = |e: &EndpointEntry| {
        let host = format!("{}.{suffix}", host_name(snapshot, e));
        Port::new(e.address.port()).map(|port| Target { host, port })
    };
    Answer::Services(entries.iter().filter(|e| e.health == EndpointHealth::Ready).filter_map(target).collect())
}

/// The ready endpoints of a Service, one for each address.
fn endpoints(snapshot: &Snapshot, service: &Service) -> Vec<EndpointEntry> {
    let mut found: Vec<EndpointEntry> = Vec::new();
    for port in &service.ports {
        let key = ServicePortKey { service: service.key.clone(), port: port.port };
        let entries = snapshot.frontend(&key).map(|f| f.endpoints.entries.as_slice()).unwrap_or_default();
        for entry in entries.iter().filter(|e| e.health == EndpointHealth::Ready) {
            if !found.iter().any(|seen| seen.address.ip() == entry.address.ip()) {
                found.push(entry.clone());
            }
        }
    }
    found
}

/// The pod's name; for an address without a pod the address with dashes, as CoreDNS writes it.
fn host_name(snapshot: &Snapshot, endpoint: &EndpointEntry) -> String {
    let workload = endpoint.workload.as_ref().and_then(|uid| snapshot.workload(uid));
    match workload {
        Some(workload) => workload.name.to_string(),
        None => endpoint.address.ip().to_string().replace(['.', ':'], "-"),
    }
}

fn family(addresses: impl Iterator<Item = IpAddr>, wanted: Wanted) -> Answer {
    let fits = |ip: &IpAddr| match wanted {
        Wanted::Ipv4 => ip.is_ipv4(),
        Wanted::Ipv6 => ip.is_ipv6(),
        Wanted::Service | Wanted::Other => false,
    };
    Answer::Addresses(addresses.filter(fits).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use weft_core::change::{Change, Resource};
    use weft_core::ids::SectionName;
    use weft_core::service::{
        Balancing, Endpoint, EndpointSlice, ServicePort, SliceKey, SlicePort, TrafficDistribution,
    };

    fn service(name: &str, kind: ServiceKind, addresses: &[&str]) -> Change {
        Change::Upsert(Resource::Service(Arc::new(Service {
            key: ServiceKey::new("shop", name),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ports: vec![ServicePort {
                name: SectionName::new("http"),
                port: Port::new(80).unwrap(),
                protocol: AppProtocol::Http,
            }],
            kind,
            client_ip_affinity: None,
            distribution: TrafficDistribution::Any,
            node_local_only: false,
            proxy_protocol: None,
            balancing: Balancing::PeakEwma,
            traffic: None,
        })))
    }

    fn world() -> Snapshot {
        let endpoint = |address: &str, health| Endpoint {
            address: address.parse().unwrap(),
            workload: None,
            health,
            node: None,
            zone: None,
        };
        let slice = EndpointSlice {
            key: SliceKey { namespace: "shop".into(), name: "db-1".into() },
            service: ServiceKey::new("shop", "db"),
            ports: vec![SlicePort { name: "http".into(), port: Port::new(8080).unwrap() }],
            endpoints: vec![
                endpoint("10.0.0.1", EndpointHealth::Ready),
                endpoint("10.0.0.2", EndpointHealth::NotReady),
            ],
        };
        Snapshot::default().apply(&[
            service("cart", ServiceKind::ClusterIp, &["10.96.0.1", "fd00::1"]),
            service("db", ServiceKind::Headless, &[]),
            service("empty", ServiceKind::Headless, &[]),
            service("bank", ServiceKind::ExternalName("bank.example.com.".into()), &[]),
            Change::Upsert(Resource::EndpointSlice(Arc::new(slice))),
        ])
    }

    fn addresses(list: &[&str]) -> Answer {
        Answer::Addresses(list.iter().map(|a| a.parse().unwrap()).collect())
    }

    #[test]
    fn names_mean_what_the_kubernetes_dns_specification_says() {
        let world = world();
        let cases = [
            ("cart.shop.svc.cluster.local", Wanted::Ipv4, addresses(&["10.96.0.1"])),
            ("CART.shop.svc.Cluster.Local", Wanted::Ipv6, addresses(&["fd00::1"])),
            ("cart.shop.svc.cluster.local", Wanted::Other, addresses(&[])),
            ("db.shop.svc.cluster.local", Wanted::Ipv4, addresses(&["10.0.0.1"])),
            ("db.shop.svc.cluster.local", Wanted::Ipv6, addresses(&[])),
            ("10-0-0-1.db.shop.svc.cluster.local", Wanted::Ipv4, addresses(&["10.0.0.1"])),
            ("10-0-0-2.db.shop.svc.cluster.local", Wanted::Ipv4, Answer::NoSuchName),
            ("empty.shop.svc.cluster.local", Wanted::Ipv4, Answer::NoSuchName),
            ("bank.shop.svc.cluster.local", Wanted::Ipv4, Answer::Alias("bank.example.com".into())),
            ("nobody.shop.svc.cluster.local", Wanted::Ipv4, Answer::NoSuchName),
            ("a.cart.shop.svc.cluster.local", Wanted::Ipv4, Answer::NoSuchName),
            ("shop.svc.cluster.local", Wanted::Ipv4, addresses(&[])),
            ("svc.cluster.local", Wanted::Ipv4, addresses(&[])),
            ("cluster.local", Wanted::Ipv4, addresses(&[])),
            ("example.com", Wanted::Ipv4, Answer::NotOurs),
            ("notcluster.local", Wanted::Ipv4, Answer::NotOurs),
            ("cart", Wanted::Ipv4, Answer::NotOurs),
        ];
        for (name, wanted, expected) in cases {
            assert_eq!(answer(&world, name, wanted), expected, "{name} {wanted:?}");
        }
    }

    #[test]
    fn srv_names_the_port_and_its_hosts() {
        let world = world();
        let target = |host: &str, port| Target { host: host.into(), port: Port::new(port).unwrap() };
        assert_eq!(
            answer(&world, "_http._tcp.cart.shop.svc.cluster.local", Wanted::Service),
            Answer::Services(vec![target("cart.shop.svc.cluster.local", 80)])
        );
        assert_eq!(
            answer(&world, "_http._tcp.db.shop.svc.cluster.local", Wanted::Service),
            Answer::Services(vec![target("10-0-0-1.db.shop.svc.cluster.local", 8080)])
        );
        for absent in ["_http._udp.cart.shop.svc.cluster.local", "_grpc._tcp.cart.shop.svc.cluster.local"] {
            assert_eq!(answer(&world, absent, Wanted::Service), Answer::NoSuchName, "{absent}");
        }
    }
}
