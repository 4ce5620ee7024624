//! Connections that tell endpoints of a client, and so carry no other's requests.
//!
//! They are of use as long as that client's own connection is, which is therefore what they belong to: who has many connections
//! to a Gateway pays for each with one of its own, and none is left behind. One client's connection may be that of a proxy with
//! many clients behind it; so there is room for few idle ones.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::{Pool, Target};
use crate::connect::ProxyHeader;

/// Idle connections of each version of HTTP that are kept for one connection of a client.
const IDLE: usize = 16;
/// Targets that are kept at hand.
const TARGETS: usize = 16;

/// The connections of one client's connection; they are closed when it is dropped.
pub(crate) struct OwnPool {
    pool: Rc<Pool>,
    /// Endpoints as all know them, and as this client's connections do.
    targets: RefCell<VecDeque<(Rc<Target>, Rc<Target>)>>,
}

impl OwnPool {
    /// None yet, beside those of a worker, which counts and sweeps them with its own.
    pub(crate) fn new(worker: &Rc<Pool>) -> Self {
        let pool = Pool::with_room(Rc::clone(&worker.dial), worker.settings, IDLE);
        worker.own.borrow_mut().push(Rc::downgrade(&pool));
        Self { pool, targets: RefCell::default() }
    }

    pub(crate) const fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// An endpoint that is told of a client.
    pub(crate) fn target(&self, endpoint: &Rc<Target>, header: ProxyHeader) -> Rc<Target> {
        let mut targets = self.targets.borrow_mut();
        let is_it =
            |(known, told): &&(Rc<Target>, Rc<Target>)| Rc::ptr_eq(known, endpoint) && told.proxy == Some(header);
        if let Some((_, told)) = targets.iter().find(is_it) {
            return Rc::clone(told);
        }
        let told = Rc::new(Target { proxy: Some(header), ..(**endpoint).clone() });
        targets.truncate(TARGETS - 1);
        targets.push_front((Rc::clone(endpoint), Rc::clone(&told)));
        told
    }
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        // Also for what comes back later.
        self.pool.room.set(0);
        self.pool.make_room_h1();
        self.pool.h2.borrow_mut().clear();
    }
}

impl Pool {
    /// Does something with the pools of single clients, and forgets those that are gone.
    pub(super) fn each_own(&self, mut each: impl FnMut(&Self)) {
        self.own.borrow_mut().retain(|own| {
            own.upgrade().is_some_and(|own| {
                each(&own);
                true
            })
        });
    }

    /// Closes what was idle for longest, if it is more than there is room for.
    pub(super) fn make_room_h1(&self) {
        let room = self.room.get();
        if room == usize::MAX {
            return;
        }
        let mut h1 = self.h1.borrow_mut();
        let mut idle: usize = h1.values().map(Vec::len).sum();
        while idle > room {
            let lists = h1.values_mut().filter(|list| !list.is_empty());
            // The one used last is last.
            let Some(list) = lists.min_by_key(|list| list.first().map(|idle| idle.since)) else { break };
            list.remove(0).conn.close();
            idle -= 1;
        }
        h1.retain(|_, list| !list.is_empty());
    }

    /// The same of what no request needs.
    pub(super) fn make_room_h2(&self) {
        let mut h2 = self.h2.borrow_mut();
        while h2.len() > self.room.get() {
            let unused = h2.iter().filter_map(|(key, shared)| Some((shared.unused_since()?, key)));
            let Some(oldest) = unused.min_by_key(|(since, _)| *since).map(|(_, key)| key.clone()) else { break };
            h2.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::LocalBoxFuture;
    use weft_core::service::ProxyVersion;

    use super::super::{ConnectError, Dial, PoolSettings, UpstreamStream};
    use super::*;
    use crate::connect::Transport;
    use crate::identify::LocalWorkload;

    struct Nobody;

    impl Dial for Nobody {
        fn dial<'a>(
            &'a self,
            _source: &'a Rc<LocalWorkload>,
            _target: &'a Target,
        ) -> LocalBoxFuture<'a, Result<UpstreamStream, ConnectError>> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn what_an_endpoint_is_told_is_worked_out_once_and_not_kept_for_ever() {
        let worker = Pool::new(Rc::new(Nobody), PoolSettings::default());
        let own = OwnPool::new(&worker);
        let address = "10.0.0.1:80".parse().unwrap();
        let plain = Rc::new(Target { address, transport: Transport::Plain, workload: None, tls: None, proxy: None });
        let header = |port| ProxyHeader::new(ProxyVersion::V2, ([192, 0, 2, 7], port).into(), address);
        let first = own.target(&plain, header(1));
        assert_eq!(*first, Target { proxy: Some(header(1)), ..(*plain).clone() });
        assert!(Rc::ptr_eq(&first, &own.target(&plain, header(1))));
        assert!(!Rc::ptr_eq(&first, &own.target(&plain, header(2))));
        for port in 3..100 {
            drop(own.target(&plain, header(port)));
        }
        assert_eq!(own.targets.borrow().len(), TARGETS);
        assert_eq!(Rc::strong_count(&first), 1);
        drop(own);
        worker.each_own(|_| panic!("it is gone"));
        assert!(worker.own.borrow().is_empty());
    }
}
