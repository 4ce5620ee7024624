//! A watch beside the product's: how long the API server itself takes to tell of what it has accepted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use weft_kube::kube::ResourceExt as _;
use weft_kube::kube::api::{WatchEvent, WatchParams};

use crate::api::{Api, Kind};

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
            while let Ok(Some(event)) = events.try_next().await {
                if let WatchEvent::Added(object) = event {
                    seen.lock().entry(object.name_any()).or_insert_with(Instant::now);
                }
            }
        });
        Ok(Self { at, watching })
    }

    /// When it told of one; `None`: it hasn't yet.
    pub fn of(&self, name: &str) -> Option<Instant> {
        self.at.lock().get(name).copied()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
