//! The token that a person's kubeconfig has, to show it to somebody else than the API server.

use http::{Request, Response, header};
use kube::client::{Body, ConfigExt as _};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use crate::client::{Choice, ConnectError, config_of};

/// Why a token can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no kubeconfig to take it from.
    #[error(transparent)]
    Config(#[from] ConnectError),
    /// The kubeconfig's plugin or file fails.
    #[error("the token of the kubeconfig: {0}")]
    Made(String),
}

/// The bearer token of the kubeconfig that a person chose: written there, in a file it names, or what its plugin says now.
/// `None`: it has none, such as where people have client certificates.
///
/// # Errors
/// If there is no kubeconfig, or the token that it names can't be had.
pub async fn bearer_token(choice: &Choice) -> Result<Option<String>, TokenError> {
    let made = |error: &dyn std::fmt::Display| TokenError::Made(error.to_string());
    let config = config_of(choice).await?;
    let Some(layer) = config.auth_layer().map_err(|error| made(&error))? else { return Ok(None) };
    // The layer puts the token on a request; nobody is asked with it.
    let shows = service_fn(|request: Request<Body>| async move {
        let mut shown = Response::new(());
        *shown.headers_mut() = request.headers().clone();
        Ok::<_, BoxError>(shown)
    });
    let shown = layer.layer(shows).oneshot(Request::new(Body::empty())).await.map_err(|error| made(&error))?;
    let value = shown.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    Ok(value.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The token of a kubeconfig whose user is this; `FOLDER` in it has a file `token` and a plugin `plugin`.
    async fn token_of(user: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let (config, plugin) = (folder.path().join("config"), folder.path().join("plugin"));
        std::fs::write(folder.path().join("token"), "from-file").unwrap();
        let said =
            r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"made"}}"#;
        std::fs::write(&plugin, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).unwrap();
        let user = user.replace("FOLDER", &folder.path().display().to_string());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: k, cluster: {{server: \"https://127.0.0.1:1\"}}}}]\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers: [{{name: u, user: {user}}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        bearer_token(&Choice { kubeconfig: Some(config), context: None }).await.unwrap()
    }

    #[tokio::test]
    async fn a_token_is_found_wherever_the_kubeconfig_has_it() {
        assert_eq!(token_of("{token: written}").await.as_deref(), Some("written"));
        assert_eq!(token_of("{tokenFile: \"FOLDER/token\"}").await.as_deref(), Some("from-file"));
        let exec =
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: \"FOLDER/plugin\", interactiveMode: Never}}";
        assert_eq!(token_of(exec).await.as_deref(), Some("made"));
        assert_eq!(token_of("{username: a, password: b}").await, None);
        assert_eq!(token_of("{}").await, None);
        let gone = bearer_token(&Choice { kubeconfig: Some("/nowhere/at/all".into()), context: None }).await;
        assert!(matches!(gone, Err(TokenError::Config(_))), "{gone:?}");
    }
}
