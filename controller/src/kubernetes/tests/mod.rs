//! The whole controller against an API server in memory: all but the process and its TLS.

mod reports;

use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};
use weft_kube_fake::FakeApi;

use super::serve::Controller;
use super::settings::{Args, Settings};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn settings(pod: &str) -> Settings {
    Cli::try_parse_from(["weft-controller", "--pod-name", pod]).unwrap().args.check("").unwrap()
}

/// As `settings`, of an installation that serves Gateways; roots are in the file.
fn serving_gateways(roots: &str) -> Settings {
    let arguments = ["weft-controller", "--pod-name=a", "--gateway-image=i", "--trust-bundle", roots];
    Cli::try_parse_from(arguments).unwrap().args.check("").unwrap()
}

fn start(api: &FakeApi, pod: &str) -> Controller {
    Controller::start(&api.client(), &settings(pod))
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(30)).await;
}

fn define(api: &FakeApi, plural_and_group: &str, version: &str) {
    api.put(
        CRDS,
        json!({ "metadata": { "name": plural_and_group }, "spec": { "versions": [{ "name": version, "served": true }] },
            "status": { "conditions": [{ "type": "Established", "status": "True" }] } }),
    );
}

fn shop(api: &FakeApi) {
    api.put(
        "/api/v1/namespaces",
        json!({ "metadata": { "name": "shop", "labels": { "weftmesh.io/mesh": "enabled" } } }),
    );
    let spec = json!({ "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{ "port": 80, "appProtocol": "http" }] });
    api.put("/api/v1/namespaces/shop/services", json!({ "metadata": { "name": "cart" }, "spec": spec }));
    let pod = json!({ "metadata": { "name": "cart-1" }, "spec": { "nodeName": "a", "containers": [] },
        "status": { "phase": "Running", "podIP": "10.1.0.1" } });
    api.put("/api/v1/namespaces/shop/pods", pod);
}

fn route(api: &FakeApi) {
    let spec = json!({ "parentRefs": [{ "group": "", "kind": "Service", "name": "cart" }],
        "rules": [{ "backendRefs": [{ "name": "cart", "port": 80 }] }] });
    api.put(ROUTES, json!({ "metadata": { "name": "r" }, "spec": spec }));
}

fn accepted(api: &FakeApi) -> Value {
    let route = api.get(&format!("{ROUTES}/r")).unwrap();
    route.pointer("/status/parents/0/conditions/0/status").cloned().unwrap_or_default()
}

fn status_writes(api: &FakeApi) -> usize {
    api.requests().iter().filter(|r| r.path.ends_with("/status") && r.method != "GET").count()
}

#[tokio::test(start_paused = true)]
async fn it_starts_without_any_definitions_and_picks_kinds_up_when_they_come() {
    let api = FakeApi::new();
    shop(&api);
    let controller = start(&api, "a");
    let mut missing = controller.missing.clone();
    missing.wait_for(Vec::is_empty).await.unwrap();
    settle().await;
    let before = controller.publisher.len();
    assert!(before >= 3, "the mesh, a Service and a workload: {before}");
    assert!(secrets(&api).is_empty(), "nobody serves Gateways, so nobody looks at their certificates");

    route(&api);
    define(&api, "httproutes.gateway.networking.k8s.io", "v1");
    define(&api, "xmeshes.gateway.networking.x-k8s.io", "v1alpha1");
    let meshes = "/apis/gateway.networking.x-k8s.io/v1alpha1/xmeshes";
    api.put(
        meshes,
        json!({ "metadata": { "name": "weft" }, "spec": { "controllerName": "weftmesh.io/mesh-controller" } }),
    );
    settle().await;
    assert_eq!(controller.publisher.len(), before + 1);
    assert_eq!(accepted(&api), "True");
    let mesh = api.get(&format!("{meshes}/weft")).unwrap();
    assert_eq!(mesh["status"]["conditions"][0]["status"], "True");
    assert!(mesh["status"]["supportedFeatures"].as_array().unwrap().contains(&json!({ "name": "Mesh" })));

    api.remove(&format!("{CRDS}/httproutes.gateway.networking.k8s.io"));
    settle().await;
    assert_eq!(controller.publisher.len(), before);
}

#[tokio::test(start_paused = true)]
async fn one_writes_and_both_serve_until_the_other_takes_over() {
    let api = FakeApi::new();
    shop(&api);
    define(&api, "httproutes.gateway.networking.k8s.io", "v1");
    let first = start(&api, "a");
    settle().await;
    let second = start(&api, "b");
    settle().await;
    route(&api);
    settle().await;
    assert_eq!((accepted(&api), status_writes(&api)), (json!("True"), 1));
    assert_eq!(first.publisher.len(), second.publisher.len());

    first.leadership.release().await;
    settle().await;
    assert!(*second.leadership.is_leader().borrow());
    assert_eq!(status_writes(&api), 1, "the new leader finds everything as it should be");
    api.remove(&format!("{ROUTES}/r"));
    route(&api);
    settle().await;
    assert_eq!((accepted(&api), status_writes(&api)), (json!("True"), 2));
}

#[tokio::test(start_paused = true)]
async fn an_object_made_anew_while_the_watch_was_away_gets_its_status() {
    let api = FakeApi::new();
    shop(&api);
    define(&api, "httproutes.gateway.networking.k8s.io", "v1");
    let _controller = start(&api, "a");
    route(&api);
    settle().await;
    api.disconnect(true);
    api.remove(&format!("{ROUTES}/r"));
    route(&api);
    api.compact();
    assert_eq!(accepted(&api), Value::Null);
    settle().await;
    assert_eq!(accepted(&api), "True");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_somebody_robs_of_our_entry_gets_it_back() {
    let api = FakeApi::new();
    shop(&api);
    define(&api, "httproutes.gateway.networking.k8s.io", "v1");
    let _controller = start(&api, "a");
    route(&api);
    settle().await;
    let other = json!({ "parentRef": { "name": "cart" }, "controllerName": "example.com/other", "conditions": [] });
    let mut robbed = api.get(&format!("{ROUTES}/r")).unwrap();
    robbed["status"] = json!({ "parents": [other.clone()] });
    api.put(ROUTES, robbed);
    settle().await;
    let parents = api.get(&format!("{ROUTES}/r")).unwrap()["status"]["parents"].clone();
    assert_eq!((parents.as_array().unwrap().len(), &parents[0]), (2, &other));
}

/// What was asked about Secrets.
fn secrets(api: &FakeApi) -> Vec<String> {
    api.requests().into_iter().filter(|request| request.path.ends_with("/secrets")).map(|it| it.query).collect()
}

fn gateway_condition(api: &FakeApi, kind: &str) -> String {
    let gateway = api.get("/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/web").unwrap();
    let conditions = gateway["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    condition["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_gateway_gets_what_serves_it_and_its_status_follows_its_service() {
    const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways";
    const CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
    let (api, roots) = (FakeApi::new(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(roots.path(), "ROOTS").unwrap();
    shop(&api);
    for kind in ["gateways", "gatewayclasses"] {
        define(&api, &format!("{kind}.gateway.networking.k8s.io"), "v1");
    }
    let class =
        json!({ "metadata": { "name": "weft" }, "spec": { "controllerName": "weftmesh.io/gateway-controller" } });
    api.put(CLASSES, class);
    let spec = json!({ "gatewayClassName": "weft", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] });
    api.put(GATEWAYS, json!({ "metadata": { "name": "web" }, "spec": spec }));
    let controller = Controller::start(&api.client(), &serving_gateways(roots.path().to_str().unwrap()));
    settle().await;
    let class = api.get(&format!("{CLASSES}/weft")).unwrap();
    assert!(class["status"]["supportedFeatures"].as_array().unwrap().contains(&json!({ "name": "Gateway" })));
    let deployment = api.get("/apis/apps/v1/namespaces/shop/deployments/web-weft").unwrap();
    let uid = api.get(&format!("{GATEWAYS}/web")).unwrap()["metadata"]["uid"].clone();
    assert_eq!(deployment["metadata"]["ownerReferences"][0]["uid"], uid);
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "i");
    let reasons = || (gateway_condition(&api, "Accepted"), gateway_condition(&api, "Programmed"));
    assert_eq!(reasons(), ("Accepted".to_owned(), "AddressNotAssigned".to_owned()));

    let mut service = api.get("/api/v1/namespaces/shop/services/web-weft").unwrap();
    service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } });
    api.put("/api/v1/namespaces/shop/services", service);
    settle().await;
    assert_eq!(reasons(), ("Accepted".to_owned(), "Pending".to_owned()), "nobody listens yet");
    let asked = secrets(&api);
    assert!(!asked.is_empty() && asked.iter().all(|query| query.contains("type%3Dkubernetes.io%2Ftls")), "{asked:?}");
    let addresses = api.get(&format!("{GATEWAYS}/web")).unwrap()["status"]["addresses"].clone();
    assert_eq!(addresses, json!([{ "type": "IPAddress", "value": "192.0.2.7" }]));
    drop(controller);
}
