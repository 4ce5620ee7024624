//! Who ends TLS for which listener: made of its certificates when they are first needed, and again when they differ.
//!
//! All workers of a process share them, and with them the keys of tickets: which worker a client's next connection comes to
//! is the kernel's choice, and its session is resumed there too. The keys change every six hours, those before them are good
//! for as long again, and other certificates or another validation of clients begin with keys of their own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use weft_core::gateway::{Certificate, ClientValidation, Listener, ListenerProtocol};
use weft_core::ids::ListenerKey;
use weft_core::snapshot::Snapshot;
use weft_tls::{GatewayTls, Inside, KeyPair};

/// Those of a process. The lock is held while one is made: the others would make the same.
#[derive(Debug, Default)]
pub(super) struct Terminators(Mutex<HashMap<ListenerKey, Made>>);

#[derive(Debug)]
struct Made {
    of: Vec<Arc<Certificate>>,
    inside: Inside,
    clients: Option<ClientValidation>,
    /// Or why there is none, for people.
    tls: Result<GatewayTls, String>,
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
        let mut all = self.0.lock();
        if let Some(made) = all.get(&listener.key).filter(|made| made.is_for(&now, inside, clients)) {
            return made.tls.clone();
        }
        let tls = make(&now, inside, clients.as_ref());
        // Once for each change: clients may come often.
        if let Err(why) = &tls {
            tracing::warn!(listener = %listener.key, "TLS can't be ended: {why}");
        }
        let made = Made { of: now, inside, clients: clients.clone(), tls: tls.clone() };
        all.insert(listener.key.clone(), made);
        tls
    }

    /// Forgets those of listeners that are gone, and the keys in them.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        let mut made = self.0.lock();
        if !made.is_empty() {
            let there: std::collections::HashSet<_> = snapshot.listeners().map(|it| &it.key).collect();
            made.retain(|listener, _| there.contains(listener));
        }
    }
}

fn make(
    certificates: &[Arc<Certificate>],
    inside: Inside,
    clients: Option<&ClientValidation>,
) -> Result<GatewayTls, String> {
    let mut pairs = Vec::with_capacity(certificates.len());
    let mut why = "no certificate has come yet".to_owned();
    for certificate in certificates {
        match KeyPair::from_pem(&certificate.chain, certificate.private_key.pem()) {
            Ok(pair) => pairs.push(pair),
            Err(invalid) => why = format!("Secret {}: {invalid}", certificate.key.secret),
        }
    }
    if pairs.is_empty() {
        return Err(why);
    }
    GatewayTls::new(pairs, inside, clients).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use weft_core::change::{Change, Resource};
    use weft_core::gateway::PrivateKey;
    use weft_core::ids::{CertificateKey, GatewayKey, Port, SecretKey};

    use super::*;

    fn certificate(key: &CertificateKey, chain: Vec<u8>, private_key: String) -> Change {
        let certificate = Certificate { key: key.clone(), chain, private_key: PrivateKey::new(private_key) };
        Change::Upsert(Resource::Certificate(Arc::new(certificate)))
    }

    fn listener(gateway: &GatewayKey, protocol: ListenerProtocol) -> Listener {
        Listener {
            key: ListenerKey::new(gateway.clone(), "web"),
            addresses: Vec::new(),
            port: Port::new(443).unwrap(),
            hostname: None,
            protocol,
            kinds: Vec::new(),
            client_validation: None,
            policies: Vec::new(),
            http3: false,
        }
    }

    #[test]
    fn what_cant_be_used_is_kept_until_it_changes() {
        let gateway = GatewayKey::new("edge", "gw");
        let secret = CertificateKey::new(gateway.clone(), SecretKey::new("edge", "c"));
        let listener = listener(&gateway, ListenerProtocol::Https { certificates: vec![secret.clone()] });
        let terminators = Terminators::default();
        let kept = || terminators.0.lock().get(&listener.key).map(|made| made.tls.is_ok());
        let snapshot = Snapshot::default();
        assert!(terminators.of(&snapshot, &listener).is_err());
        assert_eq!(kept(), Some(false), "nobody looks again");
        let snapshot = snapshot.apply(&[certificate(&secret, b"none".to_vec(), "none".to_owned())]);
        let why = terminators.of(&snapshot, &listener).unwrap_err();
        assert!(why.contains("edge/c"), "{why}");
        assert_eq!(terminators.of(&snapshot, &listener).unwrap_err(), why);
        let made = rcgen::generate_simple_self_signed(vec!["a.com".to_owned()]).unwrap();
        let good = certificate(&secret, made.cert.pem().into_bytes(), made.signing_key.serialize_pem());
        assert!(terminators.of(&snapshot.apply(&[good]), &listener).is_ok());
        assert_eq!(kept(), Some(true));
    }

    #[test]
    fn a_further_certificate_counts_and_nothing_is_kept_of_a_listener_that_is_gone() {
        let gateway = GatewayKey::new("edge", "gw");
        let secret = |name: &str| CertificateKey::new(gateway.clone(), SecretKey::new("edge", name));
        let good = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec!["a.com".to_owned()]).unwrap();
            certificate(&secret(name), made.cert.pem().into_bytes(), made.signing_key.serialize_pem())
        };
        let certificates = vec![secret("c"), secret("d")];
        let listener = listener(&gateway, ListenerProtocol::Https { certificates });
        let terminators = Terminators::default();
        let kept = || terminators.0.lock().get(&listener.key).map(|made| made.of.len());
        let mut snapshot = Snapshot::default();
        for (name, count) in [("c", 1), ("d", 2)] {
            snapshot = snapshot.apply(&[good(name)]);
            assert!(terminators.of(&snapshot, &listener).is_ok());
            assert_eq!(kept(), Some(count));
        }
        terminators.retain(&snapshot.apply(&[Change::Upsert(Resource::Listener(Arc::new(listener.clone())))]));
        assert_eq!(kept(), Some(2));
        terminators.retain(&snapshot);
        assert_eq!(kept(), None, "nor the keys of its tickets");
    }
}
