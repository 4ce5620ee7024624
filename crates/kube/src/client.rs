//! Which API server, and how long to wait for it.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long nothing may be read: longer than a watch is silent, because its server ends it after 290 s.
const READ: Duration = Duration::from_secs(310);
const WRITE: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is neither a ServiceAccount nor a kubeconfig.
    #[error(
        "no API server is configured: not in a cluster ({in_cluster}), and no kubeconfig ({kubeconfig}); set KUBECONFIG"
    )]
    NoConfig {
        /// Why not the ServiceAccount of a pod.
        in_cluster: Box<InClusterError>,
        /// Why not the kubeconfig.
        kubeconfig: Box<KubeconfigError>,
    },
    /// The file that `KUBECONFIG` names is no use.
    #[error("the kubeconfig of KUBECONFIG: {0}")]
    Kubeconfig(Box<KubeconfigError>),
    /// The context or the file that a person named is no use.
    #[error("{what}: {error}")]
    Chosen {
        /// The file, and the context if one was named.
        what: String,
        /// What is wrong with it.
        error: Box<KubeconfigError>,
    },
    /// The configuration names something that can't be used.
    #[error("the API server {url}: {error}")]
    Unusable {
        /// The server.
        url: String,
        /// What is wrong.
        error: Box<kube::Error>,
    },
}

/// A client: of the kubeconfig that `KUBECONFIG` names, else of the pod's own ServiceAccount, else of the kubeconfig
/// in the home directory. Nothing is sent yet.
///
/// # Errors
/// With what was tried, if none is there or the one that is can't be used.
pub async fn client() -> Result<Client, ConnectError> {
    finish(config().await?)
}

/// Which cluster a person means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// A kubeconfig other than the usual one.
    pub kubeconfig: Option<PathBuf>,
    /// A context other than the file's current one.
    pub context: Option<String>,
}

/// A client of the cluster that a person chose; as [`client`] if nothing is chosen. Nothing is sent yet.
///
/// # Errors
/// With what was tried.
pub async fn client_of(choice: &Choice) -> Result<Client, ConnectError> {
    finish(config_of(choice).await?)
}

/// What the client of a choice is made of.
pub(crate) async fn config_of(choice: &Choice) -> Result<Config, ConnectError> {
    if *choice == Choice::default() {
        return config().await;
    }
    let options = KubeConfigOptions { context: choice.context.clone(), ..KubeConfigOptions::default() };
    let config = async {
        match &choice.kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await,
            None => Config::from_kubeconfig(&options).await,
        }
    };
    let what = || {
        let file = choice.kubeconfig.as_ref().map(|path| format!("kubeconfig {}", path.display()));
        let context = choice.context.as_ref().map(|context| format!("context {context}"));
        [file, context].into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    config.await.map_err(|error| ConnectError::Chosen { what: what(), error: Box::new(error) })
}

fn finish(mut config: Config) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ);
    config.write_timeout = Some(WRITE);
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| ConnectError::Unusable { url, error: Box::new(error) })
}

/// A person inside a pod who names a kubeconfig means it, so that comes first; components never do.
async fn config() -> Result<Config, ConnectError> {
    let options = KubeConfigOptions::default();
    if std::env::var_os("KUBECONFIG").is_some_and(|v| !v.is_empty()) {
        return Config::from_kubeconfig(&options).await.map_err(|e| ConnectError::Kubeconfig(Box::new(e)));
    }
    let in_cluster = match Config::incluster() {
        Ok(config) => return Ok(config),
        Err(error) => Box::new(error),
    };
    let kubeconfig = Config::from_kubeconfig(&options).await;
    kubeconfig.map_err(|error| ConnectError::NoConfig { in_cluster, kubeconfig: Box::new(error) })
}
