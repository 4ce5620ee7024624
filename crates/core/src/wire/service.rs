//! Services and their endpoints.

use weft_api::weft::config::v1 as proto;

use super::convert::{
    InvalidField, Wire, field, list, optional, present, required, wire_enum, wire_list, wire_optional,
};
use crate::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, EndpointSlice, HashKey, ProxyVersion, Service, ServiceKind,
    ServicePort, SlicePort, TrafficDistribution,
};

wire_enum!(AppProtocol, proto::AppProtocol:
    Http = Http, H2c = H2c, Grpc = Grpc, WebSocket = WebSocket, Tls = Tls, Tcp = Tcp, Udp = Udp,
    Unspecified = Undeclared,
);
wire_enum!(TrafficDistribution, proto::TrafficDistribution:
    Any = Any, PreferSameZone = PreferSameZone, PreferSameNode = PreferSameNode,
);
wire_enum!(ProxyVersion, proto::ProxyVersion: V1 = V1, V2 = V2);
wire_enum!(EndpointHealth, proto::EndpointHealth: Ready = Ready, Draining = Draining, NotReady = NotReady);

impl Wire for Service {
    type Message = proto::Service;

    fn to_wire(&self) -> proto::Service {
        proto::Service {
            key: Some(self.key.to_wire()),
            addresses: wire_list(&self.addresses),
            ports: wire_list(&self.ports),
            kind: Some(self.kind.to_wire()),
            client_ip_affinity: wire_optional(self.client_ip_affinity.as_ref()),
            distribution: self.distribution.to_wire(),
            node_local_only: self.node_local_only,
            balancing: Some(self.balancing.to_wire()),
            proxy_protocol: self.proxy_protocol.map_or(proto::ProxyVersion::Unspecified.into(), |it| it.to_wire()),
            traffic: wire_optional(self.traffic.as_deref()),
        }
    }

    fn from_wire(it: proto::Service) -> Result<Self, InvalidField> {
        Ok(Self {
            key: required(it.key, "key")?,
            addresses: list(it.addresses, "addresses")?,
            ports: list(it.ports, "ports")?,
            kind: required(it.kind, "kind")?,
            client_ip_affinity: optional(it.client_ip_affinity, "client_ip_affinity")?,
            distribution: field(it.distribution, "distribution")?,
            node_local_only: it.node_local_only,
            balancing: required(it.balancing, "balancing")?,
            proxy_protocol: (it.proxy_protocol != i32::from(proto::ProxyVersion::Unspecified))
                .then(|| field(it.proxy_protocol, "proxy_protocol"))
                .transpose()?,
            traffic: optional(it.traffic, "traffic")?.map(Box::new),
        })
    }
}

impl Wire for ServiceKind {
    type Message = proto::service::Kind;

    fn to_wire(&self) -> proto::service::Kind {
        match self {
            Self::ClusterIp => proto::service::Kind::ClusterIp(proto::Empty {}),
            Self::Headless => proto::service::Kind::Headless(proto::Empty {}),
            Self::ExternalName(name) => proto::service::Kind::ExternalName(name.clone()),
        }
    }

    fn from_wire(it: proto::service::Kind) -> Result<Self, InvalidField> {
        Ok(match it {
            proto::service::Kind::ClusterIp(_) => Self::ClusterIp,
            proto::service::Kind::Headless(_) => Self::Headless,
            proto::service::Kind::ExternalName(name) => Self::ExternalName(name),
        })
    }
}

impl Wire for ServicePort {
    type Message = proto::ServicePort;

    fn to_wire(&self) -> proto::ServicePort {
        proto::ServicePort { name: self.name.to_wire(), port: self.port.to_wire(), protocol: self.protocol.to_wire() }
    }

    fn from_wire(it: proto::ServicePort) -> Result<Self, InvalidField> {
        Ok(Self {
            name: field(it.name, "name")?,
            port: field(it.port, "port")?,
            protocol: field(it.protocol, "protocol")?,
        })
    }
}

impl Wire for Balancing {
    type Message = proto::Balancing;

    fn to_wire(&self) -> proto::Balancing {
        use proto::balancing::Method;
        let method = match self {
            Self::PeakEwma => Method::PeakEwma(proto::Empty {}),
            Self::RoundRobin => Method::RoundRobin(proto::Empty {}),
            Self::ConsistentHash(HashKey::ClientIp) => Method::HashClientIp(proto::Empty {}),
            Self::ConsistentHash(HashKey::Header(name)) => Method::HashHeader(name.clone()),
            Self::ConsistentHash(HashKey::Cookie(name)) => Method::HashCookie(name.clone()),
        };
        proto::Balancing { method: Some(method) }
    }

    fn from_wire(it: proto::Balancing) -> Result<Self, InvalidField> {
        use proto::balancing::Method;
        Ok(match present(it.method, "method")? {
            Method::PeakEwma(_) => Self::PeakEwma,
            Method::RoundRobin(_) => Self::RoundRobin,
            Method::HashClientIp(_) => Self::ConsistentHash(HashKey::ClientIp),
            Method::HashHeader(name) => Self::ConsistentHash(HashKey::Header(name)),
            Method::HashCookie(name) => Self::ConsistentHash(HashKey::Cookie(name)),
        })
    }
}

impl Wire for EndpointSlice {
    type Message = proto::EndpointSlice;

    fn to_wire(&self) -> proto::EndpointSlice {
        proto::EndpointSlice {
            key: Some(self.key.to_wire()),
            service: Some(self.service.to_wire()),
            ports: wire_list(&self.ports),
            endpoints: wire_list(&self.endpoints),
        }
    }

    fn from_wire(it: proto::EndpointSlice) -> Result<Self, InvalidField> {
        Ok(Self {
            key: required(it.key, "key")?,
            service: required(it.service, "service")?,
            ports: list(it.ports, "ports")?,
            endpoints: list(it.endpoints, "endpoints")?,
        })
    }
}

impl Wire for SlicePort {
    type Message = proto::SlicePort;

    fn to_wire(&self) -> proto::SlicePort {
        proto::SlicePort { name: self.name.to_wire(), port: self.port.to_wire() }
    }

    fn from_wire(it: proto::SlicePort) -> Result<Self, InvalidField> {
        Ok(Self { name: field(it.name, "name")?, port: field(it.port, "port")? })
    }
}

impl Wire for Endpoint {
    type Message = proto::Endpoint;

    fn to_wire(&self) -> proto::Endpoint {
        proto::Endpoint {
            address: self.address.to_wire(),
            workload: wire_optional(self.workload.as_ref()),
            health: self.health.to_wire(),
            node: wire_optional(self.node.as_ref()),
            zone: wire_optional(self.zone.as_ref()),
        }
    }

    fn from_wire(it: proto::Endpoint) -> Result<Self, InvalidField> {
        Ok(Self {
            address: field(it.address, "address")?,
            workload: optional(it.workload, "workload")?,
            health: field(it.health, "health")?,
            node: optional(it.node, "node")?,
            zone: optional(it.zone, "zone")?,
        })
    }
}
