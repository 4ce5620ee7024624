//! What Prometheus is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::installer::Done;
use super::ready::Ready;
use super::running::Outcome;
use crate::agent::{Agent, Counts};

/// How often gauges are set even if no pod changed.
const TICK: Duration = Duration::from_secs(5);

/// Sets the agent's metrics. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Running pods that should be in the mesh and can't be found on the node.
    unseen: Arc<AtomicUsize>,
}

impl Report {
    /// Says what each metric is.
    pub fn new() -> Self {
        use metrics::{describe_counter, describe_gauge};
        describe_gauge!(
            "weft_agent_pods",
            "Pods of this node by protection: protected, outside, closed (no traffic), unprotected (in the clear although enrolled; alert on it)"
        );
        describe_gauge!("weft_agent_proxies", "Node proxies that are connected to the agent");
        describe_gauge!("weft_agent_ready", "1 when the node can take pods of the mesh");
        describe_counter!(
            "weft_agent_installs_total",
            "How often the CNI plugin was installed, repaired after somebody changed it, or couldn't be"
        );
        describe_counter!("weft_agent_adopted_pods_total", "Running pods that were taken over without the plugin");
        describe_counter!("weft_agent_probes_total", "Probes through the data plane by result");
        describe_counter!("weft_agent_api_errors_total", "Failed calls of the API server, but for watches, by call");
        for result in ["installed", "repaired", "failed"] {
            metrics::counter!("weft_agent_installs_total", "result" => result).increment(0);
        }
        Self::default()
    }

    /// What a look at the node found.
    pub fn found(&self, outcome: Outcome) {
        metrics::counter!("weft_agent_adopted_pods_total").increment(outcome.adopted as u64);
        self.unseen.store(outcome.unseen.len(), Ordering::Relaxed);
    }

    /// What the installer did.
    pub fn installed(&self, done: Done) {
        let result = match done {
            Done::Installed => "installed",
            Done::Repaired => "repaired",
            Done::Failed => "failed",
        };
        metrics::counter!("weft_agent_installs_total", "result" => result).increment(1);
    }

    /// How a probe ended.
    pub fn probed(&self, passed: bool) {
        metrics::counter!("weft_agent_probes_total", "result" => if passed { "passed" } else { "failed" }).increment(1);
    }

    /// Keeps the gauges, until dropped.
    ///
    /// # Errors
    /// None.
    pub async fn keep_counting(self, agent: Arc<Agent>, ready: Ready) -> anyhow::Result<()> {
        let mut pods = agent.pods();
        loop {
            let counts = Counts::of(&pods.borrow_and_update());
            let unprotected = counts.unprotected + self.unseen.load(Ordering::Relaxed);
            for (protection, count) in [
                ("protected", counts.protected),
                ("outside", counts.outside),
                ("closed", counts.closed),
                ("unprotected", unprotected),
            ] {
                metrics::gauge!("weft_agent_pods", "protection" => protection).set(count as f64);
            }
            metrics::gauge!("weft_agent_proxies").set(agent.proxies().connected() as f64);
            metrics::gauge!("weft_agent_ready").set(f64::from(u8::from(ready.missing().is_empty())));
            let _either = tokio::time::timeout(TICK, pods.changed()).await;
        }
    }
}
