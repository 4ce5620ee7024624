//! Replicas that tell each other, against an API server in the same process.

use super::*;
use weft_kube_fake::{FakeApi, Reply};
use weft_xds::TypeUrl;
use weft_xds::server::Refusal;

const MAPS: &str = "/api/v1/namespaces/mesh/configmaps";

fn refuse(own: &Own, node: &str) {
    let url = TypeUrl::new("type.googleapis.com/weft.config.v1.Service");
    own.edit(|refusals| {
        let refusal = Refusal { name: "shop/cart".into(), reason: "ports".into() };
        refusals.refuse(1, &node.into(), &url, &[refusal]);
        true
    });
}

fn mend(own: &Own) {
    let url = TypeUrl::new("type.googleapis.com/weft.config.v1.Service");
    own.edit(|refusals| {
        refusals.mend(1, &url, "shop/cart");
        true
    });
}

async fn settle() {
    tokio::time::sleep(LOOK * 3).await;
}

fn keys(api: &FakeApi) -> Vec<String> {
    let map = api.get(&format!("{MAPS}/{NAME}"));
    let data = map.and_then(|map| map["data"].as_object().cloned()).unwrap_or_default();
    data.keys().cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn each_replica_has_its_own_key_and_hears_of_all() {
    let api = FakeApi::new();
    let (a, b) = (Own::<Refusals>::default(), Own::<Refusals>::default());
    let (say_gone, gone) = mpsc::unbounded_channel();
    tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), a.clone(), gone));
    let (_keep, never) = mpsc::unbounded_channel();
    tokio::spawn(tell(api.client(), "mesh".into(), "b".into(), b.clone(), never));
    let (facts, mut told) = mpsc::channel(16);
    tokio::spawn(follow::<Refusals>(api.client(), "mesh".into(), facts));
    settle().await;
    assert!(keys(&api).is_empty(), "nothing is made before there is something to tell");

    refuse(&a, "n1");
    settle().await;
    refuse(&b, "n2");
    settle().await;
    assert_eq!(keys(&api), ["a", "b"]);
    let mut last = BTreeMap::new();
    while let Ok(Fact::Refused(reports)) = told.try_recv() {
        last = reports;
    }
    let message = |replica: &str| last[replica][0].message();
    assert!(message("a").ends_with("n1 (ports)") && message("b").ends_with("n2 (ports)"), "{last:?}");

    mend(&b);
    settle().await;
    assert_eq!(keys(&api), ["a"]);
    api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": { "a": "[]", "old": "[]" } }));
    say_gone.send("old".to_owned()).unwrap();
    settle().await;
    assert_eq!(keys(&api), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_process_removes_what_one_of_its_name_left() {
    let api = FakeApi::new();
    api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": { "a": "[]" } }));
    let (_keep, gone) = mpsc::unbounded_channel();
    tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), Own::<Refusals>::default(), gone));
    settle().await;
    assert!(keys(&api).is_empty());
    let writes = api.requests().iter().filter(|r| r.method == "PATCH").count();
    assert_eq!(writes, 1, "nothing new, nothing to write");
}

#[tokio::test(start_paused = true)]
async fn whoever_removes_or_changes_an_entry_it_comes_back() {
    let api = FakeApi::new();
    let (own, (_keep, gone)) = (Own::default(), mpsc::unbounded_channel());
    tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), own.clone(), gone));
    refuse(&own, "n1");
    settle().await;
    let entry = || api.get(&format!("{MAPS}/{NAME}")).map(|map| map["data"]["a"].clone());
    let told = entry();
    assert!(told.as_ref().is_some_and(Value::is_string), "{told:?}");
    let writes = || api.requests().iter().filter(|r| ["PATCH", "POST"].contains(&r.method.as_str())).count();
    let before = writes();
    settle().await;
    assert_eq!(writes(), before, "it is there: nothing to write");

    api.remove(&format!("{MAPS}/{NAME}"));
    settle().await;
    assert_eq!(entry(), told, "the map was removed");
    for data in [json!({}), json!({ "a": "[]" }), json!({ "a": "odd", "b": "[]" })] {
        api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": data }));
        settle().await;
        assert_eq!(entry(), told, "{data}");
    }
    api.put(MAPS, json!({ "metadata": { "name": NAME } }));
    settle().await;
    assert_eq!(entry(), told);
    mend(&own);
    settle().await;
    assert!(keys(&api).is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_remembered_until_it_is_removed() {
    let api = FakeApi::new();
    api.put(MAPS, json!({ "metadata": { "name": NAME }, "data": { "old": "[]", "older": "[]" } }));
    let (say_gone, gone) = mpsc::unbounded_channel();
    tokio::spawn(tell(api.client(), "mesh".into(), "a".into(), Own::<Refusals>::default(), gone));
    settle().await;
    api.answer(|request| (request.method == "PATCH").then(|| Reply::error(500, "InternalError")));
    for name in ["old", "older"] {
        say_gone.send(name.to_owned()).unwrap();
        settle().await;
    }
    assert_eq!(keys(&api), ["old", "older"]);
    api.answer(|_| None);
    settle().await;
    assert!(keys(&api).is_empty());
}
