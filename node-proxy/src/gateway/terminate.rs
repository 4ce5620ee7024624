//! Who ends TLS for which listener: made of its certificates when they are first needed, and again when they differ.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use weft_core::gateway::{Certificate, ClientValidation, Listener, ListenerProtocol};
use weft_core::ids::ListenerKey;
use weft_core::snapshot::Snapshot;
use weft_tls::{GatewayTls, Inside, KeyPair};

/// Those of one worker.
#[derive(Debug, Default)]
pub(super) struct Terminators(RefCell<HashMap<ListenerKey, Made>>);

#[derive(Debug)]
struct Made {
    of: Vec<Arc<Certificate>>,
    inside: Inside,
    clients: Option<ClientValidation>,
    tls: GatewayTls,
}

impl Made {
    fn is_for(&self, certificates: &[Arc<Certificate>], inside: Inside, clients: &Option<ClientValidation>) -> bool {
        self.of.len() == certificates.len()
            && self.of.iter().zip(certificates).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.inside == inside
            && self.clients == *clients
    }
}

impl Terminators {
    /// The one of a listener. A certificate that can't be used is left out as long as there is another.
    ///
    /// # Errors
    /// When there is none; for people.
    pub(super) fn of(&self, snapshot: &Snapshot, listener: &Listener) -> Result<GatewayTls, String> {
        let keys = listener.protocol.certificates();
        let now: Vec<_> = keys.iter().filter_map(|key| snapshot.certificate(key).cloned()).collect();
        let clients = &listener.client_validation;
        let inside = match listener.protocol {
            ListenerProtocol::Https { .. } => Inside::Http,
            _ => Inside::Bytes,
        };
        if let Some(made) = self.0.borrow().get(&listener.key).filter(|made| made.is_for(&now, inside, clients)) {
            return Ok(made.tls.clone());
        }
        let mut pairs = Vec::with_capacity(now.len());
        let mut why = "no certificate has come yet".to_owned();
        for certificate in &now {
            match KeyPair::from_pem(&certificate.chain, certificate.private_key.pem()) {
                Ok(pair) => pairs.push(pair),
                Err(invalid) => why = format!("Secret {}: {invalid}", certificate.key.secret),
            }
        }
        if pairs.is_empty() {
            return Err(why);
        }
        let tls = GatewayTls::new(pairs, inside, clients.as_ref()).map_err(|error| error.to_string())?;
        let made = Made { of: now, inside, clients: clients.clone(), tls: tls.clone() };
        self.0.borrow_mut().insert(listener.key.clone(), made);
        Ok(tls)
    }

    /// Forgets those of listeners that are gone, and the keys in them.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        let mut made = self.0.borrow_mut();
        if !made.is_empty() {
            let there: std::collections::HashSet<_> = snapshot.listeners().map(|it| &it.key).collect();
            made.retain(|listener, _| there.contains(listener));
        }
    }
}
