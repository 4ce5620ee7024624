//! The labels of a series: who, to whom, by what rule. Never a path, a host or anything else that a client chooses.

use std::fmt::Write;
use std::sync::Arc;

use weft_core::ids::{RuleKey, ServicePortKey};
use weft_core::workload::Workload;
use weft_metrics::Family;

use super::alive::{Alive, DESTINATION_SERVICE, POLICY};
use super::security::Security;
use super::series::{DurationSeries, SizeSeries};

/// Stands for everything that there was no room for.
const OVERFLOW: &str = "overflow";
/// Stands for ends that other series name.
const VARIOUS: &str = "various";
/// Stands for ends that nobody knows.
const UNKNOWN: &str = "unknown";

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
        Self::nobody(UNKNOWN)
    }

    /// In the place of one that other series name.
    pub fn various() -> Self {
        Self::nobody(VARIOUS)
    }

    /// In the place of one that there is no room for.
    pub fn overflow() -> Self {
        Self::nobody(OVERFLOW)
    }

    fn nobody(name: &str) -> Self {
        let name = Arc::<str>::from(name);
        Self { namespace: Arc::clone(&name), workload: name }
    }

    pub(super) fn is_overflow(&self) -> bool {
        &*self.workload == OVERFLOW && self.namespace == self.workload
    }

    pub(super) fn is_various(&self) -> bool {
        &*self.workload == VARIOUS && self.namespace == self.workload
    }

    /// Whether it stands for no workload, and so never goes.
    pub(crate) fn is_nobody(&self) -> bool {
        self.namespace == self.workload && matches!(&*self.workload, UNKNOWN | VARIOUS | OVERFLOW)
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

    /// Whether it names nothing: there are as many of those as families.
    pub(super) fn is_plain(&self) -> bool {
        self.workload.is_none() && self.more.is_empty()
    }
}

/// Labels of how long requests took: of the destination alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DurationLabels {
    /// `source` or `destination`: which end's proxy counted.
    pub reporter: &'static str,
    /// Who answered.
    pub destination: WorkloadLabel,
    /// The Service port that was dialled.
    pub service: Option<ServicePortKey>,
    /// The rule that matched.
    pub rule: Option<RuleKey>,
}

/// Labels of how large bodies were: of this proxy's workload alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SizeLabels {
    /// `source` or `destination`: whether it called or was called.
    pub reporter: &'static str,
    /// The workload.
    pub local: WorkloadLabel,
}

/// Which end of a TLS handshake was ours, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleLabel(pub &'static str);

impl RequestLabels {
    pub(super) fn of_duration(&self) -> DurationLabels {
        let Self { reporter, destination, service, rule, .. } = self.clone();
        DurationLabels { reporter, destination, service, rule }
    }

    pub(super) fn of_sizes(&self) -> SizeLabels {
        let local = if self.reporter == "source" { &self.source } else { &self.destination };
        SizeLabels { reporter: self.reporter, local: local.clone() }
    }
}

/// What a family of series needs of its labels.
pub(super) trait Labels: Clone {
    /// How many series of a page they make.
    const SERIES: usize;

    /// Writes `name="value",...` without braces.
    fn write(&self, out: &mut String);
    /// Whether everything named is still there.
    fn is_alive(&self, alive: &Alive) -> bool;
    /// Those in their place when there is no room: without anything that configuration names.
    fn overflow(&self) -> Self;
}

impl Labels for RequestLabels {
    // One outcome, and the time.
    const SERIES: usize = 2;

    fn write(&self, out: &mut String) {
        write_ends(out, self.reporter, &self.source, &self.destination);
        write_service(out, self.service.as_ref(), &self.destination);
        write_rule(out, self.rule.as_ref(), &self.destination);
        pair(out, "connection_security", self.security.as_str());
        pair(out, "protocol", self.protocol);
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        are_alive(alive, &[&self.source, &self.destination], self.service.as_ref(), self.rule.as_ref())
    }

    fn overflow(&self) -> Self {
        let (source, destination) = (WorkloadLabel::overflow(), WorkloadLabel::overflow());
        let Self { reporter, security, protocol, .. } = *self;
        Self { reporter, source, destination, service: None, rule: None, security, protocol }
    }
}

impl Labels for DurationLabels {
    const SERIES: usize = DurationSeries::SERIES;

    fn write(&self, out: &mut String) {
        pair(out, "reporter", self.reporter);
        write_workload(out, ["destination_namespace", "destination_workload"], &self.destination);
        write_service(out, self.service.as_ref(), &self.destination);
        write_rule(out, self.rule.as_ref(), &self.destination);
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        are_alive(alive, &[&self.destination], self.service.as_ref(), self.rule.as_ref())
    }

    fn overflow(&self) -> Self {
        Self { reporter: self.reporter, destination: WorkloadLabel::overflow(), service: None, rule: None }
    }
}

impl Labels for SizeLabels {
    const SERIES: usize = SizeSeries::SERIES;

    fn write(&self, out: &mut String) {
        pair(out, "reporter", self.reporter);
        write_workload(out, ["namespace", "workload"], &self.local);
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        are_alive(alive, &[&self.local], None, None)
    }

    fn overflow(&self) -> Self {
        Self { reporter: self.reporter, local: WorkloadLabel::overflow() }
    }
}

impl Labels for ConnectionLabels {
    const SERIES: usize = 4;

    fn write(&self, out: &mut String) {
        write_ends(out, self.reporter, &self.source, &self.destination);
        write_service(out, self.service.as_ref(), &self.destination);
        pair(out, "connection_security", self.security.as_str());
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        are_alive(alive, &[&self.source, &self.destination], self.service.as_ref(), None)
    }

    fn overflow(&self) -> Self {
        let (source, destination) = (WorkloadLabel::overflow(), WorkloadLabel::overflow());
        let Self { reporter, security, .. } = *self;
        Self { reporter, source, destination, service: None, security }
    }
}

impl Labels for EventLabels {
    const SERIES: usize = 1;

    fn write(&self, out: &mut String) {
        if let Some(workload) = &self.workload {
            write_workload(out, ["namespace", "workload"], workload);
        }
        for (name, value) in &self.more {
            match *name {
                DESTINATION_SERVICE => write_service_text(out, value),
                name => pair(out, name, value),
            }
        }
    }

    fn is_alive(&self, alive: &Alive) -> bool {
        self.workload.as_ref().is_none_or(|workload| workload.is_nobody() || alive.workloads.contains(workload))
            && self.more.iter().all(|(name, value)| &**value == OVERFLOW || alive.names(name, value))
    }

    fn overflow(&self) -> Self {
        let more = self.more.iter().map(|(name, value)| match *name {
            DESTINATION_SERVICE | POLICY => (*name, OVERFLOW.into()),
            _ => (*name, Arc::clone(value)),
        });
        let workload = self.workload.as_ref().map(|_| WorkloadLabel::overflow());
        Self { family: self.family, workload, more: more.collect() }
    }
}

impl Labels for RoleLabel {
    const SERIES: usize = DurationSeries::SERIES;

    fn write(&self, out: &mut String) {
        pair(out, "role", self.0);
    }

    fn is_alive(&self, _alive: &Alive) -> bool {
        true
    }

    fn overflow(&self) -> Self {
        *self
    }
}

fn are_alive(alive: &Alive, ends: &[&WorkloadLabel], service: Option<&ServicePortKey>, rule: Option<&RuleKey>) -> bool {
    ends.iter().all(|end| end.is_nobody() || alive.workloads.contains(*end))
        && service.is_none_or(|key| alive.services.contains(key))
        && rule.is_none_or(|rule| alive.rules.contains(rule))
}

fn write_ends(out: &mut String, reporter: &str, source: &WorkloadLabel, destination: &WorkloadLabel) {
    pair(out, "reporter", reporter);
    write_workload(out, ["source_namespace", "source_workload"], source);
    write_workload(out, ["destination_namespace", "destination_workload"], destination);
}

fn write_workload(out: &mut String, [namespace, workload]: [&str; 2], label: &WorkloadLabel) {
    pair(out, namespace, &label.namespace);
    pair(out, workload, &label.workload);
}

/// The Service and the rule are said to be overflow where the destination is.
fn write_service(out: &mut String, service: Option<&ServicePortKey>, destination: &WorkloadLabel) {
    match service {
        Some(key) => {
            service_labels(out, key.service.namespace.as_str(), key.service.name.as_str(), &key.port.to_string())
        }
        None if destination.is_overflow() => service_labels(out, OVERFLOW, OVERFLOW, OVERFLOW),
        None => service_labels(out, "", "", ""),
    }
}

/// Of a Service port as text: `namespace/name:port`.
fn write_service_text(out: &mut String, text: &str) {
    let split = text.split_once('/').and_then(|(namespace, rest)| Some((namespace, rest.rsplit_once(':')?)));
    let (namespace, (name, port)) = split.unwrap_or((text, (text, text)));
    service_labels(out, namespace, name, port);
}

fn service_labels(out: &mut String, namespace: &str, name: &str, port: &str) {
    pair(out, "destination_service_namespace", namespace);
    pair(out, DESTINATION_SERVICE, name);
    pair(out, "destination_port", port);
}

fn write_rule(out: &mut String, rule: Option<&RuleKey>, destination: &WorkloadLabel) {
    let (route, index) = match rule {
        Some(rule) => (rule.route.to_string(), rule.index.to_string()),
        None if destination.is_overflow() => (OVERFLOW.to_owned(), OVERFLOW.to_owned()),
        None => Default::default(),
    };
    pair(out, "route", &route);
    pair(out, "rule", &index);
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
