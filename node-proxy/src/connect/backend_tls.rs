//! TLS to endpoints that speak it themselves, as BackendTLSPolicies have it: a client for each policy, made once and kept
//! while nothing of it changes, so that sessions are resumed and connections shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use weft_core::backend_kind::BackendKind;
use weft_core::gateway::{BackendTls, BackendTrust, Bind, Certificate};
use weft_core::ids::{GatewayKey, ServicePortKey};
use weft_core::service::ServiceKind;
use weft_core::snapshot::Snapshot;
use weft_tls::{BackendClient, KeyPair};

use super::http_pool::Protocol;
use super::{ConnectError, Dial, Target, UpstreamStream};
use crate::identify::LocalWorkload;
use crate::relay::encrypted::Encrypted;

/// The clients of one worker.
#[derive(Debug, Default)]
pub(crate) struct BackendClients(RefCell<HashMap<Key, Made>>);

/// Whose, for which backend, and what is spoken inside.
type Key = (GatewayKey, ServicePortKey, Option<Protocol>);

#[derive(Debug)]
struct Made {
    policy: Arc<BackendTls>,
    certificate: Option<Arc<Certificate>>,
    client: Result<BackendClient, String>,
}

impl BackendClients {
    /// How the Gateway that listens at a place speaks TLS to a backend; `None`: in the clear. `inside`: the version of HTTP, if
    /// that is what is spoken.
    ///
    /// # Errors
    /// There is a policy, and it can't be followed, or it isn't known yet whether there is one: nothing may be sent.
    pub(crate) fn of(
        &self,
        snapshot: &Snapshot,
        at: &Bind,
        backend: &ServicePortKey,
        inside: Option<Protocol>,
    ) -> Result<Option<BackendClient>, String> {
        let Some(policy) = snapshot.backend_tls(backend) else {
            // Of a host outside it is always said: what is new here, or changes its port, waits for that.
            let is_outside = backend.service.object().0 == BackendKind::XBackend;
            return if is_outside { Err("it isn't known yet whether it speaks TLS".into()) } else { Ok(None) };
        };
        if policy.trust == BackendTrust::Plain {
            let is_its_host = snapshot.service(&backend.service).is_some_and(
                |service| matches!(&service.kind, ServiceKind::ExternalName(host) if *host == policy.hostname),
            );
            return if is_its_host { Ok(None) } else { Err("another host was spoken to in the clear".into()) };
        }
        let Some(gateway) = snapshot.gateway_port(at).map(|port| &port.gateway) else {
            return Err("the listener is gone".into());
        };
        let config = snapshot.gateway_config(gateway);
        let certificate = config.and_then(|config| snapshot.certificate(config.client_certificate.as_ref()?));
        let key = (gateway.clone(), backend.clone(), inside);
        if let Some(made) = self.0.borrow().get(&key).filter(|made| made.is_of(policy, certificate)) {
            return made.client.clone().map(Some);
        }
        let client = client(policy, certificate.map(|it| &**it), inside);
        let made = Made { policy: Arc::clone(policy), certificate: certificate.cloned(), client: client.clone() };
        let mut all = self.0.borrow_mut();
        // A change is a good time to forget what is gone, and the keys in it.
        all.retain(|(_, backend, _), _| snapshot.backend_tls(backend).is_some());
        all.insert(key, made);
        client.map(Some)
    }
}

impl Made {
    fn is_of(&self, policy: &Arc<BackendTls>, certificate: Option<&Arc<Certificate>>) -> bool {
        let same_certificate = match (&self.certificate, certificate) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_certificate && Arc::ptr_eq(&self.policy, policy)
    }
}

fn client(
    policy: &BackendTls,
    certificate: Option<&Certificate>,
    inside: Option<Protocol>,
) -> Result<BackendClient, String> {
    let pair = certificate
        .map(|it| {
            let pair = KeyPair::from_pem(&it.chain, it.private_key.pem());
            pair.map_err(|invalid| format!("Secret {}: {invalid}", it.key.secret))
        })
        .transpose()?;
    let protocols: &[&[u8]] = match inside {
        Some(Protocol::H1) => &[b"http/1.1"],
        Some(Protocol::H2) => &[b"h2"],
        None => &[],
    };
    BackendClient::new(policy, pair.as_ref(), protocols).map_err(|invalid| invalid.to_string())
}

/// Opens a stream to an endpoint: the header of the PROXY protocol first if it takes one, then TLS where it speaks that itself.
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn open(
    dial: &dyn Dial,
    source: &Rc<LocalWorkload>,
    target: &Target,
) -> Result<UpstreamStream, ConnectError> {
    let mut stream = dial.dial(source, target).await?;
    if let Some(header) = &target.proxy {
        let sent = stream.write_all(&header.bytes()).await;
        // Nothing of the request is sent yet: another endpoint may take it.
        sent.map_err(|error| ConnectError::Tcp { to: target.address, kind: error.kind() })?;
    }
    let Some(client) = &target.tls else { return Ok(stream) };
    match Box::pin(client.connect(stream)).await {
        Ok(tls) => Ok(UpstreamStream::Tls(Box::new(Encrypted::new(tls)))),
        Err(error) => Err(ConnectError::Handshake { to: target.address, detail: error.to_string() }),
    }
}
