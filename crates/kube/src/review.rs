//! Whose token this is, by the API server's TokenReview.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use weft_core::ids::{Name, Namespace, NodeName, PodUid, ServiceAccount};

use crate::memory::{Memory, key_of, key_of_token};

/// How long an answer is believed: as long as a token of a deleted pod goes on to be taken.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most answers kept.
const KEPT: usize = 4096;
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

/// Asks the API server, and remembers its answers for 10 seconds.
#[derive(Debug)]
pub struct Reviewer {
    client: ClientBox,
    audience: String,
    answers: Memory<Result<Reviewed, String>>,
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
        let (answers, turns) = (Memory::new(BELIEVED, KEPT), Semaphore::new(AT_ONCE));
        Self { client: ClientBox(client), audience: audience.into(), answers, turns }
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
            Ok(reviewed) => self.answers.remember(key, asked, Ok(reviewed.clone())),
            Err(ReviewError::Invalid(why)) => self.answers.remember(key, asked, Err(why.clone())),
            Err(ReviewError::Unavailable(_)) => {}
        }
        answer
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
mod tests {
    use super::*;
    use crate::memory::MAX_TOKEN;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use weft_kube_fake::{FakeApi, Reply};

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

    /// A server from before 1.30, with one pod.
    fn old_server(pod: Value) -> (FakeApi, Reviewer) {
        let api = FakeApi::new();
        api.answer(|request| {
            let old = status(|s| drop(s["user"]["extra"].as_object_mut().unwrap().remove(NODE_NAME)));
            let review = json!({ "metadata": {}, "spec": {}, "status": old });
            request.path.ends_with("/tokenreviews").then_some(Reply::Json(201, review))
        });
        if !pod.is_null() {
            api.put("/api/v1/namespaces/weft-system/pods", pod);
        }
        let reviewer = Reviewer::new(api.client(), "weft");
        (api, reviewer)
    }

    fn pod(change: impl FnOnce(&mut Value)) -> Value {
        let spec = json!({ "serviceAccountName": "weft-node-proxy", "nodeName": "node-a", "containers": [] });
        let mut pod = json!({ "metadata": { "name": "proxy-1", "uid": "u-1" }, "spec": spec });
        change(&mut pod);
        pod
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_token_does_not_name_the_node_its_pod_does() {
        let (api, reviewer) = old_server(pod(|_| ()));
        for _ in 0..3 {
            let reviewed = reviewer.review("old").await.unwrap();
            assert_eq!(reviewer.node("old", &reviewed).await, Ok("node-a".into()));
        }
        let pods = |api: &FakeApi| api.requests().iter().filter(|r| r.path.ends_with("/pods/proxy-1")).count();
        assert_eq!(pods(&api), 1, "remembered like the review");
        api.remove("/api/v1/namespaces/weft-system/pods/proxy-1");
        tokio::time::advance(BELIEVED).await;
        let reviewed = reviewer.review("old").await.unwrap();
        let gone = reviewer.node("old", &reviewed).await;
        assert!(matches!(&gone, Err(ReviewError::Invalid(why)) if why.contains("is gone")), "{gone:?}");
        // A token that names its node needs no pod.
        let new = Reviewed { node: Some("node-b".into()), ..reviewed };
        assert_eq!((reviewer.node("new", &new).await, pods(&api)), (Ok("node-b".into()), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_not_the_token_s_gives_no_node() {
        for (change, why) in [
            ((|p| *p = Value::Null) as fn(&mut Value), "is gone"),
            (|p| p["metadata"]["uid"] = json!("u-2"), "has been made anew"),
            (|p| p["spec"]["serviceAccountName"] = json!("cart"), "doesn't run as weft-node-proxy"),
            (|p| drop(p["spec"].as_object_mut().unwrap().remove("serviceAccountName")), "doesn't run as"),
            (|p| p["spec"]["nodeName"] = json!(""), "not bound to a node"),
            (|p| drop(p["spec"].as_object_mut().unwrap().remove("nodeName")), "not bound to a node"),
        ] {
            let (_api, reviewer) = old_server(pod(change));
            let reviewed = reviewer.review("old").await.unwrap();
            let refused = reviewer.node("old", &reviewed).await;
            assert!(matches!(&refused, Err(ReviewError::Invalid(said)) if said.contains(why)), "{why}: {refused:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_can_not_be_read_is_an_outage() {
        for (reply, why) in [(|| Reply::error(403, "Forbidden")) as fn() -> Reply, || Reply::Hang]
            .into_iter()
            .zip(["Forbidden", "in time"])
        {
            let (api, reviewer) = old_server(pod(|_| ()));
            let reviewed = reviewer.review("old").await.unwrap();
            api.answer(move |_| Some(reply()));
            let failed = reviewer.node("old", &reviewed).await;
            assert!(matches!(&failed, Err(ReviewError::Unavailable(said)) if said.contains(why)), "{failed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_tokens_costs_bounded_memory_and_a_silent_server_bounded_time() {
        let (api, asked) = server();
        let reviewer = Reviewer::new(api.client(), "weft");
        for n in 0..KEPT + 10 {
            assert!(reviewer.review(&format!("bad {n}")).await.is_err());
        }
        assert_eq!(reviewer.answers.len(), KEPT);
        assert!(reviewer.review(&"x".repeat(MAX_TOKEN + 1)).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed) as usize, KEPT + 10);
        api.answer(|_| Some(Reply::Hang));
        assert!(matches!(reviewer.review("good").await, Err(ReviewError::Unavailable(_))));
    }
}
