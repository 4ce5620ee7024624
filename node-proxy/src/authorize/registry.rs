//! Open inbound connections of one worker, so that a policy that changes reaches them too.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use weft_core::reason::Reason;
use weft_tls::CertStore;

use super::{Inbound, revoked};
use crate::identify::PeerIdentity;
use crate::observe::Observer;
use crate::store::Store;
use weft_core::ids::SandboxId;

/// Connections judged before the worker's other tasks get a turn; some 0.1 ms.
const JUDGED_PER_TURN: usize = 128;

/// What is looked at of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// Nothing: bytes both ways.
    Bytes,
    /// Each of its requests.
    Requests,
    /// Nothing but that it is TLS: a probe of the kubelet.
    Tls,
}

#[derive(Debug)]
struct Entry {
    inbound: Inbound,
    carries: Cell<Carries>,
    revoked: Cell<Option<Reason>>,
    waker: RefCell<Option<Waker>>,
}

impl Entry {
    fn revoke(&self, reason: Reason) {
        if self.revoked.get().is_none() {
            self.revoked.set(Some(reason));
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct Inner {
    entries: RefCell<HashMap<u64, Rc<Entry>>>,
    next: Cell<u64>,
    observer: Option<Rc<dyn Observer>>,
}

/// The open inbound connections of one worker.
#[derive(Clone, Default)]
pub struct Registry(Rc<Inner>);

impl Registry {
    /// A registry that says who hears the decisions on its connections.
    pub fn new(observer: Rc<dyn Observer>) -> Self {
        Self(Rc::new(Inner { observer: Some(observer), ..Inner::default() }))
    }

    pub(super) fn observer(&self) -> Option<Rc<dyn Observer>> {
        self.0.observer.clone()
    }

    /// Registers a connection until the registration is dropped.
    pub fn register(&self, inbound: &Inbound) -> Registration {
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        let entry = Rc::new(Entry {
            inbound: inbound.clone(),
            carries: Cell::new(Carries::Bytes),
            revoked: Cell::new(None),
            waker: RefCell::new(None),
        });
        self.0.entries.borrow_mut().insert(id, Rc::clone(&entry));
        Registration { id, entry, registry: Rc::downgrade(&self.0) }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.0.entries.borrow().len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Judges every open connection on the latest configuration and ends those that may not stay.
    pub async fn recheck_policy(&self, store: &Store) {
        self.revoke_where(|entry| revoked(store, &entry.inbound, entry.carries.get())).await;
    }

    /// Verifies every open connection's certificate on the latest trust bundle.
    pub async fn recheck_trust(&self, certificates: &CertStore) {
        self.revoke_where(|entry| match &entry.inbound.peer.identity {
            PeerIdentity::Certificate(peer) => {
                let refused = peer.recheck(certificates.trust(), certificates.clock()).err()?;
                tracing::info!(peer = %peer.identity(), "a peer's certificate is no longer trusted: {refused}");
                Some(Reason::PeerIdentity)
            }
            PeerIdentity::FirstHand(_) | PeerIdentity::Node | PeerIdentity::Unidentified => None,
        })
        .await;
    }

    /// Ends what outlived its peer's certificate. A peer dials anew with each certificate it gets, so this meets
    /// connections that are older than the certificate's second half.
    pub async fn end_expired(&self, certificates: &CertStore) {
        let now = certificates.clock().now();
        self.revoke_where(|entry| match &entry.inbound.peer.identity {
            PeerIdentity::Certificate(peer) if peer.not_after() < now => {
                tracing::info!(peer = %peer.identity(), "a peer's certificate has expired under its connection");
                Some(Reason::PeerIdentity)
            }
            _ => None,
        })
        .await;
    }

    /// Ends every connection to a pod.
    pub async fn revoke_pod(&self, sandbox: &SandboxId, reason: Reason) {
        self.revoke_where(|entry| (entry.inbound.workload.pod.sandbox == *sandbox).then_some(reason)).await;
    }

    async fn revoke_where(&self, judge: impl Fn(&Entry) -> Option<Reason>) {
        let entries: Vec<_> = self.0.entries.borrow().values().map(Rc::downgrade).collect();
        for turn in entries.chunks(JUDGED_PER_TURN) {
            for entry in turn.iter().filter_map(Weak::upgrade) {
                if let Some(reason) = judge(&entry) {
                    entry.revoke(reason);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// An open inbound connection; its owner listens for the end of its permission.
#[must_use = "dropped, the connection is no longer subject to policy changes"]
pub struct Registration {
    id: u64,
    entry: Rc<Entry>,
    registry: Weak<Inner>,
}

impl Registration {
    pub(super) fn observer(&self) -> Option<Rc<dyn Observer>> {
        self.registry.upgrade()?.observer.clone()
    }

    /// What is looked at from now on.
    pub(super) fn carries(&self, what: Carries) {
        self.entry.carries.set(what);
    }

    /// Why the connection must end, if it must.
    pub fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<Reason> {
        if let Some(reason) = self.entry.revoked.get() {
            return Poll::Ready(reason);
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits for the end of the permission. One waiter at a time.
    pub async fn revoked(&self) -> Reason {
        poll_fn(|cx| self.poll_revoked(cx)).await
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("id", &self.id).field("entry", &self.entry).finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.entries.borrow_mut().remove(&self.id);
        }
    }
}
