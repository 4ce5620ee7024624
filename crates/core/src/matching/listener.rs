//! Which listener of a port a request or a TLS connection belongs to.
//!
//! "When a Listener's hostname is more specific than another's, requests that match both belong to the more specific one
//! alone" (Gateway API, `GatewaySpec.listeners`, listener isolation): what no route of that listener answers is not asked
//! of the routes of another.

use std::sync::Arc;

use crate::ids::ListenerKey;
use crate::matching::host::HostIndex;
use crate::route::HostnameMatch;

/// Something with the key and the hostname of a listener.
pub trait Named {
    /// The listener's key.
    fn key(&self) -> &ListenerKey;

    /// The listener's hostname; `None`: any.
    fn hostname(&self) -> Option<&HostnameMatch>;
}

/// The listeners of one port by hostname.
#[derive(Debug)]
pub struct ListenerTable<L>(HostIndex<Option<Arc<L>>>);

/// The listener that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerChoice<'a, L> {
    /// This one.
    Listener(&'a Arc<L>),
    /// Another than the one that the request's TLS connection was made to: 421 (RFC 9110, section 15.5.20), upon which the
    /// client opens a connection for it.
    Misdirected,
    /// None has its host: 404.
    None,
}

impl<L: Named> ListenerTable<L> {
    /// A table; of several listeners with one hostname, which the controller lets nobody have, the first counts.
    pub fn new(listeners: impl IntoIterator<Item = Arc<L>>) -> Self {
        let mut hosts = HostIndex::<Option<Arc<L>>>::default();
        for listener in listeners {
            hosts.edit(listener.hostname(), |first| _ = first.get_or_insert(Arc::clone(&listener)));
        }
        Self(hosts)
    }

    /// The table with another version of one of its listeners, whose hostname is the same; `None` if the listener isn't in it.
    /// Costs little, however many others there are.
    #[must_use]
    pub fn with(&self, listener: &Arc<L>) -> Option<Self> {
        let before = self.0.get(listener.hostname())?.as_ref()?;
        if before.key() != listener.key() {
            return None;
        }
        let mut hosts = self.0.clone();
        hosts.edit(listener.hostname(), |before| *before = Some(Arc::clone(listener)));
        Some(Self(hosts))
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<L>> {
        self.0.values().flatten()
    }

    /// The listener with the most specific hostname that covers `host`: the host of a request, or the name in a
    /// ClientHello (lower case, no port, no trailing dot). Without one only a listener without a hostname is meant.
    pub fn find(&self, host: &str) -> Option<&Arc<L>> {
        self.0.find(host, Option::as_ref)
    }

    /// The listener of a request. `connection` is the one that the request's TLS connection was made to, by the name in the
    /// ClientHello. Requests for another listener's host on it, as browsers send them to a server whose certificate is good
    /// for both, are told so (`GatewayTLSConfig`, "HTTPS connection coalescing").
    pub fn of_request(&self, host: &str, connection: Option<&ListenerKey>) -> ListenerChoice<'_, L> {
        match self.find(host) {
            None => ListenerChoice::None,
            Some(found) if connection.is_some_and(|key| key != found.key()) => ListenerChoice::Misdirected,
            Some(found) => ListenerChoice::Listener(found),
        }
    }
}
