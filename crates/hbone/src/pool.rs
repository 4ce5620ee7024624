//! Tunnels by key, shared by the streams of one worker.
//!
//! A key says who dials whom: the client pod, the server pod's address and the identity expected there. Streams of different keys
//! never share a tunnel. Invariants: at most one dial per key that somebody waits for, however many do; a tunnel that retires or breaks is
//! not offered again; a waiter that goes away doesn't take the dial with it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::rc::{Rc, Weak};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::{DialError, DialFailure, OpenError};
use crate::limits::TunnelLimits;
use crate::request::OpenRequest;
use crate::stream::TunnelStream;
use crate::tunnel::{Tunnel, TunnelState};

/// How often a stream that a tunnel certainly did not process is tried on another tunnel.
const ATTEMPTS: usize = 3;

/// Makes authenticated transports: connects in the right network namespace, does the TLS handshake, checks the identity.
pub trait Connector<K>: 'static {
    /// The transport.
    type Io: AsyncRead + AsyncWrite + Unpin + 'static;

    /// Dials for a key. The pool bounds the time.
    fn connect(&self, key: &K) -> impl Future<Output = Result<Self::Io, DialError>>;
}

/// Numbers for gauges, over all keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Keys with a tunnel or a dial under way.
    pub keys: usize,
    /// Tunnels that take streams.
    pub tunnels: usize,
    /// Dials under way.
    pub dialling: usize,
    /// Streams on tunnels that take streams.
    pub streams: usize,
    /// Dials started since the pool was made.
    pub dials: u64,
}

struct Dial {
    done: Notify,
    result: RefCell<Option<Result<Rc<Tunnel>, DialError>>>,
}

impl Dial {
    /// Its waiters wait no longer. What it may still get is not for them.
    fn fail(&self, error: DialError) {
        self.result.replace(Some(Err(error)));
        self.done.notify_waiters();
    }
}

struct Entry {
    tunnels: Vec<Rc<Tunnel>>,
    dial: Option<Rc<Dial>>,
}

struct Inner<K, C> {
    connector: C,
    limits: TunnelLimits,
    entries: RefCell<HashMap<K, Entry>>,
    /// Tunnels that take no more streams and have some, which end by themselves unless they are killed.
    retired: RefCell<Vec<(K, Weak<Tunnel>)>>,
    draining: Cell<bool>,
    dials: Cell<u64>,
}

/// The pool of one worker. Clones are handles to the same pool; methods need the worker's `LocalSet`.
pub struct Pool<K, C>(Rc<Inner<K, C>>);

impl<K, C> Clone for Pool<K, C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K, C> Pool<K, C>
where
    K: Clone + Eq + Hash + 'static,
    C: Connector<K>,
{
    /// An empty pool.
    pub fn new(connector: C, limits: TunnelLimits) -> Self {
        Self(Rc::new(Inner {
            connector,
            limits,
            entries: RefCell::default(),
            retired: RefCell::default(),
            draining: Cell::new(false),
            dials: Cell::new(0),
        }))
    }

    /// Opens a stream on a tunnel of the key, dialling one if none has room.
    ///
    /// A stream that the peer certainly did not process (GOAWAY, REFUSED_STREAM) is tried on another tunnel, a few times.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, key: &K, request: &OpenRequest) -> Result<TunnelStream, OpenError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let tunnel = self.tunnel(key).await?;
            match tunnel.open(request).await {
                Err(error) if error.other_tunnel_may_do() && attempt < ATTEMPTS => self.0.forget(key, &tunnel),
                opened => return opened,
            }
        }
    }

    /// A tunnel with room for one more stream.
    async fn tunnel(&self, key: &K) -> Result<Rc<Tunnel>, OpenError> {
        loop {
            if self.0.draining.get() {
                return Err(OpenError::Draining);
            }
            if let Some(tunnel) = self.0.pick(key) {
                return Ok(tunnel);
            }
            let dial = self.dial(key);
            // Registered before the result is looked at, and nothing runs in between on this thread.
            let done = dial.done.notified();
            if dial.result.borrow().is_none() {
                done.await;
            }
            let result = dial.result.borrow().clone();
            match result {
                Some(Err(error)) => return Err(error.into()),
                // A fresh tunnel with room; or others were faster and filled it, then there is another turn.
                Some(Ok(tunnel)) if tunnel.has_room() => return Ok(tunnel),
                // It broke, or the peer allows no stream at all: an error instead of dialling forever.
                Some(Ok(tunnel)) if tunnel.active_streams() == 0 => return Err(OpenError::GoAway),
                Some(Ok(_)) | None => {}
            }
        }
    }

    /// The dial under way for a key, or a new one. It runs in its own task, so that no waiter owns it.
    fn dial(&self, key: &K) -> Rc<Dial> {
        let mut entries = self.0.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry { tunnels: Vec::new(), dial: None });
        if let Some(dial) = &entry.dial {
            return Rc::clone(dial);
        }
        let dial = Rc::new(Dial { done: Notify::new(), result: RefCell::new(None) });
        entry.dial = Some(Rc::clone(&dial));
        self.0.dials.set(self.0.dials.get() + 1);
        let (inner, key, shared) = (Rc::clone(&self.0), key.clone(), Rc::clone(&dial));
        tokio::task::spawn_local(async move {
            // Held until the end: a panic in the connector must not leave waiters behind.
            let settle = Settle { inner: Rc::clone(&inner), key: key.clone(), dial: shared };
            let limit = inner.limits.dial_timeout;
            let result = timeout(limit, inner.connect(&key)).await;
            settle.with(result.unwrap_or_else(|_| {
                Err(DialError::new(DialFailure::TimedOut, format_args!("no tunnel within {limit:?}")))
            }));
        });
        dial
    }

    /// Stops opening streams; tunnels close when their streams have ended.
    pub fn drain(&self) {
        self.0.draining.set(true);
        self.evict(|_| true);
    }

    /// Retires the tunnels of all keys that match: their pod or identity is gone. Streams on them end by themselves; to end them
    /// too, use [`Self::kill`]. Returns how many tunnels that were.
    pub fn evict(&self, matches: impl Fn(&K) -> bool) -> usize {
        let removed = self.remove(matches);
        removed.iter().for_each(|(_, tunnel)| tunnel.retire());
        self.0.remember(removed.iter().map(|(key, tunnel)| (key, tunnel)));
        removed.len()
    }

    /// Closes the tunnels of all keys that match, those that take no more streams included, and the streams on them: their certificate is
    /// revoked.
    pub fn kill(&self, matches: impl Fn(&K) -> bool) -> usize {
        let mut retired = self.0.retired.borrow_mut();
        let before = retired.extract_if(.., |(key, _)| matches(key)).filter_map(|(_, tunnel)| tunnel.upgrade());
        let mut killed: Vec<_> = before.collect();
        drop(retired);
        killed.extend(self.remove(&matches).into_iter().map(|(_, tunnel)| tunnel));
        killed.iter().for_each(|tunnel| tunnel.stop());
        killed.len()
    }

    /// What is known elsewhere says that the servers of all keys that match are gone. Dials under way to them fail; their tunnels, those
    /// that take no more streams included, are closed unless the server answers a PING: who is wrong about it ends no stream.
    pub fn doubt(&self, matches: impl Fn(&K) -> bool) {
        let mut entries = self.0.entries.borrow_mut();
        entries.retain(|key, entry| {
            if !matches(key) {
                return true;
            }
            if let Some(dial) = entry.dial.take() {
                dial.fail(DialError::new(DialFailure::Unreachable, "the server is gone"));
            }
            entry.tunnels.iter().for_each(|tunnel| tunnel.doubt());
            !entry.tunnels.is_empty()
        });
        let retired = self.0.retired.borrow();
        let doubted = retired.iter().filter(|(key, _)| matches(key)).filter_map(|(_, tunnel)| tunnel.upgrade());
        doubted.for_each(|tunnel| tunnel.doubt());
    }

    /// Whether there is a tunnel of the key, or streams on one that takes no more.
    pub fn knows(&self, key: &K) -> bool {
        let alive = |(known, tunnel): &(K, Weak<Tunnel>)| known == key && tunnel.strong_count() > 0;
        self.0.entries.borrow().contains_key(key) || self.0.retired.borrow().iter().any(alive)
    }

    fn remove(&self, matches: impl Fn(&K) -> bool) -> Vec<(K, Rc<Tunnel>)> {
        let mut removed = Vec::new();
        self.0.entries.borrow_mut().retain(|key, entry| {
            if !matches(key) {
                return true;
            }
            removed.extend(entry.tunnels.drain(..).map(|tunnel| (key.clone(), tunnel)));
            // A dial under way belongs to what was evicted too: its waiters get the tunnel's error, nobody else the tunnel.
            false
        });
        removed
    }

    /// Numbers for gauges.
    pub fn stats(&self) -> PoolStats {
        let entries = self.0.entries.borrow();
        let mut stats = PoolStats { keys: entries.len(), dials: self.0.dials.get(), ..PoolStats::default() };
        for entry in entries.values() {
            stats.dialling += usize::from(entry.dial.is_some());
            for tunnel in entry.tunnels.iter().filter(|tunnel| tunnel.state() == TunnelState::Open) {
                stats.tunnels += 1;
                stats.streams += tunnel.active_streams();
            }
        }
        stats
    }
}

impl<K, C> Inner<K, C>
where
    K: Clone + Eq + Hash + 'static,
    C: Connector<K>,
{
    /// The oldest tunnel with room, so that younger ones run empty and idle out. Drops tunnels that have ended.
    fn pick(&self, key: &K) -> Option<Rc<Tunnel>> {
        let mut entries = self.entries.borrow_mut();
        let tunnels = &mut entries.get_mut(key)?.tunnels;
        let found = tunnels.iter().find(|tunnel| tunnel.has_room()).map(Rc::clone);
        if found.is_none() {
            self.set_aside(key, tunnels);
        }
        found
    }

    async fn connect(self: &Rc<Self>, key: &K) -> Result<Rc<Tunnel>, DialError> {
        let io = self.connector.connect(key).await?;
        let (pool, its_key): (Weak<Self>, K) = (Rc::downgrade(self), key.clone());
        Tunnel::start(io, self.limits, move || {
            if let Some(pool) = pool.upgrade() {
                pool.sweep(&its_key);
            }
        })
        .await
    }

    /// Takes out the tunnels that take no streams; those that still have some are remembered.
    fn set_aside(&self, key: &K, tunnels: &mut Vec<Rc<Tunnel>>) {
        let out: Vec<_> = tunnels.extract_if(.., |tunnel| tunnel.state() != TunnelState::Open).collect();
        self.remember(out.iter().map(|tunnel| (key, tunnel)));
    }

    /// Remembers those of the tunnels that have streams, and forgets those that have ended.
    fn remember<'a>(&self, tunnels: impl Iterator<Item = (&'a K, &'a Rc<Tunnel>)>)
    where
        K: 'a,
    {
        let mut retired = self.retired.borrow_mut();
        retired.retain(|(_, tunnel)| tunnel.strong_count() > 0);
        let with_streams = tunnels.filter(|(_, tunnel)| tunnel.active_streams() > 0);
        retired.extend(with_streams.map(|(key, tunnel)| (key.clone(), Rc::downgrade(tunnel))));
    }

    /// Removes a tunnel that must not be offered again.
    fn forget(&self, key: &K, tunnel: &Rc<Tunnel>) {
        tunnel.retire();
        self.sweep(key);
    }

    /// Removes the tunnels of a key that take no streams, and the key if nothing is left.
    fn sweep(&self, key: &K) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return };
        self.set_aside(key, &mut entry.tunnels);
        if entry.tunnels.is_empty() && entry.dial.is_none() {
            entries.remove(key);
        }
    }
}

/// Ends a dial exactly once, also if its task panics.
struct Settle<K: Eq + Hash, C> {
    inner: Rc<Inner<K, C>>,
    key: K,
    dial: Rc<Dial>,
}

impl<K: Eq + Hash, C> Settle<K, C> {
    fn with(self, result: Result<Rc<Tunnel>, DialError>) {
        self.dial.result.replace(Some(result));
    }
}

impl<K: Eq + Hash, C> Drop for Settle<K, C> {
    fn drop(&mut self) {
        let mut result = self.dial.result.borrow_mut();
        let result = result.get_or_insert_with(|| Err(DialError::new(DialFailure::Io, "the dial was aborted")));
        let mut entries = self.inner.entries.borrow_mut();
        match entries.get_mut(&self.key) {
            // Still the pool's own dial.
            Some(entry) if entry.dial.as_ref().is_some_and(|dial| Rc::ptr_eq(dial, &self.dial)) => {
                entry.dial = None;
                match result {
                    Ok(tunnel) => entry.tunnels.push(Rc::clone(tunnel)),
                    Err(_) if entry.tunnels.is_empty() => drop(entries.remove(&self.key)),
                    Err(_) => {}
                }
            }
            // Evicted meanwhile: the tunnel must not be used.
            _ => {
                if let Ok(tunnel) = result {
                    tunnel.stop();
                }
            }
        }
        self.dial.done.notify_waiters();
    }
}
