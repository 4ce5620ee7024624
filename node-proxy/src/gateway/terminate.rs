//! Who ends TLS for which listener: made of its certificates when they are first needed, and again when they differ.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use weft_core::gateway::Certificate;
use weft_core::ids::{CertificateKey, ListenerKey};
use weft_core::snapshot::Snapshot;
use weft_tls::{GatewayTls, KeyPair};

/// Those of one worker.
#[derive(Debug, Default)]
pub(super) struct Terminators(RefCell<HashMap<ListenerKey, Made>>);

#[derive(Debug)]
struct Made {
    of: Vec<Arc<Certificate>>,
    tls: GatewayTls,
}

impl Terminators {
    /// The one of a listener. A certificate that can't be used is left out as long as there is another.
    ///
    /// # Errors
    /// When there is none; for people.
    pub(super) fn of(
        &self,
        snapshot: &Snapshot,
        listener: &ListenerKey,
        keys: &[CertificateKey],
    ) -> Result<GatewayTls, String> {
        let now: Vec<_> = keys.iter().filter_map(|key| snapshot.certificate(key).cloned()).collect();
        let same =
            |made: &&Made| made.of.len() == now.len() && made.of.iter().zip(&now).all(|(a, b)| Arc::ptr_eq(a, b));
        if let Some(made) = self.0.borrow().get(listener).filter(same) {
            return Ok(made.tls.clone());
        }
        let mut pairs = Vec::with_capacity(now.len());
        let mut why = "no certificate has come yet".to_owned();
        for certificate in &now {
            match KeyPair::from_pem(&certificate.chain, certificate.private_key.pem()) {
                Ok(pair) => pairs.push(pair),
                Err(invalid) => why = format!("Secret {}: {invalid}", certificate.key),
            }
        }
        if pairs.is_empty() {
            return Err(why);
        }
        let tls = GatewayTls::new(pairs).map_err(|error| error.to_string())?;
        self.0.borrow_mut().insert(listener.clone(), Made { of: now, tls: tls.clone() });
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
