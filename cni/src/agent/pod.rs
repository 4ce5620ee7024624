//! One pod in the agent's memory, and what others see of it.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use weft_api::weft::agent::v1 as wire;
use weft_core::ids::{NodeName, SandboxId, ServiceAccount};
use weft_sys::{Netns, NetnsId};

use super::enrolment::{Decision, Enrolled, Outside, PodRef};
use super::store::{Applied, Record};

/// A pod as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// The runtime's id.
    pub sandbox: SandboxId,
    /// Who it is.
    pub pod: PodRef,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The node it runs on.
    pub node: NodeName,
    /// Whose identity it has, when it is enrolled.
    pub service_account: Option<ServiceAccount>,
    /// How it stands.
    pub protection: Protection,
}

/// How a pod's traffic stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// In the clear, as it should be.
    Outside(Outside),
    /// Through a proxy that has acknowledged it.
    Protected,
    /// No traffic in the clear, but none through the proxy either, and why.
    Closed(String),
    /// In the clear although it is enrolled, or nobody knows yet whether it is; and why. Alert on this.
    Unprotected(String),
}

/// Pods by protection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`Protection::Outside`]
    pub outside: usize,
    /// [`Protection::Protected`]
    pub protected: usize,
    /// [`Protection::Closed`]
    pub closed: usize,
    /// [`Protection::Unprotected`]
    pub unprotected: usize,
}

impl Counts {
    /// Counts them.
    pub fn of(pods: &[LocalPod]) -> Self {
        pods.iter().fold(Self::default(), |mut counts, pod| {
            match pod.protection {
                Protection::Outside(_) => counts.outside += 1,
                Protection::Protected => counts.protected += 1,
                Protection::Closed(_) => counts.closed += 1,
                Protection::Unprotected(_) => counts.unprotected += 1,
            }
            counts
        })
    }
}

/// A pod: what one task at a time works on, and its picture for everybody else.
#[derive(Debug)]
pub(super) struct Pod {
    /// Its namespace, for its whole life.
    pub(super) netns: NetnsId,
    pub(super) state: tokio::sync::Mutex<PodState>,
    shown: Mutex<LocalPod>,
}

/// What one task at a time works on.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) record: Record,
    pub(super) netns: Netns,
    /// Whether the record's path leads to the namespace from here: only then does its absence mean anything.
    pub(super) path_visible: bool,
    /// What keeps the pod from being as it should.
    pub(super) trouble: Option<String>,
    /// Deleted while somebody waited for the lock.
    pub(super) gone: bool,
    /// Its record on the disk is older than it.
    pub(super) unsaved: bool,
}

impl PodState {
    pub(super) fn new(record: Record, netns: Netns, path_visible: bool) -> Self {
        Self { record, netns, path_visible, trouble: None, gone: false, unsaved: false }
    }

    /// What the proxy is told of it.
    pub(super) fn workload(&self, enrolled: &Enrolled, node: &NodeName) -> wire::Workload {
        let record = &self.record;
        wire::Workload {
            sandbox: record.sandbox.to_string(),
            uid: record.pod.workload_uid().to_string(),
            pod: Some((&record.pod).into()),
            service_account: enrolled.service_account.to_string(),
            ips: record.ips().iter().map(ToString::to_string).collect(),
            node: node.to_string(),
            node_addresses: record.node_addresses.iter().flatten().map(ToString::to_string).collect(),
        }
    }

    fn protection(&self) -> Protection {
        let why = || self.trouble.clone().unwrap_or_else(|| "it is only just being set up".to_owned());
        match (&self.record.decision, self.record.set) {
            (Some(Decision::Outside(reason)), Applied::Nothing) => Protection::Outside(*reason),
            (Some(Decision::Enrolled(_)), Applied::Redirecting) if self.trouble.is_none() => Protection::Protected,
            (_, Applied::Closed | Applied::Redirecting) => Protection::Closed(why()),
            (_, Applied::Nothing) => Protection::Unprotected(why()),
        }
    }

    fn show(&self, node: &NodeName) -> LocalPod {
        LocalPod {
            sandbox: self.record.sandbox.clone(),
            pod: self.record.pod.clone(),
            ips: self.record.ips(),
            node: node.clone(),
            service_account: match &self.record.decision {
                Some(Decision::Enrolled(enrolled)) => Some(enrolled.service_account.clone()),
                _ => None,
            },
            protection: self.protection(),
        }
    }
}

impl Pod {
    pub(super) fn new(state: PodState, node: &NodeName) -> Self {
        let shown = Mutex::new(state.show(node));
        Self { netns: state.netns.id(), state: tokio::sync::Mutex::new(state), shown }
    }

    /// Takes a new picture.
    pub(super) fn update(&self, state: &PodState, node: &NodeName) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = state.show(node);
    }

    pub(super) fn shown(&self) -> LocalPod {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
