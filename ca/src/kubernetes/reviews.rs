//! Callers by their ServiceAccount tokens, which the API server reviews.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{Namespace, ServiceAccount};
use weft_kube::kube::Client;
use weft_kube::{OfflineReview, ReviewError, Reviewed, Reviewer};

use super::ClusterSettings;
use crate::auth::{Authenticator, Caller, Unauthenticated};

/// Tells callers by TokenReview: the node proxy's ServiceAccount is the proxy of the node that its token's pod is bound
/// to, any other ServiceAccount is itself.
pub struct TokenReviews {
    reviewers: Vec<Reviewer>,
    node_accounts: Vec<(Namespace, ServiceAccount)>,
    trust_domain: TrustDomain,
}

impl TokenReviews {
    /// Reviews with the audiences of the settings; while the API server is away, by what is known `offline`.
    pub fn new(client: &Client, settings: &ClusterSettings, offline: &Arc<OfflineReview>) -> Self {
        let reviewer = |audience| Reviewer::new(client.clone(), audience).or(Arc::clone(offline));
        Self {
            reviewers: settings.audiences.iter().map(reviewer).collect(),
            node_accounts: settings.node_accounts.clone(),
            trust_domain: settings.authority.trust_domains.own().clone(),
        }
    }

    /// The first audience that knows the token, with who asked. One that cannot be asked hides whether it would have.
    async fn review(&self, token: &str) -> Result<(&Reviewer, Reviewed), Unauthenticated> {
        let mut reasons: Vec<String> = Vec::new();
        let mut unavailable = None;
        // While the API server is away, the others wait for it in vain.
        let comes_first = |reviewer: &&Reviewer| self.reviewers.len() > 1 && reviewer.recognizes(token);
        let (first, rest): (Vec<_>, Vec<_>) = self.reviewers.iter().partition(comes_first);
        for reviewer in first.into_iter().chain(rest) {
            match reviewer.review(token).await {
                Ok(reviewed) => return Ok((reviewer, reviewed)),
                Err(ReviewError::Invalid(why)) if reasons.contains(&why) => {}
                Err(ReviewError::Invalid(why)) => reasons.push(why),
                Err(ReviewError::Unavailable(why)) => unavailable = Some(Unauthenticated::Unavailable(why)),
            }
        }
        Err(unavailable.unwrap_or_else(|| Unauthenticated::Refused(reasons.join("; "))))
    }

    async fn caller(&self, token: &str) -> Result<Caller, Unauthenticated> {
        let (reviewer, reviewed) = self.review(token).await?;
        let Reviewed { namespace, service_account, .. } = &reviewed;
        if !self.node_accounts.iter().any(|(ns, sa)| ns == namespace && sa == service_account) {
            let Reviewed { namespace, service_account, .. } = reviewed;
            return Ok(Caller::Workload(SpiffeId::new(self.trust_domain.clone(), namespace, service_account)));
        }
        match reviewer.node(token, &reviewed).await {
            Ok(node) => Ok(Caller::Node(node)),
            Err(ReviewError::Invalid(why)) => Err(Unauthenticated::Refused(why)),
            Err(ReviewError::Unavailable(why)) => Err(Unauthenticated::Unavailable(why)),
        }
    }
}

impl Authenticator for TokenReviews {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, Unauthenticated>> + Send + 'a>> {
        Box::pin(self.caller(token))
    }
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews").field("node_accounts", &self.node_accounts).finish_non_exhaustive()
    }
}
