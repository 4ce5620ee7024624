//! Where HTTP/3 is listened for: other versions of HTTP tell their clients of it, and only of what is really there.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use weft_core::gateway::Bind;

/// The places of a process where QUIC is listened for, each by the place of TCP beside it. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct QuicPlaces(Arc<ArcSwap<BTreeSet<Bind>>>);

impl QuicPlaces {
    /// Whether it is listened for beside a place of TCP.
    pub fn is_bound(&self, tcp: &Bind) -> bool {
        self.0.load().contains(tcp)
    }

    /// It is from now on.
    pub(super) fn add(&self, tcp: Bind) {
        self.edit(|places| places.insert(tcp));
    }

    /// It isn't any more.
    pub(super) fn remove(&self, tcp: &Bind) {
        self.edit(|places| places.remove(tcp));
    }

    fn edit(&self, change: impl Fn(&mut BTreeSet<Bind>) -> bool) {
        self.0.rcu(|places| {
            let mut places = BTreeSet::clone(places);
            change(&mut places);
            places
        });
    }
}
