//! Matches of a VirtualService.

use std::collections::BTreeMap;

use weft_core::normalize;
use weft_core::route::Pattern;

use super::fields::{Fields, Lost};
use super::matches::{Match, Path, Text};

/// What is said of a VirtualService while it is read.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// What it can't be translated without.
    pub fatal: Vec<Lost>,
    /// Settings that are left out.
    pub left: Vec<Lost>,
    /// Settings that are not quite the same.
    pub differs: Vec<Lost>,
}

impl Said {
    /// Something that a VirtualService can't be translated without.
    pub fn fatal(&mut self, field: impl Into<String>, value: impl Into<String>, why: &str, remedy: &str) {
        self.fatal.push(Lost::new(field, value, why, remedy));
    }

    /// A setting that is left out.
    pub fn left(&mut self, field: impl Into<String>, value: impl Into<String>, why: &str, remedy: &str) {
        self.left.push(Lost::new(field, value, why, remedy));
    }

    /// A setting that is not quite the same.
    pub fn differs(&mut self, field: impl Into<String>, value: impl Into<String>, how: &str) {
        self.differs.push(Lost::new(field, value, how, ""));
    }
}

/// A text that is compared, as Istio says it.
enum Comparison {
    Exact(String),
    Prefix(String),
    Regex(String),
    /// `{}`: anything that is there.
    There,
}

const UNMATCHED: &str = "requests are not told apart by it here";
const UNMATCHED_REMEDY: &str = "translate this VirtualService by hand";

fn comparison(mut fields: Fields, said: &mut Said) -> Option<Comparison> {
    let at = fields.at("");
    let (exact, prefix, regex) = (fields.text("exact"), fields.text("prefix"), fields.text("regex"));
    said.fatal.extend(fields.rest());
    match (exact, prefix, regex) {
        (Some(text), None, None) => Some(Comparison::Exact(text)),
        (None, Some(text), None) => Some(Comparison::Prefix(text)),
        (None, None, Some(text)) => match Pattern::new(&text) {
            Ok(_) => Some(Comparison::Regex(text)),
            Err(_) => {
                said.fatal(at, text, "is not an expression here", UNMATCHED_REMEDY);
                None
            }
        },
        (None, None, None) => Some(Comparison::There),
        _ => {
            said.fatal(at, "", "says more than one of exact, prefix and regex", UNMATCHED_REMEDY);
            None
        }
    }
}

fn texts(entries: Vec<(String, Fields)>, said: &mut Said, name: impl Fn(&str) -> String) -> BTreeMap<String, Text> {
    let mut made = BTreeMap::new();
    for (key, fields) in entries {
        let text = match comparison(fields, said) {
            None => continue,
            Some(Comparison::Exact(text)) => Text::Exact(text),
            Some(Comparison::Prefix(text)) => Text::Regex(format!("{}.*", regex::escape(&text))),
            Some(Comparison::Regex(text)) => Text::Regex(text),
            Some(Comparison::There) => Text::Regex(".*".to_owned()),
        };
        made.insert(name(&key), text);
    }
    made
}

/// Whether requests have such a path when they are matched here, and a route may say it.
fn is_path(text: &str) -> bool {
    let normal = normalize::path(text).is_ok_and(|it| it.text == text && !it.ambiguous);
    text.starts_with('/') && normal && text.len() <= 1024
}

fn path(fields: Fields, ignore_case: bool, said: &mut Said) -> Path {
    const ALL: Path = Path::Prefix(String::new());
    let field = fields.at("");
    let Some(read) = comparison(fields, said) else { return ALL };
    let insensitive = |text: &str, rest: &str| Path::Regex(format!("(?i){}{rest}", regex::escape(text)));
    match read {
        Comparison::There => ALL,
        Comparison::Regex(text) => Path::Regex(text),
        Comparison::Prefix(text) if text == "/" => ALL,
        Comparison::Exact(text) | Comparison::Prefix(text) if !is_path(&text) => {
            let why = "is not the path of a request: those are compared in one form, from their slash on";
            said.fatal(field, text, why, UNMATCHED_REMEDY);
            ALL
        }
        Comparison::Exact(text) if ignore_case => insensitive(&text, ""),
        Comparison::Prefix(text) if ignore_case => insensitive(&text, ".*"),
        Comparison::Exact(text) => Path::Exact(text),
        Comparison::Prefix(text) => {
            let how = "is a prefix of whole segments here: /a matches /a and /a/b, and not /ab";
            said.differs(field, text.clone(), how);
            Path::Prefix(text.trim_end_matches('/').to_owned())
        }
    }
}

/// The methods of a match; more than one where an expression is a list of them.
fn methods(fields: Fields, said: &mut Said) -> Vec<Option<String>> {
    let field = fields.at("");
    let is_method = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    match comparison(fields, said) {
        None | Some(Comparison::There) => vec![None],
        Some(Comparison::Exact(text)) if is_method(&text) => vec![Some(text)],
        Some(Comparison::Regex(text)) if text.split('|').all(is_method) => {
            text.split('|').map(|it| Some(it.to_owned())).collect()
        }
        Some(Comparison::Exact(text) | Comparison::Regex(text) | Comparison::Prefix(text)) => {
            said.fatal(field, text, "is neither a method nor a list of them", UNMATCHED_REMEDY);
            vec![None]
        }
    }
}

/// Reads `match[]` of a rule for requests within the mesh. `None`: the rule is for gateways only.
pub fn read(list: Vec<Fields>, hosts: &[String], said: &mut Said) -> Option<Vec<Match>> {
    if list.is_empty() {
        return Some(vec![Match::default()]);
    }
    let mut made = Vec::new();
    for mut fields in list {
        let gateways = fields.texts("gateways");
        if !gateways.is_empty() && !gateways.iter().any(|it| it == "mesh") {
            continue;
        }
        let ignore_case = fields.flag("ignoreUriCase").unwrap_or_default();
        let path = fields.part("uri").map_or(Path::Prefix(String::new()), |uri| path(uri, ignore_case, said));
        let methods = fields.part("method").map_or_else(|| vec![None], |method| methods(method, said));
        let headers = texts(fields.entries("headers"), said, str::to_ascii_lowercase);
        let query = texts(fields.entries("queryParams"), said, str::to_owned);
        for name in headers.keys().filter(|name| http::HeaderName::from_bytes(name.as_bytes()).is_err()) {
            said.fatal(fields.at("headers"), name, "is not the name of a header", UNMATCHED_REMEDY);
        }
        // A host that the VirtualService is for is what every request for it has.
        let at = fields.at("authority");
        match fields.part("authority").map(|it| comparison(it, said)) {
            None | Some(Some(Comparison::There)) => {}
            Some(Some(Comparison::Exact(host))) if hosts.contains(&host) => {}
            Some(_) => said.fatal(at, "", "in the mesh a request's Host doesn't say where it goes", UNMATCHED_REMEDY),
        }
        for name in ["scheme", "port", "sourceLabels", "sourceNamespace", "withoutHeaders"] {
            let at = fields.at(name);
            if let Some(value) = fields.take(name) {
                said.fatal(at, value.to_string(), UNMATCHED, UNMATCHED_REMEDY);
            }
        }
        // Names of a match stand in metrics only.
        _ = (fields.take("name"), fields.take("statPrefix"));
        said.fatal.extend(fields.rest());
        for method in methods {
            made.push(Match {
                path: path.clone(),
                method,
                headers: headers.clone(),
                query: query.clone(),
                base: path.clone(),
            });
        }
    }
    (!made.is_empty()).then_some(made)
}
