//! Listeners of one port whose TLS is for some of the same names (condition `OverlappingTLSConfig`).
//!
//! A client that has a connection for one may send requests for the other on it (RFC 9113, section 9.1.1); they are answered
//! 421. It is a note: all of them are served.

use std::collections::{BTreeMap, HashMap};

use weft_core::gateway::PortLayer;
use weft_core::route::HostnameMatch;

use super::ListenerView;
use super::conflict::{Place, described, place};

/// The names of one place, so that what covers a name and what is covered by it can be looked up.
#[derive(Default)]
struct Names {
    /// Listeners without a hostname, which are for all names.
    any: Vec<usize>,
    /// By the labels from the last to the first, each with a dot behind it: names below a name begin with it.
    exact: BTreeMap<String, usize>,
    below: BTreeMap<String, usize>,
}

fn reversed(name: &str) -> String {
    name.rsplit('.').flat_map(|label| [label, "."]).collect()
}

/// Notes them at each listener.
pub(super) fn note(listeners: &mut [ListenerView]) {
    let with_tls = |it: &ListenerView| {
        let found = place(it).filter(|(layer, _)| *layer == PortLayer::Tls && it.conflict.is_none());
        found.map(|(_, place)| place)
    };
    let mut names: HashMap<Place, Names> = HashMap::new();
    for (at, listener) in listeners.iter().enumerate() {
        let Some(place) = with_tls(listener) else { continue };
        let of_place = names.entry(place).or_default();
        match &listener.hostname {
            None => of_place.any.push(at),
            Some(HostnameMatch::Exact(name)) => {
                of_place.exact.insert(reversed(name), at);
            }
            Some(HostnameMatch::Suffix(name)) => {
                of_place.below.insert(reversed(name), at);
            }
        }
    }
    let found: Vec<_> = listeners
        .iter()
        .enumerate()
        .map(|(at, own)| {
            let place = with_tls(own)?;
            let other = listeners.get(names.get(&place)?.other(own.hostname.as_ref(), at)?)?;
            Some(format!("{} of port {} is for some of the same names", described(other), place.1))
        })
        .collect();
    for (listener, overlaps) in listeners.iter_mut().zip(found) {
        listener.overlaps = overlaps;
    }
}

impl Names {
    /// Another listener for some of the names of the one at `own`.
    fn other(&self, hostname: Option<&HostnameMatch>, own: usize) -> Option<usize> {
        let other = |at: &usize| *at != own;
        if let Some(any) = self.any.iter().copied().find(other) {
            return Some(any);
        }
        let name = match hostname {
            None => return self.exact.values().chain(self.below.values()).copied().find(other),
            Some(HostnameMatch::Exact(name) | HostnameMatch::Suffix(name)) => reversed(name),
        };
        let above = name.match_indices('.').filter_map(|(dot, _)| name.get(..=dot)).filter(|above| *above != name);
        let covering = above.filter_map(|above| self.below.get(above)).copied().find(other);
        if covering.is_some() || matches!(hostname, Some(HostnameMatch::Exact(_))) {
            return covering;
        }
        // The name itself is not below itself.
        let covered = |names: &BTreeMap<String, usize>| {
            let from_here = names.range(name.clone()..).take_while(|(other, _)| other.starts_with(&name));
            from_here.filter(|(other, _)| **other != name).map(|(_, at)| *at).next()
        };
        covered(&self.exact).or_else(|| covered(&self.below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the whole is about, asked of each pair.
    #[test]
    fn the_index_says_what_a_look_at_all_pairs_says() {
        let all = [
            None,
            Some("com"),
            Some("*.com"),
            Some("example.com"),
            Some("*.example.com"),
            Some("a.example.com"),
            Some("b.a.example.com"),
            Some("*.a.example.com"),
            Some("anexample.com"),
            Some("example.org"),
        ];
        let all: Vec<Option<HostnameMatch>> = all.iter().map(|it| it.map(HostnameMatch::new)).collect();
        // Each subset of three, told apart as listeners are.
        for a in 0..all.len() {
            for b in (0..all.len()).filter(|b| *b != a) {
                for c in (0..all.len()).filter(|c| *c != a && *c != b) {
                    let subset = [&all[a], &all[b], &all[c]];
                    let mut names = Names::default();
                    for (at, hostname) in subset.iter().enumerate() {
                        match hostname {
                            None => names.any.push(at),
                            Some(HostnameMatch::Exact(name)) => {
                                names.exact.insert(reversed(name), at);
                            }
                            Some(HostnameMatch::Suffix(name)) => {
                                names.below.insert(reversed(name), at);
                            }
                        }
                    }
                    let intersect = |one: &Option<HostnameMatch>, other: &Option<HostnameMatch>| match (one, other) {
                        (Some(one), Some(other)) => one.intersects(other),
                        _ => true,
                    };
                    for at in 0..3 {
                        let found = names.other(subset[at].as_ref(), at);
                        let want = (0..3).any(|other| other != at && intersect(subset[at], subset[other]));
                        assert_eq!(found.is_some(), want, "{subset:?}: {at}");
                        assert!(found.is_none_or(|other| other != at && intersect(subset[at], subset[other])));
                    }
                }
            }
        }
    }
}
