//! What tests of Gateways share: backends on the wire, in namespace `edge`, and certificates that sign themselves.

use std::path::Path;

use anyhow::Result;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::Machine;

/// The namespace of it all.
pub const NAMESPACE: &str = "edge";

/// Manifests of a Service of HTTP at port 80 whose only endpoint is a port on the wire.
pub fn backend(name: &str, port: u16) -> String {
    let at = Machine::OUTSIDE;
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec: {{ ports: [{{ name: http, port: 80, appProtocol: http }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: {NAMESPACE}, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ name: http, port: {port} }}]
endpoints: [{{ addresses: [{at}], conditions: {{ ready: true }} }}]
"
    )
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What is presented; what clients have to believe.
    pub chain: String,
    /// The private key.
    pub key: String,
}

impl Certificate {
    /// One for a host.
    ///
    /// # Errors
    /// The name is none.
    pub fn of(host: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        // Who looks for an issuer by its name alone finds the right one.
        params.distinguished_name.push(DnType::CommonName, host);
        Ok(Self { chain: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// The manifest of a Secret with it.
    pub fn secret(&self, name: &str) -> String {
        let data = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "stringData": { "tls.crt": self.chain, "tls.key": self.key },
        });
        format!("---\n{data}\n")
    }
}

/// The status that was written for an object of a directory of manifests, as `httproute.edge.web`, if there is one.
///
/// # Errors
/// It can't be read.
pub fn status(manifests: &Path, object: &str) -> Result<Option<Value>> {
    match std::fs::read_to_string(manifests.join(".weft/status").join(format!("{object}.yaml"))) {
        Ok(text) => Ok(Some(serde_norway::from_str(&text)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
