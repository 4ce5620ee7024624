//! Small texts in routes: hostnames, headers, durations.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use weft_core::ids::RouteKind;
use weft_core::route::{HostnameMatch, Parent};

use super::{RouteView, RuleContext};
use crate::translate::Problem;

/// Headers that frame a message or a connection: changing them would let one request be read as two.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// A DNS name of RFC 1123, lower case, not an address.
pub(super) fn is_dns_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label) && text.parse::<std::net::IpAddr>().is_err()
}

/// `Hostname`: a name, or one after `*.`.
pub(crate) fn hostname(text: &str) -> Option<HostnameMatch> {
    match text.strip_prefix("*.") {
        Some(suffix) => is_dns_name(suffix).then(|| HostnameMatch::Suffix(suffix.to_owned())),
        None => is_dns_name(text).then(|| HostnameMatch::Exact(text.to_owned())),
    }
}

fn hostname_problem(i: usize, text: &str) -> Problem {
    Problem::value(
        format!("spec.hostnames[{i}]"),
        format!("{text:?} is not a hostname"),
        "use a lower-case DNS name, or one whose first label is *; no port, no address",
    )
}

/// What is wrong with the hostnames of an HTTPRoute or GRPCRoute: such a name counts for nothing. Those of a TLSRoute are
/// handled with its rules.
pub(super) fn hostname_problems(view: &RouteView<'_>) -> Vec<Problem> {
    if view.key.kind == RouteKind::Tls {
        return Vec::new();
    }
    let wrong = view.hostnames.iter().enumerate().filter(|(_, text)| hostname(text).is_none());
    wrong.map(|(i, text)| hostname_problem(i, text)).collect()
}

/// The hostnames of an HTTPRoute or GRPCRoute, for its rules: those that can be read; none without a listener, because at
/// a Service they have no meaning.
pub(super) fn hostnames(ctx: &RuleContext<'_>) -> Vec<HostnameMatch> {
    let at_listener = ctx.parents.iter().any(|parent| matches!(parent, Parent::Listener(_)));
    let texts = if at_listener { ctx.view.hostnames } else { &[] };
    texts.iter().filter_map(|text| hostname(text)).collect()
}

/// The SNI names of a TLSRoute.
pub(super) fn sni_names(view: &RouteView<'_>, problems: &mut Vec<Problem>) -> Vec<HostnameMatch> {
    let mut names = Vec::new();
    for (i, text) in view.hostnames.iter().enumerate() {
        match hostname(text) {
            Some(name) => names.push(name),
            None => problems.push(hostname_problem(i, text)),
        }
    }
    names
}

/// A header name that a match may use.
pub(super) fn header_name(field: &str, text: &str) -> Result<HeaderName, Problem> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Problem::value(field, format!("{text:?} is not a header name"), "use letters, digits and dashes"))
}

/// A header name that a filter may change.
pub(super) fn mutable_header(field: &str, text: &str) -> Result<HeaderName, Problem> {
    let name = header_name(field, text)?;
    if FRAMING.contains(&name.as_str()) {
        let message = format!("{text:?} frames the message and can't be changed");
        return Err(Problem::value(field, message, "remove it from the filter"));
    }
    Ok(name)
}

/// A header value.
pub(super) fn header_value(field: &str, text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text)
        .map_err(|_| Problem::value(field, format!("{text:?} is not a header value"), "use visible characters"))
}

/// A duration of GEP-2257: `1h`, `1m30s`, `500ms`; each unit at most once, at most five digits.
pub(crate) fn duration(field: &str, text: &str) -> Result<Duration, Problem> {
    parse_duration(text)
        .ok_or_else(|| Problem::value(field, format!("{text:?} is not a duration"), "write it as 10s, 1m30s or 500ms"))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(unit)?;
        let number: u64 = (1..=5).contains(&digits).then(|| number.parse().ok())??;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = tail;
        parts += 1;
    }
    (1..=4).contains(&parts).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gep_2257() {
        for (text, want) in [
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("", None),
            ("10", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("123456s", None),
            ("s", None),
            ("1h1h1h1h1h", None),
        ] {
            assert_eq!(parse_duration(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn hostnames_are_names_with_at_most_a_leading_wildcard() {
        for ok in ["a", "shop.example.com", "*.example.com", "a-b.c"] {
            assert!(hostname(ok).is_some(), "{ok}");
        }
        for bad in ["", "*", "*.", "a.*.b", "*a.b", "A.b", "a.b:80", "10.0.0.1", "a..b", "-a", "a_b", "*.10.0.0.1"] {
            assert!(hostname(bad).is_none(), "{bad}");
        }
    }
}
