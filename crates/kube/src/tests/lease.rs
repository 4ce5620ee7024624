use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use serde_json::{Value, json};
use weft_kube_fake::{FakeApi, Reply};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases";
const DURATION: Duration = Duration::from_secs(15);

fn settings(identity: &str) -> LeaseSettings {
    let (namespace, name) = ("weft-system".to_owned(), "weft-controller".to_owned());
    LeaseSettings { namespace, name, identity: identity.to_owned(), duration: DURATION }
}

fn lease(api: &FakeApi) -> Value {
    api.get(&format!("{LEASES}/weft-controller")).unwrap()["spec"].clone()
}

async fn until(leader: &mut watch::Receiver<bool>, wanted: bool) -> Duration {
    let began = Instant::now();
    leader.wait_for(|leads| *leads == wanted).await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn of_two_one_leads_and_hands_over_when_it_is_released() {
    let api = FakeApi::new();
    let a = Leadership::start(api.client(), settings("a"));
    until(&mut a.is_leader(), true).await;
    let b = Leadership::start(api.client(), settings("b"));
    tokio::time::sleep(DURATION * 10).await;
    assert!(*a.is_leader().borrow() && !*b.is_leader().borrow());
    assert_eq!(lease(&api)["holderIdentity"], "a");
    assert_eq!(lease(&api)["leaseTransitions"], 1);
    a.release().await;
    assert_eq!(lease(&api)["holderIdentity"], "");
    assert!(until(&mut b.is_leader(), true).await < DURATION / 3, "nobody has to wait for a lease that was given up");
    assert_eq!(lease(&api)["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_candidate_gives_the_lease_up_too() {
    let api = FakeApi::new();
    let a = Leadership::start(api.client(), settings("a"));
    until(&mut a.is_leader(), true).await;
    drop(a);
    let b = Leadership::start(api.client(), settings("b"));
    assert!(until(&mut b.is_leader(), true).await < DURATION / 3);
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_stops_before_the_next_one_starts() {
    let api = FakeApi::new();
    let cut = Arc::new(AtomicBool::new(false));
    let (for_a, line) = (api.client(), Arc::clone(&cut));
    api.answer(move |request| {
        let from_a = request.body.pointer("/spec/holderIdentity").is_some_and(|h| h == "a");
        (line.load(Ordering::Relaxed) && from_a).then_some(Reply::Hang)
    });
    let a = Leadership::start(for_a, settings("a"));
    until(&mut a.is_leader(), true).await;
    let b = Leadership::start(api.client(), settings("b"));
    tokio::time::sleep(DURATION).await;
    cut.store(true, Ordering::Relaxed);
    let (mut leads_a, mut leads_b) = (a.is_leader(), b.is_leader());
    let (a_stopped, b_started) = tokio::join!(until(&mut leads_a, false), until(&mut leads_b, true));
    assert!(a_stopped <= DURATION * 2 / 3, "{a_stopped:?}");
    assert!(b_started > a_stopped && b_started <= DURATION * 3 / 2, "{a_stopped:?} {b_started:?}");
    assert_eq!(lease(&api)["holderIdentity"], "b");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_means_that_one_does_not_lead() {
    let api = FakeApi::new();
    let a = Leadership::start(api.client(), settings("a"));
    let mut leads = a.is_leader();
    until(&mut leads, true).await;
    // Somebody writes between our read and our write.
    let fake = api.clone();
    api.answer(move |request| {
        if request.method == "PUT" && request.body["spec"]["holderIdentity"] == "a" {
            let spec = json!({ "holderIdentity": "thief", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z" });
            fake.put(LEASES, json!({ "metadata": { "name": "weft-controller" }, "spec": spec }));
        }
        None
    });
    assert!(until(&mut leads, false).await < DURATION / 3);
    assert_eq!(lease(&api)["holderIdentity"], "thief");
}

#[tokio::test(start_paused = true)]
async fn times_in_the_lease_mean_nothing() {
    let api = FakeApi::new();
    for renewed in ["2001-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"] {
        let spec = json!({ "holderIdentity": "old", "leaseDurationSeconds": 15, "renewTime": renewed });
        api.put(LEASES, json!({ "metadata": { "name": "weft-controller" }, "spec": spec }));
        let a = Leadership::start(api.client(), settings("a"));
        let waited = until(&mut a.is_leader(), true).await;
        assert!(waited >= DURATION && waited < DURATION * 3 / 2, "{renewed}: {waited:?}");
        a.release().await;
    }
}
