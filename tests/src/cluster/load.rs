//! Requests at a steady rate, from a pod of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{PATIENCE, TestNamespace, eventually};

/// No answer may take longer, in milliseconds. A lost first packet costs a second until it is sent again, and so shows.
const SLOWEST: f64 = 900.0;

/// `tests/cluster/load` in a pod of its own, running. Its result is that pod's log: nothing that happens to the API
/// server or to a stream of `kubectl exec` meanwhile can be taken for a failed request.
#[derive(Debug)]
pub struct Load<'a> {
    ns: &'a TestNamespace,
    count: usize,
}

/// What became of one request.
#[derive(Debug, Deserialize)]
struct Outcome {
    /// When it began, in seconds after the first.
    at: f64,
    /// From its start to the end of the answer, in milliseconds.
    took: f64,
    /// The HTTP status, or why there was none.
    status: String,
}

impl TestNamespace {
    /// Starts `count` requests, each on a connection of its own, `per_second` at a time, and waits until the first are
    /// on their way. `on` is the node they come from.
    ///
    /// # Errors
    /// When the pod doesn't start.
    pub fn load(&self, url: &str, count: usize, per_second: usize, on: Option<&str>) -> Result<Load<'_>> {
        let node = on.map(|n| format!(r#""nodeSelector": {{"kubernetes.io/hostname": "{n}"}}, "#)).unwrap_or_default();
        self.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "load", "namespace": "@NS@"}}, "spec": {{
            {node}"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [{{"name": "load", "image": "localhost/load:1",
            "args": ["-count={count}", "-rate={per_second}", "{url}"]}}]}}}}"#,
        ))?;
        eventually("the load to start", PATIENCE, || {
            let phase = self.load_phase()?;
            ensure!(phase != "Pending", "{}", self.cluster.k(&["-n", &self.name, "describe", "pod", "load"])?);
            Ok(())
        })?;
        // A process that runs has yet to send its first.
        std::thread::sleep(Duration::from_secs(1));
        Ok(Load { ns: self, count })
    }

    fn load_phase(&self) -> Result<String> {
        self.cluster.k(&["-n", &self.name, "get", "pod", "load", "-o", "jsonpath={.status.phase}"])
    }
}

impl Load<'_> {
    /// Waits for the end; every request has to be answered with 200, and soon.
    ///
    /// # Errors
    /// With what became of those that weren't, and when they began.
    pub fn all_answered(self) -> Result<()> {
        let Self { ns, count } = self;
        eventually("the load to end", 2 * PATIENCE, || {
            let phase = ns.load_phase()?;
            ensure!(phase == "Succeeded" || phase == "Failed", "it is {phase}");
            Ok(())
        })?;
        let log = ns.cluster.k(&["-n", &ns.name, "logs", "load"])?;
        ns.cluster.k(&["-n", &ns.name, "delete", "pod", "load"])?;
        let outcomes: Vec<Outcome> =
            serde_json::from_str(&log).with_context(|| format!("not what load says: {log}"))?;
        ensure!(outcomes.len() == count, "{} of {count} requests were made", outcomes.len());
        let mut bad = BTreeMap::<&str, Vec<f64>>::new();
        for outcome in outcomes.iter().filter(|o| o.status != "200") {
            bad.entry(&outcome.status).or_default().push(outcome.at);
        }
        ensure!(bad.is_empty(), "of {count} requests, by the second they began in: {bad:?}");
        let late: Vec<_> = outcomes.iter().filter(|o| o.took > SLOWEST).map(|o| (o.at, o.took)).collect();
        ensure!(
            late.is_empty(),
            "of {count} requests, those that took more than {SLOWEST} ms, and when they began: {late:?}"
        );
        let slowest = outcomes.iter().map(|o| o.took).fold(0.0, f64::max);
        eprintln!("{count} requests answered, the slowest in {slowest:.0} ms");
        Ok(())
    }
}
