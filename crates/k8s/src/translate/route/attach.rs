//! Which listeners of a Gateway take a route (`ParentReference`, `AllowedRoutes`, and hostnames of `HTTPRouteSpec`).

use weft_core::ids::{GatewayKey, Port, RouteKey, RouteKind};
use weft_core::route::{HostnameMatch, Parent};

use super::parents::Decided;
use super::{Lookup, RouteView, text};
use crate::object::route::ParentReference;
use crate::translate::gateway::{GatewayView, ListenerView};
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

/// The Gateway that a parentRef names.
pub(super) fn gateway_key(route: &RouteKey, parent: &ParentReference) -> GatewayKey {
    GatewayKey::new(parent.namespace.as_deref().unwrap_or(route.namespace.as_str()), parent.name.as_str())
}

/// Which listeners a route gets by one of its parentRefs; `None` if the Gateway is not ours.
pub(super) fn decide(
    view: &RouteView<'_>,
    index: usize,
    reference: &ParentReference,
    lookup: &dyn Lookup,
) -> Option<Decided> {
    let field = format!("spec.parentRefs[{index}]");
    let key = gateway_key(&view.key, reference);
    let found = match lookup.gateway(&key) {
        GatewayParent::NotOurs => return None,
        GatewayParent::Missing => {
            let message = format!("Gateway {key} does not exist");
            Err(Problem::new(field, Reason::NoMatchingParent, message, "create it, or correct the parentRef"))
        }
        GatewayParent::Ours(gateway) => Attaching { view, reference, lookup, gateway, field }.listeners(),
    };
    let mut decided =
        Decided { reference: reference.clone(), parents: Vec::new(), refused: None, problems: Vec::new() };
    match found {
        Ok(listeners) => decided.parents = listeners,
        Err(problem) => {
            decided.refused = Some((problem.reason, problem.to_string()));
            decided.problems.push(problem);
        }
    }
    Some(decided)
}

/// A route on its way to the listeners of a Gateway.
struct Attaching<'a> {
    view: &'a RouteView<'a>,
    reference: &'a ParentReference,
    lookup: &'a dyn Lookup,
    gateway: &'a GatewayView,
    field: String,
}

impl Attaching<'_> {
    /// Those that take it, or why none does. What came nearest to a listener gives the reason.
    fn listeners(&self) -> Result<Vec<Parent>, Problem> {
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
            let message = format!("no listener of Gateway {} has a hostname in common with it", self.gateway.key);
            let remedy = format!("use a hostname that they cover: {}", of_listeners.join(", "));
            return Err(Problem::new("spec.hostnames", Reason::NoMatchingListenerHostname, message, remedy));
        }
        let parent = |listener: &ListenerView| Parent::Listener {
            gateway: self.gateway.key.clone(),
            listener: listener.name.clone(),
        };
        Ok(taking.into_iter().map(parent).collect())
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
        let (gateway, key) = (self.gateway, &self.gateway.key);
        if let Some(problem) = &gateway.refused {
            let remedy = format!("correct Gateway {key}");
            return refuse("", format!("Gateway {key} is not accepted: {problem}"), remedy);
        }
        let known = || gateway.listeners.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        let mut named: Vec<&ListenerView> = gateway.listeners.iter().collect();
        if let Some(section) = &self.reference.section_name {
            named.retain(|listener| listener.name.as_str() == section);
            if named.is_empty() {
                let message = format!("Gateway {key} has no listener named {section:?}");
                return refuse(".sectionName", message, format!("use one of its listeners: {}", known()));
            }
        }
        if let Some(number) = self.reference.port {
            let wanted = u16::try_from(number).ok().and_then(Port::new);
            named.retain(|listener| wanted.is_some() && listener.port == wanted);
            if named.is_empty() {
                let message = format!("Gateway {key} has no such listener on port {number}");
                return refuse(".port", message, format!("listeners of the Gateway: {}", known()));
            }
        }
        let wrong = named.iter().find_map(|listener| listener.refused.as_ref().or(listener.conflict.as_ref())).cloned();
        named.retain(|listener| listener.takes_routes());
        match wrong {
            Some(problem) if named.is_empty() => {
                let message = format!("no listener of Gateway {key} that it names is accepted: {problem}");
                refuse("", message, format!("correct Gateway {key}"))
            }
            _ => Ok(named),
        }
    }

    fn allows(&self, listener: &ListenerView) -> bool {
        let route = &self.view.key;
        let labels = self.lookup.namespace_labels(&route.namespace);
        listener.kinds.contains(&route.kind)
            && listener.namespaces.allow(&self.gateway.key.namespace, &route.namespace, labels)
    }

    fn not_allowed(&self, named: &[&ListenerView]) -> Problem {
        let (route, key) = (&self.view.key, &self.gateway.key);
        let takes_kind = named.iter().any(|listener| listener.kinds.contains(&route.kind));
        let (message, remedy) = if takes_kind {
            let message = format!("no listener of Gateway {key} takes routes of namespace {}", route.namespace);
            (message, "allow it in allowedRoutes.namespaces of the listener")
        } else {
            let message = format!("no listener of Gateway {key} that it names takes a {}", route.kind.as_str());
            (message, "attach it to a listener of its protocol, or allow the kind in allowedRoutes.kinds")
        };
        Problem::new(&self.field, Reason::NotAllowedByListeners, message, remedy)
    }
}
