//! What is told of requests and connections: access logs and traces, as `TelemetryPolicy` objects ask for it (in the shape of
//! GEP-4768, with logs beside traces).

use serde::{Deserialize, Serialize};

use crate::ids::{GatewayKey, PolicyKey, ServicePortKey, WorkloadUid};
use crate::policy::Scope;

mod share;
#[cfg(test)]
mod tests;

pub use self::share::Share;

/// What the id of a Gateway as a workload starts with; the key of the Gateway follows.
pub const GATEWAY_UID: &str = "Kubernetes//Gateway/";

/// The fields of a line of the access log, in their order.
pub const LOG_FIELDS: [&str; 30] = [
    "time",
    "direction",
    "reporter",
    "source",
    "source_identity",
    "source_address",
    "destination",
    "destination_identity",
    "endpoint",
    "service",
    "route",
    "rule",
    "protocol",
    "method",
    "authority",
    "path",
    "status",
    "grpc_status",
    "reason",
    "made_by",
    "detail",
    "request_bytes",
    "response_bytes",
    "duration_ms",
    "upstream_ms",
    "tries",
    "connection_security",
    "client_tls",
    "request_id",
    "trace_id",
];

/// Which requests and connections get a line in the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogMode {
    /// None.
    Disabled,
    /// Those that failed: a reason of the mesh's, or a status of 500 and up.
    #[default]
    Errors,
    /// All, or those that failed and a share of the others.
    All,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// `field=value` separated by spaces, values quoted where needed.
    Text,
}

/// Which of [`LOG_FIELDS`] a line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogFields(u64);

impl LogFields {
    /// All of them.
    pub const ALL: Self = Self((1 << LOG_FIELDS.len()) - 1);

    /// Those of these names; a name that isn't known is passed over.
    pub fn named<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Self {
        let place = |name: T| LOG_FIELDS.iter().position(|known| *known == name.as_ref());
        Self(names.into_iter().filter_map(place).fold(0, |bits, place| bits | 1 << place))
    }

    /// Whether a field is among them.
    pub fn has(self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// Their names, in the order of the line.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        LOG_FIELDS.into_iter().enumerate().filter(move |(place, _)| self.0 & (1 << place) != 0).map(|(_, name)| name)
    }
}

/// Where a policy sends lines of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogOutput {
    /// To the proxy's standard output.
    Standard,
    /// To the port of a Service, by OTLP over gRPC.
    Collector(ServicePortKey),
}

/// What a policy says of the access log; `None` leaves it to a less specific one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLogPolicy {
    /// Which requests get a line.
    pub mode: Option<LogMode>,
    /// With [`LogMode::All`]: how many of those that didn't fail.
    pub sampling: Option<Share>,
    /// How a line looks.
    pub format: Option<LogFormat>,
    /// What is in it.
    pub fields: Option<LogFields>,
    /// Where lines go.
    pub output: Option<LogOutput>,
}

/// How the decision of whoever began a trace counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ParentSampling {
    /// Not at all: each request is sampled by the rate here.
    Ignored,
    /// What it didn't sample isn't here; of what it did, this share is.
    Respected(Share),
}

/// Something that is said on every span.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpanAttribute {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub value: AttributeSource,
}

/// Where the value of an attribute comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttributeSource {
    /// This text.
    Literal(String),
    /// A header of the request, if it is there; the name in lower case.
    Header(String),
}

/// What a policy says of traces; `None` leaves it to a less specific one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracingPolicy {
    /// Whether there are any.
    pub enabled: Option<bool>,
    /// The port of the Service that takes them, by OTLP over gRPC.
    pub provider: Option<ServicePortKey>,
    /// Whether the policy names a provider that can't be had or may not: nobody else is the one that was meant.
    pub withheld: bool,
    /// How many requests begin a trace.
    pub sampling: Option<Share>,
    /// What becomes of those that are part of one already.
    pub parent: Option<ParentSampling>,
    /// `service.name` of the spans.
    pub service_name: Option<String>,
    /// Said on every span.
    pub attributes: Vec<SpanAttribute>,
}

/// A `TelemetryPolicy`.
///
/// For each setting the most specific policy that gives it wins: workload or Gateway, namespace, mesh; among equals the older,
/// then the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryPolicy {
    /// Its key.
    pub key: PolicyKey,
    /// Which workloads it is for; those that are selected list it in their `telemetry`.
    pub scope: Scope,
    /// Which Gateways it is for by name, besides.
    pub gateways: Vec<GatewayKey>,
    /// When it was made, seconds since the Unix epoch.
    pub created_unix_seconds: i64,
    /// Of the access log.
    pub access_log: AccessLogPolicy,
    /// Of traces.
    pub tracing: TracingPolicy,
}

/// What is logged of a workload or a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Which requests get a line.
    pub mode: LogMode,
    /// With [`LogMode::All`]: how many of those that didn't fail.
    pub sampling: Share,
    /// How a line looks.
    pub format: LogFormat,
    /// What is in it.
    pub fields: LogFields,
    /// Who takes the lines; `None`: the standard output.
    pub collector: Option<Collector>,
    /// Whether decisions of authorization policies have lines: unless nobody in the mesh has any. A namespace can't hide whom
    /// it refuses.
    pub audit: bool,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            mode: LogMode::default(),
            sampling: Share::ALL,
            format: LogFormat::default(),
            fields: LogFields::ALL,
            collector: None,
            audit: true,
        }
    }
}

impl AccessLog {
    /// Whether a request gets a line; `random` is uniform.
    pub const fn wants(&self, failed: bool, random: u64) -> bool {
        match self.mode {
            LogMode::Disabled => false,
            LogMode::Errors => failed,
            LogMode::All => failed || self.sampling.takes(random),
        }
    }
}

/// Where spans, or lines of the access log, go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Collector {
    /// Where the process was told to send them when it started.
    Default,
    /// To a Service of the mesh's configuration.
    Service(ServicePortKey),
}

/// What is traced of a workload or a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Where spans go.
    pub collector: Collector,
    /// How many requests begin a trace.
    pub sampling: Share,
    /// What becomes of those that are part of one already.
    pub parent: ParentSampling,
    /// `service.name` of the spans; `None`: the name of who the span is of.
    pub service_name: Option<String>,
    /// Said on every span.
    pub attributes: Vec<SpanAttribute>,
}

impl Tracing {
    /// Whether a request is traced. `parent`: whether whoever began its trace sampled it, if somebody did; `random` is
    /// uniform.
    pub const fn samples(&self, parent: Option<bool>, random: u64) -> bool {
        match (self.parent, parent) {
            (ParentSampling::Respected(_), Some(false)) => false,
            (ParentSampling::Respected(share), Some(true)) => share.takes(random),
            (_, None) | (ParentSampling::Ignored, _) => self.sampling.takes(random),
        }
    }
}

/// What a process does where no policy says anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Of the access log.
    pub access_log: AccessLog,
    /// Whether it knows a collector of spans.
    pub has_collector: bool,
    /// How many requests begin a trace.
    pub sampling: Share,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { access_log: AccessLog::default(), has_collector: false, sampling: Share::ONE_PERCENT }
    }
}

/// What is told of a workload or a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// The access log.
    pub access_log: AccessLog,
    /// Traces, if there are any.
    pub tracing: Option<Tracing>,
    /// What becomes of requests that are part of a trace already, also where none begins: with `Ignored`, what isn't traced here
    /// isn't sampled further on by the word of a client from outside.
    pub parent: ParentSampling,
}

/// The Gateway that a workload of this id stands for, if it does.
pub fn gateway_of(workload: &WorkloadUid) -> Option<GatewayKey> {
    let (namespace, name) = workload.as_str().strip_prefix(GATEWAY_UID)?.split_once('/')?;
    Some(GatewayKey::new(namespace, name))
}

/// What the policies that apply come to, those for a Gateway by its name among them.
pub fn effective<'a>(
    policies: impl Iterator<Item = &'a TelemetryPolicy>,
    gateway: Option<&GatewayKey>,
    defaults: &Defaults,
) -> Telemetry {
    let rank = |policy: &TelemetryPolicy| match &policy.scope {
        _ if gateway.is_some_and(|gateway| policy.gateways.contains(gateway)) => 0,
        Scope::Selected => 0,
        Scope::Namespace(_) => 1,
        Scope::Mesh => 2,
    };
    let mut sorted: Vec<_> = policies.collect();
    sorted.sort_by(|a, b| (rank(a), a.created_unix_seconds, &a.key).cmp(&(rank(b), b.created_unix_seconds, &b.key)));
    let of_mesh: Vec<_> = sorted.iter().copied().filter(|policy| matches!(policy.scope, Scope::Mesh)).collect();
    let d = &defaults.access_log;
    let output = first(&sorted, |it| it.access_log.output.clone());
    let access_log = AccessLog {
        mode: first(&sorted, |it| it.access_log.mode).unwrap_or(d.mode),
        sampling: first(&sorted, |it| it.access_log.sampling).unwrap_or(d.sampling),
        format: first(&sorted, |it| it.access_log.format).unwrap_or(d.format),
        fields: first(&sorted, |it| it.access_log.fields).unwrap_or(d.fields),
        collector: match output {
            Some(LogOutput::Standard) => None,
            Some(LogOutput::Collector(port)) => Some(Collector::Service(port)),
            None => d.collector.clone(),
        },
        audit: first(&of_mesh, |it| it.access_log.mode).map_or(d.audit, |mode| mode != LogMode::Disabled),
    };
    // Whoever comes from outside of the mesh could have everything traced by saying so.
    let own = if gateway.is_some() { ParentSampling::Ignored } else { ParentSampling::Respected(Share::ALL) };
    let parent = first(&sorted, |it| it.tracing.parent).unwrap_or(own);
    Telemetry { access_log, tracing: tracing(&sorted, parent, defaults), parent }
}

/// The first word that is said of something.
fn first<T>(sorted: &[&TelemetryPolicy], of: impl Fn(&TelemetryPolicy) -> Option<T>) -> Option<T> {
    sorted.iter().find_map(|policy| of(policy))
}

fn tracing(sorted: &[&TelemetryPolicy], parent: ParentSampling, defaults: &Defaults) -> Option<Tracing> {
    if first(sorted, |it| it.tracing.enabled) == Some(false) {
        return None;
    }
    let of_provider = |it: &TelemetryPolicy| match &it.tracing {
        TracingPolicy { withheld: true, .. } => Some(None),
        TracingPolicy { provider, .. } => provider.clone().map(Some),
    };
    let collector = match first(sorted, of_provider) {
        Some(provider) => Collector::Service(provider?),
        None => defaults.has_collector.then_some(Collector::Default)?,
    };
    let with_attributes = sorted.iter().find(|policy| !policy.tracing.attributes.is_empty());
    Some(Tracing {
        collector,
        sampling: first(sorted, |it| it.tracing.sampling).unwrap_or(defaults.sampling),
        parent,
        service_name: first(sorted, |it| it.tracing.service_name.clone()),
        attributes: with_attributes.map(|policy| policy.tracing.attributes.clone()).unwrap_or_default(),
    })
}
