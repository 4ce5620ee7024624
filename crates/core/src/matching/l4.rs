//! Which rule a TLS name or a connection gets.

use std::sync::Arc;

use crate::matching::host::HostIndex;
use crate::matching::rank::RouteAge;
use crate::route::{L4Rule, RouteRule};

/// The TLSRoute, TCPRoute or UDPRoute rules of one frontend.
#[derive(Clone, Debug, Default)]
pub struct L4Table {
    hosts: HostIndex<Vec<Arc<RouteRule>>>,
}

impl L4Table {
    /// A table of the L4 rules among `rules`, in any order. Where kinds meet, TLSRoute comes before TCPRoute
    /// (GEP-1426).
    pub fn new(rules: &[Arc<RouteRule>]) -> Self {
        let mut hosts = HostIndex::<Vec<Arc<RouteRule>>>::default();
        for shared in rules {
            if let RouteRule::L4(rule) = &**shared {
                if rule.hostnames.is_empty() {
                    hosts.edit(None, |rules| rules.push(Arc::clone(shared)));
                }
                for hostname in &rule.hostnames {
                    hosts.edit(Some(hostname), |rules| rules.push(Arc::clone(shared)));
                }
            }
        }
        hosts.values_mut().for_each(|rules| sort(rules));
        Self { hosts }
    }

    /// The rule for a connection: the most specific hostname that covers the server name (lower case, no trailing
    /// dot), then the oldest route, then its first rule. Without a server name (TCP, UDP, a ClientHello that has
    /// none) only rules without hostnames match.
    pub fn find(&self, server_name: Option<&str>) -> Option<&L4Rule> {
        self.hosts.find(server_name.unwrap_or_default(), |rules| l4(rules.first()?))
    }
}

fn sort(rules: &mut [Arc<RouteRule>]) {
    rules.sort_by(|a, b| {
        let kind = a.key().route.kind.cmp(&b.key().route.kind);
        let age = || l4(a).map(RouteAge::of_l4).cmp(&l4(b).map(RouteAge::of_l4));
        kind.then_with(age).then_with(|| a.key().index.cmp(&b.key().index))
    });
}

fn l4(shared: &RouteRule) -> Option<&L4Rule> {
    match shared {
        RouteRule::L4(rule) => Some(rule),
        RouteRule::Http(_) => None,
    }
}
