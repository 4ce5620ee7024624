//! PeerAuthentication -> MeshPolicy.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::report::{Level, Report};
use super::context::Context;
use super::fields::{Fields, Lost};
use super::input::{Labels, Source};

/// A policy, read.
struct Read<'a> {
    source: &'a Source,
    selector: Labels,
    mode: Option<&'static str>,
    ports: BTreeMap<u16, &'static str>,
    /// Whether plaintext was all that it took somewhere.
    disables: bool,
}

/// All policies.
pub fn translate(context: &Context<'_>, report: &mut Report) -> Vec<Value> {
    let mut all = Vec::new();
    for source in context.inputs.of_kind("PeerAuthentication") {
        let (read, lost) = read(source);
        for it in &lost {
            report.say(Level::LeftOut, (&source.label(), &it.field, &it.value), &it.why, &it.remedy);
        }
        all.extend(read);
    }
    let mut made = Vec::new();
    for mut policy in in_force(all, context, report) {
        let closed = settle_overlap(&mut policy, context, report);
        if policy.mode.is_none() && policy.ports.is_empty() {
            if !closed {
                report.say(Level::Unneeded, (&policy.source.label(), "the policy", ""), "says nothing", "");
            }
            continue;
        }
        made.push(object(&policy, context, report));
    }
    made
}

/// What a mode is here, and whether that is all that it is there; `None` says nothing.
fn mode(text: &str) -> Result<Option<(&'static str, bool)>, ()> {
    match text {
        "" | "UNSET" => Ok(None),
        "STRICT" => Ok(Some(("Strict", false))),
        "PERMISSIVE" => Ok(Some(("Permissive", false))),
        "DISABLE" => Ok(Some(("Permissive", true))),
        _ => Err(()),
    }
}

/// Reads a policy. What can't be read refuses plaintext, as Weft's own policies do that can't be understood.
fn read(source: &Source) -> (Option<Read<'_>>, Vec<Lost>) {
    let mut spec = Fields::new("spec", source.spec.clone());
    let mut lost = Vec::new();
    let mut policy = Read { source, selector: Labels::new(), mode: None, ports: BTreeMap::new(), disables: false };
    if let Some(mut selector) = spec.part("selector") {
        policy.selector = selector.pairs("matchLabels").into_iter().collect();
        lost.extend(selector.rest());
    }
    let mut take = |mut mtls: Fields, lost: &mut Vec<Lost>| {
        let field = mtls.at("mode");
        let text = mtls.text("mode").unwrap_or_default();
        lost.extend(mtls.rest());
        match mode(&text) {
            Ok(read) => {
                policy.disables |= read.is_some_and(|(_, disables)| disables);
                read.map(|(mode, _)| mode)
            }
            Err(()) => {
                lost.push(Lost::new(field, text, "is not a mode; Strict stands in its place", "write the mode"));
                Some("Strict")
            }
        }
    };
    let own = spec.part("mtls").and_then(|mtls| take(mtls, &mut lost));
    let mut ports = BTreeMap::new();
    for (port, mtls) in spec.entries("portLevelMtls") {
        let field = mtls.at("");
        let said = take(mtls, &mut lost);
        match (port.parse::<u16>(), said) {
            (Ok(number), Some(mode)) if number > 0 => {
                ports.insert(number, mode);
            }
            (Ok(number), None) if number > 0 => {}
            _ => lost.push(Lost::new(field, port, "is not a port", "write the number of the container's port")),
        }
    }
    lost.extend(spec.rest());
    let unreadable = !lost.is_empty();
    (policy.mode, policy.ports) = match unreadable {
        true => (Some("Strict"), BTreeMap::new()),
        false => (own, ports),
    };
    if unreadable {
        let why = "can't be read in full: Strict stands in its place, without exceptions for ports";
        lost.push(Lost::new("the policy", "", why, "do what stands beside its fields, and translate it again"));
    }
    (Some(policy), lost)
}

/// Istio takes the oldest of those for the mesh, and of those for a namespace, and passes over some.
fn in_force<'a>(all: Vec<Read<'a>>, context: &Context<'_>, report: &mut Report) -> Vec<Read<'a>> {
    let root = |policy: &Read<'_>| policy.source.namespace == context.options.root;
    let mut kept: Vec<Read<'a>> = Vec::new();
    for mut policy in all {
        let label = policy.source.label();
        if root(&policy) && !policy.selector.is_empty() {
            let why = "Istio passes over selectors in its root namespace, and over the whole policy";
            report.say(Level::Unneeded, (&label, "spec.selector", ""), why, "");
            continue;
        }
        if policy.selector.is_empty() && !policy.ports.is_empty() {
            let why = "Istio takes ports of policies with a selector only";
            report.say(Level::Unneeded, (&label, "spec.portLevelMtls", ""), why, "");
            policy.ports.clear();
        }
        let same = |other: &&mut Read<'a>| {
            policy.selector.is_empty() && other.selector.is_empty() && other.source.namespace == policy.source.namespace
        };
        match kept.iter_mut().find(same) {
            None => kept.push(policy),
            Some(first) if !policy.source.created.is_empty() && !first.source.created.is_empty() => {
                let why = format!("{} is older and in force", first.source.label());
                report.say(Level::Unneeded, (&label, "the policy", ""), why, "");
            }
            Some(first) => {
                let (a, b) = (first.source.label(), label);
                let why =
                    format!("{a} is for the same namespace, and files don't say which is older: the stricter is made");
                report.say(Level::LeftOut, (&b, "the policy", ""), why, "remove one of them, or read the cluster");
                let strictness = |it: &Read<'_>| it.mode == Some("Strict");
                if strictness(&policy) && !strictness(first) {
                    *first = policy;
                }
            }
        }
    }
    kept
}

/// Two selectors that may select one pod: of those both meshes take the older, and what is made is new. So that the younger one opens
/// nothing that the older one closes, it loses what it opens; whether it did.
fn settle_overlap(policy: &mut Read<'_>, context: &Context<'_>, report: &mut Report) -> bool {
    if policy.selector.is_empty() {
        return false;
    }
    let age = |it: &Source| (it.created.clone(), it.name.clone());
    let older = context
        .inputs
        .of_kind("PeerAuthentication")
        .filter(|it| it.namespace == policy.source.namespace && age(it) < age(policy.source));
    let overlapping: Vec<Read<'_>> = older
        .filter_map(|other| {
            let read = read(other).0.filter(|it| !it.selector.is_empty())?;
            let apart = |(key, value): (&String, &String)| read.selector.get(key).is_some_and(|it| it != value);
            (!policy.selector.iter().any(apart)).then_some(read)
        })
        .collect();
    let is_open = |it: &Read<'_>| it.mode == Some("Permissive") || it.ports.values().any(|mode| *mode == "Permissive");
    let is_closed = |it: &Read<'_>| it.mode != Some("Permissive") || it.ports.values().any(|mode| *mode == "Strict");
    let label = policy.source.label();
    let closing = overlapping.iter().find(|it| is_closed(it)).map(|it| it.source.label());
    if let Some(other) = closing.filter(|_| is_open(policy)) {
        let why = format!(
            "{other} is older, may select the same pods and takes no plaintext there: Permissive is left out here"
        );
        let remedy = "give the two selectors that have no pod in common";
        report.say(Level::LeftOut, (&label, "spec.selector", ""), why, remedy);
        policy.mode = policy.mode.filter(|mode| *mode == "Strict");
        policy.ports.retain(|_, mode| *mode == "Strict");
        return true;
    }
    if let Some(other) = overlapping.first() {
        let why = format!("{} is older and may select the same pods, of which it has those", other.source.label());
        let remedy = "apply it a second earlier, or make one policy of the two";
        report.say(Level::Differs, (&label, "spec.selector", ""), why, remedy);
    }
    false
}

fn object(policy: &Read<'_>, context: &Context<'_>, report: &mut Report) -> Value {
    let label = policy.source.label();
    let mut spec = Map::new();
    if !policy.selector.is_empty() {
        let target = json!({ "kind": "Pod", "selector": { "matchLabels": policy.selector } });
        spec.insert("targetRefs".to_owned(), json!([target]));
    }
    if let Some(mode) = policy.mode {
        spec.insert("mode".to_owned(), json!(mode));
    }
    if !policy.ports.is_empty() {
        let ports: Vec<_> = policy.ports.iter().map(|(port, mode)| json!({ "port": port, "mode": mode })).collect();
        spec.insert("portModes".to_owned(), json!(ports));
    }
    if policy.disables {
        let how = "Permissive: plaintext is taken, and pods of the mesh still speak mutual TLS to it";
        report.say(Level::Differs, (&label, "mode", "DISABLE"), how, "");
    }
    let namespace = context.namespace(&policy.source.namespace);
    let name = &policy.source.name;
    report.say(Level::Translated, (&label, "the policy", ""), format!("MeshPolicy {namespace}/{name}"), "");
    json!({ "apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec })
}
