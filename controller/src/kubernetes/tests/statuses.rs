use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::kubernetes::turns::PAUSES;
use weft_k8s::object::route::ParentReference;
use weft_k8s::object::{CONTROLLER_NAME, Condition, ConditionType, Kind, ObjectStatus, RouteParentStatus};
use weft_kube_fake::{FakeApi, Reply};

use crate::kubernetes::subject::Subject;

const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes";

struct Writer {
    api: FakeApi,
    leader: watch::Sender<bool>,
    queue: mpsc::UnboundedSender<Wanted>,
}

impl Writer {
    fn start() -> Self {
        let (api, (leader, leads)) = (FakeApi::new(), watch::channel(true));
        let (queue, wanted) = mpsc::unbounded_channel();
        let events = Events::new(api.client(), "weftmesh.io/controller", "test");
        tokio::spawn(run(api.client(), events, leads, wanted));
        Self { api, leader, queue }
    }

    fn route(&self, name: &str, status: Value) -> String {
        let object = json!({ "metadata": { "name": name }, "spec": {}, "status": status });
        self.api.put(ROUTES, object)["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    fn want(&self, name: &str, uid: &str, parents: &[(&str, bool)]) {
        let resource = Subject::Object(Kind::HttpRoute).resource("v1");
        let target = Target { resource, namespace: "shop".into(), name: name.into() };
        let entry = |(name, accepted): &(&str, bool)| RouteParentStatus {
            parent_ref: ParentReference {
                group: Some(String::new()),
                kind: Some("Service".into()),
                name: (*name).into(),
                ..ParentReference::default()
            },
            conditions: vec![Condition::new(ConditionType::Accepted, *accepted, "NoMatchingParent", "no such port")],
        };
        let desired = Desired::Entries(ObjectStatus::Parents(parents.iter().map(entry).collect()));
        self.queue.send(Wanted { target, uid: uid.into(), generation: 1, desired, confirms: false }).unwrap();
    }

    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(120)).await;
    }

    fn parents(&self, name: &str) -> Vec<String> {
        let route = self.api.get(&format!("{ROUTES}/{name}")).unwrap();
        let entries = route["status"]["parents"].as_array().cloned().unwrap_or_default();
        let of = |e: &Value| {
            let name = e["parentRef"]["name"].as_str().unwrap();
            format!("{} {name} {}", e["controllerName"].as_str().unwrap(), e["conditions"].as_array().unwrap().len())
        };
        entries.iter().map(of).collect()
    }

    fn writes(&self) -> usize {
        self.api.requests().iter().filter(|r| r.method == "PATCH" && r.path.ends_with("/status")).count()
    }
}

fn of_another(name: &str, conditions: usize) -> Value {
    let condition = json!({ "type": "Accepted" });
    json!({ "parentRef": { "name": name }, "controllerName": "example.com/other", "conditions": vec![condition; conditions] })
}

/// Another controller changes its own entry between each of our reads and writes: both keep what is theirs.
#[tokio::test(start_paused = true)]
async fn another_controller_that_writes_at_the_same_time_loses_nothing_and_nor_do_we() {
    let writer = Writer::start();
    let uid = writer.route("r", json!({ "parents": [of_another("x", 0)] }));
    let (api, turns) = (writer.api.clone(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&turns);
    writer.api.answer(move |request| {
        let ours = request.method == "PATCH" && request.path.ends_with("/status");
        if ours && count.load(Ordering::Relaxed) < 5 {
            let turn = count.fetch_add(1, Ordering::Relaxed) + 1;
            let mut route = api.get(&format!("{ROUTES}/r")).unwrap();
            let parents = route["status"]["parents"].as_array_mut().unwrap();
            let theirs = parents.iter_mut().find(|p| p["controllerName"] == "example.com/other").unwrap();
            *theirs = of_another("x", turn as usize);
            api.put(ROUTES, route);
        }
        None
    });
    writer.want("r", &uid, &[("cart", true)]);
    writer.settle().await;
    assert_eq!(turns.load(Ordering::Relaxed), 5);
    assert_eq!(writer.parents("r"), ["example.com/other x 5".to_owned(), format!("{CONTROLLER_NAME} cart 1")]);
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_written_only_to_this_incarnation_and_only_by_the_leader() {
    let writer = Writer::start();
    let uid = writer.route("r", json!({}));
    writer.want("r", &uid, &[("cart", true)]);
    writer.settle().await;
    assert_eq!(writer.writes(), 1);
    writer.want("r", &uid, &[("cart", true)]);
    writer.settle().await;
    assert_eq!(writer.writes(), 1, "nothing to change");

    writer.want("r", "another", &[("cart", false)]);
    writer.settle().await;
    writer.leader.send(false).unwrap();
    writer.want("r", &uid, &[("cart", false)]);
    writer.settle().await;
    assert_eq!(writer.writes(), 1);

    writer.leader.send(true).unwrap();
    writer.want("r", &uid, &[]);
    writer.settle().await;
    assert!(writer.parents("r").is_empty(), "an entry that no longer applies is removed");
    writer.want("gone", &uid, &[("cart", true)]);
    writer.settle().await;
    assert_eq!(writer.writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn outages_are_waited_out_and_the_latest_status_wins() {
    let writer = Writer::start();
    let uid = writer.route("r", json!({}));
    writer.api.answer(|request| request.path.starts_with(ROUTES).then(|| Reply::error(500, "InternalError")));
    writer.want("r", &uid, &[("old", true)]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    writer.want("r", &uid, &[("new", true)]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    writer.api.answer(|_| None);
    writer.settle().await;
    assert_eq!(writer.parents("r"), [format!("{CONTROLLER_NAME} new 1")]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_event_once_and_an_invalid_status_is_not_sent_for_ever() {
    let writer = Writer::start();
    let uid = writer.route("r", json!({}));
    for _ in 0..3 {
        writer.want("r", &uid, &[("cart", false)]);
        writer.settle().await;
    }
    let events = writer.api.list("/apis/events.k8s.io/v1/namespaces/shop/events");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (events[0]["reason"].as_str(), events[0]["note"].as_str()),
        (Some("NoMatchingParent"), Some("no such port"))
    );
    assert_eq!(events[0]["regarding"]["uid"], uid);

    let before = writer.writes();
    writer.api.answer(|r| (r.method == "PATCH" && r.path.ends_with("/status")).then(|| Reply::error(422, "Invalid")));
    writer.want("r", &uid, &[("other", true)]);
    writer.settle().await;
    assert_eq!(writer.writes(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn objects_that_cannot_be_written_keep_no_other_waiting_and_stay_at_their_pauses() {
    let writer = Writer::start();
    writer.api.answer(|r| (r.method == "PATCH" && r.path.contains("/bad")).then(|| Reply::error(403, "Forbidden")));
    let bad = (0..20).map(|n| format!("bad{n}"));
    let bad: Vec<_> = bad.map(|name| (writer.route(&name, json!({})), name)).collect();
    bad.iter().for_each(|(uid, name)| writer.want(name, uid, &[("old", true)]));
    writer.settle().await;

    let uid = writer.route("good", json!({}));
    writer.want("good", &uid, &[("cart", true)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(writer.parents("good"), [format!("{CONTROLLER_NAME} cart 1")]);

    // Newer statuses change nothing about how often the API server is asked, and are what is written in the end.
    let before = writer.writes();
    for name in ["new", "newest"] {
        bad.iter().for_each(|(uid, bad)| writer.want(bad, uid, &[(name, true)]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(writer.writes() - before < 10, "{}", writer.writes() - before);
    writer.api.answer(|_| None);
    let before = writer.writes();
    tokio::time::sleep(PAUSES.1 + Duration::from_secs(1)).await;
    assert_eq!(writer.writes() - before, bad.len());
    for (_, name) in &bad {
        assert_eq!(writer.parents(name), [format!("{CONTROLLER_NAME} newest 1")], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_comes_while_an_older_one_fails_waits_and_replaces_it() {
    let writer = Writer::start();
    let uid = writer.route("r", json!({}));
    writer.api.answer(|r| (r.method == "PATCH").then_some(Reply::Hang));
    writer.want("r", &uid, &[("old", true)]);
    tokio::time::sleep(PATIENCE / 2).await;
    writer.want("r", &uid, &[("new", true)]);
    tokio::time::sleep(PATIENCE / 2 + Duration::from_millis(10)).await;
    assert_eq!(writer.writes(), 1, "the pause of the older one is the newer one's");
    writer.api.answer(|_| None);
    tokio::time::sleep(PAUSES.0).await;
    assert_eq!((writer.writes(), writer.parents("r")), (2, vec![format!("{CONTROLLER_NAME} new 1")]));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panics_costs_its_object_no_later_status() {
    let writer = Writer::start();
    let uid = writer.route("r", json!({}));
    writer.api.answer(|request| {
        assert!(request.method != "PATCH", "a fault on purpose");
        None
    });
    writer.want("r", &uid, &[("old", true)]);
    writer.settle().await;
    assert!(writer.parents("r").is_empty());
    writer.api.answer(|_| None);
    writer.want("r", &uid, &[("new", true)]);
    writer.settle().await;
    assert_eq!(writer.parents("r"), [format!("{CONTROLLER_NAME} new 1")]);
}

/// The API server's memory runs behind its database: it knows nothing of the object yet, or an earlier one of that name, or
/// an older version.
#[tokio::test(start_paused = true)]
async fn a_memory_that_runs_behind_costs_no_status() {
    for stale in ["missing", "another", "older", "conflict"] {
        let writer = Writer::start();
        let uid = writer.route("r", json!({ "parents": [of_another("x", 1)] }));
        let mut remembered = writer.api.get(&format!("{ROUTES}/r")).unwrap();
        match stale {
            "another" => remembered["metadata"]["uid"] = json!("earlier"),
            "older" => remembered["metadata"]["generation"] = json!(0),
            _ => remembered["metadata"]["resourceVersion"] = json!("0"),
        }
        remembered["status"] = json!({});
        writer.api.answer(move |request| {
            let from_memory = request.method == "GET" && request.query.contains("resourceVersion=0");
            from_memory.then(|| match stale {
                "missing" => Reply::error(404, "NotFound"),
                _ => Reply::Json(200, remembered.clone()),
            })
        });
        writer.want("r", &uid, &[("cart", true)]);
        writer.settle().await;
        let expected = ["example.com/other x 1".to_owned(), format!("{CONTROLLER_NAME} cart 1")];
        assert_eq!(writer.parents("r"), expected, "{stale}");
        let reads = |memory| {
            let requests = writer.api.requests();
            requests.iter().filter(|r| r.method == "GET" && r.query.contains("resourceVersion=0") == memory).count()
        };
        assert_eq!((reads(true), reads(false)), (1, 1), "{stale}");
    }
}
