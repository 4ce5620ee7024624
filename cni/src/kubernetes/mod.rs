//! The agent on a node of a Kubernetes cluster: `weft-agent`.
//!
//! ```text
//!   API server --watch--> world (who is in the mesh) --> agent --> rules, proxy
//!   /proc, /run/netns --> running pods ------------------^
//!   CNI directories <--> installer          probe through the data plane --> ready --> startup taint goes
//!   ConfigMap weft-uninstall --> leave: every pod, then the plugin
//! ```
//!
//! Invariants:
//! - An end of this process removes nothing: rules, plugin and proxies stay as they are, and pods of the mesh that start
//!   meanwhile wait. Only [`leave`] removes.
//! - Without an API server pods stay what they were, and pods of namespaces that are known to be outside can start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_kube::kube::Client;
use weft_kube::{Events, health};
use weft_metrics::Component;
use weft_sys::Netns;

use crate::agent::Agent;
use crate::cni::EnrolmentFile;
use crate::discovery;

pub mod installer;
pub mod leave;
pub mod node;
pub mod policy;
pub mod probe;
mod ready;
mod report;
pub mod running;
pub mod settings;
pub mod source;
pub mod traces;
pub mod world;

use installer::State;
use probe::Probe;
use ready::{Probed, Ready};
use report::Report;
pub use report::recorder;
use settings::RunSettings;
use source::ClusterSource;
use traces::Traces;
use world::World;

/// How long the start waits for the first lists: running pods are then given to the first proxy that asks. Without an
/// API server the agent starts with what it knew.
const FIRST_LISTS: Duration = Duration::from_secs(5);
/// Between two probes: after a failure, and to notice one.
const PROBES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How often the node is looked at for the taint, once it is ready.
const TAINTS: Duration = Duration::from_secs(60);

/// Runs the agent until a part of it fails, or the future is dropped.
///
/// # Errors
/// What the agent can't do without: its directories, sockets and addresses.
pub async fn run(
    settings: RunSettings,
    client: Client,
    metrics: PrometheusHandle,
    traces: Traces,
) -> anyhow::Result<()> {
    let (node, namespace) = (settings.node_name(), settings.mesh_namespace());
    let options = settings.agent();
    prepare(&settings.run_dir).context("--run-dir")?;
    let remembered = EnrolmentFile::read(&options.enrolment_file).map(EnrolmentFile::into_namespaces);
    let source = Arc::new(ClusterSource::new(World::new(
        namespace.clone(),
        settings.root_namespace(),
        remembered.unwrap_or_default(),
    )));
    let agent = Agent::open(options, Arc::clone(&source) as _).context("--state-dir")?;
    let (plugin, plugin_state) = watch::channel(State::Missing("it is only just being installed".to_owned()));
    let ready = Ready::new(Arc::clone(&source), plugin_state, agent.proxies().clone());
    let report = Report::new();

    let mut parts = JoinSet::new();
    for address in std::iter::once(settings.health).chain(settings.metrics) {
        serve_health(&mut parts, address, ready.clone(), metrics.clone());
    }
    let events = Events::new(client.clone(), "weftmesh.io/agent", node.as_str());
    parts.spawn({
        let (source, client, node) = (Arc::clone(&source), client.clone(), node.clone());
        async move {
            source.follow(client, &node, &events).await;
            Ok(())
        }
    });
    let home = Netns::current().context("this process's network namespace")?.id();
    let places = discovery::Places { proc: settings.proc.clone(), netns_dirs: settings.netns_dir.clone(), home };
    if tokio::time::timeout(FIRST_LISTS, source.listed()).await.is_err() {
        tracing::warn!(
            "the API server hasn't been reached in {FIRST_LISTS:?}: starting with what is known on this node"
        );
    }
    report.found(running::adopt(&agent, &source, &places).await);
    parts.spawn({
        let agent = Arc::clone(&agent);
        async move { agent.run().await.context("the sockets of the plugin and the proxy") }
    });
    parts.spawn({
        let (agent, source, report) = (Arc::clone(&agent), Arc::clone(&source), report.clone());
        async move {
            running::keep_adopting(agent, source, places, move |outcome| report.found(outcome)).await;
            Ok(())
        }
    });
    let probe = Probe { node: node.clone(), namespace: namespace.clone(), account: settings.account() };
    parts.spawn(keep_probing(Arc::clone(&agent), probe, ready.clone(), report.clone()));
    parts.spawn(keep_untainted(client.clone(), node.clone(), ready.clone()));
    parts.spawn(report.clone().keep_counting(Arc::clone(&agent), ready));
    tracing::info!(%node, %namespace, "agent started");
    parts.spawn(install_until_asked_to_leave(Node { settings, client, agent, source, traces }, plugin, report));
    match parts.join_next().await {
        Some(ended) => ended.context("a part of the agent").and_then(|result| result),
        None => Ok(()),
    }
}

/// What a part that leaves the node needs.
struct Node {
    settings: RunSettings,
    client: Client,
    agent: Arc<Agent>,
    source: Arc<ClusterSource>,
    traces: Traces,
}

fn serve_health(parts: &mut JoinSet<anyhow::Result<()>>, address: SocketAddr, ready: Ready, metrics: PrometheusHandle) {
    let missing = move || ready.missing();
    parts.spawn(async move { Ok(health::serve(address, missing, (Component::Agent, metrics)).await?) });
}

/// Installs the plugin and keeps it installed, until the mesh is to leave this node; then leaves, and stays away.
async fn install_until_asked_to_leave(node: Node, plugin: watch::Sender<State>, report: Report) -> anyhow::Result<()> {
    let Node { settings, client, agent, source, traces } = node;
    let (namespace, places) = (settings.mesh_namespace(), settings.plugin_places());
    let (looked, mut is_looked) = watch::channel(false);
    let asked = leave::asked(client.clone(), &namespace, &looked);
    let install = async {
        // One that starts while it should leave must not install first. Without an API server nobody has asked.
        let looked = async { is_looked.wait_for(|looked| *looked).await.is_ok() };
        let _in_time = tokio::time::timeout(FIRST_LISTS, looked).await;
        installer::keep_installed(places.clone(), plugin.clone(), |done| report.installed(done)).await;
        // Ends with the runtime only.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asked => {}
        () = install => {}
    }
    plugin.send_replace(State::Removed);
    let leaving = leave::Leaving { agent: &agent, source: &source, places: &places };
    leave::leave(client, &namespace, &settings.node_name(), leaving).await;
    traces.left();
    std::future::pending().await
}

/// Probes when a proxy comes or goes, soon after a failure, and from time to time.
async fn keep_probing(agent: Arc<Agent>, probe: Probe, ready: Ready, report: Report) -> anyhow::Result<()> {
    let rules = crate::rules::Rules::default();
    let mut connections = agent.proxies().connections();
    loop {
        connections.borrow_and_update();
        let passed = match agent.proxies().connected() {
            0 => false,
            _ => {
                let result = probe.run(agent.proxies(), &rules).await;
                report.probed(result.is_ok());
                match &result {
                    Ok(()) => tracing::debug!("the probe went through the data plane"),
                    Err(error) => tracing::warn!(%error, "the probe through the data plane failed"),
                }
                let passed = result.is_ok();
                ready.probed(result.map_or_else(|e| Probed::Failed(e.to_string()), |()| Probed::Passed));
                passed
            }
        };
        let pause = if passed { PROBES.1 } else { PROBES.0 };
        let _either = tokio::time::timeout(pause, connections.changed()).await;
    }
}

/// Takes the startup taint away once the node is ready, and again if it comes back.
async fn keep_untainted(client: Client, name: weft_core::ids::NodeName, ready: Ready) -> anyhow::Result<()> {
    loop {
        let pause = if ready.missing().is_empty() {
            match node::remove_taint(&client, &name).await {
                Ok(removed) => {
                    if removed {
                        tracing::info!(node = %name, "the node is ready for pods of the mesh; its startup taint is gone");
                    }
                    TAINTS
                }
                Err(error) => {
                    metrics::counter!("weft_agent_api_errors_total", "call" => "taint").increment(1);
                    tracing::warn!(%error, "the startup taint of the node can't be looked at");
                    PROBES.0
                }
            }
        } else {
            Duration::from_millis(500)
        };
        tokio::time::sleep(pause).await;
    }
}

fn prepare(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)
}
