//! Requests at a steady rate, from a pod of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{LOAD_IMAGE, PATIENCE, TestNamespace, eventually};

/// No answer may take longer, in milliseconds. A lost first packet costs a second until it is sent again, and so shows.
const SLOWEST: f64 = 900.0;

/// In the path of every request of a [`Mix`]: no packet may have it in the clear.
pub const SECRET: &str = "only-for-the-two-of-us";

/// `tests/cluster/load` in a pod of its own, running. Its result is that pod's log: nothing that happens to the API
/// server or to a stream of `kubectl exec` meanwhile can be taken for a failed request.
#[derive(Debug)]
pub struct Load<'a> {
    ns: &'a TestNamespace,
    /// Of its pod.
    name: String,
    /// How many outcomes there will be.
    count: usize,
    /// How long requests are made.
    lasts: Duration,
}

/// What is sent: requests, and what is held open beside them.
#[derive(Clone, Copy, Debug)]
pub struct Mix<'a> {
    /// The name of the pod that sends it.
    pub name: &'a str,
    /// The ServiceAccount of that pod.
    pub account: &'a str,
    /// The node that it comes from.
    pub on: Option<&'a str>,
    /// How long, in seconds.
    pub seconds: usize,
    /// Requests in a second.
    pub per_second: usize,
    /// Whether their connections are kept.
    pub keep: bool,
    /// Streams of gRPC held open, each with ten echoes a second.
    pub streams: usize,
    /// Connections of bytes held open in the same way.
    pub connections: usize,
}

impl Default for Mix<'_> {
    fn default() -> Self {
        Self {
            name: "load",
            account: "default",
            on: None,
            seconds: 30,
            per_second: 50,
            keep: false,
            streams: 0,
            connections: 0,
        }
    }
}

/// What became of one request, stream or connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// When it began, in seconds after the first.
    pub at: f64,
    /// The same, in seconds since 1970.
    pub clock: f64,
    /// From its start to the end of the answer, in milliseconds; of streams and connections the slowest echo.
    pub took: f64,
    /// The HTTP status, or why there was none; 200 for streams and connections that were never broken.
    pub status: String,
}

impl TestNamespace {
    /// Starts `count` requests, each on a connection of its own, `per_second` at a time, and waits until the first are
    /// on their way. `on` is the node they come from.
    ///
    /// # Errors
    /// When the pod doesn't start.
    pub fn load(&self, url: &str, count: usize, per_second: usize, on: Option<&str>) -> Result<Load<'_>> {
        let args = vec![format!("-count={count}"), format!("-rate={per_second}"), url.to_owned()];
        let lasts = Duration::from_secs((count / per_second.max(1)) as u64);
        self.start_load(&Mix { on, ..Mix::default() }, &args, (count, lasts))
    }

    /// Starts requests to port 80 of a Service of [`served`](super::served), and holds streams and connections open to its
    /// other ports as long.
    ///
    /// # Errors
    /// When the pod doesn't start.
    pub fn mix(&self, service: &str, mix: &Mix<'_>) -> Result<Load<'_>> {
        let Mix { seconds, per_second, keep, streams, connections, .. } = *mix;
        let count = seconds * per_second;
        let args = vec![
            format!("-count={count}"),
            format!("-rate={per_second}"),
            format!("-keep={keep}"),
            format!("-streams={streams}"),
            format!("-streams-to={service}:7070"),
            format!("-connections={connections}"),
            format!("-connections-to={service}:9090"),
            format!("http://{service}/{SECRET}"),
        ];
        self.start_load(mix, &args, (count + streams + connections, Duration::from_secs(seconds as u64)))
    }

    fn start_load(&self, mix: &Mix<'_>, args: &[String], (count, lasts): (usize, Duration)) -> Result<Load<'_>> {
        let Mix { name, account, on, .. } = *mix;
        let node = on.map(|n| format!(r#""nodeSelector": {{"kubernetes.io/hostname": "{n}"}}, "#)).unwrap_or_default();
        let args = serde_json::to_string(args)?;
        self.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "namespace": "@NS@"}}, "spec": {{
            {node}"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "serviceAccountName": "{account}",
            "containers": [{{"name": "load", "image": "{LOAD_IMAGE}", "args": {args}}}]}}}}"#,
        ))?;
        let load = Load { ns: self, name: name.to_owned(), count, lasts };
        // Scheduler and kubelets come back from an API server's outage of a minute after half a minute, one after the other.
        eventually("the load to start", 3 * PATIENCE, || {
            let phase = load.phase()?;
            ensure!(phase != "Pending", "{}", self.cluster.k(&["-n", &self.name, "describe", "pod", name])?);
            Ok(())
        })?;
        // A process that runs has yet to send its first.
        std::thread::sleep(Duration::from_secs(1));
        Ok(load)
    }
}

impl Load<'_> {
    fn phase(&self) -> Result<String> {
        self.ns.cluster.k(&["-n", &self.ns.name, "get", "pod", &self.name, "-o", "jsonpath={.status.phase}"])
    }

    /// Whether requests are still being made: what has happened until now happened under load.
    ///
    /// # Errors
    /// When the last one is over.
    pub fn goes_on(&self) -> Result<()> {
        let phase = self.phase()?;
        ensure!(phase == "Running", "the load of {:?} was over before what it was for: it is {phase}", self.lasts);
        Ok(())
    }

    /// Waits for the end: what became of everything.
    ///
    /// # Errors
    /// When it doesn't end, or fewer were made.
    pub fn outcomes(self) -> Result<Vec<Outcome>> {
        eventually("the load to end", self.lasts + 2 * PATIENCE, || {
            let phase = self.phase()?;
            ensure!(phase == "Succeeded" || phase == "Failed", "it is {phase}");
            Ok(())
        })?;
        let Self { ns, name, count, .. } = self;
        let log = ns.cluster.k(&["-n", &ns.name, "logs", &name])?;
        ns.cluster.k(&["-n", &ns.name, "delete", "pod", &name])?;
        let outcomes: Vec<Outcome> =
            serde_json::from_str(&log).with_context(|| format!("not what load says: {log}"))?;
        ensure!(outcomes.len() == count, "{} of {count} requests were made", outcomes.len());
        Ok(outcomes)
    }

    /// Waits for the end; every request has to be answered with 200, and soon, and everything that was held open never broken.
    ///
    /// # Errors
    /// With what became of those that weren't, and when they began.
    pub fn all_answered(self) -> Result<()> {
        let outcomes = self.outcomes()?;
        let (count, bad) = (outcomes.len(), failures(&outcomes));
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

/// When those began that were not answered with 200, by what became of them.
pub fn failures(outcomes: &[Outcome]) -> BTreeMap<&str, Vec<f64>> {
    let mut bad = BTreeMap::<&str, Vec<f64>>::new();
    for outcome in outcomes.iter().filter(|o| o.status != "200") {
        bad.entry(&outcome.status).or_default().push(outcome.at);
    }
    bad
}
