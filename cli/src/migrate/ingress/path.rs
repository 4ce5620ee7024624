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

const BEGINS: &str = "there it also matched paths that go on without a slash, and in any case of letters; here whole segments as written";
const GOES_ON: &str = "there it also matched paths that go on without a slash; here whole segments";
const ITSELF: &str = "here it also matches the path without its last slash";
const EXACT: &str =
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
mod tests {
    use super::*;

    fn read(path: &str, kind: PathType, target: Option<&str>) -> Result<(Match, Option<Change>, bool), String> {
        let rewrite = target.map(|target| Rewrite { pattern: None, target: target.into() });
        let reading = Reading {
            controller: Controller::Nginx,
            expressions: rewrite.is_some(),
            mixed: false,
            rewrite: rewrite.as_ref(),
        };
        plan(path, kind, reading).map(|plan| (plan.matched, plan.change, plan.differs.is_some()))
    }

    fn prefix(path: &str) -> Match {
        Match::Prefix(path.into())
    }

    #[test]
    fn without_expressions_a_path_is_what_its_type_says() {
        use PathType::{Exact, ImplementationSpecific, Prefix};
        assert_eq!(read("/a", Exact, None), Ok((Match::Exact("/a".into()), None, false)));
        assert_eq!(read("/a/", Prefix, None), Ok((prefix("/a/"), None, false)));
        assert_eq!(read("/a", ImplementationSpecific, None), Ok((prefix("/a"), None, true)));
        assert_eq!(read("/", ImplementationSpecific, None), Ok((prefix("/"), None, false)));
        assert_eq!(read("", Prefix, None), Ok((prefix("/"), None, false)));
        assert!(read("a", Prefix, None).is_err());
        assert!(read("/a//b", Prefix, None).is_err());
    }

    #[test]
    fn what_a_rewrite_captures_and_puts_back_is_a_prefix() {
        let onto = |path: &str| Some(Change::Prefix(path.into()));
        for (path, target, matched, change, differs) in [
            ("/api(/|$)(.*)", "/$2", "/api", onto("/"), false),
            ("/api(/|$)(.*)$", "/$2", "/api", onto("/"), false),
            ("^/api(/|$)(.*)", "/v1/$2", "/api", onto("/v1"), false),
            ("/a/b(/(.*))?", "/c/$2", "/a/b", onto("/c"), false),
            ("/api(/.*)?", "$1", "/api", onto("/"), false),
            ("/api(/.*)?", "/v1$1", "/api", onto("/v1"), false),
            ("/api/(.*)", "/$1", "/api", onto("/"), true),
            ("/api/(.*)", "/v1/$1", "/api", onto("/v1"), true),
            ("/api/?(.*)", "/$1", "/api", onto("/"), true),
            ("/api(.*)", "/v1$1", "/api", onto("/v1"), true),
            ("/v1\\.0/(.*)", "/$1", "/v1.0", onto("/"), true),
            ("/(.*)", "/app/$1", "/", onto("/app"), false),
            ("/(.*)", "/$1", "/", None, false),
            ("/(api/.*)", "/$1", "/api", None, true),
            ("(/api.*)", "$1", "/api", None, true),
        ] {
            let expected = Ok((prefix(matched), change, differs));
            assert_eq!(read(path, PathType::ImplementationSpecific, Some(target)), expected, "{path} {target}");
        }
    }

    #[test]
    fn a_rewrite_without_a_capture_replaces_the_whole_path() {
        let full = |path: &str| Some(Change::Full(path.into()));
        assert_eq!(read("/a", PathType::Prefix, Some("/")), Ok((prefix("/a"), full("/"), true)));
        assert_eq!(read("/", PathType::Prefix, Some("/x")), Ok((prefix("/"), full("/x"), false)));
        assert_eq!(read("/", PathType::Prefix, Some("/")), Ok((prefix("/"), None, false)));
    }

    #[test]
    fn what_no_rewrite_can_say_is_an_error() {
        for (path, target) in [
            ("/a/([0-9]+)/(.*)", "/$2/$1"),
            ("/api(/|$)(.*)", "$2"),
            ("/api(/|$)(.*)", "/$1"),
            ("/api/(.*)", "/v1$1"),
            ("/[ab](/|$)(.*)", "/$2"),
            ("/a(/|$)(.*)", "/$2?x=$2"),
            ("/a(/|$)(.*)", "https://b.com/$2"),
        ] {
            assert!(read(path, PathType::ImplementationSpecific, Some(target)).is_err(), "{path} {target}");
        }
    }

    #[test]
    fn a_path_whose_rewrite_cannot_be_said_is_refused() {
        let rewrite = Rewrite { pattern: None, target: "/$2/$1".into() };
        let reading =
            Reading { controller: Controller::Nginx, expressions: true, mixed: false, rewrite: Some(&rewrite) };
        let (plan, why) = plan_or_refuse("/a/([0-9]+)/(.*)", PathType::Prefix, reading).unwrap();
        assert_eq!(plan.matched, Match::Expression("(?i)/a/([0-9]+)/(.*)".into()));
        assert!(plan.change == Some(Change::Refused) && why.is_some());
        assert!(plan_or_refuse("/a(?!b)/(.*)", PathType::Prefix, reading).is_err());
    }

    #[test]
    fn expressions_stay_expressions_and_take_the_others_with_them() {
        let reading = |mixed| Reading { controller: Controller::Nginx, expressions: true, mixed, rewrite: None };
        let read = |path: &str, mixed| plan(path, PathType::Prefix, reading(mixed)).map(|plan| plan.matched);
        let expression = |text: &str| Ok(Match::Expression(text.into()));
        assert_eq!(read("/[a-z]+/x", false), expression("(?i)/[a-z]+/x.*"));
        assert_eq!(read("/a/[0-9]+$", false), expression("(?i)/a/[0-9]+"));
        assert_eq!(read("^/a/.*", false), expression("(?i)/a/.*"));
        assert_eq!(read("/a", false), Ok(prefix("/a")));
        assert_eq!(read("/a", true), expression("(?i)/a.*"));
        assert_eq!(read("/", true), Ok(prefix("/")));
        assert!(read("/a(?!b)", false).unwrap_err().contains("look-around"));
    }

    #[test]
    fn patterns_of_a_load_balancer_are_for_the_whole_path() {
        let reading = Reading { controller: Controller::Alb, expressions: false, mixed: false, rewrite: None };
        let read = |path: &str| plan(path, PathType::ImplementationSpecific, reading).map(|plan| plan.matched);
        assert_eq!(read("/*"), Ok(prefix("/")));
        assert_eq!(read("/a/*"), Ok(prefix("/a")));
        assert_eq!(read("/a"), Ok(Match::Exact("/a".into())));
        assert_eq!(read("/a/*/b.?"), Ok(Match::Expression("/a/.*/b\\..".into())));
    }

    #[test]
    fn a_rewrite_with_a_pattern_of_its_own_has_to_fit_the_rule() {
        let read = |path: &str, pattern: &str, target: &str| {
            let rewrite = Rewrite { pattern: Some(pattern.into()), target: target.into() };
            let reading = Reading {
                controller: Controller::HaproxyTech,
                expressions: false,
                mixed: false,
                rewrite: Some(&rewrite),
            };
            plan(path, PathType::Prefix, reading).map(|plan| (plan.matched, plan.change))
        };
        let onto = |path: &str| Some(Change::Prefix(path.into()));
        assert_eq!(read("/foo", "/foo/(.*)", "/$1"), Ok((prefix("/foo"), onto("/"))));
        assert_eq!(read("/foo/bar", "/foo/(.*)", "/$1"), Ok((prefix("/foo/bar"), onto("/bar"))));
        assert_eq!(read("/bar", "(.*)", "/foo$1"), Ok((prefix("/bar"), onto("/foo/bar"))));
        assert!(read("/bar", "/foo/(.*)", "/$1").is_err());
    }
}
