//! What the connection pipelines report, as series.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use weft_core::authorize::CallFacts;
use weft_core::ids::{ServicePortKey, WorkloadUid};
use weft_core::reason::Reason;
use weft_core::snapshot::Snapshot;
use weft_core::telemetry as terms;
use weft_core::workload::Workload;
use weft_metrics::Family;

use super::access_log::{AccessLog, Entry, is_failure, milliseconds};
use super::alive::{DESTINATION_SERVICE, POLICY, policy_name};
use super::audit::AuditEntry;
use super::families;
use super::labels::{ConnectionLabels, EventLabels, RoleLabel, WorkloadLabel};
use super::security::Security;
use super::shard::Recorder;
use crate::inpod::ListenerRole;
use crate::observe::{AcceptFailure, Connection, Direction, Ended, Handshake, Holdings, Observer, PolicyWord};
use crate::otlp::Owner;
use crate::tap::Seen;
use crate::util::FastHash;

/// The telemetry of one worker.
#[derive(Debug)]
pub struct WorkerTelemetry {
    recorder: Rc<Recorder>,
    log: AccessLog,
    /// Where no policy says anything.
    plain: Rc<terms::AccessLog>,
    terms: RefCell<Terms>,
}

/// What is logged of whose connections, by the policies of one snapshot.
#[derive(Debug, Default)]
struct Terms {
    snapshot: Weak<Snapshot>,
    of: HashMap<WorkloadUid, Rc<terms::AccessLog>, FastHash>,
}

impl WorkerTelemetry {
    /// Records with a worker's recorder; connections that are relayed as bytes are logged like requests.
    pub fn new(recorder: Rc<Recorder>, log: AccessLog) -> Self {
        let plain = Rc::new(log.defaults().access_log.clone());
        Self { recorder, log, plain, terms: RefCell::default() }
    }

    /// What is logged of a workload's connections: worked out once for each snapshot.
    pub(super) fn terms_for(&self, workload: &Workload) -> Rc<terms::AccessLog> {
        let Some(snapshot) = self.log.policies() else { return Rc::clone(&self.plain) };
        let mut terms = self.terms.borrow_mut();
        if !std::ptr::eq(terms.snapshot.as_ptr(), Arc::as_ptr(&snapshot)) {
            *terms = Terms { snapshot: Arc::downgrade(&snapshot), of: HashMap::default() };
        }
        if let Some(known) = terms.of.get(&workload.uid) {
            return Rc::clone(known);
        }
        let made = Rc::new(snapshot.telemetry_for(workload, self.log.defaults()).access_log);
        terms.of.insert(workload.uid.clone(), Rc::clone(&made));
        made
    }

    fn event(&self, family: &'static Family, workload: &Workload, more: &[(&'static str, &str)]) {
        let more = more.iter().map(|(name, value)| (*name, (*value).into())).collect();
        self.recorder.event(&EventLabels { family, workload: Some(WorkloadLabel::of(workload)), more }, 1);
    }

    fn log(&self, connection: &Connection, ended: &Ended, lasted: Duration, detail: &str) {
        // The requests of an HTTP connection have lines of their own.
        if connection.http {
            return;
        }
        if self.log.taps().is_on() {
            self.offer(&Entry { detail: detail.to_owned(), ..entry(connection, ended, lasted) }, connection, ended);
        }
        let terms = self.terms_for(&connection.workload);
        if terms.wants(is_failure(0, ended.reason), fastrand::u64(..)) {
            let detail = detail.to_owned();
            let entry = Box::new(Entry { detail, ..entry(connection, ended, lasted) });
            self.log.write(&terms, entry, || owner(&connection.workload));
        }
    }
}

impl WorkerTelemetry {
    /// Shows a connection to whoever taps.
    #[cold]
    fn offer(&self, entry: &Entry, connection: &Connection, ended: &Ended) {
        let local = WorkloadLabel::of(&connection.workload);
        let remote = connection.remote.as_deref().map_or_else(WorkloadLabel::unknown, WorkloadLabel::of);
        let ends = match connection.direction {
            Direction::Outbound => (&local, &remote),
            Direction::Inbound => (&remote, &local),
        };
        self.log.taps().offer(&Seen { entry, ends, query: None, failed: is_failure(0, ended.reason) });
    }
}

/// Pairs of workloads are most of what there is to count: each is named once. Requests name both ends of what the
/// caller's proxy parses, and that proxy those of all connections within the mesh.
fn labels(connection: &Connection) -> ConnectionLabels {
    let local = WorkloadLabel::of(&connection.workload);
    let security = Security::of_transport(connection.transport);
    let is_named_elsewhere = match connection.direction {
        Direction::Outbound => connection.http,
        Direction::Inbound => connection.remote.is_some() && matches!(security, Security::Mtls | Security::Local),
    };
    let remote = match connection.remote.as_deref() {
        _ if is_named_elsewhere => WorkloadLabel::various(),
        Some(remote) => WorkloadLabel::of(remote),
        None => WorkloadLabel::unknown(),
    };
    let (reporter, source, destination) = match connection.direction {
        Direction::Outbound => ("source", local, remote),
        Direction::Inbound => ("destination", remote, local),
    };
    let service = connection.service.clone().filter(|_| !is_named_elsewhere);
    ConnectionLabels { reporter, source, destination, service, security }
}

/// Whose lines these are, for a collector.
fn owner(workload: &Workload) -> Owner {
    Owner {
        service: workload.owner.name.to_string(),
        namespace: workload.namespace.to_string(),
        pod: workload.name.to_string(),
    }
}

fn entry(connection: &Connection, ended: &Ended, lasted: Duration) -> Entry {
    let name = |w: &Workload| format!("{}/{}", w.namespace, w.name);
    let local = (name(&connection.workload), connection.workload.identity.to_string());
    let identity = connection.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let remote = (connection.remote.as_deref().map(name).unwrap_or_default(), identity);
    let (reporter, source, destination) = match connection.direction {
        Direction::Outbound => ("source", local, remote),
        Direction::Inbound => ("destination", remote, local),
    };
    let at_gateway = weft_core::telemetry::gateway_of(&connection.workload.uid).is_some();
    Entry {
        direction: if at_gateway { "gateway" } else { connection.direction.as_str() },
        reporter,
        source: source.0,
        source_identity: source.1,
        source_address: connection.client.to_string(),
        destination: destination.0,
        destination_identity: destination.1,
        endpoint: connection.endpoint.unwrap_or(connection.destination).to_string(),
        service: connection.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        protocol: "tcp",
        reason: ended.reason.as_str(),
        made_by: ended.reason.made_by().as_str(),
        request_bytes: ended.received,
        response_bytes: ended.sent,
        duration_ms: milliseconds(lasted),
        connection_security: Security::of_transport(connection.transport).as_str(),
        ..Entry::default()
    }
}

impl Observer for WorkerTelemetry {
    fn opened(&self, connection: &Connection) {
        self.recorder.connections(&labels(connection)).opened.add(1);
    }

    fn closed(&self, connection: &Connection, ended: &Ended, lasted: Duration) {
        let series = self.recorder.connections(&labels(connection));
        series.closed.add(1);
        series.received.add(ended.received);
        series.sent.add(ended.sent);
        self.log(connection, ended, lasted, "");
    }

    fn refused(&self, connection: &Connection, reason: Reason) {
        self.refused_because(connection, reason, "");
    }

    fn refused_because(&self, connection: &Connection, reason: Reason, detail: &str) {
        let more = [("direction", connection.direction.as_str()), ("reason", reason.as_str())];
        self.event(&families::CONNECTIONS_REFUSED, &connection.workload, &more);
        self.log(connection, &Ended::refused(reason), Duration::ZERO, detail);
    }

    fn shed(&self, workload: &Workload, role: ListenerRole, reason: Reason) {
        let more = [("listener", role.as_str()), ("reason", reason.as_str())];
        self.event(&families::CONNECTIONS_SHED, workload, &more);
    }

    fn accept_failed(&self, workload: &Workload, role: ListenerRole, class: AcceptFailure) {
        let more = [("listener", role.as_str()), ("class", class.as_str())];
        self.event(&families::ACCEPT_FAILURES, workload, &more);
    }

    fn panicked(&self, workload: &Workload) {
        self.event(&families::PANICS, workload, &[]);
    }

    fn strict_audit(&self, connection: &Connection) {
        self.event(&families::STRICT_AUDIT, &connection.workload, &[]);
    }

    fn source_not_kept(&self, connection: &Connection) {
        self.event(&families::SOURCE_NOT_KEPT, &connection.workload, &[]);
    }

    fn handshake(&self, workload: &Workload, handshake: Handshake) {
        let Handshake { role, result, took, version, cipher } = handshake;
        let more = [("role", role.as_str()), ("result", result.as_str()), ("tls_version", version), ("cipher", cipher)];
        self.event(&families::HANDSHAKES, workload, &more);
        if result == Reason::Ok {
            self.recorder.handshake(RoleLabel(role.as_str()), took);
        }
    }

    fn decided(&self, workload: &Workload, word: PolicyWord<'_>) {
        let policy = word.policy.map(policy_name).unwrap_or_default();
        let mode = if word.enforced { "enforce" } else { "audit" };
        self.event(&families::DECISIONS, workload, &[(POLICY, &policy), ("decision", word.said), ("mode", mode)]);
    }

    fn audited(&self, workload: &Workload, address: &dyn Display, call: &CallFacts<'_>, word: PolicyWord<'_>) {
        let terms = self.terms_for(workload);
        if terms.audit {
            self.log.audit(&terms, AuditEntry::new(workload, address, call, word), || owner(workload));
        }
    }

    fn ejected(&self, service: &ServicePortKey) {
        let more = vec![(DESTINATION_SERVICE, service.to_string().into())];
        self.recorder.event(&EventLabels { family: &families::ENDPOINT_EJECTIONS, workload: None, more }, 1);
    }

    fn reopened(&self, workload: &Workload, role: ListenerRole) {
        self.event(&families::LISTENERS_REOPENED, workload, &[("listener", role.as_str())]);
    }

    fn node_plaintext(&self, connection: &Connection) {
        self.event(&families::NODE_PLAINTEXT, &connection.workload, &[]);
    }

    fn holds(&self, holdings: Holdings) {
        let Holdings { tunnels, tunnel_streams, tunnel_dials, ejected } = holdings;
        for (family, value) in [
            (&families::TUNNELS, tunnels),
            (&families::TUNNEL_STREAMS, tunnel_streams),
            (&families::TUNNEL_DIALS, tunnel_dials),
            (&families::ENDPOINTS_EJECTED, ejected),
        ] {
            self.recorder.gauge(&EventLabels::plain(family), value as u64);
        }
    }
}
