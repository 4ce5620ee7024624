//! The labels of a series: who, to whom, by what rule. Never a path, a host or anything else that a client chooses.

use std::fmt::Write;
use std::sync::Arc;

use weft_core::ids::{RuleKey, ServicePortKey};
use weft_core::workload::Workload;

use super::alive::Alive;
use super::families::Family;

/// A workload as metrics name it: what owns it, so that pods come and go without new series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadLabel {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The name of its owner.
    pub workload: Arc<str>,
}

impl WorkloadLabel {
    /// Of a workload.
    pub fn of(workload: &Workload) -> Self {
        Self { namespace: workload.namespace.as_str().into(), workload: workload.owner.name.as_str().into() }
    }

    /// Of one that is not known.
    pub fn unknown() -> Self {
        Self { namespace: "unknown".into(), workload: "unknown".into() }
    }
}

/// How a connection to the other end is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// Mutual TLS.
    Mtls,
    /// Both ends on this node, in memory.
    Local,
    /// Not at all: the other end is not in the mesh.
    Plaintext,
    /// Not at all: from an address of the node itself, where the kubelet's probes come from.
    Node,
    /// Not the mesh's business: relayed unchanged.
    Passthrough,
    /// There was no connection.
    None,
}

impl Security {
    /// The transport that the connection pipelines name for it.
    pub const fn transport(self) -> &'static str {
        match self {
            Self::Mtls => "hbone",
            Self::Local => "local",
            Self::Plaintext => "plaintext",
            Self::Node => "node",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// The protection that a transport gives.
    pub fn of_transport(transport: &str) -> Self {
        match transport {
            "hbone" => Self::Mtls,
            "local" => Self::Local,
            "plain" | "plaintext" => Self::Plaintext,
            "node" => Self::Node,
            "passthrough" => Self::Passthrough,
            _ => Self::None,
        }
    }

    /// As logs and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mutual_tls",
            Self::Local => "local",
            Self::Plaintext => "plaintext",
            Self::Node => "node",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }
}

/// Labels of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabels {
    /// `source` or `destination`: which end's proxy counted.
    pub reporter: &'static str,
    /// Who called.
    pub source: WorkloadLabel,
    /// Who answered.
    pub destination: WorkloadLabel,
    /// The Service port that was dialled.
    pub service: Option<ServicePortKey>,
    /// The rule that matched.
    pub rule: Option<RuleKey>,
    /// The protection.
    pub security: Security,
    /// `http1`, `http2` or `grpc`.
    pub protocol: &'static str,
}

/// Labels of connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionLabels {
    /// `source` or `destination`: which end's proxy counted.
    pub reporter: &'static str,
    /// Who called.
    pub source: WorkloadLabel,
    /// Who was called.
    pub destination: WorkloadLabel,
    /// The Service port that was dialled.
    pub service: Option<ServicePortKey>,
    /// The protection.
    pub security: Security,
}

/// Labels of an event or a gauge; the names and values come from closed sets and configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventLabels {
    /// The metric.
    pub family: &'static Family,
    /// The local workload, if it concerns one.
    pub workload: Option<WorkloadLabel>,
    /// More labels.
    pub more: Vec<(&'static str, Arc<str>)>,
}

impl EventLabels {
    /// A metric of the node, without labels.
    pub fn plain(family: &'static Family) -> Self {
        Self { family, workload: None, more: Vec::new() }
    }
}

/// What a family of series needs of its labels.
pub(super) trait Labels {
    /// Writes `name="value",...` without braces.
    fn write(&self, out: &mut String);
    /// Whether everything named is still there.
    fn is_alive(&self, alive: &Alive) -> bool;
}

impl Labels for RequestLabels {
    fn write(&self, out: &mut String) {
        write_ends(out, self.reporter, &self.source, &self.destination);
        write_service(out, self.service.as_ref());
        let (route, index) = match &self.rule {
            Some(rule) => (rule.route.to_string(), rule.index.to_string()),
            None => Default::default(),
        };
        for (name, value) in [
            ("route", route.as_str()),
            ("rule", index.as_str()),
            ("connection_security", self.security.as_str()),
            ("protocol", self.protocol),
        ] {
            pair(out, name, value);
        }
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        are_alive(alive, [&self.source, &self.destination], self.service.as_ref())
            && self.rule.as_ref().is_none_or(|rule| alive.rules.contains(rule))
    }
}

impl Labels for ConnectionLabels {
    fn write(&self, out: &mut String) {
        write_ends(out, self.reporter, &self.source, &self.destination);
        write_service(out, self.service.as_ref());
        pair(out, "connection_security", self.security.as_str());
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        are_alive(alive, [&self.source, &self.destination], self.service.as_ref())
    }
}

impl Labels for EventLabels {
    fn write(&self, out: &mut String) {
        if let Some(workload) = &self.workload {
            pair(out, "namespace", &workload.namespace);
            pair(out, "workload", &workload.workload);
        }
        for (name, value) in &self.more {
            pair(out, name, value);
        }
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        self.workload.as_ref().is_none_or(|workload| alive.workloads.contains(workload))
            && self.more.iter().all(|(name, value)| alive.names(name, value))
    }
}

fn are_alive(alive: &Alive, ends: [&WorkloadLabel; 2], service: Option<&ServicePortKey>) -> bool {
    ends.into_iter().all(|end| alive.workloads.contains(end)) && service.is_none_or(|key| alive.services.contains(key))
}

fn write_ends(out: &mut String, reporter: &str, source: &WorkloadLabel, destination: &WorkloadLabel) {
    for (name, value) in [
        ("reporter", reporter),
        ("source_namespace", &source.namespace),
        ("source_workload", &source.workload),
        ("destination_namespace", &destination.namespace),
        ("destination_workload", &destination.workload),
    ] {
        pair(out, name, value);
    }
}

fn write_service(out: &mut String, service: Option<&ServicePortKey>) {
    let (namespace, name, port) = match service {
        Some(key) => (key.service.namespace.as_str(), key.service.name.as_str(), key.port.to_string()),
        None => ("", "", String::new()),
    };
    for (label, value) in
        [("destination_service_namespace", namespace), ("destination_service", name), ("destination_port", &port)]
    {
        pair(out, label, value);
    }
}

/// `name="value"`, escaped as the exposition format says, after a comma if it is not the first.
pub(super) fn pair(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() && !out.ends_with('{') {
        out.push(',');
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
