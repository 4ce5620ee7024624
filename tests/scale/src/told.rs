//! A watch beside the product's: how long the API server itself takes to tell of what it has accepted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_kube::kube::ResourceExt as _;
use weft_kube::kube::api::{WatchEvent, WatchParams};

use crate::api::{Api, Kind};

/// How long it may take to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the API server told of each object of a namespace first. The watch ends with it.
pub struct Told {
    at: watch::Receiver<HashMap<String, Instant>>,
    watching: JoinHandle<()>,
}

impl Told {
    /// From now on; what is there already is told of at once.
    pub async fn start(api: &Api, kind: Kind, namespace: &str) -> anyhow::Result<Self> {
        let params = WatchParams::default().timeout(290);
        let mut events = Box::pin(api.of(kind, namespace).watch(&params, "0").await?);
        let (seen, at) = watch::channel(HashMap::new());
        let watching = tokio::spawn(async move {
            // An end is seen by who asks for what was never told of.
            while let Ok(Some(event)) = events.try_next().await.inspect_err(|error| println!("a watch: {error}")) {
                match event {
                    WatchEvent::Added(object) => {
                        seen.send_modify(|at| _ = at.entry(object.name_any()).or_insert_with(Instant::now));
                    }
                    WatchEvent::Error(error) => println!("a watch: {error:?}"),
                    _ => {}
                }
            }
        });
        Ok(Self { at, watching })
    }

    /// When it told of one. Others may have heard of it sooner.
    pub async fn of(&self, name: &str) -> anyhow::Result<Instant> {
        let mut at = self.at.clone();
        let told = timeout(PATIENCE, at.wait_for(|at| at.contains_key(name))).await;
        let never = || format!("the API server never told of {name}");
        told.with_context(never)?.with_context(never)?.get(name).copied().with_context(never)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
