//! The proxies of nodes without Kubernetes. Who may ask them may see everything: there are no users.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use weft_core::snapshot::Snapshot;
use weft_node_proxy::store::from_bytes;
use weft_view::{Certificates, Failures, Graph, History, Lens, Metrics, Routes, Window};

use super::source::{Refused, View, concerning, json_of, problems};
use crate::ask::{Proxies, Whom};
use crate::cluster::{Finding, Severity};
use crate::standalone;

/// A configuration is good for so long.
const FRESH: Duration = Duration::from_secs(9);

/// Proxies, and what they said last.
pub struct Local {
    proxies: Proxies,
    run: PathBuf,
    state: Mutex<State>,
}

/// What was read.
#[derive(Default)]
pub struct State {
    /// Metrics.
    pub history: History,
    /// The configuration of whoever has the most of it: the primary's proxy has Gateways as well.
    pub snapshot: Snapshot,
    /// When that was.
    pub read_at: Option<Instant>,
    /// Who couldn't be asked.
    pub unread: Vec<String>,
}

impl Local {
    /// Those of a node, or those that are named. A first reading is taken, so that there is a window soon.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn new(run: PathBuf, proxies: &Whom) -> anyhow::Result<Self> {
        let it = Self { proxies: Proxies::here(proxies), run, state: Mutex::default() };
        it.state.lock().await.read(&it.proxies).await?;
        Ok(it)
    }

    /// The JSON of a view.
    ///
    /// # Errors
    /// No proxy answers.
    pub async fn answer(&self, view: View, namespace: Option<&str>) -> Result<Bytes, Refused> {
        let mut state = self.state.lock().await;
        while let Some(pause) = state.history.needs_reading_in(Instant::now()) {
            tokio::time::sleep(pause).await;
            state.read(&self.proxies).await?;
        }
        if view != View::Problems {
            return json_of(&state.view(view, namespace)?);
        }
        let mut unread = state.unread.clone();
        let findings = match standalone::trouble(&self.run).await {
            Ok(trouble) => trouble.into_iter().map(|what| Finding::new(Severity::Error, "", what)).collect(),
            Err(error) => {
                unread.push(format!("the node's status: {error:#}"));
                Vec::new()
            }
        };
        let failures = serde_json::to_value(state.failures(namespace)).map_err(anyhow::Error::from)?;
        json_of(&problems(&concerning(&findings, namespace), &failures, &unread))
    }
}

fn lens(namespace: Option<&str>) -> Lens {
    Lens::all().choosing(namespace)
}

impl State {
    async fn read(&mut self, proxies: &Proxies) -> anyhow::Result<()> {
        let answers = proxies.read("/metrics").await;
        anyhow::ensure!(!answers.pages.is_empty(), "no proxy could be asked: {}", answers.unread.join("; "));
        let parsed = |page: &[u8]| Metrics::parse_lines(&String::from_utf8_lossy(page), weft_view::is_of_use);
        let pages = answers.pages.iter().map(|(name, page)| (name.clone(), parsed(page)));
        self.history.take(Instant::now(), pages.collect());
        self.unread = answers.unread;
        if self.read_at.is_none_or(|at| at.elapsed() > FRESH) {
            let configurations = proxies.read("/config").await;
            let read = configurations.pages.iter().map(|(name, page)| from_bytes(page).with_context(|| name.clone()));
            let snapshots = read.collect::<anyhow::Result<Vec<_>>>()?;
            let largest = snapshots.into_iter().max_by_key(|it| it.listeners().count());
            self.snapshot = largest.context("no proxy gives its configuration")?;
            self.read_at = Some(Instant::now());
        }
        Ok(())
    }

    fn window(&self) -> Window {
        self.history.window().unwrap_or_default()
    }

    fn failures(&self, namespace: Option<&str>) -> Failures {
        Failures::of(&self.window(), &lens(namespace))
    }

    /// A view of what was read; problems are asked for elsewhere.
    ///
    /// # Errors
    /// None in practice.
    pub fn view(&self, view: View, namespace: Option<&str>) -> Result<Value, Refused> {
        let lens = lens(namespace);
        let value = match view {
            View::Namespaces => Ok(json!({ "namespaces": self.namespaces(), "mesh": "without Kubernetes" })),
            View::Graph => {
                let gateways = self.snapshot.listeners().map(|it| it.key.gateway.to_string()).collect();
                serde_json::to_value(Graph::of(&self.window(), &gateways, &lens))
            }
            View::Routes => serde_json::to_value(Routes::of(&self.snapshot, &self.window(), &lens)),
            View::Certificates => {
                let pages = self.history.pages().iter().map(|(name, page)| (name.as_str(), page));
                serde_json::to_value(Certificates::of(pages, Some(&self.snapshot), &lens))
            }
            View::Problems => serde_json::to_value(self.failures(namespace)),
        };
        value.map_err(|error| anyhow::Error::from(error).into())
    }

    fn namespaces(&self) -> BTreeSet<String> {
        let of_workloads = self.snapshot.workloads().map(|it| it.namespace.to_string());
        let of_services = self.snapshot.services().map(|it| it.key.namespace.to_string());
        of_workloads.chain(of_services).collect()
    }
}
