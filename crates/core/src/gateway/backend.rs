//! How Gateways speak TLS to backends (BackendTLSPolicy, GEP-1897).

use crate::ids::ServicePortKey;

/// TLS towards a Service port; the controller has settled which policy counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// The Service port.
    pub port: ServicePortKey,
    /// `validation.hostname`: the name in the ClientHello, and, without [`Self::subject_alt_names`], in the certificate.
    pub hostname: String,
    /// `validation.subjectAltNames`: the certificate has to have one of these; empty: the hostname.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// Whose word is taken for it.
    pub trust: BackendTrust,
}

/// A name that a certificate may be for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectAltName {
    /// A DNS name; `*.` at its start stands for one label.
    Hostname(String),
    /// A URI, compared whole.
    Uri(String),
}

/// Which authorities a backend's certificate may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTrust {
    /// `caCertificateRefs`: these, one or more as PEM.
    Bundle(Vec<u8>),
    /// `wellKnownCACertificates: System`: the public ones.
    System,
    /// The policy can't be used, and why: nothing is sent to the backend, least of all in the clear.
    Invalid(String),
    /// Nobody's: the host that [`BackendTls::hostname`] names, and no other, is spoken to in the clear. Of a host outside either
    /// this or one of the others is said, so that it is sent nothing before it is known which.
    Plain,
}
