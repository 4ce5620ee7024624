//! One leader among replicas, by a `coordination.k8s.io` Lease.
//!
//! The rules are those of client-go, so that `kubectl get lease` reads as usual. How long a holder has been silent is
//! measured from when its last renewal was *seen*, on a clock that never steps; what the Lease says of times is for
//! people. Who leads stops before anybody else may start: it must renew within two thirds of the duration, counted
//! from before the request was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::PART_OF;

/// How long giving up a lease may take at the end.
const RELEASE: Duration = Duration::from_secs(3);

/// Which lease, for whom.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are: different for each replica, as a pod's name is.
    pub identity: String,
    /// How long a silent leader holds it; whole seconds, at least 3. 15 seconds is usual.
    pub duration: Duration,
}

/// A candidate for as long as it lives; dropped, it gives the lease up in the background.
#[derive(Debug)]
pub struct Leadership {
    leader: watch::Receiver<bool>,
    /// Closed to stop the task.
    stop: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Starts to stand for the lease, which is made if it doesn't exist. Must be called inside a tokio runtime.
    pub fn start(client: Client, settings: LeaseSettings) -> Self {
        let (sender, leader) = watch::channel(false);
        let (stop, stopped) = mpsc::channel(1);
        let api = Api::namespaced(client, &settings.namespace);
        let duration = settings.duration.max(Duration::from_secs(3));
        let candidate = Candidate { api, settings: LeaseSettings { duration, ..settings }, seen: None, sender };
        let task = tokio::spawn(candidate.run(stopped));
        Self { leader, stop, task }
    }

    /// Whether we lead. It turns false before another can lead, also while the API server can't be reached.
    pub fn is_leader(&self) -> watch::Receiver<bool> {
        self.leader.clone()
    }

    /// Stops and gives the lease up, so that another can lead at once. Takes at most 3 seconds.
    pub async fn release(self) {
        let Self { stop, task, .. } = self;
        drop(stop);
        // It can only fail by a panic of its own, which has been reported.
        let _ = task.await;
    }
}

struct Candidate {
    api: Api<Lease>,
    settings: LeaseSettings,
    /// What the lease said last, and since when it has said so.
    seen: Option<(LeaseSpec, Instant)>,
    sender: watch::Sender<bool>,
}

/// What is to be done about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is ours to take or to renew.
    Take,
    /// Another one's.
    Leave,
}

impl Candidate {
    async fn run(mut self, mut stopped: mpsc::Receiver<()>) {
        let duration = self.settings.duration;
        let (deadline, retry) = (duration * 2 / 3, duration / 6);
        let mut leads_until: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let give_up = leads_until.unwrap_or(began + deadline);
            let held = tokio::select! {
                held = timeout_at(give_up, self.attempt()) => held,
                _ = stopped.recv() => break,
            };
            leads_until = match held {
                Ok(Ok(true)) => Some(began + deadline),
                Ok(Ok(false)) => None,
                Ok(Err(error)) => {
                    self.note(&error);
                    leads_until.filter(|_| !is_conflict(&error))
                }
                Err(_elapsed) => {
                    self.note(&"no answer in time");
                    None
                }
            };
            self.lead(leads_until.is_some());
            // Replicas must not march in step.
            let pause = began + retry.mul_f64(1.0 + 0.2 * fastrand::f64());
            let pause = leads_until.map_or(pause, |until| until.min(pause));
            tokio::select! {
                () = tokio::time::sleep_until(pause) => {}
                _ = stopped.recv() => break,
            }
            if leads_until.is_some_and(|until| until <= Instant::now()) {
                leads_until = None;
                self.lead(false);
            }
        }
        let led = *self.sender.borrow();
        self.lead(false);
        if led && let Err(error) = timeout(RELEASE, self.give_up()).await.unwrap_or(Ok(())) {
            self.note(&error);
        }
    }

    fn lead(&self, leads: bool) {
        let changed = self.sender.send_if_modified(|now| std::mem::replace(now, leads) != leads);
        if changed {
            let LeaseSettings { name, identity, .. } = &self.settings;
            metrics::gauge!("weft_kube_leader", "lease" => name.clone()).set(if leads { 1.0 } else { 0.0 });
            tracing::info!(lease = %name, %identity, leads, "leadership");
        }
    }

    fn note(&self, error: &dyn std::fmt::Display) {
        metrics::counter!("weft_kube_lease_errors_total", "lease" => self.settings.name.clone()).increment(1);
        tracing::warn!(lease = %self.settings.name, %error, "lease");
    }

    /// Whether the lease is ours now.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let name = self.settings.name.as_str();
        let Some(lease) = self.api.get_opt(name).await? else {
            let labels = BTreeMap::from([(PART_OF.0.to_owned(), PART_OF.1.to_owned())]);
            let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.renewed(&LeaseSpec::default())) };
            return self.api.create(&PostParams::default(), &lease).await.map(|made| self.took(made));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if *seen == spec => *since,
            _ => now,
        };
        self.seen = Some((spec.clone(), since));
        if decide(&spec, now.duration_since(since), &self.settings) == Step::Leave {
            return Ok(false);
        }
        // The resourceVersion is kept: if another was faster, this is a conflict.
        let lease = Lease { metadata: lease.metadata, spec: Some(self.renewed(&spec)) };
        self.api.replace(name, &PostParams::default(), &lease).await.map(|made| self.took(made))
    }

    fn took(&mut self, lease: Lease) -> bool {
        self.seen = lease.spec.map(|spec| (spec, Instant::now()));
        true
    }

    /// The lease as we want it.
    fn renewed(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.holder_identity.as_deref() == Some(self.settings.identity.as_str());
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: before.acquire_time.clone().filter(|_| ours).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            ..before.clone()
        }
    }

    /// Empties the lease if it is still ours.
    async fn give_up(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.settings.name).await? else { return Ok(()) };
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_deref() == Some(self.settings.identity.as_str()) => {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
            }
            _ => return Ok(()),
        }
        self.api.replace(&self.settings.name, &PostParams::default(), &lease).await.map(drop)
    }
}

/// What a lease means that has been the same for `unchanged`.
fn decide(spec: &LeaseSpec, unchanged: Duration, settings: &LeaseSettings) -> Step {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == settings.identity {
        return Step::Take;
    }
    let theirs = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    if unchanged >= theirs.unwrap_or(settings.duration) { Step::Take } else { Step::Leave }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
#[path = "tests/lease.rs"]
mod tests;
