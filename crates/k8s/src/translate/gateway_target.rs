//! targetRefs of AuthorizationPolicies to Gateways, ListenerSets and their listeners.
//!
//! - `Gateway`: all its listeners, also those of ListenerSets; with a sectionName the one of its own with that name.
//! - `ListenerSet`: all that it adds; with a sectionName that one.
//!
//! They are of the policy's own namespace (GEP-713).

use weft_core::ids::{GatewayKey, ListenerKey, ListenerSetKey, Namespace, SectionName};
use weft_core::policy::AuthorizationPolicy;

use super::authz::looks_at_http;
use super::gateway::{GatewayView, ListenerView};
use super::{Problem, Reason};
use crate::object::policy::TargetRef;
use crate::object::{GATEWAY_GROUP, Kind};

/// Some listeners of a Gateway or a ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayTarget {
    /// Whose.
    pub holder: ListenerHolder,
    /// The one of this name; `None`: all.
    pub section: Option<SectionName>,
}

/// What has listeners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerHolder {
    /// A Gateway.
    Gateway(GatewayKey),
    /// A ListenerSet.
    Set(ListenerSetKey),
}

impl GatewayTarget {
    /// Whether a kind of target is one of these.
    pub fn is_kind(kind: &str) -> bool {
        [Kind::Gateway, Kind::ListenerSet].iter().any(|it| it.as_str() == kind)
    }

    /// Reads a target of one of the kinds.
    ///
    /// # Errors
    /// What can't be understood.
    pub(super) fn read(namespace: &Namespace, target: &TargetRef, field: &str) -> Result<Self, Problem> {
        let invalid = |part: &str, message: String, remedy: &str| {
            Err(Problem::new(format!("{field}{part}"), Reason::Invalid, message, remedy))
        };
        if target.group != GATEWAY_GROUP {
            let message = format!("{:?} has no {}", target.group, target.kind);
            return invalid(".group", message, "write gateway.networking.k8s.io");
        }
        if target.selector.is_some() {
            return invalid(".selector", "is set for another kind than Pod".into(), "remove it");
        }
        if target.namespace.is_some() {
            let remedy = format!("remove it, and put the policy into the namespace of the {}", target.kind);
            return invalid(".namespace", format!("is set for kind {}", target.kind), &remedy);
        }
        let Some(name) = target.name.as_deref().filter(|name| !name.is_empty()) else {
            return invalid(".name", "is missing".into(), "name the target");
        };
        let section = target.section_name.as_deref().map(SectionName::new);
        if section.as_ref().is_some_and(|section| section.as_str().is_empty()) {
            return invalid(".sectionName", "is empty".into(), "name a listener, or remove it to mean all");
        }
        let holder = if target.kind == Kind::Gateway.as_str() {
            ListenerHolder::Gateway(GatewayKey::new(namespace.clone(), name))
        } else {
            ListenerHolder::Set(ListenerSetKey::new(namespace.clone(), name))
        };
        Ok(Self { holder, section })
    }

    /// What is guarded instead of a target that can't be read and was meant for listeners: all of the Gateway or the
    /// ListenerSet that it names, however it writes their kind. None if it names none.
    pub(super) fn meant(namespace: &Namespace, target: &TargetRef) -> Option<Self> {
        let name = target.name.as_deref().filter(|name| !name.is_empty())?;
        let holder = if target.kind.eq_ignore_ascii_case(Kind::Gateway.as_str()) {
            ListenerHolder::Gateway(GatewayKey::new(namespace.clone(), name))
        } else if target.kind.eq_ignore_ascii_case(Kind::ListenerSet.as_str()) {
            ListenerHolder::Set(ListenerSetKey::new(namespace.clone(), name))
        } else {
            return None;
        };
        Some(Self { holder, section: None })
    }

    /// Whether a listener is among them.
    pub fn covers(&self, listener: &ListenerKey) -> bool {
        let name = || self.section.as_ref().is_none_or(|section| *section == listener.name);
        match (&self.holder, &listener.set) {
            (ListenerHolder::Gateway(gateway), None) => *gateway == listener.gateway && name(),
            // A name alone doesn't say whose listener of that name is meant: the Gateway's own is.
            (ListenerHolder::Gateway(gateway), Some(_)) => *gateway == listener.gateway && self.section.is_none(),
            (ListenerHolder::Set(set), Some(of)) => set == of && name(),
            (ListenerHolder::Set(_), None) => false,
        }
    }

    /// Those of a Gateway that are among them.
    pub fn listeners<'a>(&'a self, view: &'a GatewayView) -> impl Iterator<Item = &'a ListenerView> {
        view.listeners.iter().filter(|listener| self.covers(&listener.key(&view.key)))
    }
}

/// What a policy can't judge at some listeners, and what becomes of that; `None`: it can judge everything.
pub fn blind_spots<'a>(
    policy: &AuthorizationPolicy,
    listeners: impl Iterator<Item = &'a ListenerView>,
) -> Option<String> {
    use weft_core::policy::Action;
    let mut said = Vec::new();
    let mut operations = policy.rules.iter().flat_map(|rule| &rule.to);
    if operations.any(looks_at_http) {
        let bytes = |listener: &&ListenerView| !matches!(listener.protocol.as_str(), "HTTP" | "HTTPS");
        let names: Vec<_> = listeners.filter(bytes).map(|it| format!("{} ({})", it.name, it.protocol)).collect();
        let effect = match policy.action {
            Action::Allow => "nothing there is allowed by these rules",
            Action::Deny => "everything there that matches the rest of the rule is denied",
            Action::Audit => "nothing there is audited",
        };
        if !names.is_empty() {
            said.push(format!(
                "the rules ask about HTTP, and these listeners relay bytes: {}; {effect}",
                names.join(", ")
            ));
        }
    }
    let mut sources = policy.rules.iter().flat_map(|rule| &rule.from);
    if sources.any(|source| !source.identities.is_empty() || !source.namespaces.is_empty()) {
        said.push(
            "clients from outside the mesh have no identity: identities and namespaces in from match none of them"
                .into(),
        );
    }
    (!said.is_empty()).then(|| said.join(". "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_of_the_policys_own_namespace_and_names_none() {
        for kind in ["Gateway", "ListenerSet"] {
            let target = TargetRef {
                group: GATEWAY_GROUP.into(),
                kind: kind.into(),
                name: Some("gw".into()),
                namespace: Some("edge".into()),
                ..TargetRef::default()
            };
            let problem = GatewayTarget::read(&"edge".into(), &target, "spec.targetRefs[0]").unwrap_err();
            assert_eq!((problem.field.as_str(), problem.reason), ("spec.targetRefs[0].namespace", Reason::Invalid));
            assert!(problem.message.contains(kind) && !problem.remedy.is_empty(), "{problem}");
        }
    }

    #[test]
    fn a_target_covers_its_own_listeners() {
        let gateway = GatewayKey::new("edge", "gw");
        let own = ListenerKey::new(gateway.clone(), "http");
        let of_set = ListenerKey::of_set(gateway, ListenerSetKey::new("edge", "more"), "http");
        let covers = |kind: &str, name: &str, section: Option<&str>| {
            let target = TargetRef {
                group: GATEWAY_GROUP.into(),
                kind: kind.into(),
                name: Some(name.into()),
                section_name: section.map(Into::into),
                ..TargetRef::default()
            };
            let target = GatewayTarget::read(&"edge".into(), &target, "").unwrap();
            (target.covers(&own), target.covers(&of_set))
        };
        assert_eq!(covers("Gateway", "gw", None), (true, true));
        assert_eq!(covers("Gateway", "gw", Some("http")), (true, false), "the Gateway's own of that name");
        assert_eq!(covers("Gateway", "gw", Some("https")), (false, false));
        assert_eq!(covers("Gateway", "other", None), (false, false));
        assert_eq!(covers("ListenerSet", "more", None), (false, true));
        assert_eq!(covers("ListenerSet", "more", Some("http")), (false, true));
        assert_eq!(covers("ListenerSet", "more", Some("https")), (false, false));
        assert_eq!(covers("ListenerSet", "gw", None), (false, false));
    }
}
