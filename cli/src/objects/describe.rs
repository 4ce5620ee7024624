//! What applies to one workload or one Service.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use weft_core::ids::{Port, RuleKey, ServicePortKey};
use weft_core::policy::Scope;
use weft_core::route::{BackendTarget, HttpAction, Parent, RouteRule};
use weft_core::service::Service;
use weft_core::snapshot::{EndpointEntry, Snapshot};
use weft_core::workload::{ProbeCall, Workload};

use crate::explain::words::wanted;
use crate::table;

/// A workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadView {
    pub name: String,
    pub identity: String,
    pub owner: String,
    pub node: String,
    pub addresses: Vec<String>,
    /// `enrolled`, `outside` or `host network`.
    pub enrolment: &'static str,
    /// Whether a NetworkPolicy selects it, so that nothing of it is handed over in memory.
    pub network_policy: bool,
    /// The mode of ports that have none of their own.
    pub mode: String,
    /// Those that have.
    pub port_modes: Vec<String>,
    pub limits: Vec<String>,
    pub mesh_policies: Vec<String>,
    pub authorization_policies: Vec<String>,
    pub telemetry_policies: Vec<String>,
    pub probes: Vec<String>,
    pub services: Vec<Membership>,
    /// Rules at those Services.
    pub rules: Vec<RuleView>,
}

/// A Service that sends to a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Membership {
    pub service: String,
    pub endpoint: String,
    pub health: String,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    pub name: String,
    pub addresses: Vec<String>,
    /// How endpoints are chosen.
    pub balancing: String,
    /// What an XBackendTrafficPolicy asks for.
    pub traffic: Vec<String>,
    pub ports: Vec<PortView>,
    pub rules: Vec<RuleView>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortView {
    pub port: u16,
    pub protocol: String,
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointView {
    pub address: String,
    pub workload: String,
    pub node: String,
    pub health: String,
}

/// A rule that is attached to a Service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleView {
    pub rule: String,
    pub service: String,
    /// For whom: all clients, or those of one namespace.
    pub clients: String,
    pub wants: String,
    pub sends: String,
}

/// The endpoints of Services that are a workload.
pub(super) fn endpoints_at<'a>(
    snapshot: &'a Snapshot,
    workload: &'a Workload,
) -> impl Iterator<Item = (ServicePortKey, &'a EndpointEntry)> {
    let keys = snapshot.services().flat_map(keys_of);
    let known = keys.filter_map(move |key| snapshot.frontend(&key).map(|frontend| (key, frontend)));
    known.flat_map(move |(key, frontend)| {
        let entries = frontend.endpoints.entries.iter();
        let own = entries.filter(move |entry| workload.addresses.contains(&entry.address.ip()));
        own.map(move |entry| (key.clone(), entry))
    })
}

fn keys_of(service: &Arc<Service>) -> impl Iterator<Item = ServicePortKey> {
    service.ports.iter().map(|port| ServicePortKey { service: service.key.clone(), port: port.port })
}

fn words<T: fmt::Debug>(value: &T) -> String {
    format!("{value:?}").to_lowercase()
}

fn name(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

impl WorkloadView {
    /// What a snapshot says of it.
    pub fn of(snapshot: &Snapshot, workload: &Workload) -> Self {
        use weft_core::workload::Enrolment;
        let mut services: Vec<_> = endpoints_at(snapshot, workload)
            .map(|(key, entry)| Membership {
                service: key.to_string(),
                endpoint: entry.address.to_string(),
                health: words(&entry.health),
            })
            .collect();
        services.sort_by(|a, b| (&a.service, &a.endpoint).cmp(&(&b.service, &b.endpoint)));
        let applies = |scope: &Scope, key| match scope {
            Scope::Mesh => true,
            Scope::Namespace(namespace) => *namespace == workload.namespace,
            Scope::Selected => workload.policies.contains(key),
        };
        let own: Vec<_> = snapshot.mesh_policies().filter(|policy| applies(&policy.scope, &policy.key)).collect();
        // A port without a mode of its own, whatever its number.
        let general = Port::new(u16::MAX).map(|port| snapshot.mode_for(workload, port));
        let ports = own.iter().flat_map(|policy| &policy.port_modes).map(|(port, _)| *port);
        let mut ports: Vec<_> = ports.collect();
        ports.sort();
        ports.dedup();
        let limits = snapshot.limits_for(workload);
        let mut rules = RuleView::all(snapshot, |key| services.iter().any(|it| it.service == key.to_string()));
        rules.sort_by(|a, b| a.rule.cmp(&b.rule));
        Self {
            name: name(workload),
            identity: workload.identity.to_string(),
            owner: format!("{} {}", workload.owner.kind, workload.owner.name),
            node: workload.node.to_string(),
            addresses: workload.addresses.iter().map(ToString::to_string).collect(),
            enrolment: match workload.enrolment {
                Enrolment::Enrolled => "enrolled",
                Enrolment::Outside => "outside",
                Enrolment::HostNetwork => "host network",
            },
            network_policy: workload.network_policy,
            mode: general.map(|mode| format!("{mode:?}")).unwrap_or_default(),
            port_modes: ports.into_iter().map(|p| format!("{p} {:?}", snapshot.mode_for(workload, p))).collect(),
            limits: [
                limits.max_connections.map(|most| format!("{most} connections")),
                limits.max_handshakes.map(|most| format!("{most} handshakes")),
                limits.max_buffer_bytes.map(|most| format!("{most} bytes of buffers")),
            ]
            .into_iter()
            .flatten()
            .collect(),
            // Their keys say the kind, because both kinds of policies are listed together.
            mesh_policies: sorted(own.iter().map(|policy| policy.key.to_string().replacen("MeshPolicy:", "", 1))),
            authorization_policies: sorted(snapshot.policies_for(workload).iter().map(|it| it.key.to_string())),
            telemetry_policies: sorted(snapshot.telemetry_policies_for(workload).map(|it| it.key.to_string())),
            probes: sorted(workload.probes.iter().map(|probe| format!("{} {}", probe.port, call(&probe.call)))),
            services,
            rules,
        }
    }
}

fn sorted(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut values: Vec<_> = values.collect();
    values.sort();
    values.dedup();
    values
}

fn call(call: &ProbeCall) -> String {
    match call {
        ProbeCall::Http { target } => format!("HTTP {target}"),
        ProbeCall::Https => "HTTPS".to_owned(),
        ProbeCall::Tcp => "TCP".to_owned(),
        ProbeCall::Grpc { service } if service.is_empty() => "gRPC".to_owned(),
        ProbeCall::Grpc { service } => format!("gRPC {service}"),
    }
}

impl ServiceView {
    /// What a snapshot says of it.
    pub fn of(snapshot: &Snapshot, service: &Arc<Service>) -> Self {
        let ports = service.ports.iter().map(|port| {
            let key = ServicePortKey { service: service.key.clone(), port: port.port };
            let entries = snapshot.frontend(&key).map(|frontend| frontend.endpoints.entries.as_slice());
            let endpoints = entries.unwrap_or_default().iter().map(|entry| EndpointView {
                address: entry.address.to_string(),
                workload: snapshot.workload_at(entry.address.ip()).map(|it| name(it)).unwrap_or_default(),
                node: entry.node.as_ref().map(ToString::to_string).unwrap_or_default(),
                health: words(&entry.health),
            });
            PortView { port: port.port.get(), protocol: words(&port.protocol), endpoints: endpoints.collect() }
        });
        let mut rules = RuleView::all(snapshot, |key| key.service == service.key);
        rules.sort_by(|a, b| (&a.service, &a.rule).cmp(&(&b.service, &b.rule)));
        let traffic = service.traffic.as_deref();
        let retries = traffic.and_then(|it| it.retry).map(|it| {
            let (least, time) = (it.min_retries, it.min_interval);
            format!("retries: {} % of {:?}, or {least} in {time:?}", it.percent, it.interval)
        });
        let sessions = traffic.and_then(|it| it.session.as_ref()).map(|_| "sessions are kept".to_owned());
        Self {
            name: service.key.to_string(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            balancing: format!("{:?}", service.balancing),
            traffic: [retries, sessions].into_iter().flatten().collect(),
            ports: ports.collect(),
            rules,
        }
    }
}

impl RuleView {
    /// Those at Services that are asked for.
    fn all(snapshot: &Snapshot, is_asked: impl Fn(&ServicePortKey) -> bool) -> Vec<Self> {
        let mut all = Vec::new();
        for rule in snapshot.rules() {
            for parent in rule.parents() {
                let Parent::Service { port, consumer } = parent else { continue };
                if is_asked(port) {
                    let clients = consumer.as_ref().map_or_else(|| "all".to_owned(), |it| format!("in {it}"));
                    all.push(Self { clients, service: port.to_string(), ..Self::of(rule) });
                }
            }
        }
        all
    }

    fn of(rule: &RouteRule) -> Self {
        let (wants, sends) = match rule {
            RouteRule::Http(rule) => {
                let wants: Vec<_> = rule.matches.iter().map(wanted).collect();
                let sends = match &rule.action {
                    HttpAction::Forward(backends) => shares(backends.iter().map(|it| (&it.target, it.weight))),
                    HttpAction::Redirect(redirect) => format!("a redirect, {}", redirect.status.as_u16()),
                    HttpAction::Invalid(why) => format!("500: {why}"),
                };
                (wants.join(", or "), sends)
            }
            RouteRule::L4(rule) => (String::new(), shares(rule.backends.iter().map(|it| (&it.target, it.weight)))),
        };
        let wants = if wants.is_empty() { "anything".to_owned() } else { wants };
        Self { rule: key(rule.key()), service: String::new(), clients: String::new(), wants, sends }
    }
}

fn key(key: &RuleKey) -> String {
    format!("{} rule {}", key.route.to_string().replacen('/', " ", 1), key.index)
}

/// Backends with their shares in percent.
fn shares<'a>(backends: impl Iterator<Item = (&'a BackendTarget, u32)>) -> String {
    let backends: Vec<_> = backends.collect();
    let total: u64 = backends.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return "nothing: no backend has a weight".to_owned();
    }
    let share = |(target, weight): &(&BackendTarget, u32)| {
        let percent = f64::from(*weight) * 100.0 / total as f64;
        match target {
            BackendTarget::Service(key) => format!("{percent:.0}% Service {key}"),
            BackendTarget::Invalid { reference, reason } => format!("{percent:.0}% 500: {reference}, {reason:?}"),
        }
    };
    backends.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn rules(f: &mut fmt::Formatter<'_>, rules: &[RuleView]) -> fmt::Result {
    if rules.is_empty() {
        return Ok(());
    }
    let rows = rules.iter().map(|rule| {
        vec![rule.rule.clone(), rule.service.clone(), rule.clients.clone(), rule.wants.clone(), rule.sends.clone()]
    });
    write!(f, "\nrules\n{}", table(&["RULE", "AT", "CLIENTS", "WANTS", "SENDS"], rows))
}

impl fmt::Display for WorkloadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |values: &[String]| if values.is_empty() { "none".to_owned() } else { values.join(", ") };
        let modes = if self.port_modes.is_empty() {
            String::new()
        } else {
            format!("; port {}", self.port_modes.join(", port "))
        };
        for (name, value) in [
            ("pod", self.name.clone()),
            ("identity", self.identity.clone()),
            ("owner", self.owner.clone()),
            ("node", self.node.clone()),
            ("addresses", or_none(&self.addresses)),
            ("enrolment", self.enrolment.to_owned()),
            ("network policy", if self.network_policy { "selects it" } else { "none" }.to_owned()),
            ("mode", format!("{}{modes}", self.mode)),
            ("limits", if self.limits.is_empty() { "those of the node".to_owned() } else { self.limits.join(", ") }),
            ("mesh policies", or_none(&self.mesh_policies)),
            ("authorization", or_none(&self.authorization_policies)),
            ("telemetry", or_none(&self.telemetry_policies)),
            ("probes", or_none(&self.probes)),
        ] {
            writeln!(f, "{name:<15} {value}")?;
        }
        if !self.services.is_empty() {
            let rows = self.services.iter().map(|it| vec![it.service.clone(), it.endpoint.clone(), it.health.clone()]);
            write!(f, "\nservices\n{}", table(&["SERVICE", "ENDPOINT", "HEALTH"], rows))?;
        }
        rules(f, &self.rules)
    }
}

impl fmt::Display for ServiceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = if self.addresses.is_empty() { "none".to_owned() } else { self.addresses.join(", ") };
        writeln!(f, "service         {}\naddresses       {addresses}\nbalancing       {}", self.name, self.balancing)?;
        self.traffic.iter().try_for_each(|line| writeln!(f, "traffic         {line}"))?;
        for port in &self.ports {
            writeln!(f, "\nport {}, {}", port.port, port.protocol)?;
            let rows = port
                .endpoints
                .iter()
                .map(|it| vec![it.address.clone(), it.workload.clone(), it.node.clone(), it.health.clone()]);
            if port.endpoints.is_empty() {
                writeln!(f, "  no endpoints")?;
            } else {
                write!(f, "{}", table(&["ENDPOINT", "POD", "NODE", "HEALTH"], rows))?;
            }
        }
        rules(f, &self.rules)
    }
}
