//! What makes two requests fit for one connection.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::super::Target;
use crate::identify::LocalWorkload;

/// The version of HTTP on an upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1
    H1,
    /// HTTP/2 with prior knowledge.
    H2,
}

/// The pod that dials, the endpoint, how to get there, and the protocol. It keeps the pod's state alive, so that its
/// address can stand for it.
#[derive(Clone, Debug)]
pub(crate) struct PoolKey {
    source: Rc<LocalWorkload>,
    target: Rc<Target>,
    protocol: Protocol,
}

impl PoolKey {
    pub(crate) fn new(source: &Rc<LocalWorkload>, target: &Rc<Target>, protocol: Protocol) -> Self {
        Self { source: Rc::clone(source), target: Rc::clone(target), protocol }
    }

    pub(crate) fn source(&self) -> &Rc<LocalWorkload> {
        &self.source
    }

    pub(crate) fn target(&self) -> &Rc<Target> {
        &self.target
    }
}

impl PartialEq for PoolKey {
    fn eq(&self, other: &Self) -> bool {
        let same_target = || {
            let (own, other) = (&self.target, &other.target);
            own.address == other.address
                && own.transport == other.transport
                && own.tls == other.tls
                && own.proxy == other.proxy
        };
        Rc::ptr_eq(&self.source, &other.source)
            && self.protocol == other.protocol
            && (Rc::ptr_eq(&self.target, &other.target) || same_target())
    }
}

impl Eq for PoolKey {}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The transport is left out: an address has rarely more than one, and equality looks at it.
        Rc::as_ptr(&self.source).addr().hash(state);
        self.target.address.hash(state);
        // Of these there are as many as clients.
        self.target.proxy.hash(state);
        self.protocol.hash(state);
    }
}
