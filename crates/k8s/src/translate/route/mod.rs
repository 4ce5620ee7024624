//! Routes with Service parents (GAMMA, GEP-1426), Gateway and ListenerSet parents -> [`RouteRule`]s and status.
//!
//! A route passes two steps. [`parents::bind`] says which Service ports it asks for. Then, when the index knows
//! which kind of route has each port, [`translate`] makes rules and conditions. Which listeners of a Gateway take it
//! depends on no other route: [`attach`] says so.
//!
//! Gateways that are not served here are not claimed.

mod attach;
mod backend;
mod external_auth;
mod filter;
mod grpc;
mod http;
mod l4;
mod limit;
mod loops;
mod matches;
pub mod parents;
mod session;
mod text;

use weft_core::ids::{
    GatewayKey, ListenerKey, ListenerSetKey, Namespace, Port, RouteKey, RouteKind, RuleKey, SectionName, ServiceKey,
    ServicePortKey,
};
use weft_core::route::{Created, Parent, RouteRule};
use weft_core::service::Service;
use weft_core::traffic::BackendTraffic;

use crate::object::route::{BackendReference, Filter, ParentReference};
use crate::object::{Condition, ConditionType, Object, RouteParentStatus, created_seconds};
use crate::translate::gateway::GatewayView;

use super::labels::Labels;
use super::{Problem, Reason, summary};
pub use attach::{Asking, GatewayParent, SetParent, asking};
use parents::{Binding, Decided};
pub(crate) use text::{duration, hostname};

/// What a route needs to know of other objects.
pub trait Lookup {
    /// A Service.
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    /// Why nothing can be sent to a backend that is there and isn't a Service.
    fn refused_backend(&self, key: &ServiceKey) -> Option<&Problem>;
    /// What is asked for of the traffic to a Service.
    fn traffic(&self, key: &ServiceKey) -> Option<&BackendTraffic>;
    /// Whether a TCP port of a Service is open for UDP, too.
    fn is_open_for_both(&self, service: &ServiceKey, port: Port) -> bool;
    /// Whether a ReferenceGrant lets routes of this kind and namespace refer to the Service, or what else they send to.
    fn permitted(&self, from: RouteKind, namespace: &Namespace, to: &ServiceKey) -> bool;
    /// The kind of route that has a Service port, among the routes of one audience (see [`parents::Claim`]).
    fn holder(&self, port: &ServicePortKey, consumer: Option<&Namespace>) -> Option<RouteKind>;
    /// What a Gateway is to its routes.
    fn gateway(&self, key: &GatewayKey) -> GatewayParent<'_>;
    /// The route of the other kind, GRPCRoute or HTTPRoute, that has a route's hosts at a listener.
    fn ahead(&self, listener: &ListenerKey, route: &RouteKey) -> Option<&RouteKey>;
    /// The Gateways that take routes which don't name them.
    fn default_gateways(&self) -> Vec<&GatewayView>;
    /// What a ListenerSet is to its routes.
    fn listener_set(&self, key: &ListenerSetKey) -> SetParent<'_>;
    /// The labels of a namespace, if it is known.
    fn namespace_labels(&self, namespace: &Namespace) -> Option<&Labels>;
}

/// What all kinds of routes have in common.
#[derive(Clone, Debug)]
pub struct RouteView<'a> {
    /// Its key.
    pub key: RouteKey,
    /// When it was made.
    pub created: Created,
    /// What it attaches to.
    pub parent_refs: &'a [ParentReference],
    /// Its hostnames.
    pub hostnames: &'a [String],
    /// Whether it wants to be attached to default Gateways, too.
    pub uses_defaults: bool,
    object: &'a Object,
}

impl<'a> RouteView<'a> {
    /// The view of an object, if it is a route.
    pub fn new(object: &'a Object) -> Option<Self> {
        type Hostnames<'a> = Option<&'a Vec<String>>;
        let (kind, parents, scope, hostnames): (_, _, _, Hostnames<'_>) = match object {
            Object::GrpcRoute(r) => {
                (RouteKind::Grpc, &r.spec.parent_refs, &r.spec.use_default_gateways, r.spec.hostnames.as_ref())
            }
            Object::HttpRoute(r) => {
                (RouteKind::Http, &r.spec.parent_refs, &r.spec.use_default_gateways, r.spec.hostnames.as_ref())
            }
            Object::TlsRoute(r) => {
                (RouteKind::Tls, &r.spec.parent_refs, &r.spec.use_default_gateways, r.spec.hostnames.as_ref())
            }
            Object::TcpRoute(r) => (RouteKind::Tcp, &r.spec.parent_refs, &r.spec.use_default_gateways, None),
            Object::UdpRoute(r) => (RouteKind::Udp, &r.spec.parent_refs, &r.spec.use_default_gateways, None),
            _ => return None,
        };
        let reference = object.reference();
        Some(Self {
            key: RouteKey { kind, namespace: reference.namespace, name: reference.name },
            created: Created { unix_seconds: created_seconds(object.meta()) },
            parent_refs: parents.as_deref().unwrap_or_default(),
            hostnames: hostnames.map(Vec::as_slice).unwrap_or_default(),
            uses_defaults: scope.as_deref() == Some("All"),
            object,
        })
    }

    /// The Services it attaches to.
    pub fn parent_services(&self) -> impl Iterator<Item = ServiceKey> {
        self.parent_refs.iter().filter(|p| p.is_service()).map(|p| parents::service_key(&self.key, p))
    }

    /// The Gateways it attaches to.
    pub fn parent_gateways(&self) -> impl Iterator<Item = GatewayKey> {
        self.parent_refs.iter().filter(|p| p.is_gateway()).map(|p| attach::gateway_key(&self.key, p))
    }

    /// The ListenerSets it attaches to.
    pub fn parent_sets(&self) -> impl Iterator<Item = ListenerSetKey> {
        self.parent_refs.iter().filter(|p| p.is_listener_set()).map(|p| attach::set_key(&self.key, p))
    }

    /// The Services it sends or mirrors to, or asks.
    pub fn backend_services(&self) -> Vec<ServiceKey> {
        backend_references(self.object).into_iter().map(|reference| reference.key(&self.key.namespace)).collect()
    }

    fn rule_key(&self, index: usize) -> RuleKey {
        RuleKey { route: self.key.clone(), index: u16::try_from(index).unwrap_or(u16::MAX) }
    }
}

fn backend_references(object: &Object) -> Vec<BackendReference> {
    let mut found = Vec::new();
    let mut take = |backends: &Option<Vec<crate::object::route::BackendRef>>, filters: Option<&Vec<Filter>>| {
        for backend in backends.iter().flatten() {
            found.push(backend.reference());
            found.extend(backend.filters.iter().flatten().filter_map(Filter::reference).cloned());
        }
        found.extend(filters.into_iter().flatten().filter_map(Filter::reference).cloned());
    };
    match object {
        Object::HttpRoute(r) => {
            r.spec.rules.iter().flatten().for_each(|rule| take(&rule.backend_refs, rule.filters.as_ref()));
        }
        Object::GrpcRoute(r) => {
            r.spec.rules.iter().flatten().for_each(|rule| take(&rule.backend_refs, rule.filters.as_ref()));
        }
        Object::TlsRoute(r) => r.spec.rules.iter().flatten().for_each(|rule| take(&rule.backend_refs, None)),
        Object::TcpRoute(r) => r.spec.rules.iter().flatten().for_each(|rule| take(&rule.backend_refs, None)),
        Object::UdpRoute(r) => r.spec.rules.iter().flatten().for_each(|rule| take(&rule.backend_refs, None)),
        _ => {}
    }
    found
}

/// A rule with what is wrong in it.
struct RuleOutcome {
    /// Absent if it had to be dropped (an L4 rule that the API does not allow).
    rule: Option<RouteRule>,
    problems: Vec<Problem>,
}

impl RuleOutcome {
    /// Whether the rule does not do what its author asked for, broken references aside.
    fn is_invalid(&self) -> bool {
        self.problems.iter().any(|p| !p.reason.is_reference() && p.reason != Reason::Note)
    }
}

/// The context of the translation of one rule.
struct RuleContext<'a> {
    view: &'a RouteView<'a>,
    lookup: &'a dyn Lookup,
    parents: &'a [Parent],
    index: usize,
}

impl RuleContext<'_> {
    fn field(&self, rest: &str) -> String {
        format!("spec.rules[{}]{rest}", self.index)
    }
    fn name(&self, name: Option<&String>) -> Option<SectionName> {
        name.map(SectionName::new)
    }
}

/// What became of a route.
#[derive(Clone, Debug, Default)]
pub struct Translated {
    /// Its rules; none if no parent took it.
    pub rules: Vec<RouteRule>,
    /// One entry for each parent that is a Service, or a Gateway or ListenerSet that is served here.
    pub parents: Vec<RouteParentStatus>,
    /// The listeners that it is attached to and accepted by.
    pub listeners: Vec<ListenerKey>,
    /// All that is wrong with it.
    pub problems: Vec<Problem>,
}

/// Makes rules and conditions of a route, given the ports it asked for.
pub fn translate(view: &RouteView<'_>, bindings: &[Binding], lookup: &dyn Lookup) -> Translated {
    let mut decided = decide(view, bindings, lookup);
    let mut attached: Vec<Parent> = Vec::new();
    for parent in decided.iter().flat_map(|d| d.parents.iter()) {
        if !attached.contains(parent) {
            attached.push(parent.clone());
        }
    }
    let outcomes = rules(view, &attached, lookup);
    for parent in &mut decided {
        parent.problems.extend(loops::notes(&outcomes, &parent.parents, lookup));
    }
    let general = text::hostname_problems(view);
    let conditions = RouteConditions::new(&outcomes);
    let parents = decided
        .iter()
        .map(|d| RouteParentStatus { parent_ref: d.reference.clone(), conditions: conditions.of_parent(d, view) })
        .collect();
    let mut problems: Vec<Problem> = decided.iter().flat_map(|d| d.problems.iter().cloned()).collect();
    problems.extend(general);
    problems.extend(outcomes.iter().flat_map(|o| o.problems.iter().cloned()));
    let listeners = if conditions.refused.is_some() { Vec::new() } else { listeners(&attached) };
    let rules = if attached.is_empty() { Vec::new() } else { outcomes.into_iter().filter_map(|o| o.rule).collect() };
    Translated { rules, parents, listeners, problems }
}

/// What became of each parent, in the order in which the route has them.
fn decide(view: &RouteView<'_>, bindings: &[Binding], lookup: &dyn Lookup) -> Vec<Decided> {
    let mut bindings = bindings.iter();
    let each = view.parent_refs.iter().enumerate();
    let named = each.filter_map(|(i, reference)| match reference.is_service() {
        true => bindings.next().map(|binding| binding.decide(view.key.kind, lookup)),
        false if reference.is_gateway() || reference.is_listener_set() => attach::decide(view, i, reference, lookup),
        false => None,
    });
    let defaults = if view.uses_defaults { attach::decide_defaults(view, lookup) } else { Vec::new() };
    named.chain(defaults).collect()
}

fn listeners(attached: &[Parent]) -> Vec<ListenerKey> {
    let of = |parent: &Parent| match parent {
        Parent::Listener(listener) => Some(listener.clone()),
        Parent::Service { .. } => None,
    };
    attached.iter().filter_map(of).collect()
}

fn rules(view: &RouteView<'_>, parents: &[Parent], lookup: &dyn Lookup) -> Vec<RuleOutcome> {
    fn each<R: Default>(rules: Option<&Vec<R>>, mut f: impl FnMut(usize, &R) -> RuleOutcome) -> Vec<RuleOutcome> {
        match rules.filter(|r| !r.is_empty()) {
            // The API's default: one rule that matches everything; without backends it answers with an error.
            None => vec![f(0, &R::default())],
            Some(rules) if rules.len() > limit::MAX_RULES => vec![limit::too_many(f(0, &R::default()), rules.len())],
            Some(rules) => rules.iter().enumerate().map(|(i, rule)| f(i, rule)).collect(),
        }
    }
    let ctx = |index| RuleContext { view, lookup, parents, index };
    match view.object {
        Object::HttpRoute(r) => each(r.spec.rules.as_ref(), |i, rule| http::rule(&ctx(i), rule)),
        Object::GrpcRoute(r) => each(r.spec.rules.as_ref(), |i, rule| grpc::rule(&ctx(i), rule)),
        Object::TlsRoute(r) => each(r.spec.rules.as_ref(), |i, rule| l4::rule(&ctx(i), rule)),
        Object::TcpRoute(r) => each(r.spec.rules.as_ref(), |i, rule| l4::rule(&ctx(i), rule)),
        Object::UdpRoute(r) => each(r.spec.rules.as_ref(), |i, rule| l4::rule(&ctx(i), rule)),
        _ => Vec::new(),
    }
}

/// At most this many invalid rules are named: as many as the API lets a route have.
const IN_A_MESSAGE: usize = 16;

/// The conditions that all parents of a route share.
struct RouteConditions {
    /// Set if no rule is valid.
    refused: Option<(Reason, String)>,
    partially: Option<String>,
    resolved: Condition,
}

impl RouteConditions {
    fn new(outcomes: &[RuleOutcome]) -> Self {
        let invalid: Vec<_> = outcomes.iter().enumerate().filter(|(_, o)| o.is_invalid()).collect();
        let serious = |o: &RuleOutcome| -> Vec<Problem> {
            o.problems.iter().filter(|p| !p.reason.is_reference() && p.reason != Reason::Note).cloned().collect()
        };
        let all: Vec<Problem> = invalid.iter().flat_map(|(_, o)| serious(o)).collect();
        let (mut refused, mut partially) = (None, None);
        if !invalid.is_empty() && invalid.len() == outcomes.len() {
            let reason = all.first().map_or(Reason::UnsupportedValue, |p| p.reason);
            refused =
                Some((reason, format!("No rule is valid, requests are answered with an error. {}", summary(&all))));
        } else if !invalid.is_empty() {
            let named = invalid.iter().take(IN_A_MESSAGE).map(|(i, _)| i.to_string()).collect::<Vec<_>>().join(", ");
            let more = invalid.len().saturating_sub(IN_A_MESSAGE);
            let which = if more == 0 { named } else { format!("{named} and {more} more") };
            partially =
                Some(format!("Dropped Rule {which}: what it matches is answered with an error. {}", summary(&all)));
        }
        let broken: Vec<_> = outcomes.iter().flat_map(|o| &o.problems).filter(|p| p.reason.is_reference()).collect();
        let resolved = match broken.first() {
            None => Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", "All references are resolved"),
            Some(first) => {
                let text = summary(broken.iter().copied());
                Condition::new(ConditionType::ResolvedRefs, false, first.reason.as_str(), text)
            }
        };
        Self { refused, partially, resolved }
    }

    fn of_parent(&self, parent: &Decided, view: &RouteView<'_>) -> Vec<Condition> {
        let mut conditions = Vec::with_capacity(3);
        match (&parent.refused, &self.refused) {
            (Some((reason, message)), _) | (None, Some((reason, message))) => {
                conditions.push(Condition::new(ConditionType::Accepted, false, reason.as_str(), message));
            }
            (None, None) => {
                let mut text = String::from("The route is in force");
                let of_service = parent.reference.is_service();
                if of_service
                    && !view.hostnames.is_empty()
                    && matches!(view.key.kind, RouteKind::Http | RouteKind::Grpc)
                {
                    text.push_str("; hostnames have no meaning for a Service parent and are ignored");
                }
                for problem in &parent.problems {
                    text.push_str("; ");
                    match problem.reason {
                        Reason::Note => text.push_str(&problem.to_string()),
                        _ => text.push_str(&problem.message),
                    }
                }
                conditions.push(Condition::new(ConditionType::Accepted, true, "Accepted", text));
                if let Some(message) = &self.partially {
                    let reason = Reason::UnsupportedValue.as_str();
                    conditions.push(Condition::new(ConditionType::PartiallyInvalid, true, reason, message));
                }
            }
        }
        conditions.push(self.resolved.clone());
        conditions
    }
}
