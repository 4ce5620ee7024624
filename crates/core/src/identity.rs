//! SPIFFE identities of the form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Namespace, ServiceAccount};

/// Longest trust domain accepted, in bytes (SPIFFE-ID specification, section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest SPIFFE ID accepted, in bytes (SPIFFE-ID specification, section 2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// Why a text is not a SPIFFE identity of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// The scheme is missing or another one.
    #[error("not a SPIFFE ID: it must start with spiffe://")]
    Scheme,
    /// The trust domain is empty, too long or has a character outside `[a-z0-9._-]`.
    #[error("invalid trust domain: 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// The path is not `/ns/<namespace>/sa/<service account>`.
    #[error("invalid path: expected /ns/<namespace>/sa/<service account>")]
    Path,
    /// The whole ID is longer than 2048 bytes.
    #[error("SPIFFE ID longer than 2048 bytes")]
    TooLong,
}

/// A SPIFFE trust domain: 1 to 255 characters of `[a-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(std::sync::Arc<str>);

impl TrustDomain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, as everywhere in the field.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(legal) {
            return Err(InvalidIdentity::TrustDomain);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = InvalidIdentity;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.to_string()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Our trust domain, and the other names that count as it: while a mesh's trust domain is changed, some of its parts and
/// certificates have the old name and some the new one.
///
/// Only whole names count, never a part of one, and an identity is the same under each of them only if the certificate that
/// proves it leads to our own roots: whoever verifies it sees to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustDomains {
    own: TrustDomain,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<TrustDomain>,
}

impl TrustDomains {
    /// Our domain with its aliases. An alias that comes twice, or is our own name, adds nothing.
    pub fn new(own: TrustDomain, aliases: impl IntoIterator<Item = TrustDomain>) -> Self {
        let mut kept = Vec::new();
        for alias in aliases {
            if alias != own && !kept.contains(&alias) {
                kept.push(alias);
            }
        }
        Self { own, aliases: kept }
    }

    /// The name that we give: identities are asked for, logged and compared under it.
    pub fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// The other names.
    pub fn aliases(&self) -> &[TrustDomain] {
        &self.aliases
    }

    /// All names, our own first.
    pub fn names(&self) -> impl Iterator<Item = &TrustDomain> {
        std::iter::once(&self.own).chain(&self.aliases)
    }

    /// Whether this is our own name or one of the others.
    pub fn is_ours(&self, domain: &TrustDomain) -> bool {
        self.names().any(|name| name == domain)
    }

    /// Our own name for one that is ours; any other stays what it is.
    pub fn name_of<'a>(&'a self, domain: &'a TrustDomain) -> &'a TrustDomain {
        if self.is_ours(domain) { &self.own } else { domain }
    }

    /// The identity under our own name if its trust domain is ours; any other stays what it is.
    #[must_use]
    pub fn normal(&self, identity: &SpiffeId) -> SpiffeId {
        SpiffeId { trust_domain: self.name_of(&identity.trust_domain).clone(), ..identity.clone() }
    }

    /// Whether two identities differ in nothing but which name of ours they are under.
    pub fn same(&self, one: &SpiffeId, other: &SpiffeId) -> bool {
        one.namespace == other.namespace
            && one.service_account == other.service_account
            && self.name_of(&one.trust_domain) == self.name_of(&other.trust_domain)
    }
}

impl From<TrustDomain> for TrustDomains {
    /// Without aliases.
    fn from(own: TrustDomain) -> Self {
        Self { own, aliases: Vec::new() }
    }
}

/// The identity of a workload, proven by an X.509 SVID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The namespace of the ServiceAccount.
    pub namespace: Namespace,
    /// The ServiceAccount.
    pub service_account: ServiceAccount,
}

impl SpiffeId {
    /// The identity of a ServiceAccount.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: impl Into<Namespace>,
        service_account: impl Into<ServiceAccount>,
    ) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// The same, of texts that `common` shares with other identities.
    pub(crate) fn sharing(&self, common: impl Fn(&str) -> std::sync::Arc<str>) -> Self {
        Self {
            trust_domain: TrustDomain(common(self.trust_domain.as_str())),
            namespace: common(self.namespace.as_str()).into(),
            service_account: common(self.service_account.as_str()).into(),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_SPIFFE_ID {
            return Err(InvalidIdentity::TooLong);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(InvalidIdentity::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(InvalidIdentity::Path)?;
        let trust_domain = domain.parse()?;
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("ns"), Some(ns), Some("sa"), Some(sa), None) if is_segment(ns) && is_segment(sa) => {
                Ok(Self::new(trust_domain, ns, sa))
            }
            _ => Err(InvalidIdentity::Path),
        }
    }
}

/// A path segment as the SPIFFE-ID specification, section 2.2, allows it.
fn is_segment(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(legal)
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidIdentity;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_reads_back_as_it_was_written() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        assert_eq!(id, SpiffeId::new(TrustDomain::default(), "shop", "cart"));
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    }

    #[test]
    fn only_whole_names_that_are_listed_count_as_ours() {
        let domain = |text: &str| text.parse::<TrustDomain>().unwrap();
        let domains = TrustDomains::new(
            domain("new.example"),
            ["old.example", "new.example", "cluster.local", "old.example"].map(domain),
        );
        assert_eq!(domains.aliases(), ["old.example", "cluster.local"].map(domain));
        let own: SpiffeId = "spiffe://new.example/ns/shop/sa/cart".parse().unwrap();
        for (text, is_ours) in [
            ("new.example", true),
            ("old.example", true),
            ("cluster.local", true),
            ("an.old.example", false),
            ("old.example.com", false),
            ("old.exampl", false),
            ("old-example", false),
            ("example", false),
            ("partner.example", false),
        ] {
            let identity = SpiffeId::new(domain(text), "shop", "cart");
            assert_eq!(domains.is_ours(&domain(text)), is_ours, "{text}");
            assert_eq!((domains.normal(&identity) == own, domains.same(&identity, &own)), (is_ours, is_ours), "{text}");
            assert_eq!(domains.normal(&identity) == identity, !is_ours || text == "new.example", "{text}");
        }
        for (namespace, account) in [("shop", "stock"), ("stock", "cart")] {
            let other = SpiffeId::new(domain("old.example"), namespace, account);
            assert!(!domains.same(&other, &own), "{other}");
        }
    }

    #[test]
    fn without_aliases_nothing_is_renamed() {
        let domains = TrustDomains::from("new.example".parse::<TrustDomain>().unwrap());
        let other: SpiffeId = "spiffe://old.example/ns/shop/sa/cart".parse().unwrap();
        assert_eq!(domains.normal(&other), other);
        assert!(!domains.same(&other, &"spiffe://new.example/ns/shop/sa/cart".parse().unwrap()));
    }

    #[test]
    fn anything_but_the_exact_form_is_refused() {
        for (text, why) in [
            ("https://cluster.local/ns/a/sa/b", InvalidIdentity::Scheme),
            ("spiffe://", InvalidIdentity::Path),
            ("spiffe:///ns/a/sa/b", InvalidIdentity::TrustDomain),
            ("spiffe://Cluster.Local/ns/a/sa/b", InvalidIdentity::TrustDomain),
            ("spiffe://cluster.local:80/ns/a/sa/b", InvalidIdentity::TrustDomain),
            ("spiffe://cluster.local/ns/a/sa/b/", InvalidIdentity::Path),
            ("spiffe://cluster.local/ns//sa/b", InvalidIdentity::Path),
            ("spiffe://cluster.local/ns/../sa/b", InvalidIdentity::Path),
            ("spiffe://cluster.local/ns/a/sa/b%2f", InvalidIdentity::Path),
            ("spiffe://cluster.local/ns/a/sa/b\0", InvalidIdentity::Path),
            ("spiffe://cluster.local/ns/a/sa/b?x", InvalidIdentity::Path),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(why), "{text}");
        }
        let long = format!("spiffe://cluster.local/ns/a/sa/{}", "b".repeat(MAX_SPIFFE_ID));
        assert_eq!(long.parse::<SpiffeId>(), Err(InvalidIdentity::TooLong));
    }
}
