//! What a route may send to besides Services: each is a Service to the data plane, under a name that no Service can have.

use crate::ids::{Namespace, ServiceKey};

/// A kind of object that a route may send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendKind {
    /// A Service of the cluster.
    Service,
    /// A Service of several clusters (`multicluster.x-k8s.io`, GEP-1748).
    ServiceImport,
    /// A host outside (`gateway.networking.x-k8s.io`, GEP-4152).
    XBackend,
}

impl BackendKind {
    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceImport => "ServiceImport",
            Self::XBackend => "XBackend",
        }
    }

    /// Its group; empty for the core group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Service => "",
            Self::ServiceImport => "multicluster.x-k8s.io",
            Self::XBackend => "gateway.networking.x-k8s.io",
        }
    }

    /// The kind of a reference.
    pub fn find(group: &str, kind: &str) -> Option<Self> {
        let all = [Self::Service, Self::ServiceImport, Self::XBackend];
        all.into_iter().find(|it| it.group() == group && it.as_str() == kind)
    }
}

impl ServiceKey {
    /// The key of an object of a kind: `shop/cart`, `shop/ServiceImport:cart`. No name of an object has a colon.
    pub fn of_kind(kind: BackendKind, namespace: impl Into<Namespace>, name: &str) -> Self {
        match kind {
            BackendKind::Service => Self::new(namespace, name),
            other => Self::new(namespace, format!("{}:{name}", other.as_str())),
        }
    }

    /// The kind of the object, and its name.
    pub fn object(&self) -> (BackendKind, &str) {
        let name = self.name.as_str();
        let other = [BackendKind::ServiceImport, BackendKind::XBackend];
        let found = other.into_iter().find_map(|kind| {
            let rest = name.strip_prefix(kind.as_str())?.strip_prefix(':')?;
            Some((kind, rest))
        });
        found.unwrap_or((BackendKind::Service, name))
    }

    /// For people: `ServiceImport shop/cart`.
    pub fn described(&self) -> String {
        let (kind, name) = self.object();
        format!("{} {}/{name}", kind.as_str(), self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_of() {
        for kind in [BackendKind::Service, BackendKind::ServiceImport, BackendKind::XBackend] {
            let key = ServiceKey::of_kind(kind, "shop", "cart");
            assert_eq!(key.object(), (kind, "cart"));
            assert_eq!(key.described(), format!("{} shop/cart", kind.as_str()));
            assert_eq!(BackendKind::find(kind.group(), kind.as_str()), Some(kind));
        }
        assert_eq!(ServiceKey::new("shop", "ServiceImportcart").object().0, BackendKind::Service);
        assert_eq!(ServiceKey::new("shop", "cart").to_string(), "shop/cart");
        assert_eq!(BackendKind::find("", "ServiceImport"), None);
    }
}
