//! The authority's own server: its certificate comes from itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::DnsName;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use weft_core::identity::SpiffeId;
use weft_tls::{CertManager, CertStore, ControlServer, HandshakeError, ManagerSettings, NoCertificate, TlsSettings};

use crate::authority::Authority;
use crate::local::ServerSource;
use crate::service::CaService;
use weft_control::control_incoming;

/// How long the first certificate may take; it is made in this process.
const FIRST: Duration = Duration::from_secs(10);
/// How long calls that are under way when the server stops may go on. Followers of the bundle never end by themselves.
const DRAIN: Duration = Duration::from_secs(3);

/// Why the authority cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It gave itself no certificate.
    #[error("the authority's own certificate: {0}")]
    Certificate(#[from] NoCertificate),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] HandshakeError),
    /// The server failed.
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Who the server is.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    /// By which Weft's own callers know it.
    pub identity: SpiffeId,
    /// By which others do; may be empty.
    pub dns_names: Vec<DnsName<'static>>,
}

/// Serves both services of `service` on `listener` until `stopped` ends.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    server: ServerIdentity,
    service: CaService,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let ServerIdentity { identity, dns_names } = server;
    let store = CertStore::new(authority.trust().clone(), authority.clock, TlsSettings::default());
    let source = Arc::new(ServerSource { authority, dns_names });
    let manager = CertManager::new(store.clone(), source, ManagerSettings::default(), Handle::current());
    let lease = manager.lease(&identity);
    lease.ready(FIRST).await?;
    let incoming = control_incoming(listener, ControlServer::for_identity(&store, &identity)?);
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = tonic::transport::Server::builder()
        .add_service(service.weft())
        .add_service(service.istio())
        .serve_with_incoming_shutdown(incoming, async move {
            stopped.await;
            // Nobody listens only when serving has ended.
            let _ = stop.send(());
        });
    let drained = async {
        if stopping.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        done = serving => Ok(done?),
        () = drained => Ok(()),
    }
}
