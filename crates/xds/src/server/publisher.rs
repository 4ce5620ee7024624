//! What is published, and what changed since when.

use std::collections::{BTreeMap, HashMap, VecDeque, btree_map};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{Encoded, ResourceName, TypeUrl, Update, Version};

/// So many changed names are always remembered, and as many as there are resources. A stream that falls further behind compares
/// everything it holds, which is no more work by then than going through the names.
const LOG_NAMES: usize = 8192;

/// A point in the history of a [`Publisher`]; each batch of changes makes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// The resources that are served; cheap to clone, all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: RwLock<State>,
    sequence: watch::Sender<Sequence>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    types: HashMap<TypeUrl, BTreeMap<Arc<str>, Entry>>,
    /// Oldest first, in whole batches.
    log: VecDeque<(Sequence, ResourceName)>,
    sequence: Sequence,
}

/// A published resource.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) version: Version,
    pub(super) body: Bytes,
}

/// What changed since a point in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Names(Vec<ResourceName>),
    /// Too long ago to know.
    Everything,
}

impl Publisher {
    /// Publishes a batch of changes; what is the same as before is left out. Returns the point in time after it.
    pub fn publish(&self, updates: impl IntoIterator<Item = Update>) -> Sequence {
        let now = {
            let mut state = self.inner.state.write().unwrap_or_else(PoisonError::into_inner);
            state.apply(updates)
        };
        self.inner.sequence.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        now
    }

    /// The latest point in time.
    pub fn sequence(&self) -> Sequence {
        *self.inner.sequence.borrow()
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.read().types.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Sequence> {
        self.inner.sequence.subscribe()
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.inner.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Sequence {
        let next = Sequence(self.sequence.0 + 1);
        let mut changed = false;
        for update in updates {
            if let Some(name) = self.change(update) {
                self.log.push_back((next, name));
                changed = true;
            }
        }
        if changed {
            self.sequence = next;
            self.forget();
        }
        self.sequence
    }

    /// The name of what is another than before: that of the resource which is there, so that it is in memory once, however
    /// often it changes.
    fn change(&mut self, update: Update) -> Option<ResourceName> {
        let of = &update.name().type_url;
        let type_url = self.types.get_key_value(of).map_or_else(|| of.clone(), |(kept, _)| kept.clone());
        let entries = self.types.entry(type_url.clone()).or_default();
        let name = match update {
            Update::Set(Encoded { name, body }) => {
                let entry = Entry { version: Version::of(&body), body };
                match entries.entry(name.name) {
                    btree_map::Entry::Vacant(place) => {
                        let name = Arc::clone(place.key());
                        place.insert(entry);
                        name
                    }
                    btree_map::Entry::Occupied(mut place) => {
                        let before = std::mem::replace(place.get_mut(), entry);
                        (before.version != place.get().version).then(|| Arc::clone(place.key()))?
                    }
                }
            }
            Update::Remove(name) => entries.remove_entry(&name.name)?.0,
        };
        Some(ResourceName { type_url, name })
    }

    /// Drops the oldest batches of a log that is too long.
    fn forget(&mut self) {
        let kept = self.types.values().map(BTreeMap::len).sum::<usize>().max(LOG_NAMES);
        let Some((last, _)) = self.log.len().checked_sub(kept + 1).and_then(|over| self.log.get(over)) else { return };
        let last = *last;
        self.log.drain(..self.log.partition_point(|(at, _)| *at <= last));
        self.log.shrink_to(kept.saturating_mul(2));
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// What changed after `since`.
    pub(super) fn changed_since(&self, since: Sequence) -> Changed {
        if since >= self.sequence {
            return Changed::Names(Vec::new());
        }
        // The batch that follows `since` must still be in the log.
        match self.log.front() {
            Some((oldest, _)) if oldest.0 <= since.0 + 1 => {
                let first = self.log.partition_point(|(at, _)| *at <= since);
                Changed::Names(self.log.range(first..).map(|(_, name)| name).cloned().collect())
            }
            _ => Changed::Everything,
        }
    }

    pub(super) fn get(&self, type_url: &TypeUrl, name: &str) -> Option<&Entry> {
        self.types.get(type_url)?.get(name)
    }

    pub(super) fn names<'a>(&'a self, type_url: &TypeUrl) -> impl Iterator<Item = &'a Arc<str>> {
        self.types.get(type_url).into_iter().flat_map(BTreeMap::keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, body: &str) -> Update {
        let name = ResourceName::new(TypeUrl::new("t"), name);
        Update::Set(Encoded { name, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    #[test]
    fn what_changed_since_any_time_is_known_until_it_is_too_long_ago() {
        let mut state = State::default();
        let changed = |state: &State, since: u64| match state.changed_since(Sequence(since)) {
            Changed::Names(names) => names.iter().map(|n| n.name.to_string()).collect::<Vec<_>>().join(","),
            Changed::Everything => "everything".to_owned(),
        };
        for name in ["a", "b", "c"] {
            state.apply([set(name, "1")]);
        }
        let since: Vec<_> = (0..=4).map(|since| changed(&state, since)).collect();
        assert_eq!(since, ["a,b,c", "b,c", "c", "", ""]);
        let after = LOG_NAMES as u64;
        for n in 0..after {
            state.apply([set("a", &format!("body {n}"))]);
        }
        // Two batches of the first three are forgotten, and with them what changed after them.
        assert_eq!((changed(&state, 2).as_str(), changed(&state, after + 2).as_str()), ("everything", "a"));
        assert_eq!(changed(&state, 3).len(), 2 * LOG_NAMES - 1);
    }

    #[test]
    fn as_many_changes_are_known_as_there_are_resources() {
        let mut state = State::default();
        let many = 3 * LOG_NAMES;
        state.apply((0..many).map(|n| set(&format!("n{n}"), "1")));
        assert!(matches!(state.changed_since(Sequence(0)), Changed::Names(names) if names.len() == many));
        state.apply([set("n0", "2")]);
        assert_eq!(state.changed_since(Sequence(0)), Changed::Everything, "a batch is known whole or not at all");
        assert!(matches!(state.changed_since(Sequence(1)), Changed::Names(names) if names.len() == 1));
        let all: Vec<_> = (0..many).map(|n| Update::Remove(set(&format!("n{n}"), "").name().clone())).collect();
        state.apply(all);
        assert_eq!(state.log.len(), 0, "a batch that is longer than what is there is no use");
        assert_eq!(state.changed_since(Sequence(2)), Changed::Everything);
        assert_eq!(state.changed_since(Sequence(3)), Changed::Names(Vec::new()));
    }

    #[test]
    fn a_name_is_in_memory_once_however_often_its_resource_changes() {
        let mut state = State::default();
        for n in 0..100 {
            state.apply([set("a", &format!("body {n}"))]);
        }
        let Changed::Names(names) = state.changed_since(Sequence(0)) else { panic!("everything") };
        assert_eq!(names.len(), 100);
        assert!(names.iter().all(|name| Arc::ptr_eq(&name.name, &names[0].name)));
        // Those here, those of the log, and the resource's.
        assert_eq!(Arc::strong_count(&names[0].name), 201);
    }
}
