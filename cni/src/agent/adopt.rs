//! Pods that run already: found by somebody else, taken over here.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_core::ids::SandboxId;
use weft_sys::{ErrorContext as _, Netns, NetnsId};

use super::Agent;
use super::enrolment::PodRef;
use super::pod::{Pod, PodState};
use super::store::{Applied, Record, is_container_id};
use crate::discovery;
use crate::rules::Held;

/// The interface of a pod's own network in Kubernetes.
const INTERFACE: &str = "eth0";

/// A running pod that the plugin didn't bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Who it is.
    pub pod: PodRef,
    /// The runtime's id, as well as it can be told.
    pub sandbox: SandboxId,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Where its namespace is found.
    pub netns_path: PathBuf,
    /// Which one it was when it was found: by now the path may lead to another.
    pub netns: NetnsId,
}

impl Agent {
    /// Takes a running pod over; `false` when it is known already. What to do with it is decided in the next round,
    /// which is asked for.
    ///
    /// A pod may hold rules of an agent whose state was lost: they are found, so that they are kept or removed.
    ///
    /// # Errors
    /// When the namespace isn't the one that was found, is the node's own, or can't be read, or the state can't be
    /// written.
    pub async fn adopt(&self, running: Running) -> io::Result<bool> {
        let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let netns = Netns::open(&running.netns_path)?;
        if netns.id() != running.netns {
            return refuse(format!("{} leads to {} now", running.netns_path.display(), netns.id()));
        }
        if netns == self.home {
            return refuse(format!("{} is the node's own namespace", running.netns_path.display()));
        }
        if !is_container_id(running.sandbox.as_str()) {
            return refuse(format!("{:?} is not a container id", running.sandbox.as_str()));
        }
        let held = self.rules.held(&netns).await.map_err(io::Error::other)?;
        let record = Record {
            sandbox: running.sandbox.clone(),
            pod: running.pod,
            interfaces: BTreeMap::from([(INTERFACE.to_owned(), running.ips)]),
            netns_path: running.netns_path,
            netns_dev: netns.id().dev,
            netns_ino: netns.id().ino,
            decision: None,
            set: match held {
                Held::Nothing => Applied::Nothing,
                Held::Closed => Applied::Closed,
                Held::Other => Applied::Redirecting,
            },
            adopted: true,
            node_addresses: None,
            bypassed: false,
        };
        {
            let mut pods = self.lock_pods();
            if pods.contains_key(&running.sandbox) || pods.values().any(|pod| pod.netns == netns.id()) {
                return Ok(false);
            }
            self.store.save(&record)?;
            tracing::info!(pod = %record.pod, netns = %record.netns_path.display(), ?held, "a running pod is taken over");
            pods.insert(running.sandbox, Arc::new(Pod::new(PodState::new(record, netns, true), &self.options.node)));
        }
        self.show();
        self.again.notify_one();
        Ok(true)
    }

    /// Asks for a round over all pods.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    /// Forgets pods that somebody knows to be gone and whose namespace can't be seen from here, so that nothing else
    /// would tell. Their rules stay: a pod that lives on against all appearances must not get into the clear.
    pub async fn forget_unseen(&self, is_gone: impl Fn(&PodRef) -> bool) {
        let pods: Vec<_> = self.lock_pods().values().cloned().collect();
        for pod in pods {
            let Ok(mut state) = pod.state.try_lock() else { continue };
            if !state.path_visible && !state.gone && is_gone(&state.record.pod) {
                tracing::info!(pod = %state.record.pod, "a pod is gone from the cluster");
                state.gone = true;
                let sandbox = state.record.sandbox.clone();
                drop(state);
                self.forget(&sandbox);
            }
        }
        self.show();
    }

    /// Where a namespace is found from here: at the path itself, or by its name in one of the runtime's directories.
    pub(super) fn visible_path(&self, path: &Path, netns: &Netns) -> Option<PathBuf> {
        let names = path.file_name().into_iter();
        let elsewhere = names.flat_map(|name| self.options.netns_dirs.iter().map(move |dir| dir.join(name)));
        let mut places = std::iter::once(path.to_owned()).chain(elsewhere);
        places.find(|place| Netns::open(place).is_ok_and(|found| found == *netns))
    }

    /// The namespace of a recorded pod. A path below `/proc` leads to whichever process has the number by now.
    pub(super) fn open_again(&self, record: &Record) -> io::Result<Netns> {
        if let Ok(process) = record.netns_path.strip_prefix(&self.options.proc) {
            let number = process.components().next().map(|c| self.options.proc.join(c)).unwrap_or_default();
            let cgroup = std::fs::read_to_string(number.join("cgroup")).context(|| "the pod's process is gone")?;
            let owner = discovery::owner(&cgroup).map(|owner| owner.pod);
            if owner.is_none() || owner != record.pod.uid {
                return Err(io::Error::new(io::ErrorKind::NotFound, "its process is another's now"));
            }
        }
        Netns::open(&record.netns_path)
    }
}
