//! HTTPRoutes and GRPCRoutes that want the same hosts of one listener: it has one of the two (`GRPCRouteSpec.hostnames`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use weft_core::ids::{ListenerKey, Name, Namespace, RouteKey, RouteKind};
use weft_core::route::HostnameMatch;

use crate::translate::route::Asking;

/// The order of precedence: older routes first, then by namespace and name.
type Rank = (i64, Namespace, Name, RouteKind);

/// What a route asks a listener for: hosts; none means all that the listener has.
type Hosts = Vec<HostnameMatch>;

/// Who asks for what.
#[derive(Debug, Default)]
pub(super) struct Contended {
    at: HashMap<ListenerKey, AtListener>,
    /// Where a route is in [`Self::at`].
    asked: HashMap<RouteKey, (Rank, Vec<ListenerKey>)>,
}

#[derive(Debug, Default)]
struct AtListener {
    /// How many of them are GRPCRoutes.
    grpc: usize,
    asking: BTreeMap<Rank, (RouteKey, Hosts)>,
    /// Routes that come after one of the other kind, with that one.
    behind: BTreeMap<RouteKey, RouteKey>,
}

impl Contended {
    /// The route of the other kind that has a route's hosts at a listener.
    pub(super) fn ahead(&self, listener: &ListenerKey, route: &RouteKey) -> Option<&RouteKey> {
        self.at.get(listener)?.behind.get(route)
    }

    /// Replaces what a route asks for. The listeners where that makes a difference are added to `touched`.
    pub(super) fn ask(&mut self, route: &RouteKey, asking: Option<Asking>, touched: &mut BTreeSet<ListenerKey>) {
        if let Some((rank, listeners)) = self.asked.remove(route) {
            for key in listeners {
                if let Some(at) = self.at.get_mut(&key) {
                    at.asking.remove(&rank);
                    at.grpc -= usize::from(route.kind == RouteKind::Grpc);
                }
                touched.insert(key);
            }
        }
        let Some(asking) = asking.filter(|asking| !asking.listeners.is_empty()) else { return };
        let rank = (asking.created, route.namespace.clone(), route.name.clone(), route.kind);
        let mut listeners = Vec::with_capacity(asking.listeners.len());
        for (key, hosts) in asking.listeners {
            let at = self.at.entry(key.clone()).or_default();
            at.asking.insert(rank.clone(), (route.clone(), hosts));
            at.grpc += usize::from(route.kind == RouteKind::Grpc);
            touched.insert(key.clone());
            listeners.push(key);
        }
        self.asked.insert(route.clone(), (rank, listeners));
    }

    /// Settles who has what at some listeners; gives the routes for which the outcome is another.
    pub(super) fn settle(&mut self, touched: BTreeSet<ListenerKey>) -> BTreeSet<RouteKey> {
        let mut changed = BTreeSet::new();
        for key in touched {
            let Some(at) = self.at.get_mut(&key) else { continue };
            let before = std::mem::take(&mut at.behind);
            // Nearly all listeners have routes of one kind.
            if at.grpc > 0 && at.grpc < at.asking.len() {
                at.behind = settled(&at.asking);
            }
            let differs = |route: &&RouteKey| before.get(*route) != at.behind.get(*route);
            changed.extend(before.keys().chain(at.behind.keys()).filter(differs).cloned());
            if at.asking.is_empty() {
                self.at.remove(&key);
            }
        }
        changed
    }
}

/// In the order of precedence, each route has what none of the other kind has that was let in before it.
fn settled(asking: &BTreeMap<Rank, (RouteKey, Hosts)>) -> BTreeMap<RouteKey, RouteKey> {
    let mut behind = BTreeMap::new();
    let mut let_in: Vec<&(RouteKey, Hosts)> = Vec::new();
    for entry in asking.values() {
        let (route, hosts) = entry;
        let in_the_way = let_in.iter().find(|(other, of)| other.kind != route.kind && share(hosts, of));
        match in_the_way {
            Some((other, _)) => drop(behind.insert(route.clone(), other.clone())),
            None => let_in.push(entry),
        }
    }
    behind
}

fn share(one: &Hosts, other: &Hosts) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|host| other.iter().any(|of| host.intersects(of)))
}

#[cfg(test)]
mod tests {
    use weft_core::ids::GatewayKey;

    use super::*;

    fn listener() -> ListenerKey {
        ListenerKey::new(GatewayKey::new("ns", "gw"), "l")
    }

    fn route(name: &str) -> RouteKey {
        let kind = if name.starts_with('g') { RouteKind::Grpc } else { RouteKind::Http };
        RouteKey { kind, namespace: "ns".into(), name: name.into() }
    }

    fn asking(created: i64, hosts: &[&str]) -> Option<Asking> {
        let hosts = hosts.iter().map(|host| HostnameMatch::new(host)).collect();
        Some(Asking { created, listeners: vec![(listener(), hosts)] })
    }

    #[test]
    fn the_older_route_has_the_hosts_and_what_lost_is_in_nobodys_way() {
        for (list, lost) in [
            (vec![("h1", 1, vec!["a.com"]), ("g1", 2, vec!["b.com"])], vec![]),
            (vec![("h1", 1, vec!["a.com"]), ("g1", 2, vec!["*.com"])], vec!["g1"]),
            (vec![("h1", 2, vec!["a.com"]), ("g1", 1, vec![])], vec!["h1"]),
            (vec![("h1", 1, vec![]), ("h2", 2, vec![])], vec![]),
            // Of one age: by name.
            (vec![("h1", 1, vec![]), ("g1", 1, vec![])], vec!["h1"]),
            // g2 would be behind h2, which is behind g1.
            (vec![("g1", 1, vec!["a.com"]), ("h2", 2, vec!["*.com"]), ("g2", 3, vec!["b.com"])], vec!["h2"]),
        ] {
            for reverse in [false, true] {
                let mut order = list.clone();
                if reverse {
                    order.reverse();
                }
                let mut contended = Contended::default();
                for (name, created, hosts) in &order {
                    let mut touched = BTreeSet::new();
                    contended.ask(&route(name), asking(*created, hosts), &mut touched);
                    contended.settle(touched);
                }
                let found: Vec<_> = list
                    .iter()
                    .filter(|(name, ..)| contended.ahead(&listener(), &route(name)).is_some())
                    .map(|(name, ..)| *name)
                    .collect();
                assert_eq!(found, lost, "{order:?}");
            }
        }
    }

    #[test]
    fn who_is_affected_is_told_and_nothing_is_left_behind() {
        let mut contended = Contended::default();
        let mut with = |name: &str, asking: Option<Asking>| {
            let mut touched = BTreeSet::new();
            contended.ask(&route(name), asking, &mut touched);
            contended.settle(touched).into_iter().map(|route| route.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(with("h1", asking(2, &[])), [""; 0]);
        assert_eq!(with("g1", asking(3, &[])), ["g1"]);
        assert_eq!(with("g0", asking(1, &[])), ["g1", "h1"]);
        assert_eq!(with("g0", None), ["g1", "h1"]);
        assert_eq!(with("h1", None), ["g1"]);
        assert_eq!(with("g1", None), [""; 0]);
        assert!(contended.at.is_empty() && contended.asked.is_empty());
    }
}
