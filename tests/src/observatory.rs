//! A real Prometheus beside a mesh, with the configuration of the examples and the rules of the chart.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use weft_testkit::Netns;
use weft_testkit::clients::get;
use weft_testkit::process::Process;

use crate::{Mesh, NODES, eventually, tool};

/// Where Prometheus answers.
const PORT: u16 = 9090;
/// Where nodes' proxies answer it: with [`STATUS_LISTEN`].
const STATUS: u16 = 15021;
/// What lets proxies answer it.
pub const STATUS_LISTEN: [&str; 2] = ["--status-listen", "0.0.0.0:15021"];
/// A Gateway for the shop, so that its dashboard has something to show: port 80 of each machine, `/catalog` of it.
pub const SHOP_GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: public, namespace: shop }
spec:
  gatewayClassName: weft
  listeners: [{ name: http, port: 80, protocol: HTTP }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: public, namespace: shop }
spec:
  parentRefs: [{ name: public }]
  rules:
  - matches: [{ path: { value: /catalog } }]
    backendRefs: [{ name: catalog-v1, port: 80 }]
";

/// A running Prometheus that scrapes twice a second. Dropping it ends it.
#[derive(Debug)]
pub struct Observatory {
    process: Process,
    place: Netns,
    at: SocketAddr,
    _folder: tempfile::TempDir,
}

/// Something that it scrapes.
#[derive(Clone, Debug)]
pub struct Target {
    /// What rules and dashboards know the program by.
    pub job: &'static str,
    /// The machine it is on.
    pub node: String,
    /// Where its metrics are.
    pub address: SocketAddr,
}

impl Observatory {
    /// The program, where `tests/tools/install.sh test` has installed it.
    pub fn program() -> Option<PathBuf> {
        tool("bin/prometheus").filter(|program| program.is_file())
    }

    /// One on the wire between the nodes of a mesh, which scrapes their proxies. They need [`STATUS_LISTEN`], and the wire
    /// an address.
    ///
    /// # Errors
    /// When it doesn't come up; with its log.
    pub fn of_mesh(mesh: &Mesh, wire: IpAddr) -> Result<Self> {
        let target = |name: &str| Target {
            job: "weft-node-proxy",
            node: name.to_owned(),
            address: (mesh.world.node(name).ipv4(), STATUS).into(),
        };
        Self::start(mesh.world.wire(), wire, &NODES.map(target))
    }

    /// One at an address of a namespace.
    ///
    /// # Errors
    /// When it isn't installed, or doesn't come up; with its log.
    pub fn start(place: &Netns, at: IpAddr, targets: &[Target]) -> Result<Self> {
        let program = Self::program().context("no Prometheus: run tests/tools/install.sh test")?;
        let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), tempfile::tempdir()?);
        let example = root.join("examples/observability/standalone/prometheus.yaml");
        let mut config: Value = serde_norway::from_str(&std::fs::read_to_string(example)?)?;
        config["global"] = json!({ "scrape_interval": "500ms", "evaluation_interval": "500ms" });
        config["rule_files"] = json!([root.join("charts/weft/files/rules.yaml")]);
        let mut jobs = Vec::new();
        for target in targets {
            let mut job = config["scrape_configs"][0].clone();
            job["job_name"] = json!(format!("{}-{}", target.job, target.address));
            let labels = json!({ "node": target.node, "job": target.job });
            job["static_configs"] = json!([{ "targets": [target.address.to_string()], "labels": labels }]);
            jobs.push(job);
        }
        config["scrape_configs"] = json!(jobs);
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, serde_norway::to_string(&config)?)?;
        let at = SocketAddr::new(at, PORT);
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file.display())).arg(format!("--web.listen-address={at}"));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        let process = place.start(command)?;
        let it = Self { process, place: place.clone(), at, _folder: folder };
        let is_ready = || Ok(it.place.block_on(get(at, "/-/ready")).is_ok_and(|reply| reply.status.is_success()));
        eventually("Prometheus is ready", is_ready).with_context(|| it.process.log().unwrap_or_default())?;
        Ok(it)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// What a query gives now: series with their labels (`metric`) and value (`value`).
    ///
    /// # Errors
    /// When Prometheus doesn't take the query.
    pub fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let query = utf8_percent_encode(expr, NON_ALPHANUMERIC);
        let reply = self.place.block_on(get(self.at, &format!("/api/v1/query?query={query}")))?;
        let said: Value = serde_json::from_slice(&reply.body)?;
        ensure!(said["status"] == "success", "{expr}\n{said:#}");
        Ok(said["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// The value of a query that gives one series.
    ///
    /// # Errors
    /// When it gives none, or several.
    pub fn value(&self, expr: &str) -> Result<f64> {
        let result = self.query(expr)?;
        let [one] = result.as_slice() else { anyhow::bail!("{expr}: {} series: {result:?}", result.len()) };
        Ok(one["value"][1].as_str().context("no value")?.parse()?)
    }
}
