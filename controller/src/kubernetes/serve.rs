//! The controller as a process: everything put together, and its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use weft_control::{IdentityClient, bind, control_incoming, token_file};
use weft_core::tap;
use weft_kube::kube::Client;
use weft_kube::{Events, KnownPods, Leadership, LeaseSettings, OfflineReview, Reviewer, health};
use weft_metrics::{Component, SECONDS};
use weft_tls::{
    CertManager, CertStore, ClientTls, Clock, ControlClient, ControlServer, ExpectedServer, IdentityLease,
    ManagerSettings, ServerTrust, TlsSettings, TrustBundle, TrustStore,
};
use weft_xds::server::{Publisher, Server};

use super::access::ProxyAccess;
use super::board::{self, Own};
use super::bound::Bound;
use super::gateways::{self, Provisioner};
use super::refusals::Refusals;
use super::settings::Settings;
use super::task::{self, Configuration, Outlets};
use super::world::World;
use super::{ending, intake, statuses};
use crate::view::{Places, Proxies, View, by_tls, page_of};

/// The name of the Lease.
const LEASE: &str = "weft-controller";
/// Facts and refusals that may wait.
const FACTS: usize = 1024;
const NACKS: usize = 64;
/// How often what a start waits for is looked at, and told.
const LOOK: Duration = Duration::from_secs(2);
const TELL: Duration = Duration::from_secs(30);
/// A proxy proves itself anew this often, so that one whose pod is gone doesn't follow for ever. Its stream ends by itself
/// then, and its next one may go over the same connection. A connection takes no more streams at this age, so that proxies
/// spread over the replicas anew. It has no grace: after one, tonic would cut the streams that are there.
const AGE: Duration = Duration::from_secs(3600);
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Runs the controller until the process is told to end.
///
/// # Errors
/// Settings and sockets without which there is nothing to run.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let stopped = stopped()?;
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("metrics")?;
    weft_metrics::describe(Component::Controller);
    let client = weft_kube::client().await?;
    let controller = Controller::start(&client, &settings);
    let (listening, is_listening) = watch::channel(false);
    let (trust, trusted) = watch::channel(None);
    let Controller { publisher, access, missing, leadership, configuration } = controller;
    let health = serve_health(&settings, missing.clone(), (trusted, is_listening), metrics);
    let serving = async {
        let identity = own_identity(&settings, &trust).await?;
        whole(missing.clone()).await;
        let view = view(&client, &settings, &identity, &access);
        view.dashboard.follow(configuration, Arc::new(|proxy| Box::pin(page_of(proxy))));
        let people = serve_view(&settings, &identity, view);
        let proxies = serve_xds(&settings, Arc::clone(&identity), publisher, (access, listening));
        tokio::try_join!(people, proxies).map(drop)
    };
    let ended = tokio::select! {
        ended = serving => ended,
        ended = health => ended.context("health"),
        () = stopped => Ok(()),
    };
    // The next leader need not wait for this one to be silent for long.
    leadership.release().await;
    ended
}

/// The parts that run in the background.
pub struct Controller {
    /// What is served.
    pub publisher: Publisher,
    /// Who may follow it.
    pub access: Arc<ProxyAccess>,
    /// Kinds that weren't heard of yet.
    pub missing: watch::Receiver<Vec<&'static str>>,
    /// Whether this replica writes statuses.
    pub leadership: Leadership,
    /// What is published, for who asks.
    pub configuration: Configuration,
}

impl Controller {
    /// Starts to watch, to compute and, while it leads, to write statuses. Must be called on a runtime.
    pub fn start(client: &Client, settings: &Settings) -> Self {
        let events = Events::new(client.clone(), "weftmesh.io/controller", &settings.instance);
        let leadership = Leadership::start(
            client.clone(),
            LeaseSettings {
                namespace: settings.namespace.to_string(),
                name: LEASE.to_owned(),
                identity: settings.instance.clone(),
                duration: settings.lease,
            },
        );
        let (sender, facts) = mpsc::channel(FACTS);
        let (nack, nacks) = mpsc::channel(NACKS);
        let (wanted, queue) = mpsc::unbounded_channel();
        let publisher = Publisher::default();
        let known = Arc::new(KnownPods::default());
        let offline = Arc::new(OfflineReview::new(client.clone(), Arc::clone(&known)));
        let reviewer = Reviewer::new(client.clone(), settings.token_audience.as_str()).or(Arc::clone(&offline));
        let account = settings.proxy_account.clone();
        let refused = Own::default();
        let bound = Own::<Bound>::default();
        let heard = (nack, refused.clone(), bound.clone());
        let access = Arc::new(ProxyAccess::new(reviewer, account, publisher.clone(), heard));
        let (namespace, instance) = (settings.namespace.to_string(), settings.instance.clone());
        let world = World::new(settings.index.clone(), settings.ranges.clone()).of_replica(&namespace, &instance);
        let (missing, is_missing) = watch::channel(world.missing());
        let ((gone, are_gone), (gone_of_bound, of_bound)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let (plans, planned) = watch::channel(None);
        let outlets = Outlets {
            publisher: publisher.clone(),
            access: Arc::clone(&access),
            statuses: wanted,
            events: events.clone(),
            missing,
            gone,
            gone_of_bound,
            plans,
        };
        if let Some(settings) = settings.gateways.clone() {
            let (client, events, leader) = (client.clone(), events.clone(), leadership.is_leader());
            let provisioner = Provisioner { client, events, settings, leader, plans: planned, facts: sender.clone() };
            tokio::spawn(gateways::run(provisioner));
        }
        tokio::spawn(ending::run(client.clone(), settings.namespace.to_string(), leadership.is_leader()));
        tokio::spawn(statuses::run(client.clone(), events, leadership.is_leader(), queue));
        let (configuration, questions) = Configuration::channel();
        tokio::spawn(task::run(world, outlets, leadership.is_leader(), facts, (nacks, questions)));
        tokio::spawn(offline.follow());
        intake::start(client, &sender, settings.gateways.is_some(), &known);
        tokio::spawn(board::follow::<Refusals>(client.clone(), namespace.clone(), sender.clone()));
        tokio::spawn(refused.clone().measure());
        tokio::spawn(board::tell(client.clone(), namespace.clone(), instance.clone(), refused, are_gone));
        tokio::spawn(board::follow::<Bound>(client.clone(), namespace.clone(), sender.clone()));
        tokio::spawn(bound.clone().hear(sender));
        tokio::spawn(board::tell(client.clone(), namespace, instance, bound, of_bound));
        Self { publisher, access, missing: is_missing, leadership, configuration }
    }
}

async fn serve_health(
    settings: &Settings,
    missing: watch::Receiver<Vec<&'static str>>,
    (trusted, listening): (watch::Receiver<Option<Arc<IdentityLease>>>, watch::Receiver<bool>),
    metrics: PrometheusHandle,
) -> std::io::Result<()> {
    let bundle = settings.trust_bundle.display().to_string();
    let missing = move || {
        let mut lines: Vec<String> =
            missing.borrow().iter().map(|kind| format!("the list of all {kind} objects")).collect();
        match &*trusted.borrow() {
            None => lines.push(format!("the mesh's roots in {bundle}")),
            Some(lease) => lines.extend(lease.current().err().map(|e| format!("a certificate of its own: {e}"))),
        }
        if !*listening.borrow() {
            lines.push("the listener for node proxies".to_owned());
        }
        lines
    };
    health::serve_on(bind(settings.health).await?, missing, (Component::Controller, metrics)).await
}

/// Waits until every kind was heard of.
async fn whole(mut missing: watch::Receiver<Vec<&'static str>>) {
    loop {
        let waited = tokio::time::timeout(TELL, missing.wait_for(Vec::is_empty)).await.map(|heard| heard.is_ok());
        match waited {
            Ok(true) => return,
            // The task that tells goes only with the process.
            Ok(false) => return std::future::pending().await,
            Err(_elapsed) => tracing::warn!(kinds = ?*missing.borrow(), "waiting for the lists of these kinds"),
        }
    }
}

/// The certificate of this process: from the authority, like any workload's.
async fn own_identity(
    settings: &Settings,
    trusted: &watch::Sender<Option<Arc<IdentityLease>>>,
) -> anyhow::Result<Arc<Identity>> {
    let trust = TrustStore::with_domains(roots(settings).await, settings.index.mesh.trust_domains.clone())?;
    let (namespace, service_account) = settings.ca_account.clone();
    let expected = ExpectedServer::Account { namespace, service_account };
    let tls = ControlClient::new(ServerTrust::Bundle(trust.clone()), expected, Clock::system())?;
    let authority = IdentityClient::new(settings.ca.clone(), tls, token_file(&settings.token_file), trust.clone());
    tokio::spawn({
        let authority = authority.clone();
        async move { authority.follow_bundle().await }
    });
    let store = CertStore::new(trust, Clock::system(), TlsSettings::default());
    let manager = CertManager::new(store.clone(), Arc::new(authority), ManagerSettings::default(), Handle::current());
    let lease = Arc::new(manager.lease(&settings.identity));
    trusted.send_replace(Some(Arc::clone(&lease)));
    while let Err(error) = lease.ready(TELL).await {
        tracing::warn!(authority = settings.ca, "waiting for a certificate: {error}");
    }
    let server = ControlServer::for_identity(&store, &settings.identity)?;
    Ok(Arc::new(Identity { server, client: ClientTls::for_identity(&store, &settings.identity)?, _manager: manager }))
}

/// What serves as this process, with what keeps its certificate fresh.
struct Identity {
    server: ControlServer,
    /// What dials proxies as this process.
    client: ClientTls,
    _manager: CertManager,
}

/// The roots of the file, which the authority publishes when it runs for the first time.
async fn roots(settings: &Settings) -> TrustBundle {
    let (path, mut looked) = (&settings.trust_bundle, 0_u32);
    loop {
        let read = tokio::fs::read(path).await.map_err(anyhow::Error::from);
        let domain = settings.identity.trust_domain.clone();
        match read.and_then(|pem| Ok(TrustBundle::from_pem(domain, &pem)?)) {
            Ok(bundle) => return bundle,
            Err(error) if looked % 15 == 0 => {
                tracing::warn!(file = %path.display(), "waiting for the mesh's roots: {error:#}");
            }
            Err(_) => {}
        }
        looked = looked.wrapping_add(1);
        tokio::time::sleep(LOOK).await;
    }
}

async fn serve_xds(
    settings: &Settings,
    identity: Arc<Identity>,
    publisher: Publisher,
    (access, listening): (Arc<ProxyAccess>, watch::Sender<bool>),
) -> anyhow::Result<()> {
    let listener = bind(settings.listen).await.with_context(|| format!("--listen {}", settings.listen))?;
    tracing::info!(address = %listener.local_addr()?, identity = %settings.identity, "serving node proxies");
    let incoming = control_incoming(listener, identity.server.clone());
    listening.send_replace(true);
    tonic::transport::Server::builder()
        .max_connection_age(AGE)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(Server::service_with_age(publisher, access, AGE))
        .serve_with_incoming(incoming)
        .await
        .context("the service for node proxies")
}

/// What people may see of the live mesh.
fn view(client: &Client, settings: &Settings, identity: &Identity, access: &Arc<ProxyAccess>) -> Arc<View> {
    let access = Arc::clone(access);
    let places = Places {
        client: client.clone(),
        account: settings.proxy_account.clone(),
        trust_domain: settings.identity.trust_domain.clone(),
        of_gateway: Arc::new(move |namespace, account| access.gateway_of(namespace, account)),
    };
    View::new(client.clone(), Proxies::new(places, by_tls(identity.client.clone(), tap::PORT)))
}

async fn serve_view(settings: &Settings, identity: &Identity, view: Arc<View>) -> anyhow::Result<()> {
    let listener = bind(settings.view).await.with_context(|| format!("--view {}", settings.view))?;
    tracing::info!(address = %listener.local_addr()?, "showing the live mesh to whoever may see it");
    view.serve(listener, identity.server.clone()).await;
    Ok(())
}

/// Ends when the process is asked to.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("asked to end");
    })
}
