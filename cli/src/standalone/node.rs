//! What every node of a standalone mesh runs: the agent, its session with the primary, DNS, and the proxy.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_cni::agent::{Agent, AgentOptions};
use weft_cni::install::install;
use weft_control::{channel, token_file};
use weft_controller::dns::{Resolver, upstreams_of};
use weft_core::identity::TrustDomain;
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_tls::{Clock, ControlClient, ServerTrust, TrustStore};

use super::files::Credentials;
use super::member::expected_primary;
use super::session::session;
use super::settings::Args;
use super::status::{self, Shared};
use super::supervisor::{ProxyCommand, supervise};
use super::{PRIMARY, files};

/// Gives the latest configuration.
pub type Current = Arc<dyn Fn() -> Arc<Snapshot> + Send + Sync>;

/// What a node knows of its mesh.
pub struct Home {
    /// This node.
    pub node: NodeName,
    /// The primary, `host:port`.
    pub primary: String,
    /// How to prove who this node is.
    pub credentials: Credentials,
    /// The mesh's roots.
    pub trust: TrustStore,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// The latest configuration.
    pub snapshot: Current,
}

/// Runs the node until it is told to end and its proxy has drained.
pub async fn run(args: &Args, home: Home, status: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let tls = ServerTrust::Bundle(home.trust.clone());
    let tls = ControlClient::new(tls, expected_primary(), Clock::system())?;
    let zone = args.zone.clone().unwrap_or_default();
    let (session, link) = session(channel(home.primary.clone(), tls), token_file(&home.credentials.token), zone);
    let agent_state = args.state.join("agent");
    files::prepare(&agent_state)?;
    let options = AgentOptions::new(home.node.clone(), agent_state).in_directory(&args.run);
    let agent = Agent::open(options, Arc::new(link)).context("the node's agent")?;
    let pods = agent.pods();

    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        session.run(pods).await;
        Ok(())
    });
    tasks.spawn({
        let agent = Arc::clone(&agent);
        async move { agent.run().await.context("the node's agent") }
    });
    serve_dns(args, &home, &mut tasks).await?;
    let (proxies, watching) = supervise(proxy_command(args, &home)?, stop.clone());
    status.set_node(status::NodeParts {
        node: home.node.clone(),
        primary: home.primary.clone(),
        pods: agent.pods(),
        snapshot: Arc::clone(&home.snapshot),
        proxies,
        trust: home.trust.clone(),
        trust_domain: home.trust_domain.clone(),
    });
    tasks.spawn(status::serve(&args.run.join("status.sock"), status)?);
    if let Some(dir) = &args.cni_dir {
        let file = install(dir, &plugin_settings(args)).context("--cni-dir")?.file;
        // It stays there when this process ends: pods of the mesh that start meanwhile must wait, not go past it.
        tracing::info!(file = %file.display(), "the CNI plugin is in the chain");
    }
    tracing::info!(node = %home.node, primary = home.primary, "node started");
    tokio::select! {
        ended = watching => ended.context("the proxy's supervisor"),
        Some(ended) = tasks.join_next() => {
            stop.cancel();
            ended.context("a part of the node").and_then(|result| result)
        }
    }
}

/// The plugin's entry in the chain must name where this node's agent is.
fn plugin_settings(args: &Args) -> weft_cni::install::Settings {
    let path = |name: &str| serde_json::Value::from(args.run.join(name).display().to_string());
    [("agentSocket", "agent.sock"), ("enrolmentFile", "enrolment.json"), ("missedDir", "missed")]
        .into_iter()
        .map(|(key, file)| (key.to_owned(), path(file)))
        .collect()
}

async fn serve_dns(args: &Args, home: &Home, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let upstreams = if args.dns_upstreams.is_empty() {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        upstreams_of(&text).into_iter().filter(|upstream| !args.dns.contains(upstream)).collect()
    } else {
        args.dns_upstreams.clone()
    };
    let snapshot = Arc::clone(&home.snapshot);
    let resolver = Resolver::new(Box::new(move || snapshot()), upstreams);
    for address in &args.dns {
        let udp = UdpSocket::bind(address).await.with_context(|| format!("--dns {address}"))?;
        let tcp = TcpListener::bind(address).await.with_context(|| format!("--dns {address}"))?;
        let (over_udp, over_tcp) = (Arc::clone(&resolver), Arc::clone(&resolver));
        tasks.spawn(async move { over_udp.serve_udp(udp).await.context("DNS") });
        tasks.spawn(async move { over_tcp.serve_tcp(tcp).await.context("DNS") });
    }
    Ok(())
}

fn proxy_command(args: &Args, home: &Home) -> anyhow::Result<ProxyCommand> {
    let account = format!("{}/{}", PRIMARY.0, PRIMARY.1);
    let mut arguments: Vec<OsString> = vec!["node-proxy".into()];
    let mut option = |name: &str, value: OsString| arguments.extend([OsString::from(name), value]);
    option("--node", home.node.as_str().into());
    option("--control", home.primary.clone().into());
    option("--control-account", account.clone().into());
    option("--ca-account", account.into());
    option("--trust-domain", home.trust_domain.as_str().into());
    home.trust.domains().aliases().iter().for_each(|alias| option("--trust-domain-alias", alias.as_str().into()));
    option("--token-file", home.credentials.token.clone().into());
    option("--trust-bundle", home.credentials.roots.clone().into());
    option("--agent-socket", args.run.join("proxy.sock").into());
    option("--handover-socket", absolute(&args.run.join("handover.sock"))?.into());
    option("--tap-socket", absolute(&args.run.join("tap.sock"))?.into());
    option("--saved-config", absolute(&args.state.join("config"))?.into());
    if let Some(zone) = &args.zone {
        option("--zone", zone.into());
    }
    // The primary gives them only to its own node.
    arguments.push("--gateways".into());
    arguments.extend(args.proxy.iter().cloned());
    // The file that this process runs, even if another has taken its name: replacing the proxy must take that one.
    let program = std::env::current_exe().context("this program's file")?;
    Ok(ProxyCommand { program, arguments })
}

fn absolute(path: &std::path::Path) -> std::io::Result<std::path::PathBuf> {
    std::path::absolute(path)
}
