//! Dashboards of people who may view all, one namespace, or nothing.

use serde_json::{Value, json};
use weft_core::change::Resource;
use weft_k8s::index::{Index, IndexConfig};
use weft_k8s::parse;
use weft_kube_fake::{FakeApi, Reply, Request as Call};

use super::super::auth::tests::people;
use super::super::tap::tests::proxies;
use super::*;

/// As [`people`], and Joe, who may view namespace shop.
fn and_joe(call: &Call) -> Option<Reply> {
    let spec = &call.body["spec"];
    let status = match call.path.as_str() {
        "/apis/authentication.k8s.io/v1/tokenreviews" if spec["token"] == "joe" && spec["audiences"].is_null() => {
            json!({ "authenticated": true, "user": { "username": "joe" } })
        }
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" if spec["user"] == "joe" => {
            json!({ "allowed": spec["resourceAttributes"]["namespace"] == "shop" })
        }
        _ => return people(call),
    };
    Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
}

/// Joe's shop calls the vault, and the vault calls its safe.
fn page(n: u32) -> String {
    let line = |from: &str, (space, to): (&str, &str)| {
        format!(
            "weft_http_requests_total{{reporter=\"source\",source_namespace=\"{from}\",source_workload=\"{from}-web\",\
             destination_namespace=\"{space}\",destination_workload=\"{to}\",destination_service_namespace=\"{space}\",\
             destination_service=\"{to}\",destination_port=\"80\",connection_security=\"mutual_tls\",response_class=\"2xx\",\
             reason=\"ok\"}} {}\n",
            n * 1000
        )
    };
    line("shop", ("shop", "cart"))
        + &line("shop", ("vault", "door"))
        + &line("vault", ("vault", "safe"))
        + "weft_pods 3\n"
}

fn world() -> (FakeApi, Arc<View>) {
    world_of(Vec::new())
}

fn world_of(resources: Vec<Resource>) -> (FakeApi, Arc<View>) {
    let api = FakeApi::new();
    api.answer(and_joe);
    let labels = json!({ "app.kubernetes.io/name": "weft-node-proxy" });
    let spec = json!({ "serviceAccountName": "weft-node-proxy", "nodeName": "n1", "containers": [] });
    let status = json!({ "phase": "Running", "podIP": "10.0.0.1" });
    let pod = json!({ "metadata": { "name": "n1", "labels": labels }, "spec": spec, "status": status });
    api.put("/api/v1/namespaces/weft-system/pods", pod);
    let view = View::new(api.client(), proxies(&api, Vec::new()));
    let (configuration, mut questions) = Configuration::channel();
    tokio::spawn(async move {
        while let Some(answer) = questions.recv().await {
            let _ = answer.send(resources.clone());
        }
    });
    let read = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let pages: Pages = Arc::new(move |_| {
        let n = read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move { Ok(Bytes::from(page(n))) })
    });
    view.dashboard.follow(configuration, pages);
    (api, view)
}

async fn asked(view: &Arc<View>, token: Option<&str>, path: &str) -> Result<Value, Refused> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let asked = Asked {
        method: http::Method::GET,
        path: path.to_owned(),
        query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        token: token.map(str::to_owned),
        body: Bytes::new(),
    };
    let body = view.route(&asked).await?.into_body().collect().await.unwrap().to_bytes();
    Ok(serde_json::from_slice(&body).unwrap())
}

fn pairs(graph: &Value) -> Vec<String> {
    let edges = graph["edges"].as_array().unwrap().iter();
    edges.map(|edge| format!("{} {}", edge["from"].as_str().unwrap(), edge["to"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn who_may_view_all_sees_all_and_what_concerns_a_choice() {
    let (_api, view) = world();
    let graph = asked(&view, Some("jane"), "/v1/graph").await.unwrap();
    assert_eq!(pairs(&graph), ["shop/shop-web shop/cart", "shop/shop-web vault/door", "vault/vault-web vault/safe"]);
    let rate = graph["edges"][0]["requestsPerSecond"].as_f64().unwrap();
    assert!(rate > 10.0 && graph["seconds"].as_f64().unwrap() >= 1.0, "{graph}");
    let chosen = asked(&view, Some("jane"), "/v1/graph?namespace=shop").await.unwrap();
    assert_eq!(pairs(&chosen), ["shop/shop-web shop/cart", "shop/shop-web vault/door"]);
    assert_eq!(asked(&view, Some("jane"), "/v1/routes").await.unwrap()["rules"], json!([]));
    assert_eq!(asked(&view, Some("jane"), "/v1/namespaces").await.unwrap()["namespaces"], json!([]));
}

#[tokio::test]
async fn who_may_view_one_namespace_hears_of_no_other() {
    let (_api, view) = world();
    for path in ["graph", "routes", "certificates", "failures"] {
        let told = asked(&view, Some("joe"), &format!("/v1/{path}?namespace=shop")).await.unwrap().to_string();
        assert!(!told.contains("vault") && !told.contains("safe") && !told.contains("door"), "{path}: {told}");
        for elsewhere in ["", "?namespace=vault", "?namespace=", "?namespace=vault&namespace=shop"] {
            let refused = asked(&view, Some("joe"), &format!("/v1/{path}{elsewhere}")).await.unwrap_err();
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}{elsewhere}");
            assert!(refused.why.contains("joe may not get views.weftmesh.io"), "{}", refused.why);
        }
    }
    let graph = asked(&view, Some("joe"), "/v1/graph?namespace=shop").await.unwrap();
    assert_eq!(pairs(&graph), ["shop/shop-web shop/cart", "shop/shop-web another namespace"]);
    assert!(graph["edges"][1]["success"].is_null() && graph["edges"][1]["services"].is_null(), "{graph}");
}

#[tokio::test]
async fn namespaces_are_named_to_who_may_view_them() {
    let service = |namespace: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: web, namespace: {namespace} }}\n\
             spec: {{ clusterIP: {ip}, clusterIPs: [{ip}], ports: [{{ name: http, port: 80 }}] }}\n---\n"
        )
    };
    let mut index = Index::new(IndexConfig::default());
    let text = service("shop", "10.96.0.1") + &service("vault", "10.96.0.2");
    parse::parse("services.yaml", &text).objects.into_iter().for_each(|located| index.apply(located.object));
    index.commit();
    let (_api, view) = world_of(index.resources().cloned().collect());
    for (token, namespaces) in [("jane", json!(["shop", "vault"])), ("joe", json!(["shop"]))] {
        assert_eq!(asked(&view, Some(token), "/v1/namespaces").await.unwrap()["namespaces"], namespaces, "{token}");
    }
}

/// What somebody who may view all has read a moment ago is no way around one's own rights.
#[tokio::test]
async fn readings_are_shared_and_rights_are_not() {
    let (api, view) = world();
    let of_pods = || api.requests().iter().filter(|call| call.path.ends_with("/pods")).count();
    asked(&view, Some("jane"), "/v1/graph?namespace=shop").await.unwrap();
    let before = of_pods();
    let joes = asked(&view, Some("joe"), "/v1/graph?namespace=shop").await.unwrap();
    assert_eq!(pairs(&joes), ["shop/shop-web shop/cart", "shop/shop-web another namespace"]);
    assert_eq!(of_pods(), before, "it was read a moment ago");
}

#[tokio::test]
async fn who_is_not_known_or_may_nothing_gets_nothing() {
    let (api, view) = world();
    for path in ["namespaces", "graph", "routes", "certificates", "failures"] {
        for (token, status) in
            [(None, 401), (Some("nobody"), 401), (Some("expired"), 401), (Some("account"), 403), (Some("down"), 503)]
        {
            let refused = asked(&view, token, &format!("/v1/{path}?namespace=shop")).await.unwrap_err();
            assert_eq!(refused.status.as_u16(), status, "{path} {token:?}: {}", refused.why);
        }
    }
    assert!(!api.requests().iter().any(|call| call.path.ends_with("/pods")), "no proxy is looked for in their name");
    assert_eq!(asked(&view, Some("jane"), "/v1/secrets").await.unwrap_err().status, StatusCode::NOT_FOUND);
}

#[test]
fn a_line_is_kept_for_the_namespaces_that_it_names() {
    let of = |line: &str| tells_of(line, "shop");
    assert!(of("a{source_namespace=\"shop\"} 1") && of("a{identity=\"spiffe://d/ns/shop/sa/web\"} 1"));
    assert!(of("weft_trusted_root_expiry_timestamp_seconds{trust_domain=\"d\"} 1"));
    assert!(!of("a{source_namespace=\"shopping\"} 1") && !of("a{identity=\"spiffe://d/ns/a/sa/shop\"} 1"));
    assert!(tells_of("a 1", ""));
}

#[tokio::test]
async fn so_many_readings_are_kept_and_no_more() {
    let dashboard = Dashboard::default();
    for n in 0..2 * MOST {
        dashboard.reading(&format!("n{n}")).await.lock().await.take(Instant::now(), Vec::new());
    }
    assert_eq!(dashboard.readings.lock().await.len(), MOST);
    assert!(dashboard.readings.lock().await.contains_key(&format!("n{}", 2 * MOST - 1)));
}
