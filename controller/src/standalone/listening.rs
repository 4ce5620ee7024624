//! What is bound of the listeners of Gateways, by the word of the proxy that listens for them: that of the primary's own node.
//! No I/O.
//!
//! A proxy acknowledges a listener when every worker has bound it, and refuses one that can't be by name until it can. So a
//! proxy in sync with a point of the history has bound what was published up to there but what it refuses.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::ids::{GatewayKey, ListenerKey};
use weft_core::wire;
use weft_xds::server::{Refusal, Sequence};

/// Gateways whose listeners are bound as they are now, each with those that can't be, and why.
pub type Bound = BTreeMap<GatewayKey, BTreeMap<ListenerKey, String>>;

/// How far the proxy is that listens for Gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Up to here it has bound what it doesn't refuse; `None`: nobody listens.
    pub synced: Option<Sequence>,
    /// Listeners that it can't bind or won't have, and why.
    pub refused: BTreeMap<ListenerKey, String>,
}

/// The streams of a node's proxies. There is more than one while a proxy that was replaced serves its connections to the end:
/// it follows on, and has given its places up.
#[derive(Debug, Default)]
pub struct Streams(BTreeMap<u64, OfStream>);

#[derive(Debug)]
struct OfStream {
    /// When its process was started; more is later.
    since: u64,
    listening: Listening,
}

impl Streams {
    /// A proxy whose process was started at `since` asks for listeners.
    pub fn join(&mut self, stream: u64, since: u64) {
        self.0.entry(stream).or_insert_with(|| OfStream { since, listening: Listening::default() });
    }

    /// It has everything up to here, and has bound what it doesn't refuse.
    pub fn synced(&mut self, stream: u64, sequence: Sequence) {
        self.edit(stream, |listening| listening.synced = Some(sequence));
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
    pub fn leave(&mut self, stream: u64) {
        self.0.remove(&stream);
    }

    /// The word of the newest process that has come as far as to say anything.
    pub fn listening(&self) -> Listening {
        let said = self.0.iter().filter(|(_, it)| it.listening.synced.is_some());
        let newest = said.max_by_key(|(stream, it)| (it.since, **stream));
        newest.map(|(_, it)| it.listening.clone()).unwrap_or_default()
    }

    fn edit(&mut self, stream: u64, edit: impl FnOnce(&mut Listening)) {
        if let Some(of_stream) = self.0.get_mut(&stream) {
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
        let at = |synced: u64| Listening { synced: Some(Sequence(synced)), refused: BTreeMap::new() };
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

    #[test]
    fn the_newest_process_is_believed_once_it_has_said_anything() {
        let mut streams = Streams::default();
        let refused = |streams: &Streams| streams.listening().refused.into_values().collect::<Vec<_>>();
        streams.synced(1, Sequence(1));
        assert_eq!(streams.listening(), Listening::default(), "who doesn't ask for listeners has bound none");
        streams.join(1, 100);
        streams.refuse(1, wire::LISTENER, &[refusal("edge/a/http", "old"), refusal("no name", "x")]);
        assert_eq!(streams.listening(), Listening::default(), "it is at it still");
        streams.synced(1, Sequence(1));
        assert_eq!((streams.listening().synced, refused(&streams)), (Some(Sequence(1)), vec!["old".to_owned()]));

        streams.join(2, 200);
        streams.refuse(2, wire::LISTENER, &[refusal("edge/a/http", "new"), refusal("edge/a/more", "new")]);
        assert_eq!(refused(&streams), ["old"], "it serves until its successor does");
        streams.synced(2, Sequence(1));
        assert_eq!(refused(&streams), ["new", "new"]);
        // The one that drains comes back with another stream, and says that nothing is wrong.
        streams.leave(1);
        streams.join(3, 100);
        streams.synced(3, Sequence(9));
        assert_eq!((streams.listening().synced, refused(&streams).len()), (Some(Sequence(1)), 2));

        streams.mend(2, wire::TYPE_URLS[0], ["edge/a/http"]);
        assert_eq!(refused(&streams).len(), 2, "another type");
        streams.mend(2, wire::LISTENER, ["edge/a/http"]);
        assert_eq!(streams.listening().refused.into_keys().collect::<Vec<_>>(), [key("a", "more")]);
        streams.leave(2);
        streams.leave(3);
        assert_eq!(streams.listening(), Listening::default());
    }
}
