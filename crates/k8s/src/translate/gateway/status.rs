//! What a Gateway's status says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_core::ids::{GatewayKey, ListenerKey};

use super::{GatewayView, Http3, ListenerView, Unmade};
use crate::object::{Condition, ConditionType, GatewayAddress, GatewayServiceType, GatewayStatus, ListenerStatus};
use crate::translate::{Reason, summary};

/// Who serves a Gateway, and how far that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served<'a> {
    /// This machine.
    ByMachine(OnMachine<'a>),
    /// Pods of its own.
    ByPods(InCluster),
}

/// How far a Gateway is served by the proxy of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnMachine<'a> {
    /// The addresses that clients reach the machine at.
    pub addresses: &'a [IpAddr],
    /// Listeners that the proxy has not bound as they are now, and why; `None` as long as it hasn't come so far.
    pub unbound: Option<BTreeMap<ListenerKey, String>>,
}

/// How far a Gateway is served by pods of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InCluster {
    /// The addresses that its Services have been given.
    pub addresses: Vec<GatewayAddress>,
    /// Of those that it asks for and hasn't been given, the ones that another Gateway has been.
    pub elsewhere: BTreeMap<IpAddr, GatewayKey>,
    /// Listeners that no pod has bound as they are now, and why; `None` as long as no pod has come so far.
    pub unbound: Option<BTreeMap<ListenerKey, String>>,
    /// One of its objects that can't be made.
    pub unmade: Option<Unmade>,
}

impl InCluster {
    /// The addresses of `requested` that haven't been given.
    pub fn missing<'a>(&self, requested: &'a [IpAddr]) -> impl Iterator<Item = &'a IpAddr> {
        requested.iter().filter(move |ip| !self.addresses.contains(&GatewayAddress::Ip(**ip)))
    }
}

impl Served<'_> {
    /// Listeners that nobody has bound as they are now, and why; `None` as long as nobody has come so far.
    const fn unbound(&self) -> Option<&BTreeMap<ListenerKey, String>> {
        match self {
            Self::ByMachine(machine) => machine.unbound.as_ref(),
            Self::ByPods(pods) => pods.unbound.as_ref(),
        }
    }

    const fn words(&self) -> &'static Words {
        match self {
            Self::ByMachine(_) => &OF_MACHINE,
            Self::ByPods(_) => &OF_PODS,
        }
    }
}

/// What is said of whoever is to listen.
struct Words {
    listens: &'static str,
    waits: &'static str,
    /// Nothing of several listeners can be bound.
    all_refused: &'static str,
    /// One can't be.
    one_refused: &'static str,
    /// Reason of what can't be bound, or is not taken. The API has no word for it.
    refused: &'static str,
}

const OF_MACHINE: Words = Words {
    listens: "The proxy of this machine listens, with the configuration as it is now",
    waits: "The proxy of this machine doesn't listen yet with the configuration as it is now",
    all_refused: "The proxy of this machine can't bind what it is to serve; it tries again",
    one_refused: "The proxy of this machine can't bind it; it tries again",
    refused: "RefusedByProxy",
};
const OF_PODS: Words = Words {
    listens: "A pod of it listens, with the configuration as it is now",
    waits: "No pod of it listens yet with the configuration as it is now",
    all_refused: "No pod of it can bind what it is to serve; they try again",
    one_refused: "No pod can bind it; they try again",
    refused: "RefusedByPod",
};
const FROZEN: &str = "What serves it is not made while it is not accepted";

/// The status of a Gateway; `attached` says how many routes each listener has.
pub fn status(view: &GatewayView, served: &Served<'_>, attached: impl Fn(&ListenerView) -> usize) -> GatewayStatus {
    let whole = view.refused.is_none();
    let listeners = view.own().iter().map(|it| ListenerStatus {
        name: it.name.to_string(),
        supported_kinds: it.kinds.clone(),
        attached_routes: if whole { attached(it) } else { 0 },
        conditions: listener_conditions(it, &view.key, whole, served),
    });
    let listeners = listeners.collect();
    let mut conditions = vec![accepted(view), programmed(view, served), resolved(view)];
    conditions.extend(view.insecure_frontend.then(insecure));
    let sets = view.sets.iter().filter(|set| set.is_accepted(view)).count();
    let addresses = match served {
        Served::ByMachine(_) if !can_be_served(view, served) => Vec::new(),
        Served::ByMachine(machine) => {
            let addresses = if view.requested.is_empty() { machine.addresses } else { view.requested.as_slice() };
            addresses.iter().copied().map(GatewayAddress::Ip).collect()
        }
        Served::ByPods(_) if !whole => Vec::new(),
        // An address is there before the pods are, and what is under way to a name is set up by it.
        Served::ByPods(pods) => {
            let asked_for = |given: &&GatewayAddress| view.requested.is_empty() || is_asked_for(&view.requested, given);
            pods.addresses.iter().filter(asked_for).cloned().collect()
        }
    };
    GatewayStatus { addresses, conditions, listeners, attached_listener_sets: sets }
}

fn is_asked_for(requested: &[IpAddr], given: &GatewayAddress) -> bool {
    matches!(given, GatewayAddress::Ip(ip) if requested.contains(ip))
}

fn names<'a>(listeners: impl Iterator<Item = &'a ListenerView>) -> String {
    listeners.map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn accepted(view: &GatewayView) -> Condition {
    if let Some(problem) = view.refused.as_ref().or(view.frozen.as_ref()) {
        // The API has no word for a value of a Gateway's that isn't supported.
        let reason = match problem.reason {
            Reason::UnsupportedValue => "Invalid",
            other => other.as_str(),
        };
        return Condition::new(ConditionType::Accepted, false, reason, problem.to_string());
    }
    let invalid: Vec<_> = view.own().iter().filter(|it| !it.takes_routes()).collect();
    if invalid.is_empty() {
        return Condition::new(ConditionType::Accepted, true, "Accepted", "The Gateway is understood");
    }
    let problems = invalid.iter().flat_map(|it| it.refused.iter().chain(&it.conflict));
    let wrong = format!("Not accepted: listeners {}. {}", names(invalid.iter().copied()), summary(problems));
    let others = names(view.own().iter().filter(|it| it.takes_routes()));
    let any = !others.is_empty();
    let text = if any { format!("{wrong}. Accepted: listeners {others}") } else { wrong };
    Condition::new(ConditionType::Accepted, any, "ListenersNotValid", text)
}

/// Whether the Gateway's own references hold, and those of its listeners.
fn resolved(view: &GatewayView) -> Condition {
    let kind = ConditionType::ResolvedRefs;
    if let Some(first) = view.unresolved.first() {
        return Condition::new(kind, false, first.reason.as_str(), summary(&view.unresolved));
    }
    let unresolved: Vec<_> = view.own().iter().filter(|it| !it.unresolved.is_empty()).collect();
    if unresolved.is_empty() {
        return Condition::new(kind, true, "ResolvedRefs", "All references are resolved");
    }
    let problems = summary(unresolved.iter().flat_map(|it| &it.unresolved));
    let text = format!("Not resolved: listeners {}. {problems}", names(unresolved.iter().copied()));
    Condition::new(kind, false, "ListenersNotResolved", text)
}

fn insecure() -> Condition {
    let text = "spec.tls.frontend: clients without a valid certificate are let through (AllowInsecureFallback); backends have \
                to tell who may come in";
    Condition::new(ConditionType::InsecureFrontendValidationMode, true, "ConfigurationChanged", text)
}

/// Whether there is anything to be served.
fn can_be_served(view: &GatewayView, served: &Served<'_>) -> bool {
    // Pods are there for a Gateway whose certificates are still to come; the listener says that it isn't served.
    let any = match served {
        Served::ByMachine(_) => view.listeners.iter().any(ListenerView::is_programmed),
        Served::ByPods(_) => view.listeners.iter().any(ListenerView::takes_routes),
    };
    view.refused.is_none() && any
}

pub(super) fn programmed(view: &GatewayView, served: &Served<'_>) -> Condition {
    let kind = ConditionType::GatewayProgrammed;
    if !can_be_served(view, served) {
        return Condition::new(kind, false, "Invalid", "No listener can be served; the other conditions say why");
    }
    match waits_for(view, served) {
        Some(_) if view.frozen.is_some() && matches!(served, Served::ByPods(_)) => {
            Condition::new(kind, false, "Invalid", FROZEN)
        }
        Some((reason, message)) => Condition::new(kind, false, reason, message),
        None => Condition::new(kind, true, "Programmed", in_force(view, served)),
    }
}

/// The message of a Gateway that is Programmed: a listener that can't be bound costs the others nothing, and is named.
fn in_force(view: &GatewayView, served: &Served<'_>) -> String {
    let refused: Vec<_> = view.listeners.iter().filter_map(|it| refused(it, &view.key, served)).collect();
    let refused = (!refused.is_empty()).then(|| format!(". Not served: {}", refused.join("; ")));
    let unmade = match served {
        Served::ByMachine(_) => None,
        Served::ByPods(pods) => pods.unmade.as_ref().filter(|unmade| unmade.serves),
    };
    let without = unmade.map(|unmade| format!(". Served without what can't be made: {}", unmade.why));
    [Some(served.words().listens.to_owned()), refused, without].into_iter().flatten().collect()
}

/// Why nobody has bound a listener that is to be served, by its name.
fn refused(listener: &ListenerView, of: &GatewayKey, served: &Served<'_>) -> Option<String> {
    let why = served.unbound()?.get(&listener.key(of)).filter(|_| listener.is_programmed())?;
    Some(format!("listener {}: {why}", listener.name))
}

/// Why nothing of what is to be served of some listeners is bound, reason and message: `None` if something is, or nothing is
/// to be.
pub(super) fn all_refused<'a>(
    listeners: impl Iterator<Item = &'a ListenerView>,
    of: &GatewayKey,
    served: &Served<'_>,
) -> Option<(&'static str, String)> {
    let wanted = listeners.filter(|it| it.is_programmed());
    let refused: Option<Vec<_>> = wanted.map(|it| refused(it, of, served)).collect();
    let words = served.words();
    let message = |refused: Vec<String>| format!("{}: {}", words.all_refused, refused.join("; "));
    refused.filter(|refused| !refused.is_empty()).map(|refused| (words.refused, message(refused)))
}

/// What a Gateway still needs: reason and message.
fn waits_for(view: &GatewayView, served: &Served<'_>) -> Option<(&'static str, String)> {
    let missing = match served {
        Served::ByMachine(_) => None,
        Served::ByPods(pods) => missing_in_cluster(view, pods),
    };
    missing.or_else(|| match served.unbound() {
        None => Some(("Pending", served.words().waits.to_owned())),
        Some(_) => all_refused(view.listeners.iter(), &view.key, served),
    })
}

/// What a Gateway in a cluster needs besides pods that listen: reason and message.
fn missing_in_cluster(view: &GatewayView, pods: &InCluster) -> Option<(&'static str, String)> {
    if let Some(unmade) = pods.unmade.as_ref().filter(|unmade| !unmade.serves) {
        return Some(("NoResources", format!("What serves it isn't as it should be: {}", unmade.why)));
    }
    // Another namespace's Gateway is named, too: who asks for its address finds out that somebody has it, and the name is what
    // routes of all namespaces say. Without it nobody knows whom to ask.
    let shown = |ip: &IpAddr| match pods.elsewhere.get(ip) {
        Some(holder) => format!("{ip}, which Gateway {holder} has"),
        None => ip.to_string(),
    };
    let missing: Vec<_> = pods.missing(&view.requested).map(shown).collect();
    if !missing.is_empty() {
        let list = missing.join(", ");
        let remedy = "ask for others, or for none, or see its Service";
        let message = format!("spec.addresses: the cluster has not given {list}; {remedy}");
        return Some(("AddressNotUsable", message));
    }
    if pods.addresses.is_empty() {
        let service = view.infrastructure.parameters.service.as_ref();
        let who = match service.and_then(|service| service.kind).unwrap_or_default() {
            GatewayServiceType::LoadBalancer => "no load balancer has given its Service an address",
            GatewayServiceType::NodePort | GatewayServiceType::ClusterIP => "its Service has no address",
        };
        return Some(("AddressNotAssigned", format!("Until now {who}")));
    }
    None
}

/// A listener whose HTTP/3 can't be had is served without: clients find out by themselves.
fn understood(listener: &ListenerView) -> String {
    match &listener.http3 {
        Http3::Off => "The listener is understood".to_owned(),
        Http3::Spoken => "The listener is understood; HTTP/3 is spoken on it, too".to_owned(),
        Http3::Refused(why) => format!("The listener is understood, but HTTP/3 is not spoken on it: {why}"),
    }
}

pub(super) fn listener_conditions(
    listener: &ListenerView,
    of: &GatewayKey,
    whole: bool,
    served: &Served<'_>,
) -> Vec<Condition> {
    let accepted = match listener.refused.as_ref().or(listener.conflict.as_ref()) {
        None => Condition::new(ConditionType::Accepted, true, "Accepted", understood(listener)),
        Some(problem) => Condition::new(ConditionType::Accepted, false, problem.reason.as_str(), problem.to_string()),
    };
    let conflicted = match &listener.conflict {
        None => Condition::new(ConditionType::Conflicted, false, "NoConflicts", "No other listener is in its way"),
        Some(problem) => Condition::new(ConditionType::Conflicted, true, problem.reason.as_str(), problem.to_string()),
    };
    let resolved = match listener.unresolved.first() {
        None => Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", "All references are resolved"),
        Some(first) => {
            let text = summary(&listener.unresolved);
            Condition::new(ConditionType::ResolvedRefs, false, first.reason.as_str(), text)
        }
    };
    let programmed = listener_programmed(listener, of, whole, served);
    let overlapping = listener
        .overlaps
        .as_ref()
        .map(|text| Condition::new(ConditionType::OverlappingTlsConfig, true, "OverlappingHostnames", text));
    [accepted, conflicted, programmed, resolved].into_iter().chain(overlapping).collect()
}

fn listener_programmed(listener: &ListenerView, of: &GatewayKey, whole: bool, served: &Served<'_>) -> Condition {
    let kind = ConditionType::GatewayProgrammed;
    if !whole || !listener.is_programmed() {
        let conflict = listener.conflict.as_ref().filter(|_| listener.set.is_some());
        let reason = conflict.map_or("Invalid", |problem| problem.reason.as_str());
        return Condition::new(kind, false, reason, "It is not served; the other conditions say why");
    }
    let words = served.words();
    match served.unbound().map(|unbound| unbound.get(&listener.key(of))) {
        None => Condition::new(kind, false, "Pending", words.waits),
        Some(None) => Condition::new(kind, true, "Programmed", words.listens),
        Some(Some(why)) => Condition::new(kind, false, words.refused, format!("{}: {why}", words.one_refused)),
    }
}
