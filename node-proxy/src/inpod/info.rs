//! What the node agent says about a pod.

use std::net::{AddrParseError, IpAddr};

use weft_api::weft::agent::v1 as wire;
use weft_core::ids::{Name, Namespace, NodeName, PodUid, SandboxId, ServiceAccount, WorkloadUid};

/// An enrolled pod of this node, as the agent knows it first-hand from the container runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// The sandbox, hence the network namespace. A pod that is restarted whole gets a new one.
    pub sandbox: SandboxId,
    /// The workload it is for everybody else.
    pub uid: WorkloadUid,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
    /// Its incarnation, if the runtime said so.
    pub pod_uid: Option<PodUid>,
    /// Whose identity it has.
    pub service_account: ServiceAccount,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// This node.
    pub node: NodeName,
    /// Where the node's own traffic to it comes from.
    pub node_addresses: Vec<IpAddr>,
}

/// Why a message of the agent is no pod.
#[derive(Debug, thiserror::Error)]
pub enum PodInfoError {
    /// A field that must be set is empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// An address is none.
    #[error("address {text:?}: {source}")]
    Address {
        /// What came.
        text: String,
        /// What is wrong with it.
        source: AddrParseError,
    },
}

impl TryFrom<wire::Workload> for PodInfo {
    type Error = PodInfoError;

    fn try_from(wire: wire::Workload) -> Result<Self, PodInfoError> {
        let pod = wire.pod.ok_or(PodInfoError::Empty("pod"))?;
        Ok(Self {
            sandbox: filled("sandbox", wire.sandbox)?.into(),
            uid: filled("uid", wire.uid)?.into(),
            namespace: filled("pod.namespace", pod.namespace)?.into(),
            name: filled("pod.name", pod.name)?.into(),
            pod_uid: (!pod.uid.is_empty()).then(|| pod.uid.into()),
            service_account: filled("service_account", wire.service_account)?.into(),
            ips: addresses(wire.ips)?,
            node: wire.node.into(),
            node_addresses: addresses(wire.node_addresses)?,
        })
    }
}

fn addresses(texts: Vec<String>) -> Result<Vec<IpAddr>, PodInfoError> {
    let parse = |text: String| text.parse().map_err(|source| PodInfoError::Address { text, source });
    texts.into_iter().map(parse).collect()
}

fn filled(field: &'static str, text: String) -> Result<String, PodInfoError> {
    if text.is_empty() { Err(PodInfoError::Empty(field)) } else { Ok(text) }
}
