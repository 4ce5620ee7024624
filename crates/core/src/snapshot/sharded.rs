//! A map whose copy costs one reference count and whose edit copies one shard.
//!
//! A snapshot is immutable, and a new one is made for each batch of changes: with plain maps an edit in a
//! cluster of 100,000 workloads would copy them all.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;

/// Shards per map: 100,000 entries make shards of 400, which copy in microseconds.
const SHARDS: usize = 256;

type Shard<K, V> = Arc<HashMap<K, V, FixedState>>;

/// The map; see the module.
#[derive(Debug)]
pub struct ShardedMap<K, V> {
    shards: Arc<Vec<Shard<K, V>>>,
    len: usize,
}

impl<K, V> Clone for ShardedMap<K, V> {
    fn clone(&self) -> Self {
        Self { shards: Arc::clone(&self.shards), len: self.len }
    }
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        let empty: Shard<K, V> = Arc::new(HashMap::with_hasher(FixedState::default()));
        Self { shards: Arc::new(vec![empty; SHARDS]), len: 0 }
    }
}

/// Another seed than the shards' own, so that the bits that choose a shard don't repeat inside it.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    const CHOOSER: FixedState = FixedState::with_seed(0x77_65_66_74);
    // The remainder is below SHARDS, which fits.
    usize::try_from(CHOOSER.hash_one(key) % (SHARDS as u64)).unwrap_or_default()
}

impl<K: Clone + Eq + Hash, V: Clone> ShardedMap<K, V> {
    /// The value of a key.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards.get(shard_of(key))?.get(key)
    }

    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = Arc::make_mut(&mut self.shards).get_mut(shard_of(&key))?;
        let before = Arc::make_mut(shard).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes a key and returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = Arc::make_mut(&mut self.shards).get_mut(shard_of(key))?;
        if !shard.contains_key(key) {
            return None;
        }
        self.len -= 1;
        Arc::make_mut(shard).remove(key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::ShardedMap;

    #[test]
    fn an_edit_leaves_the_copy_before_it_as_it_was() {
        let mut map = ShardedMap::default();
        for i in 0..1000_u32 {
            assert_eq!(map.insert(i, i), None);
        }
        let before = map.clone();
        assert_eq!(map.insert(7, 70), Some(7));
        assert_eq!(map.remove(&8), Some(8));
        assert_eq!(map.remove(&8), None);
        assert_eq!((before.len(), map.len()), (1000, 999));
        assert_eq!((before.get(&7), before.get(&8)), (Some(&7), Some(&8)));
        assert_eq!((map.get(&7), map.get(&8)), (Some(&70), None));
        assert_eq!(map.iter().count(), 999);
    }
}
