//! What a person does: looks, and orders the leader to take a step.

use std::time::Duration;

use weft_core::identity::TrustDomain;
use weft_core::ids::Namespace;
use weft_kube::kube::Client;
use weft_kube::kube::api::PostParams;

use super::secret::{ANSWER, ORDER, SecretFiles, annotation};
use super::{NAME, is_race, secrets};
use crate::authority::AuthorityStatus;
use crate::error::AuthorityError;
use crate::rotate::Step;
use crate::state::State;

/// Writes that may lose a race before the order is given up.
const ATTEMPTS: usize = 5;
/// How long the leader has to answer, and how often to look.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The API server says no, or cannot be reached.
    #[error("Secret {0}/{NAME}: {1}")]
    Api(Namespace, #[source] Box<weft_kube::kube::Error>),
    /// There is no authority.
    #[error("Secret {0}/{NAME} holds no authority: is weft-ca installed in this namespace?")]
    Absent(Namespace),
    /// What is saved cannot be read.
    #[error(transparent)]
    State(#[from] AuthorityError),
    /// Others write all the time.
    #[error("Secret {0}/{NAME} was changed by others {ATTEMPTS} times in a row; try again")]
    Busy(Namespace),
    /// The leader refuses.
    #[error("{0}")]
    Refused(String),
    /// Nobody answers.
    #[error(
        "no replica of weft-ca took the order within {ANSWER_WITHIN:?} (are they running, is ConfigMap weft-trust written?); \
         it stays in annotation {ORDER} of Secret {0}/{NAME}: remove that to take it back"
    )]
    Unanswered(Namespace),
}

/// The trust domain of this namespace's authority, and where it stands.
///
/// # Errors
///
/// If its Secret cannot be read.
pub async fn show(client: &Client, namespace: &Namespace) -> Result<(TrustDomain, AuthorityStatus), CommandError> {
    let secret = secrets(client, namespace)
        .get_opt(NAME)
        .await
        .map_err(|e| CommandError::Api(namespace.clone(), Box::new(e)))?;
    let secret = secret.ok_or_else(|| CommandError::Absent(namespace.clone()))?;
    let state = State::load_any(&SecretFiles(&secret))?.ok_or_else(|| CommandError::Absent(namespace.clone()))?;
    let status = state.status()?;
    Ok((state.trust_domain, status))
}

/// Orders a step of a rotation and waits for the leader's answer.
///
/// # Errors
///
/// If the Secret cannot be written, nobody answers within a minute, or the leader refuses.
pub async fn rotate(client: &Client, namespace: &Namespace, step: Step) -> Result<String, CommandError> {
    order(client, namespace, step).await?;
    let api = secrets(client, namespace);
    let answered = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let secret = api.get(NAME).await.map_err(|e| CommandError::Api(namespace.clone(), Box::new(e)))?;
            if annotation(&secret, ORDER).is_none() {
                return Ok(annotation(&secret, ANSWER).unwrap_or_default().to_owned());
            }
        }
    };
    let answer: Result<String, CommandError> = match tokio::time::timeout(ANSWER_WITHIN, answered).await {
        Ok(answer) => answer,
        Err(_) => return Err(CommandError::Unanswered(namespace.clone())),
    };
    answer
        .and_then(|answer| if answer.starts_with("refused") { Err(CommandError::Refused(answer)) } else { Ok(answer) })
}

async fn order(client: &Client, namespace: &Namespace, step: Step) -> Result<(), CommandError> {
    let api = secrets(client, namespace);
    let failed = |e| CommandError::Api(namespace.clone(), Box::new(e));
    for _ in 0..ATTEMPTS {
        let mut secret =
            api.get_opt(NAME).await.map_err(failed)?.ok_or_else(|| CommandError::Absent(namespace.clone()))?;
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.remove(ANSWER);
        annotations.insert(ORDER.to_owned(), step.to_string());
        match api.replace(NAME, &PostParams::default(), &secret).await {
            Ok(_) => return Ok(()),
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(CommandError::Busy(namespace.clone()))
}
