//! List and watch for ever.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::api::ListParams;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// Pauses after errors: the first and the longest; each is twice the last, less up to half by chance.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// After this long without an error the next pause is the first again.
const CALM: Duration = Duration::from_secs(120);
/// How long the next piece of a list may take.
const LIST: Duration = Duration::from_secs(60);
/// After so many failures to watch from where it stopped, it lists again: the server may have lost its history.
const RELIST_AFTER: u32 = 3;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched<K> {
    /// All there is: at the start, and whenever changes may have been missed. What isn't in it is gone.
    Restarted(Vec<K>),
    /// New or changed.
    Applied(K),
    /// Gone.
    Deleted(K),
}

/// Lists and watches, for ever: it never ends and has no errors. What goes wrong is logged, counted
/// (`weft_kube_watch_errors_total`) and tried again, with pauses of up to 15 seconds.
///
/// A broken connection goes on where it stopped; where that can't be (410 Gone), a new list follows. So it does where the server's
/// database was restored from a backup: there a watch would wait, without a word, until versions are again where it stopped.
pub fn watch<K>(api: Api<K>, config: Config) -> impl Stream<Item = Watched<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch_as(api, config, |object| object)
}

/// As [`watch()`], of what `read` keeps of each object. It is called as objects arrive: of a large list not more than a page
/// is there whole at any time.
pub fn watch_as<K, T, R>(api: Api<K>, config: Config, read: R) -> impl Stream<Item = Watched<T>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send + 'static,
    R: Fn(K) -> T + Send + 'static,
{
    let state = Watch::new(api, config, read);
    futures::stream::unfold(state, |mut state| async { Some((state.next().await, state)) })
}

struct Watch<K, T, R> {
    api: Api<K>,
    config: Config,
    read: R,
    /// For logs and metrics: `pods`, `httproutes`.
    resource: String,
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    /// What was listed so far, while a list is under way.
    listing: Option<Vec<T>>,
    /// The latest version that was seen. They are compared as numbers, as Kubernetes allows (KEP-5504).
    newest: u64,
    failures: Failures,
}

#[derive(Debug, Default)]
struct Failures {
    /// In a row.
    count: u32,
    to_resume: u32,
    last: Option<Instant>,
}

impl<K, T, R> Watch<K, T, R>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    R: Fn(K) -> T,
{
    fn new(api: Api<K>, config: Config, read: R) -> Self {
        let resource = api.resource_url().rsplit('/').next().unwrap_or_default().to_owned();
        let events = watcher::watcher(api.clone(), config.clone()).boxed();
        Self {
            api,
            config,
            read,
            resource,
            events,
            listing: Some(Vec::new()),
            newest: 0,
            failures: Failures::default(),
        }
    }

    async fn next(&mut self) -> Watched<T> {
        loop {
            let event = if self.listing.is_some() {
                // The server ends watches by itself; nothing ends a list that hangs.
                tokio::time::timeout(LIST, self.events.next()).await
            } else {
                Ok(self.events.next().await)
            };
            match event {
                Ok(Some(Ok(event))) => {
                    self.failures.to_resume = 0;
                    if let Some(watched) = self.take(event) {
                        return watched;
                    }
                }
                Ok(Some(Err(error))) => self.failed(&error).await,
                Ok(None) => self.relist(),
                Err(_elapsed) => {
                    self.note("the list took too long");
                    self.relist();
                }
            }
        }
    }

    fn take(&mut self, event: Event<K>) -> Option<Watched<T>> {
        match event {
            Event::Init => self.listing = Some(Vec::new()),
            Event::InitApply(object) => {
                self.see(&object);
                let kept = (self.read)(object);
                self.listing.get_or_insert_default().push(kept);
            }
            Event::InitDone => {
                metrics::counter!("weft_kube_watch_lists_total", "resource" => self.resource.clone()).increment(1);
                return Some(Watched::Restarted(self.listing.take().unwrap_or_default()));
            }
            Event::Apply(object) => {
                self.see(&object);
                return Some(Watched::Applied((self.read)(object)));
            }
            Event::Delete(object) => {
                self.see(&object);
                return Some(Watched::Deleted((self.read)(object)));
            }
        }
        None
    }

    async fn failed(&mut self, error: &watcher::Error) {
        let code = status(error).map(|status| status.code);
        let gone = code == Some(410);
        // A server that is away or busy still knows where it was; one that says no (504: a version of the future) may not.
        let says_no = code.is_some_and(|code| code == 504 || (400..500).contains(&code) && code != 429);
        if says_no && matches!(error, watcher::Error::WatchStartFailed(_)) {
            self.failures.to_resume += 1;
        }
        if gone {
            tracing::info!(resource = %self.resource, "the API server has forgotten where the watch stopped: listing again");
        } else {
            self.note(error);
        }
        // An answer of 410 to the request itself, or a server that was restored from a backup.
        if gone || self.failures.to_resume >= RELIST_AFTER {
            self.relist();
        }
        let pause = self.failures.pause(Instant::now());
        tokio::time::sleep(pause).await;
        if self.listing.is_none() && self.went_back().await {
            tracing::warn!(resource = %self.resource, "the API server's versions went back: its database was restored; listing again");
            self.relist();
        }
    }

    /// Whether the server is now at a version before one that it told of. Where it can't be asked, the watch itself fails, too, and
    /// is here again.
    async fn went_back(&mut self) -> bool {
        // One object, not all: everybody asks a server that comes back.
        let mut one = ListParams::default().limit(1);
        one.label_selector.clone_from(&self.config.label_selector);
        one.field_selector.clone_from(&self.config.field_selector);
        let Ok(Ok(list)) = tokio::time::timeout(LIST, self.api.list_metadata(&one)).await else { return false };
        let Some(now) = number(list.metadata.resource_version.as_deref()) else { return false };
        let back = now < self.newest;
        self.newest = self.newest.max(now);
        back
    }

    fn see(&mut self, object: &K) {
        self.newest = self.newest.max(number(object.meta().resource_version.as_deref()).unwrap_or_default());
    }

    fn note(&self, error: impl std::fmt::Display) {
        metrics::counter!("weft_kube_watch_errors_total", "resource" => self.resource.clone()).increment(1);
        tracing::warn!(resource = %self.resource, %error, failures = self.failures.count, "watch interrupted");
    }

    fn relist(&mut self) {
        self.newest = 0;
        self.failures.to_resume = 0;
        self.listing = Some(Vec::new());
        self.events = watcher::watcher(self.api.clone(), self.config.clone()).boxed();
    }
}

fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

impl Failures {
    fn pause(&mut self, now: Instant) -> Duration {
        if self.last.is_none_or(|last| now.duration_since(last) > CALM) {
            self.count = 0;
        }
        self.last = Some(now);
        let longest = PAUSES.0.saturating_mul(1 << self.count.min(16)).min(PAUSES.1);
        self.count = self.count.saturating_add(1);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};
    use weft_kube_fake::{FakeApi, Reply};

    const MAPS: &str = "/api/v1/namespaces/shop/configmaps";

    fn names(watched: Watched<ConfigMap>) -> String {
        match watched {
            Watched::Restarted(all) => format!("all {:?}", all.iter().map(ResourceExt::name_any).collect::<Vec<_>>()),
            Watched::Applied(one) => format!("+{}", one.name_any()),
            Watched::Deleted(one) => format!("-{}", one.name_any()),
        }
    }

    fn put(api: &FakeApi, name: &str) {
        api.put(MAPS, json!({ "metadata": { "name": name }, "data": { "n": fastrand::u64(..).to_string() } }));
    }

    fn start(api: &FakeApi) -> BoxStream<'static, String> {
        watch(Api::<ConfigMap>::namespaced(api.client(), "shop"), Config::default()).map(names).boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_goes_on_where_it_stopped() {
        let api = FakeApi::new();
        put(&api, "a");
        let mut stream = start(&api);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        put(&api, "b");
        assert_eq!(stream.next().await.unwrap(), "+b");
        for broken in [true, false] {
            api.disconnect(broken);
            put(&api, "c");
            api.remove(&format!("{MAPS}/a"));
            put(&api, "a");
            assert_eq!(stream.next().await.unwrap(), "+c");
            assert_eq!(stream.next().await.unwrap(), "-a");
            assert_eq!(stream.next().await.unwrap(), "+a");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_is_told_by_a_new_list() {
        let api = FakeApi::new();
        put(&api, "a");
        let mut stream = start(&api);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        api.disconnect(true);
        put(&api, "b");
        api.remove(&format!("{MAPS}/a"));
        // Whoever asks for what was before now is told 410 Gone.
        api.compact();
        assert_eq!(stream.next().await.unwrap(), r#"all ["b"]"#);
        put(&api, "c");
        assert_eq!(stream.next().await.unwrap(), "+c");
    }

    #[tokio::test(start_paused = true)]
    async fn gone_as_the_answer_of_the_request_is_no_endless_loop() {
        let api = FakeApi::new();
        put(&api, "a");
        let mut stream = start(&api);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        let left = AtomicU32::new(1);
        api.answer(move |request| {
            let once = request.is_watch()
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            once.then(|| Reply::error(410, "Expired"))
        });
        put(&api, "b");
        api.disconnect(false);
        // The pending change may have been delivered before the disconnection.
        let next = stream.next().await.unwrap();
        let next = if next == "+b" { stream.next().await.unwrap() } else { next };
        assert_eq!(next, r#"all ["a", "b"]"#);
    }

    /// A list of everything by everybody is what a server that comes back can do with least.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_away_is_not_asked_for_everything() {
        let api = FakeApi::new();
        put(&api, "a");
        let mut stream = start(&api);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        let left = AtomicU32::new(8);
        api.answer(move |request| {
            let down = request.is_watch()
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            down.then(|| Reply::error(503, "ServiceUnavailable"))
        });
        api.disconnect(true);
        put(&api, "b");
        assert_eq!(stream.next().await.unwrap(), "+b");
        let everything = |r: &&weft_kube_fake::Request| {
            !r.is_watch() && !r.query.contains("limit=1&") && !r.query.ends_with("limit=1")
        };
        assert_eq!(api.requests().iter().filter(everything).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_from_a_backup_is_followed() {
        let api = FakeApi::new();
        put(&api, "a");
        let mut stream = start(&api);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        let backup = api.backup();
        for name in ["b", "c"] {
            put(&api, name);
            assert_eq!(stream.next().await.unwrap(), format!("+{name}"));
        }
        api.restore(backup);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        // Its version was seen before, of something else.
        put(&api, "d");
        assert_eq!(stream.next().await.unwrap(), "+d");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_and_silence_are_waited_out() {
        let api = FakeApi::new();
        put(&api, "a");
        let lists = AtomicU32::new(0);
        api.answer(move |request| match lists.load(Ordering::Relaxed) {
            _ if request.is_watch() => None,
            0..=3 => {
                lists.fetch_add(1, Ordering::Relaxed);
                Some(Reply::error(403, "Forbidden"))
            }
            4 => {
                lists.fetch_add(1, Ordering::Relaxed);
                Some(Reply::Hang)
            }
            _ => None,
        });
        let began = Instant::now();
        let mut stream = start(&api);
        assert_eq!(stream.next().await.unwrap(), r#"all ["a"]"#);
        assert!(began.elapsed() > LIST && began.elapsed() < LIST + Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[test]
    fn pauses_grow_to_a_limit_and_start_again_after_a_calm_time() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let pauses: Vec<_> = (0..40).map(|_| failures.pause(now)).collect();
        assert!(pauses[0] <= PAUSES.0 && pauses[39] >= PAUSES.1 / 2 && pauses.iter().all(|p| *p <= PAUSES.1));
        assert!(failures.pause(now + CALM + Duration::from_secs(1)) <= PAUSES.0);
    }
}
