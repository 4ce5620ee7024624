//! What one workload may use of the node, so that trouble at one pod stays its own.
//!
//! One workload may use the whole node while nobody else wants it: the last quarter of the node's connections and buffers is
//! kept for workloads that hold less than their share. Everything counted is a guard that gives back when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_core::policy::WorkloadLimits;
use weft_core::reason::Reason;

/// Handshakes that may wait for each one that is under way, before the newest is shed.
const WAITING_PER_HANDSHAKE: u32 = 16;

/// What the whole node has.
#[derive(Debug)]
pub struct NodeBudget {
    max_connections: u32,
    defaults: Defaults,
    connections: AtomicU32,
    buffers: AtomicU64,
    workloads: AtomicU32,
}

/// What a workload may use when no policy says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Connections open at once; never more than the node has.
    pub connections: u32,
    /// TLS handshakes under way at once.
    pub handshakes: u32,
    /// Bytes of buffers; all workloads together have no more either.
    pub buffer_bytes: u64,
}

impl NodeBudget {
    /// A node with so many connections.
    pub fn new(max_connections: u32, defaults: Defaults) -> Arc<Self> {
        let (connections, buffers, workloads) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU32::new(0));
        Arc::new(Self { max_connections, defaults, connections, buffers, workloads })
    }

    /// Connections open on the node.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The most connections the node takes.
    pub fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Whether a workload that holds `held` connections may open one more.
    fn admits(&self, held: u32) -> bool {
        let used = self.connections();
        if used >= self.max_connections {
            return false;
        }
        let plenty = self.max_connections - self.max_connections / 4;
        let share = self.max_connections / self.workloads.load(Ordering::Relaxed).max(1);
        used < plenty || held < share
    }

    /// Whether a workload may hold `held` bytes of buffers when all together hold `used`: no more than one workload may by
    /// default, and the last quarter is for those that hold less than their share.
    fn affords(&self, used: u64, held: u64) -> bool {
        let most = self.defaults.buffer_bytes;
        let share = most / u64::from(self.workloads.load(Ordering::Relaxed).max(1));
        used <= most && (used <= most - most / 4 || held <= share)
    }
}

/// What one workload uses and may use.
#[derive(Debug)]
pub struct Budget {
    node: Arc<NodeBudget>,
    connections: AtomicU32,
    max_connections: AtomicU32,
    handshakes: Arc<Semaphore>,
    max_handshakes: AtomicU32,
    waiting: AtomicU32,
    buffers: AtomicU64,
    max_buffers: AtomicU64,
    /// Permits that could not be taken away yet because they were in use when the limit was lowered.
    owed: AtomicI64,
}

impl Budget {
    /// A workload's budget on a node.
    pub fn new(node: Arc<NodeBudget>) -> Arc<Self> {
        node.workloads.fetch_add(1, Ordering::Relaxed);
        let defaults = node.defaults;
        Arc::new(Self {
            node,
            connections: AtomicU32::new(0),
            max_connections: AtomicU32::new(defaults.connections),
            handshakes: Arc::new(Semaphore::new(defaults.handshakes as usize)),
            max_handshakes: AtomicU32::new(defaults.handshakes),
            waiting: AtomicU32::new(0),
            buffers: AtomicU64::new(0),
            max_buffers: AtomicU64::new(defaults.buffer_bytes),
            owed: AtomicI64::new(0),
        })
    }

    /// Takes the limits of a policy over; what it leaves open gets the node's default. One caller at a time.
    pub fn set_limits(&self, limits: WorkloadLimits) {
        let defaults = self.node.defaults;
        self.max_connections.store(limits.max_connections.unwrap_or(defaults.connections), Ordering::Relaxed);
        self.max_buffers.store(limits.max_buffer_bytes.unwrap_or(defaults.buffer_bytes), Ordering::Relaxed);
        let handshakes = limits.max_handshakes.unwrap_or(defaults.handshakes).max(1);
        let before = self.max_handshakes.swap(handshakes, Ordering::Relaxed);
        let change = i64::from(handshakes) - i64::from(before) - self.owed.swap(0, Ordering::Relaxed);
        if let Ok(more) = usize::try_from(change) {
            self.handshakes.add_permits(more);
        } else {
            let fewer = usize::try_from(-change).unwrap_or(usize::MAX);
            let taken = self.handshakes.forget_permits(fewer);
            self.owed.store(i64::try_from(fewer - taken).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// Counts one more connection.
    ///
    /// # Errors
    /// The workload's or the node's budget is used up.
    pub fn connection(self: &Arc<Self>) -> Result<ConnectionSlot, Reason> {
        let held = self.connections.fetch_add(1, Ordering::Relaxed);
        let slot = ConnectionSlot(Arc::clone(self));
        let verdict = if held >= self.max_connections.load(Ordering::Relaxed) {
            Err(Reason::LimitConnections)
        } else if !self.node.admits(held) {
            Err(Reason::NodeExhausted)
        } else {
            Ok(())
        };
        self.node.connections.fetch_add(1, Ordering::Relaxed);
        verdict.map(|()| slot)
    }

    /// Waits for a turn to do a TLS handshake.
    ///
    /// # Errors
    /// Too many wait already.
    pub async fn handshake(&self) -> Result<OwnedSemaphorePermit, Reason> {
        let most = self.max_handshakes.load(Ordering::Relaxed).saturating_mul(WAITING_PER_HANDSHAKE);
        let waiting = Waiting::enter(&self.waiting);
        if waiting.before >= most {
            return Err(Reason::LimitHandshakes);
        }
        // The semaphore is never closed.
        Arc::clone(&self.handshakes).acquire_owned().await.map_err(|_| Reason::LimitHandshakes)
    }

    /// Counts `bytes` of buffers.
    ///
    /// # Errors
    /// The workload's or the node's budget is used up.
    pub fn buffer(self: &Arc<Self>, bytes: u64) -> Result<BufferSlot, Reason> {
        let fits = self.take(bytes);
        let slot = BufferSlot { budget: Arc::clone(self), bytes };
        if fits { Ok(slot) } else { Err(Reason::LimitBuffers) }
    }

    /// Counts more bytes of buffers; `false` if those are too many.
    fn take(&self, bytes: u64) -> bool {
        let held = self.buffers.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let used = self.node.buffers.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        held <= self.max_buffers.load(Ordering::Relaxed) && self.node.affords(used, held)
    }

    fn give_back(&self, bytes: u64) {
        self.buffers.fetch_sub(bytes, Ordering::Relaxed);
        self.node.buffers.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts the buffers of one connection, which grow and shrink.
    pub fn buffers(self: &Arc<Self>) -> Buffers {
        Buffers { budget: Arc::clone(self), bytes: 0 }
    }

    /// What is in use now.
    pub fn usage(&self) -> Usage {
        let free = u32::try_from(self.handshakes.available_permits()).unwrap_or(u32::MAX);
        Usage {
            connections: self.connections.load(Ordering::Relaxed),
            max_connections: self.max_connections.load(Ordering::Relaxed),
            handshakes: self.max_handshakes.load(Ordering::Relaxed).saturating_sub(free),
            max_handshakes: self.max_handshakes.load(Ordering::Relaxed),
            buffer_bytes: self.buffers.load(Ordering::Relaxed),
            max_buffer_bytes: self.max_buffers.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.node.workloads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A workload's use of its budgets, for gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections open.
    pub connections: u32,
    /// The most there may be.
    pub max_connections: u32,
    /// Handshakes under way.
    pub handshakes: u32,
    /// The most there may be.
    pub max_handshakes: u32,
    /// Bytes of buffers held.
    pub buffer_bytes: u64,
    /// The most there may be.
    pub max_buffer_bytes: u64,
}

/// One connection, counted until dropped.
#[derive(Debug)]
#[must_use = "dropped, the connection is no longer counted"]
pub struct ConnectionSlot(Arc<Budget>);

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.node.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of buffers, counted until dropped.
#[derive(Debug)]
#[must_use = "dropped, the bytes are no longer counted"]
pub struct BufferSlot {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for BufferSlot {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The buffers of one connection, counted until dropped.
#[derive(Debug)]
pub struct Buffers {
    budget: Arc<Budget>,
    bytes: u64,
}

impl weft_hbone::relay::Account for Buffers {
    fn hold(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.budget.give_back(before - bytes);
            return true;
        }
        self.budget.take(bytes - before)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

struct Waiting<'a> {
    counter: &'a AtomicU32,
    before: u32,
}

impl<'a> Waiting<'a> {
    fn enter(counter: &'a AtomicU32) -> Self {
        Self { before: counter.fetch_add(1, Ordering::Relaxed), counter }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(connections: u32) -> Arc<NodeBudget> {
        NodeBudget::new(connections, Defaults { connections, handshakes: 2, buffer_bytes: 100 })
    }

    #[test]
    fn a_workload_alone_may_use_the_whole_node() {
        let budget = Budget::new(node(8));
        let held: Vec<_> = (0..8).map(|_| budget.connection().unwrap()).collect();
        assert_eq!(budget.connection().unwrap_err(), Reason::LimitConnections);
        assert_eq!(budget.usage().connections, 8);
        drop(held);
        assert_eq!(budget.usage().connections, 0);
        assert_eq!(budget.node.connections(), 0);
    }

    #[test]
    fn the_last_quarter_is_for_workloads_below_their_share() {
        let node = node(8);
        let (greedy, modest) = (Budget::new(Arc::clone(&node)), Budget::new(node));
        let _held: Vec<_> = (0..6).map(|_| greedy.connection().unwrap()).collect();
        assert_eq!(greedy.connection().unwrap_err(), Reason::NodeExhausted);
        let _mine = (modest.connection().unwrap(), modest.connection().unwrap());
        assert_eq!(modest.connection().unwrap_err(), Reason::NodeExhausted, "the node is full");
    }

    #[test]
    fn a_policy_overrides_and_its_removal_restores() {
        let budget = Budget::new(node(8));
        budget.set_limits(WorkloadLimits { max_connections: Some(1), ..WorkloadLimits::default() });
        let _one = budget.connection().unwrap();
        assert_eq!(budget.connection().unwrap_err(), Reason::LimitConnections);
        budget.set_limits(WorkloadLimits::default());
        drop(budget.connection().unwrap());
    }

    #[tokio::test]
    async fn handshakes_wait_for_their_turn_and_the_newest_of_too_many_is_shed() {
        let budget = Budget::new(node(8));
        budget.set_limits(WorkloadLimits { max_handshakes: Some(1), ..WorkloadLimits::default() });
        let first = budget.handshake().await.unwrap();
        assert_eq!(budget.usage().handshakes, 1);
        let mut waiting: Vec<_> = (0..WAITING_PER_HANDSHAKE).map(|_| Box::pin(budget.handshake())).collect();
        for wait in &mut waiting {
            assert!(futures::poll!(wait.as_mut()).is_pending());
        }
        assert_eq!(budget.handshake().await.unwrap_err(), Reason::LimitHandshakes);
        drop(first);
        drop(waiting.remove(0).await.unwrap());
    }

    #[tokio::test]
    async fn a_limit_lowered_while_in_use_holds_once_they_are_given_back() {
        let budget = Budget::new(node(8));
        let both = (budget.handshake().await.unwrap(), budget.handshake().await.unwrap());
        budget.set_limits(WorkloadLimits { max_handshakes: Some(1), ..WorkloadLimits::default() });
        drop(both);
        // The permit that was in use is taken away with the next look at the limits.
        budget.set_limits(WorkloadLimits { max_handshakes: Some(1), ..WorkloadLimits::default() });
        let _one = budget.handshake().await.unwrap();
        assert!(futures::poll!(Box::pin(budget.handshake()).as_mut()).is_pending());
    }

    #[test]
    fn buffers_of_a_connection_grow_and_shrink() {
        use weft_hbone::relay::Account;
        let budget = Budget::new(node(8));
        let (mut one, mut other) = (budget.buffers(), budget.buffers());
        assert!(one.hold(60) && one.hold(30) && other.hold(70));
        assert_eq!(budget.usage().buffer_bytes, 100);
        assert!(!one.hold(31), "together more than 100");
        assert!(one.hold(20), "less is always taken");
        drop((one, other));
        assert_eq!(budget.usage().buffer_bytes, 0);
    }

    #[test]
    fn buffers_of_all_workloads_together_are_bounded_and_the_last_quarter_is_for_the_modest() {
        let node = node(8);
        let (greedy, modest) = (Budget::new(Arc::clone(&node)), Budget::new(node));
        // What a policy gives a workload, the node may not have.
        greedy.set_limits(WorkloadLimits { max_buffer_bytes: Some(1000), ..WorkloadLimits::default() });
        let held = greedy.buffer(75).unwrap();
        assert_eq!(greedy.buffer(1).unwrap_err(), Reason::LimitBuffers);
        let _mine = modest.buffer(25).unwrap();
        assert_eq!(modest.buffer(1).unwrap_err(), Reason::LimitBuffers, "the node is full");
        drop(held);
        drop(modest.buffer(50).unwrap());
    }

    #[test]
    fn buffers_are_counted_in_bytes() {
        let budget = Budget::new(node(8));
        let held = budget.buffer(60).unwrap();
        assert_eq!(budget.buffer(41).unwrap_err(), Reason::LimitBuffers);
        assert_eq!(budget.usage().buffer_bytes, 60);
        drop(held);
        drop(budget.buffer(100).unwrap());
    }
}
