//! From the node agent's words to pods that are served.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{NodeName, SandboxId};
use weft_core::workload::{Enrolment, Owner, Workload};

use super::{Announcement, InpodEvent, Manager, PodInfo, PodSockets};

/// What the agent says of a pod, as a workload: enough until the configuration names it.
pub fn workload_of(info: &PodInfo, trust_domain: &TrustDomain, node: &NodeName) -> Workload {
    Workload {
        uid: info.uid.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        identity: SpiffeId::new(trust_domain.clone(), info.namespace.clone(), info.service_account.clone()),
        addresses: info.ips.iter().map(|ip| ip.to_canonical()).collect(),
        node: node.clone(),
        zone: None,
        enrolment: Enrolment::Enrolled,
        owner: Owner {
            kind: "Pod".into(),
            name: info.name.clone(),
            app: info.name.to_string(),
            version: String::new(),
        },
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    }
}

/// Does what the agent says until its client ends. Pods that a predecessor handed over and the agent's first snapshot
/// doesn't name are removed.
pub async fn follow_agent(
    manager: &Manager,
    mut events: mpsc::Receiver<InpodEvent>,
    trust_domain: &TrustDomain,
    node: &NodeName,
) {
    let mut seen: Option<HashSet<SandboxId>> = Some(HashSet::new());
    while let Some(event) = events.recv().await {
        match event {
            InpodEvent::Add { pod, netns, ack } => {
                if let Some(seen) = &mut seen {
                    seen.insert(pod.sandbox.clone());
                }
                let workload = workload_of(&pod, trust_domain, node);
                let net = Arc::new(PodSockets::new(netns, workload.addresses.clone()));
                let (sandbox, node_addresses) = (pod.sandbox.clone(), pod.node_addresses.clone());
                let announced = Announcement { sandbox, workload: Arc::new(workload), net, node_addresses };
                match manager.add(announced).await {
                    Ok(()) => {
                        tracing::info!(workload = %pod.uid, sandbox = %pod.sandbox, "pod is served");
                        ack.done();
                    }
                    Err(error) => {
                        tracing::error!(workload = %pod.uid, "pod can't be served: {error}");
                        ack.refuse(error.to_string());
                    }
                }
            }
            InpodEvent::Remove { sandbox, ack } => {
                manager.remove(&sandbox).await;
                tracing::info!(%sandbox, "pod is gone");
                ack.done();
            }
            InpodEvent::SnapshotDone => {
                if let Some(seen) = seen.take() {
                    manager.retain(&seen).await;
                }
            }
        }
    }
}
