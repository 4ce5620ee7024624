//! Service -> [`core::Service`](weft_core::service::Service).

use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_core::ids::{Port, SectionName, ServiceKey};
use weft_core::service::{
    AppProtocol, Balancing, ProxyVersion, Service, ServiceKind, ServicePort, TrafficDistribution,
};

use super::Problem;

/// `sessionAffinityConfig.clientIP.timeoutSeconds` if the Service does not say.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// Says which version of the PROXY protocol the endpoints of a Service take: `v1` or `v2`. Gateways send them its header.
pub const PROXY_PROTOCOL: &str = "weftmesh.io/proxy-protocol";

/// Translates a Service; a port that cannot be used is left out, with a problem.
pub fn service(object: &k8s::Service) -> (Service, Vec<Problem>) {
    let mut problems = Vec::new();
    let meta = &object.metadata;
    let key = ServiceKey::new(meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default());
    let default = k8s::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        let seconds = config.and_then(|c| c.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    });
    let service = Service {
        key,
        addresses: addresses(object, spec, &mut problems),
        ports: ports(spec, &mut problems),
        kind: kind(spec),
        client_ip_affinity: affinity,
        distribution: distribution(spec, &mut problems),
        node_local_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
        balancing: Balancing::default(),
        proxy_protocol: proxy_protocol(object, &mut problems),
        traffic: None,
    };
    (service, problems)
}

fn proxy_protocol(object: &k8s::Service, problems: &mut Vec<Problem>) -> Option<ProxyVersion> {
    match object.metadata.annotations.as_ref()?.get(PROXY_PROTOCOL)?.as_str() {
        "v1" => Some(ProxyVersion::V1),
        "v2" => Some(ProxyVersion::V2),
        other => {
            let field = format!("metadata.annotations[{PROXY_PROTOCOL}]");
            let message = format!("{other:?} is not a version of the PROXY protocol: none is sent");
            problems.push(Problem::value(field, message, "write v1 or v2"));
            None
        }
    }
}

fn kind(spec: &k8s::ServiceSpec) -> ServiceKind {
    match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => ServiceKind::ExternalName(spec.external_name.clone().unwrap_or_default()),
        (_, Some("None")) => ServiceKind::Headless,
        _ => ServiceKind::ClusterIp,
    }
}

/// ClusterIPs, then virtual load balancer addresses, which a node short-cuts to the same frontend.
///
/// `externalIPs` are left out on purpose: whoever may write a Service could claim any address with them
/// (CVE-2020-8554).
fn addresses(object: &k8s::Service, spec: &k8s::ServiceSpec, problems: &mut Vec<Problem>) -> Vec<std::net::IpAddr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut found: Vec<std::net::IpAddr> = Vec::new();
    let cluster = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter());
    for text in cluster.filter(|t| !t.is_empty() && *t != "None") {
        match text.parse() {
            Ok(ip) if found.contains(&ip) => {}
            Ok(ip) => found.push(ip),
            Err(_) => problems.push(Problem::value(
                "spec.clusterIPs",
                format!("{text:?} is not an IP address"),
                "write an IPv4 or IPv6 address, or leave the field out",
            )),
        }
    }
    let ingress = object.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    for entry in ingress.into_iter().flatten().filter(|e| e.ip_mode.as_deref() != Some("Proxy")) {
        if let Some(ip) = entry.ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip| !found.contains(ip)) {
            found.push(ip);
        }
    }
    found
}

fn ports(spec: &k8s::ServiceSpec, problems: &mut Vec<Problem>) -> Vec<ServicePort> {
    let mut found: Vec<ServicePort> = Vec::new();
    for (i, entry) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{i}]");
        let protocol = entry.protocol.as_deref().unwrap_or("TCP");
        if !matches!(protocol, "TCP" | "UDP") {
            let message = format!("protocol {protocol} is not handled: the port is left to the cluster");
            problems.push(Problem::new(format!("{field}.protocol"), super::Reason::Note, message, ""));
            continue;
        }
        let Some(port) = u16::try_from(entry.port).ok().and_then(Port::new) else {
            let message = format!("{} is not a port", entry.port);
            problems.push(Problem::value(format!("{field}.port"), message, "use 1 to 65535"));
            continue;
        };
        let name = entry.name.as_deref().unwrap_or_default();
        let protocol = app_protocol(protocol, entry.app_protocol.as_deref(), name);
        // One number may be open for TCP and UDP (DNS): the TCP one is what routes and the mesh know.
        match found.iter_mut().find(|p| p.port == port) {
            Some(known) if known.protocol == AppProtocol::Udp => {
                *known = ServicePort { name: SectionName::new(name), port, protocol };
            }
            Some(_) => {}
            None => found.push(ServicePort { name: SectionName::new(name), port, protocol }),
        }
    }
    found
}

/// Whether a port that is open for TCP is open for UDP, too, and leads to the same port of the endpoints (DNS).
///
/// The mesh knows the TCP one; what it knows of the endpoints is right for datagrams then.
pub fn is_open_for_both(service: &k8s::Service, port: Port) -> bool {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let of_number = ports.filter(|entry| entry.port == i32::from(port.get()));
    let target = |entry: &k8s::ServicePort| match &entry.target_port {
        Some(target) => target.clone(),
        None => IntOrString::Int(entry.port),
    };
    let targets = |protocol: &'static str| {
        let of_protocol = of_number.clone().filter(move |it| it.protocol.as_deref().unwrap_or("TCP") == protocol);
        of_protocol.map(target)
    };
    targets("TCP").any(|tcp| targets("UDP").any(|udp| udp == tcp))
}

/// What a port speaks: `protocol`, then `appProtocol`, then the name up to its first dash.
pub fn app_protocol(protocol: &str, app_protocol: Option<&str>, name: &str) -> AppProtocol {
    if protocol == "UDP" {
        return AppProtocol::Udp;
    }
    let from_name = || match name {
        "grpc-web" => "http",
        _ if name.starts_with("grpc-web-") => "http",
        _ => name.split('-').next().unwrap_or_default(),
    };
    let text = app_protocol.unwrap_or_else(from_name).to_ascii_lowercase();
    match text.as_str() {
        "http" | "grpc-web" => AppProtocol::Http,
        "http2" | "h2c" | "kubernetes.io/h2c" => AppProtocol::H2c,
        "grpc" => AppProtocol::Grpc,
        "ws" | "kubernetes.io/ws" => AppProtocol::WebSocket,
        "https" | "tls" | "wss" | "kubernetes.io/wss" => AppProtocol::Tls,
        "tcp" | "mongo" | "mongodb" | "mysql" | "postgres" | "postgresql" | "redis" | "amqp" | "kafka" => {
            AppProtocol::Tcp
        }
        _ => AppProtocol::Unspecified,
    }
}

fn distribution(spec: &k8s::ServiceSpec, problems: &mut Vec<Problem>) -> TrafficDistribution {
    match spec.traffic_distribution.as_deref() {
        None => TrafficDistribution::Any,
        Some("PreferClose" | "PreferSameZone") => TrafficDistribution::PreferSameZone,
        Some("PreferSameNode") => TrafficDistribution::PreferSameNode,
        Some(other) => {
            let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
            let message = format!("{other:?} is unknown: endpoints are picked as if it were not there");
            problems.push(Problem::value("spec.trafficDistribution", message, super::suggestion(other, &known)));
            TrafficDistribution::Any
        }
    }
}
