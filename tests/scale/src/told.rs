//! A watch beside the product's: how long the API server itself takes to tell of what it has accepted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use weft_kube::kube::ResourceExt as _;
use weft_kube::kube::api::{WatchEvent, WatchParams};

use crate::api::{Api, Kind};

/// How long it may take to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the API server told of each object of a namespace first. The watch ends with it.
pub struct Told {
    at: Arc<Mutex<HashMap<String, Instant>>>,
    watching: JoinHandle<()>,
}

impl Told {
    /// From now on; what is there already is told of at once.
    pub async fn start(api: &Api, kind: Kind, namespace: &str) -> anyhow::Result<Self> {
        let params = WatchParams::default().timeout(290);
        let mut events = Box::pin(api.of(kind, namespace).watch(&params, "0").await?);
        let at = Arc::<Mutex<HashMap<String, Instant>>>::default();
        let seen = Arc::clone(&at);
        let watching = tokio::spawn(async move {
            // An end is seen by who asks for what was never told of.
            while let Ok(Some(event)) = events.try_next().await.inspect_err(|error| println!("a watch: {error}")) {
                if let WatchEvent::Error(error) = &event {
                    println!("a watch: {error:?}");
                }
                if let WatchEvent::Added(object) = event {
                    seen.lock().entry(object.name_any()).or_insert_with(Instant::now);
                }
            }
        });
        Ok(Self { at, watching })
    }

    /// When it told of one. Others may have heard of it sooner.
    pub async fn of(&self, name: &str) -> anyhow::Result<Instant> {
        let began = Instant::now();
        loop {
            if let Some(at) = self.at.lock().get(name) {
                return Ok(*at);
            }
            let goes_on = !self.watching.is_finished() && began.elapsed() < PATIENCE;
            anyhow::ensure!(goes_on, "the API server never told of {name}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
