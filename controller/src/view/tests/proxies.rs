//! Which pods are proxies.

use serde_json::{Value, json};
use weft_kube_fake::FakeApi;

use super::*;

fn pod(name: &str, account: &str, change: impl FnOnce(&mut Value)) -> Value {
    let labels = json!({ PART.0: PART.1, MANAGED_BY.0: MANAGED_BY.1 });
    let spec = json!({ "serviceAccountName": account, "nodeName": "n1", "containers": [] });
    let status = json!({ "phase": "Running", "podIP": "10.0.0.7" });
    let mut pod = json!({ "metadata": { "name": name, "labels": labels }, "spec": spec, "status": status });
    change(&mut pod);
    pod
}

fn proxies(api: &FakeApi) -> Proxies {
    let places = Places {
        client: api.client(),
        account: ("weft-system".into(), "weft-node-proxy".into()),
        trust_domain: "mesh.example".parse().unwrap(),
        of_gateway: Arc::new(|namespace, account| {
            (namespace.as_str() == "edge" && account.as_str() == "web-weft").then(|| GatewayKey::new("edge", "web"))
        }),
    };
    Proxies::new(places, Arc::new(|_| Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })))
}

#[tokio::test]
async fn proxies_are_pods_of_the_right_accounts_and_nothing_else() {
    let api = FakeApi::new();
    let (own, edge) = ("/api/v1/namespaces/weft-system/pods", "/api/v1/namespaces/edge/pods");
    api.put(own, pod("proxy-1", "weft-node-proxy", |_| ()));
    api.put(own, pod("fake", "other", |_| ()));
    api.put(own, pod("ended", "weft-node-proxy", |pod| pod["status"]["phase"] = json!("Succeeded")));
    api.put(own, pod("new", "weft-node-proxy", |pod| pod["status"]["podIP"] = json!(null)));
    api.put(edge, pod("web-weft-1", "web-weft", |pod| pod["status"]["podIP"] = json!("fd00::7")));
    // Labels are free for all, and so is the name of a ServiceAccount in another namespace.
    api.put(edge, pod("liar", "default", |_| ()));
    api.put("/api/v1/namespaces/shop/pods", pod("liar", "web-weft", |_| ()));
    api.put("/api/v1/namespaces/shop/pods", pod("liar-2", "weft-node-proxy", |_| ()));
    let found = proxies(&api).all().await.unwrap();
    let shown: Vec<_> = found.iter().map(|it| format!("{} {} {}", it.name, it.address, it.identity)).collect();
    assert_eq!(
        shown,
        [
            "node n1 10.0.0.7 spiffe://mesh.example/ns/weft-system/sa/weft-node-proxy",
            "gateway edge/web-weft-1 fd00::7 spiffe://mesh.example/ns/edge/sa/web-weft",
        ]
    );
}

#[tokio::test]
async fn what_fails_is_said() {
    let api = FakeApi::new();
    api.answer(|_| Some(weft_kube_fake::Reply::error(403, "Forbidden")));
    assert!(proxies(&api).all().await.unwrap_err().contains("Forbidden"));
    let identity = "spiffe://mesh.example/ns/a/sa/b".parse().unwrap();
    let proxy = Proxy { name: "node n1".into(), address: [127, 0, 0, 1].into(), identity };
    assert_eq!(proxies(&api).dial(&proxy).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
}
