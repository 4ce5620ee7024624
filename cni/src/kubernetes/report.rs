//! What Prometheus is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use weft_metrics::{Component, SECONDS};

use super::installer::Done;
use super::ready::Ready;
use super::running::Outcome;
use crate::agent::bypass::Bypass;
use crate::agent::{Agent, Counts, LocalPod, PodRef, Protection};

/// How often gauges are set even if no pod changed.
const TICK: Duration = Duration::from_secs(5);
/// How long a gauge that nobody sets any more, as that of a pod that has gone, stays on the page.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Why a pod that the agent can't find isn't protected.
const UNSEEN: &str = "the agent finds no process of it; its log says more";

/// Starts the process's metrics.
///
/// # Errors
/// When they were started before.
pub fn recorder() -> anyhow::Result<PrometheusHandle> {
    let builder = builder(FORGOTTEN).set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    builder.and_then(PrometheusBuilder::install_recorder).context("metrics")
}

fn builder(forgotten: Duration) -> PrometheusBuilder {
    PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(forgotten))
}

/// Sets the agent's metrics. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Running pods that should be in the mesh and can't be found on the node.
    unseen: Arc<Mutex<Vec<PodRef>>>,
}

impl Report {
    /// Says what each metric is.
    pub fn new() -> Self {
        weft_metrics::describe(Component::Agent);
        for result in ["installed", "repaired", "failed"] {
            metrics::counter!("weft_agent_installs_total", "result" => result).increment(0);
        }
        Self::default()
    }

    /// What a look at the node found.
    pub fn found(&self, outcome: Outcome) {
        metrics::counter!("weft_agent_adopted_pods_total").increment(outcome.adopted as u64);
        *self.unseen.lock().unwrap_or_else(PoisonError::into_inner) = outcome.unseen;
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

    /// Pods that weren't found at the last look, and that the agent still hasn't.
    fn unseen(&self, local: &[LocalPod]) -> Vec<PodRef> {
        let mut unseen = self.unseen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        unseen.retain(|pod| !local.iter().any(|l| l.pod.namespace == pod.namespace && l.pod.name == pod.name));
        unseen
    }

    /// Keeps the gauges, until dropped.
    ///
    /// # Errors
    /// None.
    pub async fn keep_counting(self, agent: Arc<Agent>, ready: Ready) -> anyhow::Result<()> {
        let mut pods = agent.pods();
        let mut shown = Shown::default();
        loop {
            let local = Arc::clone(&pods.borrow_and_update());
            let unseen = self.unseen(&local);
            shown.show(&local, &unseen);
            let counts = Counts::of(&local);
            let unprotected = counts.unprotected + unseen.len();
            for (protection, count) in [
                ("protected", counts.protected),
                ("outside", counts.outside),
                ("closed", counts.closed),
                ("unprotected", unprotected),
            ] {
                metrics::gauge!("weft_agent_pods", "protection" => protection).set(count as f64);
            }
            bypassed(agent.bypass().as_ref());
            metrics::gauge!("weft_agent_proxies").set(agent.proxies().connected() as f64);
            metrics::gauge!("weft_agent_ready").set(f64::from(u8::from(ready.missing().is_empty())));
            let _either = tokio::time::timeout(TICK, pods.changed()).await;
        }
    }
}

/// The pods that `weft_agent_pod` names: each with its namespace, name, state and why.
#[derive(Debug, Default)]
struct Shown(BTreeSet<[String; 4]>);

impl Shown {
    /// Shows these pods, and no others.
    fn show(&mut self, local: &[LocalPod], unseen: &[PodRef]) {
        let now: BTreeSet<_> = local
            .iter()
            .map(|pod| line(&pod.pod, &pod.protection))
            .chain(unseen.iter().map(|pod| line(pod, &Protection::Unprotected(UNSEEN.to_owned()))))
            .collect();
        // What isn't set again is forgotten, but not at once.
        self.0.difference(&now).for_each(|line| set(line, 0.0));
        now.iter().for_each(|line| set(line, 1.0));
        self.0 = now;
    }
}

/// Shows whether root has opened the node.
fn bypassed(order: Option<&Bypass>) {
    for (strict, name) in [(false, "false"), (true, "true")] {
        let on = order.is_some_and(|order| order.strict == strict);
        metrics::gauge!("weft_agent_bypass", "strict" => name).set(f64::from(u8::from(on)));
    }
}

fn line(pod: &PodRef, protection: &Protection) -> [String; 4] {
    let (state, why) = match protection {
        Protection::Protected => ("protected", String::new()),
        Protection::Outside(why) => ("outside", why.to_string()),
        Protection::Closed(why) => ("closed", why.clone()),
        Protection::Unprotected(why) => ("unprotected", why.clone()),
    };
    [pod.namespace.to_string(), pod.name.to_string(), state.to_owned(), why]
}

fn set([namespace, pod, state, why]: &[String; 4], value: f64) {
    let labels = [("namespace", namespace), ("pod", pod), ("state", state), ("why", why)];
    let labels: Vec<_> = labels.into_iter().map(|(name, value)| metrics::Label::new(name, value.clone())).collect();
    metrics::gauge!("weft_agent_pod", labels).set(value);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::agent::Outside;

    fn pod(name: &str) -> PodRef {
        PodRef { namespace: "shop".into(), name: name.into(), uid: None }
    }

    fn local(name: &str, protection: Protection) -> LocalPod {
        LocalPod {
            sandbox: name.into(),
            pod: pod(name),
            ips: Vec::new(),
            node: "n1".into(),
            service_account: None,
            protection,
        }
    }

    /// The pods on the page, without their namespace, and their values.
    fn lines(page: &str) -> Vec<&str> {
        let prefix = "weft_agent_pod{namespace=\"shop\",pod=";
        let mut lines: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(prefix)).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn every_pod_says_how_it_stands_until_it_goes() {
        let recorder = builder(Duration::from_millis(20)).build_recorder();
        let page = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut shown = Shown::default();
            let closed = Protection::Closed("no proxy \"serves\"".into());
            let out = local("out", Protection::Outside(Outside::Disabled));
            shown.show(&[local("cart", closed), out], &[pod("lost")]);
            assert_eq!(
                lines(&page.render()),
                [
                    r#""cart",state="closed",why="no proxy \"serves\""} 1"#,
                    &format!(r#""lost",state="unprotected",why="{UNSEEN}"}} 1"#),
                    r#""out",state="outside",why="the pod is labelled weftmesh.io/mesh=disabled"} 1"#,
                ]
            );
            let protected = [local("cart", Protection::Protected)];
            shown.show(&protected, &[]);
            let rendered = page.render();
            let ones: Vec<_> = lines(&rendered).into_iter().filter(|line| line.ends_with("} 1")).collect();
            assert_eq!(ones, [r#""cart",state="protected",why=""} 1"#]);
            let until = Instant::now() + Duration::from_secs(10);
            loop {
                shown.show(&protected, &[]);
                let rendered = page.render();
                if lines(&rendered) == [r#""cart",state="protected",why=""} 1"#] {
                    break;
                }
                assert!(Instant::now() < until, "{rendered}");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }

    #[test]
    fn an_opened_node_says_so_until_it_is_given_back() {
        let recorder = builder(FORGOTTEN).build_recorder();
        let page = recorder.handle();
        let shown = |order: Option<&Bypass>| {
            metrics::with_local_recorder(&recorder, || bypassed(order));
            let rendered = page.render();
            let mut lines: Vec<_> = rendered.lines().filter(|line| line.starts_with("weft_agent_bypass{")).collect();
            lines.sort_unstable();
            lines.join(" ")
        };
        let order = |strict| Bypass { since: 1, by: "root".into(), reason: String::new(), strict };
        let line = |plain, strict| {
            format!("weft_agent_bypass{{strict=\"false\"}} {plain} weft_agent_bypass{{strict=\"true\"}} {strict}")
        };
        assert_eq!(shown(None), line(0, 0));
        assert_eq!(shown(Some(&order(false))), line(1, 0));
        assert_eq!(shown(Some(&order(true))), line(0, 1));
        assert_eq!(shown(None), line(0, 0));
    }

    #[test]
    fn a_pod_that_was_found_after_all_is_no_longer_unseen() {
        let report = Report::default();
        report.found(Outcome { adopted: 0, unseen: vec![pod("cart"), pod("lost")] });
        assert_eq!(report.unseen(&[local("cart", Protection::Protected)]), [pod("lost")]);
        report.found(Outcome::default());
        assert!(report.unseen(&[]).is_empty());
    }
}
