//! Which endpoint of a frontend gets the next request or connection.
//!
//! One [`Balancer`] per frontend and worker: peak-EWMA latency with the power of two choices by default, in turn, or by
//! a consistent hash; near endpoints first where the Service asks for it; endpoints that keep failing are left out
//! for a while, at most half of them. Time and randomness are arguments.
//!
//! Invariants: a draining endpoint is picked only when none is ready, and one that is neither never; what was learnt
//! about an endpoint survives every edit that leaves it in the list; an endpoint that was tried for a request is not
//! tried again for it while there is another.

mod affinity;
mod hash;
mod registry;
mod retry_budget;
mod session;
mod slot;
#[cfg(test)]
pub(crate) mod tests;
mod tiers;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_core::ids::NodeName;
use weft_core::service::{Balancing, EndpointHealth, HashKey};
use weft_core::snapshot::{EndpointEntry, Frontend};

pub use affinity::{AffinityTable, Use};
pub use hash::{hash_bytes, hash_ip};
pub use registry::{Balancers, Shared};
pub use retry_budget::{RetryBudget, RetryBudgets};
pub use session::{EndpointMark, SEAL_LEN, Seal, is_seal};
pub use slot::Outcome;
use slot::Slot;
use tiers::Tiers;
pub use tiers::{NodeZone, Place};

/// Random picks before the rest is looked through in order.
const RANDOM_PICKS: u32 = 4;

/// What a pick is made for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The hash of what [`Balancer::hash_key`] names, if the request has it.
    pub hash: Option<u64>,
    /// Endpoints that this request has been to.
    pub tried: &'a [SocketAddr],
    /// The time.
    pub now: Instant,
    /// Fresh randomness.
    pub random: u64,
}

/// The balancer of one frontend on one worker.
#[derive(Debug)]
pub struct Balancer {
    state: RefCell<State>,
    shared: Arc<Shared>,
    ejections: Cell<u64>,
}

#[derive(Debug)]
struct State {
    frontend: Arc<Frontend>,
    /// One for each entry of the list.
    slots: Vec<Rc<Slot>>,
    /// The entries again, each in an `Rc`: a request takes one along without touching a counter of another core.
    entries: Vec<Rc<EndpointEntry>>,
    tiers: Tiers,
    /// Whether the node's zone was known when the tiers were made.
    zoned: bool,
    turn: usize,
    /// Of the Service, if a policy sets one.
    retries: Option<Arc<RetryBudget>>,
    /// Only endpoints of this node may be used.
    only: Option<NodeName>,
}

impl Balancer {
    /// A balancer that knows nothing yet.
    pub fn new(frontend: Arc<Frontend>, place: &Place, shared: Arc<Shared>, now: Instant) -> Self {
        let state = State::new(frontend, place, &[], (&shared, now));
        Self { state: RefCell::new(state), shared, ejections: Cell::new(0) }
    }

    /// Takes a newer version of the frontend over, keeping what is known about endpoints that stay.
    pub fn update(&self, frontend: Arc<Frontend>, place: &Place, now: Instant) {
        let mut state = self.state.borrow_mut();
        let unchanged = (state.zoned || place.is_zone_unknown())
            && Arc::ptr_eq(&state.frontend.endpoints, &frontend.endpoints)
            && (Arc::ptr_eq(&state.frontend.service, &frontend.service) || state.frontend.service == frontend.service);
        if unchanged {
            state.frontend = frontend;
        } else {
            let turn = state.turn;
            *state = State { turn, ..State::new(frontend, place, &state.slots, (&self.shared, now)) };
        }
    }

    /// Whether it knows as much of this place as there is to know.
    pub(super) fn knows(&self, place: &Place) -> bool {
        let state = self.state.borrow();
        state.zoned || place.is_zone_unknown()
    }

    /// The version of the frontend it works for.
    pub fn frontend(&self) -> Arc<Frontend> {
        Arc::clone(&self.state.borrow().frontend)
    }

    /// What the request must be hashed by, if the Service asks for it.
    pub fn hash_key(&self) -> Option<HashKey> {
        match &self.state.borrow().frontend.service.balancing {
            Balancing::ConsistentHash(key) => Some(key.clone()),
            Balancing::PeakEwma | Balancing::RoundRobin => None,
        }
    }

    /// What the retries of requests to the Service are paid from; `None`: nobody counts them.
    pub fn retry_budget(&self) -> Option<Arc<RetryBudget>> {
        self.state.borrow().retries.clone()
    }

    /// Endpoints ejected since the balancer was made.
    pub fn ejections(&self) -> u64 {
        self.ejections.get()
    }

    /// Endpoints that are ejected now.
    pub fn ejected(&self, now: Instant) -> usize {
        self.state.borrow().slots.iter().filter(|slot| slot.is_ejected(now)).count()
    }

    /// Picks an endpoint; `None` when no endpoint may be used.
    pub fn pick(self: &Rc<Self>, ask: &Ask<'_>) -> Option<Picked> {
        let mut state = self.state.borrow_mut();
        let index = match state.frontend.service.client_ip_affinity {
            None => state.choose(ask),
            Some(timeout) => self.sticky(&mut state, ask, timeout),
        }?;
        self.start(&state, index as usize, ask.now)
    }

    /// Picks the endpoint of a session, whatever its load and its failures, also when it is draining; `None` if it is gone or
    /// was tried for this request.
    pub fn pick_of_session(self: &Rc<Self>, address: SocketAddr, ask: &Ask<'_>) -> Option<Picked> {
        let state = self.state.borrow();
        let index = state.entries.iter().position(|entry| entry.address == address)?;
        let entry = state.entries.get(index)?;
        let is_here = state.only.is_none() || entry.node == state.only;
        let is_fit = is_here && entry.health != EndpointHealth::NotReady && !ask.tried.contains(&address);
        if is_fit { self.start(&state, index, ask.now) } else { None }
    }

    fn start(self: &Rc<Self>, state: &State, index: usize, now: Instant) -> Option<Picked> {
        let entry = Rc::clone(state.entries.get(index)?);
        let slot = Rc::clone(state.slots.get(index)?);
        slot.start();
        Some(Picked { entry, flight: InFlight { slot, balancer: Rc::clone(self), started: now, done: false } })
    }

    fn sticky(&self, state: &mut State, ask: &Ask<'_>, timeout: Duration) -> Option<u32> {
        let key = state.frontend.key.clone();
        let remembered = self.shared.affinity.get(&key, ask.client, ask.now);
        let index = remembered.and_then(|address| state.find(address, ask)).or_else(|| {
            // The same first choice on every worker.
            state.hashed(hash_ip(ask.client), ask)
        })?;
        let address = state.slots.get(index as usize)?.address;
        self.shared.affinity.set(&key, ask.client, address, Use { now: ask.now, timeout });
        Some(index)
    }

    /// Ejects, unless half of the endpoints would be out.
    fn eject(&self, slot: &Slot, now: Instant, random: u64) -> bool {
        let state = self.state.borrow();
        let usable = state.tiers.widest();
        let out = usable.iter().filter(|i| state.slots.get(**i as usize).is_some_and(|slot| slot.is_ejected(now)));
        if slot.is_ejected(now) || (out.count() + 1) * 2 > usable.len() {
            return false;
        }
        slot.eject(now, random);
        self.ejections.set(self.ejections.get() + 1);
        true
    }
}

impl State {
    fn new(frontend: Arc<Frontend>, place: &Place, before: &[Rc<Slot>], (shared, now): (&Shared, Instant)) -> Self {
        let known: std::collections::HashMap<_, _> = before.iter().map(|slot| (slot.address, slot)).collect();
        let slot = |entry: &EndpointEntry| match known.get(&entry.address) {
            Some(slot) => Rc::clone(slot),
            None => Rc::new(Slot::new(entry.address, now)),
        };
        let slots = frontend.endpoints.entries.iter().map(slot).collect();
        let entries = frontend.endpoints.entries.iter().cloned().map(Rc::new).collect();
        let tiers = Tiers::new(&frontend.endpoints, &frontend.service, place);
        let constraint = frontend.service.traffic.as_ref().and_then(|traffic| traffic.retry);
        let retries = constraint.map(|it| shared.retry_budgets.of(&frontend.service.key, it, now));
        let only = frontend.service.node_local_only.then(|| place.node.clone());
        Self { frontend, slots, entries, tiers, zoned: !place.is_zone_unknown(), turn: 0, retries, only }
    }

    fn choose(&mut self, ask: &Ask<'_>) -> Option<u32> {
        if let [only] = self.tiers.widest() {
            return Some(*only);
        }
        if let (Balancing::ConsistentHash(_), Some(hash)) = (&self.frontend.service.balancing, ask.hash) {
            return self.hashed(hash, ask);
        }
        let in_turn = matches!(self.frontend.service.balancing, Balancing::RoundRobin);
        let turn = in_turn.then(|| {
            self.turn = self.turn.wrapping_add(1);
            self.turn
        });
        let nearest = self.tiers.0.iter().find_map(|tier| match turn {
            Some(turn) => self.next_in_turn(tier, turn, ask),
            None => self.better_of_two(tier, ask),
        });
        nearest.or_else(|| self.anyone(ask))
    }

    /// An endpoint by its address, if it may be picked.
    fn find(&self, address: SocketAddr, ask: &Ask<'_>) -> Option<u32> {
        let is_it = |i: &&u32| self.slots.get(**i as usize).is_some_and(|slot| slot.address == address);
        self.tiers.widest().iter().find(is_it).copied().filter(|i| self.is_fit(*i, ask))
    }

    fn hashed(&self, key: u64, ask: &Ask<'_>) -> Option<u32> {
        let weight = |i: &u32| self.slots.get(*i as usize).map(|slot| hash::weight(key, slot.hash));
        let best = |tier: &Vec<u32>| tier.iter().copied().filter(|i| self.is_fit(*i, ask)).max_by_key(weight);
        self.tiers.0.iter().find_map(best).or_else(|| self.anyone(ask))
    }

    fn is_fit(&self, index: u32, ask: &Ask<'_>) -> bool {
        let Some(slot) = self.slots.get(index as usize) else { return false };
        !slot.is_ejected(ask.now) && !ask.tried.contains(&slot.address)
    }

    fn better_of_two(&self, tier: &[u32], ask: &Ask<'_>) -> Option<u32> {
        let mut random = ask.random;
        for _ in 0..RANDOM_PICKS {
            let (first, second) = two_of(tier, random)?;
            random = random.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            match (self.is_fit(first, ask), self.is_fit(second, ask)) {
                (true, true) if self.cost(second, ask.now) < self.cost(first, ask.now) => return Some(second),
                (true, _) => return Some(first),
                (false, true) => return Some(second),
                (false, false) => {}
            }
        }
        tier.iter().copied().find(|index| self.is_fit(*index, ask))
    }

    fn cost(&self, index: u32, now: Instant) -> f64 {
        self.slots.get(index as usize).map_or(f64::INFINITY, |slot| slot.cost(now))
    }

    fn next_in_turn(&self, tier: &[u32], turn: usize, ask: &Ask<'_>) -> Option<u32> {
        let (after, before) = tier.split_at(turn % tier.len().max(1));
        let fit = |index: &u32| self.is_fit(*index, ask);
        let takes = |index: &u32| {
            // An endpoint that asked for less load lets some of its turns pass.
            let burden = self.slots.get(*index as usize).map_or(1.0, |slot| slot.burden());
            (ask.random % 1024) as f64 * burden < 1024.0
        };
        let order = || before.iter().chain(after).copied();
        order().find(|i| fit(i) && takes(i)).or_else(|| order().find(fit))
    }

    /// When everybody is ejected or was tried: better somebody than nobody, one not yet tried if there is one.
    fn anyone(&self, ask: &Ask<'_>) -> Option<u32> {
        let usable = self.tiers.widest();
        let untried = |i: &&u32| self.slots.get(**i as usize).is_some_and(|slot| !ask.tried.contains(&slot.address));
        let start = (ask.random % usable.len().max(1) as u64) as usize;
        let (before, after) = usable.split_at(start);
        let mut order = after.iter().chain(before);
        order.clone().find(untried).or_else(|| order.next()).copied()
    }
}

/// Two different members, or the only one twice.
fn two_of(tier: &[u32], random: u64) -> Option<(u32, u32)> {
    let n = tier.len() as u64;
    let first = ((u128::from(random) * u128::from(n)) >> 64) as usize;
    let step = if n > 1 { 1 + (random & 0xffff_ffff) % (n - 1) } else { 0 };
    let second = (first as u64 + step) % n.max(1);
    Some((*tier.get(first)?, *tier.get(second as usize)?))
}

/// An endpoint that was picked.
#[derive(Debug)]
#[must_use]
pub struct Picked {
    /// The endpoint.
    pub entry: Rc<EndpointEntry>,
    /// Counts the request as under way until it is finished or dropped.
    pub flight: InFlight,
}

/// A request or connection that is under way at an endpoint.
#[derive(Debug)]
#[must_use]
pub struct InFlight {
    slot: Rc<Slot>,
    balancer: Rc<Balancer>,
    started: Instant,
    done: bool,
}

impl InFlight {
    /// Tells how it went; whether the endpoint was ejected for it. For a request it is told when the head of the
    /// answer is there: how long a stream lasts says nothing about the endpoint.
    pub fn learn(&self, outcome: Outcome, now: Instant, random: u64) -> bool {
        let took = now.saturating_duration_since(self.started);
        self.slot.learn(outcome, took, now) && self.balancer.eject(&self.slot, now, random)
    }

    /// No longer under way.
    pub fn finish(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            self.slot.finish();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.close();
    }
}
