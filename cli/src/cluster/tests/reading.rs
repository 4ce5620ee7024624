//! Reads a cluster from an API server in memory.

use serde_json::{Value, json};
use weft_kube_fake::{FakeApi, Reply};

use super::sample::*;
use crate::cluster::read::Session;

/// The healthy cluster's objects behind an API server, without pages of pods.
fn cluster() -> (FakeApi, Session) {
    let api = FakeApi::new();
    let facts = super::healthy();
    for node in facts.nodes.unwrap() {
        api.put("/api/v1/nodes", serde_json::to_value(node).unwrap());
    }
    for namespace in facts.namespaces.unwrap() {
        api.put("/api/v1/namespaces", serde_json::to_value(namespace).unwrap());
    }
    for pod in facts.pods.unwrap() {
        let namespace = pod.metadata.namespace.clone().unwrap();
        api.put(&format!("/api/v1/namespaces/{namespace}/pods"), serde_json::to_value(pod).unwrap());
    }
    let session = Session { client: api.client(), mesh: "weft-system".into() };
    (api, session)
}

fn page(path: &str) -> Option<Reply> {
    let version = json!({ "gitVersion": "v1.34.2", "major": "1", "minor": "34" });
    match path {
        "/version" => Some(Reply::Json(200, version)),
        "/api/v1/namespaces/weft-system/pods/weft-agent-1:15024/proxy/readyz" => Some(Reply::Json(200, json!("ready"))),
        "/api/v1/namespaces/weft-system/pods/weft-agent-1:15024/proxy/metrics" => Some(Reply::Json(200, json!("x"))),
        "/api/v1/namespaces/weft-system/pods/weft-agent-2:15024/proxy/readyz" => {
            Some(Reply::Json(503, json!("a proxy")))
        }
        _ if path.contains("/proxy/") => Some(Reply::error(403, "pods/proxy is forbidden")),
        _ => None,
    }
}

#[tokio::test]
async fn objects_and_pages_are_read_and_refusals_are_kept_as_such() {
    let (api, session) = cluster();
    let crd = json!({ "metadata": { "name": "httproutes.gateway.networking.k8s.io", "annotations": {
        "gateway.networking.k8s.io/channel": "standard", "gateway.networking.k8s.io/bundle-version": "v1.6.3" } },
        "spec": { "group": "gateway.networking.k8s.io", "scope": "Namespaced", "names": { "kind": "HTTPRoute", "plural": "httproutes" },
            "versions": [{ "name": "v1", "served": true, "storage": true }] } });
    api.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd);
    let route = json!({ "metadata": { "name": "r" }, "spec": {} });
    api.put("/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes", route);
    // Where nobody serves Calico's kinds, the answer is no object but text.
    api.answer(|request| match request.path.as_str() {
        "/apis/crd.projectcalico.org/v1/felixconfigurations/default" => {
            Some(Reply::Json(404, json!("404 page not found")))
        }
        "/api/v1/services" => Some(Reply::error(403, "services is forbidden")),
        path => page(path),
    });
    let facts = Box::pin(session.installed()).await.unwrap();
    assert_eq!(facts.server.version, "v1.34.2");
    assert_eq!((facts.nodes.as_ref().unwrap().len(), facts.pods.as_ref().unwrap().len()), (2, 11));
    assert_eq!(facts.services.as_ref().unwrap_err().why, "services is forbidden");
    assert_eq!(facts.felix, Ok(None));
    assert_eq!(facts.crds.as_ref().unwrap()[0].bundle.as_deref(), Some("v1.6.3"));
    assert_eq!(facts.objects.as_ref().unwrap()[0].object["metadata"]["namespace"], "shop");
    assert_eq!(facts.pages.len(), 8);
    assert_eq!(facts.pages["weft-agent-1"].missing, Ok(vec![]));
    assert_eq!(facts.pages["weft-agent-2"].missing.as_ref().unwrap().len(), 1);
    assert_eq!(facts.pages["weft-ca-a"].metrics.as_ref().unwrap_err().why, "pods/proxy is forbidden");
}

/// A Gateway's proxy may be anywhere.
#[tokio::test]
async fn logs_are_of_all_parts_and_of_the_pods_of_gateways() {
    let (api, session) = cluster();
    let (name, value) = weft_controller::kubernetes::gateways::MANAGED_BY;
    for namespace in ["edge", "weft-system"] {
        let statuses = json!([{ "name": "proxy", "restartCount": 1 }]);
        let pod = json!({ "metadata": { "name": "public-weft-1", "namespace": namespace, "labels": { name: value } },
            "status": { "containerStatuses": statuses } });
        api.put(&format!("/api/v1/namespaces/{namespace}/pods"), pod);
    }
    let read = async || {
        let mut logs = Vec::new();
        let done = crate::cluster::logs(&session, 60, 10, |name, log| logs.push((name.to_owned(), log.is_ok()))).await;
        logs.retain(|(name, _)| name.contains("public-weft"));
        (logs, done)
    };
    let logs_of = |path: &str| path.ends_with("/log").then(|| Reply::Json(200, json!("a line")));
    api.answer(move |request| logs_of(&request.path));
    let (logs, done) = read().await;
    let own = ["public-weft-1-proxy", "public-weft-1-proxy-before"].map(|name| (name.to_owned(), true));
    let elsewhere = own.clone().map(|(name, read)| (format!("edge/{name}"), read));
    assert_eq!((logs, done), ([own.clone(), elsewhere].concat(), Ok(())));
    // Who may not list pods of all namespaces has the others' at least.
    api.answer(move |request| match request.path.as_str() {
        "/api/v1/pods" => Some(Reply::error(403, "pods is forbidden")),
        path => logs_of(path),
    });
    let (logs, done) = read().await;
    assert_eq!((logs, done.unwrap_err().why), (own.to_vec(), "pods is forbidden".to_owned()));
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_an_error_and_no_report() {
    let (api, session) = cluster();
    api.answer(|_| Some(Reply::error(401, "Unauthorized")));
    let error = Box::pin(session.before()).await.unwrap_err();
    assert!(error.to_string().starts_with("the API server: 401"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_server_is_not_waited_for_for_ever() {
    let (api, session) = cluster();
    api.answer(|_| Some(Reply::Hang));
    assert!(Box::pin(session.before()).await.unwrap_err().why.contains("no answer within"));
}

#[tokio::test]
async fn rights_are_asked_for_one_by_one() {
    let (api, session) = cluster();
    api.answer(|request| match request.path.as_str() {
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            let mut review = request.body.clone();
            let daemon_sets = review["spec"]["resourceAttributes"]["resource"] == "daemonsets";
            review["status"] = json!({ "allowed": !daemon_sets });
            Some(Reply::Json(201, review))
        }
        path => page(path),
    });
    let rights = Box::pin(session.before()).await.unwrap().rights.unwrap();
    let refused: Vec<_> = rights.iter().filter(|r| !r.allowed).map(|r| (r.resource, r.namespace.as_deref())).collect();
    assert_eq!(refused, [("daemonsets", Some("weft-system"))]);
    assert!(rights.len() > 10);
}

#[tokio::test]
async fn a_date_is_read_by_its_header_and_pages_need_no_object() {
    let (api, session) = cluster();
    api.answer(|request| page(&request.path));
    assert_eq!(session.server().await.unwrap().date, None);
    let (code, text) = session.page("weft-agent-2", 15024, "readyz").await.unwrap();
    assert_eq!((code, text.as_str()), (503, "\"a proxy\""));
    let refused = session.page("weft-ca-a", 15014, "readyz").await.unwrap_err();
    assert_eq!(refused.what, "readyz of pod weft-system/weft-ca-a");
}

#[tokio::test]
async fn enrolling_sets_the_label_and_says_who_is_not_in_yet() {
    let (api, session) = cluster();
    api.put("/api/v1/namespaces", json!({ "metadata": { "name": "other", "labels": { "team": "a" } } }));
    api.put("/api/v1/namespaces/other/pods", pod("other", "late", "n1"));
    api.answer(|request| page(&request.path));
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: crate::cluster::EnrollArgs,
    }
    let run = async |words: &str| {
        let line = <Line as clap::Parser>::parse_from(words.split(' '));
        crate::cluster::enroll::run(&session, &line.args).await
    };
    run("x other --timeout 0s").await.unwrap();
    let labels =
        |name: &str| -> Value { api.get(&format!("/api/v1/namespaces/{name}")).unwrap()["metadata"]["labels"].clone() };
    assert_eq!(labels("other"), json!({ "team": "a", "weftmesh.io/mesh": "enabled" }));
    run("x other --off --timeout 0s").await.unwrap();
    assert_eq!(labels("other"), json!({ "team": "a" }));
    assert!(run("x nowhere").await.unwrap_err().to_string().contains("no namespace nowhere"));
    assert!(run("x weft-system").await.unwrap_err().to_string().contains("the mesh itself"));
}
