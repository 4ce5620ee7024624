//! A cluster: numbers from the controller's view server, which knows what you may view, and the findings of `weft check`, which
//! are read with your own rights.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::source::{Refused, View as Asked, concerning, json_of, problems};
use crate::cluster::{self, Finding, Severity, Target, View, ViewArgs};

/// What checks have found is good for so long: they read much.
const FRESH: Duration = Duration::from_secs(60);

/// A conversation is begun anew after this: tokens are good for a quarter of an hour at least.
const LONGEST: Duration = Duration::from_secs(600);

/// A cluster's mesh.
pub struct Remote {
    target: Target,
    args: ViewArgs,
    /// The conversation, and since when.
    view: Mutex<Option<(Instant, View)>>,
    findings: Mutex<Option<(Instant, Vec<Finding>)>>,
}

impl Remote {
    /// With a way to its view server.
    ///
    /// # Errors
    /// There is none.
    pub async fn connect(target: Target, args: ViewArgs) -> anyhow::Result<Self> {
        let view = View::connect(&target, &args).await?;
        Ok(Self { target, args, view: Mutex::new(Some((Instant::now(), view))), findings: Mutex::default() })
    }

    /// The JSON of a view.
    ///
    /// # Errors
    /// What the server says, or that it can't be asked.
    pub async fn answer(&self, view: Asked, namespace: Option<&str>) -> Result<Bytes, Refused> {
        let name = match view {
            Asked::Namespaces => return self.namespaces().await,
            Asked::Graph => "graph",
            Asked::Routes => "routes",
            Asked::Certificates => "certificates",
            Asked::Problems => "failures",
        };
        let query = namespace.map(|name| format!("?namespace={name}")).unwrap_or_default();
        let body = self.get(&format!("/v1/{name}{query}")).await?;
        if view != Asked::Problems {
            return Ok(body);
        }
        let failures: Value = serde_json::from_slice(&body).context("the controller's answer")?;
        let (findings, unread) = self.findings().await;
        json_of(&problems(&concerning(&findings, namespace), &failures, &unread))
    }

    async fn namespaces(&self) -> Result<Bytes, Refused> {
        let body = self.get("/v1/namespaces").await?;
        let mut value: Value = serde_json::from_slice(&body).context("the controller's answer")?;
        if let Some(object) = value.as_object_mut() {
            object.insert("mesh".to_owned(), json!(format!("mesh in {}", self.target.mesh())));
        }
        json_of(&value)
    }

    /// A page of the view server; over a new connection if the one that was there has ended.
    async fn get(&self, path: &str) -> Result<Bytes, Refused> {
        let mut view = self.view.lock().await;
        if let Some((_, open)) = view.as_mut().filter(|(since, open)| since.elapsed() < LONGEST && open.is_open()) {
            match open.get(path).await {
                Err(_) if !open.is_open() => {}
                answer => return Ok(answer?),
            }
        }
        // What can't be had now leaves nothing behind.
        *view = None;
        let (_, open) = view.insert((Instant::now(), View::connect(&self.target, &self.args).await?));
        Ok(open.get(path).await?)
    }

    /// What checks find, and what they couldn't look at.
    async fn findings(&self) -> (Vec<Finding>, Vec<String>) {
        let mut known = self.findings.lock().await;
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            let read = async { cluster::findings(&self.target.session().await?).await };
            let found = read.boxed_local().await;
            let unknown =
                |error: anyhow::Error| vec![Finding::new(Severity::Unknown, "the checks", format!("{error:#}"))];
            *known = Some((Instant::now(), found.unwrap_or_else(unknown)));
        }
        let all = known.as_ref().map(|(_, findings)| findings.as_slice()).unwrap_or_default();
        let (unknown, found): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|it| it.severity == Severity::Unknown);
        (found, unknown.into_iter().map(|it| format!("{}: {}", it.object, it.what)).collect())
    }
}
