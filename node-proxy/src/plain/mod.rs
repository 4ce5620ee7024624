//! The HTTP engine alone, between fixed listeners and fixed endpoints, without a mesh: for benchmarks against other
//! proxies and for reproducing a routing problem on a desk.
//!
//! The same code serves as in the mesh: the configuration becomes an ordinary snapshot, requests are routed on it, and
//! metrics and the access log are on. Only identities, tunnels and limits on connections are missing.

mod config;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;
use weft_core::snapshot::{Frontend, Snapshot};

pub use config::{InvalidPlain, PlainConfig};
pub(crate) use source::fixed_pod;
#[cfg(test)]
pub(crate) use source::pod_of;

use crate::balance::{Balancers, NodeZone, Place};
use crate::connect::{ConnectError, Dial, Target, UpstreamStream, resolve};
use crate::identify::LocalWorkload;
use crate::records::Records;
use crate::relay::front::{HttpRelay, OutboundConnection};
use crate::relay::http::{Engine, EngineParts, HttpFront, HttpSettings};
use crate::store::Store;
use crate::telemetry::{AccessLog, LogFormat, Registry, WorkerTelemetry};

/// The pause after accept() failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A plain proxy that runs.
#[derive(Debug)]
pub struct Plain {
    /// Metrics of the workers.
    pub registry: Arc<Registry>,
    /// The configuration, which may be changed while it runs.
    pub store: Arc<Store>,
    stop: CancellationToken,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Plain {
    /// Binds the listeners and starts the workers.
    ///
    /// # Errors
    /// The configuration's mistakes, or what the kernel says.
    pub fn start(config: &PlainConfig) -> anyhow::Result<Self> {
        let store = Arc::new(Store::new(Snapshot::default().apply(&config.changes()?)));
        let registry = Arc::new(if config.metrics { Registry::default() } else { Registry::silent() });
        let (log, queue) = AccessLog::new(config.access_log.policy(), LogFormat::Json);
        std::thread::Builder::new().name("access-log".into()).spawn(move || queue.write_to(io::stdout().lock()))?;
        let stop = CancellationToken::new();
        let mut threads = Vec::new();
        for index in 0..config.workers.max(1) {
            let fronts = config.bind()?;
            let parts = (Arc::clone(&store), Arc::clone(&registry), log.clone(), stop.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                LocalSet::new().block_on(&runtime, worker(parts, fronts));
            })?);
        }
        Ok(Self { registry, store, stop, threads })
    }

    /// Stops the workers.
    pub fn stop(self) {
        self.stop.cancel();
        for thread in self.threads {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }

    /// Waits for ever.
    pub fn wait(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

type WorkerParts = (Arc<Store>, Arc<Registry>, AccessLog, CancellationToken);

/// A listener and the frontend that a connection to it means.
type Front = (std::net::TcpListener, weft_core::ids::ServicePortKey);

async fn worker((store, registry, log, stop): WorkerParts, fronts: Vec<Front>) {
    let recorder = Rc::new(registry.recorder());
    let place = Place { node: "plain".into(), zone: NodeZone::default() };
    let engine = Engine::new(EngineParts {
        store: Arc::clone(&store),
        dial: Rc::new(PlainDial),
        resolve,
        balancers: Balancers::new(place, Arc::default()),
        observer: Rc::new(WorkerTelemetry::new(Rc::clone(&recorder), log.clone())),
        recorder,
        log,
        ring: Records::default().ring(),
        http3: Default::default(),
        settings: HttpSettings::default(),
    });
    spawn_local(Rc::clone(&engine).watch());
    let front = HttpFront(engine);
    let source = Rc::new(LocalWorkload::new(fixed_pod()));
    for (listener, key) in fronts {
        let Ok(listener) = TcpListener::from_std(listener) else { continue };
        let (front, source, store) = (front.clone(), Rc::clone(&source), Arc::clone(&store));
        spawn_local(async move {
            loop {
                let (stream, client) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!("accept failed: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Some(frontend) = store.load().frontend(&key).cloned() else { continue };
                let source = Rc::clone(&source);
                spawn_local(serve(front.clone(), stream, (source, client, frontend)));
            }
        });
    }
    stop.cancelled().await;
}

async fn serve(front: HttpFront, stream: TcpStream, who: (Rc<LocalWorkload>, SocketAddr, Arc<Frontend>)) {
    let (source, client, frontend) = who;
    let Ok(destination) = stream.local_addr() else { return };
    front.outbound(stream, OutboundConnection { source, client, destination, frontend }).await;
}

/// TCP, whatever the endpoint.
struct PlainDial;

impl Dial for PlainDial {
    fn dial<'a>(
        &'a self,
        _source: &'a Rc<LocalWorkload>,
        target: &'a Target,
    ) -> LocalBoxFuture<'a, Result<UpstreamStream, ConnectError>> {
        Box::pin(async move {
            let failed = |error: io::Error| ConnectError::Tcp { to: target.address, kind: error.kind() };
            let stream = TcpStream::connect(target.address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            Ok(UpstreamStream::Tcp(stream))
        })
    }
}
