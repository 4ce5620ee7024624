//! What a path of an Ingress matches, and what is made of it before a backend sees it.
//!
//! ingress-nginx reads all paths of a host as expressions, without regard to case and as the beginning of a path, as soon as
//! one Ingress of the host has `use-regex` or `rewrite-target`. A path that only looks like an expression because it captures
//! what a rewrite puts back is a prefix here; what is a real expression stays one.

use weft_core::route::Pattern;

use super::class::Controller;

/// `spec.rules[].http.paths[].pathType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathType {
    Exact,
    Prefix,
    ImplementationSpecific,
}

impl PathType {
    /// By its name; what is none counts as the controller's own.
    pub fn of(text: &str) -> Self {
        match text {
            "Exact" => Self::Exact,
            "Prefix" => Self::Prefix,
            _ => Self::ImplementationSpecific,
        }
    }
}

/// A rewrite as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What has to match; `None`: the path of the rule.
    pub pattern: Option<String>,
    /// What the path becomes, with `$1` for what was captured.
    pub target: String,
}

/// How the paths of a host are read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    pub controller: Controller,
    /// Whether they are expressions.
    pub expressions: bool,
    /// Whether one of them is an expression that no prefix can stand in for: then all are, because those come before prefixes.
    pub mixed: bool,
    pub rewrite: Option<&'a Rewrite>,
}

/// `matches[].path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Exact(String),
    Prefix(String),
    Expression(String),
}

impl Match {
    /// The type, as the Gateway API spells it, and the value.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Exact(value) => ("Exact", value),
            Self::Prefix(value) => ("PathPrefix", value),
            Self::Expression(value) => ("RegularExpression", value),
        }
    }
}

/// `urlRewrite.path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Full(String),
    Prefix(String),
    /// No backend gets the request.
    Refused,
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub matched: Match,
    pub change: Option<Change>,
    /// How it differs from what it was.
    pub differs: Option<&'static str>,
}

pub(super) const BEGINS: &str = "there it also matched paths that go on without a slash, and in any case of letters; here whole segments as written";
pub(super) const GOES_ON: &str = "there it also matched paths that go on without a slash; here whole segments";
const ITSELF: &str = "here it also matches the path without its last slash";
pub(super) const EXACT: &str =
    "there, with expressions on the host, it also matched longer paths, in any case of letters; here this path alone";

/// Reads one path.
///
/// # Errors
/// Why no match or rewrite can say it.
pub fn plan(path: &str, kind: PathType, reading: Reading<'_>) -> Result<Plan, String> {
    let path = if path.is_empty() { "/" } else { path };
    match reading.rewrite {
        Some(rewrite) => rewritten(path, kind, rewrite, reading),
        None => matched(path, kind, reading).map(|(matched, differs)| Plan { matched, change: None, differs }),
    }
}

/// As [`plan`]; where only the rewrite can't be said, a plan that refuses, and why.
///
/// # Errors
/// Why no match can say it.
pub fn plan_or_refuse(path: &str, kind: PathType, reading: Reading<'_>) -> Result<(Plan, Option<String>), String> {
    plan(path, kind, reading).map(|plan| (plan, None)).or_else(|why| {
        let bare = plan(path, kind, Reading { rewrite: None, ..reading })?;
        Ok((Plan { change: Some(Change::Refused), ..bare }, Some(why)))
    })
}

fn matched(path: &str, kind: PathType, reading: Reading<'_>) -> Result<(Match, Option<&'static str>), String> {
    if reading.expressions {
        return expression(path, kind, reading.mixed);
    }
    if kind == PathType::ImplementationSpecific && reading.controller == Controller::Alb {
        return wildcards(path);
    }
    checked(path)?;
    Ok(match kind {
        PathType::Exact => (Match::Exact(path.to_owned()), None),
        PathType::Prefix => (Match::Prefix(path.to_owned()), None),
        PathType::ImplementationSpecific if path == "/" => (Match::Prefix(path.to_owned()), None),
        PathType::ImplementationSpecific => (Match::Prefix(path.to_owned()), Some(GOES_ON)),
    })
}

/// A path that has to be one as it stands.
fn checked(path: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if !path.starts_with('/') || !path.bytes().all(legal) || path.contains("//") {
        return Err(format!("{path:?} is not a path that a request can have"));
    }
    Ok(())
}

/// A path of a host whose paths are expressions.
fn expression(path: &str, kind: PathType, mixed: bool) -> Result<(Match, Option<&'static str>), String> {
    if path == "/" {
        return Ok((Match::Prefix(path.to_owned()), None));
    }
    match literal(path).filter(|_| !mixed) {
        Some(text) if text.starts_with('/') => {
            checked(&text)?;
            Ok(match kind {
                PathType::Exact => (Match::Exact(text), Some(EXACT)),
                _ => (Match::Prefix(text), Some(BEGINS)),
            })
        }
        _ => {
            let whole = path.strip_prefix('^').unwrap_or(path);
            let open = whole.ends_with('$') && !whole.ends_with("\\$");
            let body = if open { whole.strip_suffix('$').unwrap_or(whole) } else { whole };
            let rest = if open || body.ends_with(".*") || body.ends_with(".*)") { "" } else { ".*" };
            let text = format!("(?i){body}{rest}");
            match Pattern::new(&text) {
                Ok(_) => Ok((Match::Expression(text), None)),
                Err(_) => {
                    Err("it is not an expression in RE2 syntax, which has no look-around and no back-references".into())
                }
            }
        }
    }
}

/// A pattern of the AWS Load Balancer Controller: `*` and `?`, for the whole path.
fn wildcards(path: &str) -> Result<(Match, Option<&'static str>), String> {
    if let Some(prefix) = path.strip_suffix("/*").filter(|prefix| !prefix.contains(['*', '?'])) {
        let text = if prefix.is_empty() { "/" } else { prefix };
        checked(text)?;
        return Ok((Match::Prefix(text.to_owned()), (!prefix.is_empty()).then_some(ITSELF)));
    }
    if !path.contains(['*', '?']) {
        checked(path)?;
        return Ok((Match::Exact(path.to_owned()), None));
    }
    let escape = |c: char| match c {
        '*' => ".*".to_owned(),
        '?' => ".".to_owned(),
        c if c.is_ascii_alphanumeric() || "-/_~%@:,;=&'!".contains(c) => c.to_string(),
        c => format!("\\{c}"),
    };
    let text: String = path.chars().map(escape).collect();
    Pattern::new(&text).map(|_| (Match::Expression(text), None)).map_err(|why| why.to_string())
}

/// The text of an expression that means nothing but itself. A dot stands for itself too: hardly anybody means another.
fn literal(expression: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = expression.strip_prefix('^').unwrap_or(expression).chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(char::is_ascii_punctuation)?),
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// What is captured after a prefix.
struct Tail {
    /// How an expression ends.
    text: &'static str,
    /// Its number, as a rewrite names it.
    group: char,
    /// Whether what is captured begins with the slash.
    slash: bool,
    differs: Option<&'static str>,
}

const TAILS: [Tail; 12] = [
    Tail { text: "(/|$)(.*)", group: '2', slash: false, differs: None },
    Tail { text: "(/|$)(.+)", group: '2', slash: false, differs: None },
    Tail { text: "(/(.*))?", group: '2', slash: false, differs: None },
    Tail { text: "(/.*)?", group: '1', slash: true, differs: None },
    Tail { text: "(/.*|$)", group: '1', slash: true, differs: None },
    Tail { text: "($|/.*)", group: '1', slash: true, differs: None },
    Tail { text: "(|/.*)", group: '1', slash: true, differs: None },
    Tail { text: "/?(.*)", group: '1', slash: false, differs: Some(GOES_ON) },
    Tail { text: "(/.*)", group: '1', slash: true, differs: Some(ITSELF) },
    Tail { text: "/(.*)", group: '1', slash: false, differs: Some(ITSELF) },
    Tail { text: "/(.+)", group: '1', slash: false, differs: Some(ITSELF) },
    Tail { text: "(.*)", group: '1', slash: true, differs: Some(GOES_ON) },
];

fn rewritten(path: &str, kind: PathType, rewrite: &Rewrite, reading: Reading<'_>) -> Result<Plan, String> {
    let target = rewrite.target.as_str();
    if target.contains("://") {
        return Err("it rewrites to an address, which is a redirect".to_owned());
    }
    if !target.contains('$') {
        let (matched, differs) = matched(path, kind, reading)?;
        checked(target)?;
        // With the same text there is nothing to do, and the path is kept.
        let change = (target != path).then(|| Change::Full(target.to_owned()));
        return Ok(Plan { matched, change, differs });
    }
    let pattern = rewrite.pattern.as_deref().unwrap_or(path);
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = pattern.strip_suffix("(.*)$").map_or(pattern.to_owned(), |rest| format!("{rest}(.*)"));
    if let Some(plan) = unchanged(&pattern, target).filter(|_| rewrite.pattern.is_none()) {
        return plan;
    }
    let cannot =
        || format!("no rewrite of a prefix or of a whole path can make {target:?} of what {pattern:?} captures");
    let (prefix, tail) =
        TAILS.iter().find_map(|tail| Some((literal(pattern.strip_suffix(tail.text)?)?, tail))).ok_or_else(cannot)?;
    let onto =
        target.strip_suffix(&format!("${}", tail.group)).filter(|onto| !onto.contains('$')).ok_or_else(cannot)?;
    let onto = match (tail.slash, onto.strip_suffix('/')) {
        // What is captured has no slash of its own, so the target has to bring one.
        (false, Some(onto)) => onto,
        (true, None) => onto,
        (true, Some(onto)) if prefix.ends_with('/') => onto,
        _ => return Err(cannot()),
    };
    let prefix = prefix.strip_suffix('/').unwrap_or(&prefix);
    let (prefix, onto) = (or_root(prefix), or_root(onto));
    checked(&prefix)?;
    checked(&onto)?;
    if rewrite.pattern.is_some() {
        return of_rule(path, kind, (&prefix, &onto));
    }
    let change = (prefix != onto).then_some(Change::Prefix(onto));
    let differs = tail.differs.filter(|_| prefix != "/");
    Ok(Plan { matched: Match::Prefix(prefix), change, differs })
}

fn or_root(prefix: &str) -> String {
    if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() }
}

/// A rewrite that puts everything back that it has captured.
fn unchanged(pattern: &str, target: &str) -> Option<Result<Plan, String>> {
    let inner = match target {
        "/$1" => pattern.strip_prefix("/(")?.strip_suffix(')').map(|inner| format!("/{inner}"))?,
        "$1" => pattern.strip_prefix('(')?.strip_suffix(')')?.to_owned(),
        _ => return None,
    };
    let text = literal(inner.strip_suffix(".*")?)?;
    let path = or_root(text.strip_suffix('/').unwrap_or(&text));
    let differs = if text.ends_with('/') { (path != "/").then_some(ITSELF) } else { Some(GOES_ON) };
    Some(checked(&path).map(|()| Plan { matched: Match::Prefix(path), change: None, differs }))
}

/// A rewrite with a pattern of its own, on a rule with a path of its own.
fn of_rule(path: &str, kind: PathType, (prefix, onto): (&str, &str)) -> Result<Plan, String> {
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
    let below = path == prefix || prefix == "/" || path.starts_with(&format!("{prefix}/"));
    if kind == PathType::Exact || !below {
        return Err(format!("it rewrites {prefix:?}, and the rule is for {path:?}"));
    }
    let rest = if prefix == "/" { path } else { path.strip_prefix(prefix).unwrap_or_default() };
    let joined = format!("{}{}", onto.trim_end_matches('/'), rest.trim_end_matches('/'));
    let onto = or_root(&joined);
    let change = (onto != path).then_some(Change::Prefix(onto));
    Ok(Plan { matched: Match::Prefix(path.to_owned()), change, differs: None })
}

#[cfg(test)]
#[path = "tests/path.rs"]
mod tests;
