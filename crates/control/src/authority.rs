//! How a component gets certificates and the trust bundle: the client of the certificate authority.
//!
//! A caller proves itself with its token over TLS whose server is known beforehand; the authority decides which
//! identities it may have: a node those of its workloads, any other its own. Bundles come on a stream, and with each certificate, so that a certificate of a new
//! root is never used before the root itself is trusted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weft_api::weft::ca::v1::certificate_authority_client::CertificateAuthorityClient;
use weft_api::weft::ca::v1::{CreateCertificateRequest, TrustBundle as WireBundle, WatchBundleRequest};
use weft_tls::{
    CertificateDer, ControlClient, FetchError, FetchFuture, InvalidBundle, SvidRequest, SvidSource, TrustBundle,
    TrustStore,
};

use crate::channel::{TokenSource, authorize, channel};

/// The largest answer read, in bytes: a chain and a bundle with room for large keys and many roots.
const MAX_ANSWER: usize = 1024 * 1024;
/// Pauses between attempts to follow the bundle: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Why a bundle from the authority is not adopted.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It names something that is no trust domain.
    #[error("trust domain: {0}")]
    Domain(#[from] weft_core::identity::InvalidIdentity),
    /// Its roots cannot be used.
    #[error(transparent)]
    Roots(#[from] InvalidBundle),
    /// It trusts nobody.
    #[error("the bundle is empty")]
    Empty,
}

/// The client. A cheap handle.
#[derive(Clone)]
pub struct IdentityClient {
    client: CertificateAuthorityClient<Channel>,
    token: TokenSource,
    trust: TrustStore,
    /// The generation adopted last. Answers and the stream race each other, and the older must not win.
    adopted: Arc<Mutex<u64>>,
}

impl IdentityClient {
    /// A client of the authority at `address` (`host:port`) that keeps `trust` up to date. Connects when first used.
    pub fn new(address: String, tls: ControlClient, token: TokenSource, trust: TrustStore) -> Self {
        let channel = channel(address, tls);
        let client = CertificateAuthorityClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        Self { client, token, trust, adopted: Arc::default() }
    }

    /// Follows the authority's bundle for ever, through its restarts.
    pub async fn follow_bundle(&self) {
        let mut pause = PAUSES.0;
        loop {
            match self.follow_once(&mut pause).await {
                Ok(()) => tracing::info!("the authority ended the bundle stream"),
                Err(status) => tracing::warn!(code = ?status.code(), "trust bundle: {}", status.message()),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    async fn follow_once(&self, pause: &mut Duration) -> Result<(), Status> {
        let request = self.authorized(WatchBundleRequest {})?;
        let mut stream = self.client.clone().watch_bundle(request).await?.into_inner();
        let mut first = true;
        while let Some(bundle) = stream.message().await? {
            *pause = PAUSES.0;
            // The first of a stream is what the authority says now, even if it was restored and counts from less.
            if let Err(error) = self.adopt(&bundle, first) {
                tracing::error!(%error, generation = bundle.generation, "trust bundle not adopted; the old one stays");
            }
            first = false;
        }
        Ok(())
    }

    /// Takes over a bundle that is newer than the last, or any if it `is_current`.
    fn adopt(&self, wire: &WireBundle, is_current: bool) -> Result<(), BundleError> {
        let mut adopted = self.adopted.lock();
        if wire.generation <= *adopted && !is_current {
            return Ok(());
        }
        let bundle = from_wire(wire)?;
        self.trust.update(bundle)?;
        *adopted = wire.generation;
        Ok(())
    }

    fn authorized<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        authorize(&self.token, request.metadata_mut())?;
        Ok(request)
    }

    async fn ask(&self, ask: SvidRequest) -> Result<Vec<CertificateDer<'static>>, FetchError> {
        let identity = ask.identity.to_string();
        let request = CreateCertificateRequest { csr: ask.csr, identity, ttl_seconds: 0 };
        let request = self.authorized(request).map_err(|s| from_status(&s))?;
        let answer = self.client.clone().create_certificate(request).await.map_err(|s| from_status(&s))?.into_inner();
        if let Some(bundle) = &answer.bundle
            && let Err(error) = self.adopt(bundle, false)
        {
            tracing::error!(%error, generation = bundle.generation, "trust bundle not adopted; the old one stays");
        }
        Ok(answer.chain.into_iter().map(CertificateDer::from).collect())
    }
}

impl SvidSource for IdentityClient {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(self.ask(request))
    }
}

impl fmt::Debug for IdentityClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityClient").field("trust", &self.trust).finish_non_exhaustive()
    }
}

fn from_wire(wire: &WireBundle) -> Result<TrustBundle, BundleError> {
    if wire.domains.is_empty() {
        return Err(BundleError::Empty);
    }
    wire.domains.iter().try_fold(TrustBundle::default(), |bundle, domain| {
        let roots = domain.roots.iter().cloned().map(CertificateDer::from);
        Ok(bundle.with(domain.trust_domain.parse()?, roots)?)
    })
}

/// Everything that another attempt cannot mend by itself is a refusal.
fn from_status(status: &Status) -> FetchError {
    let text = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated | Code::Unimplemented => {
            FetchError::Refused(text)
        }
        _ => FetchError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::weft::ca::v1::TrustDomainRoots;

    fn wire(generation: u64, roots: Vec<Vec<u8>>) -> WireBundle {
        let domain = TrustDomainRoots { trust_domain: "cluster.local".to_owned(), roots };
        WireBundle { generation, domains: vec![domain] }
    }

    fn root() -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
    }

    fn client() -> IdentityClient {
        let trust = TrustStore::new(TrustBundle::default());
        let expected =
            weft_tls::ExpectedServer::Account { namespace: "weft-system".into(), service_account: "weft-ca".into() };
        let tls = weft_tls::ServerTrust::Bundle(trust.clone());
        let tls = ControlClient::new(tls, expected, weft_tls::Clock::system()).unwrap();
        IdentityClient::new("127.0.0.1:1".to_owned(), tls, Arc::new(|| Ok("token".to_owned())), trust)
    }

    #[tokio::test]
    async fn an_older_bundle_never_replaces_a_newer_one() {
        let client = client();
        let roots = |client: &IdentityClient| client.trust.current().bundle.roots(&Default::default()).to_vec();
        let (old, new) = (root(), root());
        client.adopt(&wire(5, vec![new.clone()]), false).unwrap();
        client.adopt(&wire(4, vec![old.clone()]), false).unwrap();
        assert_eq!(roots(&client), vec![CertificateDer::from(new)]);
        client.adopt(&wire(1, vec![old.clone()]), true).unwrap();
        assert_eq!(roots(&client), vec![CertificateDer::from(old)], "a restored authority counts from less");
    }

    #[tokio::test]
    async fn a_broken_or_empty_bundle_leaves_the_old_one() {
        let client = client();
        client.adopt(&wire(1, vec![root()]), true).unwrap();
        let before = client.trust.current();
        assert!(client.adopt(&wire(2, vec![b"no certificate".to_vec()]), true).is_err());
        assert!(client.adopt(&wire(3, vec![]), true).is_err());
        assert!(client.adopt(&WireBundle { generation: 4, domains: vec![] }, true).is_err());
        assert_eq!(client.trust.current().generation, before.generation);
        client.adopt(&wire(2, vec![root()]), false).unwrap();
        assert_eq!(client.trust.current().generation, before.generation + 1, "a later good one is adopted");
    }
}
