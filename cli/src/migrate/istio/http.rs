//! HTTP rules of a VirtualService, as values: what is to be made of them, before Services and ports are looked at.

use serde_json::{Map, Value, json};

use super::actions::{self, Rewrite};
use super::context::Context;
use super::fields::{Fields, Lost};
use super::input::{Key, Source};
use super::matches::{Common, Match};
use super::requests::{self, Said};

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The field, for what is said of it.
    pub field: String,
    pub service: Key,
    pub subset: Option<String>,
    pub port: Option<u16>,
}

/// A destination with its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub to: Destination,
    pub weight: u64,
    pub filters: Vec<Value>,
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub to: Destination,
    /// `percent` or `fraction`; empty for all requests.
    pub share: Map<String, Value>,
}

/// What a rule does in the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Forward(Vec<Backend>),
    Redirect(Value),
    /// Answers 500: there are no backends.
    Answer,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Where it stands.
    pub field: String,
    pub name: Option<String>,
    pub matches: Vec<Match>,
    pub action: Action,
    pub filters: Vec<Value>,
    pub mirrors: Vec<Mirror>,
    pub rewrite: Option<Rewrite>,
    /// `timeouts` and `retry`.
    pub limits: Map<String, Value>,
}

/// What a delegate takes over from the rule that refers to it, unless it says something itself.
const INHERITED: [&str; 11] = [
    "rewrite",
    "directResponse",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrors",
    "mirrorPercent",
    "mirrorPercentage",
    "corsPolicy",
    "headers",
];

/// The rules of a VirtualService for requests within the mesh.
pub fn rules(source: &Source, hosts: &[String], context: &Context<'_>, said: &mut Said) -> Vec<Rule> {
    let mut spec = Fields::new("spec", source.spec.clone());
    let mut made = Vec::new();
    for mut fields in spec.parts("http") {
        let Some(matches) = requests::read(fields.parts("match"), hosts, said) else { continue };
        match fields.part("delegate") {
            Some(delegate) => made.extend(delegated(fields, delegate, &matches, (source, context), said)),
            None => made.push(rule(fields, matches, (source, context), said)),
        }
    }
    made
}

/// The rules of another VirtualService, for those requests that the rule here matches as well.
fn delegated(
    mut outer: Fields,
    mut delegate: Fields,
    matches: &[Match],
    (source, context): (&Source, &Context<'_>),
    said: &mut Said,
) -> Vec<Rule> {
    let field = delegate.at("");
    let name = delegate.text("name").unwrap_or_default();
    let namespace = delegate.text("namespace").unwrap_or_else(|| source.namespace.clone());
    said.fatal.extend(delegate.rest());
    let mut all = context.inputs.of_kind("VirtualService");
    let Some(other) = all.find(|it| it.namespace == namespace && it.name == name) else {
        let remedy = "add its manifest, or read the cluster with --from-cluster";
        said.fatal(field, format!("{namespace}/{name}"), "the VirtualService is not among what was read", remedy);
        return Vec::new();
    };
    let inherited: Vec<(&str, Value)> = INHERITED.iter().filter_map(|name| Some((*name, outer.take(name)?))).collect();
    // Its name stands in metrics only.
    _ = outer.take("name");
    said.fatal.extend(outer.rest());
    let mut made = Vec::new();
    for mut fields in Fields::new("spec", other.spec.clone()).parts("http") {
        let Some(own) = requests::read(fields.parts("match"), &[], said) else { continue };
        if fields.has("delegate") {
            said.fatal(field.clone(), other.label(), "refers to one more VirtualService itself", "join the two");
            continue;
        }
        for (name, value) in &inherited {
            fields.inherit(name, value);
        }
        let mut both = Vec::new();
        for (outer, inner) in matches.iter().flat_map(|outer| own.iter().map(move |inner| (outer, inner))) {
            match outer.common(inner) {
                Common::This(it) => both.push(Match { base: it.path.clone(), ..it }),
                Common::Nothing => {}
                Common::Unknown => {
                    let why = "nobody can say which requests match here and there";
                    said.fatal(field.clone(), other.label(), why, "write the paths without expressions");
                }
            }
        }
        if !both.is_empty() {
            made.push(rule(fields, both, (other, context), said));
        }
    }
    made
}

fn rule(mut fields: Fields, matches: Vec<Match>, (source, context): (&Source, &Context<'_>), said: &mut Said) -> Rule {
    let own = source.namespace.as_str();
    let field = fields.at("");
    let name = fields.text("name");
    let mut filters = actions::headers(fields.part("headers"), said);
    let rewrite = fields.part("rewrite").map(|it| actions::rewrite(it, said));
    filters.extend(fields.part("corsPolicy").and_then(|it| actions::cors(it, said)));
    let mirrors = mirrors(&mut fields, (own, context), said);
    let timeout = fields.at("timeout");
    let timeout = fields.text("timeout").map(|text| (timeout, text));
    let limits = actions::limits(timeout, fields.part("retries"), said);
    let closed = fields.part("fault").is_some_and(|it| fault(it, said));
    let route = fields.parts("route");
    let action = if let Some(redirect) = fields.part("redirect") {
        Action::Redirect(actions::redirect(redirect, said))
    } else if let Some(answer) = fields.take("directResponse") {
        let remedy = "let a backend answer, or take 500 for an answer";
        said.left(
            format!("{field}.directResponse"),
            answer.to_string(),
            "a rule that answers by itself answers 500",
            remedy,
        );
        Action::Answer
    } else if closed {
        Action::Answer
    } else {
        if route.is_empty() {
            said.fatal(field.clone(), "", "sends requests nowhere", "translate this VirtualService by hand");
        }
        Action::Forward(backends(route, (own, context), said))
    };
    said.fatal.extend(fields.rest());
    Rule { field, name, matches, action, filters, mirrors, rewrite, limits }
}

/// `route[]`, of HTTP or TCP.
pub fn backends(list: Vec<Fields>, (own, context): (&str, &Context<'_>), said: &mut Said) -> Vec<Backend> {
    let alone = list.len() == 1;
    let mut made = Vec::new();
    for mut fields in list {
        let filters = actions::headers(fields.part("headers"), said);
        // One alone has everything; of several, one without a weight has nothing.
        let weight = fields.number("weight").unwrap_or(if alone { 1 } else { 0 });
        let weight = if alone { weight.max(1) } else { weight };
        let at = fields.at("destination");
        match fields.part("destination").map(|it| destination(it, own, context)) {
            Some(Ok(to)) => made.push(Backend { to, weight, filters }),
            Some(Err(lost)) => said.fatal.extend(lost),
            None => said.fatal(at, "", "is missing", "name a destination"),
        }
        said.fatal.extend(fields.rest());
    }
    made
}

fn destination(mut fields: Fields, own: &str, context: &Context<'_>) -> Result<Destination, Vec<Lost>> {
    let host = fields.text("host").unwrap_or_default();
    let service = context.service(&fields.at("host"), &host, own).map_err(|lost| vec![lost])?;
    let mut port = fields.part("port");
    let number = port.as_mut().and_then(|it| it.number("number")).and_then(|it| u16::try_from(it).ok());
    let made = Destination { field: fields.at(""), service, subset: fields.text("subset"), port: number };
    let mut rest = port.map(Fields::rest).unwrap_or_default();
    rest.extend(fields.rest());
    if rest.is_empty() { Ok(made) } else { Err(rest) }
}

/// A share of requests in percent, as a filter has it: whole, or in hundredths.
fn share(percent: f64) -> Option<Map<String, Value>> {
    let hundredths = (percent * 100.0).round();
    let mut made = Map::new();
    if !(0.0..=10_000.0).contains(&hundredths) {
        return None;
    }
    let hundredths = format!("{hundredths:.0}").parse::<u64>().ok()?;
    match (hundredths, hundredths % 100) {
        (10_000, _) => {}
        (_, 0) => drop(made.insert("percent".to_owned(), json!(hundredths / 100))),
        _ => drop(made.insert("fraction".to_owned(), json!({ "numerator": hundredths, "denominator": 10_000 }))),
    }
    Some(made)
}

/// The percentage of `{value: 12.5}`.
fn percentage(fields: Option<Fields>, said: &mut Said) -> Option<f64> {
    let mut fields = fields?;
    let value = fields.take("value").and_then(|it| it.as_f64());
    said.left.extend(fields.rest());
    // An empty one is one of nothing.
    Some(value.unwrap_or_default())
}

fn mirrors(fields: &mut Fields, (own, context): (&str, &Context<'_>), said: &mut Said) -> Vec<Mirror> {
    let mut made = Vec::new();
    let mut add = |to: Fields, percent: f64, said: &mut Said| {
        let field = to.at("");
        match (destination(to, own, context), share(percent)) {
            (Ok(_), Some(share)) if share.get("percent") == Some(&json!(0)) => {}
            (Ok(to), Some(share)) => made.push(Mirror { to, share }),
            (Err(lost), _) => said.left.extend(lost),
            (_, None) => said.left(field, percent.to_string(), "is not a share of requests", "use 0 to 100"),
        }
    };
    let whole = fields.number("mirrorPercent").map(|it| f64::from(u32::try_from(it).unwrap_or(100)));
    let percent = percentage(fields.part("mirrorPercentage"), said).or(whole).unwrap_or(100.0);
    if let Some(to) = fields.part("mirror") {
        add(to, percent, said);
    }
    for mut it in fields.parts("mirrors") {
        let percent = percentage(it.part("percentage"), said).unwrap_or(100.0);
        if let Some(to) = it.part("destination") {
            add(to, percent, said);
        }
        said.left.extend(it.rest());
    }
    made
}

/// `fault`: there are none here. Whether it aborts every request, which then has to stay so.
fn fault(mut fields: Fields, said: &mut Said) -> bool {
    let at = fields.at("abort");
    let mut always = false;
    if let Some(mut abort) = fields.part("abort") {
        let value = abort.shown();
        always = percentage(abort.part("percentage"), said).is_some_and(|it| it >= 100.0);
        let why = match always {
            true => "requests are not failed on purpose: those of this rule are answered 500",
            false => "requests are not failed on purpose: those of this rule go to their backends",
        };
        said.left(at, value, why, "fail them in the application, or at a Gateway in front");
    }
    for lost in fields.rest() {
        said.left(lost.field, lost.value, "requests are not delayed on purpose", "delay them in the application");
    }
    always
}
