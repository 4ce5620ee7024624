//! Filters of rules and backends.

use std::num::NonZeroU32;

use http::{HeaderName, StatusCode};
use weft_core::ids::{Port, RouteKind};
use weft_core::route::{
    Cors, Fraction, HeaderModifier, HttpFilter, Mirror, OriginMatch, PathModifier, Redirect, RedirectScheme, Rewrite,
};

use super::external_auth::external_auth;
use super::text::{header_value, is_dns_name, mutable_header};
use super::{RuleContext, backend};
use crate::object::route::{CorsFilter, Filter, HeaderFilter, MirrorFilter, PathModifier as PathSpec, RedirectFilter};
use crate::translate::{Problem, Reason, suggestion};

const HTTP_FILTERS: [&str; 7] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "CORS",
    "ExternalAuth",
];
const GRPC_FILTERS: [&str; 3] = ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"];
const REDIRECT_CODES: [u16; 5] = [301, 302, 303, 307, 308];
/// `maxAge` if the filter does not say.
const DEFAULT_MAX_AGE: u32 = 5;

/// The filters of a rule or backend.
#[derive(Default)]
pub(super) struct Filters {
    pub list: Vec<HttpFilter>,
    pub redirect: Option<Redirect>,
}

/// Where filters stand.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The field that holds the list.
    pub field: &'a str,
    /// Whether the rule has exactly one match and that is a path prefix: what `ReplacePrefixMatch` needs.
    pub one_prefix: bool,
    /// Whether it is a backend's list, where a redirect has no meaning.
    pub of_backend: bool,
}

/// Translates a list of filters. Broken references are problems but keep the filter; any other error gives none,
/// because a request must not go on as if the filter were not there.
pub(super) fn filters(
    ctx: &RuleContext<'_>,
    place: Place<'_>,
    list: &[Filter],
    problems: &mut Vec<Problem>,
) -> Filters {
    let mut made = Filters::default();
    for (i, filter) in list.iter().enumerate() {
        let field = format!("{}[{i}]", place.field);
        if let Err(problem) = one(ctx, place, &field, filter, (&mut made, problems)) {
            problems.push(problem);
        }
    }
    if let Some(problem) = incompatible(place.field, list) {
        problems.push(problem);
    }
    made
}

fn one(
    ctx: &RuleContext<'_>,
    place: Place<'_>,
    field: &str,
    filter: &Filter,
    (made, problems): (&mut Filters, &mut Vec<Problem>),
) -> Result<(), Problem> {
    let known: &[&str] = if ctx.view.key.kind == RouteKind::Grpc { &GRPC_FILTERS } else { &HTTP_FILTERS };
    let kind = filter.kind.as_str();
    if !known.contains(&kind) {
        let message = match kind {
            "ExtensionRef" => format!("filters of type {kind} are not supported"),
            _ => format!("{kind:?} is not a type of filter in {}", ctx.view.key.kind.as_str()),
        };
        return Err(Problem::value(format!("{field}.type"), message, suggestion(kind, known)));
    }
    check_union(field, filter)?;
    let missing = |name: &str| {
        Problem::value(format!("{field}.{name}"), format!("is missing for a filter of type {kind}"), "add it")
    };
    match kind {
        "RequestHeaderModifier" => {
            let spec = filter.request_header_modifier.as_ref().ok_or_else(|| missing("requestHeaderModifier"))?;
            made.list.push(HttpFilter::RequestHeaders(headers(&format!("{field}.requestHeaderModifier"), spec)?));
        }
        "ResponseHeaderModifier" => {
            let spec = filter.response_header_modifier.as_ref().ok_or_else(|| missing("responseHeaderModifier"))?;
            made.list.push(HttpFilter::ResponseHeaders(headers(&format!("{field}.responseHeaderModifier"), spec)?));
        }
        "RequestMirror" => {
            let spec = filter.request_mirror.as_ref().ok_or_else(|| missing("requestMirror"))?;
            made.list.push(HttpFilter::Mirror(mirror(ctx, &format!("{field}.requestMirror"), spec, problems)?));
        }
        "RequestRedirect" => {
            let spec = filter.request_redirect.as_ref().ok_or_else(|| missing("requestRedirect"))?;
            if place.of_backend {
                let remedy = "move it to the rule's filters";
                return Err(Problem::value(format!("{field}.type"), "a backend can't redirect", remedy));
            }
            made.redirect = Some(redirect(place, &format!("{field}.requestRedirect"), spec)?);
        }
        "URLRewrite" => {
            let spec = filter.url_rewrite.as_ref().ok_or_else(|| missing("urlRewrite"))?;
            let field = format!("{field}.urlRewrite");
            let hostname = spec.hostname.as_deref().map(|h| {
                check_hostname(&format!("{field}.hostname"), h)?;
                header_value(&format!("{field}.hostname"), h)
            });
            let path = spec.path.as_ref().map(|p| path(place, &format!("{field}.path"), p)).transpose()?;
            made.list.push(HttpFilter::Rewrite(Rewrite { hostname: hostname.transpose()?, path }));
        }
        "ExternalAuth" => {
            let spec = filter.external_auth.as_ref().ok_or_else(|| missing("externalAuth"))?;
            let auth = external_auth(ctx, &format!("{field}.externalAuth"), spec, problems)?;
            made.list.push(HttpFilter::ExternalAuth(auth));
        }
        _ => {
            let spec = filter.cors.as_ref().ok_or_else(|| missing("cors"))?;
            made.list.push(HttpFilter::Cors(cors(&format!("{field}.cors"), spec)?));
        }
    }
    Ok(())
}

/// Only the field that belongs to the type may be set.
fn check_union(field: &str, f: &Filter) -> Result<(), Problem> {
    let set = [
        ("requestHeaderModifier", "RequestHeaderModifier", f.request_header_modifier.is_some()),
        ("responseHeaderModifier", "ResponseHeaderModifier", f.response_header_modifier.is_some()),
        ("requestMirror", "RequestMirror", f.request_mirror.is_some()),
        ("requestRedirect", "RequestRedirect", f.request_redirect.is_some()),
        ("urlRewrite", "URLRewrite", f.url_rewrite.is_some()),
        ("cors", "CORS", f.cors.is_some()),
        ("externalAuth", "ExternalAuth", f.external_auth.is_some()),
        ("extensionRef", "ExtensionRef", f.extension_ref.is_some()),
    ];
    match set.iter().find(|(_, kind, is_set)| *is_set && *kind != f.kind) {
        None => Ok(()),
        Some((name, kind, _)) => Err(Problem::value(
            format!("{field}.{name}"),
            format!("is set in a filter of type {}", f.kind),
            format!("make it a filter of its own with type {kind}"),
        )),
    }
}

/// Filters that exclude each other or that a list may have once.
fn incompatible(field: &str, list: &[Filter]) -> Option<Problem> {
    let problem =
        |message: String, remedy: &str| Some(Problem::new(field, Reason::IncompatibleFilters, message, remedy));
    let count = |kind: &str| list.iter().filter(|f| f.kind == kind).count();
    if let Some(kind) = HTTP_FILTERS.iter().find(|k| **k != "RequestMirror" && count(k) > 1) {
        return problem(format!("{kind} is there more than once"), "merge them into one filter");
    }
    if count("RequestRedirect") > 0 && count("URLRewrite") > 0 {
        return problem("RequestRedirect and URLRewrite exclude each other".into(), "keep one of them");
    }
    if count("RequestRedirect") > 0 && count("ExternalAuth") > 0 {
        let remedy = "redirect in a rule of its own, without asking, or ask where the redirect leads";
        return problem("nobody can be asked about a RequestRedirect by ExternalAuth".into(), remedy);
    }
    let rewrites_host = list.iter().filter_map(|f| f.url_rewrite.as_ref()).any(|r| r.hostname.is_some());
    let is_host = |name: &str| name.eq_ignore_ascii_case("host");
    let modifies_host = list.iter().filter_map(|f| f.request_header_modifier.as_ref()).any(|h| {
        let written = h.set.iter().flatten().chain(h.add.iter().flatten()).any(|h| is_host(&h.name));
        written || h.remove.iter().flatten().any(|n| is_host(n))
    });
    if rewrites_host && modifies_host {
        let message = "the Host header is changed by URLRewrite.hostname and by RequestHeaderModifier".into();
        return problem(message, "keep URLRewrite.hostname and remove Host from the header filter");
    }
    None
}

fn headers(field: &str, spec: &HeaderFilter) -> Result<HeaderModifier, Problem> {
    let mut made = HeaderModifier::default();
    let mut seen: Vec<HeaderName> = Vec::new();
    let mut once = |list: &str, i: usize, text: &str| {
        let field = format!("{field}.{list}[{i}].name");
        let name = mutable_header(&field, text)?;
        if seen.contains(&name) {
            let message = format!("{text:?} is there more than once: the result would depend on the order");
            return Err(Problem::value(field, message, "name each header once in a filter"));
        }
        seen.push(name.clone());
        Ok(name)
    };
    for (i, h) in spec.set.iter().flatten().enumerate() {
        made.set.push((once("set", i, &h.name)?, header_value(&format!("{field}.set[{i}].value"), &h.value)?));
    }
    for (i, h) in spec.add.iter().flatten().enumerate() {
        made.add.push((once("add", i, &h.name)?, header_value(&format!("{field}.add[{i}].value"), &h.value)?));
    }
    for (i, name) in spec.remove.iter().flatten().enumerate() {
        made.remove.push(once("remove", i, name)?);
    }
    Ok(made)
}

fn mirror(
    ctx: &RuleContext<'_>,
    field: &str,
    spec: &MirrorFilter,
    problems: &mut Vec<Problem>,
) -> Result<Mirror, Problem> {
    let wrong = |part: &str, what: &str, remedy: &str| Problem::value(format!("{field}.{part}"), what, remedy);
    let (numerator, denominator) = match (spec.percent, &spec.fraction) {
        (Some(_), Some(_)) => return Err(wrong("fraction", "is set together with percent", "keep one of them")),
        (None, None) => (100, 100),
        (Some(percent @ 0..=100), None) => (percent, 100),
        (Some(_), None) => return Err(wrong("percent", "is not a percentage", "use 0 to 100")),
        (None, Some(f)) => (f.numerator, f.denominator.unwrap_or(100)),
    };
    let share = || {
        let (numerator, denominator) = (u32::try_from(numerator).ok()?, u32::try_from(denominator).ok()?);
        let denominator = NonZeroU32::new(denominator).filter(|d| numerator <= d.get())?;
        Some(Fraction { numerator, denominator })
    };
    let fraction = share().ok_or_else(|| {
        wrong("fraction", "is not a share", "use a denominator of at least 1 and a numerator up to it")
    })?;
    let backend = backend::target(ctx, &format!("{field}.backendRef"), &spec.backend_ref, problems);
    Ok(Mirror { backend, fraction })
}

fn redirect(place: Place<'_>, field: &str, spec: &RedirectFilter) -> Result<Redirect, Problem> {
    let scheme = match spec.scheme.as_deref() {
        None => None,
        Some("http") => Some(RedirectScheme::Http),
        Some("https") => Some(RedirectScheme::Https),
        Some(other) => {
            let message = format!("{other:?} is not a scheme of a redirect");
            return Err(Problem::value(format!("{field}.scheme"), message, "use http or https"));
        }
    };
    if let Some(host) = &spec.hostname {
        check_hostname(&format!("{field}.hostname"), host)?;
    }
    let port =
        match spec.port {
            None => None,
            Some(n) => Some(u16::try_from(n).ok().and_then(Port::new).ok_or_else(|| {
                Problem::value(format!("{field}.port"), format!("{n} is not a port"), "use 1 to 65535")
            })?),
        };
    let code = spec.status_code.unwrap_or(302);
    let status =
        u16::try_from(code).ok().filter(|c| REDIRECT_CODES.contains(c)).and_then(|c| StatusCode::from_u16(c).ok());
    let status = status.ok_or_else(|| {
        let message = format!("{code} is not a status of a redirect");
        Problem::value(format!("{field}.statusCode"), message, "use 301, 302, 303, 307 or 308")
    })?;
    let path = spec.path.as_ref().map(|p| path(place, &format!("{field}.path"), p)).transpose()?;
    Ok(Redirect { scheme, hostname: spec.hostname.clone(), path, port, status })
}

fn check_hostname(field: &str, text: &str) -> Result<(), Problem> {
    if is_dns_name(text) {
        return Ok(());
    }
    let message = format!("{text:?} is not a hostname");
    Err(Problem::value(field, message, "use a lower-case DNS name without wildcard, port or address"))
}

fn path(place: Place<'_>, field: &str, spec: &PathSpec) -> Result<PathModifier, Problem> {
    let missing =
        |name: &str| Problem::value(format!("{field}.{name}"), format!("is missing for type {}", spec.kind), "add it");
    match (spec.kind.as_str(), &spec.replace_full_path, &spec.replace_prefix_match) {
        ("ReplaceFullPath", full, None) => {
            full.clone().map(PathModifier::Full).ok_or_else(|| missing("replaceFullPath"))
        }
        ("ReplacePrefixMatch", None, prefix) => {
            if !place.one_prefix {
                let message = "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix";
                return Err(Problem::value(format!("{field}.type"), message, "split the rule, or use ReplaceFullPath"));
            }
            prefix.clone().map(PathModifier::Prefix).ok_or_else(|| missing("replacePrefixMatch"))
        }
        ("ReplaceFullPath", _, Some(_)) => {
            Err(Problem::value(format!("{field}.replacePrefixMatch"), "is set for type ReplaceFullPath", "remove it"))
        }
        ("ReplacePrefixMatch", Some(_), _) => {
            Err(Problem::value(format!("{field}.replaceFullPath"), "is set for type ReplacePrefixMatch", "remove it"))
        }
        (other, _, _) => {
            let message = format!("{other:?} is not a type of path modifier");
            let remedy = suggestion(other, &["ReplaceFullPath", "ReplacePrefixMatch"]);
            Err(Problem::value(format!("{field}.type"), message, remedy))
        }
    }
}

fn cors(field: &str, spec: &CorsFilter) -> Result<Cors, Problem> {
    let alone = |name: &str, list: &Option<Vec<String>>| match list {
        Some(l) if l.len() > 1 && l.iter().any(|v| v == "*") => {
            Err(Problem::value(format!("{field}.{name}"), "has * next to other values", "keep either"))
        }
        other => Ok(other.clone().unwrap_or_default()),
    };
    let mut origins = Vec::new();
    for (i, text) in alone("allowOrigins", &spec.allow_origins)?.iter().enumerate() {
        origins.push(origin(text).ok_or_else(|| {
            let message = format!("{text:?} is not an origin");
            Problem::value(
                format!("{field}.allowOrigins[{i}]"),
                message,
                "write scheme://host[:port], with * for the first labels, or *",
            )
        })?);
    }
    let max_age = match spec.max_age {
        None => DEFAULT_MAX_AGE,
        Some(n) => u32::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
            Problem::value(format!("{field}.maxAge"), format!("{n} is not a number of seconds"), "use at least 1")
        })?,
    };
    Ok(Cors {
        allow_origins: origins,
        allow_credentials: spec.allow_credentials.unwrap_or(false),
        allow_methods: alone("allowMethods", &spec.allow_methods)?,
        allow_headers: alone("allowHeaders", &spec.allow_headers)?,
        expose_headers: spec.expose_headers.clone().unwrap_or_default(),
        max_age_seconds: max_age,
    })
}

fn origin(text: &str) -> Option<OriginMatch> {
    if text == "*" {
        return Some(OriginMatch::Any);
    }
    let text = text.to_ascii_lowercase();
    let (scheme, rest) = text.split_once("://").filter(|(s, _)| !s.is_empty())?;
    let host = match rest.rsplit_once(':') {
        Some((host, port)) => {
            port.parse::<u16>().ok().filter(|p| *p > 0)?;
            host
        }
        None => rest,
    };
    let legal = |h: &str| !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    match rest.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') && legal(host.trim_start_matches("*.")) => {
            Some(OriginMatch::Wildcard { scheme: scheme.to_owned(), suffix: suffix.to_owned() })
        }
        Some(_) => None,
        None => legal(host).then_some(OriginMatch::Exact(text)),
    }
}
