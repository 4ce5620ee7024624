//! Redirects that lead back to where they are.
//!
//! The usual mistake: a redirect to HTTPS whose route names the Gateway and no listener, so that the HTTPS listener has it
//! too. Clients give up after some rounds, and nothing else says why. What is said here is certain: the address that a
//! redirect gives is one at which the same rule takes the same request. A redirect that changes the path is left out, because
//! another rule may have what it leads to.

use weft_core::route::{HostnameMatch, HttpAction, HttpRule, Parent, Redirect, RedirectScheme, RouteRule};

use super::attach::GatewayParent;
use super::{Lookup, RuleOutcome};
use crate::translate::{Problem, Reason};

/// Notes on the redirects of a route's rules at what one of its parentRefs got.
pub(super) fn notes(outcomes: &[RuleOutcome], parents: &[Parent], lookup: &dyn Lookup) -> Vec<Problem> {
    let rules = outcomes.iter().filter_map(|outcome| match &outcome.rule {
        Some(RouteRule::Http(rule)) => Some(rule),
        _ => None,
    });
    let redirects = rules.filter_map(|rule| match &rule.action {
        HttpAction::Redirect(redirect) if redirect.path.is_none() => Some((rule, redirect)),
        _ => None,
    });
    let each = redirects.filter_map(|(rule, redirect)| {
        let front =
            parents.iter().filter_map(|parent| Front::of(parent, lookup)).find(|it| it.loops(rule, redirect))?;
        Some(front.note(rule, redirect))
    });
    each.collect()
}

/// Where requests come in.
struct Front {
    scheme: RedirectScheme,
    port: u16,
    /// The hosts that it takes; `None`: all.
    hostname: Option<HostnameMatch>,
    /// What it is, for people.
    name: String,
}

impl Front {
    fn of(parent: &Parent, lookup: &dyn Lookup) -> Option<Self> {
        match parent {
            Parent::Service { port, .. } => {
                let name = format!("Service {} takes HTTP at port {}", port.service, port.port);
                Some(Self { scheme: RedirectScheme::Http, port: port.port.get(), hostname: None, name })
            }
            Parent::Listener(key) => {
                let GatewayParent::Ours(gateway) = lookup.gateway(&key.gateway) else { return None };
                let listener = gateway.listeners.iter().find(|it| it.name == key.name && it.set == key.set)?;
                let scheme = match listener.protocol.as_str() {
                    "HTTP" => RedirectScheme::Http,
                    "HTTPS" => RedirectScheme::Https,
                    _ => return None,
                };
                let (port, protocol) = (listener.port?.get(), &listener.protocol);
                let name = format!("listener {} takes {protocol} at port {port}", listener.name);
                Some(Self { scheme, port, hostname: listener.hostname.clone(), name })
            }
        }
    }

    /// Whether what comes in here by a rule is sent back to here: scheme and port as `RequestRedirect` has them (see
    /// [`weft_core::filter`]), and the host is the request's own or one that the rule names.
    fn loops(&self, rule: &HttpRule, redirect: &Redirect) -> bool {
        let scheme = redirect.scheme.unwrap_or(self.scheme);
        let port = redirect.port.map_or_else(|| redirect.scheme.map_or(self.port, RedirectScheme::port), |it| it.get());
        let same_host = redirect.hostname.as_deref().is_none_or(|host| {
            // One that the rule doesn't name may be another rule's, which it is there to lead to.
            let host = host.to_ascii_lowercase();
            let is_here = self.hostname.as_ref().is_none_or(|it| it.matches(&host));
            is_here && rule.hostnames.contains(&HostnameMatch::Exact(host))
        });
        (scheme, port) == (self.scheme, self.port) && same_host
    }

    fn note(&self, rule: &HttpRule, redirect: &Redirect) -> Problem {
        let of = redirect.hostname.as_ref().map_or_else(|| "requests".into(), |host| format!("requests for {host}"));
        let message = format!("the redirect sends {of} to where they are, for ever: {}", self.name);
        let remedy = match redirect.hostname {
            Some(_) => "take the hostname out of this route, or redirect to another one",
            None => "attach the redirect to another listener by sectionName in parentRefs, or redirect to elsewhere",
        };
        Problem::new(format!("spec.rules[{}].filters", rule.key.index), Reason::Note, message, remedy)
    }
}
