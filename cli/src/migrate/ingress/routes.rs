//! The routes of a part.

use serde_json::{Map, Value, json};

use super::backends::{Backend, Destination, OfServices, destination, protocol_of, speaks_http2};
use super::beside;
use super::canaries::{self, Canaries};
use super::input::Inputs;
use super::parts::{Part, PathItem};
use super::path::{Change, Match, Plan, Reading, plan_or_refuse};
use super::report::{Level, Report};
use super::settings::{Protocol, Redirect, Settings};
use super::sites::Site;

/// Rules of one route, by the Gateway API.
const MOST_RULES: usize = 16;
/// What the report says of a path that no backend gets.
pub const REFUSED: &str = "answered with 500, by a rule without backends";

/// A path as it is read: its plan, and why that refuses; or why no match can say it.
pub type ReadPath = Result<(Plan, Option<String>), String>;

/// A rule of an HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub matches: Vec<Value>,
    pub filters: Vec<Value>,
    pub backends: Vec<Backend>,
    pub backend_timeout: Option<String>,
    pub retry: Option<Value>,
    pub session: Option<Value>,
}

impl Rule {
    /// As it stands in a route of a namespace.
    pub fn value(&self, namespace: &str) -> Value {
        let mut made = Map::new();
        let mut set = |field: &str, value: Value| {
            made.insert(field.to_owned(), value);
        };
        if !self.matches.is_empty() {
            set("matches", json!(self.matches));
        }
        if !self.filters.is_empty() {
            set("filters", json!(self.filters));
        }
        if !self.backends.is_empty() {
            set("backendRefs", self.backends.iter().map(|backend| backend.reference(namespace)).collect());
        }
        if let Some(time) = &self.backend_timeout {
            set("timeouts", json!({ "backendRequest": time }));
        }
        if let Some(retry) = &self.retry {
            set("retry", retry.clone());
        }
        if let Some(session) = &self.session {
            set("sessionPersistence", session.clone());
        }
        Value::Object(made)
    }
}

/// Everything that the routes of a part depend on.
pub struct Context<'a> {
    pub inputs: &'a Inputs,
    pub services: &'a OfServices,
    pub canaries: &'a Canaries<'a>,
    /// All parts, to see who else has a host.
    pub parts: &'a [Part],
}

impl Context<'_> {
    /// Parts of the same class that share a host with one, itself among them.
    fn siblings<'b>(&'b self, part: &'b Part) -> impl Iterator<Item = &'b Part> {
        let shares = |other: &&Part| {
            let same = |name: &String| part.hostnames.contains(name);
            other.class == part.class && (other.host == part.host || other.hostnames.iter().any(same))
        };
        self.parts.iter().filter(shares)
    }

    /// Whether the paths of a part's host are expressions: one Ingress decides for all.
    pub fn has_expressions(&self, part: &Part) -> bool {
        use super::class::Controller::{HaproxyIngress, Nginx, Other};
        let reads = matches!(part.class.controller, Nginx | HaproxyIngress | Other);
        let asks = |settings: &Settings| {
            settings.use_regex || settings.rewrite.as_ref().is_some_and(|rewrite| rewrite.pattern.is_none())
        };
        reads && self.siblings(part).any(|part| asks(&part.settings))
    }

    fn reading<'b>(&self, part: &'b Part, expressions: bool, mixed: bool) -> Reading<'b> {
        Reading { controller: part.class.controller, expressions, mixed, rewrite: part.settings.rewrite.as_ref() }
    }

    /// Whether one of the host's paths has to stay an expression.
    fn is_mixed(&self, part: &Part, expressions: bool) -> bool {
        let stays = |part: &Part, item: &PathItem| {
            let plan = plan_or_refuse(&item.path, item.kind, self.reading(part, expressions, false));
            plan.is_ok_and(|(plan, _)| matches!(plan.matched, Match::Expression(_)))
        };
        let any = |part: &Part| part.withheld || part.paths.iter().any(|item| stays(part, item));
        expressions && self.siblings(part).any(any)
    }

    /// Whether another Ingress has the host too.
    pub fn is_shared(&self, part: &Part) -> bool {
        self.siblings(part).any(|other| (&other.namespace, &other.name) != (&part.namespace, &part.name))
    }

    /// The paths of a part as they are read: a plan, and why it refuses if it does.
    pub fn read<'b>(&self, part: &'b Part) -> Vec<(&'b PathItem, ReadPath)> {
        let expressions = self.has_expressions(part);
        let reading = self.reading(part, expressions, self.is_mixed(part, expressions));
        part.paths.iter().map(|item| (item, plan_or_refuse(&item.path, item.kind, reading))).collect()
    }

    /// What parts of the host that are withheld match: nobody else is to serve the same.
    fn withheld_matches(&self, part: &Part) -> Vec<Match> {
        let withheld = self.siblings(part).filter(|other| other.withheld && !part.withheld);
        let read = withheld.flat_map(|other| self.read(other));
        read.filter_map(|(_, read)| read.ok()).map(|(plan, _)| plan.matched).collect()
    }

    /// The listeners that the routes of a part are on; one that is withheld is on those of all that would serve its hosts.
    pub fn sections(&self, part: &Part, site: &Site) -> Vec<String> {
        let mut made = part.sections();
        let others = self.parts.iter().filter(|other| part.withheld && other.stands_in_for(part));
        for section in others.filter(|other| !other.settings.passthrough).flat_map(Part::sections) {
            if site.listeners.contains_key(&section) && !made.contains(&section) {
                made.push(section);
            }
        }
        made
    }

    /// What becomes of the paths of a part; those that can't be said are reported.
    pub fn plans<'b>(&self, part: &'b Part, report: &mut Report) -> Vec<(&'b PathItem, Plan)> {
        let mixed = self.is_mixed(part, self.has_expressions(part));
        let withheld = self.withheld_matches(part);
        let mut made = Vec::new();
        for (item, read) in self.read(part) {
            let at = (part.label.as_str(), item.field.as_str(), item.path.as_str());
            match read {
                Ok((plan, _)) if part.withheld => {
                    made.push((item, Plan { change: Some(Change::Refused), ..plan }));
                }
                Ok((plan, _)) if withheld.contains(&plan.matched) => {
                    let why = "another Ingress has the same path, and what protects that is not translated";
                    report.say(Level::LeftOut, at, format!("{REFUSED}: {why}"), "write the rule by hand");
                    made.push((item, Plan { change: Some(Change::Refused), ..plan }));
                }
                Ok((plan, why)) => {
                    if let Some(how) = plan.differs {
                        report.say(Level::Differs, at, how, "");
                    }
                    if let Some(why) = why {
                        report.say(Level::LeftOut, at, format!("{REFUSED}: {why}"), "write the rule by hand");
                    }
                    if mixed && matches!(plan.change, Some(Change::Prefix(_))) {
                        let how = "expressions of the host come before it here; there the longest path did";
                        report.say(Level::Differs, at, how, "look whether both match one path");
                    }
                    made.push((item, plan));
                }
                Err(why) => {
                    let why = format!("no rule is made for it: {why}");
                    report.say(Level::LeftOut, at, why, "write the rule by hand");
                }
            }
        }
        made
    }

    /// Whether a part becomes a GRPCRoute: a host of a listener has routes of one kind.
    pub fn is_grpc_route(&self, part: &Part) -> bool {
        let fits = |part: &Part| {
            let s = &part.settings;
            let plain = s.cors.is_none() && s.auth.is_none() && s.rewrite.is_none() && s.upstream_host.is_none();
            let bounded =
                s.backend_timeout.is_some() || s.retry.is_some() || s.redirect.is_some() || s.app_root.is_some();
            let methods = part.paths.iter().all(|item| method(item).is_some());
            s.protocol.is_grpc() && plain && !bounded && methods && part.www_host().is_none()
        };
        part.settings.protocol.is_grpc() && self.siblings(part).all(fits)
    }
}

/// A call that a path stands for: `Some(None)` is any.
fn method(item: &PathItem) -> Option<Option<Value>> {
    let path = item.path.trim_start_matches('/');
    if path.is_empty() {
        return Some(None);
    }
    let word = |text: &str| {
        let legal = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        text.split('.').all(legal)
    };
    match path.trim_end_matches('/').split_once('/') {
        None if word(path.trim_end_matches('/')) => Some(Some(json!({ "service": path.trim_end_matches('/') }))),
        Some((service, method)) if word(service) && word(method) && !method.contains('.') => {
            Some(Some(json!({ "service": service, "method": method })))
        }
        _ => None,
    }
}

/// The routes of a part, with the names of their kinds.
pub fn routes(part: &Part, site: &Site, context: &Context<'_>, report: &mut Report) -> Vec<Value> {
    let sections = context.sections(part, site);
    if sections.is_empty() {
        return Vec::new();
    }
    if part.settings.passthrough {
        return beside::passthrough(part, site, context, report).into_iter().collect();
    }
    let grpc = context.is_grpc_route(part);
    let plans = context.plans(part, report);
    let mut rules = Vec::new();
    if let Some(target) = part.settings.app_root.as_ref().filter(|_| part.settings.redirect.is_none()) {
        let redirect = Redirect { path: Some(target.clone()), code: 302, ..Redirect::default() };
        let matched = json!({ "path": { "type": "Exact", "value": "/" } });
        rules.push(Rule { matches: vec![matched], filters: vec![redirect.filter()], ..Rule::default() });
    }
    for (item, plan) in &plans {
        if let Some(redirect) = &part.settings.redirect {
            rules.push(redirecting(redirect, plan));
            continue;
        }
        rules.extend(rules_of(part, item, plan, (grpc, context), report));
        if !grpc {
            rules.extend(context.refuse_variants(part, item, plan, report));
        }
    }
    let kind = if grpc { "GRPCRoute" } else { "HTTPRoute" };
    let mut made = documents(part, (kind, &sections), rules, site);
    made.extend(beside::to_tls(part, site, context));
    made.extend(beside::www(part, site, context, report));
    made
}

fn redirecting(redirect: &Redirect, plan: &Plan) -> Rule {
    Rule { matches: vec![path_match(&plan.matched)], filters: vec![redirect.filter()], ..Rule::default() }
}

/// A path as one of `matches`.
pub fn path_match(matched: &Match) -> Value {
    let (kind, value) = matched.parts();
    json!({ "path": { "type": kind, "value": value } })
}

/// The rules of one path: its own, and those of a canary before it.
fn rules_of(
    part: &Part,
    item: &PathItem,
    plan: &Plan,
    (grpc, context): (bool, &Context<'_>),
    report: &mut Report,
) -> Vec<Rule> {
    let at = (part.label.as_str(), item.field.as_str(), item.path.as_str());
    let matches = match method(item).filter(|_| grpc) {
        Some(None) => Vec::new(),
        Some(Some(method)) => vec![json!({ "method": method })],
        None => vec![path_match(&plan.matched)],
    };
    // Without backends it answers 500; without the rule another one of the host would have the path.
    let refusing = |matches| vec![Rule { matches, ..Rule::default() }];
    if plan.change == Some(Change::Refused) {
        return refusing(matches);
    }
    let backends = match destination(part, item, context.inputs) {
        Ok(Destination::Backends(backends)) => backends,
        Ok(Destination::Redirect(redirect)) => return vec![redirecting(&redirect, plan)],
        Ok(Destination::Nothing) => return refusing(matches),
        Err((why, remedy)) => {
            report.say(Level::LeftOut, at, format!("{REFUSED}: {why}"), remedy);
            return refusing(matches);
        }
    };
    for backend in backends.iter().filter(|_| !grpc) {
        let spoken = protocol_of(part, backend, context.services);
        if spoken == Protocol::Grpc && !speaks_http2(backend, context.inputs) {
            let how = "an HTTPRoute, which speaks gRPC to ports that say so: the host has what a GRPCRoute can't say";
            let remedy =
                format!("set appProtocol: kubernetes.io/h2c on port {} of Service {}", backend.port, backend.name);
            report.say(Level::LeftOut, at, how, remedy);
        }
    }
    let own = backends.first().and_then(|backend| context.services.get(&backend.key()));
    let session = own.and_then(|own| own.session.clone()).or_else(|| part.settings.session.clone());
    let rule = Rule {
        matches,
        filters: filters(&part.settings, plan.change.as_ref(), &part.namespace),
        backends,
        backend_timeout: part.settings.backend_timeout.clone(),
        retry: part.settings.retry.clone(),
        session,
    };
    canaries::with_canary(rule, part, item, context, report)
}

/// The filters of a rule that forwards, in the order in which they are read best.
fn filters(settings: &Settings, change: Option<&Change>, namespace: &str) -> Vec<Value> {
    let mut made: Vec<Value> = settings.cors.clone().into_iter().collect();
    if let Some(auth) = &settings.auth {
        let service = &auth.service;
        let backend = Backend {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: service.port,
            weight: None,
        };
        let mut http = Map::new();
        if !auth.path.is_empty() {
            http.insert("path".to_owned(), json!(auth.path));
        }
        http.insert("allowedHeaders".to_owned(), json!(["Cookie"]));
        if !auth.response_headers.is_empty() {
            http.insert("allowedResponseHeaders".to_owned(), json!(auth.response_headers));
        }
        let spec = json!({ "protocol": "HTTP", "backendRef": backend.reference(namespace), "http": http });
        made.push(json!({ "type": "ExternalAuth", "externalAuth": spec }));
    }
    made.extend(settings.request_headers.filter("RequestHeaderModifier", "requestHeaderModifier"));
    made.extend(settings.response_headers.filter("ResponseHeaderModifier", "responseHeaderModifier"));
    made.extend(rewrite(settings.upstream_host.as_deref(), change));
    if let Some(mirror) = &settings.mirror {
        let backend =
            Backend { namespace: mirror.namespace.clone(), name: mirror.name.clone(), port: mirror.port, weight: None };
        let reference = backend.reference(namespace);
        made.push(json!({ "type": "RequestMirror", "requestMirror": { "backendRef": reference } }));
    }
    made
}

fn rewrite(host: Option<&str>, change: Option<&Change>) -> Option<Value> {
    let mut spec = Map::new();
    if let Some(host) = host {
        spec.insert("hostname".to_owned(), json!(host));
    }
    let path = change.and_then(|change| match change {
        Change::Full(path) => Some(json!({ "type": "ReplaceFullPath", "replaceFullPath": path })),
        Change::Prefix(path) => Some(json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": path })),
        Change::Refused => None,
    });
    spec.extend(path.map(|path| ("path".to_owned(), path)));
    (!spec.is_empty()).then(|| json!({ "type": "URLRewrite", "urlRewrite": spec }))
}

/// A route of some kind with these rules; several if one can't have them all.
fn documents(part: &Part, (kind, sections): (&str, &[String]), rules: Vec<Rule>, site: &Site) -> Vec<Value> {
    let mut made = Vec::new();
    for (i, some) in rules.chunks(MOST_RULES).enumerate() {
        let suffix = if i == 0 { String::new() } else { format!("-{}", i + 1) };
        let rules: Vec<_> = some.iter().map(|rule| rule.value(&part.namespace)).collect();
        made.push(document(part, (kind, &suffix), (sections, &part.hostnames), (rules, site)));
    }
    made
}

/// A route of these rules.
pub fn document(
    part: &Part,
    (kind, suffix): (&str, &str),
    (sections, hostnames): (&[String], &[String]),
    (rules, site): (Vec<Value>, &Site),
) -> Value {
    let parents: Vec<_> = sections.iter().map(|section| parent(part, site, section)).collect();
    let mut metadata = json!({ "name": part.object_name(suffix), "namespace": part.namespace });
    let of_dns = part.settings.carried.iter().filter(|(key, _)| key.starts_with("external-dns."));
    let of_dns: Map<_, _> = of_dns.map(|(key, value)| (key.clone(), json!(value))).collect();
    if let (Some(map), false) = (metadata.as_object_mut(), of_dns.is_empty()) {
        map.insert("annotations".to_owned(), Value::Object(of_dns));
    }
    let mut spec = json!({ "parentRefs": parents });
    if let Some(map) = spec.as_object_mut() {
        if !hostnames.is_empty() {
            map.insert("hostnames".to_owned(), json!(hostnames));
        }
        map.insert("rules".to_owned(), json!(rules));
    }
    json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec })
}

fn parent(part: &Part, site: &Site, section: &str) -> Value {
    if site.namespace == part.namespace {
        json!({ "name": site.name, "sectionName": section })
    } else {
        json!({ "name": site.name, "namespace": site.namespace, "sectionName": section })
    }
}
