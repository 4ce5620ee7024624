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

use super::refusals::first_bytes;

/// A pod whose stream has ended may be back at once, at another replica too: what it has bound counts for so long.
pub const REMEMBERED: Duration = Duration::from_secs(30);
/// States of a Gateway that are remembered: pods that are further behind aren't up to date anyway.
const STATES: usize = 64;
/// A pod that refuses more listeners than that is told nothing of, as one that isn't up to date: what replicas tell each
/// other is a ConfigMap, and has a mebibyte at most.
const MOST_REFUSED: usize = 64;

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

/// What a pod has bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bindings {
    /// All listeners that its Gateway had then.
    All(Fingerprint),
    /// All but these.
    AllBut {
        /// The listeners that its Gateway had then.
        listeners: Fingerprint,
        /// Those that it can't bind or won't have, by the names of their resources, and why.
        refused: BTreeMap<String, String>,
    },
}

impl Bindings {
    /// The listeners that its Gateway had then.
    pub const fn listeners(&self) -> &Fingerprint {
        match self {
            Self::All(listeners) | Self::AllBut { listeners, .. } => listeners,
        }
    }

    /// Those of them that it hasn't bound, and why; `None`: there are none.
    pub const fn refused(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::All(_) => None,
            Self::AllBut { refused, .. } => Some(refused),
        }
    }
}

/// What one replica tells: what pods of each Gateway, by `namespace/name`, have bound.
pub type Report = BTreeMap<String, BTreeSet<Bindings>>;

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
    /// Listeners that it can't bind or won't have, and why.
    refused: BTreeMap<String, String>,
    bound: Option<Bindings>,
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
            OfClient { gateway: gateway.clone(), synced: None, refused: BTreeMap::new(), bound: None, left: None };
        self.clients.insert(client, new);
    }

    /// It has everything up to here, and has bound what it doesn't refuse. Returns whether something new can be told.
    pub fn synced(&mut self, client: u64, sequence: Sequence) -> bool {
        self.edit(client, |of_client| of_client.synced = Some(sequence))
    }

    /// It can't bind these listeners, or won't have them; by name, with the reason. Returns whether something new can be told.
    pub fn refuse(&mut self, client: u64, refused: impl IntoIterator<Item = (String, String)>) -> bool {
        let refused = refused.into_iter().map(|(name, reason)| (name, first_bytes(&reason)));
        self.edit(client, |of_client| of_client.refused.extend(refused))
    }

    /// It has bound them by now, or they are gone. Returns whether something new can be told.
    pub fn mend<'a>(&mut self, client: u64, names: impl IntoIterator<Item = &'a str>) -> bool {
        let mended: BTreeSet<&str> = names.into_iter().collect();
        self.edit(client, |of_client| of_client.refused.retain(|name, _| !mended.contains(name.as_str())))
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
        let has = of_client.synced.filter(|_| of_client.refused.len() <= MOST_REFUSED).and_then(at);
        let now = has.map(|(_, state)| match of_client.refused.is_empty() {
            true => Bindings::All(state.clone()),
            false => Bindings::AllBut { listeners: state.clone(), refused: of_client.refused.clone() },
        });
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

    fn told(bound: &Bound) -> Vec<Bindings> {
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
        assert_eq!(told(&bound), [Bindings::All(old)], "what else was published meanwhile doesn't matter");
        bound.publish(Sequence(7), &[(web(), Some(new.clone()))]);
        assert!(!bound.synced(1, Sequence(6)));
        assert!(bound.synced(1, Sequence(7)));
        assert_eq!(told(&bound), [Bindings::All(new)]);
        bound.join(2, &web());
        bound.synced(2, Sequence(3));
        assert_eq!(told(&bound).len(), 2, "another pod is behind");
        bound.join(3, &GatewayKey::new("edge", "other"));
        assert!(!bound.synced(3, Sequence(7)) && bound.report().len() == 1, "nothing is known of another Gateway");
        bound.publish(Sequence(8), &[(web(), None)]);
        assert!(bound.synced(1, Sequence(8)) && bound.synced(2, Sequence(8)) && told(&bound).is_empty(), "it is gone");
    }

    #[test]
    fn a_listener_that_is_refused_is_told_with_its_reason_until_it_is_mended() {
        let state = print(&[("a", "1"), ("b", "1")]);
        let refusal = |name: &str| [(name.to_owned(), "in use".to_owned())];
        let but = |name: &str| Bindings::AllBut { listeners: state.clone(), refused: refusal(name).into() };
        let mut bound = Bound::default();
        bound.publish(Sequence(1), &[(web(), Some(state.clone()))]);
        bound.join(1, &web());
        assert!(!bound.refuse(1, refusal("b")) && told(&bound).is_empty(), "it hasn't come to any state");
        assert!(bound.synced(1, Sequence(1)));
        assert_eq!(told(&bound), [but("b")]);
        assert!(!bound.mend(1, ["a"]), "not the one");
        assert_eq!(told(&bound), [but("b")]);
        assert!(bound.mend(1, ["b"]), "nothing else comes: it is in sync already");
        assert_eq!(told(&bound), [Bindings::All(state.clone())]);
        assert!(bound.refuse(1, refusal("a")));
        assert_eq!(told(&bound), [but("a")]);
        assert!(!bound.synced(9, Sequence(1)) && !bound.refuse(9, refusal("a")), "a client that isn't there");
    }

    #[test]
    fn what_is_told_of_refusals_has_limits() {
        let state = print(&[("a", "1")]);
        let mut bound = Bound::default();
        bound.publish(Sequence(1), &[(web(), Some(state))]);
        bound.join(1, &web());
        bound.synced(1, Sequence(1));
        let refuse = |n: usize| (format!("l{n}"), "x".repeat(5000));
        bound.refuse(1, (0..MOST_REFUSED).map(refuse));
        let told_of = told(&bound);
        let refused = told_of[0].refused().unwrap();
        assert_eq!((refused.len(), refused["l0"].len()), (MOST_REFUSED, 256));
        bound.refuse(1, [refuse(MOST_REFUSED)]);
        assert!(told(&bound).is_empty(), "less is told than is known, never more");
    }

    /// Replicas of two versions tell each other during an upgrade.
    #[test]
    fn a_report_without_refusals_is_as_it_always_was() {
        let state = print(&[("a", "1")]);
        let report = Report::from([("edge/web".to_owned(), BTreeSet::from([Bindings::All(state.clone())]))]);
        let text = serde_json::to_value(&report).unwrap();
        assert_eq!(text, serde_json::json!({ "edge/web": [state] }));
        assert_eq!(serde_json::from_value::<Report>(text).unwrap(), report);
        let but = Bindings::AllBut { listeners: state, refused: [("b".to_owned(), "in use".to_owned())].into() };
        let report = Report::from([("edge/web".to_owned(), BTreeSet::from([but]))]);
        let text = serde_json::to_value(&report).unwrap();
        assert_eq!(serde_json::from_value::<Report>(text).unwrap(), report);
    }

    #[test]
    fn a_publication_that_turns_out_to_be_none_is_the_state_of_now() {
        let state = print(&[]);
        let mut bound = Bound::default();
        bound.publish(Sequence(5), &[(web(), Some(state.clone()))]);
        bound.correct(Sequence(5), Sequence(4));
        bound.join(1, &web());
        assert!(bound.synced(1, Sequence(4)));
        assert_eq!(told(&bound), [Bindings::All(state)]);
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
        assert_eq!(told(&bound), [Bindings::All(state)]);
        bound.tidy(Instant::now() + REMEMBERED);
        assert!(told(&bound).is_empty());
    }
}
