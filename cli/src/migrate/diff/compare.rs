//! What differs between two answers, as values.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, HeaderName, header};
use serde::Serialize;

use super::client::{Answer, Outcome};

/// Headers that differ from one answer to the next, or say how it was carried and by whom.
const PASSED_OVER: [&str; 17] = [
    "age",
    "alt-svc",
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "server",
    "server-timing",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "via",
    "x-envoy-upstream-service-time",
    "x-request-id",
    "x-runtime",
    "x-correlation-id",
];

/// Headers that may differ.
#[derive(Clone, Debug)]
pub struct Ignored(BTreeSet<String>);

impl Ignored {
    /// Those that always may, with some more and without others.
    pub fn new(more: &[HeaderName], compared: &[HeaderName]) -> Self {
        let mut names: BTreeSet<String> = PASSED_OVER.iter().map(|name| (*name).to_owned()).collect();
        names.extend(more.iter().map(|name| name.as_str().to_owned()));
        compared.iter().for_each(|name| {
            names.remove(name.as_str());
        });
        Self(names)
    }
}

/// One thing that isn't the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `answer`, `status`, `header NAME`, `cookie NAME`, `body`, and of certificates `names` and so on.
    pub what: String,
    /// `None`: it isn't there.
    pub old: Option<String>,
    pub new: Option<String>,
}

impl Difference {
    /// The difference between two texts, if there is one.
    pub fn between(what: impl Into<String>, old: Option<String>, new: Option<String>) -> Option<Self> {
        (old != new).then(|| Self { what: what.into(), old, new })
    }
}

/// Compares two outcomes. Where neither door answers there is nothing to compare, which is a difference from what was hoped.
pub fn compare(old: &Outcome, new: &Outcome, (ignored, bodies): (&Ignored, bool)) -> Vec<Difference> {
    let (was, is) = match (&old.answer, &new.answer) {
        (Ok(was), Ok(is)) => (was, is),
        (was, is) => {
            let text = |answer: &Result<Answer, String>| match answer {
                Ok(answer) => answer.status.to_string(),
                Err(why) => format!("none: {why}"),
            };
            return vec![Difference { what: "answer".to_owned(), old: Some(text(was)), new: Some(text(is)) }];
        }
    };
    let status = |answer: &Answer| Some(answer.status.as_u16().to_string());
    let mut found: Vec<_> = Difference::between("status", status(was), status(is)).into_iter().collect();
    found.extend(headers(&was.headers, &is.headers, ignored));
    if bodies {
        let body = |answer: &Answer| Some(format!("{} bytes, sha256:{}", answer.length, answer.hash));
        found.extend(Difference::between("body", body(was), body(is)));
    }
    found
}

fn headers(old: &HeaderMap, new: &HeaderMap, ignored: &Ignored) -> Vec<Difference> {
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).map(HeaderName::as_str).collect();
    let compared = names.into_iter().filter(|name| !ignored.0.contains(*name));
    let mut found = Vec::new();
    for name in compared {
        if name == header::SET_COOKIE.as_str() {
            found.extend(cookies(old, new));
            continue;
        }
        found.extend(Difference::between(format!("header {name}"), joined(old, name), joined(new, name)));
    }
    found
}

/// Lines of one name are a list (RFC 9110, section 5.3), and blanks around its commas mean nothing.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let lines: Vec<_> = lines.map(|line| line.split(',').map(str::trim).collect::<Vec<_>>().join(", ")).collect();
    headers.contains_key(name).then(|| lines.join(", "))
}

/// Cookies by their names and attributes: values and times are of each answer alone.
fn cookies(old: &HeaderMap, new: &HeaderMap) -> Vec<Difference> {
    let read = |headers: &HeaderMap| -> BTreeMap<String, String> {
        let lines = headers.get_all(header::SET_COOKIE).iter();
        lines.filter_map(|line| cookie(&String::from_utf8_lossy(line.as_bytes()))).collect()
    };
    let (old, new) = (read(old), read(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            Difference::between(format!("cookie {name}"), old.get(name).cloned(), new.get(name).cloned())
        })
        .collect()
}

/// The name of a cookie and its attributes in their order, names in lower case, `Expires` without its time.
fn cookie(line: &str) -> Option<(String, String)> {
    let mut parts = line.split(';').map(str::trim);
    let (name, _) = parts.next()?.split_once('=')?;
    let mut attributes: Vec<String> = parts
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((name, _)) if name.eq_ignore_ascii_case("expires") => "expires".to_owned(),
            Some((name, value)) => format!("{}={value}", name.to_ascii_lowercase()),
            None => part.to_ascii_lowercase(),
        })
        .collect();
    attributes.sort();
    let text = if attributes.is_empty() { "no attributes".to_owned() } else { attributes.join("; ") };
    Some((name.to_owned(), text))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    fn outcome(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Outcome {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: map, length: body.len(), hash: body.to_owned() };
        Outcome { answer: Ok(answer), chain: Vec::new() }
    }

    fn found(old: &Outcome, new: &Outcome, bodies: bool) -> Vec<String> {
        let ignored = Ignored::new(&[HeaderName::from_static("x-mine")], &[HeaderName::from_static("via")]);
        compare(old, new, (&ignored, bodies)).into_iter().map(|difference| difference.what).collect()
    }

    #[test]
    fn statuses_headers_and_bodies_are_compared_and_what_always_differs_is_not() {
        let old = outcome(200, &[("date", "a"), ("server", "nginx"), ("x-a", "1, 2"), ("x-mine", "1")], "one");
        assert!(found(&old, &outcome(200, &[("date", "b"), ("x-a", "1"), ("x-a", "2")], "two"), false).is_empty());
        let new = outcome(404, &[("x-b", "1"), ("via", "x")], "one");
        assert_eq!(found(&old, &new, true), ["status", "header via", "header x-a", "header x-b"]);
        assert_eq!(found(&old, &outcome(200, &[("x-a", "1,2")], "two"), true), ["body"]);
    }

    #[test]
    fn cookies_are_compared_by_name_and_attributes() {
        let old = outcome(
            200,
            &[("set-cookie", "a=1; Path=/; Expires=Thu, 01 Jan 2026 00:00:00 GMT"), ("set-cookie", "b=1")],
            "",
        );
        let same = outcome(200, &[("set-cookie", "b=2"), ("set-cookie", "a=x; expires=never; path=/")], "");
        assert!(found(&old, &same, false).is_empty());
        let other = outcome(200, &[("set-cookie", "a=1; Path=/; Secure; Expires=x"), ("set-cookie", "c=1")], "");
        assert_eq!(found(&old, &other, false), ["cookie a", "cookie b", "cookie c"]);
    }

    #[test]
    fn a_door_that_does_not_answer_differs_also_if_the_other_does_not_either() {
        let silent = Outcome { answer: Err("refused".into()), chain: Vec::new() };
        assert_eq!(found(&silent, &outcome(200, &[], ""), false), ["answer"]);
        assert_eq!(found(&silent, &silent, false), ["answer"]);
    }
}
