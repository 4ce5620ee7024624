//! Tokens while the API server can't be asked: by its keys as it published them last, and the pods that it told of last.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::Client;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::keys::{Discovery, KeySet, Keys};
use crate::memory::{Memory, key_of};
use crate::{KnownPods, Reviewed};

/// How often its keys are read, besides when it takes a token whose key isn't known.
const REFRESH: Duration = Duration::from_secs(600);
/// How soon again after that failed, and how long it may take.
const AGAIN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it isn't asked about what is known without it, after it gave no answer.
const AWAY: Duration = Duration::from_secs(5);
/// How long after that it may refuse to answer, as it does while it starts.
const STARTS: Duration = Duration::from_secs(60);
/// How long it may be away: whoever is cut off for longer knows too little of who is still there.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a token isn't taken that it has refused: longer than it lives. And most of them.
const REFUSED: Duration = Duration::from_secs(3 * 3600);
const KEPT: usize = 4096;

/// Knows the pods of tokens without the API server.
///
/// It takes a token that the API server signed, which hasn't expired and doesn't live long, of a pod that was there when its watch was
/// heard last, unless the API server has refused it before; for an hour after it gave its last answer. What only the API server could
/// tell is lost meanwhile: that the ServiceAccount of a pod that is still there was deleted.
pub struct OfflineReview {
    client: Client,
    keys: RwLock<Option<Arc<Keys>>>,
    pods: Arc<KnownPods>,
    refused: Memory<()>,
    state: Mutex<State>,
    /// Somebody wants the keys to be read again.
    wanted: Notify,
}

/// How the API server is.
#[derive(Debug)]
struct State {
    /// When it gave its last answer.
    answered: Instant,
    /// When it gave none, since then.
    failed: Option<Instant>,
    /// When that was said last.
    told: Option<Instant>,
}

impl OfflineReview {
    /// Knows nothing yet: [`follow`](Self::follow) reads the keys, and others feed the pods.
    pub fn new(client: Client, pods: Arc<KnownPods>) -> Self {
        let state = Mutex::new(State { answered: Instant::now(), failed: None, told: None });
        let refused = Memory::new(REFUSED, KEPT);
        Self { client, keys: RwLock::default(), pods, refused, state, wanted: Notify::new() }
    }

    /// Reads the API server's keys, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut last = None;
        loop {
            let read = timeout(PATIENCE, self.read()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            let failed = read.map(|keys| self.take(keys)).err();
            if let Some(error) = failed.as_ref().filter(|_| failed != last) {
                tracing::warn!(%error, known = self.has_keys(), "the API server's keys can't be read; they are needed when it is away");
            }
            // Not at once, whoever wants it.
            sleep(AGAIN).await;
            if failed.is_none() {
                let _ = timeout(REFRESH.saturating_sub(AGAIN), self.wanted.notified()).await;
            }
            last = failed;
        }
    }

    fn take(&self, keys: Keys) {
        self.state.lock().answered = Instant::now();
        if self.keys.read().as_deref() != Some(&keys) {
            tracing::info!(?keys, "the API server's keys are read");
            *self.keys.write() = Some(Arc::new(keys));
        }
    }

    /// Whether the keys are known: until then it knows nobody.
    pub fn has_keys(&self) -> bool {
        self.keys.read().is_some()
    }

    async fn read(&self) -> Result<Keys, String> {
        let get = |path: &str| http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string());
        let discovery = self.client.request::<Discovery>(get("/.well-known/openid-configuration")?);
        let discovery = discovery.await.map_err(|e| format!("/.well-known/openid-configuration: {e}"))?;
        // What the answer names may be a place for others, outside of the cluster; this one is the API server's own.
        let set = self.client.request::<KeySet>(get("/openid/v1/jwks")?);
        Keys::new(discovery, &set.await.map_err(|e| format!("/openid/v1/jwks: {e}"))?)
    }

    /// The pod of a token, if it is known here.
    pub(crate) fn review(&self, token: &str, audience: &str) -> Option<Reviewed> {
        let (keys, now) = (self.keys.read().clone()?, SystemTime::now());
        let reviewed = keys.verify(token, audience, now).ok()?;
        let is_good = self.pods.knows(&reviewed, now)
            && self.refused.known(&key_of(token)).is_none()
            && self.state.lock().answered.elapsed() < LONGEST;
        is_good.then_some(reviewed)
    }

    /// Whether the API server gave no answer a moment ago.
    pub(crate) fn is_away(&self) -> bool {
        self.state.lock().failed.is_some_and(|failed| failed.elapsed() < AWAY)
    }

    /// Whether it gave none a minute ago, and hasn't since: then what it refuses to say it may not know yet.
    pub(crate) fn may_be_starting(&self) -> bool {
        self.state.lock().failed.is_some_and(|failed| failed.elapsed() < STARTS)
    }

    /// The API server said whose token this is, or that it is not `good`, though it is known here.
    pub(crate) fn answered(&self, token: &str, good: bool, known: bool) {
        let was_away = {
            let mut state = self.state.lock();
            state.answered = Instant::now();
            state.failed.take().is_some()
        };
        match good {
            true => self.refused.forget(&key_of(token)),
            // One that has only just started may not have read its pods yet.
            false if known && !was_away => self.refused.remember(key_of(token), Instant::now(), ()),
            false => {}
        }
        let is_new = || self.keys.read().as_ref().is_some_and(|keys| !keys.names(token));
        if was_away || good && is_new() {
            self.wanted.notify_one();
        }
    }

    /// The API server gave no answer about a token that is known here. Of no other: whoever may connect could make it busy.
    pub(crate) fn failed(&self) {
        let tells = {
            let (mut state, now) = (self.state.lock(), Instant::now());
            state.failed = Some(now);
            // Once a minute: it may come and go.
            let tells = state.told.is_none_or(|told| now.saturating_duration_since(told) >= STARTS);
            if tells {
                state.told = Some(now);
            }
            tells
        };
        if tells {
            tracing::warn!(
                "the API server can't be asked: tokens are reviewed by its keys and the pods that were there"
            );
        }
    }
}

impl fmt::Debug for OfflineReview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfflineReview")
            .field("keys", &*self.keys.read())
            .field("pods", &self.pods)
            .finish_non_exhaustive()
    }
}
