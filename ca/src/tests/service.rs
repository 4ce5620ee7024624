use std::num::NonZeroU32;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status};
use weft_api::istio::v1::auth::IstioCertificateRequest;
use weft_api::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use weft_api::weft::ca::v1::certificate_authority_server::CertificateAuthority;
use weft_api::weft::ca::v1::{CreateCertificateRequest, CreateCertificateResponse, WatchBundleRequest};
use weft_core::ids::NodeName;

use super::*;

struct World {
    _dir: tempfile::TempDir,
    authority: Arc<Authority>,
    bindings: Arc<Bindings>,
    tokens: Arc<StaticTokens>,
    service: CaService,
}

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

fn world_with(limits: ServiceSettings) -> World {
    world_of(settings(), limits)
}

fn world_of(settings: AuthoritySettings, limits: ServiceSettings) -> World {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open(dir.path(), settings, Clock::system()).unwrap());
    let (bindings, tokens) = (Arc::new(Bindings::default()), Arc::new(StaticTokens::default()));
    tokens.accept("token-a", Caller::Node(node("a")));
    tokens.accept("token-b", Caller::Node(node("b")));
    tokens.accept("token-gw", Caller::Workload(id("gateway")));
    bindings.bind(&node("a"), &id("cart"));
    let service = CaService::new(authority.clone(), tokens.clone(), bindings.clone(), limits);
    World { _dir: dir, authority, bindings, tokens, service }
}

fn world() -> World {
    world_with(ServiceSettings::default())
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

impl World {
    async fn ask(&self, token: &str, identity: &SpiffeId) -> Result<CreateCertificateResponse, Status> {
        let ask = CreateCertificateRequest { csr: csr(identity), identity: identity.to_string(), ttl_seconds: 0 };
        let answer = CertificateAuthority::create_certificate(&self.service, with_token(token, ask)).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn code(&self, token: &str, identity: &SpiffeId) -> Code {
        self.ask(token, identity).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }
}

#[tokio::test]
async fn a_node_gets_an_identity_only_while_a_pod_using_it_is_bound_to_it() {
    let world = world();
    let answer = world.ask("token-a", &id("cart")).await.unwrap();
    assert_eq!(answer.chain.len(), 2);
    assert_eq!(answer.bundle.unwrap().domains[0].roots[0], world.authority.bundle().roots[0].to_vec());

    assert_eq!(world.code("token-b", &id("cart")).await, Code::PermissionDenied, "another node's pod");
    assert_eq!(world.code("token-a", &id("stock")).await, Code::PermissionDenied, "nobody's pod");
    world.bindings.bind(&node("a"), &id("cart"));
    world.bindings.unbind(&node("a"), &id("cart"));
    assert_eq!(world.code("token-a", &id("cart")).await, Code::Ok, "one of two pods is left");
    world.bindings.unbind(&node("a"), &id("cart"));
    assert_eq!(world.code("token-a", &id("cart")).await, Code::PermissionDenied, "the last pod is gone");
}

/// Who runs where is known under one name, and who asks may still have the other one.
#[tokio::test]
async fn the_rule_is_the_same_for_an_identity_under_an_alias() {
    let domains = TrustDomains::new(TrustDomain::default(), ["old.example".parse().unwrap()]);
    let world = world_of(AuthoritySettings::new(domains), ServiceSettings::default());
    let of = |domain: &str, account: &str| SpiffeId::new(domain.parse().unwrap(), "shop", account);
    for (token, account, code) in [
        ("token-a", "cart", Code::Ok),
        ("token-b", "cart", Code::PermissionDenied),
        ("token-a", "stock", Code::PermissionDenied),
        ("token-gw", "gateway", Code::Ok),
        ("token-gw", "cart", Code::PermissionDenied),
    ] {
        for domain in ["cluster.local", "old.example"] {
            assert_eq!(world.code(token, &of(domain, account)).await, code, "{token} for {account} of {domain}");
        }
        let foreign = of("old.example.com", account);
        assert_eq!(world.code(token, &foreign).await, Code::PermissionDenied, "{token} for {foreign}");
    }
}

#[tokio::test]
async fn a_gateway_gets_its_own_identity_only() {
    let world = world();
    assert_eq!(world.code("token-gw", &id("gateway")).await, Code::Ok);
    assert_eq!(world.code("token-gw", &id("cart")).await, Code::PermissionDenied);
    assert_eq!(world.code("token-a", &id("gateway")).await, Code::PermissionDenied);
}

#[tokio::test]
async fn without_a_good_token_there_is_nothing() {
    let world = world();
    assert_eq!(world.code("token-c", &id("cart")).await, Code::Unauthenticated);
    assert_eq!(world.code("", &id("cart")).await, Code::Unauthenticated);
    world.tokens.revoke(&Caller::Node(node("a")));
    assert_eq!(world.code("token-a", &id("cart")).await, Code::Unauthenticated);
    let bare = Request::new(WatchBundleRequest {});
    assert_eq!(world.service.watch_bundle(bare).await.err().map(|s| s.code()), Some(Code::Unauthenticated));
}

#[tokio::test]
async fn a_request_that_names_another_than_the_identity_is_refused() {
    let world = world();
    let ask = CreateCertificateRequest { csr: csr(&id("stock")), identity: id("cart").to_string(), ttl_seconds: 0 };
    let refused = CertificateAuthority::create_certificate(&world.service, with_token("token-a", ask)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    let ask = CreateCertificateRequest { csr: csr(&id("cart")), identity: "cart".to_owned(), ttl_seconds: 0 };
    let refused = CertificateAuthority::create_certificate(&world.service, with_token("token-a", ask)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn one_caller_that_asks_too_much_does_not_hold_up_another() {
    let few = NonZeroU32::new(3).unwrap();
    let world = world_with(ServiceSettings { per_second: NonZeroU32::MIN, burst: few });
    world.bindings.bind(&node("b"), &id("cart"));
    for _ in 0..3 {
        assert_eq!(world.code("token-a", &id("cart")).await, Code::Ok);
    }
    assert_eq!(world.code("token-a", &id("cart")).await, Code::ResourceExhausted);
    assert_eq!(world.code("token-b", &id("cart")).await, Code::Ok);
}

#[tokio::test]
async fn the_bundle_is_sent_at_once_and_at_each_change() {
    let world = world();
    let stream = world.service.watch_bundle(with_token("token-a", WatchBundleRequest {})).await.unwrap();
    let mut stream = stream.into_inner();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!((first.generation, first.domains[0].roots.len()), (1, 1));
    world.authority.start_rotation().unwrap();
    let second = stream.next().await.unwrap().unwrap();
    assert_eq!((second.generation, second.domains[0].roots.len()), (2, 2));
}

#[tokio::test]
async fn istios_node_proxy_is_served_under_the_same_rule() {
    let world = world();
    let ask = |named: Option<&SpiffeId>| {
        let der = csr(&id("cart"));
        let pem = weft_tls::pem::certificate(&CertificateDer::from(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        let metadata = named.map(|identity| {
            let kind = Some(prost_types::value::Kind::StringValue(identity.to_string()));
            let fields = [("ImpersonatedIdentity".to_owned(), prost_types::Value { kind })];
            prost_types::Struct { fields: fields.into() }
        });
        let request = IstioCertificateRequest { csr: pem, validity_duration: 3600, metadata };
        IstioCertificateService::create_certificate(&world.service, with_token("token-a", request))
    };
    let chain = ask(Some(&id("cart"))).await.unwrap().into_inner().cert_chain;
    assert_eq!(chain.len(), 3, "leaf, intermediate, root");
    let root = CertificateDer::from_pem_slice(chain[2].as_bytes()).unwrap();
    assert_eq!(root, world.authority.bundle().roots[0]);
    assert_eq!(ask(Some(&id("stock"))).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(ask(None).await.unwrap_err().code(), Code::InvalidArgument);
}
