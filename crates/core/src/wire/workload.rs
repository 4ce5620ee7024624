//! Workloads and mesh-wide settings.

use weft_api::weft::config::v1 as proto;

use super::common::common;
use super::convert::{
    InvalidField, Wire, field, list, optional, present, required, wire_enum, wire_list, wire_optional,
};
use crate::change::MeshConfig;
use crate::identity::{SpiffeId, TrustDomain, TrustDomains};
use crate::workload::{Enrolment, Owner, Probe, ProbeCall, Workload};

wire_enum!(Enrolment, proto::Enrolment: Enrolled = Enrolled, Outside = Outside, HostNetwork = HostNetwork);

impl Wire for SpiffeId {
    type Message = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        let read: Self = text.parse().map_err(InvalidField::invalid)?;
        Ok(read.sharing(common))
    }
}

impl Wire for TrustDomain {
    type Message = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(text: String) -> Result<Self, InvalidField> {
        text.parse().map_err(InvalidField::invalid)
    }
}

impl Wire for Workload {
    type Message = proto::Workload;

    fn to_wire(&self) -> proto::Workload {
        proto::Workload {
            uid: self.uid.to_wire(),
            namespace: self.namespace.to_wire(),
            name: self.name.to_wire(),
            identity: self.identity.to_wire(),
            addresses: wire_list(&self.addresses),
            node: self.node.to_wire(),
            zone: wire_optional(self.zone.as_ref()),
            enrolment: self.enrolment.to_wire(),
            owner: Some(self.owner.to_wire()),
            policies: wire_list(&self.policies),
            probes: wire_list(&self.probes),
            network_policy: self.network_policy,
            telemetry: wire_list(&self.telemetry),
        }
    }

    fn from_wire(it: proto::Workload) -> Result<Self, InvalidField> {
        Ok(Self {
            uid: field(it.uid, "uid")?,
            namespace: field(it.namespace, "namespace")?,
            name: field(it.name, "name")?,
            identity: field(it.identity, "identity")?,
            addresses: list(it.addresses, "addresses")?,
            node: field(it.node, "node")?,
            zone: optional(it.zone, "zone")?,
            enrolment: field(it.enrolment, "enrolment")?,
            owner: required(it.owner, "owner")?,
            policies: list(it.policies, "policies")?,
            probes: list(it.probes, "probes")?,
            network_policy: it.network_policy,
            telemetry: list(it.telemetry, "telemetry")?,
        })
    }
}

impl Wire for Probe {
    type Message = proto::Probe;

    fn to_wire(&self) -> proto::Probe {
        use proto::probe::Call;
        let call = match &self.call {
            ProbeCall::Http { target } => Call::HttpTarget(target.clone()),
            ProbeCall::Https => Call::Https(proto::Empty {}),
            ProbeCall::Tcp => Call::Tcp(proto::Empty {}),
            ProbeCall::Grpc { service } => Call::GrpcService(service.clone()),
        };
        proto::Probe { port: self.port.to_wire(), call: Some(call) }
    }

    fn from_wire(it: proto::Probe) -> Result<Self, InvalidField> {
        use proto::probe::Call;
        let call = match present(it.call, "call")? {
            Call::HttpTarget(target) => ProbeCall::Http { target },
            Call::Https(proto::Empty {}) => ProbeCall::Https,
            Call::Tcp(proto::Empty {}) => ProbeCall::Tcp,
            Call::GrpcService(service) => ProbeCall::Grpc { service },
        };
        Ok(Self { port: field(it.port, "port")?, call })
    }
}

impl Wire for Owner {
    type Message = proto::Owner;

    fn to_wire(&self) -> proto::Owner {
        proto::Owner {
            kind: self.kind.clone(),
            name: self.name.to_wire(),
            app: self.app.clone(),
            version: self.version.clone(),
        }
    }

    fn from_wire(it: proto::Owner) -> Result<Self, InvalidField> {
        Ok(Self { kind: it.kind, name: field(it.name, "name")?, app: it.app, version: it.version })
    }
}

impl Wire for MeshConfig {
    type Message = proto::MeshConfig;

    fn to_wire(&self) -> proto::MeshConfig {
        proto::MeshConfig {
            trust_domain: self.trust_domains.own().to_wire(),
            cluster_domain: self.cluster_domain.clone(),
            cluster_ranges: wire_list(&self.cluster_ranges),
            force_wire: self.force_wire,
            node_addresses: wire_list(&self.node_addresses),
            trust_domain_aliases: wire_list(self.trust_domains.aliases()),
        }
    }

    fn from_wire(it: proto::MeshConfig) -> Result<Self, InvalidField> {
        let own: TrustDomain = field(it.trust_domain, "trust_domain")?;
        let aliases: Vec<TrustDomain> = list(it.trust_domain_aliases, "trust_domain_aliases")?;
        Ok(Self {
            trust_domains: TrustDomains::new(own, aliases),
            cluster_domain: it.cluster_domain,
            cluster_ranges: list(it.cluster_ranges, "cluster_ranges")?,
            force_wire: it.force_wire,
            node_addresses: list(it.node_addresses, "node_addresses")?,
        })
    }
}
