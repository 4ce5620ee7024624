//! Objects to core resources: pure functions, every problem a value.
//!
//! A [`Problem`] names the field, what is wrong and what to do; conditions and the findings of `weft check` are
//! made of the same ones. Nothing here fails: what is wrong becomes the invalid variant the data plane answers for.

pub mod authz;
pub mod backend_tls;
pub mod backend_traffic;
pub mod endpoints;
pub mod enrolment;
pub mod gateway;
mod gateway_target;
pub mod labels;
pub mod mesh_policy;
mod policy_target;
pub mod probe;
pub mod route;
pub mod service;
pub mod service_import;
mod session;
pub mod telemetry;
pub mod workload;
pub mod xbackend;

use std::fmt;

pub use gateway_target::{GatewayTarget, ListenerHolder, blind_spots as blind_spots_at};
pub use policy_target::{Applies, Pods, ResolvedTarget, Selection, TargetLookup};

/// Why something is not as its author meant it; the words of the Gateway API where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A value that the API or this implementation does not have.
    UnsupportedValue,
    /// Filters that exclude each other.
    IncompatibleFilters,
    /// No such parent, or no port of it that the route may bind.
    NoMatchingParent,
    /// Another object has it already.
    Conflicted,
    /// No such backend or port.
    BackendNotFound,
    /// In another namespace, without a ReferenceGrant.
    RefNotPermitted,
    /// Not a kind that can stand there.
    InvalidKind,
    /// The backend speaks something the route cannot carry.
    UnsupportedProtocol,
    /// A policy that cannot be understood.
    Invalid,
    /// No such target of a policy.
    TargetNotFound,
    /// The Gateway's listeners take no such route, or none of the route's namespace.
    NotAllowedByListeners,
    /// No listener has a hostname in common with the route.
    NoMatchingListenerHostname,
    /// No such certificate, or none that can be used.
    InvalidCertificateRef,
    /// No such certificate for backends, or none that can be used.
    InvalidClientCertificateRef,
    /// No such ConfigMap with certificates of authorities, or none that can be used.
    InvalidCaCertificateRef,
    /// Not a kind that certificates of authorities can be in.
    InvalidCaCertificateKind,
    /// None of the authorities can be had.
    NoValidCaCertificate,
    /// The Gateway takes no ListenerSets from there.
    NotAllowed,
    /// A kind of route that the listener's protocol can't carry.
    InvalidRouteKinds,
    /// Another listener of the port has the same hostname.
    HostnameConflict,
    /// Another listener of the port speaks another protocol.
    ProtocolConflict,
    /// The port is another Gateway's.
    PortUnavailable,
    /// An address that can't be given.
    UnsupportedAddress,
    /// Parameters of a kind that is not known.
    InvalidParameters,
    /// Understood but without effect, or weaker than it looks: never a failure.
    Note,
}

impl Reason {
    /// The word for a condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedValue => "UnsupportedValue",
            Self::IncompatibleFilters => "IncompatibleFilters",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::Conflicted => "Conflicted",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::Invalid => "Invalid",
            Self::TargetNotFound => "TargetNotFound",
            Self::NotAllowedByListeners => "NotAllowedByListeners",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
            Self::InvalidCertificateRef => "InvalidCertificateRef",
            Self::InvalidClientCertificateRef => "InvalidClientCertificateRef",
            Self::InvalidCaCertificateRef => "InvalidCACertificateRef",
            Self::InvalidCaCertificateKind => "InvalidCACertificateKind",
            Self::NoValidCaCertificate => "NoValidCACertificate",
            Self::NotAllowed => "NotAllowed",
            Self::InvalidRouteKinds => "InvalidRouteKinds",
            Self::HostnameConflict => "HostnameConflict",
            Self::ProtocolConflict => "ProtocolConflict",
            Self::PortUnavailable => "PortUnavailable",
            Self::UnsupportedAddress => "UnsupportedAddress",
            Self::InvalidParameters => "InvalidParameters",
            Self::Note => "Note",
        }
    }

    /// Whether it belongs to the condition `ResolvedRefs`.
    pub const fn is_reference(self) -> bool {
        matches!(self, Self::BackendNotFound | Self::RefNotPermitted | Self::InvalidKind | Self::UnsupportedProtocol)
    }
}

/// One thing wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as `spec.rules[0].matches[1].path.value`.
    pub field: String,
    /// What kind of problem.
    pub reason: Reason,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A problem.
    pub fn new(
        field: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), reason, message: message.into(), remedy: remedy.into() }
    }

    /// A value outside of the API.
    pub fn value(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(field, Reason::UnsupportedValue, message, remedy)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// The nearest of `known` to a misspelt `text`, if one is near enough to be meant.
pub fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = text.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(text.len()) / 4)
        .min()
        .map(|(_, k)| k)
}

/// "did you mean `x`?", or the list of what is known.
pub fn suggestion(text: &str, known: &[&str]) -> String {
    match did_you_mean(text, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("use one of: {}", known.join(", ")),
    }
}

/// At most this many problems are spelled out in one message.
const IN_A_MESSAGE: usize = 5;

/// Several problems as one message of a condition.
pub fn summary<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> String {
    let all: Vec<_> = problems.into_iter().collect();
    let mut text = all.iter().take(IN_A_MESSAGE).map(ToString::to_string).collect::<Vec<_>>().join(". ");
    if let Some(more) = all.len().checked_sub(IN_A_MESSAGE).filter(|n| *n > 0) {
        text.push_str(&format!(". And {more} more"));
    }
    text
}
