//! Whether this node can take pods of the mesh: what is missing, in words.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::installer::State;
use super::source::ClusterSource;
use crate::agent::Proxies;

/// What readiness is made of.
#[derive(Clone, Debug)]
pub struct Ready(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    source: Arc<ClusterSource>,
    plugin: watch::Receiver<State>,
    proxies: Proxies,
    probe: Mutex<Probed>,
}

/// The last probe through the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// There was none yet.
    NotYet,
    /// It went through.
    Passed,
    /// It didn't, and why.
    Failed(String),
}

impl Ready {
    /// Nothing is ready.
    pub fn new(source: Arc<ClusterSource>, plugin: watch::Receiver<State>, proxies: Proxies) -> Self {
        Self(Arc::new(Parts { source, plugin, proxies, probe: Mutex::new(Probed::NotYet) }))
    }

    /// Notes a probe.
    pub fn probed(&self, probed: Probed) {
        *self.0.probe.lock().unwrap_or_else(PoisonError::into_inner) = probed;
    }

    /// What is missing; nothing when the node is ready.
    pub fn missing(&self) -> Vec<String> {
        let parts = &self.0;
        let plugin = parts.plugin.borrow().clone();
        if plugin == State::Removed {
            return vec!["the mesh is being removed from this node".to_owned()];
        }
        let mut missing = Vec::new();
        if !parts.source.is_listed() {
            missing.push("pods, namespaces and policies haven't been read from the API server yet".to_owned());
        }
        if let State::Missing(why) = plugin {
            missing.push(format!("the CNI plugin is not in place: {why}"));
        }
        let probed = parts.probe.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match probed {
            _ if parts.proxies.connected() == 0 => missing.push("no node proxy is connected to the agent".to_owned()),
            Probed::Passed => {}
            Probed::NotYet => missing.push("no probe went through the data plane yet".to_owned()),
            Probed::Failed(why) => missing.push(format!("the probe through the data plane failed: {why}")),
        }
        missing
    }
}
