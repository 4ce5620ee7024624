//! Canary Ingresses, put into the rules of the Ingresses that they are canaries of.

use serde_json::{Value, json};

use super::backends::{Backend, Destination, destination};
use super::parts::{Part, PathItem};
use super::report::{Level, Report};
use super::routes::{Context, Rule};
use super::settings::{Canary, HeaderRule};

/// Parts of canaries.
pub struct Canaries<'a>(Vec<(&'a Part, &'a Canary)>);

impl<'a> Canaries<'a> {
    /// The canaries among parts.
    pub fn of(parts: &'a [Part]) -> Self {
        Self(parts.iter().filter_map(|part| Some((part, part.settings.canary.as_ref()?))).collect())
    }

    /// The canaries of a part's host.
    pub fn of_host(&self, part: &Part) -> impl Iterator<Item = &'a Part> {
        self.0.iter().filter(|(it, _)| it.class == part.class && it.host == part.host).map(|(it, _)| *it)
    }

    /// The canary of a path.
    fn of_path(&self, part: &Part, item: &PathItem) -> Option<(&'a Part, &'a PathItem, &'a Canary)> {
        let here = self.0.iter().filter(|(it, _)| it.class == part.class && it.host == part.host);
        let mut found = here.filter_map(|(it, canary)| {
            let path = it.paths.iter().find(|path| path.path == item.path && path.kind == item.kind)?;
            Some((*it, path, *canary))
        });
        found.next()
    }

    /// Says of canaries that no Ingress has a path for that they go nowhere.
    pub fn report_lonely(&self, mains: &[Part], report: &mut Report) {
        for (canary, _) in &self.0 {
            for item in &canary.paths {
                let is_main = |part: &&Part| part.class == canary.class && part.host == canary.host;
                let has = |part: &Part| part.paths.iter().any(|path| path.path == item.path && path.kind == item.kind);
                if !mains.iter().filter(is_main).any(has) {
                    let why = "a canary of nothing: no other Ingress has this host and path";
                    report.say(
                        Level::LeftOut,
                        (&canary.label, &item.field, &item.path),
                        why,
                        "remove it, or correct host and path",
                    );
                }
            }
        }
    }
}

/// A rule, with those of its canary before it and its weight in it.
pub fn with_canary(
    mut rule: Rule,
    part: &Part,
    item: &PathItem,
    context: &Context<'_>,
    report: &mut Report,
) -> Vec<Rule> {
    let Some((of, path, canary)) = context.canaries.of_path(part, item) else { return vec![rule] };
    let backends = match destination(of, path, context.inputs) {
        Ok(Destination::Backends(backends)) => backends,
        Ok(_) => return vec![rule],
        Err((why, remedy)) => {
            report.say(Level::LeftOut, (&of.label, &path.field, &path.path), why, remedy);
            return vec![rule];
        }
    };
    if of.settings.session.is_some() {
        rule.session = of.settings.session.clone();
    }
    let to_canary = Rule { backends: backends.clone(), ..rule.clone() };
    let mut made = Vec::new();
    let mut add =
        |headers: Value, to: &Rule| made.push(Rule { matches: matching(&to.matches, &headers), ..to.clone() });
    match &canary.header {
        None => {}
        Some(HeaderRule::Word(name)) => {
            add(json!({ "name": name, "value": "always" }), &to_canary);
            add(json!({ "name": name, "value": "never" }), &rule);
        }
        Some(HeaderRule::Value(name, value)) => add(json!({ "name": name, "value": value }), &to_canary),
        Some(HeaderRule::Pattern(name, pattern)) => {
            add(json!({ "type": "RegularExpression", "name": name, "value": pattern }), &to_canary);
        }
    }
    if let Some(cookie) = &canary.cookie {
        let has = |value: &str| {
            let escaped: String = cookie.chars().flat_map(|c| escape(c).chars().collect::<Vec<_>>()).collect();
            let pattern = format!("(.*; *)?{escaped}={value}( *;.*)?");
            json!({ "type": "RegularExpression", "name": "Cookie", "value": pattern })
        };
        add(has("always"), &to_canary);
        add(has("never"), &rule);
    }
    if let Some((weight, total)) = canary.weight.filter(|(weight, _)| *weight > 0) {
        // With several backends on either side each has its share of that side.
        let share = |of_side: u32| {
            move |backend: &Backend| {
                let own = backend.weight.unwrap_or(1);
                Backend { weight: Some(of_side.saturating_mul(own)), ..backend.clone() }
            }
        };
        let main = rule.backends.iter().map(share(total.saturating_sub(weight)));
        rule.backends = main.chain(backends.iter().map(share(weight))).collect();
    }
    made.push(rule);
    made
}

fn escape(c: char) -> String {
    if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c.to_string() } else { format!("\\{c}") }
}

/// Matches with one more condition.
fn matching(matches: &[Value], header: &Value) -> Vec<Value> {
    let base = if matches.is_empty() { vec![json!({})] } else { matches.to_vec() };
    let with = base.into_iter().map(|mut matched| {
        if let Some(map) = matched.as_object_mut() {
            map.insert("headers".to_owned(), json!([header]));
        }
        matched
    });
    with.collect()
}
