//! Who gets in, what they see, and what they are heard to say.

use super::*;
use crate::kubernetes::bound::Bindings;
use serde_json::json;
use tonic::Code;
use weft_kube_fake::{FakeApi, Reply};
use weft_xds::TypeUrl;

fn access() -> (ProxyAccess, mpsc::Receiver<Nack>) {
    let api = FakeApi::new();
    api.answer(|request| {
        let pod_of = |name: &str, account: &str, node: Option<&str>| {
            let mut extra = json!({ "authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": ["u"] });
            if let Some(node) = node {
                extra["authentication.kubernetes.io/node-name"] = json!([node]);
            }
            json!({ "authenticated": true, "audiences": ["weft"],
                "user": { "username": format!("system:serviceaccount:{account}"), "extra": extra } })
        };
        let pod = |account: &str, node: Option<&str>| pod_of("p", account, node);
        if request.path.ends_with("/pods/old") {
            let spec = json!({ "serviceAccountName": "weft-node-proxy", "nodeName": "b", "containers": [] });
            return Some(Reply::Json(200, json!({ "metadata": { "name": "old", "uid": "u" }, "spec": spec })));
        }
        let status = match request.body["spec"]["token"].as_str()? {
            "proxy" => pod("weft-system:weft-node-proxy", Some("a")),
            "old" => pod_of("old", "weft-system:weft-node-proxy", None),
            "nowhere" => pod("weft-system:weft-node-proxy", None),
            "impostor" => pod("shop:weft-node-proxy", Some("a")),
            "gateway" => pod_of("web-weft-1", "edge:web-weft", Some("a")),
            "stranger" => pod("edge:default", Some("a")),
            "down" => return Some(Reply::error(500, "InternalError")),
            _ => json!({ "authenticated": false }),
        };
        Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
    });
    let (nacks, received) = mpsc::channel(4);
    let account = ("weft-system".into(), "weft-node-proxy".into());
    let outlets = (nacks, Own::default(), Own::default());
    let access = ProxyAccess::new(Reviewer::new(api.client(), "weft"), account, Publisher::default(), outlets);
    let accounts = [(("edge".into(), "web-weft".into()), web())];
    access.set_gateways(Arc::new(accounts.into_iter().collect()));
    (access, received)
}

#[tokio::test]
async fn only_node_proxies_and_pods_of_gateways_get_in() {
    let (access, _nacks) = access();
    let admit = async |header: Option<&str>| {
        let mut metadata = MetadataMap::new();
        header.map(|h| metadata.insert("authorization", h.parse().unwrap()));
        let admitted = access.admit(&metadata, &tonic::Extensions::default()).await;
        admitted.map(|client| client.who.to_string()).map_err(|status| status.code())
    };
    assert_eq!(admit(Some("Bearer proxy")).await, Ok("the proxy of node a".into()));
    assert_eq!(admit(None).await, Err(Code::Unauthenticated));
    assert_eq!(admit(Some("Bearer other")).await, Err(Code::Unauthenticated));
    assert_eq!(admit(Some("Bearer impostor")).await, Err(Code::PermissionDenied));
    // Tokens that don't say on which node: the pod does, if it is there.
    assert_eq!(admit(Some("Bearer old")).await, Ok("the proxy of node b".into()));
    assert_eq!(admit(Some("Bearer nowhere")).await, Err(Code::Unauthenticated));
    assert_eq!(admit(Some("Bearer down")).await, Err(Code::Unavailable));
    assert_eq!(admit(Some("Bearer gateway")).await, Ok("pod web-weft-1 of Gateway edge/web".into()));
    assert_eq!(admit(Some("Bearer stranger")).await, Err(Code::PermissionDenied));
    access.set_gateways(Arc::default());
    assert_eq!(admit(Some("Bearer gateway")).await, Err(Code::PermissionDenied), "the Gateway is gone");
}

#[tokio::test]
async fn a_refusal_is_told_once_and_lasts_until_it_is_mended() {
    let (access, mut nacks) = access();
    let client = client(7, Who::Node("a".into()));
    let type_url = TypeUrl::new("type.googleapis.com/weft.config.v1.Rule");
    let refusal = |name: &str| Refusal { name: name.into(), reason: "weight".into() };
    let refused = vec![refusal("HTTPRoute/shop/cart/0"), refusal("HTTPRoute/shop/web/0"), refusal("nonsense")];
    access.on_event(&client, Event::Nacked { type_url: type_url.clone(), reason: "...".into(), refused });
    let told = [nacks.try_recv().unwrap(), nacks.try_recv().unwrap()].map(|n| n.object.to_string());
    assert_eq!(told, ["HTTPRoute shop/cart", "HTTPRoute shop/web"]);
    assert!(nacks.try_recv().is_err(), "what is no object of ours is only in the log");
    let now = || access.refused.look().into_iter().map(|r| r.name).collect::<Vec<_>>();
    assert_eq!(now(), ["cart", "web"]);
    access.on_event(&client, Event::Mended { type_url, names: vec!["HTTPRoute/shop/cart/0".into()] });
    assert_eq!(now(), ["web"]);
    access.on_event(&client, Event::Disconnected);
    assert_eq!(now(), ["web"], "it may be back at once");
}

fn web() -> GatewayKey {
    GatewayKey::new("edge", "web")
}

fn client(id: u64, who: Who) -> Client {
    Client { id, who, told: AtomicU64::new(0), listens: AtomicBool::default() }
}

fn pod(id: u64) -> Client {
    client(id, Who::Gateway { gateway: web(), pod: "web-weft-1".into() })
}

#[tokio::test]
async fn a_pod_of_a_gateway_sees_what_is_its_own_and_a_node_nothing_of_gateways() {
    let (access, _nacks) = access();
    let (node, pod) = (client(1, Who::Node("a".into())), pod(2));
    let url = |name: &str| TypeUrl::new(format!("type.googleapis.com/weft.config.v1.{name}"));
    for (kind, name, of_node, of_pod) in [
        ("Listener", "edge/web/https", false, true),
        ("Listener", "edge/web2/https", false, false),
        ("Listener", "edge2/web/https", false, false),
        ("Certificate", "edge/web/edge/tls", false, true),
        ("Certificate", "shop/web/edge/web", false, false),
        ("Certificate", "web/edge/web/edge", false, false),
        ("GatewayRule", "edge/web/HTTPRoute/shop/cart/0", false, true),
        ("GatewayRule", "shop/web/HTTPRoute/edge/web/0", false, false),
        ("GatewayConfig", "edge/web", false, true),
        ("GatewayConfig", "edge/we", false, false),
        ("Listener", "no name", false, false),
        ("Workload", "Kubernetes//Pod/shop/cart-1", true, true),
        ("Rule", "HTTPRoute/shop/cart/0", true, false),
        ("Unknown", "x", false, false),
    ] {
        let url = url(kind);
        let sees = |client: &Client| !access.is_restricted(client, &url) || access.may_see(client, &url, name);
        assert_eq!((sees(&node), sees(&pod)), (of_node, of_pod), "{kind} {name}");
    }
    assert!(!access.is_restricted(&node, &url("Workload")), "for what all may see nothing is kept in mind");
}

#[tokio::test]
async fn what_a_pod_has_bound_is_told_from_its_answers() {
    let (access, mut nacks) = access();
    let listener = TypeUrl::new("type.googleapis.com/weft.config.v1.Listener");
    let key = weft_xds::ResourceName::new(listener.clone(), "edge/web/http");
    let body =
        |text: &'static str| vec![Update::Set(weft_xds::Encoded { name: key.clone(), body: text.as_bytes().into() })];
    let print = |text: &str| {
        let version = weft_xds::Version::of(text.as_bytes());
        Fingerprint::of(&BTreeMap::from([("edge/web/http".to_owned(), version)]))
    };
    let told = || {
        let mut report = None;
        access.bound.edit(|bound| {
            report = Some(bound.report());
            false
        });
        report.and_then(|report| report.get("edge/web").cloned()).unwrap_or_default().into_iter().collect::<Vec<_>>()
    };
    let pod = pod(1);
    access.publish(body("80"), &[(web(), Some(print("80")))]);
    access.on_event(&pod, Event::Connected);
    assert!(told().is_empty(), "it hasn't answered");
    access.on_event(&pod, Event::Synced(access.publisher.sequence()));
    assert!(told().is_empty(), "it hasn't asked for listeners");
    access.on_type(&pod, &listener).unwrap();
    access.on_event(&pod, Event::Synced(access.publisher.sequence()));
    assert_eq!(told(), [Bindings::All(print("80"))]);

    access.publish(body("81"), &[(web(), Some(print("81")))]);
    let refused = vec![Refusal { name: "edge/web/http".into(), reason: "*:81 can't be listened on: in use".into() }];
    access.on_event(&pod, Event::Nacked { type_url: listener.clone(), reason: "...".into(), refused });
    access.on_event(&pod, Event::Synced(access.publisher.sequence()));
    let why = "*:81 can't be listened on: in use".to_owned();
    let refused = BTreeMap::from([("edge/web/http".to_owned(), why)]);
    assert_eq!(told(), [Bindings::AllBut { listeners: print("81"), refused }], "it could not bind it");
    let nack = nacks.try_recv().unwrap();
    assert_eq!((nack.who, nack.object.to_string().as_str()), (pod.who.clone(), "Gateway edge/web"));
    access.on_event(&pod, Event::Mended { type_url: listener, names: vec!["edge/web/http".into()] });
    assert_eq!(told(), [Bindings::All(print("81"))]);

    access.publish(body("81"), &[(web(), Some(print("82")))]);
    access.on_event(&pod, Event::Synced(access.publisher.sequence()));
    assert_eq!(told(), [Bindings::All(print("82"))], "nothing was new in the publication but that");
    let node = client(2, Who::Node("a".into()));
    access.on_event(&node, Event::Connected);
    access.on_event(&node, Event::Synced(access.publisher.sequence()));
    assert_eq!(told().len(), 1, "a node binds nothing");
}

#[tokio::test]
async fn a_pod_of_a_gateway_is_heard_of_its_own_only() {
    let (access, mut nacks) = access();
    let (pod, url) = (pod(1), |name: &str| TypeUrl::new(format!("type.googleapis.com/weft.config.v1.{name}")));
    for (kind, name, is_heard) in [
        ("Rule", "HTTPRoute/shop/cart/0", false),
        ("AuthorizationPolicy", "shop/p", false),
        ("GatewayRule", "edge/other/HTTPRoute/shop/cart/0", false),
        ("Listener", "edge/other/http", false),
        ("GatewayRule", "edge/web/HTTPRoute/shop/cart/0", true),
        ("Listener", "edge/web/http", true),
    ] {
        let refused = vec![Refusal { name: name.into(), reason: "no".into() }];
        access.on_event(&pod, Event::Nacked { type_url: url(kind), reason: "...".into(), refused });
        assert_eq!(nacks.try_recv().is_ok(), is_heard, "{kind} {name}");
    }
    let mut refused: Vec<_> = access.refused.look().into_iter().map(|it| it.name).collect();
    refused.sort();
    assert_eq!(refused, ["cart", "web"], "other replicas hear of no more");
}

#[tokio::test]
async fn nobody_asks_for_types_that_nobody_knows() {
    let (access, _nacks) = access();
    for client in [pod(1), client(2, Who::Node("a".into()))] {
        assert!(wire::TYPE_URLS.iter().all(|known| access.on_type(&client, &TypeUrl::new(known)).is_ok()));
        let refused = access.on_type(&client, &TypeUrl::new("type.googleapis.com/weft.config.v1.Unknown"));
        assert_eq!(refused.map_err(|status| status.code()), Err(Code::InvalidArgument));
    }
}
