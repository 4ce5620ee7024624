//! VirtualServices -> HTTPRoutes and TCPRoutes that are attached to Services (GAMMA).
//!
//! A VirtualService is translated whole or not at all: its rules are tried in order, so that leaving one out would send its requests
//! to another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::super::ingress::policies::Grants;
use super::super::report::{Level, Report};
use super::context::{Context, admits_http, ports};
use super::fields::{Fields, Lost};
use super::http::{self, Action, Backend, Destination, Rule};
use super::input::{Key, Source};
use super::matches::Match;
use super::order;
use super::requests::Said;
use super::subsets::Subsets;
use super::tcp;

/// Most rules of an HTTPRoute.
const MOST_RULES: usize = 16;

/// What came of all VirtualServices.
#[derive(Default)]
pub struct Made {
    pub routes: Vec<Value>,
    pub grants: Grants,
    /// Services that routes send to, those of subsets among them.
    pub backends: BTreeSet<Key>,
}

/// One VirtualService on its way.
pub struct Work<'a> {
    pub source: &'a Source,
    pub context: &'a Context<'a>,
    pub subsets: &'a Subsets<'a>,
    pub said: Said,
    pub routes: Vec<Value>,
    pub backends: BTreeSet<(String, &'static str, Key)>,
}

/// All VirtualServices.
pub fn translate(context: &Context<'_>, subsets: &Subsets<'_>, report: &mut Report) -> Made {
    let mut made = Made::default();
    let mut holders: BTreeMap<Key, String> = BTreeMap::new();
    for source in context.inputs.of_kind("VirtualService") {
        let label = source.label();
        let mut work =
            Work { source, context, subsets, said: Said::default(), routes: Vec::new(), backends: BTreeSet::new() };
        let Some(services) = work.services(&mut holders, report) else { continue };
        work.make(&services);
        for it in work.said.fatal.iter().chain(&work.said.left) {
            report.say(Level::LeftOut, (&label, &it.field, &it.value), &it.why, &it.remedy);
        }
        if !work.said.fatal.is_empty() {
            let why = "not translated, because something of it that decides where requests go can't be";
            let remedy = "do what stands beside its fields; until then its Services have none of its routes here";
            report.say(Level::LeftOut, (&label, "the VirtualService", ""), why, remedy);
            continue;
        }
        for it in &work.said.differs {
            report.say(Level::Differs, (&label, &it.field, &it.value), &it.why, &it.remedy);
        }
        for object in &work.routes {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let became = format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
            report.say(Level::Translated, (&label, "the VirtualService", ""), became, "");
        }
        for (from, kind, backend) in work.backends {
            made.grants.permit((kind, &from), "Service", (&backend.0, &backend.1));
            made.backends.insert(backend);
        }
        made.routes.extend(work.routes);
    }
    made
}

impl Work<'_> {
    /// The Services that it is for; `None` if it is for nothing in the mesh.
    fn services(&mut self, holders: &mut BTreeMap<Key, String>, report: &mut Report) -> Option<Vec<Key>> {
        let label = self.source.label();
        let mut spec = Fields::new("spec", self.source.spec.clone());
        let (hosts, gateways) = (spec.texts("hosts"), spec.texts("gateways"));
        if hosts.is_empty() {
            report.say(Level::Unneeded, (&label, "the VirtualService", ""), "has no hosts: others refer to it", "");
            return None;
        }
        for gateway in gateways.iter().filter(|it| *it != "mesh") {
            let why = "routes of a gateway of Istio's stay there";
            let remedy = "for a Gateway of its own here, write an HTTPRoute with these rules (docs/gateways.md)";
            report.say(Level::LeftOut, (&label, "spec.gateways", gateway), why, remedy);
        }
        if !gateways.is_empty() && !gateways.iter().any(|it| it == "mesh") {
            return None;
        }
        let mut services = Vec::new();
        for host in hosts {
            match self.context.service("spec.hosts", &host, &self.source.namespace) {
                Err(lost) => report.say(Level::LeftOut, (&label, &lost.field, &host), lost.why, lost.remedy),
                Ok(service) => match holders.get(&service) {
                    Some(other) => {
                        let why = format!("{other} has this host already, and Istio takes one of them only");
                        report.say(Level::LeftOut, (&label, "spec.hosts", &host), why, "join the two");
                    }
                    None => {
                        holders.insert(service.clone(), label.clone());
                        services.push(service);
                    }
                },
            }
        }
        (!services.is_empty()).then_some(services)
    }

    fn make(&mut self, services: &[Key]) {
        let mut spec = Fields::new("spec", self.source.spec.clone());
        let hosts = spec.texts("hosts");
        let exports = spec.texts("exportTo");
        _ = (spec.take("gateways"), spec.take("http"));
        let tcp = spec.parts("tcp");
        if spec.take("tls").is_some_and(|it| it.as_array().is_none_or(|list| !list.is_empty())) {
            self.said.fatal("spec.tls", "", "routes by the name in TLS aren't translated", "write TLSRoutes by hand");
        }
        self.said.fatal.extend(spec.rest());
        let rules = http::rules(self.source, &hosts, self.context, &mut self.said);
        let rules = self.ordered(rules);
        let tcp = tcp::rules(tcp, (&self.source.namespace, self.context), &mut self.said);
        for service in services {
            let namespace = self.namespace(service, &exports);
            let name = match services.len() {
                1 => self.source.name.clone(),
                _ => format!("{}-{}", self.source.name, service.1),
            };
            if !rules.is_empty() {
                self.http(&rules, service, (&namespace, &name));
            }
            if !tcp.is_empty() {
                tcp::routes(self, &tcp, (service, !rules.is_empty()), (&namespace, &name));
            }
        }
    }

    /// Where its routes have to be: in the Service's namespace they are for all clients, elsewhere for clients of theirs.
    fn namespace(&mut self, service: &Key, exports: &[String]) -> String {
        let own = &self.source.namespace;
        if exports.is_empty() || exports.iter().any(|it| it == "*") {
            if *own != service.0 {
                let how =
                    "its routes are in the namespace of the Service, so that they are for clients of all namespaces";
                self.said.differs("metadata.namespace", own, how);
            }
            return service.0.clone();
        }
        if *own != service.0 && exports.iter().all(|it| it == "." || it == own) {
            return own.clone();
        }
        let how = "its routes are for clients of all namespaces";
        self.said.differs("spec.exportTo", exports.join(", "), how);
        service.0.clone()
    }

    /// The rules in an order that means the same here.
    fn ordered(&mut self, mut rules: Vec<Rule>) -> Vec<Rule> {
        let mut matches: Vec<Vec<Match>> = rules.iter().map(|rule| rule.matches.clone()).collect();
        order::without_dead(&mut matches);
        if let Err(order::Unordered { first, second }) = order::keep(&mut matches) {
            let field = |i: usize| rules.get(i).map(|rule| rule.field.clone()).unwrap_or_default();
            let value = format!("before {}", field(second));
            let why = "is tried first there; here the more specific match comes first, and nobody can say what the two have in common";
            self.said.fatal(field(first), value, why, "write their paths without expressions, or one rule of the two");
        }
        for (rule, matches) in rules.iter_mut().zip(matches) {
            if matches.is_empty() {
                self.said.differs(&rule.field, "", "is left out: a rule before it has all of its requests");
            }
            rule.matches = matches;
        }
        rules.retain(|rule| !rule.matches.is_empty());
        rules
    }

    fn http(&mut self, rules: &[Rule], service: &Key, (namespace, name): (&str, &str)) {
        let known = match self.context.known("spec.hosts", service) {
            Ok(known) => known,
            Err(lost) => return self.said.fatal.push(lost),
        };
        // Where a destination has several ports and none is said, requests stay on the port that they were for.
        let stays = |to: &Destination| {
            let known = self.context.inputs.services.get(&to.service);
            to.port.is_none() && known.is_some_and(|known| ports(known).count() > 1)
        };
        let by_port = rules.iter().flat_map(destinations).any(stays);
        let own: Vec<u16> = match by_port {
            true => {
                let http = ports(known).filter(|port| admits_http(port));
                http.filter_map(|port| u16::try_from(port.port).ok()).collect()
            }
            false => Vec::new(),
        };
        let each: Vec<Option<u16>> = if by_port { own.into_iter().map(Some).collect() } else { vec![None] };
        for port in each {
            let name = port.map_or_else(|| name.to_owned(), |port| format!("{name}-{port}"));
            let made: Vec<Value> = rules.iter().flat_map(|rule| self.rule(rule, port, namespace)).collect();
            for (i, rules) in made.chunks(MOST_RULES).enumerate() {
                // Of equal matches the route comes first whose name does.
                let name = if i == 0 { name.clone() } else { format!("{name}-{:02}", i + 1) };
                self.routes.push(route("HTTPRoute", (namespace, &name), (service, port), &json!(rules)));
            }
        }
    }

    /// A rule; one for each match where the path of each becomes another.
    fn rule(&mut self, rule: &Rule, port: Option<u16>, namespace: &str) -> Vec<Value> {
        let split = rule.rewrite.as_ref().is_some_and(|it| it.uri.is_some());
        let groups: Vec<&[Match]> = match split {
            true => rule.matches.chunks(1).collect(),
            false => vec![&rule.matches],
        };
        let mut made = Vec::new();
        for (i, group) in groups.into_iter().enumerate() {
            let mut object = Map::new();
            if let Some(name) = rule.name.as_deref().filter(|name| i == 0 && is_label(name)) {
                object.insert("name".to_owned(), json!(name));
            }
            if !matches!(group, [only] if only.is_same(&Match::default())) {
                object.insert("matches".to_owned(), json!(group.iter().map(Match::value).collect::<Vec<_>>()));
            }
            let mut filters = rule.filters.clone();
            if let (Some(rewrite), Some(of)) = (&rule.rewrite, group.first()) {
                filters.extend(rewrite.filter(of, &mut self.said));
            }
            for mirror in &rule.mirrors {
                let mut copy = mirror.share.clone();
                if let Some(to) = self.backend(&mirror.to, port, ("HTTPRoute", namespace)) {
                    copy.insert("backendRef".to_owned(), Value::Object(to));
                    filters.push(json!({ "type": "RequestMirror", "requestMirror": copy }));
                }
            }
            match &rule.action {
                Action::Redirect(redirect) => filters.push(redirect.clone()),
                Action::Answer => {}
                Action::Forward(backends) => {
                    let refs = self.backends(backends, port, ("HTTPRoute", namespace));
                    object.insert("backendRefs".to_owned(), json!(refs));
                }
            }
            if !filters.is_empty() {
                object.insert("filters".to_owned(), json!(filters));
            }
            object.extend(rule.limits.clone());
            made.push(Value::Object(object));
        }
        made
    }

    /// `backendRefs` with their shares.
    pub fn backends(&mut self, list: &[Backend], port: Option<u16>, from: (&'static str, &str)) -> Vec<Value> {
        let mut made = Vec::new();
        for backend in list {
            let Some(mut object) = self.backend(&backend.to, port, from) else { continue };
            if list.len() > 1 {
                object.insert("weight".to_owned(), json!(backend.weight));
            }
            if !backend.filters.is_empty() {
                object.insert("filters".to_owned(), json!(backend.filters));
            }
            made.push(Value::Object(object));
        }
        made
    }

    fn backend(
        &mut self,
        to: &Destination,
        port: Option<u16>,
        (kind, namespace): (&'static str, &str),
    ) -> Option<Map<String, Value>> {
        match self.target(to, port) {
            Err(lost) => {
                self.said.fatal.push(lost);
                None
            }
            Ok((key, port)) => {
                self.backends.insert((namespace.to_owned(), kind, key.clone()));
                let mut made = Map::from_iter([("name".to_owned(), json!(key.1))]);
                if key.0 != namespace {
                    made.insert("namespace".to_owned(), json!(key.0));
                }
                made.insert("port".to_owned(), json!(port));
                Some(made)
            }
        }
    }

    /// The Service and port of a destination.
    fn target(&self, to: &Destination, port: Option<u16>) -> Result<(Key, u16), Lost> {
        let known = self.context.known(&to.field, &to.service)?;
        let all: Vec<u16> = ports(known).filter_map(|it| u16::try_from(it.port).ok()).collect();
        let chosen = match (to.port, all.as_slice(), port) {
            (Some(port), all, _) if all.contains(&port) => port,
            (None, [only], _) => *only,
            (None, all, Some(port)) if all.contains(&port) => port,
            _ => {
                let why = "the Service has no such port, or several of which none is said";
                let value = format!("{}/{}", to.service.0, to.service.1);
                return Err(Lost::new(to.field.clone(), value, why, "give the destination a port of the Service"));
            }
        };
        match &to.subset {
            None => Ok((to.service.clone(), chosen)),
            Some(name) => Ok((self.subsets.service(&to.field, &to.service, name)?.key, chosen)),
        }
    }
}

fn destinations(rule: &Rule) -> Vec<&Destination> {
    let backends = match &rule.action {
        Action::Forward(backends) => backends.as_slice(),
        _ => &[],
    };
    backends.iter().map(|it| &it.to).chain(rule.mirrors.iter().map(|it| &it.to)).collect()
}

/// A name that a rule may have.
fn is_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with('-') && !text.ends_with('-')
}

/// A route on a Service.
pub fn route(
    kind: &str,
    (namespace, name): (&str, &str),
    (service, port): (&Key, Option<u16>),
    rules: &Value,
) -> Value {
    let mut parent = Map::new();
    parent.insert("group".to_owned(), json!(""));
    parent.insert("kind".to_owned(), json!("Service"));
    parent.insert("name".to_owned(), json!(service.1));
    if service.0 != namespace {
        parent.insert("namespace".to_owned(), json!(service.0));
    }
    if let Some(port) = port {
        parent.insert("port".to_owned(), json!(port));
    }
    json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace }, "spec": { "parentRefs": [parent], "rules": rules } })
}
