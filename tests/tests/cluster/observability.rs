//! What a Prometheus sees of a cluster, with the scrape configuration of the evaluation bundle.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};
use weft_observability::grafana::Board;
use weft_observability::{Needs, dashboards, with_all_chosen};
use weft_testkit::Netns;
use weft_testkit::process::Process;
use weft_tests::Observatory;
use weft_tests::cluster::{Cluster, PATIENCE, eventually, repository, strict_pair};

const ADDRESS: &str = "127.0.0.1:19090";

/// A Prometheus in the network from which pods can be reached.
struct Prometheus {
    cluster: Cluster,
    process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(cluster: &Cluster) -> Result<Self> {
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
        config["rule_files"] = json!([repository().join("charts/weft/files/rules.yaml")]);
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

    fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let (url, query) = (format!("http://{ADDRESS}/api/v1/query"), format!("query={expr}"));
        let words = ["curl", "--silent", "--show-error", "--max-time", "10", &url, "--data-urlencode", &query];
        let mut command: Command = self.cluster.beside(&words).context("not a cluster of ours")?;
        let output = command.stdin(Stdio::null()).output()?;
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stderr), self.process.log().unwrap_or_default());
        let answer: Value = serde_json::from_slice(&output.stdout).with_context(said)?;
        ensure!(answer["status"] == "success", "{expr}\n{answer:#}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

#[test]
#[ignore = "needs a cluster"]
fn the_dashboard_of_the_control_plane_has_data_in_every_panel_that_needs_no_fault() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("LEFT OUT: pods of this cluster can't be reached from here");
        return Ok(());
    }
    let ns = strict_pair("observed")?;
    let prometheus = Prometheus::start(&cluster)?;
    let queries: Vec<_> = dashboards::all()
        .iter()
        .flat_map(|board| board.panels().map(move |panel| (board.board, panel.clone())))
        .flat_map(|(board, panel)| panel.queries.into_iter().map(move |query| (board, panel.title, query)))
        .filter(|(board, _, query)| {
            query.needs == Needs::Cluster || *board == Board::ControlPlane && query.needs == Needs::Traffic
        })
        .collect();
    ensure!(queries.len() > 15, "{} queries", queries.len());
    eventually("every query to return data", 2 * PATIENCE, || {
        ns.served("client", "http://server/", 5)?;
        for (_, panel, query) in &queries {
            let found = prometheus.query(&with_all_chosen(&query.expr)).with_context(|| (*panel).to_owned())?;
            ensure!(!found.is_empty(), "{panel}: {}: nothing", query.expr);
        }
        Ok(())
    })?;
    // What rules and dashboards know programs and machines by.
    for job in ["weft-node-proxy", "weft-agent", "weft-controller", "weft-ca"] {
        let up = prometheus.query(&format!(r#"up{{job="{job}", node!=""}} == 1"#))?;
        ensure!(!up.is_empty(), "no {job} is scraped");
    }
    Ok(())
}
