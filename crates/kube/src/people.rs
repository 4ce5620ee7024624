//! Who somebody is and what they may, by the API server's word: TokenReview and SubjectAccessReview, for pages of ours that
//! the API server doesn't guard itself.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::ReviewError;
use crate::memory::{Memory, key_of, key_of_token};

/// How long an answer about a token is believed, and one about a right.
const TOKEN_BELIEVED: Duration = Duration::from_secs(10);
const RIGHT_BELIEVED: Duration = Duration::from_secs(5);
/// Most answers kept of each.
const KEPT: usize = 1024;
/// Most reviews under way at once, and how long one may take.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who proved who they are, in the API server's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User(UserInfo);

impl User {
    /// The name, such as `jane` or `system:serviceaccount:shop:viewer`.
    pub fn name(&self) -> &str {
        self.0.username.as_deref().unwrap_or_default()
    }

    /// The groups.
    pub fn groups(&self) -> &[String] {
        self.0.groups.as_deref().unwrap_or_default()
    }
}

/// Something that one may or may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Right<'a> {
    /// Such as `get`.
    pub verb: &'a str,
    /// The API group.
    pub group: &'a str,
    /// The resource, in the plural; it need not exist.
    pub resource: &'a str,
    /// The namespace; empty for all of them.
    pub namespace: &'a str,
}

/// Asks the API server, and remembers its answers: 10 seconds for tokens, 5 for rights.
pub struct People {
    client: Client,
    audience: String,
    users: Memory<Result<User, String>>,
    rights: Memory<Result<(), String>>,
    turns: Semaphore,
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("People").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl People {
    /// Takes tokens for `audience`, and those that are for the API server itself, which people have.
    pub fn new(client: Client, audience: impl Into<String>) -> Self {
        let (users, rights) = (Memory::new(TOKEN_BELIEVED, KEPT), Memory::new(RIGHT_BELIEVED, KEPT));
        Self { client, audience: audience.into(), users, rights, turns: Semaphore::new(AT_ONCE) }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`ReviewError::Invalid`] if it is nobody's, expired, or for somebody else than us and the API server;
    /// [`ReviewError::Unavailable`] if the API server can't say.
    pub async fn user(&self, token: &str) -> Result<User, ReviewError> {
        let key = key_of_token(token)?;
        if let Some(known) = self.users.known(&key) {
            return known.map_err(ReviewError::Invalid);
        }
        let asked = Instant::now();
        let answer = self.in_turn(self.review(token)).await;
        let kind = match &answer {
            Ok(Ok(_)) => "valid",
            Ok(Err(_)) => "invalid",
            Err(_) => "unavailable",
        };
        metrics::counter!("weft_kube_token_reviews_total", "result" => kind).increment(1);
        let answer = answer?;
        self.users.remember(key, asked, answer.clone());
        answer.map_err(ReviewError::Invalid)
    }

    /// Whether a user may do something. `Ok(Err(why))`: no, with the authorizer's words if it has any.
    ///
    /// # Errors
    /// If the API server can't say.
    pub async fn may(&self, user: &User, right: Right<'_>) -> Result<Result<(), String>, ReviewError> {
        let spec = access(user, right);
        let text = serde_json::to_vec(&spec).map_err(|error| ReviewError::Unavailable(error.to_string()))?;
        let key = key_of(&text);
        if let Some(known) = self.rights.known(&key) {
            return Ok(known);
        }
        let asked = Instant::now();
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let made = self.in_turn(async {
            let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
            api.create(&PostParams::default(), &review).await
        });
        let answer = allowed(&made.await?.status.unwrap_or_default());
        self.rights.remember(key, asked, answer.clone());
        Ok(answer)
    }

    /// A token is first taken for one that was made for us, then for one of the API server: the two can't be told apart
    /// without asking, and who has one of ours should not have to have the other.
    async fn review(&self, token: &str) -> Result<Result<User, String>, kube::Error> {
        let ours = self.status(token, Some(vec![self.audience.clone()])).await?;
        let is_for_us = |status: &TokenReviewStatus| {
            status.authenticated == Some(true) && status.audiences.iter().flatten().any(|a| *a == self.audience)
        };
        if is_for_us(&ours) {
            return Ok(user_of(&ours));
        }
        Ok(user_of(&self.status(token, None).await?))
    }

    async fn status(&self, token: &str, audiences: Option<Vec<String>>) -> Result<TokenReviewStatus, kube::Error> {
        let spec = TokenReviewSpec { audiences, token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let made = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(made.status.unwrap_or_default())
    }

    async fn in_turn<T>(&self, ask: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ReviewError> {
        let asked = timeout(PATIENCE, async {
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            ask.await.map_err(|error| error.to_string())
        });
        match asked.await {
            Ok(answer) => answer.map_err(ReviewError::Unavailable),
            Err(_elapsed) => Err(ReviewError::Unavailable("no answer in time".to_owned())),
        }
    }
}

/// What the API server's answer about a token means.
fn user_of(status: &TokenReviewStatus) -> Result<User, String> {
    let user = status.user.clone().filter(|user| user.username.as_deref().is_some_and(|name| !name.is_empty()));
    match user {
        Some(user) if status.authenticated == Some(true) => Ok(User(user)),
        _ => {
            let why = status.error.as_deref().filter(|why| !why.is_empty()).unwrap_or("it is expired or revoked");
            Err(format!("the token is not valid: {why}"))
        }
    }
}

fn access(user: &User, right: Right<'_>) -> SubjectAccessReviewSpec {
    let UserInfo { username, groups, uid, extra } = user.0.clone();
    let attributes = ResourceAttributes {
        verb: Some(right.verb.to_owned()),
        group: Some(right.group.to_owned()),
        resource: Some(right.resource.to_owned()),
        namespace: Some(right.namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        ..ResourceAttributes::default()
    };
    let resource_attributes = Some(attributes);
    SubjectAccessReviewSpec { user: username, groups, uid, extra, resource_attributes, ..Default::default() }
}

fn allowed(status: &SubjectAccessReviewStatus) -> Result<(), String> {
    match status.allowed && status.denied != Some(true) {
        true => Ok(()),
        false => Err(status.reason.clone().unwrap_or_default()),
    }
}

#[cfg(test)]
#[path = "tests/people.rs"]
mod tests;
