//! Conditions on a request -> [`HttpMatch`]es.
//!
//! A condition that can't be understood makes its match one that never matches: to leave the condition out would
//! send requests where nobody asked for, and to drop the match of a route's only rule would hand its traffic to
//! the Service as if there were no route.

use std::collections::HashSet;

use weft_core::route::{HeaderMatch, HttpMatch, PathMatch, Pattern, QueryMatch, TextMatch};

use super::text::header_name;
use crate::object::route::{GrpcMethodMatch, GrpcRouteMatch, HttpRouteMatch, NamedMatch, PathMatch as PathSpec};
use crate::translate::{Problem, suggestion};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// An expression that no text matches: the empty class.
const NEVER: &str = r"[^\s\S]";

/// Any path.
pub(super) fn everything() -> HttpMatch {
    HttpMatch { path: PathMatch::Prefix(String::new()), method: None, headers: Vec::new(), query: Vec::new() }
}

/// No request at all.
fn nothing() -> HttpMatch {
    let path = Pattern::new(NEVER).map_or_else(|_| PathMatch::Exact(String::new()), PathMatch::Regex);
    HttpMatch { path, ..everything() }
}

/// Turns each into a match; wrong ones never match.
pub(super) fn all<M>(
    matches: &[M],
    field: &str,
    problems: &mut Vec<Problem>,
    one: impl Fn(&M, &str) -> Result<HttpMatch, Problem>,
) -> Vec<HttpMatch> {
    let mut made = Vec::with_capacity(matches.len());
    for (i, m) in matches.iter().enumerate() {
        made.push(one(m, &format!("{field}[{i}]")).unwrap_or_else(|problem| {
            problems.push(problem);
            nothing()
        }));
    }
    made
}

/// Whether at least one of the matches can match.
pub(super) fn any_possible(matches: &[HttpMatch]) -> bool {
    matches.iter().any(|m| !matches!(&m.path, PathMatch::Regex(p) if p.source() == NEVER))
}

/// `matches[]` of an HTTPRoute.
pub(super) fn http(m: &HttpRouteMatch, field: &str) -> Result<HttpMatch, Problem> {
    let method = match m.method.as_deref() {
        None => None,
        Some(text) if METHODS.contains(&text) => http::Method::from_bytes(text.as_bytes()).ok(),
        Some(text) => {
            let message = format!("{text:?} is not a method");
            return Err(Problem::value(format!("{field}.method"), message, suggestion(text, &METHODS)));
        }
    };
    let query = named(m.query_params.as_deref(), &format!("{field}.queryParams"), |n| n.name.clone())?;
    Ok(HttpMatch {
        path: path(m.path.as_ref(), &format!("{field}.path"))?,
        method,
        headers: headers(m.headers.as_deref(), &format!("{field}.headers"))?,
        query: query.into_iter().map(|(name, value)| QueryMatch { name, value }).collect(),
    })
}

/// `matches[]` of a GRPCRoute.
pub(super) fn grpc(m: &GrpcRouteMatch, field: &str) -> Result<HttpMatch, Problem> {
    let path = m.method.as_ref().map(|method| grpc_method(method, &format!("{field}.method"))).transpose()?;
    Ok(HttpMatch {
        path: path.unwrap_or(PathMatch::Grpc { service: None, method: None }),
        headers: headers(m.headers.as_deref(), &format!("{field}.headers"))?,
        ..everything()
    })
}

fn path(spec: Option<&PathSpec>, field: &str) -> Result<PathMatch, Problem> {
    let kind = spec.and_then(|s| s.kind.as_deref()).unwrap_or("PathPrefix");
    let value = spec.and_then(|s| s.value.as_deref()).unwrap_or("/");
    match kind {
        "Exact" => check_path(value, &format!("{field}.value")).map(|()| PathMatch::Exact(value.to_owned())),
        "PathPrefix" => {
            check_path(value, &format!("{field}.value"))?;
            Ok(PathMatch::Prefix(value.strip_suffix('/').unwrap_or(value).to_owned()))
        }
        "RegularExpression" => pattern(value, &format!("{field}.value")).map(PathMatch::Regex),
        other => {
            let known = ["Exact", "PathPrefix", "RegularExpression"];
            let message = format!("{other:?} is not a type of path match");
            Err(Problem::value(format!("{field}.type"), message, suggestion(other, &known)))
        }
    }
}

/// The conditions of the API on literal paths; what they exclude could never be in a normalised request.
pub(super) fn check_path(value: &str, field: &str) -> Result<(), Problem> {
    let wrong = |why: &str, remedy: &str| Err(Problem::value(field, format!("{value:?} {why}"), remedy));
    let lower = value.to_ascii_lowercase();
    if !value.starts_with('/') {
        return wrong("is not an absolute path", "start it with /");
    }
    if value.contains("//")
        || value.contains("/./")
        || value.contains("/../")
        || value.ends_with("/.")
        || value.ends_with("/..")
    {
        return wrong("is not normalised: no request has such a path", "remove //, /. and /..");
    }
    if lower.contains("%2f") || value.contains('#') || value.contains('?') {
        return wrong("has %2f, # or ?, which are not part of a path", "remove them; match the query with queryParams");
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if value.len() > 1024 || !value.bytes().all(legal) {
        return wrong("is too long or has characters that must be percent-encoded", "encode them, at most 1024 bytes");
    }
    Ok(())
}

/// A linear-time expression.
fn pattern(source: &str, field: &str) -> Result<Pattern, Problem> {
    Pattern::new(source).map_err(|e| {
        let what = e.to_string();
        let what = what.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Problem::value(
            field,
            format!("{source:?} is not a regular expression: {what}"),
            "use RE2 syntax: no look-around, no back-references, and not too large",
        )
    })
}

fn value(m: &NamedMatch, field: &str) -> Result<TextMatch, Problem> {
    match m.kind.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(TextMatch::Exact(m.value.clone())),
        "RegularExpression" => pattern(&m.value, &format!("{field}.value")).map(TextMatch::Regex),
        other => {
            let message = format!("{other:?} is not a type of match");
            Err(Problem::value(format!("{field}.type"), message, suggestion(other, &["Exact", "RegularExpression"])))
        }
    }
}

/// Of entries with the same name only the first counts.
fn named(
    list: Option<&[NamedMatch]>,
    field: &str,
    key: impl Fn(&NamedMatch) -> String,
) -> Result<Vec<(String, TextMatch)>, Problem> {
    let mut seen = HashSet::new();
    let mut made = Vec::new();
    for (i, m) in list.unwrap_or_default().iter().enumerate() {
        if seen.insert(key(m)) {
            made.push((m.name.clone(), value(m, &format!("{field}[{i}]"))?));
        }
    }
    Ok(made)
}

fn headers(list: Option<&[NamedMatch]>, field: &str) -> Result<Vec<HeaderMatch>, Problem> {
    let made = named(list, field, |m| m.name.to_ascii_lowercase())?;
    made.into_iter()
        .map(|(name, value)| {
            Ok(HeaderMatch { name: header_name(&format!("{field}[name={name}].name"), &name)?, value })
        })
        .collect()
}

fn grpc_method(m: &GrpcMethodMatch, field: &str) -> Result<PathMatch, Problem> {
    if m.service.is_none() && m.method.is_none() {
        return Err(Problem::value(field, "names neither a service nor a method", "give one or both, or remove it"));
    }
    let exact = match m.kind.as_deref().unwrap_or("Exact") {
        "Exact" => true,
        "RegularExpression" => false,
        other => {
            let message = format!("{other:?} is not a type of method match");
            let remedy = suggestion(other, &["Exact", "RegularExpression"]);
            return Err(Problem::value(format!("{field}.type"), message, remedy));
        }
    };
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let text = |value: &Option<String>, part: &str, legal: &dyn Fn(&str) -> bool| match value.as_deref() {
        None => Ok(None),
        Some(source) if !exact => pattern(source, &format!("{field}.{part}")).map(|p| Some(TextMatch::Regex(p))),
        Some(name) if legal(name) => Ok(Some(TextMatch::Exact(name.to_owned()))),
        Some(name) => {
            let message = format!("{name:?} is not the name of a gRPC {part}");
            Err(Problem::value(format!("{field}.{part}"), message, "write it as in the .proto file, package included"))
        }
    };
    Ok(PathMatch::Grpc {
        service: text(&m.service, "service", &|s| s.strip_prefix('.').unwrap_or(s).split('.').all(word))?,
        method: text(&m.method, "method", &word)?,
    })
}
