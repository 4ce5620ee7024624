//! Events (`events.k8s.io/v1`): what `kubectl describe` shows of an object. Said once and then counted.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};

/// Events that wait to be sent; more are dropped and counted.
const QUEUE: usize = 1024;
/// An event said again within this time is counted instead.
const WINDOW: Duration = Duration::from_secs(600);
/// How often counts are written.
const FLUSH: Duration = Duration::from_secs(10);
/// Most kinds of events remembered.
const KEPT: usize = 4096;
/// New events for one object: so many at once, and then one in each interval.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(60);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Limits of the API, in bytes.
const MAX_NOTE: usize = 1024;
const MAX_REASON: usize = 128;
const MAX_NAME: usize = 253;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Sends events in the background. A cheap handle.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Said>,
}

/// One event as it was said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    regarding: Regarding,
    severity: Severity,
    reason: String,
    note: String,
}

/// The parts of a reference that tell one object from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Regarding {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

/// An event that was sent.
#[derive(Debug)]
struct Series {
    name: String,
    count: i32,
    written: i32,
    last: Instant,
}

/// New events that an object may still have.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

struct Recorder {
    client: Client,
    component: String,
    instance: String,
    series: HashMap<Said, Series>,
    budgets: HashMap<Regarding, Budget>,
}

impl Events {
    /// `component` as `weftmesh.io/controller`, `instance` as the pod's name. Must be called inside a tokio runtime.
    pub fn new(client: Client, component: &str, instance: &str) -> Self {
        let (queue, said) = mpsc::channel(QUEUE);
        let (component, instance) = (component.to_owned(), instance.to_owned());
        let recorder = Recorder { client, component, instance, series: HashMap::new(), budgets: HashMap::new() };
        tokio::spawn(recorder.run(said));
        Self { queue }
    }

    /// Says something of an object. Never waits: what is said again within ten minutes is counted, an object gets ten
    /// new events at once and then one each minute, and what can't be sent is dropped
    /// (`weft_kube_events_dropped_total`). The note is cut to 1024 bytes, the reason to 128.
    pub fn publish(&self, regarding: ObjectReference, kind: Severity, reason: &str, note: &str) {
        let regarding = Regarding {
            api_version: regarding.api_version,
            kind: regarding.kind,
            namespace: regarding.namespace.filter(|n| !n.is_empty()),
            name: regarding.name,
            uid: regarding.uid,
        };
        let (reason, note) = (cut(reason, MAX_REASON).to_owned(), cut(note, MAX_NOTE).to_owned());
        if self.queue.try_send(Said { regarding, severity: kind, reason, note }).is_err() {
            dropped("queue");
        }
    }
}

impl Recorder {
    async fn run(mut self, mut said: mpsc::Receiver<Said>) {
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = said.recv() => match next {
                    Some(next) => self.take(next).await,
                    None => break,
                },
                _ = flush.tick() => self.flush().await,
            }
        }
        self.flush().await;
    }

    async fn take(&mut self, said: Said) {
        let now = Instant::now();
        if let Some(series) = self.series.get_mut(&said)
            && now.duration_since(series.last) < WINDOW
        {
            series.count = series.count.saturating_add(1);
            series.last = now;
            return;
        }
        self.forget(now);
        if self.series.len() >= KEPT || !self.may_say(&said.regarding, now) {
            return dropped("limit");
        }
        let event = self.event(&said);
        let name = event.metadata.name.clone().unwrap_or_default();
        let sent = timeout(PATIENCE, self.api(&said.regarding).create(&PostParams::default(), &event)).await;
        match sent {
            Ok(Ok(_)) => {
                self.series.insert(said, Series { name, count: 1, written: 1, last: now });
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, regarding = ?said.regarding, "an event could not be sent");
                dropped("error");
            }
            Err(_elapsed) => dropped("error"),
        }
    }

    /// Writes the counts that changed.
    async fn flush(&mut self) {
        for (said, series) in self.series.iter_mut().filter(|(_, s)| s.count != s.written) {
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace(&said.regarding));
            let at = MicroTime(Timestamp::now());
            let patch = serde_json::json!({ "series": EventSeries { count: series.count, last_observed_time: at } });
            let params = PatchParams::default();
            match timeout(PATIENCE, api.patch(&series.name, &params, &Patch::Merge(&patch))).await {
                Ok(Ok(_)) => series.written = series.count,
                // The API server forgets events after an hour: say it anew the next time.
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => series.last -= WINDOW,
                Ok(Err(error)) => tracing::debug!(%error, event = series.name, "an event could not be counted"),
                Err(_elapsed) => return,
            }
        }
    }

    /// Drops what is too old to matter.
    fn forget(&mut self, now: Instant) {
        self.series.retain(|_, s| now.duration_since(s.last) < WINDOW);
        self.budgets.retain(|_, b| b.refilled(now).left < BURST);
    }

    fn may_say(&mut self, regarding: &Regarding, now: Instant) -> bool {
        let budget = self.budgets.entry(regarding.clone()).or_insert(Budget { left: BURST, since: now });
        *budget = budget.refilled(now);
        let may = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        may
    }

    fn api(&self, regarding: &Regarding) -> Api<Event> {
        Api::namespaced(self.client.clone(), namespace(regarding))
    }

    fn event(&self, said: &Said) -> Event {
        let now = Timestamp::now();
        let Regarding { api_version, kind, namespace: of, name, uid } = said.regarding.clone();
        let tag = format!(".{:x}{:04x}", now.as_nanosecond(), fastrand::u16(..));
        let object = name.clone().unwrap_or_default();
        let event_name = format!("{}{tag}", cut(&object, MAX_NAME.saturating_sub(tag.len())));
        let metadata = ObjectMeta {
            name: Some(event_name),
            namespace: Some(namespace(&said.regarding).to_owned()),
            ..ObjectMeta::default()
        };
        let regarding = ObjectReference { api_version, kind, namespace: of, name, uid, ..ObjectReference::default() };
        Event {
            metadata,
            action: Some(said.reason.clone()),
            event_time: Some(MicroTime(now)),
            note: Some(said.note.clone()),
            reason: Some(said.reason.clone()),
            regarding: Some(regarding),
            reporting_controller: Some(self.component.clone()),
            reporting_instance: Some(cut(&self.instance, MAX_REASON).to_owned()),
            type_: Some(said.severity.as_str().to_owned()),
            ..Event::default()
        }
    }
}

impl Budget {
    fn refilled(self, now: Instant) -> Self {
        let times = now.duration_since(self.since).as_secs() / REFILL.as_secs();
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let left = self.left.saturating_add(times).min(BURST);
        Self { left, since: self.since + REFILL.saturating_mul(times.min(1 << 20)) }
    }
}

/// Events of objects without a namespace live in `default`.
fn namespace(regarding: &Regarding) -> &str {
    regarding.namespace.as_deref().unwrap_or("default")
}

fn dropped(reason: &'static str) {
    metrics::counter!("weft_kube_events_dropped_total", "reason" => reason).increment(1);
}

/// The first bytes of a text, whole characters only.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use weft_kube_fake::FakeApi;

    fn pod(name: &str) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("shop".into()),
            name: Some(name.into()),
            ..ObjectReference::default()
        }
    }

    async fn events(api: &FakeApi, namespace: &str) -> Vec<Value> {
        tokio::time::sleep(FLUSH * 2).await;
        api.list(&format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_again_becomes_one_event_with_a_count() {
        let api = FakeApi::new();
        let events_of = Events::new(api.client(), "weftmesh.io/controller", "weft-controller-0");
        for _ in 0..50 {
            events_of.publish(pod("cart-1"), Severity::Warning, "NotEnrolled", "it has a sidecar");
        }
        events_of.publish(pod("cart-1"), Severity::Warning, "NotEnrolled", "another reason");
        let found = events(&api, "shop").await;
        let counts: Vec<_> =
            found.iter().map(|e| (e["note"].as_str().unwrap(), e["series"]["count"].as_i64())).collect();
        assert_eq!(counts.len(), 2, "{found:?}");
        assert!(counts.contains(&("it has a sidecar", Some(50))) && counts.contains(&("another reason", None)));
        let event = &found[0];
        assert_eq!(event["regarding"]["name"], "cart-1");
        assert_eq!((event["type"].as_str(), event["reason"].as_str()), (Some("Warning"), Some("NotEnrolled")));
        assert_eq!(event["reportingController"], "weftmesh.io/controller");
        for required in ["eventTime", "action", "reportingInstance"] {
            assert!(event[required].is_string(), "{required}");
        }
        // Later than the window it is news again.
        tokio::time::sleep(WINDOW).await;
        events_of.publish(pod("cart-1"), Severity::Warning, "NotEnrolled", "it has a sidecar");
        assert_eq!(events(&api, "shop").await.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_object_can_not_flood_and_others_are_still_heard() {
        let api = FakeApi::new();
        let events_of = Events::new(api.client(), "c", "i");
        for n in 0..100 {
            events_of.publish(pod("noisy"), Severity::Normal, "R", &format!("note {n}"));
        }
        let node = ObjectReference { kind: Some("Node".into()), name: Some("a".into()), ..ObjectReference::default() };
        events_of.publish(node, Severity::Normal, "R", &"ä".repeat(2000));
        assert_eq!(events(&api, "shop").await.len(), BURST as usize);
        let of_node = events(&api, "default").await;
        assert_eq!(of_node[0]["note"].as_str().unwrap().len(), MAX_NOTE);
        tokio::time::sleep(REFILL * 3).await;
        for n in 0..100 {
            events_of.publish(pod("noisy"), Severity::Normal, "R", &format!("later {n}"));
        }
        let later = events(&api, "shop").await.len() - BURST as usize;
        assert!((3..=4).contains(&later), "{later}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_the_server_forgot_is_said_anew() {
        let api = FakeApi::new();
        let events_of = Events::new(api.client(), "c", "i");
        let say = || events_of.publish(pod("a"), Severity::Normal, "R", "n");
        say();
        let name = events(&api, "shop").await[0]["metadata"]["name"].as_str().unwrap().to_owned();
        api.remove(&format!("/apis/events.k8s.io/v1/namespaces/shop/events/{name}"));
        say();
        assert!(events(&api, "shop").await.is_empty());
        say();
        assert_eq!(events(&api, "shop").await.len(), 1);
    }
}
