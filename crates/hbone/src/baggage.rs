//! The `baggage` header (W3C Baggage) in which ambient peers describe their workloads: for logs and metrics, never for trust.
//!
//! Parsing is lenient and bounded: what has no valid form is skipped, what is too much is cut, nothing panics.

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// Longest header that is looked at, in bytes (the W3C limit).
const MAX_BYTES: usize = 8192;
/// Most entries kept (the W3C minimum for propagation).
const MAX_ENTRIES: usize = 64;
/// Longest key or decoded value kept, in bytes: a Kubernetes name has at most 253.
const MAX_TEXT: usize = 256;

/// Everything that is not a `baggage-octet`, and the percent sign itself.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%').add(b'=');

/// Keys that ambient peers use.
pub mod keys {
    /// The cluster.
    pub const CLUSTER: &str = "k8s.cluster.name";
    /// The namespace.
    pub const NAMESPACE: &str = "k8s.namespace.name";
    /// The owning Deployment.
    pub const DEPLOYMENT: &str = "k8s.deployment.name";
    /// The pod, if it has no owner.
    pub const POD: &str = "k8s.pod.name";
    /// The canonical service.
    pub const SERVICE: &str = "service.name";
    /// The version of the canonical service.
    pub const SERVICE_VERSION: &str = "service.version";
}

/// What a peer says about itself, in the order in which it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baggage {
    entries: Vec<(String, String)>,
}

impl Baggage {
    /// Nothing said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. One whose key is not a token, or that is too long or too many, is left out.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.push(key, value.to_owned());
        self
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Reads a header. Any bytes are fine; members without a valid form are skipped.
    pub fn parse(header: &[u8]) -> Self {
        let mut baggage = Self::new();
        let header = header.get(..MAX_BYTES).unwrap_or(header);
        for member in header.split(|b| *b == b',') {
            // Properties of a member (`;key=value`) mean nothing to us.
            let pair = member.split(|b| *b == b';').next().unwrap_or_default();
            let Some(equals) = pair.iter().position(|b| *b == b'=') else { continue };
            let (key, value) = pair.split_at(equals);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let Ok(key) = std::str::from_utf8(key.trim_ascii()) else { continue };
            let Ok(value) = percent_decode(value).decode_utf8() else { continue };
            baggage.push(key, value.into_owned());
        }
        baggage
    }

    /// Writes the header, or `None` if there is nothing to say.
    pub fn to_header_value(&self) -> Option<HeaderValue> {
        if self.entries.is_empty() {
            return None;
        }
        let mut text = String::new();
        for (key, value) in &self.entries {
            let before = text.len();
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push('=');
            text.extend(utf8_percent_encode(value, ESCAPED));
            if text.len() > MAX_BYTES {
                text.truncate(before);
                break;
            }
        }
        HeaderValue::try_from(text).ok()
    }

    fn push(&mut self, key: &str, value: String) {
        let fits = self.entries.len() < MAX_ENTRIES && key.len() <= MAX_TEXT && value.len() <= MAX_TEXT;
        if fits && is_token(key) && !value.is_empty() {
            self.entries.push((key.to_owned(), value));
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_ambient_peers_write() {
        let header = b"k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=shop,\
            service.name=shop, service.version = v1%20beta;prop=x";
        let baggage = Baggage::parse(header);
        assert_eq!(baggage.get(keys::CLUSTER), Some("Kubernetes"));
        assert_eq!(baggage.get(keys::NAMESPACE), Some("default"));
        assert_eq!(baggage.get(keys::DEPLOYMENT), Some("shop"));
        assert_eq!(baggage.get(keys::SERVICE_VERSION), Some("v1 beta"));
        assert_eq!(baggage.get(keys::POD), None);
    }

    #[test]
    fn too_much_is_cut() {
        let many: String = (0..1000).map(|i| format!("k{i}=v,")).collect();
        assert_eq!(Baggage::parse(many.as_bytes()).iter().count(), MAX_ENTRIES);
        let long = format!("k={},l=1", "x".repeat(MAX_TEXT + 1));
        assert_eq!(Baggage::parse(long.as_bytes()), Baggage::new().with("l", "1"));
        assert_eq!(Baggage::new().to_header_value(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..10_000)) {
            let baggage = Baggage::parse(&bytes);
            prop_assert!(baggage.iter().count() <= MAX_ENTRIES);
            prop_assert!(baggage.iter().all(|(k, v)| k.len() <= MAX_TEXT && v.len() <= MAX_TEXT));
        }

        #[test]
        fn bytes_that_look_like_baggage_parse_too(text in "[a-c=,;% \"\\\\0-2\u{80}]{0,300}") {
            let baggage = Baggage::parse(text.as_bytes());
            let again = baggage.to_header_value().map(|v| Baggage::parse(v.as_bytes())).unwrap_or_default();
            prop_assert_eq!(again, baggage);
        }

        #[test]
        fn what_is_written_is_read_back(entries in proptest::collection::vec(("[a-z.]{1,20}", "\\PC{1,40}"), 0..20)) {
            let mut baggage = Baggage::new();
            for (key, value) in &entries {
                baggage = baggage.with(key, value);
            }
            let again = baggage.to_header_value().map(|v| Baggage::parse(v.as_bytes())).unwrap_or_default();
            prop_assert_eq!(again, baggage);
        }
    }
}
