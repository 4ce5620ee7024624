//! The process of one Gateway in a cluster.
//!
//! It listens as its configuration comes, and is ready when it has all of it, has bound what can be bound and has a
//! certificate. What it can't bind it refuses to the controller by name. It keeps nothing on disk.

use std::sync::Arc;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_core::snapshot::Snapshot;
use weft_metrics::Component;
use weft_xds::client::ClientStatus;

use super::{
    Control, GatewaySettings, LogControl, Signals, connections, engine, first_configuration, on_control_threads,
};
use super::{memory, serve_admin, start_logging, taps, trust};
use crate::admin::Admin;
use crate::app::{GatewayProxy, Sources};
use crate::control::ConfigClient;
use crate::external;
use crate::gateway::Progress;
use crate::identify::Pod;
use crate::store::Store;

/// Runs the proxy of a Gateway until it was told to end and has drained.
///
/// # Errors
/// Settings, files and sockets without which there is nothing to run.
pub fn run_gateway(settings: GatewaySettings) -> anyhow::Result<()> {
    settings.validate()?;
    let log = start_logging(&settings.telemetry.log)?;
    on_control_threads(serve(settings, log))?;
    tracing::info!("ended");
    Ok(())
}

async fn serve(mut settings: GatewaySettings, log: LogControl) -> anyhow::Result<()> {
    // From now on as many as there are now, for all who count on it.
    settings.proxy.workers = settings.proxy.workers();
    let mut signals = Signals::new()?;
    let prometheus = PrometheusBuilder::new().install_recorder().context("metrics")?;
    weft_metrics::describe(Component::Proxy);
    let store = Arc::new(Store::with_domains(Snapshot::default(), settings.control.trust_domains()));
    let progress = Progress::new(settings.proxy.workers);
    let roots = trust::open(&settings.control)?;
    let name = format!("{}/{}", settings.proxy.gateway.namespace, settings.proxy.pod);
    let allowed = settings.proxy.allow_external_ranges.clone();
    let control = Control::start_with(&settings.control, roots, &store, |channel, token, sink| {
        tokio::spawn(external::follow(Arc::clone(&store), sink.clone(), allowed));
        ConfigClient::of_gateway(&name, channel, token, sink, progress.clone())
    })?;
    tokio::spawn(memory::keep_small(Arc::clone(&store), control.config.clone()));
    let connect = settings.proxy.limits().connect;
    let place = (&settings.proxy.node, settings.control.zone.clone());
    let (registry, records, engine) = engine(&settings.telemetry, place, connect, &store)?;
    let looked_at = engine.log.taps().clone();
    let sources = Sources {
        authority: Arc::new(control.identities),
        trust: control.trust,
        trust_domain: settings.control.trust_domain.clone(),
        store: Arc::clone(&store),
        engine,
    };
    let proxy = GatewayProxy::start(settings.proxy.clone(), sources, progress.clone())?;
    let (metrics, workers) = (proxy.metrics().with_config(control.config.clone()), Arc::clone(proxy.workers()));
    let waits = Waits {
        config: control.config.clone(),
        progress,
        source: Arc::clone(proxy.source()),
        leaving: proxy.leaving(),
    };
    let quit = CancellationToken::new();
    let admin = Admin {
        registry,
        records,
        istio_metrics: settings.telemetry.istio_metrics,
        process_metrics: Box::new(move || {
            prometheus.run_upkeep();
            prometheus.render() + &metrics.render()
        }),
        store,
        missing: Box::new(move || waits.missing()),
        connections: Box::new(move || connections(&workers)),
        set_log_filter: Box::new(move |filter| log.set(filter)),
        quit: quit.clone(),
    };
    let admin = serve_admin(admin, &settings.telemetry);
    let door = taps::door(&settings.control, &settings.telemetry, (proxy.certificates(), &proxy.source().identity))?;
    taps::serve(&looked_at, door, &settings.telemetry, &admin);
    tokio::spawn(first_configuration(control.config));
    tracing::info!(gateway = %settings.proxy.gateway, identity = %proxy.source().identity, "started");
    let told = async {
        tokio::select! { () = signals.stop() => {}, () = quit.cancelled() => {} }
    };
    proxy.run(told).await;
    admin.cancel();
    Ok(())
}

/// What a start waits for.
struct Waits {
    config: watch::Receiver<ClientStatus>,
    progress: Progress,
    source: Arc<Pod>,
    leaving: CancellationToken,
}

impl Waits {
    /// A place that can't be listened on isn't waited for: its neighbours would have no traffic either. The controller says
    /// it in the Gateway's status.
    fn missing(&self) -> Vec<&'static str> {
        if self.leaving.is_cancelled() {
            return vec!["its end: it was told to"];
        }
        let checks = [
            (self.config.borrow().synced, "configuration from the controller"),
            (self.progress.has_begun(), "its workers"),
            (self.source.lease.current().is_ok(), "a certificate from the authority"),
        ];
        checks.into_iter().filter(|(done, _)| !done).map(|(_, what)| what).collect()
    }
}
