//! Which listeners of a Gateway take a route (`ParentReference`, `AllowedRoutes`, and hostnames of `HTTPRouteSpec`).

use weft_core::ids::{GatewayKey, ListenerKey, ListenerSetKey, Port, RouteKey, RouteKind};
use weft_core::route::{HostnameMatch, Parent};

use super::parents::Decided;
use super::{Lookup, RouteView, text};
use crate::object::route::ParentReference;
use crate::translate::gateway::{GatewayView, ListenerView, SetView};
use crate::translate::{Problem, Reason};

/// What a Gateway is to its routes.
#[derive(Clone, Copy, Debug)]
pub enum GatewayParent<'a> {
    /// Served by others, or not here: nothing is said of it.
    NotOurs,
    /// There is none.
    Missing,
    /// One of ours.
    Ours(&'a GatewayView),
}

/// What a ListenerSet is to its routes.
#[derive(Clone, Copy, Debug)]
pub enum SetParent<'a> {
    /// Of a Gateway that others serve, or of none: nothing is said of it.
    NotOurs,
    /// There is none.
    Missing,
    /// Of one of our Gateways.
    Ours(&'a GatewayView, &'a SetView),
}

/// What an HTTPRoute or GRPCRoute asks listeners for: one host of one listener has routes of one of the two kinds.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// When the route was made, in seconds since the Unix epoch.
    pub created: i64,
    /// The listeners that would take it, each with the hosts; none means all that the listener has.
    pub listeners: Vec<(ListenerKey, Vec<HostnameMatch>)>,
}

/// What a route asks listeners for; `None` if it is of another kind.
pub fn asking(view: &RouteView<'_>, lookup: &dyn Lookup) -> Option<Asking> {
    if !matches!(view.key.kind, RouteKind::Http | RouteKind::Grpc) {
        return None;
    }
    let mut listeners: Vec<(ListenerKey, Vec<HostnameMatch>)> = Vec::new();
    let mut ask = |gateway: &GatewayView, taking: Result<Vec<&ListenerView>, Problem>, hostnames: &[HostnameMatch]| {
        for listener in taking.into_iter().flatten() {
            let key = listener.key(&gateway.key);
            if listeners.iter().all(|(known, _)| *known != key) {
                let of_listener =
                    |host: &&HostnameMatch| listener.hostname.as_ref().is_none_or(|own| own.intersects(host));
                listeners.push((key, hostnames.iter().filter(of_listener).cloned().collect()));
            }
        }
    };
    for reference in view.parent_refs.iter().filter(|it| it.is_gateway() || it.is_listener_set()) {
        let found = match reference.is_listener_set() {
            true => match lookup.listener_set(&set_key(&view.key, reference)) {
                SetParent::Ours(gateway, set) => Some((gateway, Some(set))),
                _ => None,
            },
            false => match lookup.gateway(&gateway_key(&view.key, reference)) {
                GatewayParent::Ours(gateway) => Some((gateway, None)),
                _ => None,
            },
        };
        if let Some((gateway, set)) = found {
            let attaching = Attaching { view, reference, lookup, gateway, set, field: "" };
            ask(gateway, attaching.taking(), &attaching.hostnames().unwrap_or_default());
        }
    }
    if view.uses_defaults {
        let reference = ParentReference::default();
        for gateway in lookup.default_gateways() {
            let attaching = Attaching { view, reference: &reference, lookup, gateway, set: None, field: "" };
            ask(gateway, attaching.taking(), &attaching.hostnames().unwrap_or_default());
        }
    }
    Some(Asking { created: view.created.unix_seconds, listeners })
}

/// The ListenerSet that a parentRef names.
pub(super) fn set_key(route: &RouteKey, parent: &ParentReference) -> ListenerSetKey {
    ListenerSetKey::new(parent.namespace.as_deref().unwrap_or(route.namespace.as_str()), parent.name.as_str())
}

/// The Gateway that a parentRef names.
pub(super) fn gateway_key(route: &RouteKey, parent: &ParentReference) -> GatewayKey {
    GatewayKey::new(parent.namespace.as_deref().unwrap_or(route.namespace.as_str()), parent.name.as_str())
}

/// Which listeners a route gets by one of its parentRefs, to a Gateway or a ListenerSet; `None` if that is not ours.
pub(super) fn decide(
    view: &RouteView<'_>,
    index: usize,
    reference: &ParentReference,
    lookup: &dyn Lookup,
) -> Option<Decided> {
    let field = format!("spec.parentRefs[{index}]");
    let missing = |what: String| {
        let message = format!("{what} does not exist");
        Err(Problem::new(field.as_str(), Reason::NoMatchingParent, message, "create it, or correct the parentRef"))
    };
    let attach = |gateway, set| Attaching { view, reference, lookup, gateway, set, field: &field }.listeners();
    let found = if reference.is_listener_set() {
        let key = set_key(&view.key, reference);
        match lookup.listener_set(&key) {
            SetParent::NotOurs => return None,
            SetParent::Missing => missing(format!("ListenerSet {key}")),
            SetParent::Ours(gateway, set) => attach(gateway, Some(set)),
        }
    } else {
        let key = gateway_key(&view.key, reference);
        match lookup.gateway(&key) {
            GatewayParent::NotOurs => return None,
            GatewayParent::Missing => missing(format!("Gateway {key}")),
            GatewayParent::Ours(gateway) => attach(gateway, None),
        }
    };
    Some(decided(reference, found))
}

/// Which listeners a route gets that asks for default Gateways, at those that it doesn't name as parents (GEP-3793). Of
/// Gateways that take no such routes nothing is said: they are not meant.
pub(super) fn decide_defaults(view: &RouteView<'_>, lookup: &dyn Lookup) -> Vec<Decided> {
    let named: Vec<_> = view.parent_gateways().collect();
    let others = lookup.default_gateways().into_iter().filter(|gateway| !named.contains(&gateway.key));
    let each = others.filter_map(|gateway| {
        let reference = ParentReference {
            namespace: Some(gateway.key.namespace.to_string()),
            name: gateway.key.name.to_string(),
            ..ParentReference::default()
        };
        let field = "spec.useDefaultGateways";
        let found = Attaching { view, reference: &reference, lookup, gateway, set: None, field }.listeners();
        let is_meant = !matches!(&found, Err(problem) if problem.reason == Reason::NotAllowedByListeners);
        is_meant.then(|| decided(&reference, found))
    });
    each.collect()
}

fn decided(reference: &ParentReference, found: Result<Vec<Parent>, Problem>) -> Decided {
    let mut decided =
        Decided { reference: reference.clone(), parents: Vec::new(), refused: None, problems: Vec::new() };
    match found {
        Ok(listeners) => decided.parents = listeners,
        Err(problem) => {
            decided.refused = Some((problem.reason, problem.to_string()));
            decided.problems.push(problem);
        }
    }
    decided
}

/// A route on its way to the listeners that a Gateway or a ListenerSet holds.
struct Attaching<'a> {
    view: &'a RouteView<'a>,
    reference: &'a ParentReference,
    lookup: &'a dyn Lookup,
    gateway: &'a GatewayView,
    /// The ListenerSet, if its parent is none of the Gateway's own listeners.
    set: Option<&'a SetView>,
    field: &'a str,
}

impl Attaching<'_> {
    /// Those that it gets, or why it gets none.
    fn listeners(&self) -> Result<Vec<Parent>, Problem> {
        let taking: Vec<_> = self.taking()?.into_iter().map(|listener| listener.key(&self.gateway.key)).collect();
        let route = &self.view.key;
        let ahead = taking.iter().find_map(|listener| self.lookup.ahead(listener, route)).cloned();
        let free = taking.into_iter().filter(|listener| self.lookup.ahead(listener, route).is_none());
        let got: Vec<_> = free.map(Parent::Listener).collect();
        match ahead {
            Some(other) if got.is_empty() => {
                let message = format!("{other} is older, or comes first, and has hostnames in common with it");
                let remedy =
                    "a host of a listener has HTTPRoutes or GRPCRoutes: use other hostnames, or one kind of route";
                Err(Problem::new("spec.hostnames", Reason::Conflicted, message, remedy))
            }
            _ => Ok(got),
        }
    }

    /// Those that take it, or why none does. What came nearest to a listener gives the reason.
    fn taking(&self) -> Result<Vec<&ListenerView>, Problem> {
        let hostnames = self.hostnames()?;
        let named = self.named()?;
        let allowing: Vec<_> = named.iter().copied().filter(|listener| self.allows(listener)).collect();
        if allowing.is_empty() {
            return Err(self.not_allowed(&named));
        }
        let shares = |listener: &&ListenerView| match &listener.hostname {
            Some(own) => hostnames.is_empty() || hostnames.iter().any(|hostname| own.intersects(hostname)),
            None => true,
        };
        let taking: Vec<_> = allowing.iter().copied().filter(shares).collect();
        if taking.is_empty() {
            let of_listeners: Vec<_> =
                allowing.iter().filter_map(|it| it.hostname.as_ref()).map(ToString::to_string).collect();
            let message = format!("no listener of {} has a hostname in common with it", self.holder());
            let remedy = format!("use a hostname that they cover: {}", of_listeners.join(", "));
            return Err(Problem::new("spec.hostnames", Reason::NoMatchingListenerHostname, message, remedy));
        }
        Ok(taking)
    }

    /// The hostnames of the route; none means any. Ones that can't be read must not turn into that.
    fn hostnames(&self) -> Result<Vec<HostnameMatch>, Problem> {
        let with_names = matches!(self.view.key.kind, RouteKind::Http | RouteKind::Grpc | RouteKind::Tls);
        let texts = if with_names { self.view.hostnames } else { &[] };
        let names: Vec<_> = texts.iter().filter_map(|text| text::hostname(text)).collect();
        if names.is_empty() && !texts.is_empty() {
            let remedy = "use lower-case DNS names, or ones whose first label is *";
            return Err(Problem::value("spec.hostnames", "none of them is a hostname", remedy));
        }
        Ok(names)
    }

    /// The listeners that `sectionName` and `port` leave, of those that take routes.
    fn named(&self) -> Result<Vec<&ListenerView>, Problem> {
        let refuse = |part: &str, message: String, remedy: String| {
            Err(Problem::new(format!("{}{part}", self.field), Reason::NoMatchingParent, message, remedy))
        };
        let (gateway, key, holder) = (self.gateway, &self.gateway.key, self.holder());
        if let Some(problem) = self.set.and_then(|set| set.refused.as_ref()) {
            let remedy = format!("correct {holder}, or allow it at Gateway {key}");
            return refuse("", format!("{holder} is not accepted: {problem}"), remedy);
        }
        if let Some(problem) = &gateway.refused {
            let remedy = format!("correct Gateway {key}");
            return refuse("", format!("Gateway {key} is not accepted: {problem}"), remedy);
        }
        // A Gateway as parent is its own listeners: those of a ListenerSet are had by naming that.
        let held = self.set.map_or_else(|| gateway.own(), |set| set.listeners(gateway));
        let known = || held.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut named: Vec<&ListenerView> = held.iter().collect();
        if let Some(section) = &self.reference.section_name {
            named.retain(|listener| listener.name.as_str() == section);
            if named.is_empty() {
                let message = format!("{holder} has no listener named {section:?}");
                return refuse(".sectionName", message, format!("use one of its listeners: {}", known()));
            }
        }
        if let Some(number) = self.reference.port {
            let wanted = u16::try_from(number).ok().and_then(Port::new);
            named.retain(|listener| wanted.is_some() && listener.port == wanted);
            if named.is_empty() {
                let message = format!("{holder} has no such listener on port {number}");
                return refuse(".port", message, format!("its listeners: {}", known()));
            }
        }
        let wrong = named.iter().find_map(|listener| listener.refused.as_ref().or(listener.conflict.as_ref())).cloned();
        named.retain(|listener| listener.takes_routes());
        match wrong {
            Some(problem) if named.is_empty() => {
                let message = format!("no listener of {holder} that it names is accepted: {problem}");
                refuse("", message, format!("correct {holder}"))
            }
            _ => Ok(named),
        }
    }

    fn allows(&self, listener: &ListenerView) -> bool {
        let route = &self.view.key;
        let labels = self.lookup.namespace_labels(&route.namespace);
        listener.kinds.contains(&route.kind) && listener.namespaces.allow(&listener.namespace, &route.namespace, labels)
    }

    /// What holds the listeners, for people.
    fn holder(&self) -> String {
        match self.set {
            Some(set) => format!("ListenerSet {}", set.key),
            None => format!("Gateway {}", self.gateway.key),
        }
    }

    fn not_allowed(&self, named: &[&ListenerView]) -> Problem {
        let (route, holder) = (&self.view.key, self.holder());
        let takes_kind = named.iter().any(|listener| listener.kinds.contains(&route.kind));
        let (message, remedy) = if takes_kind {
            let message = format!("no listener of {holder} takes routes of namespace {}", route.namespace);
            (message, "allow it in allowedRoutes.namespaces of the listener")
        } else {
            let message = format!("no listener of {holder} that it names takes a {}", route.kind.as_str());
            (message, "attach it to a listener of its protocol, or allow the kind in allowedRoutes.kinds")
        };
        Problem::new(self.field, Reason::NotAllowedByListeners, message, remedy)
    }
}
