use std::time::Duration;

use serde_json::json;
use weft_k8s::object::Kind;
use weft_kube_fake::FakeApi;

use super::*;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROUTES: Subject = Subject::Object(Kind::HttpRoute);

fn define(api: &FakeApi, versions: &[(&str, bool)], established: bool) {
    let versions: Vec<_> = versions.iter().map(|(name, served)| json!({ "name": name, "served": served })).collect();
    let status = if established { "True" } else { "False" };
    api.put(
        CRDS,
        json!({ "metadata": { "name": "httproutes.gateway.networking.k8s.io" }, "spec": { "versions": versions },
            "status": { "conditions": [{ "type": "Established", "status": status }] } }),
    );
}

fn route(api: &FakeApi, version: &str, name: &str) {
    let path = format!("/apis/gateway.networking.k8s.io/{version}/namespaces/shop/httproutes");
    api.put(&path, json!({ "metadata": { "name": name }, "spec": {} }));
}

fn tell(fact: Fact) -> String {
    let names = |all: Vec<Seen>| all.into_iter().map(|s| s.name).collect::<Vec<_>>().join(",");
    match fact {
        Fact::Absent(subject) => format!("no {}", subject.kind()),
        Fact::Listed(subject, resource, all) => format!("{} {}: {}", subject.kind(), resource.version, names(all)),
        Fact::Applied(_, one) => format!("+{}", one.name),
        Fact::Deleted(_, one) => format!("-{}", one.name),
        other => panic!("no watch tells {other:?}"),
    }
}

struct Following {
    facts: mpsc::Receiver<Fact>,
}

impl Following {
    fn start(api: &FakeApi, subject: Subject) -> Self {
        let (sender, facts) = mpsc::channel(16);
        let client = api.client();
        tokio::spawn(async move {
            match subject.origin() {
                Origin::Newer => follow_newer(&client, subject, &sender).await,
                _ => follow_custom(&client, subject, &sender).await,
            }
        });
        Self { facts }
    }

    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(400), self.facts.recv()).await;
        tell(next.expect("a fact").expect("a sender"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_changes_its_version_and_goes() {
    let api = FakeApi::new();
    let mut following = Following::start(&api, ROUTES);
    assert_eq!(following.next().await, "no HTTPRoute");

    route(&api, "v1beta1", "old");
    define(&api, &[("v1", false), ("v1beta1", true)], false);
    define(&api, &[("v1", false), ("v1beta1", true)], true);
    assert_eq!(following.next().await, "HTTPRoute v1beta1: old");

    route(&api, "v1", "a");
    define(&api, &[("v1", true), ("v1beta1", true)], true);
    assert_eq!(following.next().await, "HTTPRoute v1: a");
    route(&api, "v1", "b");
    assert_eq!(following.next().await, "+b");

    api.remove(&format!("{CRDS}/httproutes.gateway.networking.k8s.io"));
    assert_eq!(following.next().await, "no HTTPRoute");
    define(&api, &[("v1", true)], true);
    assert_eq!(following.next().await, "HTTPRoute v1: a,b");
}

/// An API server prunes by the definition it knows, and watches go on from where they stopped.
#[tokio::test(start_paused = true)]
async fn objects_are_read_anew_when_their_definition_changes_and_when_every_server_knows_it() {
    let api = FakeApi::new();
    let mut following = Following::start(&api, ROUTES);
    assert_eq!(following.next().await, "no HTTPRoute");
    route(&api, "v1", "a");
    define(&api, &[("v1", true)], true);
    assert_eq!(following.next().await, "HTTPRoute v1: a");
    let changed = tokio::time::Instant::now();
    define(&api, &[("v1", true), ("v1beta1", false)], true);
    assert_eq!(following.next().await, "HTTPRoute v1: a");
    assert!(changed.elapsed() < SETTLED);
    assert_eq!(following.next().await, "HTTPRoute v1: a");
    assert!(changed.elapsed() >= SETTLED);
    assert!(tokio::time::timeout(SETTLED * 4, following.facts.recv()).await.is_err(), "once is enough");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_can_not_be_read_counts_as_absent() {
    let api = FakeApi::new();
    define(&api, &[("v7", true), ("v1", false)], true);
    assert_eq!(Following::start(&api, ROUTES).next().await, "no HTTPRoute");
}

#[tokio::test(start_paused = true)]
async fn an_older_server_lacks_a_newer_kind_until_it_is_upgraded() {
    let api = FakeApi::new();
    let resources = |names: &[&str]| {
        let of = |name: &&str| json!({ "name": name, "singularName": "", "namespaced": false, "kind": "ServiceCIDR", "verbs": ["list"] });
        let list: Vec<_> = names.iter().map(of).collect();
        json!({ "kind": "APIResourceList", "groupVersion": "networking.k8s.io/v1", "resources": list })
    };
    let has = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = std::sync::Arc::clone(&has);
    api.answer(move |request| {
        let names: &[&str] =
            if now.load(std::sync::atomic::Ordering::Relaxed) { &["servicecidrs"] } else { &["ingresses"] };
        (request.path == "/apis/networking.k8s.io/v1").then(|| weft_kube_fake::Reply::Json(200, resources(names)))
    });
    let mut following = Following::start(&api, Subject::ServiceCidr);
    assert_eq!(following.next().await, "no ServiceCIDR");
    api.put(
        "/apis/networking.k8s.io/v1/servicecidrs",
        json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ["10.96.0.0/16"] } }),
    );
    has.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(following.next().await, "ServiceCIDR v1: kubernetes");
}

#[tokio::test(start_paused = true)]
async fn pods_are_known_by_what_their_tokens_say() {
    const PODS: &str = "/api/v1/namespaces/weft-system/pods";
    let (api, known) = (FakeApi::new(), Arc::new(KnownPods::default()));
    let spec = json!({ "nodeName": "n1", "serviceAccountName": "weft-node-proxy", "containers": [] });
    let put = |name: &str, uid: &str| {
        api.put(PODS, json!({ "metadata": { "name": name, "namespace": "weft-system", "uid": uid }, "spec": spec }));
    };
    put("first", "u-1");
    let (sender, mut facts) = mpsc::channel(16);
    start(&api.client(), &sender, false, &known);
    tokio::spawn(async move { while facts.recv().await.is_some() {} });
    let knows = |pod: &str, uid: &str, node: &str| {
        let reviewed = weft_kube::Reviewed {
            namespace: "weft-system".into(),
            service_account: "weft-node-proxy".into(),
            pod: pod.into(),
            pod_uid: uid.into(),
            node: Some(node.into()),
        };
        known.knows(&reviewed, std::time::SystemTime::now())
    };
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..100 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("still not so: {what}");
    };
    until("one of the first list", &|| knows("first", "u-1", "n1")).await;
    assert!(!knows("first", "u-1", "n2") && !knows("first", "u-2", "n1") && !knows("second", "u-1", "n1"));
    put("second", "u-2");
    until("a new one", &|| knows("second", "u-2", "n1")).await;
    api.remove(&format!("{PODS}/first"));
    until("one that is gone", &|| !knows("first", "u-1", "n1")).await;
    assert!(knows("second", "u-2", "n1"));
}
