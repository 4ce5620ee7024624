//! Where objects are.

/// `("/apis/apps/v1", "deployments", "shop", "cart")`; the namespace is empty for objects of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) plural: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    /// Whether an object belongs to this collection.
    pub(crate) fn holds(&self, key: &Self) -> bool {
        self.group == key.group
            && self.plural == key.plural
            && (self.namespace.is_empty() || self.namespace == key.namespace)
    }
}

/// A path's key and subresource; the name is empty for a collection.
pub(crate) fn parse(path: &str) -> Option<(Key, Option<String>)> {
    let steps: Vec<_> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match steps.as_slice() {
        ["api", version, rest @ ..] => (format!("/api/{version}"), rest),
        ["apis", group, version, rest @ ..] => (format!("/apis/{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest[0] != "status" => (*namespace, rest),
        _ => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (*plural, "", None),
        [plural, name] => (*plural, *name, None),
        [plural, name, subresource] => (*plural, *name, Some((*subresource).to_owned())),
        _ => return None,
    };
    let key = Key { group, plural: plural.into(), namespace: namespace.into(), name: name.into() };
    Some((key, subresource))
}
