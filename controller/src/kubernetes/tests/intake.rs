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
