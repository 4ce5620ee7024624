//! What `weft dashboard` draws: who calls whom, routes with their measured split, certificates, failures. Numbers are those of
//! the proxies' own pages, read when somebody asks; who asks sees the namespaces that he may view, of others no name.
//!
//! Nothing is read while nobody looks. A reading of one namespace keeps only what tells of it, because the pages of a large mesh
//! are large.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use weft_core::change::Change;
use weft_core::snapshot::Snapshot;
use weft_view::{Certificates, Failures, Graph, History, Lens, Metrics, Routes};

use super::auth::{Refused, Resource};
use super::proxies::Proxy;
use super::server::{Answer, Asked, View, json as whole};
use crate::kubernetes::task::Configuration;

/// Where the paths of this begin.
pub const PATH: &str = "/v1/";
/// Namespaces whose readings are kept; that which was read longest ago goes.
const MOST: usize = 16;
/// Namespaces of which it is looked whether somebody may view them, for who may not view all.
const LOOKED_AT: usize = 100;
/// Proxies and questions at the same time.
const AT_ONCE: usize = 16;
/// How long a proxy's page may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where proxies show their metrics to Prometheus.
const STATUS: u16 = 15021;
/// The largest page that is read, in bytes.
const LONGEST: usize = 64 << 20;
/// What is kept of all pages of a reading, in bytes of their text: twice as much in memory for each of two readings.
const LARGEST: usize = 32 << 20;
/// A copy of the configuration is good for so long.
const FRESH: Duration = Duration::from_secs(9);

/// Reads the page of metrics of a proxy.
pub type Pages = Arc<dyn Fn(Proxy) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// What was read for those who look.
#[derive(Default)]
pub struct Dashboard {
    from: OnceLock<(Configuration, Pages)>,
    /// By namespace; all of them by the empty one.
    readings: Mutex<BTreeMap<String, Arc<Mutex<History>>>>,
    copy: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Dashboard {
    /// Says where numbers come from; once.
    pub fn follow(&self, configuration: Configuration, pages: Pages) {
        let _ = self.from.set((configuration, pages));
    }

    fn from(&self) -> Result<&(Configuration, Pages), Refused> {
        self.from.get().ok_or_else(|| Refused::new(StatusCode::SERVICE_UNAVAILABLE, "there is no configuration yet"))
    }

    /// The configuration of now, or of some seconds ago.
    async fn snapshot(&self) -> Result<Arc<Snapshot>, Refused> {
        let (configuration, _) = self.from()?;
        let mut copy = self.copy.lock().await;
        if let Some((_, snapshot)) = copy.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(snapshot));
        }
        let ending = || Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the controller is ending");
        let resources = configuration.resources().await.ok_or_else(ending)?;
        let made = tokio::task::spawn_blocking(move || {
            let changes: Vec<_> = resources.into_iter().map(Change::Upsert).collect();
            Arc::new(Snapshot::default().apply(&changes))
        });
        let snapshot = made.await.map_err(|_| ending())?;
        *copy = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    /// The readings of a namespace, or of all.
    async fn reading(&self, namespace: &str) -> Arc<Mutex<History>> {
        let mut readings = self.readings.lock().await;
        if !readings.contains_key(namespace) && readings.len() >= MOST {
            // One that is being read now isn't old.
            let age =
                |it: &Arc<Mutex<History>>| it.try_lock().map_or((true, None), |history| (false, history.read_at()));
            let oldest = readings.iter().min_by_key(|(_, it)| age(it)).map(|(name, _)| name.clone());
            oldest.and_then(|name| readings.remove(&name));
        }
        Arc::clone(readings.entry(namespace.to_owned()).or_default())
    }
}

/// The page of metrics of a proxy, at the port that is there for Prometheus.
///
/// # Errors
/// It can't be reached, or answers with something else.
pub async fn page_of(proxy: Proxy) -> Result<Bytes, String> {
    let place = SocketAddr::new(proxy.address, STATUS);
    let read = async {
        let stream = TcpStream::connect(place).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let request = Request::get("/metrics").header("host", "localhost").body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.map_err(|error| error.to_string())?).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| error.to_string());
        driver.abort();
        match status.is_success() {
            true => Ok(body?.to_bytes()),
            false => Err(format!("it answers {status}")),
        }
    };
    read.await.map_err(|why: String| format!("{place}: {why}"))
}

/// Answers an endpoint below [`PATH`]; `None`: it is none of these.
pub async fn answer(view: &Arc<View>, asked: &Asked) -> Option<Result<Answer, Refused>> {
    let what = asked.path.strip_prefix(PATH).filter(|_| asked.method == http::Method::GET)?;
    match what {
        "namespaces" => Some(namespaces(view, asked).await),
        "graph" | "routes" | "certificates" | "failures" => Some(told(view, asked, what).await),
        _ => None,
    }
}

/// What somebody may view of what he asks for. Who may view all namespaces sees the neighbours of the one that he chose by name.
async fn lens(view: &View, asked: &Asked, namespace: &str) -> Result<Lens, Refused> {
    let everywhere = view.guard.authorize(asked.token(), "", Resource::Views).await;
    match everywhere {
        Ok(_) => Ok(Lens::all().choosing(Some(namespace).filter(|name| !name.is_empty()))),
        Err(refused) if namespace.is_empty() || refused.status != StatusCode::FORBIDDEN => Err(refused),
        Err(_) => {
            view.guard.authorize(asked.token(), namespace, Resource::Views).await?;
            Ok(Lens::only([namespace]))
        }
    }
}

async fn told(view: &Arc<View>, asked: &Asked, what: &str) -> Result<Answer, Refused> {
    let namespace = asked.parameter("namespace").unwrap_or_default();
    let lens = lens(view, asked, namespace).await?;
    let reading = view.dashboard.reading(namespace).await;
    let mut history = reading.lock().await;
    while let Some(pause) = history.needs_reading_in(Instant::now()) {
        tokio::time::sleep(pause).await;
        let pages = read(view, namespace).await?;
        history.take(Instant::now(), pages);
    }
    let window = || history.window().unwrap_or_default();
    Ok(match what {
        "graph" => {
            let snapshot = view.dashboard.snapshot().await?;
            let gateways = snapshot.listeners().map(|it| it.key.gateway.to_string()).collect();
            whole(&Graph::of(&window(), &gateways, &lens))
        }
        "routes" => whole(&Routes::of(&*view.dashboard.snapshot().await?, &window(), &lens)),
        "certificates" => {
            let snapshot = view.dashboard.snapshot().await?;
            let pages = history.pages().iter().map(|(name, page)| (name.as_str(), page));
            whole(&Certificates::of(pages, Some(&snapshot), &lens))
        }
        _ => whole(&Failures::of(&window(), &lens)),
    })
}

/// Whether a line of a page tells of a namespace, or of the mesh as a whole.
fn tells_of(line: &str, namespace: &str) -> bool {
    let quoted = || line.contains(&format!("\"{namespace}\"")) || line.contains(&format!("/ns/{namespace}/"));
    namespace.is_empty() || line.starts_with("weft_trusted_root") || quoted()
}

/// The pages of all proxies of now. Who doesn't answer is left out: a node may be going.
async fn read(view: &Arc<View>, namespace: &str) -> Result<Vec<(String, Metrics)>, Refused> {
    let unavailable = |why: String| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let (_, pages) = view.dashboard.from()?;
    let proxies = view.proxies.all().await.map_err(unavailable)?;
    let asked = proxies.into_iter().map(|proxy| async move {
        let name = proxy.name.to_string();
        match tokio::time::timeout(PATIENCE, pages(proxy)).await {
            Ok(Ok(page)) => Some((name, page)),
            Ok(Err(why)) => {
                tracing::warn!(proxy = name, "no metrics for the dashboard: {why}");
                None
            }
            Err(_) => None,
        }
    });
    let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
    let (mut all, mut kept) = (Vec::new(), 0);
    while let Some(answer) = answers.next().await {
        let Some((name, page)) = answer else { continue };
        let namespace = namespace.to_owned();
        let parsed = tokio::task::spawn_blocking(move || {
            let text = String::from_utf8_lossy(&page);
            let is_wanted = |line: &str| weft_view::is_of_use(line) && tells_of(line, &namespace);
            let size: usize = text.lines().filter(|line| is_wanted(line)).map(str::len).sum();
            (size <= LARGEST).then(|| (Metrics::parse_lines(&text, is_wanted), size))
        });
        let too_much = || unavailable("the mesh is too large to be shown whole: choose a namespace".to_owned());
        let (metrics, size) = parsed.await.map_err(|error| unavailable(error.to_string()))?.ok_or_else(too_much)?;
        kept += size;
        if kept > LARGEST {
            return Err(too_much());
        }
        all.push((name, metrics));
    }
    match all.is_empty() {
        true => Err(unavailable("no proxy could be asked for its numbers".to_owned())),
        false => Ok(all),
    }
}

/// The namespaces that somebody may view.
async fn namespaces(view: &Arc<View>, asked: &Asked) -> Result<Answer, Refused> {
    let everywhere = view.guard.authorize(asked.token(), "", Resource::Views).await;
    if let Err(refused) = &everywhere
        && refused.status != StatusCode::FORBIDDEN
    {
        return Err(refused.clone());
    }
    let snapshot = view.dashboard.snapshot().await?;
    let of_workloads = snapshot.workloads().map(|it| it.namespace.to_string());
    let of_services = snapshot.services().map(|it| it.key.namespace.to_string());
    let mut known: Vec<_> = of_workloads.chain(of_services).collect();
    known.sort();
    known.dedup();
    if let Ok(user) = &everywhere {
        tracing::info!(target: "audit", user = user.name(), "looks at all namespaces");
    }
    if let Err(refused) = everywhere {
        let looked = known.into_iter().take(LOOKED_AT).map(|name| async move {
            let may = view.guard.authorize(asked.token(), &name, Resource::Views).await.is_ok();
            may.then_some(name)
        });
        known = futures::stream::iter(looked).buffered(AT_ONCE).filter_map(std::future::ready).collect().await;
        if known.is_empty() {
            return Err(refused);
        }
    }
    Ok(whole(&json!({ "namespaces": known })))
}

#[cfg(test)]
#[path = "tests/dashboard.rs"]
mod tests;
