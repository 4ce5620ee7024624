//! The gRPC services: ours, and the one that Istio's node proxy speaks. One path behind both: authenticate, limit, ask
//! the rule, issue.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weft_api::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use weft_api::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use weft_api::weft::ca::v1::certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer};
use weft_api::weft::ca::v1::{
    CreateCertificateRequest, CreateCertificateResponse, TrustBundle, TrustDomainRoots, WatchBundleRequest,
};
use weft_core::identity::SpiffeId;
use weft_tls::pem::certificate as pem;

use crate::auth::{Authenticator, Caller, IssueRule, Refusal, Unauthenticated};
use crate::authority::{Authority, Bundle, Issued};
use crate::metrics;

/// The largest message read, in bytes: a request, its name, and room.
const MAX_MESSAGE: usize = 32 * 1024;
/// The metadata key under which Istio's node proxy names whom it asks for.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// Callers remembered before those with nothing to remember are dropped.
const PRUNE_ABOVE: usize = 10_000;
/// How long a request waits for the news that its pod was bound: a node asks as soon as the pod is there, and the news
/// takes its own way to us.
const NEWS: Duration = Duration::from_secs(2);

/// How much a caller may ask.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSettings {
    /// Requests each caller may make per second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests each caller may make at once: a node that starts asks for all its pods.
    pub burst: NonZeroU32,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self { per_second: NonZeroU32::MIN.saturating_add(19), burst: NonZeroU32::MIN.saturating_add(499) }
    }
}

type Limiter = RateLimiter<Caller, HashMapStateStore<Caller>, DefaultClock>;

/// The handlers. A cheap handle.
#[derive(Clone)]
pub struct CaService(Arc<Inner>);

struct Inner {
    authority: Arc<Authority>,
    authenticator: Arc<dyn Authenticator>,
    rule: Arc<dyn IssueRule>,
    limiter: Limiter,
}

impl CaService {
    /// Serves `authority` to whom `authenticator` knows, for what `rule` permits.
    pub fn new(
        authority: Arc<Authority>,
        authenticator: Arc<dyn Authenticator>,
        rule: Arc<dyn IssueRule>,
        settings: ServiceSettings,
    ) -> Self {
        let quota = Quota::per_second(settings.per_second).allow_burst(settings.burst);
        Self(Arc::new(Inner { authority, authenticator, rule, limiter: RateLimiter::hashmap(quota) }))
    }

    /// Our own service, for a tonic server.
    pub fn weft(&self) -> CertificateAuthorityServer<Self> {
        CertificateAuthorityServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Istio's service, for a tonic server.
    pub fn istio(&self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|h| h.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("no bearer token: send it as 'authorization: Bearer <token>'"))?;
        self.0.authenticator.authenticate(token).await.map_err(|error| match error {
            Unauthenticated::Invalid | Unauthenticated::Refused(_) => {
                metrics::refused("token");
                tracing::warn!(reason = "token", "caller refused: {error}");
                Status::unauthenticated(error.to_string())
            }
            Unauthenticated::Unavailable(_) => {
                metrics::refused("token_unchecked");
                Status::unavailable(error.to_string())
            }
        })
    }

    async fn issue(
        &self,
        caller: &Caller,
        csr: &[u8],
        identity: &str,
        life: Option<Duration>,
    ) -> Result<Issued, Status> {
        let inner = &*self.0;
        let refuse = |reason: &'static str, why: &dyn std::fmt::Display| {
            metrics::refused(reason);
            tracing::warn!(%caller, identity, reason, "certificate refused: {why}");
        };
        if inner.limiter.len() > PRUNE_ABOVE {
            inner.limiter.retain_recent();
        }
        inner.limiter.check_key(caller).map_err(|_| {
            refuse("rate_limit", &"too many requests from this caller");
            Status::resource_exhausted("too many requests from this caller; try again later")
        })?;
        let wanted: SpiffeId = identity.parse().map_err(|e| {
            refuse("identity", &e);
            Status::invalid_argument(format!("identity: {e}"))
        })?;
        // Who runs where is known under one name.
        let known = inner.authority.trust_domains().normal(&wanted);
        inner.permit(caller, &known).await.map_err(|refusal| {
            let (reason, status) = match &refusal {
                Refusal::Unread(_) => ("pods_unread", Status::unavailable(refusal.to_string())),
                _ => ("not_permitted", Status::permission_denied(refusal.to_string())),
            };
            refuse(reason, &refusal);
            status
        })?;
        let issued = inner.authority.issue(csr, &wanted, life).map_err(|error| {
            refuse(error.reason(), &error);
            // What is wrong with our own material is for our log, not for the caller.
            if error.is_ours() {
                Status::unavailable("the authority cannot issue now; its log says why")
            } else {
                Status::invalid_argument(error.to_string())
            }
        })?;
        metrics::issued(caller);
        tracing::info!(%caller, identity = %wanted, "certificate issued");
        Ok(issued)
    }
}

impl Inner {
    /// The rule's answer; a refusal that may pass is given [`NEWS`] to pass.
    async fn permit(&self, caller: &Caller, identity: &SpiffeId) -> Result<(), Refusal> {
        // Before the first look, so that no change is missed between the look and the wait.
        let changes = self.rule.changes();
        let first = self.rule.may_issue(caller, identity);
        let (Err(refusal), Some(mut changes)) = (&first, changes) else { return first };
        if !refusal.may_pass() {
            return first;
        }
        let wait = async {
            loop {
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
                if self.rule.may_issue(caller, identity).is_ok() {
                    return;
                }
            }
        };
        match tokio::time::timeout(NEWS, wait).await {
            Ok(()) => Ok(()),
            Err(_) => self.rule.may_issue(caller, identity),
        }
    }
}

impl std::fmt::Debug for CaService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CaService({:?})", self.0.authority)
    }
}

fn life(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn to_wire(bundle: &Bundle) -> TrustBundle {
    let roots = bundle.roots.iter().map(|der| der.to_vec()).collect();
    let domain = TrustDomainRoots { trust_domain: bundle.trust_domain.to_string(), roots };
    TrustBundle { generation: bundle.generation, domains: vec![domain] }
}

#[tonic::async_trait]
impl CertificateAuthority for CaService {
    async fn create_certificate(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        let caller = self.caller(&request).await?;
        let ask = request.into_inner();
        let issued = self.issue(&caller, &ask.csr, &ask.identity, life(ask.ttl_seconds.into())).await?;
        let chain = issued.chain.iter().map(|der| der.to_vec()).collect();
        Ok(Response::new(CreateCertificateResponse { chain, bundle: Some(to_wire(&issued.bundle)) }))
    }

    type WatchBundleStream = ReceiverStream<Result<TrustBundle, Status>>;

    async fn watch_bundle(
        &self,
        request: Request<WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        self.caller(&request).await?;
        let mut changes = self.0.authority.subscribe();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let current = to_wire(&changes.borrow_and_update());
                if sender.send(Ok(current)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CaService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = self.caller(&request).await?;
        let ask = request.into_inner();
        let named = ask.metadata.as_ref().and_then(|m| m.fields.get(IMPERSONATED)).and_then(|v| v.kind.as_ref());
        let identity = match (named, &caller) {
            (Some(prost_types::value::Kind::StringValue(identity)), _) => identity.clone(),
            (None, Caller::Workload(own)) => own.to_string(),
            _ => return Err(Status::invalid_argument(format!("the metadata must name an identity as {IMPERSONATED}"))),
        };
        let csr = CertificateSigningRequestDer::from_pem_slice(ask.csr.as_bytes())
            .map_err(|_| Status::invalid_argument("csr: not a PEM certificate request"))?;
        let seconds = u64::try_from(ask.validity_duration).unwrap_or(0);
        let issued = self.issue(&caller, &csr, &identity, life(seconds)).await?;
        let roots = issued.bundle.roots.iter();
        let cert_chain = issued.chain.iter().chain(roots).map(pem).collect();
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
