//! Istio's AuthorizationPolicy -> Weft's.
//!
//! A policy that can't be said in full is refused, and what stands in its place lets no call through that it would refuse: of one that
//! allows, the rules that can be said (a workload with such a policy is closed to all others); of one that denies, or that asks
//! somebody else, a denial of at least what it is about.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::report::{Level, Report};
use super::conditions::{Rules, Side};
use super::context::Context;
use super::fields::{Fields, Lost};
use super::input::Source;

/// On a policy that stands in the place of one that was refused: what of that can't be said.
pub const NOT_TRANSLATED: &str = "weftmesh.io/not-translated";
/// Istio's word for a policy that decides nothing.
const DRY_RUN: &str = "istio.io/dry-run";
/// Most rules of a policy.
const MOST_RULES: usize = 64;
/// Most targets of a policy.
const MOST_TARGETS: usize = 16;

/// What a policy is for.
#[derive(Clone, Debug, PartialEq)]
enum Target {
    /// Its namespace, or the mesh.
    All,
    /// These targetRefs.
    Refs(Vec<Value>),
    /// Gateways of Istio's, which keep their policies.
    Elsewhere,
}

/// All policies.
pub fn translate(context: &Context<'_>, report: &mut Report) -> Vec<Value> {
    let policies = context.inputs.objects.iter();
    let policies = policies.filter(|it| it.group == "security.istio.io" && it.kind == "AuthorizationPolicy");
    policies.flat_map(|source| policy(source, context, report)).collect()
}

fn policy(source: &Source, context: &Context<'_>, report: &mut Report) -> Vec<Value> {
    let label = source.label();
    let mut spec = Fields::new("spec", source.spec.clone());
    let mut lost = Vec::new();
    let of_waypoint = spec.has("targetRef") || spec.has("targetRefs");
    let target = target(source, &mut spec, context, &mut lost);
    if target == Target::Elsewhere {
        let why = "is for a gateway of Istio's, whose pods stay in Istio and keep it";
        let remedy = "write one for the Gateway when its hosts move there (targetRefs, kind Gateway)";
        report.say(Level::LeftOut, (&label, "the policy", ""), why, remedy);
        return Vec::new();
    }
    let asked = spec.text("action").unwrap_or_else(|| "ALLOW".to_owned());
    let (action, side) = match asked.as_str() {
        "ALLOW" => ("ALLOW", Side::Less),
        "AUDIT" => ("AUDIT", Side::Less),
        _ => ("DENY", Side::More),
    };
    if !["ALLOW", "AUDIT", "DENY"].contains(&asked.as_str()) {
        let provider = spec.take("provider").map(|it| it.to_string()).unwrap_or_default();
        let why = "nobody outside is asked about calls in the mesh: what it is about is denied in its place";
        let remedy = "let the application ask, or a Gateway's ExternalAuth; then remove the denial";
        lost.push(Lost::new("spec.action", format!("{asked} {provider}").trim(), why, remedy));
    }
    let mut rules = Rules {
        options: context.options,
        namespace: &source.namespace,
        side,
        of_waypoint,
        lost: Vec::new(),
        hosts: false,
    };
    let read: Vec<_> = spec.parts("rules").into_iter().filter_map(|rule| rules.rule(rule)).collect();
    lost.append(&mut rules.lost);
    lost.extend(spec.rest());
    if rules.hosts {
        let how = "is the host with any port here: a port in a request's Host isn't looked at";
        report.say(Level::Differs, (&label, "hosts", ""), how, "");
    }
    let mode = source.annotations.get(DRY_RUN).is_some_and(|it| it == "true").then_some("Audit");
    let made = Made { source, target, action, mode, rules: read };
    made.objects(context, &lost, report)
}

/// A policy to be.
struct Made<'a> {
    source: &'a Source,
    target: Target,
    action: &'static str,
    mode: Option<&'static str>,
    rules: Vec<Value>,
}

impl Made<'_> {
    fn objects(&self, context: &Context<'_>, lost: &[Lost], report: &mut Report) -> Vec<Value> {
        let label = self.source.label();
        let decides = self.action != "AUDIT" && self.mode.is_none();
        for it in lost {
            report.say(Level::LeftOut, (&label, &it.field, &it.value), &it.why, &it.remedy);
        }
        if !lost.is_empty() {
            let instead = match self.action {
                _ if !decides => "it decides nothing; what of it can be said stands in its place",
                "ALLOW" => "refused: in its place stands one that allows less, or nothing",
                _ => "refused: in its place stands one that denies more",
            };
            let remedy = "do what stands beside its fields, and correct or remove what stands in its place";
            report.say(Level::LeftOut, (&label, "the policy", ""), instead, remedy);
        }
        let namespace = context.namespace(&self.source.namespace);
        // One object for each 64 rules: any of several matches as any rule of one does. Without rules there is one all the same:
        // a policy that allows nothing closes a workload.
        let mut chunks: Vec<&[Value]> = self.rules.chunks(MOST_RULES).collect();
        if chunks.is_empty() && self.action == "ALLOW" {
            chunks.push(&[]);
        }
        if chunks.is_empty() {
            let why = "has no rule that matches anything";
            report.say(Level::Unneeded, (&label, "the policy", ""), why, "");
        } else if lost.is_empty() {
            let became = format!("AuthorizationPolicy {namespace}/{}", self.source.name);
            report.say(Level::Translated, (&label, "the policy", ""), became, "");
        }
        chunks.iter().enumerate().map(|(i, rules)| self.object(i, rules, (namespace, lost))).collect()
    }

    fn object(&self, i: usize, rules: &[Value], (namespace, lost): (&str, &[Lost])) -> Value {
        let name = if i == 0 { self.source.name.clone() } else { format!("{}-{}", self.source.name, i + 1) };
        let mut metadata = json!({ "name": name, "namespace": namespace });
        if let (Some(metadata), false) = (metadata.as_object_mut(), lost.is_empty()) {
            let fields: BTreeSet<&str> = lost.iter().map(|it| it.field.as_str()).collect();
            let text = fields.into_iter().collect::<Vec<_>>().join(" ");
            metadata.insert("annotations".to_owned(), json!({ NOT_TRANSLATED: text }));
        }
        let mut spec = Map::new();
        if let Target::Refs(refs) = &self.target {
            spec.insert("targetRefs".to_owned(), json!(refs));
        }
        spec.insert("action".to_owned(), json!(self.action));
        if let Some(mode) = self.mode {
            spec.insert("mode".to_owned(), json!(mode));
        }
        spec.insert("rules".to_owned(), json!(rules));
        json!({ "apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec })
    }
}

/// Labels that pods of Istio's gateways have and others don't.
fn selects_gateway(key: &str, value: &str) -> bool {
    key == "gateway.networking.k8s.io/gateway-name"
        || key == "istio" && value.ends_with("gateway")
        || key == "app" && value.starts_with("istio-") && value.ends_with("gateway")
}

/// What a policy is for. What can't be said of it makes it one for all of its namespace.
fn target(source: &Source, spec: &mut Fields, context: &Context<'_>, lost: &mut Vec<Lost>) -> Target {
    if let Some(mut selector) = spec.part("selector") {
        let labels = selector.pairs("matchLabels");
        let rest = selector.rest();
        if !rest.is_empty() {
            lost.extend(rest);
            return Target::All;
        }
        if labels.iter().any(|(key, value)| selects_gateway(key, value)) {
            return Target::Elsewhere;
        }
        if !labels.is_empty() {
            let labels: Map<String, Value> = labels.into_iter().map(|(key, value)| (key, json!(value))).collect();
            return Target::Refs(vec![json!({ "kind": "Pod", "selector": { "matchLabels": labels } })]);
        }
    }
    let one = spec.part("targetRef");
    let refs: Vec<Fields> = one.into_iter().chain(spec.parts("targetRefs")).collect();
    if refs.is_empty() {
        return Target::All;
    }
    let (mut made, mut elsewhere, mut all) = (Vec::new(), 0, refs.len() > MOST_TARGETS);
    if all {
        lost.push(Lost::new(
            "spec.targetRefs",
            "",
            "has more targets than a policy can have",
            "write several policies",
        ));
    }
    let count = refs.len();
    for mut target in refs {
        let (kind, name) = (target.text("kind").unwrap_or_default(), target.text("name").unwrap_or_default());
        let (_, field) = (target.take("group"), target.at(""));
        let namespace = target.text("namespace").unwrap_or_else(|| source.namespace.clone());
        let known = target.rest();
        match kind.as_str() {
            // In Istio's root namespace it is one of that, and the policy is going to be in another.
            "Service" if known.is_empty() && namespace == source.namespace && namespace != context.options.root => {
                made.push(json!({ "kind": "Service", "name": name }));
            }
            "Gateway" if is_front_door(context, &namespace, &name) => elsewhere += 1,
            _ => {
                let why = "is not what a policy can be for here: it is made for all of its namespace";
                let remedy = "see which pods it is about, and give it a selector or Services";
                lost.push(Lost::new(field, format!("{kind} {name}"), why, remedy));
                all = true;
            }
        }
        lost.extend(known);
    }
    match (all, made.is_empty()) {
        (true, _) => Target::All,
        (false, true) if elsewhere == count => Target::Elsewhere,
        (false, _) => Target::Refs(made),
    }
}

/// Whether a Gateway is known to be no waypoint: those judge calls within the mesh.
fn is_front_door(context: &Context<'_>, namespace: &str, name: &str) -> bool {
    let class = context.inputs.gateways.get(&(namespace.to_owned(), name.to_owned()));
    class.is_some_and(|class| !class.contains("waypoint"))
}
