//! From what a pod of a Gateway answers to the replica that it follows, to the status that the leader writes.

use tonic::metadata::MetadataMap;
use weft_kube_fake::Reply;
use weft_xds::TypeUrl;
use weft_xds::server::{Access, Event, Refusal};

use super::*;

const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways";
const CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const REPLICAS: &str = "/api/v1/namespaces/weft-system/pods";

fn gateway(api: &FakeApi, ports: &[u16]) {
    let listener = |port: &u16| json!({ "name": format!("l{port}"), "port": port, "protocol": "HTTP" });
    let listeners: Vec<_> = ports.iter().map(listener).collect();
    let spec = json!({ "gatewayClassName": "weft", "listeners": listeners });
    let before = api.get(&format!("{GATEWAYS}/web"));
    let mut gateway = before.unwrap_or_else(|| json!({ "metadata": { "name": "web" } }));
    gateway["spec"] = spec;
    api.put(GATEWAYS, gateway);
}

fn replica(api: &FakeApi, pod: &str, roots: &str) -> Controller {
    let arguments = ["weft-controller", "--pod-name", pod, "--gateway-image", "i", "--trust-bundle", roots];
    let settings = Cli::try_parse_from(arguments).unwrap().args.check("").unwrap();
    api.put(REPLICAS, json!({ "metadata": { "name": pod }, "spec": { "nodeName": "n", "containers": [] } }));
    Controller::start(&api.client(), &settings)
}

/// Every token is that of a pod of the Gateway.
fn review(api: &FakeApi) {
    api.answer(|request| {
        let extra = json!({ "authentication.kubernetes.io/pod-name": ["web-weft-1"],
            "authentication.kubernetes.io/pod-uid": ["u"] });
        let user = json!({ "username": "system:serviceaccount:shop:web-weft", "extra": extra });
        let status = json!({ "authenticated": true, "audiences": ["weft"], "user": user });
        let is_review = request.path.ends_with("/tokenreviews");
        is_review.then(|| Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
    });
}

fn listening(api: &FakeApi) -> bool {
    let gateway = api.get(&format!("{GATEWAYS}/web")).unwrap();
    let conditions = gateway["status"]["listeners"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let of_listener = conditions.iter().any(|it| it["type"] == "Programmed" && it["status"] == "True");
    assert_eq!(of_listener, gateway_condition(api, "Programmed") == "Programmed", "{conditions:?}");
    of_listener
}

/// Two replicas, of which the first leads, and a Gateway with an address.
async fn two_replicas(api: &FakeApi, roots: &str) -> (Controller, Controller) {
    for kind in ["gateways", "gatewayclasses"] {
        define(api, &format!("{kind}.gateway.networking.k8s.io"), "v1");
    }
    let spec = json!({ "controllerName": "weftmesh.io/gateway-controller" });
    api.put(CLASSES, json!({ "metadata": { "name": "weft" }, "spec": spec }));
    gateway(api, &[80]);
    review(api);
    let leader = replica(api, "a", roots);
    settle().await;
    let other = replica(api, "b", roots);
    settle().await;
    assert!(*leader.leadership.is_leader().borrow() && !*other.leadership.is_leader().borrow());
    let mut service = api.get(&format!("{SERVICES}/web-weft")).unwrap();
    service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } });
    api.put(SERVICES, service);
    settle().await;
    (leader, other)
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_programmed_when_a_pod_says_so_to_whatever_replica() {
    let (api, roots) = (FakeApi::new(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(roots.path(), "ROOTS").unwrap();
    let (leader, other) = two_replicas(&api, roots.path().to_str().unwrap()).await;
    assert!(!listening(&api), "nobody listens yet");

    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", "Bearer token".parse().unwrap());
    let pod = other.access.admit(&metadata, &tonic::Extensions::default()).await.unwrap();
    let listeners = TypeUrl::new("type.googleapis.com/weft.config.v1.Listener");
    other.access.on_type(&pod, &listeners).unwrap();
    other.access.on_event(&pod, Event::Connected);
    let synced = || other.access.on_event(&pod, Event::Synced(other.publisher.sequence()));
    synced();
    settle().await;
    assert!(listening(&api), "the leader has it from the other replica");
    let map = api.get("/api/v1/namespaces/weft-system/configmaps/weft-gateways").unwrap();
    assert_eq!(map["data"].as_object().map(|data| data.keys().collect::<Vec<_>>()), Some(vec![&"b".to_owned()]));

    gateway(&api, &[80, 81]);
    settle().await;
    assert!(!listening(&api), "the new listener isn't bound");
    let (type_url, name) = (TypeUrl::new("type.googleapis.com/weft.config.v1.Listener"), "shop/web/l81");
    let refused = vec![Refusal { name: name.into(), reason: "*:81 can't be listened on: in use".into() }];
    other.access.on_event(&pod, Event::Nacked { type_url: type_url.clone(), reason: "...".into(), refused });
    synced();
    settle().await;
    assert!(listening(&api), "one listener that can't be bound costs the other one nothing");
    let gateway = api.get(&format!("{GATEWAYS}/web")).unwrap();
    let of = |listener: &serde_json::Value| {
        let conditions = listener["conditions"].as_array().unwrap();
        let programmed = conditions.iter().find(|it| it["type"] == "Programmed").unwrap();
        format!("{} {}", listener["name"].as_str().unwrap(), programmed["reason"].as_str().unwrap())
    };
    let told: Vec<_> = gateway["status"]["listeners"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(told, ["l80 Programmed", "l81 RefusedByPod"]);
    assert!(gateway.to_string().contains("*:81 can't be listened on: in use"), "{gateway}");
    other.access.on_event(&pod, Event::Mended { type_url, names: vec![name.into()] });
    settle().await;
    assert!(listening(&api));

    // The replica goes; its pods are on their way to another, and what they have bound is bound.
    other.access.on_event(&pod, Event::Disconnected);
    api.remove(&format!("{REPLICAS}/b"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(listening(&api));
    let pod = leader.access.admit(&metadata, &tonic::Extensions::default()).await.unwrap();
    leader.access.on_type(&pod, &listeners).unwrap();
    leader.access.on_event(&pod, Event::Connected);
    leader.access.on_event(&pod, Event::Synced(leader.publisher.sequence()));
    drop(other);
    settle().await;
    assert!(listening(&api), "by its own word");
    leader.access.on_event(&pod, Event::Disconnected);
    settle().await;
    settle().await;
    assert!(!listening(&api), "there is no pod any more");
}
