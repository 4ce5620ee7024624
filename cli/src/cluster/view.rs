//! The way to the controller's view of the live mesh: a port-forward, TLS whose server is known by the mesh's roots, and a
//! token. Nothing is sent before the server has proved that it is the controller.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use weft_controller::view::{AUDIENCE, PORT};
use weft_core::identity::TrustDomain;
use weft_kube::kube::api::{Api, PostParams};
use weft_kube::{Choice, bearer_token};
use weft_tls::{CertificateDer, Clock, ControlClient, ExpectedServer, ServerTrust, TrustBundle};

use super::Target;
use super::facts::{component_of, is_ready, name_of};
use super::read::{Session, within};

/// How long connecting may take, and an answer's head.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer that is read whole, in bytes.
const LARGEST: usize = 64 << 20;
/// The controller's ServiceAccount and its pods' name.
const CONTROLLER: &str = "weft-controller";
/// The ConfigMap of the roots and its key.
const ROOTS: (&str, &str) = ("weft-trust", "root.pem");
/// How long a token that is made here is good for, in seconds: longer than the longest tap.
const TOKEN_LIFE: i64 = 900;

/// Who to be to the controller, and how to reach and know it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ViewArgs {
    /// Be this ServiceAccount, by a token that is made for it; left out: whose token the kubeconfig has
    #[arg(long, value_name = "NAMESPACE/NAME", help_heading = "Controller")]
    service_account: Option<String>,
    /// PEM file with the mesh's roots, for who may not read ConfigMap weft-trust
    #[arg(long, value_name = "FILE", help_heading = "Controller")]
    roots: Option<PathBuf>,
    /// Where to reach the controller's view, instead of by a port-forward to one of its pods
    #[arg(long, value_name = "HOST:PORT", help_heading = "Controller")]
    controller: Option<String>,
}

/// A conversation with the controller.
pub struct View {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    connection: JoinHandle<()>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl View {
    /// Connects, and gets a token.
    ///
    /// # Errors
    /// When the controller can't be reached or isn't known by its certificate, or there is no token; with what to do.
    pub async fn connect(target: &Target, args: &ViewArgs) -> anyhow::Result<Self> {
        let session = target.session().await?;
        let token = token(&session, &target.choice(), args).await?;
        let tls = tls(roots(&session, args).await?, &session.mesh)?;
        let connected = async {
            match &args.controller {
                Some(address) => {
                    let stream =
                        TcpStream::connect(address).await.with_context(|| format!("--controller {address}"))?;
                    Self::over(stream, &tls, token).await
                }
                None => {
                    let pod = controller(&session).await?;
                    let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.mesh);
                    let mut forwarder = api.portforward(&pod, &[PORT]).await.with_context(|| {
                        format!("pod {pod}: cannot forward its port (needs get and create on pods/portforward)")
                    })?;
                    let stream = forwarder.take_stream(PORT).context("no stream")?;
                    Self::over(stream, &tls, token).await.with_context(|| format!("pod {pod}"))
                }
            }
        };
        let late = || anyhow!("the controller doesn't answer within {} s", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, connected).await.map_err(|_| late())?
    }

    /// Over a connection that leads to the controller.
    pub(super) async fn over<IO>(io: IO, tls: &ControlClient, token: String) -> anyhow::Result<Self>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = tls.connect(io).await.context("TLS with the controller")?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("the connection to the controller ended: {error}");
            }
        });
        Ok(Self { sender, token, connection })
    }

    /// Whether it can be asked again.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// An answer, whole.
    ///
    /// # Errors
    /// What the controller says against it, or that it doesn't answer.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let answer = self.ask(Method::GET, path, Bytes::new()).await?;
        let body = Limited::new(answer.into_body(), LARGEST).collect();
        let body = tokio::time::timeout(PATIENCE, body).await.context("the controller's answer doesn't end")?;
        Ok(body.map_err(anyhow::Error::from_boxed)?.to_bytes())
    }

    /// An answer, as it comes.
    ///
    /// # Errors
    /// What the controller says against it, or that it doesn't answer.
    pub async fn post(&mut self, path: &str, body: Vec<u8>) -> anyhow::Result<Incoming> {
        Ok(self.ask(Method::POST, path, body.into()).await?.into_body())
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(format!("https://{CONTROLLER}{path}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token)).body(Full::new(body))?;
        let answer = tokio::time::timeout(PATIENCE, self.sender.send_request(request)).await;
        let answer = answer.context("the controller doesn't answer")?.context("the controller")?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
        let body = body.to_bytes();
        let said = serde_json::from_slice::<Value>(&body).ok();
        let why = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or("it says no more than that");
        bail!("the controller answers {}: {why}", status.as_u16())
    }
}

/// A pod of the controller that is ready.
async fn controller(session: &Session) -> anyhow::Result<String> {
    let pods = session.own_pods().await?;
    let ready = pods.iter().find(|pod| component_of(pod) == Some(CONTROLLER) && is_ready(pod));
    let ready = ready.map(|pod| name_of(&pod.metadata).to_owned());
    ready.with_context(|| format!("no pod of {CONTROLLER} in namespace {} is ready", session.mesh))
}

/// Who the server must be, by roots.
pub(super) fn tls(roots: Vec<CertificateDer<'static>>, mesh: &str) -> anyhow::Result<ControlClient> {
    let expected = ExpectedServer::Account { namespace: mesh.into(), service_account: CONTROLLER.into() };
    Ok(ControlClient::new(ServerTrust::Roots(roots), expected, Clock::system())?)
}

async fn roots(session: &Session, args: &ViewArgs) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let (name, key) = ROOTS;
    let (pem, place) = match &args.roots {
        Some(path) => {
            (std::fs::read(path).with_context(|| format!("--roots {}", path.display()))?, "--roots".to_owned())
        }
        None => {
            let place = format!("ConfigMap {}/{name}", session.mesh);
            let map = session.config_map(&session.mesh, name).await.with_context(|| {
                format!("the controller can't be known without the mesh's roots: be allowed to get {place}, or give --roots FILE")
            })?;
            let pem = map.and_then(|map| map.data?.remove(key));
            (pem.with_context(|| format!("{place} has no {key}: is the mesh installed there?"))?.into_bytes(), place)
        }
    };
    // Which domain they are of doesn't matter here: the certificate says it, and they have to vouch for that.
    let domain = TrustDomain::default();
    let bundle = TrustBundle::from_pem(domain.clone(), &pem).with_context(|| place)?;
    Ok(bundle.roots(&domain).to_vec())
}

/// The token to show: one made for this, or the kubeconfig's own.
async fn token(session: &Session, choice: &Choice, args: &ViewArgs) -> anyhow::Result<String> {
    if let Some(account) = &args.service_account {
        return token_of(session, account).await;
    }
    bearer_token(choice).await?.context(
        "the kubeconfig has no token that could be shown to the controller, as where people have client certificates: give \
         --service-account NAMESPACE/NAME, whose token is then made (needs create on serviceaccounts/token)",
    )
}

async fn token_of(session: &Session, account: &str) -> anyhow::Result<String> {
    let parts = account.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let (namespace, name) = parts.with_context(|| format!("--service-account {account}: expected NAMESPACE/NAME"))?;
    let api: Api<ServiceAccount> = Api::namespaced(session.client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![AUDIENCE.to_owned()],
        expiration_seconds: Some(TOKEN_LIFE),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let what = format!("a token of ServiceAccount {account}");
    let made = within(&what, api.create_token_request(name, &PostParams::default(), &request)).await?;
    made.status.map(|status| status.token).with_context(|| format!("{what}: the API server gives none"))
}

#[cfg(test)]
#[path = "tests/view.rs"]
mod tests;
