//! Whose token this is, by the API server's TokenReview.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use weft_core::ids::{Name, Namespace, NodeName, PodUid, ServiceAccount};

/// How long an answer is believed: as long as a token of a deleted pod goes on to be taken.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most answers kept.
const KEPT: usize = 4096;
/// Longest token looked at, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// Most reviews under way at once, and how long one may take.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);

const ACCOUNT: &str = "system:serviceaccount:";
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
    /// The node the pod is bound to; older API servers (before 1.30) don't say.
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

/// When it was asked, and what the answer was.
type Remembered = (Instant, Result<Reviewed, String>);

/// Asks the API server, and remembers its answers for 10 seconds.
#[derive(Debug)]
pub struct Reviewer {
    client: ClientBox,
    audience: String,
    cache: Mutex<HashMap<[u8; 32], Remembered>>,
    turns: Semaphore,
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
        let (audience, turns) = (audience.into(), Semaphore::new(AT_ONCE));
        Self { client: ClientBox(client), audience, cache: Mutex::default(), turns }
    }

    /// Reviews a token: for our audience, of a ServiceAccount, bound to a pod.
    ///
    /// # Errors
    /// If it isn't, or the API server can't say.
    pub async fn review(&self, token: &str) -> Result<Reviewed, ReviewError> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(ReviewError::Invalid(format!("the token has {} bytes", token.len())));
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.known(&key) {
            return known.map_err(ReviewError::Invalid);
        }
        let asked = Instant::now();
        let answer = match timeout(PATIENCE, self.ask(token)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(ReviewError::Unavailable("no answer in time".to_owned())),
        };
        let kind = match &answer {
            Ok(_) => "valid",
            Err(ReviewError::Invalid(_)) => "invalid",
            Err(ReviewError::Unavailable(_)) => "unavailable",
        };
        metrics::counter!("weft_kube_token_reviews_total", "result" => kind).increment(1);
        match &answer {
            Ok(reviewed) => self.remember(key, asked, Ok(reviewed.clone())),
            Err(ReviewError::Invalid(why)) => self.remember(key, asked, Err(why.clone())),
            Err(ReviewError::Unavailable(_)) => {}
        }
        answer
    }

    fn known(&self, key: &[u8; 32]) -> Option<Result<Reviewed, String>> {
        let cache = self.cache.lock();
        cache.get(key).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, answer)| answer.clone())
    }

    fn remember(&self, key: [u8; 32], asked: Instant, answer: Result<Reviewed, String>) {
        let mut cache = self.cache.lock();
        if cache.len() >= KEPT {
            cache.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        // A flood of tokens costs the memory of the cache, never more.
        if cache.len() < KEPT {
            cache.insert(key, (asked, answer));
        }
    }

    async fn ask(&self, token: &str) -> Result<Reviewed, ReviewError> {
        let unavailable = |error: &dyn std::fmt::Display| ReviewError::Unavailable(error.to_string());
        let _turn = self.turns.acquire().await.map_err(|e| unavailable(&e))?;
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let made = Api::all(self.client.0.clone()).create(&PostParams::default(), &review).await;
        let status = made.map_err(|e| unavailable(&e))?.status.unwrap_or_default();
        judge(&status, &self.audience).map_err(ReviewError::Invalid)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeApi, Reply};
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn status(change: impl FnOnce(&mut Value)) -> Value {
        let extra = json!({ POD_NAME: ["proxy-1"], POD_UID: ["u-1"], NODE_NAME: ["node-a"] });
        let user = json!({ "username": "system:serviceaccount:weft-system:weft-node-proxy", "extra": extra });
        let mut status = json!({ "authenticated": true, "audiences": ["weft"], "user": user });
        change(&mut status);
        status
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Result<Reviewed, String> {
        judge(&serde_json::from_value(status(change)).unwrap(), "weft")
    }

    #[test]
    fn a_pod_is_told_by_its_token_and_nothing_else_is_taken() {
        let expected = Reviewed {
            namespace: "weft-system".into(),
            service_account: "weft-node-proxy".into(),
            pod: "proxy-1".into(),
            pod_uid: "u-1".into(),
            node: Some("node-a".into()),
        };
        assert_eq!(judged(|_| ()), Ok(expected.clone()));
        let old = judged(|s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(NODE_NAME)));
        assert_eq!(old, Ok(Reviewed { node: None, ..expected }));
        let refused = |change: fn(&mut Value), why: &str| {
            let error = judged(change).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(|s| s["authenticated"] = json!(false), "not valid");
        refused(|s| drop(s.as_object_mut().unwrap().remove("authenticated")), "not valid");
        refused(|s| s["audiences"] = json!(["https://kubernetes.default.svc"]), "audience");
        refused(|s| drop(s.as_object_mut().unwrap().remove("audiences")), "audience");
        refused(|s| s["user"]["username"] = json!("system:node:a"), "no ServiceAccount");
        refused(|s| s["user"]["username"] = json!("system:serviceaccount:x"), "no ServiceAccount");
        refused(|s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(POD_UID)), "bound to a pod");
        refused(|s| s["user"]["extra"][POD_NAME] = json!(["a", "b"]), "bound to a pod");
    }

    fn server() -> (FakeApi, Arc<AtomicU32>) {
        let (api, asked) = (FakeApi::new(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        api.answer(move |request| {
            assert_eq!(request.path, "/apis/authentication.k8s.io/v1/tokenreviews");
            assert_eq!(request.body["spec"]["audiences"], json!(["weft"]));
            count.fetch_add(1, Ordering::Relaxed);
            let status = match request.body["spec"]["token"].as_str().unwrap() {
                "good" => status(|_| ()),
                "down" => return Some(Reply::error(500, "InternalError")),
                _ => json!({ "authenticated": false, "error": "invalid bearer token" }),
            };
            Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": status })))
        });
        (api, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_remembered_for_ten_seconds_and_outages_are_not() {
        let (api, asked) = server();
        let reviewer = Reviewer::new(api.client(), "weft");
        for _ in 0..5 {
            assert!(reviewer.review("good").await.is_ok());
            assert!(matches!(reviewer.review("bad").await, Err(ReviewError::Invalid(why)) if why.contains("bearer")));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        for _ in 0..2 {
            assert!(matches!(reviewer.review("down").await, Err(ReviewError::Unavailable(_))));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        tokio::time::advance(BELIEVED).await;
        assert!(reviewer.review("good").await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_tokens_costs_bounded_memory_and_a_silent_server_bounded_time() {
        let (api, asked) = server();
        let reviewer = Reviewer::new(api.client(), "weft");
        for n in 0..KEPT + 10 {
            assert!(reviewer.review(&format!("bad {n}")).await.is_err());
        }
        assert_eq!(reviewer.cache.lock().len(), KEPT);
        assert!(reviewer.review(&"x".repeat(MAX_TOKEN + 1)).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed) as usize, KEPT + 10);
        api.answer(|_| Some(Reply::Hang));
        assert!(matches!(reviewer.review("good").await, Err(ReviewError::Unavailable(_))));
    }
}
