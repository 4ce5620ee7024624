//! The way that a request took, for whoever asks why it failed: kept as what it is until somebody wants it in words.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weft_core::ids::{RuleKey, ServicePortKey};
use weft_core::reason::{MadeBy, Reason};
use weft_core::workload::Workload;

use super::downstream::{Downstream, Front, Labelled, Side};
use super::finish::{Answered, Asked};
use super::mark;
use super::origin::{REQUEST_ID, new_id};
use crate::connect::Target;
use crate::records::{Attempt, Kept, LONGEST, Record};
use crate::util::clip;

/// What is known of the way of a request that did not simply succeed.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Tries that came to nothing, in order.
    pub(super) steps: Vec<Step>,
    /// Where the rule sends it, or what was dialled.
    pub(super) backend: Option<ServicePortKey>,
    /// An endpoint has answered in the end.
    pub(super) answered: bool,
    /// The answer is that of the destination's proxy.
    pub(super) by_destination: bool,
}

/// A try that came to nothing.
#[derive(Clone, Debug)]
pub(super) struct Step {
    target: Rc<Target>,
    outcome: Outcome,
    detail: String,
    /// When it was over.
    pub(super) at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Status(u16),
    Reason(Reason),
}

impl Step {
    /// The endpoint answered, with something that is to be tried again.
    pub(super) fn answered(target: &Rc<Target>, status: u16) -> Self {
        Self { target: Rc::clone(target), outcome: Outcome::Status(status), detail: String::new(), at: Instant::now() }
    }

    /// There was no answer.
    pub(super) fn failed(target: &Rc<Target>, reason: Reason, detail: &str) -> Self {
        Self {
            target: Rc::clone(target),
            outcome: Outcome::Reason(reason),
            detail: detail.to_owned(),
            at: Instant::now(),
        }
    }

    pub(super) fn attempt(&self) -> Attempt {
        Attempt {
            endpoint: self.target.address.to_string(),
            workload: self.target.workload.as_deref().map(name).unwrap_or_default(),
            outcome: match self.outcome {
                Outcome::Status(status) => status.to_string(),
                Outcome::Reason(reason) => reason.as_str().to_owned(),
            },
            detail: clip(&self.detail, LONGEST).to_owned(),
        }
    }
}

/// A request in words. `took` is its whole time.
pub(super) fn record(asked: &Asked, answered: &Answered, took: Duration) -> Record {
    let Labelled { labels, target, .. } = &*answered.labelled;
    let ends = asked.conn.log_ends(target.as_deref());
    let trail = answered.trail.as_deref();
    let text = |value: &Option<http::HeaderValue>| {
        value.as_ref().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
    };
    let mut attempts: Vec<Attempt> =
        trail.map(|trail| trail.steps.iter().map(Step::attempt).collect()).unwrap_or_default();
    if let Some(target) = target.as_ref().filter(|_| trail.is_none_or(|trail| trail.answered)) {
        attempts.push(Step::answered(target, answered.status).attempt());
    }
    let backend = trail.and_then(|trail| trail.backend.as_ref());
    let by_destination = trail.is_some_and(|trail| trail.by_destination);
    let own = answered.reason.made_by() != MadeBy::Application;
    Record {
        request_id: text(&asked.request_id),
        trace_id: asked.trace_id.map(|id| format!("{id:032x}")).unwrap_or_default(),
        time: now(),
        reporter: if asked.conn.side.is_gateway() { "gateway" } else { labels.reporter }.to_owned(),
        source: ends.source,
        source_identity: ends.source_identity,
        source_address: asked.client.map_or(ends.source_address, |client| client.to_string()),
        destination: ends.destination.clone(),
        endpoint: ends.endpoint,
        service: labels.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        backend: backend.map(ToString::to_string).unwrap_or_default(),
        route: labels.rule.as_ref().map(|rule| rule.route.to_string()).unwrap_or_default(),
        rule: labels.rule.as_ref().map(|rule| rule.index.to_string()).unwrap_or_default(),
        protocol: labels.protocol.to_owned(),
        // Only what is kept of them is copied: a client has their length.
        method: clip(asked.method.as_str(), LONGEST).to_owned(),
        authority: asked.host(LONGEST),
        path: clip(asked.uri.path(), LONGEST).to_owned(),
        status: answered.status,
        grpc_status: answered.grpc_status.map(|code| code.to_string()).unwrap_or_default(),
        reason: answered.reason.as_str().to_owned(),
        made_by: answered.reason.made_by().as_str().to_owned(),
        answered_by: match (by_destination, own) {
            (true, _) => ends.destination.clone(),
            (false, true) => asked.conn.served().1,
            (false, false) => String::new(),
        },
        detail: clip(&answered.detail, LONGEST).to_owned(),
        object: object(&asked.conn, answered, backend, &ends.destination),
        attempts,
        duration_ms: crate::telemetry::milliseconds(took),
        kept: String::new(),
    }
}

/// The answer to a head that doesn't come to its end, of which there is no request that could have an end of its own.
pub(super) fn too_slow(conn: &Downstream) -> String {
    let (reason, id) = (Reason::HeaderTimeout, String::from_utf8_lossy(new_id().as_bytes()).into_owned());
    let ends = conn.log_ends(None);
    let record = Record {
        request_id: id.clone(),
        time: now(),
        reporter: if conn.side.is_gateway() { "gateway" } else { conn.served().0 }.to_owned(),
        source: ends.source,
        source_identity: ends.source_identity,
        source_address: ends.source_address,
        destination: ends.destination,
        endpoint: ends.endpoint,
        protocol: "http1".to_owned(),
        status: 408,
        reason: reason.as_str().to_owned(),
        made_by: reason.made_by().as_str().to_owned(),
        answered_by: conn.served().1,
        ..Record::default()
    };
    conn.engine.ring.push(Box::new(record), Kept::Refused);
    let mark = match conn.side.is_outside() {
        true => String::new(),
        false => format!("{}: {reason}\r\n{}: {} {}\r\n", mark::REASON, mark::BY, conn.served().0, conn.served().1),
    };
    format!(
        "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n{REQUEST_ID}: {id}\r\n{mark}\r\n"
    )
}

/// Now, always with six decimals, so that texts sort as times.
pub(super) fn now() -> String {
    let now = time::OffsetDateTime::from(SystemTime::now());
    let (date, clock) = (now.date(), now.time());
    let day = format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day());
    format!("{day}T{:02}:{:02}:{:02}.{:06}Z", clock.hour(), clock.minute(), clock.second(), clock.microsecond())
}

/// The object to look at first.
fn object(conn: &Downstream, answered: &Answered, backend: Option<&ServicePortKey>, destination: &str) -> String {
    let labels = &answered.labelled.labels;
    let rule = labels.rule.as_ref().map(rule);
    let service = || backend.or(labels.service.as_ref()).map(service);
    let endpoint = || (!destination.is_empty()).then(|| format!("Pod {destination}"));
    let front = || front(conn);
    let served = || conn.served().1;
    let found = match answered.reason {
        Reason::NoRoute => labels.service.as_ref().map(self::service).or_else(front),
        Reason::InvalidRoute
        | Reason::InvalidBackend
        | Reason::NoBackend
        | Reason::Redirect
        | Reason::CorsPreflight
        | Reason::AuthDenied
        | Reason::AuthFailed
        | Reason::BodyTooLarge
        | Reason::RequestTimeout
        | Reason::BackendTimeout => rule.or_else(service).or_else(front),
        Reason::NoEndpoint | Reason::RetryBudget => service(),
        Reason::NoListener | Reason::Misdirected => front(),
        Reason::PolicyDenied | Reason::PolicyRevoked => Some(policy(&answered.detail, &whose(conn, destination))),
        Reason::PlaintextRefused | Reason::NotAProbe => Some(format!("MeshPolicy of Pod {}", whose(conn, destination))),
        Reason::LimitConnections | Reason::LimitHandshakes | Reason::LimitBuffers => {
            Some(format!("MeshPolicy with the limits of Pod {}", whose(conn, destination)))
        }
        Reason::NoCertificate => Some(format!("certificate of Pod {}", served())),
        Reason::CertificateExpired => endpoint().map(|pod| format!("certificate of {pod}")),
        Reason::NodeExhausted | Reason::Draining | Reason::Loop | Reason::Panic => {
            Some(format!("node proxy of Pod {}", served()))
        }
        // What the client did.
        Reason::BadRequest
        | Reason::HeadersTooLarge
        | Reason::HeaderTimeout
        | Reason::BodyTimeout
        | Reason::DownstreamReset
        | Reason::ProxyProtocol => None,
        _ => endpoint().or_else(service),
    };
    found.unwrap_or_default()
}

/// Whose policies count: those of the pod that is called, or at a Gateway the listener's.
fn whose(conn: &Downstream, destination: &str) -> String {
    if destination.is_empty() { conn.served().1 } else { destination.to_owned() }
}

/// The policy that a detail names, or those that were asked.
fn policy(detail: &str, whose: &str) -> String {
    match detail.strip_prefix("AuthorizationPolicy ") {
        Some(_) => detail.to_owned(),
        None => format!("AuthorizationPolicies of {whose}"),
    }
}

fn front(conn: &Downstream) -> Option<String> {
    let Side::Outbound(caller) = &conn.side else { return None };
    match &caller.front {
        Front::Service(key) => Some(service(key)),
        Front::Gateway { listener: Some(listener), .. } => Some(format!("Gateway {}", listener.key.gateway)),
        Front::Gateway { bind, listener: None } => {
            conn.engine.view().gateway_port(bind).map(|port| format!("Gateway {}", port.gateway))
        }
    }
}

/// As a person finds it: kind, namespace/name, then the rule.
fn rule(rule: &RuleKey) -> String {
    let route = rule.route.to_string();
    let (kind, name) = route.split_once('/').unwrap_or(("Route", &route));
    format!("{kind} {name}, rule {}", rule.index)
}

fn service(key: &ServicePortKey) -> String {
    format!("Service {key}")
}

fn name(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}
