mod callers;
mod elsewhere;
mod replicas;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_kube_fake::FakeApi;
use weft_tls::{Clock, KeyRequest};

use super::*;
use crate::rotate::{Stage, Step};

const SECRETS: &str = "/api/v1/namespaces/weft-system/secrets";
const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const MAPS: &str = "/api/v1/namespaces/weft-system/configmaps";
const MAP: &str = "/api/v1/namespaces/weft-system/configmaps/weft-trust";
const MINUTE: Duration = Duration::from_secs(60);

/// A cluster without anything in it, whose time is the test's.
struct Cluster {
    api: FakeApi,
    clock: Clock,
}

impl Cluster {
    fn new() -> Self {
        Self { api: FakeApi::new(), clock: Clock::following_tokio(SystemTime::now()) }
    }

    fn settings(&self, replica: &str) -> ClusterSettings {
        ClusterSettings {
            namespace: "weft-system".into(),
            replica: replica.to_owned(),
            source: RootSource::Own,
            // Short lives: a lease is renewed many times in a day.
            authority: AuthoritySettings {
                leaf_life: MINUTE * 10,
                intermediate_life: MINUTE * 60,
                propagation: MINUTE * 10,
                ..AuthoritySettings::new(TrustDomain::default())
            },
            audiences: vec!["weft".to_owned()],
            node_accounts: vec![("weft-system".into(), "weft-node-proxy".into())],
        }
    }

    fn replica(&self, name: &str) -> Replica {
        self.start(self.settings(name))
    }

    fn start(&self, settings: ClusterSettings) -> Replica {
        Replica::start(&self.api.client(), settings, self.clock)
    }

    /// The roots that the ConfigMap shows.
    fn published(&self) -> Option<String> {
        Some(self.api.get(MAP)?["data"]["root.pem"].as_str()?.to_owned())
    }

    /// What the Secret says of the state.
    fn state(&self) -> Value {
        let text = self.api.get(SECRET).and_then(|it| Some(it["data"]["state.json"].as_str()?.to_owned()));
        serde_json::from_slice(&STANDARD.decode(text.unwrap_or_default()).unwrap()).unwrap_or_default()
    }

    async fn order(&self, step: Step) -> Result<String, CommandError> {
        rotate(&self.api.client(), &"weft-system".into(), step).await
    }

    fn put_secret(&self, name: &str, data: &[(&str, String)]) {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text)))).collect();
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "data": data });
        self.api.put(SECRETS, secret);
    }
}

/// Waits, in the test's own time, for what other tasks bring about.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = tokio::time::Instant::now() + MINUTE * 2;
    while !holds() {
        assert!(tokio::time::Instant::now() < patience, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn cart() -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", "cart")
}

/// Who signs leaves now.
fn issuer(authority: &Authority) -> CertificateDer<'static> {
    let request = KeyRequest::generate(&cart()).unwrap();
    authority.issue(request.csr(), &cart(), None).unwrap().chain[1].clone()
}

fn stage(authority: &Authority) -> &'static str {
    authority.status().unwrap().stage.name()
}

/// Makes every write to `path` fail until it is dropped.
fn forbid_writes(api: &FakeApi, path: &'static str) {
    api.answer(move |request| {
        let write = request.method != "GET" && request.path.starts_with(path);
        write.then(|| weft_kube_fake::Reply::error(403, "Forbidden"))
    });
}

fn allow_all(api: &FakeApi) {
    api.answer(|_| None);
}
