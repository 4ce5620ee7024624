//! DestinationRules: which subsets became Services, and what becomes of traffic policies.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::report::{Level, Report};
use super::actions::duration;
use super::context::Context;
use super::fields::Fields;
use super::input::{Key, Source};
use super::subsets::Subsets;

/// What has no counterpart: the field, why, and what to do.
const UNSET: &[(&str, &str, &str)] = &[
    (
        "connectionPool",
        "connections and requests to one destination are not limited by its callers",
        "limit what a workload takes: MeshPolicy, limits.maxConnections; and retries: XBackendTrafficPolicy",
    ),
    ("portLevelSettings", "ports of a Service have no settings of their own", "see what stands in it"),
    ("tunnel", "connections are not tunnelled through proxies of others", "leave the Service outside the mesh"),
    ("proxyProtocol", "no PROXY protocol is spoken to backends", "see whether the backend needs it"),
    (
        "warmup",
        "new endpoints have their whole share at once",
        "let the readiness probe say when a pod can have its share",
    ),
];

const MUTUAL: &str = "pods of the mesh speak mutual TLS to each other in any case";

/// Says what becomes of DestinationRules, and makes policies of what there is a counterpart for.
pub fn translate(
    context: &Context<'_>,
    subsets: &Subsets<'_>,
    sent_to: &BTreeSet<Key>,
    report: &mut Report,
) -> Vec<Value> {
    let mut made = Vec::new();
    for source in context.inputs.of_kind("DestinationRule") {
        let label = source.label();
        let mut spec = Fields::new("spec", source.spec.clone());
        let host = spec.text("host").unwrap_or_default();
        let service = match context.service("spec.host", &host, &source.namespace) {
            Ok(service) => service,
            Err(lost) if says_only_mutual(&source.spec) => {
                report.say(Level::Unneeded, (&label, &lost.field, &lost.value), MUTUAL, "");
                continue;
            }
            Err(lost) => {
                report.say(Level::LeftOut, (&label, &lost.field, &lost.value), lost.why, lost.remedy);
                continue;
            }
        };
        let exports = spec.texts("exportTo");
        if !exports.is_empty() && exports != ["*"] {
            let how = "what is made of it holds for clients of all namespaces";
            report.say(Level::Differs, (&label, "spec.exportTo", &exports.join(", ")), how, "");
        }
        let used = subsets.used(&service);
        let mut targets: Vec<String> = vec![service.1.clone()];
        targets.extend(used.values().filter(|key| sent_to.contains(key)).map(|key| key.1.clone()));
        let policy = spec.part("trafficPolicy").map(|it| Policy::read(it, &label, report));
        for mut subset in spec.parts("subsets") {
            let name = subset.text("name").unwrap_or_default();
            _ = subset.take("labels");
            let field = format!("spec.subsets[{name}]");
            match used.get(&name).filter(|key| sent_to.contains(key)) {
                Some(key) => {
                    let became = format!("Service {}/{}", key.0, key.1);
                    report.say(Level::Translated, (&label, &field, ""), became, "");
                }
                None => report.say(Level::Unneeded, (&label, &field, ""), "no route that was made sends to it", ""),
            }
            let own = subset.part("trafficPolicy").map(|it| Policy::read(it, &label, report));
            if own.is_some_and(|own| !own.is_empty()) {
                let remedy = "give the subset's Service an XBackendTrafficPolicy";
                report.say(Level::LeftOut, (&label, &field, "trafficPolicy"), "is for one subset only", remedy);
            }
            say(&label, subset, report);
        }
        say(&label, spec, report);
        made.extend(policy.and_then(|it| it.object(source, (&service, &targets))));
    }
    made
}

/// Whether a rule asks for nothing but Istio's mutual TLS, as one for all hosts often does.
fn says_only_mutual(spec: &Value) -> bool {
    let mut rest = spec.clone();
    let host = rest.as_object_mut().and_then(|it| it.remove("host"));
    host.is_some() && rest == json!({ "trafficPolicy": { "tls": { "mode": "ISTIO_MUTUAL" } } })
}

fn say(label: &str, fields: Fields, report: &mut Report) {
    for lost in fields.rest() {
        report.say(Level::LeftOut, (label, &lost.field, &lost.value), lost.why, lost.remedy);
    }
}

/// What of a traffic policy there is a counterpart for.
#[derive(Default)]
struct Policy {
    session: Option<Value>,
    retries: Option<Value>,
}

impl Policy {
    fn is_empty(&self) -> bool {
        self.session.is_none() && self.retries.is_none()
    }

    fn read(mut fields: Fields, label: &str, report: &mut Report) -> Self {
        let mut made = Self::default();
        let field = fields.at("outlierDetection");
        if let Some(value) = fields.take("outlierDetection") {
            let how = "proxies take endpoints that fail out of use for a while by themselves, in numbers of their own";
            report.say(Level::Differs, (label, &field, &value.to_string()), how, "");
        }
        for (name, why, remedy) in UNSET {
            let field = fields.at(name);
            if let Some(value) = fields.take(name) {
                report.say(Level::LeftOut, (label, &field, &value.to_string()), *why, *remedy);
            }
        }
        if let Some(balancer) = fields.part("loadBalancer") {
            made.session = balancing(balancer, label, report);
        }
        if let Some(mut budget) = fields.part("retryBudget") {
            let percent = budget.take("percent").and_then(|it| it.as_f64()).map(|it| format!("{it:.0}"));
            made.retries = percent
                .and_then(|it| it.parse::<u64>().ok())
                .map(|percent| json!({ "budget": { "percent": percent } }));
            say(label, budget, report);
        }
        if let Some(tls) = fields.part("tls") {
            encryption(tls, label, report);
        }
        say(label, fields, report);
        made
    }

    fn object(&self, source: &Source, (service, targets): (&Key, &[String])) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let refs: Vec<_> = targets.iter().map(|name| json!({ "group": "", "kind": "Service", "name": name })).collect();
        let mut spec = Map::from_iter([("targetRefs".to_owned(), json!(refs))]);
        spec.extend(self.retries.clone().map(|it| ("retryConstraint".to_owned(), it)));
        spec.extend(self.session.clone().map(|it| ("sessionPersistence".to_owned(), it)));
        let metadata = json!({ "name": source.name, "namespace": service.0 });
        Some(json!({ "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy",
            "metadata": metadata, "spec": spec }))
    }
}

/// `loadBalancer`: sessions by cookie are the one part that can be asked for.
fn balancing(mut fields: Fields, label: &str, report: &mut Report) -> Option<Value> {
    let field = fields.at("simple");
    if let Some(simple) = fields.text("simple") {
        match simple.as_str() {
            "LEAST_REQUEST" | "LEAST_CONN" | "UNSPECIFIED" | "RANDOM" | "ROUND_ROBIN" => {
                let how = "endpoints are chosen by their load and their answers' times, whatever is asked for";
                report.say(Level::Differs, (label, &field, &simple), how, "");
            }
            _ => {
                let why = "an address that a client chose is only kept where it is no Service's";
                report.say(Level::LeftOut, (label, &field, &simple), why, "dial the pods, by a headless Service say");
            }
        }
    }
    let field = fields.at("localityLbSetting");
    if let Some(value) = fields.take("localityLbSetting") {
        let remedy = "give the Service trafficDistribution: PreferSameZone, or PreferSameNode";
        let why = "places of endpoints are preferred as their Service says";
        report.say(Level::LeftOut, (label, &field, &value.to_string()), why, remedy);
    }
    let mut session = None;
    if let Some(mut hash) = fields.part("consistentHash") {
        if let Some(mut cookie) = hash.part("httpCookie") {
            let name = cookie.text("name");
            let lasts = cookie.text("ttl").and_then(|text| duration(&text)).filter(|it| it != "0s");
            let mut made = Map::from_iter([("type".to_owned(), json!("Cookie"))]);
            made.extend(name.map(|name| ("sessionName".to_owned(), json!(name))));
            if let Some(time) = lasts {
                made.insert("absoluteTimeout".to_owned(), json!(time));
                made.insert("cookieConfig".to_owned(), json!({ "lifetimeType": "Permanent" }));
            }
            let how =
                "sessionPersistence: the cookie is the proxy's, and keeps the endpoint also when others come or go";
            report.say(Level::Differs, (label, &cookie.at(""), ""), how, "");
            _ = cookie.take("path");
            say(label, cookie, report);
            session = Some(Value::Object(made));
        }
        let source = hash.at("useSourceIp");
        if hash.flag("useSourceIp") == Some(true) {
            let remedy = "give the Service sessionAffinity: ClientIP";
            report.say(Level::LeftOut, (label, &source, "true"), "clients are kept as their Service says", remedy);
        }
        let why = "endpoints are not chosen by a hash of it";
        for (name, remedy) in [
            ("httpHeaderName", "sessionPersistence of a route has type Header, whose value the proxy gives"),
            ("httpQueryParameterName", "let the application send clients where they belong"),
            ("ringHash", "see whether sessions are enough"),
            ("maglev", "see whether sessions are enough"),
            ("minimumRingSize", "see whether sessions are enough"),
        ] {
            let field = hash.at(name);
            if let Some(value) = hash.take(name) {
                report.say(Level::LeftOut, (label, &field, &value.to_string()), why, remedy);
            }
        }
        say(label, hash, report);
    }
    say(label, fields, report);
    session
}

/// `tls` of clients towards the destination.
fn encryption(mut fields: Fields, label: &str, report: &mut Report) {
    let field = fields.at("mode");
    let mode = fields.text("mode").unwrap_or_default();
    match mode.as_str() {
        "ISTIO_MUTUAL" => {
            report.say(Level::Unneeded, (label, &field, &mode), MUTUAL, "");
            say(label, fields, report);
        }
        "DISABLE" => {
            let how = "pods of the mesh speak mutual TLS to each other in any case; others are dialled in plaintext";
            report.say(Level::Differs, (label, &field, &mode), how, "");
            say(label, fields, report);
        }
        _ => {
            let why = "proxies begin no TLS of the application's own";
            let remedy = "let the client do it, or a Gateway with a BackendTLSPolicy";
            report.say(Level::LeftOut, (label, &field, &format!("{mode} {}", fields.shown())), why, remedy);
        }
    }
}
