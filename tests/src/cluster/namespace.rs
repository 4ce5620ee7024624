//! Namespaces of tests.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::{Answers, Cluster, Echo};

/// A namespace that goes with the value.
#[derive(Debug)]
pub struct TestNamespace {
    /// Where it is.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl TestNamespace {
    /// Applies manifests here.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut text = manifests.replace("@NS@", &self.name);
        for node in ["node1", "node2"] {
            let place = |node: &str| format!(r#""kubernetes.io/hostname": "{node}""#);
            if text.contains(&place(node)) {
                text = text.replace(&place(node), &place(&self.cluster.node(node)?));
            }
        }
        self.cluster.apply(&text)
    }

    /// Starts echo workloads and waits until they are ready.
    ///
    /// # Errors
    /// When they don't come up.
    pub fn run(&self, workloads: &[Echo<'_>]) -> Result<()> {
        for workload in workloads {
            self.apply(&workload.manifest())?;
        }
        workloads.iter().try_for_each(|w| self.cluster.wait_rollout(&self.name, &format!("deploy/{}", w.name)))
    }

    /// What the echo client in `deploy/NAME` is answered.
    ///
    /// # Errors
    /// When kubectl fails. A request that fails is an answer like any other.
    pub fn ask(&self, from: &str, args: &[&str]) -> Result<Answers> {
        let command = [&["/usr/local/bin/client"], args].concat();
        let output = self.cluster.exec(&self.name, &format!("deploy/{from}"), &command)?;
        Ok(Answers::parse(&output))
    }

    /// Whether every one of `count` requests is served.
    ///
    /// # Errors
    /// When one isn't.
    pub fn served(&self, from: &str, url: &str, count: usize) -> Result<()> {
        let answers = self.ask(from, &[url, &format!("--count={count}"), "--timeout=5s"])?;
        let (good, first) = (answers.with_status(200), answers.list.first());
        ensure!(good == count, "{good} of {count} from {url}: {first:?} {}", answers.error);
        Ok(())
    }

    /// Whether a pod is among those that answer `client` for `server`, and nobody fails.
    ///
    /// # Errors
    /// With its share.
    pub fn shared(&self, pod: &str) -> Result<()> {
        let answers = self.ask("client", &["http://server/", "--count=40", "--timeout=5s"])?;
        let (part, good) = (answers.from(pod), answers.with_status(200));
        ensure!(part > 0 && part < 40 && good == 40, "{part} of {good} from {pod}: {}", answers.error);
        Ok(())
    }

    /// Whether no request is served.
    ///
    /// # Errors
    /// When one is.
    pub fn refused(&self, from: &str, url: &str) -> Result<()> {
        let answers = self.ask(from, &[url, "--count=10", "--timeout=3s"])?;
        ensure!(answers.with_status(200) == 0, "{} of 10 from {url} were served", answers.with_status(200));
        Ok(())
    }

    /// The only pod of a workload: name, address, node.
    ///
    /// # Errors
    /// When there isn't exactly one.
    pub fn pod(&self, app: &str) -> Result<(String, String, String)> {
        let pods = self.cluster.json(&["-n", &self.name, "pods", "-l", &format!("app={app}")])?;
        let live = pods["items"].as_array().into_iter().flatten();
        let live: Vec<_> = live.filter(|p| p["metadata"]["deletionTimestamp"].is_null()).collect();
        let [pod] = live.as_slice() else { bail!("{} pods of {app}", live.len()) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]), text(&pod["spec"]["nodeName"])))
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("WEFT_KEEP").is_some() {
            return;
        }
        // The next run deletes what is left.
        let _ = self.cluster.k(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}
