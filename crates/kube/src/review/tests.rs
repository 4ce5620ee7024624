use super::*;
use crate::keys::tests::{ISSUER, Signer, claims};
use crate::memory::MAX_TOKEN;
use crate::{KnownPods, Seat};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use weft_kube_fake::{FakeApi, Reply};

fn status(change: impl FnOnce(&mut Value)) -> Value {
    let extra = json!({ POD_NAME: ["proxy-1"], POD_UID: ["u-1"], NODE_NAME: ["node-a"] });
    let user = json!({ "username": "system:serviceaccount:weft-system:weft-node-proxy", "extra": extra });
    let mut status = json!({ "authenticated": true, "audiences": ["weft"], "user": user });
    change(&mut status);
    status
}

fn judged(change: impl FnOnce(&mut Value)) -> Result<Reviewed, String> {
    judge(&serde_json::from_value(status(change)).unwrap(), "weft")
}

#[test]
fn a_pod_is_told_by_its_token_and_nothing_else_is_taken() {
    let expected = Reviewed {
        namespace: "weft-system".into(),
        service_account: "weft-node-proxy".into(),
        pod: "proxy-1".into(),
        pod_uid: "u-1".into(),
        node: Some("node-a".into()),
    };
    assert_eq!(judged(|_| ()), Ok(expected.clone()));
    let old = judged(|s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(NODE_NAME)));
    assert_eq!(old, Ok(Reviewed { node: None, ..expected }));
    let refused = |change: fn(&mut Value), why: &str| {
        let error = judged(change).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused(|s| s["authenticated"] = json!(false), "not valid");
    refused(|s| drop(s.as_object_mut().unwrap().remove("authenticated")), "not valid");
    refused(|s| s["audiences"] = json!(["https://kubernetes.default.svc"]), "audience");
    refused(|s| drop(s.as_object_mut().unwrap().remove("audiences")), "audience");
    refused(|s| s["user"]["username"] = json!("system:node:a"), "no ServiceAccount");
    refused(|s| s["user"]["username"] = json!("system:serviceaccount:x"), "no ServiceAccount");
    refused(|s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(POD_UID)), "bound to a pod");
    refused(|s| s["user"]["extra"][POD_NAME] = json!(["a", "b"]), "bound to a pod");
}

fn server() -> (FakeApi, Arc<AtomicU32>) {
    let (api, asked) = (FakeApi::new(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&asked);
    api.answer(move |request| {
        assert_eq!(request.path, "/apis/authentication.k8s.io/v1/tokenreviews");
        assert_eq!(request.body["spec"]["audiences"], json!(["weft"]));
        count.fetch_add(1, Ordering::Relaxed);
        let status = match request.body["spec"]["token"].as_str().unwrap() {
            "good" => status(|_| ()),
            "down" => return Some(Reply::error(500, "InternalError")),
            _ => json!({ "authenticated": false, "error": "invalid bearer token" }),
        };
        Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
    });
    (api, asked)
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_ten_seconds_and_outages_are_not() {
    let (api, asked) = server();
    let reviewer = Reviewer::new(api.client(), "weft");
    for _ in 0..5 {
        assert!(reviewer.review("good").await.is_ok());
        assert!(matches!(reviewer.review("bad").await, Err(ReviewError::Invalid(why)) if why.contains("bearer")));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    for _ in 0..2 {
        assert!(matches!(reviewer.review("down").await, Err(ReviewError::Unavailable(_))));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    tokio::time::advance(BELIEVED).await;
    assert!(reviewer.review("good").await.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 5);
}

/// A server from before 1.30, with one pod.
fn old_server(pod: Value) -> (FakeApi, Reviewer) {
    let api = FakeApi::new();
    api.answer(|request| {
        let old = status(|s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(NODE_NAME)));
        let review = json!({ "metadata": {}, "spec": {}, "status": old });
        request.path.ends_with("/tokenreviews").then_some(Reply::Json(201, review))
    });
    if !pod.is_null() {
        api.put("/api/v1/namespaces/weft-system/pods", pod);
    }
    let reviewer = Reviewer::new(api.client(), "weft");
    (api, reviewer)
}

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let spec = json!({ "serviceAccountName": "weft-node-proxy", "nodeName": "node-a", "containers": [] });
    let mut pod = json!({ "metadata": { "name": "proxy-1", "uid": "u-1" }, "spec": spec });
    change(&mut pod);
    pod
}

#[tokio::test(start_paused = true)]
async fn where_the_token_does_not_name_the_node_its_pod_does() {
    let (api, reviewer) = old_server(pod(|_| ()));
    for _ in 0..3 {
        let reviewed = reviewer.review("old").await.unwrap();
        assert_eq!(reviewer.node("old", &reviewed).await, Ok("node-a".into()));
    }
    let pods = |api: &FakeApi| api.requests().iter().filter(|r| r.path.ends_with("/pods/proxy-1")).count();
    assert_eq!(pods(&api), 1, "remembered like the review");
    api.remove("/api/v1/namespaces/weft-system/pods/proxy-1");
    tokio::time::advance(BELIEVED).await;
    let reviewed = reviewer.review("old").await.unwrap();
    let gone = reviewer.node("old", &reviewed).await;
    assert!(matches!(&gone, Err(ReviewError::Invalid(why)) if why.contains("is gone")), "{gone:?}");
    // A token that names its node needs no pod.
    let new = Reviewed { node: Some("node-b".into()), ..reviewed };
    assert_eq!((reviewer.node("new", &new).await, pods(&api)), (Ok("node-b".into()), 2));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_the_token_s_gives_no_node() {
    for (change, why) in [
        ((|p| *p = Value::Null) as fn(&mut Value), "is gone"),
        (|p| p["metadata"]["uid"] = json!("u-2"), "has been made anew"),
        (|p| p["spec"]["serviceAccountName"] = json!("cart"), "doesn't run as weft-node-proxy"),
        (|p| drop(p["spec"].as_object_mut().unwrap().remove("serviceAccountName")), "doesn't run as"),
        (|p| p["spec"]["nodeName"] = json!(""), "not bound to a node"),
        (|p| drop(p["spec"].as_object_mut().unwrap().remove("nodeName")), "not bound to a node"),
    ] {
        let (_api, reviewer) = old_server(pod(change));
        let reviewed = reviewer.review("old").await.unwrap();
        let refused = reviewer.node("old", &reviewed).await;
        assert!(matches!(&refused, Err(ReviewError::Invalid(said)) if said.contains(why)), "{why}: {refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_can_not_be_read_is_an_outage() {
    for (reply, why) in
        [(|| Reply::error(403, "Forbidden")) as fn() -> Reply, || Reply::Hang].into_iter().zip(["Forbidden", "in time"])
    {
        let (api, reviewer) = old_server(pod(|_| ()));
        let reviewed = reviewer.review("old").await.unwrap();
        api.answer(move |_| Some(reply()));
        let failed = reviewer.node("old", &reviewed).await;
        assert!(matches!(&failed, Err(ReviewError::Unavailable(said)) if said.contains(why)), "{failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_costs_bounded_memory_and_a_silent_server_bounded_time() {
    let (api, asked) = server();
    let reviewer = Reviewer::new(api.client(), "weft");
    for n in 0..KEPT + 10 {
        assert!(reviewer.review(&format!("bad {n}")).await.is_err());
    }
    assert_eq!(reviewer.answers.len(), KEPT);
    assert!(reviewer.review(&"x".repeat(MAX_TOKEN + 1)).await.is_err());
    assert_eq!(asked.load(Ordering::Relaxed) as usize, KEPT + 10);
    api.answer(|_| Some(Reply::Hang));
    assert!(matches!(reviewer.review("good").await, Err(ReviewError::Unavailable(_))));
}

/// A reviewer that knows pod `proxy-1` and its server's key, and how to answer tokens from then on.
async fn offline(signer: &Signer) -> (FakeApi, Arc<KnownPods>, Reviewer) {
    let (api, pods) = (FakeApi::new(), Arc::new(KnownPods::default()));
    let jwk = signer.jwk();
    api.answer(move |request| match request.path.as_str() {
        "/.well-known/openid-configuration" => Some(Reply::Json(200, json!({ "issuer": ISSUER }))),
        "/openid/v1/jwks" => Some(Reply::Json(200, json!({ "keys": [jwk] }))),
        _ => None,
    });
    let offline = Arc::new(OfflineReview::new(api.client(), Arc::clone(&pods)));
    tokio::spawn(Arc::clone(&offline).follow());
    let reviewer = Reviewer::new(api.client(), "weft").or(Arc::clone(&offline));
    let seat = Seat {
        namespace: "weft-system",
        pod: "proxy-1",
        uid: "u-1",
        service_account: "weft-node-proxy",
        node: "node-a",
        ends: None,
    };
    pods.see(&seat);
    let token = signer.sign(&signer.header(), &claims(600));
    let read = async {
        while offline.review(&token, "weft").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, read).await.expect("the keys");
    (api, pods, reviewer)
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_its_keys_and_the_pods_that_were_there_decide() {
    let signer = Signer::ec();
    let (api, pods, reviewer) = offline(&signer).await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    api.answer(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(Reply::Hang)
    });
    let token = |change: fn(&mut Value)| {
        let mut claims = claims(600);
        change(&mut claims);
        signer.sign(&signer.header(), &claims)
    };
    let began = Instant::now();
    let reviewed = reviewer.review(&token(|_| ())).await.unwrap();
    assert_eq!((reviewed.pod.as_str(), reviewed.node.as_ref().map(NodeName::as_str)), ("proxy-1", Some("node-a")));
    assert_eq!(began.elapsed(), BRIEFLY, "the API server is asked first");
    // Another token of that pod: it isn't asked again for a while.
    let (before, began) = (asked.load(Ordering::Relaxed), Instant::now());
    assert_eq!(reviewer.review(&token(|c| c["jti"] = json!("2"))).await.as_ref(), Ok(&reviewed));
    assert_eq!((asked.load(Ordering::Relaxed), began.elapsed()), (before, Duration::ZERO));
    for (what, token) in [
        ("expired", token(|c| c["exp"] = c["nbf"].clone())),
        ("a pod that isn't there", token(|c| c["kubernetes.io"]["pod"]["uid"] = json!("u-0"))),
        ("another node", token(|c| c["kubernetes.io"]["node"]["name"] = json!("node-b"))),
        ("another audience", token(|c| c["aud"] = json!(["api"]))),
        ("another's key", Signer::ec().sign(&signer.header(), &claims(600))),
        ("no token", "bad".to_owned()),
    ] {
        let refused = reviewer.review(&token).await;
        assert!(matches!(&refused, Err(ReviewError::Unavailable(_))), "{what}: {refused:?}");
    }
    // What was told last counts: the pod has gone.
    pods.forget("weft-system", "proxy-1");
    tokio::time::advance(BELIEVED).await;
    let gone = reviewer.review(&token(|_| ())).await;
    assert!(matches!(&gone, Err(ReviewError::Unavailable(_))), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_answers_has_the_last_word() {
    let signer = Signer::rsa();
    let (api, _pods, reviewer) = offline(&signer).await;
    let token = signer.sign(&signer.header(), &claims(600));
    let reply = |code: u16| match code {
        200 => Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status(|_| ()) })),
        201 => Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": { "authenticated": false } })),
        code => Reply::error(code, "Error"),
    };
    // While it starts it refuses what it will allow, and doesn't know what it will know. What it has said else it has said, though it
    // doesn't answer any more, until it says otherwise.
    for (code, pause, wanted) in [
        (403, 10, "unavailable"),
        (500, 10, "taken"),
        (403, 10, "taken"),
        (403, 60, "unavailable"),
        (503, 10, "taken"),
        (429, 10, "taken"),
        (201, 10, "invalid"),
        (500, 10, "taken"),
        (200, 10, "taken"),
        (201, 10, "invalid"),
        (500, 10, "unavailable"),
        (200, 10, "taken"),
        (500, 10, "taken"),
    ] {
        api.answer(move |_| Some(reply(code)));
        tokio::time::advance(Duration::from_secs(pause)).await;
        let answer = match reviewer.review(&token).await {
            Ok(_) => "taken",
            Err(ReviewError::Invalid(_)) => "invalid",
            Err(ReviewError::Unavailable(_)) => "unavailable",
        };
        assert_eq!(answer, wanted, "{code} after {pause} s");
    }
}

/// Whoever may connect can show tokens, and make the API server busy by them; that isn't its absence.
#[tokio::test(start_paused = true)]
async fn a_flood_of_bad_tokens_makes_nobody_believe_that_the_api_server_is_away() {
    let signer = Signer::ec();
    let (api, _pods, reviewer) = offline(&signer).await;
    let token = signer.sign(&signer.header(), &claims(600));
    let status = json!({ "authenticated": false, "error": "taken back" });
    let said = json!({ "metadata": {}, "spec": {}, "status": status });
    let good = token.clone();
    api.answer(move |request| match request.body["spec"]["token"] == json!(good) {
        true => Some(Reply::Json(201, said.clone())),
        false => Some(Reply::Hang),
    });
    let reviewer = Arc::new(reviewer);
    for n in 0..2 * AT_ONCE {
        let reviewer = Arc::clone(&reviewer);
        tokio::spawn(async move { reviewer.review(&format!("bad {n}")).await });
    }
    for pause in [BRIEFLY * 2, PATIENCE - BRIEFLY, BELIEVED] {
        tokio::time::sleep(pause).await;
        let refused = reviewer.review(&token).await;
        assert!(matches!(&refused, Err(ReviewError::Invalid(why)) if why.contains("taken back")), "{refused:?}");
    }
}

/// Those who are known wait for each other, too; nor does that make the API server one that is away.
#[tokio::test(start_paused = true)]
async fn who_is_known_is_answered_in_time_however_many_come_at_once() {
    let signer = Signer::ec();
    let (api, _pods, reviewer) = offline(&signer).await;
    api.answer(|_| Some(Reply::Hang));
    let (reviewer, began) = (Arc::new(reviewer), Instant::now());
    let all = (0..4 * AT_ONCE).map(|n| {
        let mut claims = claims(600);
        claims["jti"] = json!(n.to_string());
        let (reviewer, token) = (Arc::clone(&reviewer), signer.sign(&signer.header(), &claims));
        tokio::spawn(async move { reviewer.review(&token).await.is_ok() })
    });
    for one in all.collect::<Vec<_>>() {
        assert!(one.await.unwrap());
    }
    assert!(began.elapsed() <= BRIEFLY * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_for_an_hour_knows_nobody() {
    let signer = Signer::ec();
    let (api, _pods, reviewer) = offline(&signer).await;
    let token = signer.sign(&signer.header(), &claims(3600));
    api.answer(|_| Some(Reply::Hang));
    tokio::time::sleep(Duration::from_secs(2900)).await;
    assert!(reviewer.review(&token).await.is_ok());
    tokio::time::sleep(Duration::from_secs(720)).await;
    assert!(matches!(reviewer.review(&token).await, Err(ReviewError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn keys_are_read_again_and_kept_while_they_can_not_be() {
    let (first, second) = (Signer::ec(), Signer::rsa());
    let (api, pods, reviewer) = offline(&first).await;
    let tokens = [&first, &second].map(|signer| signer.sign(&signer.header(), &claims(3600)));
    let offline = Arc::clone(reviewer.offline.as_ref().unwrap());
    let known = || tokens.each_ref().map(|token| offline.review(token, "weft").is_some());
    api.answer(|_| Some(Reply::error(500, "InternalError")));
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert_eq!(known(), [true, false]);
    let jwk = second.jwk();
    api.answer(move |request| match request.path.as_str() {
        "/.well-known/openid-configuration" => Some(Reply::Json(200, json!({ "issuer": ISSUER }))),
        _ => Some(Reply::Json(200, json!({ "keys": [jwk] }))),
    });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(known(), [false, true], "a key that is published no more isn't taken");
    drop(pods);
    // A token that the API server takes, by a key that isn't known: the keys are read again at once.
    let jwk = first.jwk();
    api.answer(move |request| match request.path.as_str() {
        "/.well-known/openid-configuration" => Some(Reply::Json(200, json!({ "issuer": ISSUER }))),
        "/openid/v1/jwks" => Some(Reply::Json(200, json!({ "keys": [jwk] }))),
        _ => Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status(|_| ()) }))),
    });
    assert!(reviewer.review(&tokens[0]).await.is_ok());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(known(), [true, false]);
}
