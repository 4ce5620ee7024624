//! What is bound of the listeners of Gateways, by the word of the proxy that listens for them: that of the primary's own node.
//! No I/O.
//!
//! A proxy acknowledges a listener when every worker has bound it, and refuses one that can't be by name until it can. So a
//! proxy in sync with a point of the history has bound what was published up to there but what it refuses. The word of the
//! newest process counts, also for a while after its stream has ended; never again that of one before it, which has given its
//! places up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::ids::{GatewayKey, ListenerKey};
use weft_core::wire;
use weft_xds::server::{Refusal, Sequence};

/// A proxy whose stream has ended may be back at once: what it has bound counts for so long.
const REMEMBERED: Duration = Duration::from_secs(30);

/// Gateways whose listeners are bound as they are now, each with those that can't be, and why.
pub type Bound = BTreeMap<GatewayKey, BTreeMap<ListenerKey, String>>;

/// How far the proxy is that listens for Gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Up to here it has bound what it doesn't refuse; `None`: nobody listens.
    pub synced: Option<Sequence>,
    /// Listeners that it can't bind or won't have, and why.
    pub refused: BTreeMap<ListenerKey, String>,
    /// When that counts no more, unless something else is heard: its stream has ended.
    pub until: Option<Instant>,
}

/// The streams of a node's proxies. There is more than one while a proxy that was replaced serves its connections to the end:
/// it follows on, and has given its places up.
#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<u64, OfStream>,
    /// When the newest process was started that has ever said anything.
    newest: u64,
}

#[derive(Debug)]
struct OfStream {
    /// When its process was started; more is later.
    since: u64,
    listening: Listening,
}

impl OfStream {
    const fn is_open(&self) -> bool {
        self.listening.until.is_none()
    }
}

impl Streams {
    /// A proxy whose process was started at `since` asks for listeners.
    pub fn join(&mut self, stream: u64, since: u64) {
        self.streams.entry(stream).or_insert_with(|| OfStream { since, listening: Listening::default() });
    }

    /// It has everything up to here, and has bound what it doesn't refuse.
    pub fn synced(&mut self, stream: u64, sequence: Sequence) {
        self.edit(stream, |listening| listening.synced = Some(sequence));
        let since = self.streams.get(&stream).map_or(0, |of_stream| of_stream.since);
        self.newest = self.newest.max(since);
    }

    /// It refuses these resources of a type.
    pub fn refuse(&mut self, stream: u64, type_url: &str, refused: &[Refusal]) {
        let listeners = refused.iter().filter_map(|it| Some((listener(type_url, &it.name)?, it.reason.clone())));
        self.edit(stream, |listening| listening.refused.extend(listeners));
    }

    /// It has taken these resources of a type by now, or they are gone.
    pub fn mend<'a>(&mut self, stream: u64, type_url: &str, names: impl IntoIterator<Item = &'a str>) {
        let listeners: BTreeSet<_> = names.into_iter().filter_map(|name| listener(type_url, name)).collect();
        self.edit(stream, |listening| listening.refused.retain(|key, _| !listeners.contains(key)));
    }

    /// Its stream has ended.
    pub fn leave(&mut self, stream: u64, now: Instant) {
        self.edit(stream, |listening| listening.until = Some(now + REMEMBERED));
    }

    /// The word of the newest process that has come as far as to say anything, if that still counts.
    pub fn listening(&mut self, now: Instant) -> Listening {
        self.streams.retain(|_, it| it.listening.until.is_none_or(|until| now < until));
        let said = self.streams.iter().filter(|(_, it)| it.listening.synced.is_some() && it.since >= self.newest);
        let last = said.max_by_key(|(stream, it)| (it.is_open(), **stream));
        last.map(|(_, it)| it.listening.clone()).unwrap_or_default()
    }

    fn edit(&mut self, stream: u64, edit: impl FnOnce(&mut Listening)) {
        if let Some(of_stream) = self.streams.get_mut(&stream) {
            edit(&mut of_stream.listening);
        }
    }
}

fn listener(type_url: &str, name: &str) -> Option<ListenerKey> {
    match wire::parse_name(type_url, name) {
        Ok(ResourceKey::Listener(key)) => Some(key),
        _ => None,
    }
}

/// The listeners that are published of each Gateway.
#[derive(Debug, Default)]
pub(super) struct Published(BTreeMap<GatewayKey, OfGateway>);

#[derive(Debug, Default)]
struct OfGateway {
    listeners: BTreeSet<ListenerKey>,
    /// Since when they are as they are; `None` until that is published.
    since: Option<Sequence>,
}

impl Published {
    /// Notes what is about to be published.
    pub(super) fn note(&mut self, changes: &[Change]) {
        for change in changes {
            let (key, is_there) = match change {
                Change::Upsert(Resource::Listener(listener)) => (&listener.key, true),
                Change::Remove(ResourceKey::Listener(key)) => (key, false),
                _ => continue,
            };
            let of_gateway = self.0.entry(key.gateway.clone()).or_default();
            of_gateway.since = None;
            match is_there {
                true => drop(of_gateway.listeners.insert(key.clone())),
                false => drop(of_gateway.listeners.remove(key)),
            }
        }
        self.0.retain(|_, of_gateway| !of_gateway.listeners.is_empty());
    }

    /// What was noted is published now.
    pub(super) fn at(&mut self, sequence: Sequence) {
        for of_gateway in self.0.values_mut() {
            of_gateway.since.get_or_insert(sequence);
        }
    }

    /// What of it is bound.
    pub(super) fn bound(&self, by: &Listening) -> Bound {
        let reached = |since: Option<Sequence>| since.zip(by.synced).is_some_and(|(since, synced)| since <= synced);
        let of = |(gateway, it): (&GatewayKey, &OfGateway)| {
            let refused = by.refused.iter().filter(|(key, _)| it.listeners.contains(*key));
            (gateway.clone(), refused.map(|(key, why)| (key.clone(), why.clone())).collect())
        };
        self.0.iter().filter(|(_, it)| reached(it.since)).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_core::gateway::{Listener, ListenerProtocol};
    use weft_core::ids::Port;

    use super::*;

    fn key(gateway: &str, name: &str) -> ListenerKey {
        ListenerKey::new(GatewayKey::new("edge", gateway), name)
    }

    fn upsert(gateway: &str, name: &str) -> Change {
        Change::Upsert(Resource::Listener(Arc::new(Listener {
            key: key(gateway, name),
            addresses: Vec::new(),
            port: Port::new(80).unwrap(),
            hostname: None,
            protocol: ListenerProtocol::Http,
            kinds: Vec::new(),
            client_validation: None,
            policies: Vec::new(),
            http3: false,
        })))
    }

    fn refusal(name: &str, reason: &str) -> Refusal {
        Refusal { name: name.into(), reason: reason.into() }
    }

    /// `gateway` if all of it is bound, else each listener that isn't.
    fn told(published: &Published, by: &Listening) -> Vec<String> {
        let bound = published.bound(by);
        let told = bound.iter().flat_map(|(gateway, refused)| match refused.is_empty() {
            true => vec![gateway.to_string()],
            false => refused.iter().map(|(key, why)| format!("{key}: {why}")).collect(),
        });
        told.collect()
    }

    #[test]
    fn a_gateway_is_bound_when_the_proxy_has_come_as_far_as_its_listeners_and_but_for_what_it_refuses() {
        let mut published = Published::default();
        published.note(&[upsert("a", "http"), upsert("a", "more"), upsert("b", "http")]);
        let at = |synced: u64| Listening { synced: Some(Sequence(synced)), ..Listening::default() };
        assert_eq!(told(&published, &at(9)), Vec::<String>::new(), "it isn't published yet");
        published.at(Sequence(3));
        assert_eq!(told(&published, &Listening::default()), Vec::<String>::new(), "nobody listens");
        assert_eq!(told(&published, &at(2)), Vec::<String>::new());
        assert_eq!(told(&published, &at(3)), ["edge/a", "edge/b"]);
        let refused: BTreeMap<_, _> =
            [(key("a", "more"), "in use".to_owned()), (key("b", "gone"), "odd".to_owned())].into();
        let refusing = |synced: u64| Listening { refused: refused.clone(), ..at(synced) };
        assert_eq!(told(&published, &refusing(3)), ["edge/a/more: in use", "edge/b"], "its neighbours are bound");

        // Only what was edited is waited for.
        published.note(&[upsert("b", "http")]);
        assert_eq!(told(&published, &at(3)), ["edge/a"]);
        published.at(Sequence(4));
        assert_eq!((told(&published, &at(3)), told(&published, &at(4)).len()), (vec!["edge/a".to_owned()], 2));
        published.note(&[Change::Remove(ResourceKey::Mesh), Change::Remove(ResourceKey::Listener(key("a", "more")))]);
        published.at(Sequence(5));
        assert_eq!(told(&published, &refusing(5)), ["edge/a", "edge/b"], "what is gone is refused by nobody");
        published.note(&[Change::Remove(ResourceKey::Listener(key("b", "http")))]);
        published.at(Sequence(6));
        assert_eq!(told(&published, &at(6)), ["edge/a"]);
    }

    /// How far it is, what it refuses, and for how long that counts.
    fn heard(streams: &mut Streams, now: Instant) -> (Option<u64>, Vec<String>, Option<Duration>) {
        let Listening { synced, refused, until } = streams.listening(now);
        (synced.map(|synced| synced.0), refused.into_values().collect(), until.map(|until| until - now))
    }

    #[test]
    fn the_newest_process_is_believed_once_it_has_said_anything() {
        let (mut streams, now) = (Streams::default(), Instant::now());
        let refused = |streams: &mut Streams| heard(streams, now).1;
        let nobody = (None, Vec::new(), None);
        streams.synced(1, Sequence(1));
        assert_eq!(heard(&mut streams, now), nobody, "who doesn't ask for listeners has bound none");
        streams.join(1, 100);
        streams.refuse(1, wire::LISTENER, &[refusal("edge/a/http", "old"), refusal("no name", "x")]);
        assert_eq!(streams.listening(now).synced, None, "it is at it still");
        streams.synced(1, Sequence(1));
        assert_eq!(heard(&mut streams, now), (Some(1), vec!["old".to_owned()], None));

        streams.join(2, 200);
        streams.refuse(2, wire::LISTENER, &[refusal("edge/a/http", "new"), refusal("edge/a/more", "new")]);
        assert_eq!(refused(&mut streams), ["old"], "it serves until its successor does");
        streams.synced(2, Sequence(1));
        assert_eq!(refused(&mut streams), ["new", "new"]);
        // The one that drains comes back with another stream, and says that nothing is wrong.
        streams.leave(1, now);
        streams.join(3, 100);
        streams.synced(3, Sequence(9));
        assert_eq!(heard(&mut streams, now), (Some(1), vec!["new".to_owned(); 2], None));

        streams.mend(2, wire::TYPE_URLS[0], ["edge/a/http"]);
        assert_eq!(refused(&mut streams).len(), 2, "another type");
        streams.mend(2, wire::LISTENER, ["edge/a/http"]);
        assert_eq!(streams.listening(now).refused.into_keys().collect::<Vec<_>>(), [key("a", "more")]);
    }

    #[test]
    fn what_a_proxy_said_counts_for_a_while_after_its_stream_has_ended() {
        let (mut streams, start) = (Streams::default(), Instant::now());
        let refused = [refusal("edge/a/http", "in use")];
        streams.join(1, 100);
        streams.refuse(1, wire::LISTENER, &refused);
        streams.synced(1, Sequence(4));
        let said = |counts: Option<Duration>| (Some(4), vec!["in use".to_owned()], counts);
        assert_eq!(heard(&mut streams, start), said(None));
        streams.leave(1, start);
        assert_eq!(heard(&mut streams, start), said(Some(REMEMBERED)));
        let half = start + REMEMBERED / 2;
        assert_eq!(heard(&mut streams, half), said(Some(REMEMBERED / 2)));
        // It is back, and has its say again when it has come as far as to say something.
        streams.join(2, 100);
        assert_eq!(heard(&mut streams, half), said(Some(REMEMBERED / 2)));
        streams.synced(2, Sequence(5));
        assert_eq!(heard(&mut streams, half), (Some(5), Vec::new(), None));
        assert_eq!(heard(&mut streams, start + REMEMBERED * 9), (Some(5), Vec::new(), None));

        let end = start + REMEMBERED * 10;
        streams.leave(2, end);
        assert_eq!(heard(&mut streams, end + REMEMBERED - Duration::from_nanos(1)).0, Some(5));
        assert_eq!(heard(&mut streams, end + REMEMBERED), (None, Vec::new(), None));
        assert!(streams.streams.is_empty());
    }

    /// A half-open stream of before is noticed after the one that follows it.
    #[test]
    fn of_one_process_an_open_stream_counts_before_one_that_has_ended() {
        let (mut streams, now) = (Streams::default(), Instant::now());
        for (stream, sequence) in [(1, 1), (2, 2)] {
            streams.join(stream, 100);
            streams.synced(stream, Sequence(sequence));
        }
        assert_eq!(heard(&mut streams, now).0, Some(2));
        streams.leave(1, now);
        assert_eq!(heard(&mut streams, now), (Some(2), Vec::new(), None));
        streams.join(3, 100);
        streams.synced(3, Sequence(3));
        streams.leave(3, now);
        assert_eq!(heard(&mut streams, now), (Some(2), Vec::new(), None));
    }

    #[test]
    fn a_process_that_was_replaced_never_has_the_say_again() {
        let (mut streams, now) = (Streams::default(), Instant::now());
        for (stream, since) in [(1, 100), (2, 200)] {
            streams.join(stream, since);
            streams.synced(stream, Sequence(stream));
        }
        streams.leave(2, now);
        assert_eq!(heard(&mut streams, now).0, Some(2), "its successor may be back soon");
        assert_eq!(heard(&mut streams, now + REMEMBERED), (None, Vec::new(), None), "it has given its places up");
        streams.join(3, 100);
        streams.synced(3, Sequence(3));
        assert_eq!(heard(&mut streams, now + REMEMBERED).0, None, "nor with another stream");
        streams.join(4, 300);
        assert_eq!(heard(&mut streams, now + REMEMBERED).0, None, "one that is starting has bound nothing");
        streams.synced(4, Sequence(4));
        assert_eq!(heard(&mut streams, now + REMEMBERED).0, Some(4));
    }
}
