//! The node proxy as a process: settings, configuration, certificates, telemetry and the proxy put together.
//!
//! Order of a start: the saved configuration, or else the first whole one of the controller; then the pods. A proxy
//! that knows nothing yet would take every address for one outside the mesh, so until it knows, no pod is given to it
//! and the predecessor, if there is one, goes on. Where it listens for Gateways, the predecessor also goes on until the
//! controller has said which listeners there are now, and these are bound; for some seconds.

mod gateway;
mod logging;
mod memory;
mod settings;
mod taps;
mod trust;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use weft_control::{IdentityClient, TokenSource, channel, token_file};
use weft_core::ids::{NodeName, Zone};
use weft_core::snapshot::Snapshot;
use weft_metrics::Component;
use weft_tls::{Clock, ControlClient, ServerTrust, TrustStore};
use weft_xds::client::{ClientStatus, Handle};

pub use self::gateway::run_gateway;
pub use self::logging::{LogControl, start_logging};
pub use self::settings::{Account, ControlSettings, GatewaySettings, ProcessSettings, TelemetrySettings};
pub use self::trust::keep_trust;
use crate::admin::Admin;
use crate::app::{Ending, Proxy, Sources};
use crate::balance::NodeZone;
use crate::control::{ConfigClient, ListensFrom};
use crate::external;
use crate::gateway::Progress;
use crate::inpod::LinkState;
use crate::otlp::ExportSettings;
use crate::records::Records;
use crate::relay::http::{HttpSettings, Telemetered};
use crate::store::{ConfigSink, ConfigSource, SavedFile, Store};
use crate::telemetry::{AccessLog, ProcessMetrics, Registry, start_lines};
use crate::trace;
use crate::worker::WorkerHandle;

/// Threads for everything that is not a connection.
const CONTROL_THREADS: usize = 2;
/// How often somebody is told what a start still waits for.
const WAITING: Duration = Duration::from_secs(10);

/// Runs a node proxy until it was told to end and has drained, or a successor has taken over.
///
/// # Errors
/// Settings, files and sockets without which there is nothing to run.
pub fn run(settings: ProcessSettings) -> anyhow::Result<()> {
    settings.validate()?;
    let log = start_logging(&settings.telemetry.log)?;
    let ending = on_control_threads(serve(settings, log))?;
    tracing::info!(?ending, "ended");
    Ok(())
}

/// Runs what isn't a connection to its end.
fn on_control_threads<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(work)?;
    // Tasks that wait on peers must not hold the end up.
    runtime.shutdown_background();
    Ok(ended)
}

async fn serve(mut settings: ProcessSettings, log: LogControl) -> anyhow::Result<Ending> {
    // From now on as many as there are now, for all who count on it.
    settings.proxy.workers = settings.proxy.workers();
    let mut signals = Signals::new()?;
    let prometheus = PrometheusBuilder::new().install_recorder().context("metrics")?;
    weft_metrics::describe(Component::Proxy);
    let saved = saved(settings.proxy.saved_config.as_deref());
    let starts_with_saved = saved.is_some();
    let store = Arc::new(Store::with_domains(saved.unwrap_or_default(), settings.control.trust_domains()));
    let progress = Progress::new(settings.proxy.workers);
    let from = if starts_with_saved { ListensFrom::TheStart } else { ListensFrom::ItsWorkers };
    let control = follow(&settings, &store, (progress.clone(), from))?;
    tokio::spawn(memory::keep_small(Arc::clone(&store), control.config.clone()));
    let connect = settings.proxy.limits().connect;
    let place = (&settings.proxy.node, settings.control.zone.clone());
    let (registry, records, engine) = engine(&settings.telemetry, place, connect, &store)?;
    let looked_at = engine.log.taps().clone();
    let quit = CancellationToken::new();
    let live = Arc::<OnceLock<Live>>::default();
    let admin = Admin {
        registry,
        records,
        istio_metrics: settings.telemetry.istio_metrics,
        process_metrics: process_metrics(prometheus, Arc::clone(&live)),
        store: Arc::clone(&store),
        missing: missing(control.config.clone(), starts_with_saved, Arc::clone(&live)),
        connections: Box::new({
            let live = Arc::clone(&live);
            move || connections(live.get().map(|live| &live.workers[..]).unwrap_or_default())
        }),
        set_log_filter: Box::new(move |filter| log.set(filter)),
        quit: quit.clone(),
    };
    let admin = serve_admin(admin, &settings.telemetry);
    if !starts_with_saved {
        let known = first_configuration(control.config.clone());
        tokio::select! { () = known => {}, () = signals.stop() => return Ok(Ending::Stopped) }
    }
    let sources = Sources {
        authority: Arc::new(control.identities),
        trust: control.trust,
        trust_domain: settings.control.trust_domain.clone(),
        store,
        engine,
    };
    let proxy = Proxy::start(settings.proxy.clone(), sources, progress).await?;
    // Without a door for the controller, outside of Kubernetes, nobody gives this process an identity.
    let own = settings.control.identity(&settings.own_account);
    let _lease = settings.telemetry.tap_listen.map(|_| proxy.lease(&own));
    let door = taps::door(&settings.control, &settings.telemetry, (&proxy.node.certificates, &own))?;
    taps::serve(&looked_at, door, &settings.telemetry, &admin);
    let metrics = proxy.metrics().with_config(control.config.clone());
    // Set once: there is one proxy.
    let (agent, workers) = (proxy.agent_link(), Arc::clone(proxy.workers()));
    let _ = live.set(Live { metrics, agent, replaced: proxy.replaced(), workers });
    let (displaced, leave) = (proxy.displaced(), admin.clone());
    tokio::spawn(async move {
        displaced.cancelled().await;
        leave.cancel();
    });
    tracing::info!(node = %settings.proxy.node, "serving");
    let ending = proxy
        .run(async {
            tokio::select! { () = signals.stop() => {}, () = quit.cancelled() => {} }
        })
        .await;
    admin.cancel();
    Ok(ending)
}

/// Starts the conversation with the control plane, about Gateways too if the node listens for them.
fn follow(settings: &ProcessSettings, store: &Arc<Store>, listens: (Progress, ListensFrom)) -> anyhow::Result<Control> {
    let (node, trust) = (&settings.proxy.node, trust::open(&settings.control)?);
    Control::start_with(&settings.control, trust, store, |channel, token, sink| match settings.gateways {
        true => {
            // For the Gateways only: what pods send goes to no host outside by a route.
            tokio::spawn(external::follow(Arc::clone(store), sink.clone(), Vec::new()));
            ConfigClient::with_gateways(node, channel, token, sink, listens)
        }
        false => ConfigClient::new(node, channel, token, sink),
    })
}

/// What there is to tell of the proxy once it runs; the admin server is there before it.
struct Live {
    metrics: ProcessMetrics,
    agent: watch::Receiver<LinkState>,
    replaced: CancellationToken,
    workers: Arc<[WorkerHandle]>,
}

/// The conversation with the control plane, under way.
pub struct Control {
    /// Roots, as the authority changes them.
    pub trust: TrustStore,
    /// Where certificates come from.
    pub identities: IdentityClient,
    /// How far the configuration is followed.
    pub config: watch::Receiver<ClientStatus>,
}

impl Control {
    /// Follows roots, kept in their file too, and configuration, into `store`, which may hold a saved one. Must be called on
    /// a runtime.
    ///
    /// # Errors
    /// If the cryptography library can't be set up.
    pub fn start(
        node: &NodeName,
        control: &ControlSettings,
        trust: TrustStore,
        store: &Arc<Store>,
    ) -> anyhow::Result<Self> {
        let follow = |channel, token, sink| ConfigClient::new(node, channel, token, sink);
        Self::start_with(control, trust, store, follow)
    }

    /// As [`Self::start`], with a client of the configuration that `follow` makes.
    fn start_with(
        control: &ControlSettings,
        trust: TrustStore,
        store: &Arc<Store>,
        follow: impl FnOnce(Channel, TokenSource, ConfigSink) -> (ConfigClient, Handle),
    ) -> anyhow::Result<Self> {
        let token = token_file(&control.token_file);
        let client = |account: &Account| {
            ControlClient::new(ServerTrust::Bundle(trust.clone()), account.expected(), Clock::system())
        };
        let ca = control.ca.as_ref().unwrap_or(&control.control);
        let identities =
            IdentityClient::new(ca.clone(), client(&control.ca_account)?, Arc::clone(&token), trust.clone());
        tokio::spawn({
            let identities = identities.clone();
            async move { identities.follow_bundle().await }
        });
        tokio::spawn(keep_trust(control.trust_bundle.clone(), control.trust_domain.clone(), trust.clone()));
        let (sink, source) = ConfigSource::channel();
        tokio::spawn({
            let store = Arc::clone(store);
            async move { store.follow(source).await }
        });
        let channel = channel(control.control.clone(), client(&control.control_account)?);
        let (config, handle) = follow(channel, token, sink);
        let config = config.holding(&store.load());
        tokio::spawn(async move {
            // The client serves demands only while somebody can make them.
            let _demands = handle.demands;
            config.run().await;
        });
        Ok(Self { trust, identities, config: handle.status })
    }
}

fn engine(
    telemetry: &TelemetrySettings,
    (node, zone): (&NodeName, Option<Zone>),
    connect_timeout: Duration,
    store: &Arc<Store>,
) -> anyhow::Result<(Arc<Registry>, Records, Arc<Telemetered>)> {
    let registry = Arc::new(Registry::with_budget(telemetry.metrics_series));
    let log = access_log(telemetry, node, store)?;
    let zone = NodeZone::new(zone);
    let settings = HttpSettings { connect_timeout, ..HttpSettings::default() };
    let records = Records::new(telemetry.keep());
    let (all, kept) = (Arc::clone(&registry), records.clone());
    let engine = Telemetered { registry: all, log, records: kept, shared: Arc::default(), zone, settings };
    Ok((registry, records, Arc::new(engine)))
}

/// The access log, and the ways of spans and of its lines to collectors, each with a thread of its own.
fn access_log(telemetry: &TelemetrySettings, node: &NodeName, store: &Arc<Store>) -> anyhow::Result<AccessLog> {
    let (log, queue) = AccessLog::new(telemetry.access_log, telemetry.access_log_format);
    std::thread::Builder::new().name("access-log".into()).spawn(move || {
        // Whoever reads it may go away; traffic goes on without a log.
        if let Err(error) = queue.write_to(io::stdout().lock()) {
            tracing::error!("the access log can't be written any more: {error}");
        }
    })?;
    let settings = ExportSettings { endpoint: telemetry.otlp_endpoint.clone(), node: node.clone() };
    let has_collector = settings.endpoint.is_some();
    let spans = trace::start(settings, Arc::clone(store))?;
    let log = log.following(Arc::clone(store)).sending(spans, has_collector, telemetry.trace_sampling);
    let settings = ExportSettings { endpoint: telemetry.otlp_logs_endpoint.clone(), node: node.clone() };
    let has_collector = settings.endpoint.is_some();
    Ok(log.exporting(start_lines(settings, Arc::clone(store))?, has_collector))
}

fn saved(file: Option<&Path>) -> Option<Snapshot> {
    let path = file?;
    let read = SavedFile::new(path).read();
    read.unwrap_or_else(|error| {
        tracing::warn!(file = %path.display(), "saved configuration not used: {error}");
        None
    })
}

async fn first_configuration(mut status: watch::Receiver<ClientStatus>) {
    loop {
        let synced = status.wait_for(|status| status.synced);
        if tokio::time::timeout(WAITING, synced).await.is_ok() {
            return;
        }
        let error = status.borrow().last_error.clone().unwrap_or_else(|| "no answer yet".to_owned());
        tracing::warn!(error, "waiting for the controller: there is no saved configuration to start with");
    }
}

/// Those of the `metrics` crate, and those of the proxy once it runs.
fn process_metrics(prometheus: PrometheusHandle, live: Arc<OnceLock<Live>>) -> Box<dyn Fn() -> String + Send + Sync> {
    Box::new(move || {
        prometheus.run_upkeep();
        prometheus.render() + &live.get().map(|live| live.metrics.render()).unwrap_or_default()
    })
}

fn missing(
    config: watch::Receiver<ClientStatus>,
    has_saved: bool,
    live: Arc<OnceLock<Live>>,
) -> Box<dyn Fn() -> Vec<&'static str> + Send + Sync> {
    Box::new(move || {
        let mut missing = Vec::new();
        if !has_saved && !config.borrow().synced {
            missing.push("configuration from the controller");
        }
        match live.get() {
            Some(live) if live.replaced.is_cancelled() => missing.push("its end: a successor has taken over"),
            Some(live) if *live.agent.borrow() == LinkState::Live => {}
            _ => missing.push("pods from the node's agent"),
        }
        missing
    })
}

/// How many connections each worker has.
fn connections(workers: &[WorkerHandle]) -> serde_json::Value {
    let counts: Vec<usize> = workers.iter().map(WorkerHandle::connections).collect();
    serde_json::json!({ "total": counts.iter().sum::<usize>(), "workers": counts })
}

/// Serves the admin and status pages until the token that it returns is cancelled. A predecessor that shares our network
/// has the addresses until it is replaced.
fn serve_admin(admin: Admin, settings: &TelemetrySettings) -> CancellationToken {
    let (admin, stop) = (Arc::new(admin), CancellationToken::new());
    let (pages, stopped, address) = (Arc::clone(&admin), stop.clone(), settings.admin);
    tokio::spawn(listening("admin", address, move || Arc::clone(&pages).serve(address, stopped.clone())));
    if let Some(address) = settings.status_listen {
        let stopped = stop.clone();
        let serve = move || Arc::clone(&admin).serve_status(address, stopped.clone());
        tokio::spawn(listening("status", address, serve));
    }
    stop
}

/// Serves as soon as the address can be had.
async fn listening<F>(what: &'static str, address: SocketAddr, serve: impl Fn() -> F)
where
    F: Future<Output = io::Result<()>>,
{
    let mut said = false;
    while let Err(error) = serve().await {
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(%address, "the {what} server can't listen yet: {error}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The soft limit of descriptors is what decides how many connections fit; the hard one is ours to use.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(soft, hard, "the limit of descriptors stays low: {error}");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot is never without its mesh-wide settings: whether there is a configuration is for the file to say.
    #[test]
    fn a_start_without_a_usable_file_waits_for_the_controller() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        assert!(saved(None).is_none());
        assert!(saved(Some(&path)).is_none(), "there is none yet");
        std::fs::write(&path, "cut off").unwrap();
        assert!(saved(Some(&path)).is_none(), "a damaged one");
        SavedFile::new(&path).write(&Snapshot::default()).unwrap();
        assert!(saved(Some(&path)).is_some());
    }
}
