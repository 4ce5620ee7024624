//! What the requests of one downstream connection share.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use weft_core::gateway::{Bind, Listener};
use weft_core::identity::SpiffeId;
use weft_core::ids::{Port, RuleKey, ServicePortKey};
use weft_core::reason::Reason;
use weft_core::workload::Workload;

use super::engine::Engine;
use super::finish::Finish;
use super::wire::{End, Watched};
use crate::authorize::{HttpPermit, Inbound};
use crate::connect::http_pool::{AppConnections, Lease, OwnPool};
use crate::connect::{Target, Transport};
use crate::identify::LocalWorkload;
use crate::observe::{Connection, Ended};
use crate::telemetry::{RequestLabels, RequestSeries, Security, WorkloadLabel};

/// Series of one connection kept at hand.
const KEPT_SERIES: usize = 8;

/// One downstream connection.
pub(super) struct Downstream {
    pub(super) engine: Rc<Engine>,
    pub(super) watched: Rc<Watched>,
    pub(super) side: Side,
    /// The bytes of both ends, once a request switched protocols.
    pub(super) upgrade: RefCell<Option<(Lease, Finish)>>,
    /// Why the last exchange ended, for the connection's own end.
    pub(super) last: Cell<Reason>,
    /// Connections that tell endpoints of its client.
    pub(super) own: OnceCell<Rc<OwnPool>>,
    labelled: RefCell<Vec<(Seen, Rc<Labelled>)>>,
    /// The connection for telemetry, which hears of an outbound one when it is known how its first request goes.
    told: RefCell<Connection>,
    opened: Cell<bool>,
}

/// Which way the connection goes.
pub(super) enum Side {
    /// A local pod dialled a Service, or a client from outside a Gateway.
    Outbound(Caller),
    /// A local pod was dialled.
    Inbound(Called),
}

impl Side {
    /// The pod that this proxy serves here, or the Gateway.
    pub(super) fn pod(&self) -> &Rc<LocalWorkload> {
        match self {
            Self::Outbound(caller) => &caller.source,
            Self::Inbound(called) => &called.permit.inbound().workload,
        }
    }

    /// Which way the connection goes, as logs name it.
    pub(super) fn direction(&self) -> &'static str {
        match self {
            Self::Outbound(_) if self.is_gateway() => "gateway",
            Self::Outbound(_) => "outbound",
            Self::Inbound(_) => "inbound",
        }
    }

    /// Whether the client speaks TLS to a Gateway.
    pub(super) fn has_client_tls(&self) -> bool {
        matches!(self, Self::Outbound(caller) if caller.front.is_secure())
    }

    /// Whether a Gateway was dialled.
    pub(super) fn is_gateway(&self) -> bool {
        matches!(self, Self::Outbound(Caller { front: Front::Gateway { .. }, .. }))
    }

    /// Whether the client is none of the mesh: one of a Gateway, or one that nobody vouches for.
    pub(super) fn is_outside(&self) -> bool {
        match self {
            Self::Outbound(_) => self.is_gateway(),
            Self::Inbound(called) => called.permit.inbound().peer.identity.spiffe().is_none(),
        }
    }
}

/// A local pod that was dialled, as far as that was permitted.
pub(super) struct Called {
    pub(super) permit: HttpPermit,
    pub(super) app: Rc<AppConnections>,
}

/// A local pod that dialled a Service, or a Gateway on behalf of a client from outside.
pub(super) struct Caller {
    pub(super) source: Rc<LocalWorkload>,
    pub(super) workload: Arc<Workload>,
    pub(super) client: SocketAddr,
    /// What the client dialled.
    pub(super) dialled: SocketAddr,
    pub(super) front: Front,
    /// What endpoints are told of a client that nobody stands in front of, once it was written.
    pub(super) way: OnceCell<HeaderValue>,
}

/// What the requests of a connection are routed by.
pub(super) enum Front {
    /// The routes of the Service that was dialled.
    Service(ServicePortKey),
    /// The listener of a Gateway that has the request's host.
    Gateway {
        /// The place that was dialled.
        bind: Bind,
        /// The listener that TLS was ended for, as it was then, if it was.
        listener: Option<Arc<Listener>>,
    },
}

impl Front {
    /// Whether the client speaks TLS to this proxy.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Self::Gateway { listener: Some(_), .. })
    }

    fn service(&self) -> Option<&ServicePortKey> {
        match self {
            Self::Service(key) => Some(key),
            Self::Gateway { .. } => None,
        }
    }
}

/// What tells two series of one connection apart. What it points to is kept alive by it.
#[derive(Clone)]
struct Seen {
    rule: Option<RuleKey>,
    target: Option<Rc<Target>>,
    protocol: &'static str,
}

/// A series with its labels.
pub(super) struct Labelled {
    pub(super) labels: RequestLabels,
    pub(super) series: Arc<RequestSeries>,
    pub(super) target: Option<Rc<Target>>,
}

/// Both ends as the access log names them.
#[derive(Default)]
pub(super) struct LogEnds {
    pub(super) source: String,
    pub(super) source_identity: String,
    pub(super) source_address: String,
    pub(super) destination: String,
    pub(super) destination_identity: String,
    pub(super) endpoint: String,
}

impl Downstream {
    pub(super) fn new(engine: &Rc<Engine>, watched: Rc<Watched>, side: Side, told: Connection) -> Rc<Self> {
        let known = matches!(side, Side::Inbound(_));
        watched.bodies().count_for(&side.pod().pod.budget);
        let conn = Rc::new(Self {
            engine: Rc::clone(engine),
            watched,
            side,
            upgrade: RefCell::default(),
            last: Cell::new(Reason::Ok),
            own: OnceCell::new(),
            labelled: RefCell::default(),
            told: RefCell::new(told),
            opened: Cell::new(false),
        });
        if known {
            conn.open(None);
        }
        conn
    }

    /// Tells telemetry of the connection, once.
    fn open(&self, target: Option<&Target>) {
        if self.opened.replace(true) {
            return;
        }
        if let Some(target) = target {
            self.told.borrow_mut().transport = security(target).transport();
        }
        self.engine.observer.opened(&self.told.borrow());
    }

    /// Tells telemetry that a request's task panicked.
    pub(super) fn panicked(&self) {
        self.engine.observer.panicked(&self.told.borrow().workload);
    }

    /// Tells telemetry that it is over.
    pub(super) fn closed(&self, ended: &Ended, lasted: Duration) {
        self.open(None);
        self.engine.observer.closed(&self.told.borrow(), ended, lasted);
    }

    /// Where else the client may come with its next requests, as a value of `Alt-Svc` (RFC 7838, section 3): to the listener's
    /// HTTP/3, if this machine listens for it.
    pub(super) fn alternative(&self) -> Option<HeaderValue> {
        let Side::Outbound(caller) = &self.side else { return None };
        let Front::Gateway { bind, listener: Some(listener) } = &caller.front else { return None };
        (listener.speaks_http3() && self.engine.http3.is_bound(bind)).then(|| http3_at(bind.port))?
    }

    /// Whether the connection has to end, and how.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Option<End> {
        if let Side::Inbound(called) = &self.side
            && let Poll::Ready(reason) = called.permit.registration().poll_revoked(cx)
        {
            return Some(End::Now(reason));
        }
        self.watched.poll_end(cx)
    }

    /// The series of a request.
    pub(super) fn labelled(
        &self,
        rule: Option<&RuleKey>,
        target: Option<&Rc<Target>>,
        protocol: &'static str,
    ) -> Rc<Labelled> {
        let is_it = |(seen, labelled): &&(Seen, Rc<Labelled>)| {
            let same_target = match (&seen.target, target) {
                (Some(a), Some(b)) => Rc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            same_target && seen.protocol == protocol && seen.rule.as_ref() == rule && !labelled.series.is_retired()
        };
        if let Some((_, labelled)) = self.labelled.borrow().iter().find(is_it) {
            return Rc::clone(labelled);
        }
        if let Some(target) = target {
            self.open(Some(target));
        }
        let labels = self.labels(rule, target.map(|it| &**it), protocol);
        let series = self.engine.recorder.requests(&labels);
        let labelled = Rc::new(Labelled { labels, series, target: target.cloned() });
        let mut kept = self.labelled.borrow_mut();
        if kept.len() >= KEPT_SERIES {
            kept.remove(0);
        }
        kept.push((Seen { rule: rule.cloned(), target: target.cloned(), protocol }, Rc::clone(&labelled)));
        labelled
    }

    fn labels(&self, rule: Option<&RuleKey>, target: Option<&Target>, protocol: &'static str) -> RequestLabels {
        let workload = |w: Option<&Arc<Workload>>| w.map_or_else(WorkloadLabel::unknown, |w| WorkloadLabel::of(w));
        match &self.side {
            Side::Outbound(caller) => RequestLabels {
                reporter: "source",
                source: WorkloadLabel::of(&caller.workload),
                destination: workload(target.and_then(|target| target.workload.as_ref())),
                service: caller.front.service().cloned(),
                rule: rule.cloned(),
                security: target.map_or(Security::None, security),
                protocol,
            },
            Side::Inbound(called) => {
                let (view, inbound) = (self.engine.view(), called.permit.inbound());
                RequestLabels {
                    reporter: "destination",
                    source: workload(view.workload_at(inbound.peer.address.ip().to_canonical())),
                    destination: WorkloadLabel::of(&inbound.workload.workload(&view)),
                    service: None,
                    rule: None,
                    security: peer_security(inbound),
                    protocol,
                }
            }
        }
    }

    /// Which end of a call this proxy is, and the pod that it serves there as namespace/name.
    pub(super) fn served(&self) -> (&'static str, String) {
        let name = |w: &Workload| format!("{}/{}", w.namespace, w.name);
        match &self.side {
            Side::Outbound(caller) => ("source", name(&caller.workload)),
            Side::Inbound(called) => {
                let inbound = called.permit.inbound();
                ("destination", name(&inbound.workload.workload(&self.engine.view())))
            }
        }
    }

    /// Both ends, for the log.
    pub(super) fn log_ends(&self, target: Option<&Target>) -> LogEnds {
        let name = |w: &Workload| format!("{}/{}", w.namespace, w.name);
        let identity = |id: Option<&SpiffeId>| id.map(ToString::to_string).unwrap_or_default();
        match &self.side {
            Side::Outbound(caller) => {
                let to = target.and_then(|target| target.workload.as_deref());
                LogEnds {
                    source: name(&caller.workload),
                    source_identity: caller.source.identity().to_string(),
                    source_address: caller.client.to_string(),
                    destination: to.map(name).unwrap_or_default(),
                    destination_identity: identity(to.map(|w| &w.identity)),
                    endpoint: target.map(|target| target.address.to_string()).unwrap_or_default(),
                }
            }
            Side::Inbound(called) => {
                let (view, inbound) = (self.engine.view(), called.permit.inbound());
                let from = view.workload_at(inbound.peer.address.ip().to_canonical());
                let to = inbound.workload.workload(&view);
                LogEnds {
                    source: from.map(|w| name(w)).unwrap_or_default(),
                    source_identity: identity(inbound.peer.identity.spiffe()),
                    source_address: inbound.peer.address.to_string(),
                    destination: name(&to),
                    destination_identity: to.identity.to_string(),
                    endpoint: inbound.destination.to_string(),
                }
            }
        }
    }
}

/// Good for a day, which is what it is without saying so. The port is the listener's: on the way to it none is changed, or it
/// isn't found, and the client stays where it is.
fn http3_at(port: Port) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(format!("h3=\":{port}\"; ma=86400"))).ok()
}

fn security(target: &Target) -> Security {
    match &target.transport {
        Transport::Hbone { .. } => Security::Mtls,
        Transport::Local { .. } => Security::Local,
        _ => Security::Plaintext,
    }
}

pub(super) fn peer_security(inbound: &Inbound) -> Security {
    use crate::identify::PeerIdentity;
    match inbound.peer.identity {
        PeerIdentity::Certificate(_) => Security::Mtls,
        PeerIdentity::FirstHand(_) => Security::Local,
        PeerIdentity::Node => Security::Node,
        PeerIdentity::Unidentified => Security::Plaintext,
    }
}
