use tonic::{Code, Request};
use weft_api::weft::ca::v1::CreateCertificateRequest;
use weft_api::weft::ca::v1::certificate_authority_server::CertificateAuthority;
use weft_core::ids::NodeName;
use weft_kube_fake::Reply;

use super::*;
use crate::auth::{Authenticator, Caller, Unauthenticated};
use crate::service::{CaService, ServiceSettings};

/// Answers reviews: a token is `<audience>:<namespace>:<account>:<node>`, the node may be empty.
fn review(cluster: &Cluster) {
    cluster.api.answer(|request| {
        if !request.path.ends_with("/tokenreviews") {
            return None;
        }
        let token = request.body["spec"]["token"].as_str().unwrap();
        if token == "down" {
            return Some(Reply::error(500, "InternalError"));
        }
        let parts: Vec<_> = token.split(':').collect();
        let audiences = &request.body["spec"]["audiences"];
        let status = match parts.as_slice() {
            [audience, namespace, account, node] if audiences == &json!([audience]) => {
                let mut extra = json!({
                    "authentication.kubernetes.io/pod-name": ["p"],
                    "authentication.kubernetes.io/pod-uid": ["u"],
                });
                if !node.is_empty() {
                    extra["authentication.kubernetes.io/node-name"] = json!([node]);
                }
                let user =
                    json!({ "username": format!("system:serviceaccount:{namespace}:{account}"), "extra": extra });
                json!({ "authenticated": true, "audiences": [audience], "user": user })
            }
            _ => json!({ "authenticated": false, "error": "not for this audience" }),
        };
        Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
    });
}

#[tokio::test(start_paused = true)]
async fn callers_are_known_by_their_service_accounts() {
    let cluster = Cluster::new();
    review(&cluster);
    let mut settings = cluster.settings("a");
    settings.audiences.push("istio-ca".to_owned());
    settings.node_accounts.push(("istio-system".into(), "ztunnel".into()));
    let offline = OfflineReview::new(cluster.api.client(), Arc::default());
    let reviews = TokenReviews::new(&cluster.api.client(), &settings, &Arc::new(offline));
    let gateway = SpiffeId::new(TrustDomain::default(), "edge", "gateway");
    let node = Caller::Node(NodeName::new("n1"));
    for (token, wanted) in [
        ("weft:weft-system:weft-node-proxy:n1", Ok(node.clone())),
        ("istio-ca:istio-system:ztunnel:n1", Ok(node)),
        ("istio-ca:edge:gateway:n1", Ok(Caller::Workload(gateway.clone()))),
        ("weft:edge:gateway:", Ok(Caller::Workload(gateway))),
        (
            "weft:other:weft-node-proxy:n1",
            Ok(Caller::Workload(SpiffeId::new(TrustDomain::default(), "other", "weft-node-proxy"))),
        ),
    ] {
        assert_eq!(reviews.authenticate(token).await, wanted, "{token}");
    }
    for (token, why) in [
        ("weft:weft-system:weft-node-proxy:", "pod weft-system/p, which is gone"),
        ("api:edge:gateway:n1", "not for this audience"),
        ("", "0 bytes"),
    ] {
        let refused = reviews.authenticate(token).await;
        assert!(matches!(&refused, Err(Unauthenticated::Refused(text)) if text.contains(why)), "{token}: {refused:?}");
    }
    let down = reviews.authenticate("down").await;
    assert!(matches!(down, Err(Unauthenticated::Unavailable(_))), "{down:?}");
}

/// API servers before 1.30 don't put the node into tokens.
#[tokio::test(start_paused = true)]
async fn without_a_node_in_the_token_its_pod_decides_which_node_asks() {
    let world = Service::new().await;
    world.pod("n1");
    let proxy = |uid: &str, node: &str| {
        let spec = json!({ "nodeName": node, "serviceAccountName": "weft-node-proxy" });
        let pod = json!({ "metadata": { "name": "p", "uid": uid }, "spec": spec });
        world.cluster.api.remove("/api/v1/namespaces/weft-system/pods/p");
        world.cluster.api.put("/api/v1/namespaces/weft-system/pods", pod);
    };
    let believed = Duration::from_secs(10);
    assert_eq!(world.ask("", &cart()).await, Code::Unauthenticated, "the proxy's pod is gone");
    proxy("u", "n2");
    assert_eq!(world.ask("", &cart()).await, Code::PermissionDenied, "another node's identity");
    proxy("another", "n1");
    tokio::time::advance(believed).await;
    assert_eq!(world.ask("", &cart()).await, Code::Unauthenticated, "a pod of the same name, made anew");
    proxy("u", "n1");
    assert_eq!(world.ask("", &cart()).await, Code::Ok);
}

struct Service {
    cluster: Cluster,
    service: CaService,
    _replica: Replica,
}

impl Service {
    async fn new() -> Self {
        let cluster = Cluster::new();
        review(&cluster);
        let replica = cluster.replica("a");
        let (authority, limits) = (replica.authority().await, ServiceSettings::default());
        let service = CaService::new(authority, replica.reviews(), replica.bindings(), limits);
        until("ready", || (replica.missing())().is_empty()).await;
        Self { cluster, service, _replica: replica }
    }

    async fn ask(&self, node: &str, identity: &SpiffeId) -> Code {
        self.ask_with(&format!("weft:weft-system:weft-node-proxy:{node}"), identity).await
    }

    async fn ask_with(&self, token: &str, identity: &SpiffeId) -> Code {
        let csr = KeyRequest::generate(identity).unwrap().csr().to_vec();
        let ask = CreateCertificateRequest { csr, identity: identity.to_string(), ttl_seconds: 0 };
        let mut request = Request::new(ask);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let answer = CertificateAuthority::create_certificate(&self.service, request).await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    fn pod(&self, node: &str) {
        let spec = json!({ "nodeName": node, "serviceAccountName": "cart" });
        let pod = json!({ "metadata": { "name": "cart-1" }, "spec": spec, "status": { "phase": "Pending" } });
        self.cluster.api.put("/api/v1/namespaces/shop/pods", pod);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_has_an_identity_while_a_pod_with_it_is_bound_there_and_no_other_node_has() {
    let world = Service::new().await;
    world.pod("n1");
    assert_eq!(world.ask("n1", &cart()).await, Code::Ok);
    assert_eq!(world.ask("n2", &cart()).await, Code::PermissionDenied, "another node's identity");
    world.cluster.api.remove("/api/v1/namespaces/shop/pods/cart-1");
    world.pod("n2");
    assert_eq!(world.ask("n2", &cart()).await, Code::Ok);
    assert_eq!(world.ask("n1", &cart()).await, Code::PermissionDenied, "the pod has gone to another node");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_gateway_has_the_identity_of_its_own_account_and_no_other() {
    let world = Service::new().await;
    world.pod("n1");
    let of = |namespace: &str, account: &str| SpiffeId::new(TrustDomain::default(), namespace, account);
    let token = "weft:edge:web-weft:n1";
    assert_eq!(world.ask_with(token, &of("edge", "web-weft")).await, Code::Ok);
    for (other, why) in [
        (of("edge", "other-weft"), "another Gateway's"),
        (of("shop", "web-weft"), "one of that name in another namespace"),
        (cart(), "that of a pod on its node"),
        (of("weft-system", "weft-node-proxy"), "the node proxy's"),
        (SpiffeId::new("elsewhere".parse().unwrap(), "edge", "web-weft"), "one of another trust domain"),
    ] {
        assert_eq!(world.ask_with(token, &other).await, Code::PermissionDenied, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_faster_than_the_news_of_its_pod_waits_for_it() {
    let world = Service::new().await;
    let (asked, cart) = (tokio::time::Instant::now(), cart());
    let later = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        world.pod("n1");
    };
    let (code, ()) = tokio::join!(world.ask("n1", &cart), later);
    assert_eq!(code, Code::Ok);
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let asked = tokio::time::Instant::now();
    let stock = SpiffeId::new(TrustDomain::default(), "shop", "stock");
    assert_eq!(world.ask("n1", &stock).await, Code::PermissionDenied);
    assert!((2000..2500).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_is_put_off_until_the_pods_are_known() {
    let cluster = Cluster::new();
    cluster.api.answer(|request| request.path.ends_with("/pods").then(|| Reply::error(403, "Forbidden")));
    let replica = cluster.replica("a");
    let node = Caller::Node(NodeName::new("n1"));
    let bindings = replica.bindings();
    let refusal = crate::auth::IssueRule::may_issue(&*bindings, &node, &cart()).unwrap_err();
    assert!(matches!(refusal, crate::auth::Refusal::Unread(_)), "{refusal}");
}
