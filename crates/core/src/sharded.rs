//! Maps whose copy costs one reference count and whose edit copies one shard.
//!
//! A snapshot is immutable, and a new one is made for each batch of changes: with plain maps an edit in a cluster of 100,000
//! workloads would copy them all. Most maps of a frontend have an entry or two, and none of a shard's cost.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Shards of a large map, a power of two: 100,000 entries make shards of 400, which copy in microseconds.
const SHARDS: usize = 256;
/// A map that never had more entries than this has one shard.
const FEW: usize = 64;

const HASHER: FixedState = FixedState::with_seed(0x77_65_66_74);

/// A value that its key is part of, and isn't kept a second time.
pub(crate) trait Keyed {
    /// The key.
    type Key: Eq + Hash;

    /// Hashes as the key does.
    fn hash_key(&self, state: &mut impl Hasher);

    /// Whether this is its key.
    fn has_key(&self, key: &Self::Key) -> bool;
}

/// Entries by a hash that the caller takes of them.
#[derive(Debug)]
struct Shards<T> {
    shards: Arc<[Arc<HashTable<T>>]>,
    len: usize,
}

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards), len: self.len }
    }
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self { shards: Arc::default(), len: 0 }
    }
}

/// By other bits than those that the tables of the shards go by.
fn place(hash: u64, shards: usize) -> usize {
    // Half of the bits always fit.
    usize::try_from(hash >> 32).unwrap_or_default() & shards.wrapping_sub(1)
}

impl<T> Shards<T> {
    fn find(&self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&T> {
        self.shards.get(place(hash, self.shards.len()))?.find(hash, is)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

impl<T: Clone> Shards<T> {
    fn shard_mut(&mut self, hash: u64) -> Option<&mut HashTable<T>> {
        let at = place(hash, self.shards.len());
        Arc::make_mut(&mut self.shards).get_mut(at).map(Arc::make_mut)
    }

    /// The entry, made if it is not there. Never `None`: there is a shard for every hash.
    fn find_or_insert(
        &mut self,
        hash: u64,
        is: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
        hasher: fn(&T) -> u64,
    ) -> Option<&mut T> {
        if self.find(hash, &is).is_none() {
            self.make_room(hasher);
            self.shard_mut(hash)?.insert_unique(hash, make(), hasher);
            self.len += 1;
        }
        self.shard_mut(hash)?.find_mut(hash, is)
    }

    fn remove(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<T> {
        // A shard without it stays shared.
        self.find(hash, &is)?;
        let (removed, _) = self.shard_mut(hash)?.find_entry(hash, is).ok()?.remove();
        self.len -= 1;
        Some(removed)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let shards = Arc::make_mut(&mut self.shards).iter_mut().filter(|shard| !shard.is_empty());
        shards.flat_map(|shard| Arc::make_mut(shard).iter_mut())
    }

    /// For one more.
    fn make_room(&mut self, hasher: fn(&T) -> u64) {
        let wanted = if self.len < FEW { 1 } else { SHARDS };
        if self.shards.len() >= wanted {
            return;
        }
        // One for all, until each has entries of its own.
        let empty = Arc::new(HashTable::new());
        let mut shards = vec![empty; wanted];
        for entry in self.iter() {
            let hash = hasher(entry);
            if let Some(shard) = shards.get_mut(place(hash, wanted)) {
                Arc::make_mut(shard).insert_unique(hash, entry.clone(), hasher);
            }
        }
        self.shards = shards.into();
    }
}

/// A map; see the module.
#[derive(Debug)]
pub(crate) struct ShardedMap<K, V>(Shards<(K, V)>);

impl<K, V> Clone for ShardedMap<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        Self(Shards::default())
    }
}

impl<K: Eq + Hash, V> ShardedMap<K, V> {
    /// The value of a key.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.0.find(HASHER.hash_one(key), |(it, _)| it.borrow() == key);
        found.map(|(_, value)| value)
    }

    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// All entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K: Clone + Eq + Hash, V: Clone> ShardedMap<K, V> {
    fn hash_entry((key, _): &(K, V)) -> u64 {
        HASHER.hash_one(key)
    }

    /// Sets the value of a key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let hash = HASHER.hash_one(&key);
        // Twice a clone of a reference count, at most.
        let made = (key.clone(), value.clone());
        if let Some(entry) = self.0.find_or_insert(hash, |(it, _)| *it == key, || made, Self::hash_entry) {
            entry.1 = value;
        }
    }

    /// Edits the value of a key, which is made if it isn't there: then `own` makes the key.
    pub(crate) fn edit<Q>(&mut self, key: &Q, own: impl FnOnce() -> K, edit: impl FnOnce(&mut V))
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Default,
    {
        let (hash, make) = (HASHER.hash_one(key), || (own(), V::default()));
        if let Some((_, value)) = self.0.find_or_insert(hash, |(it, _)| it.borrow() == key, make, Self::hash_entry) {
            edit(value);
        }
    }

    /// Removes a key and returns its value.
    pub(crate) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let removed = self.0.remove(HASHER.hash_one(key), |(it, _)| it.borrow() == key);
        removed.map(|(_, value)| value)
    }

    /// All values, in no order.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

/// Values by the keys that are part of them; see the module.
#[derive(Debug)]
pub(crate) struct ShardedSet<T>(Shards<T>);

impl<T> Clone for ShardedSet<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for ShardedSet<T> {
    fn default() -> Self {
        Self(Shards::default())
    }
}

impl<T: Keyed> ShardedSet<T> {
    fn hash_entry(entry: &T) -> u64 {
        let mut state = HASHER.build_hasher();
        entry.hash_key(&mut state);
        state.finish()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &T::Key) -> Option<&T> {
        self.0.find(HASHER.hash_one(key), |it| it.has_key(key))
    }

    /// Whether this is the same set as another, of which it was copied, and neither has been edited since. Takes no time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.shards, &other.0.shards)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// All values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T: Keyed + Clone> ShardedSet<T> {
    /// Puts a value in the place of the one with this key, which is its own.
    pub(crate) fn insert(&mut self, key: &T::Key, value: T) {
        let (hash, made) = (HASHER.hash_one(key), value.clone());
        if let Some(entry) = self.0.find_or_insert(hash, |it| it.has_key(key), || made, Self::hash_entry) {
            *entry = value;
        }
    }

    /// Removes a key and returns its value.
    pub(crate) fn remove(&mut self, key: &T::Key) -> Option<T> {
        self.0.remove(HASHER.hash_one(key), |it| it.has_key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key is the first number.
    #[derive(Clone, Debug, PartialEq)]
    struct Pair(u32, u32);

    impl Keyed for Pair {
        type Key = u32;

        fn hash_key(&self, state: &mut impl Hasher) {
            self.0.hash(state);
        }

        fn has_key(&self, key: &u32) -> bool {
            self.0 == *key
        }
    }

    #[test]
    fn an_edit_leaves_the_copy_before_it_as_it_was() {
        // Of one shard, and of many.
        for count in [10, 1000] {
            let mut map = ShardedMap::default();
            (0..count).for_each(|i: u32| map.insert(i, i));
            let before = map.clone();
            map.insert(7, 70);
            assert_eq!((map.remove(&8), map.remove(&8)), (Some(8), None));
            map.edit(&6, || 6, |value| *value = 60);
            map.edit(&5000, || 5000, |value| *value += 1);
            assert_eq!([6, 7, 8].map(|key| before.get(&key).copied()), [Some(6), Some(7), Some(8)]);
            assert_eq!([6, 7, 8, 5000].map(|key| map.get(&key).copied()), [Some(60), Some(70), None, Some(1)]);
            assert_eq!((before.iter().count(), map.iter().count()), (count as usize, count as usize));
            map.values_mut().for_each(|value| *value = 0);
            assert!(map.iter().all(|(_, value)| *value == 0) && before.iter().all(|(key, value)| key == value));
        }
    }

    #[test]
    fn a_map_that_grows_keeps_what_it_has_and_one_that_shrinks_too() {
        let mut set = ShardedSet::default();
        assert!(set.is_empty() && set.get(&0).is_none() && set.remove(&0).is_none());
        for i in 0..300 {
            set.insert(&i, Pair(i, i));
            set.insert(&i, Pair(i, i + 1));
            assert!((0..=i).all(|key| set.get(&key) == Some(&Pair(key, key + 1))), "{i}");
        }
        let same = set.clone();
        assert!(set.is(&same) && set.remove(&1000).is_none() && set.is(&same));
        for i in 0..299 {
            assert_eq!(set.remove(&i), Some(Pair(i, i + 1)));
        }
        assert!(!set.is(&same) && !set.is_empty() && same.iter().count() == 300);
        assert_eq!(set.iter().collect::<Vec<_>>(), [&Pair(299, 300)]);
    }
}
