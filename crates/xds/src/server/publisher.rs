//! What is published, and what changed since when.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{ResourceName, TypeUrl, Update, Version};

/// How many changed names are remembered. A stream that falls further behind compares everything it holds.
const LOG_NAMES: usize = 100_000;

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
    log: VecDeque<(Sequence, Vec<ResourceName>)>,
    logged_names: usize,
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
        let mut changed = Vec::new();
        for update in updates {
            let name = update.name().clone();
            let entries = self.types.entry(name.type_url.clone()).or_default();
            let differs = match update {
                Update::Set(encoded) => {
                    let entry = Entry { version: Version::of(&encoded.body), body: encoded.body };
                    let version = entry.version;
                    entries.insert(Arc::clone(&name.name), entry).is_none_or(|before| before.version != version)
                }
                Update::Remove(_) => entries.remove(&name.name).is_some(),
            };
            if differs {
                changed.push(name);
            }
        }
        if !changed.is_empty() {
            self.sequence = Sequence(self.sequence.0 + 1);
            self.logged_names += changed.len();
            self.log.push_back((self.sequence, changed));
            while self.logged_names > LOG_NAMES {
                let Some((_, names)) = self.log.pop_front() else { break };
                self.logged_names -= names.len();
            }
        }
        self.sequence
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// What changed after `since`.
    pub(super) fn changed_since(&self, since: Sequence) -> Changed {
        if since >= self.sequence {
            return Changed::Names(Vec::new());
        }
        // The batch that follows `since` must still be in the log. Each number has one batch: there is nothing to search,
        // however long the log has become.
        let first = self.log.front().and_then(|(oldest, _)| (since.0 + 1).checked_sub(oldest.0));
        match first.and_then(|first| usize::try_from(first).ok()) {
            Some(first) => Changed::Names(self.log.range(first..).flat_map(|(_, names)| names).cloned().collect()),
            None => Changed::Everything,
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
    use crate::Encoded;

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
        state.apply((0..LOG_NAMES - 1).map(|n| set(&format!("n{n}"), "1")));
        assert_eq!((changed(&state, 1), changed(&state, 2).len()), ("everything".into(), changed(&state, 3).len() + 2));
        state.apply((0..=LOG_NAMES).map(|n| set(&format!("n{n}"), "2")));
        assert_eq!((changed(&state, 4).as_str(), changed(&state, 5).as_str()), ("everything", ""));
    }
}
