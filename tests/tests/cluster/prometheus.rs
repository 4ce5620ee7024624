//! A real Prometheus beside a cluster, with the scrape configuration of the evaluation bundle.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};
use weft_testkit::Netns;
use weft_testkit::process::Process;
use weft_tests::Observatory;
use weft_tests::cluster::{Cluster, repository};

const ADDRESS: &str = "127.0.0.1:19090";
/// Names a folder for pictures of dashboards.
const PICTURES: &str = "WEFT_PICTURES";

/// A Prometheus in the network from which pods can be reached.
pub struct Prometheus {
    cluster: Cluster,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// One that scrapes and evaluates the chart's rules every second.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Self::with_rules(cluster, &repository().join("charts/weft/files/rules.yaml"))
    }

    /// The same with other rules.
    pub fn with_rules(cluster: &Cluster, rules: &Path) -> Result<Self> {
        let program = Observatory::program().context("no Prometheus: run tests/tools/install.sh test")?;
        let bundle = std::fs::read_to_string(repository().join("examples/observability/kubernetes/prometheus.yaml"))?;
        let objects = serde_norway::Deserializer::from_str(&bundle).map(Value::deserialize);
        let objects: Vec<_> = objects.collect::<Result<_, _>>()?;
        let text = objects.iter().find_map(|it| it["data"]["prometheus.yaml"].as_str()).context("no configuration")?;
        let mut config: Value = serde_norway::from_str(text)?;
        let kubeconfig = cluster.beside(&["printenv", "KUBECONFIG"]).context("not a cluster of ours")?.output()?;
        let kubeconfig = String::from_utf8(kubeconfig.stdout)?.trim().to_owned();
        config["scrape_configs"][0]["kubernetes_sd_configs"][0]["kubeconfig_file"] = json!(kubeconfig);
        config["global"] = json!({ "scrape_interval": "1s", "evaluation_interval": "1s" });
        config["rule_files"] = json!([rules]);
        let folder = tempfile::tempdir()?;
        let (file, data) = (folder.path().join("prometheus.yaml"), folder.path().join("data"));
        std::fs::write(&file, serde_norway::to_string(&config)?)?;
        let program = program.display().to_string();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let mut words = vec![program.as_str()];
        words.extend(arguments.iter().map(String::as_str));
        let process = Process::start(&Netns::here(), cluster.beside(&words).context("not a cluster of ours")?)?;
        Ok(Self { cluster: cluster.clone(), process, _folder: folder })
    }

    /// What a query gives now: series with their labels (`metric`) and value (`value`).
    pub fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let answer = self.ask("query", &["--data-urlencode", &format!("query={expr}")])?;
        ensure!(answer["status"] == "success", "{expr}\n{answer:#}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Alerts that fire now: their labels.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let answer = self.ask("alerts", &[])?;
        let all = answer["data"]["alerts"].as_array().context("no alerts in the answer")?;
        Ok(all.iter().filter(|it| it["state"] == "firing").map(|it| it["labels"].clone()).collect())
    }

    /// What a picture shows.
    pub const SHOWN: Duration = Duration::from_mins(2);

    /// Whether pictures are wanted: `WEFT_PICTURES` names a folder for them.
    pub fn draws() -> bool {
        std::env::var_os(PICTURES).is_some()
    }

    /// Draws a dashboard with what it knows of the last two minutes, where pictures are wanted.
    pub fn draw(&self, dashboard: &str) -> Result<()> {
        let Some(folder) = std::env::var_os(PICTURES) else { return Ok(()) };
        let pages = tempfile::tempdir()?;
        let [program, dashboards] = ["tests/pictures/render.py", "charts/weft/files/dashboards"]
            .map(|it| repository().join(it).display().to_string());
        let (address, page) = (format!("http://{ADDRESS}"), pages.path().display().to_string());
        let minutes = (Self::SHOWN.as_secs() / 60).to_string();
        let words = ["python3", &program, &address, &dashboards, &page, "--minutes", &minutes, "--only", dashboard];
        let mut render = self.cluster.beside(&words).context("not a cluster of ours")?;
        let mut photograph = Command::new(repository().join("tests/pictures/photograph.sh"));
        for command in [&mut render, photograph.arg(pages.path()).arg(folder)] {
            let output = command.stdin(Stdio::null()).output()?;
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn ask(&self, what: &str, more: &[&str]) -> Result<Value> {
        let url = format!("http://{ADDRESS}/api/v1/{what}");
        let words = [&["curl", "--silent", "--show-error", "--max-time", "10", url.as_str()], more].concat();
        let mut command: Command = self.cluster.beside(&words).context("not a cluster of ours")?;
        let output = command.stdin(Stdio::null()).output()?;
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stderr), self.process.log().unwrap_or_default());
        serde_json::from_slice(&output.stdout).with_context(said)
    }
}
