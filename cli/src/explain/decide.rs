//! The explanation as a value.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use http::{HeaderMap, Method};
use serde::Serialize;
use weft_core::authorize::{CallFacts, Decision, DenyCause, HttpFacts, evaluate};
use weft_core::filter::{FrontFacts, HttpPlan, plan_http};
use weft_core::ids::{Name, Namespace, Port, ServiceKey, ServicePortKey};
use weft_core::matching::{HttpTable, L4Table, RequestFacts};
use weft_core::normalize;
use weft_core::plan::{ConnectionFacts, ConnectionPlan, plan_connection};
use weft_core::policy::Mode;
use weft_core::route::{BackendTarget, HttpAction, Parent, RedirectScheme, RouteRule};
use weft_core::service::EndpointHealth;
use weft_core::snapshot::{EndpointEntry, Frontend, Snapshot};
use weft_core::workload::{Enrolment, Workload};
use weft_node_proxy::connect::{Standing, Transport, resolve};

use super::words;

/// A call as a person describes it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The calling pod, `namespace/name`.
    pub source: String,
    /// `service.namespace[:port]` or `ip:port`.
    pub destination: String,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The Host header, if another one than the Service's name.
    pub host: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
}

/// What would become of the call.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Explanation {
    /// The caller and its identity.
    pub source: String,
    /// The address that is dialled.
    pub dialled: String,
    /// How the connection is handled.
    pub connection: String,
    /// The rule that matches, `kind/namespace/name#index`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What the rule does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Where it may go, and what each destination's policy says.
    pub endpoints: Vec<Destination>,
    /// Why the call fails before it reaches an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Destination {
    /// The backend it belongs to, with its share.
    pub backend: String,
    /// Its address.
    pub address: SocketAddr,
    /// The workload.
    pub workload: String,
    /// How it is reached.
    pub transport: String,
    /// Whether it may be picked.
    pub health: String,
    /// What its policies say, and which one.
    pub policy: String,
    /// Whether the call is permitted there.
    pub permitted: bool,
}

impl Explanation {
    /// Whether the call reaches an application that takes it.
    pub fn reaches(&self) -> bool {
        self.failure.is_none() && (self.endpoints.is_empty() || self.endpoints.iter().any(|e| e.permitted))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from        {}", self.source)?;
        writeln!(f, "to          {}", self.dialled)?;
        writeln!(f, "connection  {}", self.connection)?;
        if let Some(rule) = &self.rule {
            writeln!(f, "rule        {rule}")?;
        }
        if let Some(action) = &self.action {
            writeln!(f, "action      {action}")?;
        }
        for e in &self.endpoints {
            writeln!(f, "endpoint    {} {} ({}), {}, {}", e.address, e.workload, e.backend, e.transport, e.health)?;
            writeln!(f, "  policy    {}", e.policy)?;
        }
        match (&self.failure, self.reaches()) {
            (Some(failure), _) => writeln!(f, "result      FAILS: {failure}"),
            (None, false) => writeln!(f, "result      DENIED by every endpoint's policy"),
            (None, true) => writeln!(f, "result      goes through"),
        }
    }
}

/// Explains a call.
///
/// # Errors
/// If the source or destination isn't in the configuration.
pub fn explain(snapshot: &Snapshot, call: &Call) -> anyhow::Result<Explanation> {
    let (namespace, name) =
        call.source.split_once('/').ok_or_else(|| anyhow!("the source must be a pod as NAMESPACE/NAME"))?;
    let (namespace, name) = (Namespace::new(namespace), Name::new(name));
    let client = snapshot
        .workloads()
        .find(|w| w.namespace == namespace && w.name == name)
        .ok_or_else(|| anyhow!("no pod {} is attached to the mesh's nodes", call.source))?;
    let destination = dialled(snapshot, &client.namespace, &call.destination)?;
    let mut explanation = Explanation {
        source: format!("{} as {}", call.source, client.identity),
        dialled: format!("{} ({destination})", call.destination),
        ..Explanation::default()
    };
    let case = Case { snapshot, client, call };
    if client.enrolment != Enrolment::Enrolled {
        explanation.connection = "not intercepted: the caller is outside the mesh".into();
        if let Some(workload) = snapshot.workload_at(destination.ip()) {
            let entry = case.entry(workload, destination);
            explanation.endpoints.push(case.destination(&entry, "its own address", None));
        }
        return Ok(explanation);
    }
    case.enrolled(destination, &mut explanation);
    Ok(explanation)
}

fn dialled(snapshot: &Snapshot, home: &Namespace, text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>()?)),
        None => (text, None),
    };
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    let key = ServiceKey::new(labels.next().unwrap_or(home.as_str()), name);
    let service = snapshot.service(&key).ok_or_else(|| anyhow!("no Service {key}"))?;
    let Some(ip) = service.addresses.first() else {
        bail!("Service {key} has no ClusterIP: name one of its pods by IP:PORT");
    };
    let port = port.or_else(|| service.ports.first().map(|p| p.port.get()));
    Ok(SocketAddr::new(*ip, port.ok_or_else(|| anyhow!("Service {key} has no port"))?))
}

/// What stays the same while a call is explained.
struct Case<'a> {
    snapshot: &'a Snapshot,
    client: &'a Arc<Workload>,
    call: &'a Call,
}

impl Case<'_> {
    fn enrolled(&self, destination: SocketAddr, out: &mut Explanation) {
        match plan_connection(self.snapshot, &ConnectionFacts { client: self.client, destination }) {
            ConnectionPlan::Http { frontend, table } => {
                out.connection = format!("HTTP to Service {}", frontend.key);
                match table {
                    Some(table) => self.routed(&frontend, &table, out),
                    None => self.own_endpoints(&frontend, out),
                }
            }
            ConnectionPlan::Tcp { frontend, table } => {
                out.connection = format!("TCP to Service {}", frontend.key);
                match table {
                    Some(table) => self.l4(&table, out),
                    None => self.own_endpoints(&frontend, out),
                }
            }
            ConnectionPlan::Tls { frontend, table } => {
                out.connection = format!("TLS by server name to Service {}", frontend.key);
                self.l4(&table, out);
            }
            ConnectionPlan::Workload { workload, destination } => {
                out.connection = "straight to a workload: routes don't apply, policies do".into();
                let entry = self.entry(&workload, destination);
                out.endpoints.push(self.destination(&entry, "its own address", None));
            }
            ConnectionPlan::Passthrough { why, .. } => out.connection = format!("passthrough ({})", why.as_str()),
            ConnectionPlan::AwaitConfig => {
                out.failure =
                    Some("unknown_destination: inside the cluster's ranges, but nothing is known there".into());
            }
            ConnectionPlan::Refuse(reason) => out.failure = Some(reason.to_string()),
        }
    }

    fn routed(&self, frontend: &Frontend, table: &HttpTable, out: &mut Explanation) {
        let (path, query) = split_target(&self.call.target);
        let host = self.host(frontend);
        let (method, headers) = (&self.call.method, &self.call.headers);
        let facts = RequestFacts { method, host: &host, path, query, headers };
        let matched = table.find(&facts);
        out.rule = matched.as_ref().map(|m| match &m.rule.name {
            Some(name) => format!("{} ({name})", m.rule.key),
            None => m.rule.key.to_string(),
        });
        let backends = matched.as_ref().map(|m| m.rule.action.clone());
        let front = FrontFacts { scheme: RedirectScheme::Http, port: frontend.key.port };
        match plan_http(matched, &facts, &front, 0) {
            HttpPlan::Reply(reply) => {
                let detail = if reply.detail.is_empty() { String::new() } else { format!(": {}", reply.detail) };
                let nearby = if out.rule.is_none() { self.rules_of(frontend) } else { String::new() };
                let answer = format!("{} answered by the proxy, {}{detail}{nearby}", reply.status, reply.reason);
                if reply.status.is_client_error() || reply.status.is_server_error() {
                    out.failure = Some(answer);
                } else {
                    out.action = Some(answer);
                }
            }
            HttpPlan::Forward(plan) => {
                let changes = words::changes(&plan);
                let Some(HttpAction::Forward(backends)) = backends else { return };
                let total: u32 = backends.iter().map(|b| b.weight).sum();
                out.action = Some(match backends.len() {
                    1 => format!("forwards{changes}"),
                    many => format!("forwards to {many} backends by weight{changes}"),
                });
                for backend in &backends {
                    self.backend(&backend.target, (backend.weight, total), out);
                }
            }
        }
    }

    /// What the rules of a frontend ask for, when none of them holds.
    fn rules_of(&self, frontend: &Frontend) -> String {
        let applies = |parent: &Parent| match parent {
            Parent::Service { port, consumer } => {
                *port == frontend.key && consumer.as_ref().is_none_or(|ns| *ns == self.client.namespace)
            }
            Parent::Listener(_) => false,
        };
        let mut lines: Vec<_> = self
            .snapshot
            .rules()
            .filter_map(|rule| match &**rule {
                RouteRule::Http(rule) if rule.parents.iter().any(applies) => Some(rule),
                _ => None,
            })
            .map(|rule| {
                let wanted: Vec<_> = rule.matches.iter().map(words::wanted).collect();
                format!("\n            {} wants {}", rule.key, wanted.join(", or "))
            })
            .collect();
        lines.sort();
        lines.concat()
    }

    fn l4(&self, table: &L4Table, out: &mut Explanation) {
        let Some(rule) = table.find(self.call.host.as_deref()) else {
            out.failure = Some("no_route: no rule matches".into());
            return;
        };
        out.rule = Some(rule.key.to_string());
        let total: u32 = rule.backends.iter().map(|b| b.weight).sum();
        for backend in &rule.backends {
            self.backend(&backend.target, (backend.weight, total), out);
        }
    }

    fn own_endpoints(&self, frontend: &Frontend, out: &mut Explanation) {
        out.action = Some("no route: the Service's own endpoints".into());
        self.endpoints(&frontend.key, "100%", out);
    }

    fn backend(&self, target: &BackendTarget, (weight, total): (u32, u32), out: &mut Explanation) {
        let share = if total == 0 { 0.0 } else { f64::from(weight) * 100.0 / f64::from(total) };
        match target {
            BackendTarget::Service(key) => self.endpoints(key, &format!("{share:.0}%"), out),
            BackendTarget::Invalid { reference, reason } => {
                let problem = format!("{share:.0}% of the calls fail: {reference}, {reason:?}");
                let action = out.action.get_or_insert_default();
                action.push_str("; ");
                action.push_str(&problem);
            }
        }
    }

    fn endpoints(&self, key: &ServicePortKey, share: &str, out: &mut Explanation) {
        let backend = format!("{share} Service {key}");
        let Some(frontend) = self.snapshot.frontend(key) else {
            out.failure = Some(format!("no_endpoint: {key} is not a port of a known Service"));
            return;
        };
        if frontend.endpoints.entries.is_empty() {
            out.action = Some(format!("{} (no endpoints: 503)", backend));
        }
        for entry in &frontend.endpoints.entries {
            out.endpoints.push(self.destination(entry, &backend, Some(frontend)));
        }
    }

    fn entry(&self, workload: &Workload, address: SocketAddr) -> EndpointEntry {
        EndpointEntry {
            address,
            workload: Some(workload.uid.clone()),
            health: EndpointHealth::Ready,
            node: Some(workload.node.clone()),
            zone: workload.zone.clone(),
        }
    }

    fn destination(&self, entry: &EndpointEntry, backend: &str, frontend: Option<&Frontend>) -> Destination {
        // The proxy's own decision. A caller outside the mesh isn't intercepted: its bytes go as they are.
        let standing = Standing { node: &self.client.node, network_policy: self.client.network_policy };
        let target = resolve(self.snapshot, entry, standing);
        let workload = target.workload.as_deref();
        let meshed = workload.is_some_and(|w| w.enrolment == Enrolment::Enrolled);
        let intercepted = self.client.enrolment == Enrolment::Enrolled;
        let transport = match target.transport {
            Transport::Unknown if intercepted => "refused: it isn't known whether it is in the mesh",
            Transport::Local { .. } if intercepted => "in memory on one node",
            Transport::Hbone { .. } if intercepted => "mutual TLS",
            Transport::Local { .. } | Transport::Hbone { .. } | Transport::Plain | Transport::Unknown => "plaintext",
        };
        let (policy, permitted) = match workload.filter(|_| meshed) {
            Some(workload) => self.judge(workload, entry.address.port(), intercepted, frontend),
            None if intercepted && target.transport == Transport::Unknown => ("not asked".to_owned(), false),
            None => ("none: outside the mesh".to_owned(), true),
        };
        Destination {
            backend: backend.to_owned(),
            address: entry.address,
            workload: workload.map_or_else(|| "unknown".into(), |w| format!("{}/{}", w.namespace, w.name)),
            transport: transport.to_owned(),
            health: format!("{:?}", entry.health).to_lowercase(),
            policy,
            permitted,
        }
    }

    /// What the destination's mode and policies say.
    fn judge(&self, workload: &Workload, port: u16, secure: bool, frontend: Option<&Frontend>) -> (String, bool) {
        let Some(port) = Port::new(port) else { return ("port 0 is nobody's".into(), false) };
        if !secure && self.snapshot.mode_for(workload, port) == Mode::Strict {
            return ("plaintext_refused: the workload is Strict".into(), false);
        }
        let policies = self.snapshot.policies_for(workload);
        let host = frontend.map(|f| self.host(f)).unwrap_or_default();
        let (path, _) = split_target(&self.call.target);
        let is_http = frontend.is_none_or(|f| f.protocol.admits_http_route());
        let http = HttpFacts {
            method: &self.call.method,
            host: &host,
            path,
            ambiguous_path: false,
            headers: &self.call.headers,
        };
        let peer =
            self.client.addresses.iter().find(|ip| workload.addresses.iter().any(|w| w.is_ipv4() == ip.is_ipv4()));
        let Some(peer_ip) = peer.or(self.client.addresses.first()) else {
            return ("the caller has no address".into(), false);
        };
        let facts = CallFacts {
            identity: secure.then_some(&self.client.identity),
            trust_domains: &self.snapshot.mesh().trust_domains,
            peer_ip: *peer_ip,
            dst_port: port,
            http: is_http.then_some(http),
        };
        match evaluate(&policies, &facts).decision {
            Decision::Allow { by: Some(policy) } => (format!("allowed by AuthorizationPolicy {policy}"), true),
            Decision::Allow { by: None } => ("allowed: no ALLOW policy applies".into(), true),
            Decision::Deny(DenyCause::Policy(policy)) => {
                (format!("policy_denied by AuthorizationPolicy {policy}"), false)
            }
            Decision::Deny(DenyCause::NoAllowMatched) => {
                let keys: Vec<_> = policies.iter().map(|p| p.key.to_string()).collect();
                (format!("policy_denied: none of the ALLOW policies matches ({})", keys.join(", ")), false)
            }
        }
    }

    fn host(&self, frontend: &Frontend) -> String {
        let given = self.call.host.clone();
        let host = given.unwrap_or_else(|| format!("{}.{}", frontend.key.service.name, frontend.key.service.namespace));
        normalize::host(&host).map(|h| h.into_owned()).unwrap_or(host)
    }
}

fn split_target(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}
