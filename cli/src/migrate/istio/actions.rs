//! What a rule of a VirtualService does besides sending somewhere: headers, rewrites, redirects, retries, time limits, CORS.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::matches::{Match, Path};
use super::requests::Said;

const VARIABLE: &str = "has variables of Envoy's in it";
const VARIABLE_REMEDY: &str = "set the header in the application";
/// Headers that frame a message, which no route may change.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// A time as Istio writes it (`10s`, `1.5s`, `1h30m`), as the Gateway API does (GEP-2257); `None` if it is none.
pub fn duration(text: &str) -> Option<String> {
    let (mut rest, mut total) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let scale = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "us" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    // Five digits of hours are the most that the Gateway API has.
    if text.is_empty() || total > 99_999.0 * 1000.0 {
        return None;
    }
    // What is less than a millisecond and not nothing would turn into "no limit".
    let total = if total > 0.0 { total.round().max(1.0) } else { 0.0 };
    let whole = format!("{total:.0}").parse::<u64>().ok()?;
    Some(match (whole / 1000, whole % 1000) {
        (0, 0) => "0s".to_owned(),
        (seconds, 0) => format!("{seconds}s"),
        (0, rest) => format!("{rest}ms"),
        (seconds, rest) => format!("{seconds}s{rest}ms"),
    })
}

/// A time in milliseconds, of one of [`duration`]'s texts.
fn milliseconds(text: &str) -> u128 {
    humantime::parse_duration(text).map_or(0, |it| it.as_millis())
}

/// A filter for headers from `set`, `add` and `remove`; `None` if nothing is left.
fn header_filter(mut fields: Fields, said: &mut Said) -> Option<Value> {
    let mut seen: Vec<String> = Vec::new();
    let mut made = Map::new();
    for list in ["set", "add"] {
        let field = fields.at(list);
        let mut kept = Vec::new();
        for (name, value) in fields.pairs(list) {
            let own = if name.eq_ignore_ascii_case(":authority") { "Host".to_owned() } else { name.clone() };
            let plain = value.replace("%%", "");
            if plain.contains('%') {
                said.left(format!("{field}[{name}]"), value, VARIABLE, VARIABLE_REMEDY);
            } else if let Some(own) = changeable(&own, list == "set", &mut seen) {
                kept.push(json!({ "name": own, "value": value.replace("%%", "%") }));
            } else {
                let why = "can't be changed by a route, or is changed twice";
                said.left(format!("{field}[{name}]"), value, why, VARIABLE_REMEDY);
            }
        }
        if !kept.is_empty() {
            made.insert(list.to_owned(), json!(kept));
        }
    }
    let field = fields.at("remove");
    let (kept, wrong): (Vec<_>, Vec<_>) =
        fields.texts("remove").into_iter().partition(|name| changeable(name, false, &mut seen).is_some());
    for name in wrong {
        said.left(field.clone(), name, "can't be changed by a route, or is changed twice", VARIABLE_REMEDY);
    }
    if !kept.is_empty() {
        made.insert("remove".to_owned(), json!(kept));
    }
    said.left.extend(fields.rest());
    (!made.is_empty()).then(|| Value::Object(made))
}

fn changeable(name: &str, is_set: bool, seen: &mut Vec<String>) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let legal = http::HeaderName::from_bytes(name.as_bytes()).is_ok() && !FRAMING.contains(&lower.as_str());
    if !legal || lower == "host" && !is_set || seen.contains(&lower) {
        return None;
    }
    seen.push(lower);
    Some(name.to_owned())
}

/// `headers` of a rule or of a destination.
pub fn headers(fields: Option<Fields>, said: &mut Said) -> Vec<Value> {
    let Some(mut fields) = fields else { return Vec::new() };
    let mut made = Vec::new();
    if let Some(filter) = fields.part("request").and_then(|it| header_filter(it, said)) {
        made.push(json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": filter }));
    }
    if let Some(filter) = fields.part("response").and_then(|it| header_filter(it, said)) {
        made.push(json!({ "type": "ResponseHeaderModifier", "responseHeaderModifier": filter }));
    }
    said.left.extend(fields.rest());
    made
}

/// `rewrite`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    pub field: String,
    pub uri: Option<String>,
    pub authority: Option<String>,
}

/// Reads `rewrite`. One that can't be done costs the whole VirtualService: backends would get other paths.
pub fn rewrite(mut fields: Fields, said: &mut Said) -> Rewrite {
    let made = Rewrite { field: fields.at("uri"), uri: fields.text("uri"), authority: fields.text("authority") };
    if let Some(uri) = made.uri.as_ref().filter(|it| !it.starts_with('/') || it.contains(['?', '#'])) {
        said.fatal(made.field.clone(), uri, "is not a path", "write the path alone");
    }
    let is_name = |host: &str| {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        !host.is_empty() && host.bytes().all(legal)
    };
    if let Some(host) = made.authority.as_ref().filter(|it| !is_name(it)) {
        said.fatal(fields.at("authority"), host, "is not a hostname", "write a name in lower case without a port");
    }
    for lost in fields.rest() {
        said.fatal(lost.field, lost.value, "paths are not rewritten by expressions", "rewrite in the application");
    }
    made
}

impl Rewrite {
    /// The filter for requests of a match.
    ///
    /// # Errors
    /// That the path of this match can't be rewritten.
    pub fn filter(&self, of: &Match, said: &mut Said) -> Option<Value> {
        let mut made = Map::new();
        if let Some(host) = &self.authority {
            made.insert("hostname".to_owned(), json!(host));
        }
        if let Some(uri) = &self.uri {
            let path = match (&of.base, &of.path) {
                (Path::Prefix(base), Path::Prefix(own)) => {
                    self.compare(base, uri, said);
                    let rest = own.strip_prefix(base.as_str()).unwrap_or_default();
                    let made = format!("{}{rest}", uri.trim_end_matches('/'));
                    json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": or_root(&made) })
                }
                (Path::Prefix(base), Path::Exact(own)) => {
                    let rest = own.strip_prefix(base.as_str()).unwrap_or_default();
                    let made = format!("{}{rest}", uri.trim_end_matches('/'));
                    json!({ "type": "ReplaceFullPath", "replaceFullPath": or_root(&made) })
                }
                (Path::Prefix(_), Path::Regex(source)) => {
                    let why = "a prefix can't be taken from a path that an expression matches";
                    said.fatal(self.field.clone(), source.as_str(), why, "write the match without an expression");
                    return None;
                }
                (Path::Exact(_) | Path::Regex(_), _) => json!({ "type": "ReplaceFullPath", "replaceFullPath": uri }),
            };
            made.insert("path".to_owned(), path);
        }
        (!made.is_empty()).then(|| json!({ "type": "URLRewrite", "urlRewrite": made }))
    }

    fn compare(&self, base: &str, uri: &str, said: &mut Said) {
        if base.is_empty() != (uri == "/") || uri.len() > 1 && uri.ends_with('/') {
            let how = "takes the place of whole segments: between it and the rest there is one slash";
            said.differs(self.field.clone(), uri, how);
        }
    }
}

fn or_root(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// `redirect`.
pub fn redirect(mut fields: Fields, said: &mut Said) -> Value {
    let mut made = Map::new();
    let (uri, host) = (fields.at("uri"), fields.at("authority"));
    if let Some(path) = fields.text("uri") {
        if path.contains(['%', '?', '#']) || !path.starts_with('/') {
            said.fatal(uri, path, "is not a path that a redirect can have", "redirect in the application");
        } else {
            made.insert("path".to_owned(), json!({ "type": "ReplaceFullPath", "replaceFullPath": path }));
        }
    }
    if let Some(authority) = fields.text("authority") {
        let (name, port) =
            authority.split_once(':').map_or((authority.as_str(), None), |(name, port)| (name, Some(port)));
        made.insert("hostname".to_owned(), json!(name));
        match port.map(str::parse::<u16>) {
            Some(Ok(port)) => drop(made.insert("port".to_owned(), json!(port))),
            Some(Err(_)) => said.fatal(host, authority, "is not a host", "write a name, or NAME:PORT"),
            None => {}
        }
    }
    if let Some(port) = fields.number("port") {
        made.insert("port".to_owned(), json!(port));
    }
    if let Some(scheme) = fields.text("scheme") {
        made.insert("scheme".to_owned(), json!(scheme));
    }
    let code = fields.at("redirectCode");
    let status = fields.number("redirectCode").unwrap_or(301);
    if ![301, 302, 303, 307, 308].contains(&status) {
        said.fatal(code, status.to_string(), "is not the status of a redirect", "use 301, 302, 303, 307 or 308");
    }
    made.insert("statusCode".to_owned(), json!(status));
    said.fatal.extend(fields.rest());
    json!({ "type": "RequestRedirect", "requestRedirect": made })
}

/// Statuses that a word of `retryOn` stands for; `None` for one that isn't about an answer's status.
fn codes(word: &str) -> Option<Vec<u64>> {
    match word {
        "5xx" => Some(vec![500, 502, 503, 504]),
        "gateway-error" => Some(vec![502, 503, 504]),
        "retriable-4xx" => Some(vec![409]),
        _ => word.parse().ok().filter(|code| (400..=599).contains(code)).map(|code| vec![code]),
    }
}

/// A time of a field, `None` if there is none or no limit.
fn time(field: String, text: &str, said: &mut Said) -> Option<String> {
    let read = duration(text);
    if read.is_none() {
        said.left(field, text, "is not a time here", "write it as 10s or 500ms, a day at most");
    }
    read.filter(|it| it != "0s")
}

/// `timeout` and `retries` as `timeouts` and `retry`.
pub fn limits(timeout: Option<(String, String)>, retries: Option<Fields>, said: &mut Said) -> Map<String, Value> {
    let (mut made, mut timeouts) = (Map::new(), Map::new());
    let whole = timeout.and_then(|(field, text)| time(field, &text, said));
    if let Some(mut fields) = retries {
        let per_try = fields.at("perTryTimeout");
        if let Some(text) = fields.text("perTryTimeout") {
            match (&whole, time(per_try.clone(), &text, said)) {
                (Some(whole), Some(one)) if milliseconds(&one) > milliseconds(whole) => {
                    said.differs(per_try, text, "is longer than the time for all tries, which is what counts");
                }
                (_, Some(one)) => drop(timeouts.insert("backendRequest".to_owned(), json!(one))),
                (_, None) => {}
            }
        }
        made.extend(retry(fields, said).map(|retry| ("retry".to_owned(), retry)));
    }
    if let Some(whole) = whole {
        timeouts.insert("request".to_owned(), json!(whole));
    }
    if !timeouts.is_empty() {
        made.insert("timeouts".to_owned(), Value::Object(timeouts));
    }
    made
}

/// `retries` without its time limit; `None` if nothing is to be tried again.
fn retry(mut fields: Fields, said: &mut Said) -> Option<Value> {
    let attempts = fields.number("attempts").unwrap_or(2);
    let field = fields.at("retryOn");
    let on = fields.text("retryOn");
    let mut list = Vec::new();
    for word in on.as_deref().unwrap_or("503").split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match (codes(word), word) {
            (Some(found), _) => list.extend(found),
            // A connection that can't be made, or a stream that wasn't taken, costs a request nothing here either.
            (None, "connect-failure" | "refused-stream" | "reset-before-request" | "retriable-status-codes") => {}
            (None, other) => {
                let why = "is not among the reasons to try again";
                said.left(field.clone(), other, why, "see whether statuses in retry.codes are enough");
            }
        }
    }
    if on.as_ref().is_some_and(|text| text.contains("5xx")) {
        said.differs(field, "5xx", "500, 502, 503 and 504");
    }
    let backoff = fields.at("backoff");
    let backoff = fields.text("backoff").and_then(|text| time(backoff, &text, said));
    said.left.extend(fields.rest());
    list.sort_unstable();
    list.dedup();
    let mut made = Map::from_iter([("attempts".to_owned(), json!(attempts))]);
    if !list.is_empty() {
        made.insert("codes".to_owned(), json!(list));
    }
    if let Some(backoff) = backoff {
        made.insert("backoff".to_owned(), json!(backoff));
    }
    (attempts > 0).then(|| Value::Object(made))
}

/// `corsPolicy`.
pub fn cors(mut fields: Fields, said: &mut Said) -> Option<Value> {
    let mut origins = fields.texts("allowOrigin");
    let at = fields.at("allowOrigins");
    for mut origin in fields.parts("allowOrigins") {
        match origin.text("exact") {
            Some(exact) => origins.push(exact),
            None => {
                let why = "origins are compared whole, or by their first label (https://*.example.com)";
                said.left(at.clone(), origin.shown(), why, "list the origins that it is for");
                continue;
            }
        }
        said.left.extend(origin.rest());
    }
    let mut made = Map::new();
    for name in ["allowMethods", "allowHeaders", "exposeHeaders"] {
        let list = fields.texts(name);
        if !list.is_empty() {
            made.insert(name.to_owned(), json!(list));
        }
    }
    if let Some(flag) = fields.flag("allowCredentials") {
        made.insert("allowCredentials".to_owned(), json!(flag));
    }
    let field = fields.at("maxAge");
    if let Some(text) = fields.text("maxAge") {
        match duration(&text).map(|it| milliseconds(&it) / 1000).filter(|seconds| *seconds > 0) {
            Some(seconds) => drop(made.insert("maxAge".to_owned(), json!(u64::try_from(seconds).unwrap_or(86_400)))),
            None => said.left(field, text, "is not a time of a second or more", "remove it"),
        }
    }
    said.left.extend(fields.rest());
    if origins.is_empty() {
        return None;
    }
    made.insert("allowOrigins".to_owned(), json!(origins));
    Some(json!({ "type": "CORS", "cors": made }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_gateway_api() {
        for (text, want) in [
            ("10s", Some("10s")),
            ("1.5s", Some("1s500ms")),
            ("0.250s", Some("250ms")),
            ("250ms", Some("250ms")),
            ("1h30m", Some("5400s")),
            ("0s", Some("0s")),
            ("10us", Some("1ms")),
            ("", None),
            ("10", None),
            ("1d", None),
            (".s", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_prefix_is_rewritten_also_where_the_match_is_a_part_of_it() {
        let rewrite = Rewrite { uri: Some("/v1".into()), ..Rewrite::default() };
        let of = |base: &str, path: Path| Match { base: Path::Prefix(base.into()), path, ..Match::default() };
        let mut said = Said::default();
        let made = |it: &Match, said: &mut Said| rewrite.filter(it, said).map(|it| it["urlRewrite"]["path"].clone());
        let prefix = of("/api", Path::Prefix("/api/x".into()));
        assert_eq!(made(&prefix, &mut said).unwrap()["replacePrefixMatch"], "/v1/x");
        let exact = of("/api", Path::Exact("/api/x".into()));
        assert_eq!(made(&exact, &mut said).unwrap()["replaceFullPath"], "/v1/x");
        assert!(said.fatal.is_empty());
        assert_eq!(made(&of("/api", Path::Regex("/api/.*".into())), &mut said), None);
        assert_eq!(said.fatal.len(), 1);
    }
}
