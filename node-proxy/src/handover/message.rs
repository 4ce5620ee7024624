//! Pods and certificates as messages.

use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weft_api::weft::proxy::v1 as wire;
use weft_core::identity::SpiffeId;
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_sys::Netns;
use weft_tls::{CertificateDer, InvalidSvid, Svid, SvidParts};

use super::HandoverError;
use crate::identify::Pod;
use crate::inpod::{Announcement, Listener, ListenerRole, PodSockets};

/// A pod with the roles of its sockets.
pub(super) fn pod(pod: &Pod, listeners: &[Listener]) -> wire::Pod {
    let workload = pod.announced();
    wire::Pod {
        sandbox: pod.sandbox.to_string(),
        uid: workload.uid.to_string(),
        namespace: workload.namespace.to_string(),
        name: workload.name.to_string(),
        identity: workload.identity.to_string(),
        ips: workload.addresses.iter().map(IpAddr::to_string).collect(),
        node: workload.node.to_string(),
        listeners: listeners.iter().map(|(role, _)| to_wire(*role).into()).collect(),
        node_addresses: pod.node_addresses().iter().map(IpAddr::to_string).collect(),
    }
}

const fn to_wire(role: ListenerRole) -> wire::ListenerRole {
    match role {
        ListenerRole::Outbound => wire::ListenerRole::Outbound,
        ListenerRole::InboundPlaintext => wire::ListenerRole::InboundPlaintext,
        ListenerRole::Hbone => wire::ListenerRole::Hbone,
    }
}

fn from_wire(role: wire::ListenerRole) -> Option<ListenerRole> {
    match role {
        wire::ListenerRole::Unspecified => None,
        wire::ListenerRole::Outbound => Some(ListenerRole::Outbound),
        wire::ListenerRole::InboundPlaintext => Some(ListenerRole::InboundPlaintext),
        wire::ListenerRole::Hbone => Some(ListenerRole::Hbone),
    }
}

/// A pod with the sockets that came with it: its namespace first.
pub(super) fn parse_pod(pod: wire::Pod, fds: Vec<OwnedFd>) -> Result<(Announcement, Vec<Listener>), HandoverError> {
    let mut fds = fds.into_iter();
    let netns = Netns::from_fd(fds.next().ok_or(HandoverError::Message("a pod without a namespace"))?)?;
    let roles: Option<Vec<_>> = pod.listeners().map(from_wire).collect();
    let roles = roles.ok_or(HandoverError::Message("a socket of an unknown role"))?;
    if roles.len() != fds.len() {
        return Err(HandoverError::Message("not as many sockets as roles"));
    }
    let listeners = roles.into_iter().zip(fds.map(TcpListener::from)).collect();
    let identity: Result<SpiffeId, _> = pod.identity.parse();
    let identity = identity.map_err(|_| HandoverError::Message("an identity that is none"))?;
    let addresses = |texts: &[String]| -> Result<Vec<IpAddr>, _> {
        texts.iter().map(|ip| ip.parse().map_err(|_| HandoverError::Message("an address that is none"))).collect()
    };
    let (addresses, node_addresses) = (addresses(&pod.ips)?, addresses(&pod.node_addresses)?);
    let workload = Workload {
        uid: pod.uid.into(),
        namespace: pod.namespace.into(),
        identity,
        addresses: addresses.clone(),
        node: pod.node.into(),
        zone: None,
        enrolment: Enrolment::Enrolled,
        owner: Owner {
            kind: "Pod".into(),
            name: pod.name.as_str().into(),
            app: pod.name.clone(),
            version: String::new(),
        },
        name: pod.name.into(),
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    };
    let announced = Announcement {
        sandbox: pod.sandbox.into(),
        workload: Arc::new(workload),
        net: Arc::new(PodSockets::new(netns, addresses)),
        node_addresses,
    };
    Ok((announced, listeners))
}

/// A certificate with its key.
pub(super) fn certificate(wire: wire::Certificate) -> Result<Svid, InvalidSvid> {
    let chain = wire.chain.into_iter().map(CertificateDer::from).collect();
    Svid::from_parts(SvidParts { chain, key_pkcs8: wire.key.into() })
}
