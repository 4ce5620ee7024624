//! Whose token this is, by the API server's TokenReview; while that can't be asked, by its keys and the pods that it told of.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use weft_core::ids::{Name, Namespace, NodeName, PodUid, ServiceAccount};

use crate::OfflineReview;
use crate::memory::{Memory, key_of, key_of_token};

/// How long an answer is believed: as long as a token of a deleted pod goes on to be taken.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most answers kept.
const KEPT: usize = 4096;
/// Most reviews under way at once, and how long one may take.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where the answer is known without it: who asks us isn't patient either.
const BRIEFLY: Duration = Duration::from_secs(2);

pub(crate) const ACCOUNT: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// A pod that proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// The namespace of the pod and its ServiceAccount.
    pub namespace: Namespace,
    /// The ServiceAccount.
    pub service_account: ServiceAccount,
    /// The pod.
    pub pod: Name,
    /// Which incarnation of it.
    pub pod_uid: PodUid,
    /// The node the pod is bound to, if the token says so; [`Reviewer::node`] knows it in any case.
    pub node: Option<NodeName>,
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The token is not good.
    #[error("{0}")]
    Invalid(String),
    /// The API server can't say now.
    #[error("the API server can't review the token: {0}")]
    Unavailable(String),
}

/// Why the API server says nothing of a token.
enum Silence {
    /// It gives no answer, or one that it can't work.
    Away(String),
    /// It is asked too much, by us or by all.
    Busy(String),
    /// It won't say.
    Refuses(String),
}

impl Silence {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 429 => Self::Busy(error.to_string()),
            // Without a code it isn't the API server's.
            kube::Error::Api(status) if (400..500).contains(&status.code) => Self::Refuses(error.to_string()),
            _ => Self::Away(error.to_string()),
        }
    }
}

/// Asks the API server, and remembers its answers for 10 seconds.
#[derive(Debug)]
pub struct Reviewer {
    client: ClientBox,
    audience: String,
    answers: Memory<Result<Reviewed, String>>,
    turns: Semaphore,
    /// Those of who is known without the API server: nobody else can take them.
    turns_of_known: Semaphore,
    offline: Option<Arc<OfflineReview>>,
}

struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Reviewer {
    /// A reviewer of tokens for `audience`.
    pub fn new(client: Client, audience: impl Into<String>) -> Self {
        let (answers, [turns, turns_of_known]) = (Memory::new(BELIEVED, KEPT), [AT_ONCE; 2].map(Semaphore::new));
        Self { client: ClientBox(client), audience: audience.into(), answers, turns, turns_of_known, offline: None }
    }

    /// Takes this answer while the API server gives none.
    #[must_use]
    pub fn or(self, offline: Arc<OfflineReview>) -> Self {
        Self { offline: Some(offline), ..self }
    }

    /// Reviews a token: for our audience, of a ServiceAccount, bound to a pod.
    ///
    /// # Errors
    /// If it isn't, or the API server can't say.
    pub async fn review(&self, token: &str) -> Result<Reviewed, ReviewError> {
        let key = key_of_token(token)?;
        if let Some(known) = self.answers.known(&key) {
            return known.map_err(ReviewError::Invalid);
        }
        let asked = Instant::now();
        let (kind, answer) = self.answer(token).await;
        metrics::counter!("weft_kube_token_reviews_total", "result" => kind).increment(1);
        match &answer {
            Ok(reviewed) => self.answers.remember(key, asked, Ok(reviewed.clone())),
            Err(ReviewError::Invalid(why)) => self.answers.remember(key, asked, Err(why.clone())),
            Err(ReviewError::Unavailable(_)) => {}
        }
        answer
    }

    /// Whose token this is without asking anybody, if that is known.
    fn known(&self, token: &str) -> Option<(&OfflineReview, Reviewed)> {
        let offline = self.offline.as_deref()?;
        Some((offline, offline.review(token, &self.audience)?))
    }

    /// Whether this reviewer would take the token without the API server. Of several it is the one to ask first.
    pub fn recognizes(&self, token: &str) -> bool {
        self.known(token).is_some()
    }

    /// The answer of the API server, or in its stead, and which it is.
    async fn answer(&self, token: &str) -> (&'static str, Result<Reviewed, ReviewError>) {
        let known = self.known(token);
        let (patience, turns) = match &known {
            Some((offline, reviewed)) if offline.is_away() => return ("offline", Ok(reviewed.clone())),
            Some(_) => (BRIEFLY, &self.turns_of_known),
            None => (PATIENCE, &self.turns),
        };
        let asked = self.ask(token, turns, patience).await;
        match (&asked, &known) {
            (Err(Silence::Away(_)), Some((offline, _))) => offline.failed(),
            (Ok(answer), _) => {
                self.offline.iter().for_each(|it| it.answered(token, answer.is_ok(), known.is_some()));
            }
            _ => {}
        }
        // Known still: that may have taken a while.
        let instead = || known.is_some().then(|| self.known(token)).flatten();
        match asked {
            Ok(Ok(reviewed)) => ("valid", Ok(reviewed)),
            Ok(Err(why)) => ("invalid", Err(ReviewError::Invalid(why))),
            Err(Silence::Away(why) | Silence::Busy(why)) => match instead() {
                Some((_, reviewed)) => ("offline", Ok(reviewed)),
                None => ("unavailable", Err(ReviewError::Unavailable(why))),
            },
            Err(Silence::Refuses(why)) => match instead().filter(|(offline, _)| offline.may_be_starting()) {
                Some((_, reviewed)) => ("offline", Ok(reviewed)),
                None => ("unavailable", Err(ReviewError::Unavailable(why))),
            },
        }
    }

    /// The node that the pod of a reviewed token is bound to. API servers before 1.30 don't put it into tokens: then the
    /// pod itself says it, if it still is the one that the token was made for.
    ///
    /// # Errors
    /// If that pod is gone or isn't bound to a node, or the API server can't say.
    pub async fn node(&self, token: &str, reviewed: &Reviewed) -> Result<NodeName, ReviewError> {
        if let Some(node) = &reviewed.node {
            return Ok(node.clone());
        }
        let asked = Instant::now();
        let node = match timeout(PATIENCE, self.look_up(reviewed)).await {
            Ok(found) => found?,
            Err(_elapsed) => return Err(ReviewError::Unavailable("no answer in time".to_owned())),
        };
        let known = Reviewed { node: Some(node.clone()), ..reviewed.clone() };
        self.answers.remember(key_of(token), asked, Ok(known));
        Ok(node)
    }

    async fn look_up(&self, reviewed: &Reviewed) -> Result<NodeName, ReviewError> {
        let unavailable = |error: &dyn std::fmt::Display| ReviewError::Unavailable(error.to_string());
        let _turn = self.turns.acquire().await.map_err(|e| unavailable(&e))?;
        let pods: Api<Pod> = Api::namespaced(self.client.0.clone(), reviewed.namespace.as_str());
        // Asked for without a version: the API server answers with what is stored, never with what a cache still has.
        let pod = pods.get_opt(reviewed.pod.as_str()).await.map_err(|e| unavailable(&e))?;
        placed(pod.as_ref(), reviewed).map_err(ReviewError::Invalid)
    }

    /// Asks, as soon as it is this question's turn. How long that takes says nothing of the API server.
    async fn ask(
        &self,
        token: &str,
        turns: &Semaphore,
        patience: Duration,
    ) -> Result<Result<Reviewed, String>, Silence> {
        let turn = timeout(patience, turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Silence::Busy("too many tokens are reviewed".to_owned())) };
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let (api, params) = (Api::all(self.client.0.clone()), PostParams::default());
        let Ok(made) = timeout(patience, api.create(&params, &review)).await else {
            return Err(Silence::Away("no answer in time".to_owned()));
        };
        let status = made.map_err(|e| Silence::of(&e))?.status.unwrap_or_default();
        Ok(judge(&status, &self.audience))
    }
}

/// What the API server's answer means.
fn judge(status: &TokenReviewStatus, audience: &str) -> Result<Reviewed, String> {
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().filter(|e| !e.is_empty()).unwrap_or("it is expired, revoked or not for us");
        return Err(format!("the token is not valid: {why}"));
    }
    // A server that doesn't know audiences leaves them out: then the token is for the API server, not for us.
    if !status.audiences.iter().flatten().any(|a| a == audience) {
        return Err(format!("the token is not for audience {audience:?}"));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account.filter(|(ns, sa)| !ns.is_empty() && !sa.is_empty() && !sa.contains(':'))
    else {
        return Err(format!("the token is of {name:?}, which is no ServiceAccount"));
    };
    let extra = |key: &str| {
        let values = user.extra.as_ref().and_then(|e| e.get(key)).map(Vec::as_slice);
        values.and_then(|v| if let [one] = v { Some(one.as_str()) } else { None }).filter(|v| !v.is_empty())
    };
    let (Some(pod), Some(uid)) = (extra(POD_NAME), extra(POD_UID)) else {
        return Err(format!("the token of {namespace}/{account} is not bound to a pod: use a projected token"));
    };
    Ok(Reviewed {
        namespace: namespace.into(),
        service_account: account.into(),
        pod: pod.into(),
        pod_uid: uid.into(),
        node: extra(NODE_NAME).map(NodeName::from),
    })
}

/// The node of a pod that has the name of the token's, if it is the token's. A pod that is made anew under its name,
/// on another node perhaps, has another uid.
fn placed(pod: Option<&Pod>, reviewed: &Reviewed) -> Result<NodeName, String> {
    let Reviewed { namespace, service_account, pod: name, pod_uid, .. } = reviewed;
    let refused = |why: &str| Err(format!("the token is of pod {namespace}/{name}, which {why}"));
    let Some(pod) = pod else { return refused("is gone") };
    if pod.metadata.uid.as_deref() != Some(pod_uid.as_str()) {
        return refused("has been made anew since");
    }
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.service_account_name.as_deref()) != Some(service_account.as_str()) {
        return refused(&format!("doesn't run as {service_account}"));
    }
    match spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty()) {
        Some(node) => Ok(node.into()),
        None => refused("is not bound to a node"),
    }
}

#[cfg(test)]
mod tests;
