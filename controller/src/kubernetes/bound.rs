//! What the pods of Gateways have bound: a replica's own view, and what all replicas told each other. No I/O.
//!
//! A pod acknowledges a listener when it is bound, and follows one replica. So when a pod is in sync with a point of the
//! history in which its Gateway had certain listeners, it has bound just these. Which they are is told by a fingerprint of
//! their names and versions, which is the same on every replica.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_core::ids::GatewayKey;
use weft_xds::Version;
use weft_xds::server::Sequence;

/// A pod whose stream has ended may be back at once, at another replica too: what it has bound counts for so long.
pub const REMEMBERED: Duration = Duration::from_secs(30);
/// States of a Gateway that are remembered: pods that are further behind aren't up to date anyway.
const STATES: usize = 64;

/// The listeners of a Gateway at one time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of these listeners, by the names of their resources.
    pub fn of(listeners: &BTreeMap<String, Version>) -> Self {
        let text: String = listeners.iter().map(|(name, version)| format!("{name} {version}\n")).collect();
        Self(Version::of(text.as_bytes()).to_string())
    }
}

/// What one replica tells: what pods of each Gateway, by `namespace/name`, have bound.
pub type Report = BTreeMap<String, BTreeSet<Fingerprint>>;

/// What the pods that follow this replica have bound.
#[derive(Debug, Default)]
pub struct Bound {
    /// Since when each Gateway has had which listeners; the newest at the end.
    states: BTreeMap<GatewayKey, VecDeque<(Sequence, Fingerprint)>>,
    clients: BTreeMap<u64, OfClient>,
}

#[derive(Debug)]
struct OfClient {
    gateway: GatewayKey,
    synced: Option<Sequence>,
    /// Listeners that it can't bind.
    refused: BTreeSet<String>,
    bound: Option<Fingerprint>,
    left: Option<Instant>,
}

impl Bound {
    /// From this point of the history on, a Gateway has these listeners; `None`: it is gone.
    pub fn publish(&mut self, sequence: Sequence, listeners: &[(GatewayKey, Option<Fingerprint>)]) {
        for (gateway, fingerprint) in listeners {
            let Some(fingerprint) = fingerprint else {
                self.states.remove(gateway);
                continue;
            };
            let states = self.states.entry(gateway.clone()).or_default();
            states.push_back((sequence, fingerprint.clone()));
            if states.len() > STATES {
                states.pop_front();
            }
        }
    }

    /// What was to be published with a sequence got an older one: there was nothing new in it but that.
    pub fn correct(&mut self, expected: Sequence, actual: Sequence) {
        let states = self.states.values_mut().flatten().filter(|(sequence, _)| *sequence == expected);
        states.for_each(|(sequence, _)| *sequence = actual);
    }

    /// A pod of a Gateway follows.
    pub fn join(&mut self, client: u64, gateway: &GatewayKey) {
        let new =
            OfClient { gateway: gateway.clone(), synced: None, refused: BTreeSet::new(), bound: None, left: None };
        self.clients.insert(client, new);
    }

    /// It has everything up to here, and has bound what it doesn't refuse. Returns whether something new can be told.
    pub fn synced(&mut self, client: u64, sequence: Sequence) -> bool {
        self.edit(client, |of_client| of_client.synced = Some(sequence))
    }

    /// It can't bind these listeners. Returns whether something new can be told.
    pub fn refuse(&mut self, client: u64, names: impl IntoIterator<Item = String>) -> bool {
        self.edit(client, |of_client| of_client.refused.extend(names))
    }

    /// It has bound them by now, or they are gone. Returns whether something new can be told.
    pub fn mend<'a>(&mut self, client: u64, names: impl IntoIterator<Item = &'a str>) -> bool {
        let mended: BTreeSet<&str> = names.into_iter().collect();
        self.edit(client, |of_client| of_client.refused.retain(|name| !mended.contains(name.as_str())))
    }

    /// Its stream has ended.
    pub fn leave(&mut self, client: u64, now: Instant) {
        if let Some(of_client) = self.clients.get_mut(&client) {
            of_client.left = Some(now);
        }
    }

    fn edit(&mut self, client: u64, edit: impl FnOnce(&mut OfClient)) -> bool {
        let Some(of_client) = self.clients.get_mut(&client) else { return false };
        edit(of_client);
        let states = self.states.get(&of_client.gateway).into_iter().flatten().rev();
        let at = |synced: Sequence| states.map(|(since, state)| (*since, state)).find(|(since, _)| *since <= synced);
        let has = of_client.synced.filter(|_| of_client.refused.is_empty()).and_then(at);
        let now = has.map(|(_, state)| state.clone());
        std::mem::replace(&mut of_client.bound, now.clone()) != now
    }

    /// Forgets clients that went away a while ago.
    pub fn tidy(&mut self, now: Instant) {
        self.clients.retain(|_, c| c.left.is_none_or(|left| now.duration_since(left) < REMEMBERED));
    }

    /// By Gateway, as it is told to other replicas.
    pub fn report(&self) -> Report {
        let mut report = Report::new();
        for of_client in self.clients.values() {
            let Some(bound) = &of_client.bound else { continue };
            report.entry(of_client.gateway.to_string()).or_default().insert(bound.clone());
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> GatewayKey {
        GatewayKey::new("edge", "web")
    }

    fn print(listeners: &[(&str, &str)]) -> Fingerprint {
        Fingerprint::of(
            &listeners.iter().map(|(name, body)| ((*name).to_owned(), Version::of(body.as_bytes()))).collect(),
        )
    }

    fn told(bound: &Bound) -> Vec<Fingerprint> {
        bound.report().remove("edge/web").unwrap_or_default().into_iter().collect()
    }

    #[test]
    fn a_fingerprint_is_of_names_and_contents() {
        let one = print(&[("edge/web/http", "80"), ("edge/web/https", "443")]);
        assert_eq!(one, print(&[("edge/web/https", "443"), ("edge/web/http", "80")]));
        for other in [
            &[("edge/web/http", "80")][..],
            &[("edge/web/http", "80"), ("edge/web/https", "444")],
            &[("edge/web/http", "443"), ("edge/web/https", "80")],
            &[],
        ] {
            assert_ne!(one, print(other), "{other:?}");
        }
    }

    #[test]
    fn a_pod_has_bound_what_there_was_at_the_point_that_it_has_come_to() {
        let (old, new) = (print(&[("a", "1")]), print(&[("a", "2")]));
        let mut bound = Bound::default();
        bound.publish(Sequence(3), &[(web(), Some(old.clone()))]);
        bound.join(1, &web());
        assert!(!bound.synced(1, Sequence(2)) && told(&bound).is_empty(), "before there was one");
        assert!(bound.synced(1, Sequence(5)));
        assert_eq!(told(&bound), std::slice::from_ref(&old), "what else was published meanwhile doesn't matter");
        bound.publish(Sequence(7), &[(web(), Some(new.clone()))]);
        assert!(!bound.synced(1, Sequence(6)));
        assert!(bound.synced(1, Sequence(7)));
        assert_eq!(told(&bound), std::slice::from_ref(&new));
        bound.join(2, &web());
        bound.synced(2, Sequence(3));
        assert_eq!(told(&bound).len(), 2, "another pod is behind");
        bound.join(3, &GatewayKey::new("edge", "other"));
        assert!(!bound.synced(3, Sequence(7)) && bound.report().len() == 1, "nothing is known of another Gateway");
        bound.publish(Sequence(8), &[(web(), None)]);
        assert!(bound.synced(1, Sequence(8)) && bound.synced(2, Sequence(8)) && told(&bound).is_empty(), "it is gone");
    }

    #[test]
    fn with_a_listener_that_is_refused_nothing_is_told_until_it_is_mended() {
        let state = print(&[("a", "1"), ("b", "1")]);
        let mut bound = Bound::default();
        bound.publish(Sequence(1), &[(web(), Some(state.clone()))]);
        bound.join(1, &web());
        bound.refuse(1, ["b".to_owned()]);
        assert!(!bound.synced(1, Sequence(1)) && told(&bound).is_empty());
        assert!(!bound.mend(1, ["a"]) && told(&bound).is_empty(), "not the one");
        assert!(bound.mend(1, ["b"]), "nothing else comes: it is in sync already");
        assert_eq!(told(&bound), [state]);
        assert!(bound.refuse(1, ["a".to_owned()]) && told(&bound).is_empty());
        assert!(!bound.synced(9, Sequence(1)) && !bound.refuse(9, ["a".to_owned()]), "a client that isn't there");
    }

    #[test]
    fn a_publication_that_turns_out_to_be_none_is_the_state_of_now() {
        let state = print(&[]);
        let mut bound = Bound::default();
        bound.publish(Sequence(5), &[(web(), Some(state.clone()))]);
        bound.correct(Sequence(5), Sequence(4));
        bound.join(1, &web());
        assert!(bound.synced(1, Sequence(4)));
        assert_eq!(told(&bound), [state]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_went_away_counts_for_a_while() {
        let state = print(&[("a", "1")]);
        let mut bound = Bound::default();
        bound.publish(Sequence(1), &[(web(), Some(state.clone()))]);
        bound.join(1, &web());
        bound.synced(1, Sequence(1));
        bound.leave(1, Instant::now());
        bound.tidy(Instant::now() + REMEMBERED / 2);
        assert_eq!(told(&bound), [state]);
        bound.tidy(Instant::now() + REMEMBERED);
        assert!(told(&bound).is_empty());
    }
}
