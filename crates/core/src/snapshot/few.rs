//! Values of one key, such as the slices of a Service: most often one, so that a set of them would be mostly room.

use std::hash::Hash;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::sharded::ShardedMap;

/// In the order of their own keys.
pub(super) type Few<T> = SmallVec<[Arc<T>; 1]>;

/// Puts a value among those of other keys, in the place of the one with its own.
pub(super) fn put<T, K: Ord>(few: &mut Few<T>, value: &Arc<T>, key: impl Fn(&T) -> &K) {
    match few.binary_search_by(|it| key(it).cmp(key(value))) {
        Ok(at) => few.get_mut(at).into_iter().for_each(|it| *it = Arc::clone(value)),
        Err(at) => few.insert(at, Arc::clone(value)),
    }
}

/// Edits the values of a key; a key without any is not kept.
pub(super) fn edit_few<K, T>(map: &mut ShardedMap<K, Few<T>>, key: &K, edit: impl FnOnce(&mut Few<T>))
where
    K: Clone + Eq + Hash,
{
    map.edit(key, || key.clone(), edit);
    if map.get(key).is_some_and(SmallVec::is_empty) {
        map.remove(key);
    }
}
