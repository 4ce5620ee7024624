//! Whose token is shown, and to whom.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;
use tokio::net::TcpListener;
use weft_controller::view::{Dial, Places, Proxies};
use weft_core::identity::SpiffeId;
use weft_kube_fake::{FakeApi, Reply};
use weft_tls::{CertStore, ControlServer, KeyRequest, Svid, TlsSettings, TrustStore};

use super::*;

fn session(api: &FakeApi) -> Session {
    Session { client: api.client(), mesh: "weft-system".to_owned() }
}

#[tokio::test]
async fn a_token_is_made_for_the_controller_and_for_a_short_time() {
    let api = FakeApi::new();
    api.answer(|request| {
        request.path.ends_with("/serviceaccounts/probe/token").then(|| {
            assert_eq!(request.body["spec"]["audiences"], json!(["weftmesh.io"]));
            assert_eq!(request.body["spec"]["expirationSeconds"], 900);
            let status = json!({ "token": "made", "expirationTimestamp": "2026-11-22T10:00:00Z" });
            Reply::Json(201, json!({ "metadata": {}, "spec": { "audiences": [] }, "status": status }))
        })
    });
    let args = |account: &str| ViewArgs { service_account: Some(account.to_owned()), ..ViewArgs::default() };
    let made = token(&session(&api), &Choice::default(), &args("ci/probe")).await.unwrap();
    assert_eq!(
        (made.as_str(), api.requests()[0].path.as_str()),
        ("made", "/api/v1/namespaces/ci/serviceaccounts/probe/token")
    );
    let odd = token(&session(&api), &Choice::default(), &args("probe")).await.unwrap_err();
    assert!(odd.to_string().contains("NAMESPACE/NAME"), "{odd}");
    api.answer(|_| Some(Reply::error(403, "Forbidden")));
    let refused = token(&session(&api), &Choice::default(), &args("ci/probe")).await.unwrap_err();
    assert!(format!("{refused:#}").contains("a token of ServiceAccount ci/probe"), "{refused:#}");
}

#[tokio::test]
async fn who_has_no_token_hears_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: k, cluster: {server: \"https://127.0.0.1:1\"}}]\n\
                contexts: [{name: c, context: {cluster: k, user: u}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(&path, text).unwrap();
    let choice = Choice { kubeconfig: Some(path), context: None };
    let none = token(&session(&FakeApi::new()), &choice, &ViewArgs::default()).await.unwrap_err();
    assert!(none.to_string().contains("--service-account NAMESPACE/NAME"), "{none}");
}

#[tokio::test]
async fn without_roots_nothing_is_sent_and_a_file_will_do() {
    let api = FakeApi::new();
    let args = ViewArgs::default();
    let none = roots(&session(&api), &args).await.unwrap_err();
    assert!(format!("{none:#}").contains("is the mesh installed there"), "{none:#}");
    api.put(
        "/api/v1/namespaces/weft-system/configmaps",
        json!({ "metadata": { "name": "weft-trust" }, "data": { "root.pem": include_str!("root.pem") } }),
    );
    assert_eq!(roots(&session(&api), &args).await.unwrap().len(), 1);
    api.answer(|_| Some(Reply::error(403, "Forbidden")));
    let refused = roots(&session(&api), &args).await.unwrap_err();
    assert!(format!("{refused:#}").contains("give --roots FILE"), "{refused:#}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    std::fs::write(&path, include_str!("root.pem")).unwrap();
    let args = ViewArgs { roots: Some(path), ..ViewArgs::default() };
    assert_eq!(roots(&session(&api), &args).await.unwrap().len(), 1);
}

/// The controller's certificate, and the root that vouches for it.
fn certificate() -> (CertificateDer<'static>, Svid) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let identity = SpiffeId::new("mesh.example".parse().unwrap(), "weft-system", CONTROLLER);
    let key = KeyRequest::generate(&identity).unwrap();
    let csr = CertificateSigningRequestParams::from_der(&key.csr().into()).unwrap();
    let mut params = CertificateParams::default();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string()).unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (root, key.complete(vec![params.signed_by(&csr.public_key, &issuer).unwrap().der().clone()]).unwrap())
}

#[tokio::test]
async fn the_controller_is_known_by_the_roots_and_its_answers_are_told() {
    let api = FakeApi::new();
    api.answer(|request| {
        let status = match request.path.as_str() {
            path if path.ends_with("/tokenreviews") => json!({ "authenticated": true, "user": { "username": "jane" } }),
            path if path.ends_with("/subjectaccessreviews") => json!({ "allowed": false }),
            _ => return None,
        };
        Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
    });
    let (root, svid) = certificate();
    let identity = svid.identity().clone();
    let bundle = TrustBundle::new(identity.trust_domain.clone(), [root.clone()]).unwrap();
    let store = CertStore::new(TrustStore::new(bundle), Clock::system(), TlsSettings::default());
    store.install(svid);
    let server = ControlServer::for_identity(&store, &identity).unwrap();
    let places = Places {
        client: api.client(),
        account: ("weft-system".into(), "weft-node-proxy".into()),
        trust_domain: identity.trust_domain.clone(),
        of_gateway: Arc::new(|_, _| None),
    };
    let nobody: Dial = Arc::new(|_| Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) }));
    let shown = weft_controller::view::View::new(api.client(), Proxies::new(places, nobody));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(shown.serve(listener, server));
    let open = async |root: &CertificateDer<'static>, mesh: &str| {
        let stream = TcpStream::connect(address).await.unwrap();
        View::over(stream, &tls(vec![root.clone()], mesh).unwrap(), "jane's".to_owned()).await
    };
    let mut view = open(&root, "weft-system").await.unwrap();
    let refused = view.post("/v1/tap", br#"{"filter":{"namespace":"bank"}}"#.to_vec()).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("answers 403: jane may not get taps.weftmesh.io in namespace bank"), "{said}");
    assert!(view.get("/v1/nothing").await.unwrap_err().to_string().contains("answers 404"));
    assert!(view.is_open());
    let asked = api.requests().len();
    let (other, _) = certificate();
    assert!(open(&other, "weft-system").await.is_err(), "another mesh's roots");
    assert!(open(&root, "weft-2").await.is_err(), "a controller of another namespace");
    assert_eq!(api.requests().len(), asked, "and no token was shown");
}
