//! ListenerSets: listeners of a Gateway that others hold (GEP-1713).

use std::collections::BTreeMap;
use std::ops::Range;

use gateway_api::experimental::gateways::GatewayAllowedListenersNamespacesFrom as From;
use gateway_api::experimental::listenersets::ListenerSet;
use weft_core::gateway::Certificate;
use weft_core::ids::{CertificateKey, GatewayKey, ListenerSetKey};

use super::certificate::Holder;
use super::{AllowedNamespaces, GatewayView, ListenerView, Lookup, Served, listener, spec, status};
use crate::object::{Condition, ConditionType, Gateway, ListenerSetStatus, ListenerStatus, created_seconds};
use crate::translate::{Problem, Reason, labels, summary};

/// A ListenerSet that wants to be attached to a Gateway. Its listeners are among those of the [`GatewayView`].
#[derive(Clone, Debug, PartialEq)]
pub struct SetView {
    /// Its key.
    pub key: ListenerSetKey,
    /// `metadata.generation`
    pub generation: i64,
    /// Which incarnation; empty where there are none. One made anew under its name has to be told its status.
    pub uid: String,
    /// Why it isn't attached: the Gateway doesn't allow it.
    pub refused: Option<Problem>,
    /// Where its listeners are among those of the Gateway; nowhere unless it is attached.
    places: Range<usize>,
}

/// The key of a ListenerSet.
pub fn set_key(set: &ListenerSet) -> ListenerSetKey {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("default");
    ListenerSetKey::new(namespace, set.metadata.name.as_deref().unwrap_or_default())
}

/// The Gateway that a ListenerSet names, if it names one.
pub fn parent_of_set(set: &ListenerSet) -> Option<GatewayKey> {
    let parent = &set.spec.parent_ref;
    let group = parent.group.as_deref().unwrap_or(crate::object::GATEWAY_GROUP);
    let is_gateway = group == crate::object::GATEWAY_GROUP && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway";
    let own = set.metadata.namespace.as_deref().unwrap_or("default");
    is_gateway.then(|| GatewayKey::new(parent.namespace.as_deref().unwrap_or(own), parent.name.as_str()))
}

/// The sets of a Gateway in the order of precedence, older ones first. Their listeners are added to its own.
pub(super) fn attach(
    gateway: &Gateway,
    key: &GatewayKey,
    lookup: &dyn Lookup,
    listeners: &mut Vec<ListenerView>,
    certificates: &mut BTreeMap<CertificateKey, Certificate>,
) -> Vec<SetView> {
    let mut sets = lookup.listener_sets(key);
    sets.sort_by_cached_key(|set| (created_seconds(&set.metadata), set_key(set)));
    let (allowed, why) = allowed(gateway);
    let mut views = Vec::with_capacity(sets.len());
    for set in sets {
        let start = listeners.len();
        let own = set_key(set);
        let labels = lookup.namespace_labels(&own.namespace);
        let refused = (!allowed.allow(&key.namespace, &own.namespace, labels)).then(|| not_allowed(key, &own, &why));
        if refused.is_none() {
            let holder = Holder { gateway: key, set: Some(&own) };
            let entries = set.spec.listeners.iter().enumerate();
            listeners.extend(
                entries.map(|(i, it)| listener::listener(holder, i, &spec::listener(it), lookup, certificates)),
            );
        }
        let (generation, places) = (set.metadata.generation.unwrap_or(0), start..listeners.len());
        let uid = set.metadata.uid.clone().unwrap_or_default();
        views.push(SetView { key: own, generation, uid, refused, places });
    }
    views
}

fn not_allowed(gateway: &GatewayKey, set: &ListenerSetKey, why: &str) -> Problem {
    let message = format!("Gateway {gateway} takes no ListenerSets of namespace {}{why}", set.namespace);
    Problem::new("spec.parentRef", Reason::NotAllowed, message, "allow it in spec.allowedListeners of the Gateway")
}

/// `spec.allowedListeners`, with what is wrong with it. Nothing said means none.
fn allowed(gateway: &Gateway) -> (AllowedNamespaces, String) {
    let spec = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let from = spec.and_then(|spec| spec.from.as_ref()).unwrap_or(&From::None);
    let found = match from {
        From::None => AllowedNamespaces::None,
        From::Same => AllowedNamespaces::Same,
        From::All => AllowedNamespaces::All,
        From::Selector => {
            let field = "spec.allowedListeners.namespaces.selector";
            let Some(selector) = spec.and_then(|spec| spec.selector.as_ref()) else {
                return (AllowedNamespaces::None, format!(": its {field} is missing"));
            };
            let selector = spec::selector_of_sets(selector);
            if let Some(problem) = labels::check(field, &selector) {
                return (AllowedNamespaces::None, format!(": {problem}"));
            }
            AllowedNamespaces::Selector(Box::new(selector))
        }
    };
    (found, String::new())
}

impl SetView {
    /// Its listeners; none unless it is attached.
    pub fn listeners<'a>(&self, gateway: &'a GatewayView) -> &'a [ListenerView] {
        gateway.listeners.get(self.places.clone()).unwrap_or_default()
    }

    /// Whether it is accepted: attached to a Gateway that is, with a listener that is served.
    pub fn is_accepted(&self, gateway: &GatewayView) -> bool {
        self.refused.is_none()
            && gateway.is_accepted()
            && self.listeners(gateway).iter().any(ListenerView::is_programmed)
    }

    /// All that is wrong with it.
    pub fn problems<'a>(&'a self, gateway: &'a GatewayView) -> impl Iterator<Item = &'a Problem> {
        let of_listeners = self.listeners(gateway).iter().flat_map(ListenerView::problems);
        self.refused.iter().chain(of_listeners)
    }
}

/// The status of a ListenerSet; `attached` says how many routes each listener has.
pub fn set_status(
    set: &SetView,
    gateway: &GatewayView,
    served: &Served<'_>,
    attached: impl Fn(&ListenerView) -> usize,
) -> ListenerSetStatus {
    let both = |reason: &str, of_programmed: &str, message: &str| {
        let accepted = Condition::new(ConditionType::Accepted, false, reason, message);
        vec![accepted, Condition::new(ConditionType::GatewayProgrammed, false, of_programmed, message)]
    };
    if let Some(problem) = &set.refused {
        let reason = problem.reason.as_str();
        return ListenerSetStatus { conditions: both(reason, reason, &problem.to_string()), listeners: Vec::new() };
    }
    let conditions = if !gateway.is_accepted() {
        both("ParentNotAccepted", "ParentNotProgrammed", &format!("Gateway {} is not accepted", gateway.key))
    } else if set.is_accepted(gateway) {
        accepted(set, gateway, served)
    } else {
        let problems = summary(set.problems(gateway));
        both("ListenersNotValid", "ListenersNotValid", &format!("No listener can be served. {problems}"))
    };
    let whole = gateway.refused.is_none();
    let listeners = set.listeners(gateway).iter().map(|it| ListenerStatus {
        name: it.name.to_string(),
        supported_kinds: it.kinds.clone(),
        attached_routes: if whole { attached(it) } else { 0 },
        conditions: status::listener_conditions(it, &gateway.key, whole, served),
    });
    ListenerSetStatus { conditions, listeners: listeners.collect() }
}

fn accepted(set: &SetView, gateway: &GatewayView, served: &Served<'_>) -> Vec<Condition> {
    let invalid: Vec<_> = set.listeners(gateway).iter().filter(|it| !it.is_programmed()).collect();
    let (reason, message) = if invalid.is_empty() {
        ("Accepted", "The ListenerSet is attached".to_owned())
    } else {
        let names = invalid.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        let why = summary(invalid.iter().flat_map(|it| it.problems()));
        ("ListenersNotValid", format!("Not served: listeners {names}. {why}"))
    };
    let mut programmed = status::programmed(gateway, served);
    if !programmed.status {
        programmed.message = format!("Gateway {}: {}: {}", gateway.key, programmed.reason, programmed.message);
        programmed.reason = "ParentNotProgrammed".to_owned();
    } else if let Some((reason, message)) = status::all_refused(set.listeners(gateway).iter(), &gateway.key, served) {
        programmed = Condition::new(ConditionType::GatewayProgrammed, false, reason, message);
    }
    vec![Condition::new(ConditionType::Accepted, true, reason, message), programmed]
}
