//! Rules of an AuthorizationPolicy, each translated exactly, or so that it errs on the safe side.
//!
//! What can't be said makes a rule that allows match less (the value, the source or the rule is left out), and a rule that denies match
//! more (the condition is left out). Either way no call is let through that Istio would refuse.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::context::Options;
use super::fields::{Fields, Lost};
use super::values::{self, Converted};

/// Which way a rule may err.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It matches less: a rule that allows, or that only tells.
    Less,
    /// It matches more: a rule that denies.
    More,
}

/// The conditions of a source or an operation by their names here; `None` never matches.
type Made = Option<BTreeMap<&'static str, Value>>;

/// Turns a value there into one here.
type Convert<'a> = dyn Fn(&str) -> Converted + 'a;

const ONE_ELEMENT: &str = "is also matched by one element of a list here, and by all of the header's text there";
const JWT: &str = "tokens of requests (JWT) are not looked at";
const JWT_REMEDY: &str = "let the application or a Gateway's ExternalAuth check them, and write the policy without";
const NO_PLACE: &str = "has no counterpart";
const REWRITE: &str = "write the policy anew with what there is: identities, namespaces, addresses, ports, methods, paths, hosts, headers";
/// Most entries of a list of conditions, and of sources or operations of a rule.
const MOST_VALUES: usize = 256;
const MOST_PARTS: usize = 64;

/// Translates rules of one policy.
pub struct Rules<'a> {
    pub options: &'a Options,
    /// The policy's namespace.
    pub namespace: &'a str,
    pub side: Side,
    /// Whether it is judged at a waypoint, where ports are those of Services.
    pub of_waypoint: bool,
    /// What couldn't be said.
    pub lost: Vec<Lost>,
    /// Whether a rule denies a host with all of its ports, where only the name alone was asked for.
    pub hosts: bool,
}

/// A list of conditions: its name there, its name here, and whether a value must be in it.
struct List {
    field: String,
    name: &'static str,
    positive: bool,
}

/// Whether a host is asked for with all of its ports as well, or whatever comes after it.
fn with_ports(hosts: &[String], text: &str) -> bool {
    let name = text.strip_suffix(":*").unwrap_or(text);
    name.ends_with('*') || [name.to_owned(), format!("{name}:*")].iter().all(|it| hosts.contains(it))
}

/// A port of a pod.
fn port(text: &str, of_waypoint: bool) -> Converted {
    match of_waypoint {
        true => Err("is a port of the Service at a waypoint; here those of pods are looked at".to_owned()),
        false => values::port(text),
    }
}

impl Rules<'_> {
    fn lose(&mut self, field: String, value: impl Into<String>, why: impl Into<String>, remedy: &str) {
        self.lost.push(Lost::new(field, value, why, remedy));
    }

    /// A condition that can't be said.
    fn give_up(&self, made: &mut Made) {
        if self.side == Side::Less {
            *made = None;
        }
    }

    /// A rule; `None` if it never matches.
    pub fn rule(&mut self, mut rule: Fields) -> Option<Value> {
        let (from_given, to_given) = (rule.has("from"), rule.has("to"));
        let from: Vec<_> = rule.parts("from").into_iter().map(|it| self.inside(it, "source")).collect();
        let to: Vec<_> = rule.parts("to").into_iter().map(|it| self.inside(it, "operation")).collect();
        let mut never = false;
        for (list, given, field) in [(&from, from_given, "from"), (&to, to_given, "to")] {
            if given && list.is_empty() || list.len() > MOST_PARTS {
                self.lose(rule.at(field), "", "is empty, or more than a rule can have", "write it in several rules");
                never = true;
            }
        }
        let mut sources: Vec<Made> = from.into_iter().map(|it| self.source(it)).collect();
        let mut operations: Vec<Made> = to.into_iter().map(|it| self.operation(it)).collect();
        for condition in rule.parts("when") {
            never |= self.when(condition, &mut sources, &mut operations).is_none();
        }
        for lost in rule.rest() {
            never = true;
            self.lost.push(lost);
        }
        if never && self.side == Side::Less {
            return None;
        }
        let mut made = serde_json::Map::new();
        for (name, list) in [("from", sources), ("to", operations)] {
            let had = !list.is_empty();
            let possible: Vec<_> = list.into_iter().flatten().collect();
            if had && possible.is_empty() {
                return None;
            }
            // One without a condition is met by everything, and so are all of them together.
            let any = possible.iter().any(BTreeMap::is_empty);
            if had && !any && possible.len() <= MOST_PARTS {
                made.insert(name.to_owned(), json!(possible));
            }
        }
        Some(Value::Object(made))
    }

    /// What is inside of an entry of `from` or `to`, beside which nothing may stand.
    fn inside(&mut self, mut entry: Fields, name: &str) -> Option<Fields> {
        let part = entry.part(name).filter(|part| !part.is_empty());
        if part.is_none() {
            self.lose(entry.at(name), "", "has no condition", "remove it to mean any");
        }
        let rest = entry.rest();
        let whole = rest.is_empty();
        self.lost.extend(rest);
        part.filter(|_| whole || self.side == Side::More)
    }

    /// Conditions that were lost as a whole.
    fn nothing(&self) -> Made {
        (self.side == Side::More).then(BTreeMap::new)
    }

    fn source(&mut self, fields: Option<Fields>) -> Made {
        let Some(mut fields) = fields else { return self.nothing() };
        let (options, own) = (self.options, self.namespace);
        let mut made = Some(BTreeMap::new());
        let accounts = |text: &str| values::service_account(text, own);
        let identity = |text: &str| values::identity(text, options);
        for (there, here, positive) in [("principals", "identities", true), ("notPrincipals", "notIdentities", false)] {
            self.list(&mut made, &mut fields, (there, here, positive), &identity);
        }
        for (there, here, positive) in
            [("serviceAccounts", "identities", true), ("notServiceAccounts", "notIdentities", false)]
        {
            self.list(&mut made, &mut fields, (there, here, positive), &accounts);
        }
        for (there, here, positive) in [("namespaces", "namespaces", true), ("notNamespaces", "notNamespaces", false)] {
            self.list(&mut made, &mut fields, (there, here, positive), &values::glob);
        }
        for (there, here, positive) in [("ipBlocks", "addresses", true), ("notIpBlocks", "notAddresses", false)] {
            self.list(&mut made, &mut fields, (there, here, positive), &values::address);
        }
        for name in ["requestPrincipals", "notRequestPrincipals"] {
            self.unsaid(&mut made, &mut fields, name, (JWT, JWT_REMEDY));
        }
        for name in ["remoteIpBlocks", "notRemoteIpBlocks"] {
            let why = "addresses that headers tell are not looked at, only that of the connection";
            let remedy = "judge clients from outside at the Gateway, with a policy of its own";
            self.unsaid(&mut made, &mut fields, name, (why, remedy));
        }
        self.finish(made, fields)
    }

    fn operation(&mut self, fields: Option<Fields>) -> Made {
        let Some(mut fields) = fields else { return self.nothing() };
        let mut made = Some(BTreeMap::new());
        let side = self.side;
        let hosts: Vec<String> = ["hosts", "notHosts"].iter().flat_map(|name| fields.peek(name)).collect();
        self.hosts |= hosts.iter().any(|text| !with_ports(&hosts, text));
        // Here a host is that of all ports: what matches more than there may only deny.
        let allows = |text: &str, errs: Side| match side == errs && !with_ports(&hosts, text) {
            true => {
                Err("is the host without a port there, and that of all ports here: add the same with :*".to_owned())
            }
            false => values::host(text),
        };
        let in_hosts = |text: &str| allows(text, Side::Less);
        let not_in_hosts = |text: &str| allows(text, Side::More);
        self.list(&mut made, &mut fields, ("hosts", "hosts", true), &in_hosts);
        self.list(&mut made, &mut fields, ("notHosts", "notHosts", false), &not_in_hosts);
        let of_waypoint = self.of_waypoint;
        let port = |text: &str| port(text, of_waypoint);
        let lists: [(_, _, &Convert<'_>); 3] = [
            ("ports", "notPorts", &port),
            ("methods", "notMethods", &values::method),
            ("paths", "notPaths", &values::path),
        ];
        for (positive, negative, convert) in lists {
            self.list(&mut made, &mut fields, (positive, positive, true), convert);
            self.list(&mut made, &mut fields, (negative, negative, false), convert);
        }
        self.finish(made, fields)
    }

    fn finish(&mut self, mut made: Made, fields: Fields) -> Made {
        let rest = fields.rest();
        if !rest.is_empty() {
            self.give_up(&mut made);
        }
        self.lost.extend(rest);
        made
    }

    fn unsaid(&mut self, made: &mut Made, fields: &mut Fields, name: &str, (why, remedy): (&str, &str)) {
        let field = fields.at(name);
        if let Some(value) = fields.take(name).filter(|value| value.as_array().is_none_or(|list| !list.is_empty())) {
            self.lose(field, value.to_string(), why, remedy);
            self.give_up(made);
        }
    }

    fn list(
        &mut self,
        made: &mut Made,
        fields: &mut Fields,
        (there, name, positive): (&str, &'static str, bool),
        convert: &Convert<'_>,
    ) {
        let field = fields.at(there);
        let texts = fields.texts(there);
        if !texts.is_empty() {
            self.add(made, List { field, name, positive }, &texts, convert);
        }
    }

    /// Adds a list of values to what is made.
    fn add(&mut self, made: &mut Made, list: List, texts: &[String], convert: &Convert<'_>) {
        let (mut good, mut whole) = (Vec::new(), true);
        for text in texts {
            match convert(text) {
                Ok(value) if list.name.ends_with("orts") => good.extend(value.parse::<u16>().map(|port| json!(port))),
                Ok(value) => good.push(json!(value)),
                Err(why) => {
                    whole = false;
                    self.lose(list.field.clone(), text, why, REWRITE);
                }
            }
        }
        good.dedup();
        if good.len() > MOST_VALUES {
            whole = false;
            good.clear();
            self.lose(
                list.field.clone(),
                "",
                format!("has more than {MOST_VALUES} values"),
                "write it in several rules",
            );
        }
        // Of what must be in a list a shorter list lets less match; of what must not be, none can be missing.
        let usable = whole || self.side == Side::Less && list.positive && !good.is_empty();
        if !usable {
            self.give_up(made);
            return;
        }
        let Some(map) = made else { return };
        match map.get_mut(list.name) {
            None => drop(map.insert(list.name, Value::Array(good))),
            Some(Value::Array(old)) if *old == good => {}
            Some(Value::Array(old)) if !list.positive => old.extend(good),
            Some(_) => {
                let why = "stands beside another list that must hold too; one list can't say both";
                self.lose(list.field, texts.join(", "), why, "write the values that are in both");
                self.give_up(made);
            }
        }
    }

    /// A condition of `when`, which holds for all sources and operations; `None` if it can't be said.
    fn when(&mut self, mut condition: Fields, sources: &mut Vec<Made>, operations: &mut Vec<Made>) -> Option<()> {
        let (key, field) = (condition.text("key").unwrap_or_default(), condition.at(""));
        let (values, not) = (condition.texts("values"), condition.texts("notValues"));
        let rest = condition.rest();
        if !rest.is_empty() || values.is_empty() && not.is_empty() {
            self.lost.extend(rest);
            self.lose(field, key, "can't be read, or has no values", "write values or notValues");
            return None;
        }
        let (options, own) = (self.options, self.namespace);
        let identity = |text: &str| values::identity(text, options);
        let account = |text: &str| values::service_account(text, own);
        let of_waypoint = self.of_waypoint;
        let destination = |text: &str| port(text, of_waypoint);
        let (names, convert): (_, &Convert<'_>) = match key.as_str() {
            "source.principal" => (("identities", "notIdentities"), &identity),
            "source.serviceAccount" => (("identities", "notIdentities"), &account),
            "source.namespace" => (("namespaces", "notNamespaces"), &values::glob),
            "source.ip" => (("addresses", "notAddresses"), &values::address),
            "destination.port" => (("ports", "notPorts"), &destination),
            _ => {
                let name = key.strip_prefix("request.headers[").and_then(|it| it.strip_suffix(']'));
                return match name {
                    Some(name) => self.header((field, name), (&values, &not), operations),
                    None => {
                        let jwt = key.starts_with("request.auth.");
                        let (why, remedy) = if jwt { (JWT, JWT_REMEDY) } else { (NO_PLACE, REWRITE) };
                        self.lose(field, key, why, remedy);
                        None
                    }
                };
            }
        };
        let targets = if key == "destination.port" { operations } else { sources };
        if targets.is_empty() {
            targets.push(Some(BTreeMap::new()));
        }
        for (texts, name, positive) in [(&values, names.0, true), (&not, names.1, false)] {
            if texts.is_empty() {
                continue;
            }
            for made in targets.iter_mut().filter(|made| made.is_some()) {
                self.add(made, List { field: field.clone(), name, positive }, texts, convert);
            }
        }
        Some(())
    }

    /// A condition on a header. Repeated headers are compared line by line and element by element here, and as one text there.
    fn header(
        &mut self,
        (field, name): (String, &str),
        (values, not): (&[String], &[String]),
        operations: &mut Vec<Made>,
    ) -> Option<()> {
        let legal = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        let readable = values.iter().chain(not).all(|text| values::glob(text).is_ok());
        if !legal || !readable || values.len().max(not.len()) > MOST_VALUES {
            self.lose(field, name, "is not a condition on a header that can be said", REWRITE);
            return None;
        }
        let present = values.iter().any(|text| text == "*");
        let mut made = serde_json::Map::from_iter([("name".to_owned(), json!(name.to_ascii_lowercase()))]);
        match self.side {
            Side::Less if !values.is_empty() && !present => {
                let remedy = "if that is right for this header, write the rule by hand: headers, in an entry of to";
                self.lose(field, format!("{name}: {}", values.join(", ")), ONE_ELEMENT, remedy);
                return None;
            }
            Side::More if !values.is_empty() && !present => drop(made.insert("values".to_owned(), json!(values))),
            Side::Less | Side::More => {}
        }
        if !not.is_empty() {
            let why = match self.side {
                Side::Less => "needs the header to be there, here; there it holds without as well",
                Side::More => "would not hold without the header, here; there it does",
            };
            self.lose(
                field,
                format!("{name}: not {}", not.join(", ")),
                why,
                "see whether that is right for this header",
            );
            match self.side {
                Side::Less => drop(made.insert("notValues".to_owned(), json!(not))),
                Side::More if values.is_empty() => return None,
                Side::More => {}
            }
        }
        if operations.is_empty() {
            operations.push(Some(BTreeMap::new()));
        }
        for map in operations.iter_mut().flatten() {
            if let Value::Array(headers) = map.entry("headers").or_insert_with(|| json!([])) {
                headers.push(Value::Object(made.clone()));
            }
        }
        Some(())
    }
}
