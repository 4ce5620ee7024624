//! Matches of one path, in the order of precedence, and buckets of them by a text.

use std::sync::Arc;

use foldhash::HashMap;
use smallvec::SmallVec;

use super::Matched;
use crate::matching::rank::WithinHost;
use crate::route::{HttpMatch, HttpRule, RouteRule};

/// Of so many texts a list is as fast as a map, and takes a fifth of the memory.
const FEW: usize = 4;

/// One match of one rule.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) shared: Arc<RouteRule>,
    pub(super) match_index: usize,
}

impl Entry {
    pub(super) fn parts(&self) -> Option<(&HttpRule, &HttpMatch)> {
        match &*self.shared {
            RouteRule::Http(rule) => Some((rule, rule.matches.get(self.match_index)?)),
            RouteRule::L4(_) => None,
        }
    }

    fn rank(&self) -> Option<WithinHost<'_>> {
        self.parts().map(|(rule, condition)| WithinHost::new(rule, self.match_index, condition))
    }

    pub(super) fn matched(&self, prefix_len: Option<usize>) -> Option<Matched<'_>> {
        let (rule, _) = self.parts()?;
        Some(Matched { rule, shared: &self.shared, match_index: self.match_index, prefix_len })
    }
}

/// Matches in the order of precedence; most often one.
pub(super) type Bucket = SmallVec<[Entry; 1]>;

/// Puts a bucket in order.
pub(super) fn finish(bucket: &mut Bucket) {
    bucket.sort_by(|a, b| a.rank().cmp(&b.rank()));
    bucket.shrink_to_fit();
}

/// Buckets by a text.
#[derive(Clone, Debug)]
pub(super) enum ByText {
    Few(Vec<(Box<str>, Bucket)>),
    Many(Box<HashMap<Box<str>, Bucket>>),
}

impl Default for ByText {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl ByText {
    pub(super) fn get(&self, text: &str) -> Option<&Bucket> {
        match self {
            Self::Few(list) => list.iter().find(|(it, _)| **it == *text).map(|(_, bucket)| bucket),
            Self::Many(map) => map.get(text),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(map) => map.is_empty(),
        }
    }

    /// Edits the bucket of a text, made if it is not there.
    pub(super) fn edit(&mut self, text: &str, edit: impl FnOnce(&mut Bucket)) {
        let is_full = |list: &Vec<(Box<str>, Bucket)>| list.len() >= FEW && !list.iter().any(|(it, _)| **it == *text);
        if let Self::Few(list) = self
            && is_full(list)
        {
            *self = Self::Many(Box::new(std::mem::take(list).into_iter().collect()));
        }
        match self {
            Self::Few(list) => match list.iter_mut().find(|(it, _)| **it == *text) {
                Some((_, bucket)) => edit(bucket),
                None => {
                    let mut bucket = Bucket::new();
                    edit(&mut bucket);
                    list.push((text.into(), bucket));
                }
            },
            Self::Many(map) => edit(map.entry(text.into()).or_default()),
        }
    }

    /// Puts every bucket in order, and keeps none that is empty.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Few(list) => {
                list.retain(|(_, bucket)| !bucket.is_empty());
                list.iter_mut().for_each(|(_, bucket)| finish(bucket));
                list.shrink_to_fit();
            }
            Self::Many(map) => {
                map.retain(|_, bucket| !bucket.is_empty());
                map.values_mut().for_each(finish);
            }
        }
    }
}
