//! What the connection pipelines report, as series.

use std::rc::Rc;
use std::time::Duration;

use weft_core::reason::Reason;
use weft_core::workload::Workload;

use super::access_log::{AccessLog, Entry, LogPolicy, milliseconds};
use super::labels::{ConnectionLabels, EventLabels, Security, WorkloadLabel};
use super::shard::Recorder;
use crate::inpod::ListenerRole;
use crate::observe::{AcceptFailure, Connection, Direction, Ended, Observer};

/// The telemetry of one worker.
#[derive(Debug)]
pub struct WorkerTelemetry {
    recorder: Rc<Recorder>,
    log: AccessLog,
}

impl WorkerTelemetry {
    /// Records with a worker's recorder; connections that are relayed as bytes are logged like requests.
    pub fn new(recorder: Rc<Recorder>, log: AccessLog) -> Self {
        Self { recorder, log }
    }

    fn event(&self, name: &'static str, workload: &Workload, more: &[(&'static str, &str)]) {
        let more = more.iter().map(|(name, value)| (*name, (*value).into())).collect();
        self.recorder.event(&EventLabels { name, workload: Some(WorkloadLabel::of(workload)), more }, 1);
    }

    fn log(&self, connection: &Connection, ended: &Ended, lasted: Duration) {
        // The requests of an HTTP connection have lines of their own.
        if connection.transport == "http" || !self.wants(ended.reason) {
            return;
        }
        self.log.write(Box::new(entry(connection, ended, lasted)));
    }

    fn wants(&self, reason: Reason) -> bool {
        self.log.policy() != LogPolicy::Off && self.log.policy().wants(0, reason, fastrand::u64(..))
    }
}

fn labels(connection: &Connection) -> ConnectionLabels {
    let local = WorkloadLabel::of(&connection.workload);
    let remote = connection.remote.as_deref().map_or_else(WorkloadLabel::unknown, WorkloadLabel::of);
    let (reporter, source, destination) = match connection.direction {
        Direction::Outbound => ("source", local, remote),
        Direction::Inbound => ("destination", remote, local),
    };
    let security = Security::of_transport(connection.transport);
    ConnectionLabels { reporter, source, destination, service: connection.service.clone(), security }
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
    Entry {
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
        self.log(connection, ended, lasted);
    }

    fn refused(&self, connection: &Connection, reason: Reason) {
        let more = [("direction", connection.direction.as_str()), ("reason", reason.as_str())];
        self.event("tcp_connections_refused", &connection.workload, &more);
        self.log(connection, &Ended::refused(reason), Duration::ZERO);
    }

    fn shed(&self, workload: &Workload, role: ListenerRole, reason: Reason) {
        let more = [("listener", role.as_str()), ("reason", reason.as_str())];
        self.event("tcp_connections_shed", workload, &more);
    }

    fn accept_failed(&self, workload: &Workload, role: ListenerRole, class: AcceptFailure) {
        self.event("accept_failures", workload, &[("listener", role.as_str()), ("class", class.as_str())]);
    }

    fn panicked(&self, workload: &Workload) {
        self.event("panics", workload, &[]);
    }

    fn strict_audit(&self, connection: &Connection) {
        self.event("strict_audit", &connection.workload, &[]);
    }

    fn source_not_kept(&self, connection: &Connection) {
        self.event("source_address_not_kept", &connection.workload, &[]);
    }
}
