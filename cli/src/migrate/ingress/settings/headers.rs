//! Headers that are set on requests and answers: by annotations, by a ConfigMap, and by the parts of a snippet that only do
//! that.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::Settings;
use super::text::has_variable;
use crate::migrate::ingress::annotations::Annotations;
use crate::migrate::ingress::input::Inputs;

/// `requestHeaderModifier` or `responseHeaderModifier`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
    remove: Vec<String>,
}

impl Headers {
    /// Sets one; the last value counts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.set.retain(|(it, _)| !it.eq_ignore_ascii_case(name));
        self.add.retain(|(it, _)| !it.eq_ignore_ascii_case(name));
        self.set.push((name.to_owned(), value.to_owned()));
    }

    fn append(&mut self, name: &str, value: &str) {
        if self.set.iter().chain(&self.add).any(|(it, _)| it.eq_ignore_ascii_case(name)) {
            self.set(name, value);
        } else {
            self.add.push((name.to_owned(), value.to_owned()));
        }
    }

    fn remove(&mut self, name: &str) {
        if !self.remove.iter().any(|it| it.eq_ignore_ascii_case(name)) {
            self.remove.push(name.to_owned());
        }
    }

    /// As a filter of that type; `None` if there is nothing to do.
    pub fn filter(&self, kind: &str, field: &str) -> Option<Value> {
        let list = |pairs: &[(String, String)]| -> Vec<Value> {
            pairs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
        };
        let mut spec = Map::new();
        for (name, pairs) in [("set", &self.set), ("add", &self.add)] {
            if !pairs.is_empty() {
                spec.insert(name.to_owned(), json!(list(pairs)));
            }
        }
        let overwritten = |name: &String| self.set.iter().chain(&self.add).any(|(it, _)| it.eq_ignore_ascii_case(name));
        let remove: Vec<_> = self.remove.iter().filter(|name| !overwritten(name)).collect();
        if !remove.is_empty() {
            spec.insert("remove".to_owned(), json!(remove));
        }
        (!spec.is_empty()).then(|| json!({ "type": kind, field: spec }))
    }
}

/// Whether a filter can set it.
fn is_settable(name: &str, value: &str) -> bool {
    let reserved =
        ["host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "keep-alive", "trailer"];
    !has_variable(value)
        && HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| !reserved.contains(&name.as_str()))
        && HeaderValue::from_str(value).is_ok()
        && !value.is_empty()
}

/// Reads all of them.
pub fn read(a: &mut Annotations<'_>, namespace: &str, inputs: &Inputs, settings: &mut Settings) {
    if let Some(prefix) = a.get("x-forwarded-prefix") {
        if settings.rewrite.is_none() {
            a.unneeded("x-forwarded-prefix", "is only set together with rewrite-target");
        } else if is_settable("x-forwarded-prefix", &prefix) {
            a.became("x-forwarded-prefix", "RequestHeaderModifier sets X-Forwarded-Prefix");
            settings.request_headers.set("X-Forwarded-Prefix", &prefix);
        } else {
            a.left_out("x-forwarded-prefix", "is not a value that a filter can set", "set it in the application");
        }
    }
    config_map(a, namespace, inputs, settings);
    lines(a, settings);
    snippet(a, settings);
    hsts(a, settings);
}

fn config_map(a: &mut Annotations<'_>, namespace: &str, inputs: &Inputs, settings: &mut Settings) {
    let Some(text) = a.get("custom-headers") else { return };
    let (of, name) = text.split_once('/').unwrap_or((namespace, &text));
    let Some(map) = inputs.config_maps.get(&(of.to_owned(), name.to_owned())) else {
        let remedy = "give its file too, or set the headers by a filter ResponseHeaderModifier";
        a.left_out("custom-headers", format!("ConfigMap {of}/{name} is not among what was read"), remedy);
        return;
    };
    let mut odd = Vec::new();
    for (name, value) in map.data.iter().flatten() {
        if is_settable(name, value) {
            settings.response_headers.set(name, value);
        } else {
            odd.push(name.as_str());
        }
    }
    match odd.as_slice() {
        [] => a.became("custom-headers", "ResponseHeaderModifier"),
        odd => a.left_out(
            "custom-headers",
            format!("{}: can't be set by a filter; the others are", odd.join(", ")),
            "set them in the application",
        ),
    }
}

/// Headers line by line, a name and a value: HAProxy's way.
fn lines(a: &mut Annotations<'_>, settings: &mut Settings) {
    type Write = fn(&mut Headers, &str, &str);
    let ways: [(&str, bool, Write); 4] = [
        ("request-set-header", true, Headers::set),
        ("request-add-headers", true, Headers::append),
        ("response-set-header", false, Headers::set),
        ("response-add-headers", false, Headers::append),
    ];
    for (name, of_request, write) in ways {
        let Some(text) = a.get(name) else { continue };
        let headers = if of_request { &mut settings.request_headers } else { &mut settings.response_headers };
        let mut odd = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (header, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let (header, value) = (header.trim_end_matches(':'), value.trim().trim_matches('"'));
            if is_settable(header, value) && !value.contains("%[") {
                write(headers, header, value);
            } else {
                odd.push(header.to_owned());
            }
        }
        said(a, name, odd, if of_request { "RequestHeaderModifier" } else { "ResponseHeaderModifier" });
    }
    for (name, of_request) in [("request-del-headers", true), ("response-del-headers", false)] {
        let Some(list) = a.list(name) else { continue };
        let headers = if of_request { &mut settings.request_headers } else { &mut settings.response_headers };
        list.iter().for_each(|header| headers.remove(header));
        said(a, name, Vec::new(), if of_request { "RequestHeaderModifier" } else { "ResponseHeaderModifier" });
    }
}

fn said(a: &mut Annotations<'_>, name: &str, odd: Vec<String>, filter: &str) {
    if odd.is_empty() {
        a.became(name, filter);
    } else {
        a.left_out(
            name,
            format!("{}: can't be set by a filter; the others are", odd.join(", ")),
            "set them in the application",
        );
    }
}

/// What a snippet of nginx's configuration does to headers. Where it does anything else, all of it is left out.
fn snippet(a: &mut Annotations<'_>, settings: &mut Settings) {
    let Some(text) = a.get("configuration-snippet") else { return };
    let (mut requests, mut answers) = (settings.request_headers.clone(), settings.response_headers.clone());
    for statement in text.split(';') {
        let lines = statement.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let statement = lines.collect::<Vec<_>>().join(" ");
        if statement.trim().is_empty() {
            continue;
        }
        if one(statement.trim(), &mut requests, &mut answers).is_none() {
            let why =
                format!("a snippet of the proxy's own configuration; not translated because of {:?}", statement.trim());
            // Who may come in, or where to, is often decided in such a place.
            let remedy = "look what it does, and whether a filter or the application can; then use --allow-unprotected";
            a.unprotected("configuration-snippet", why, remedy);
            return;
        }
    }
    a.became("configuration-snippet", "filters that set headers");
    (settings.request_headers, settings.response_headers) = (requests, answers);
}

/// One statement.
fn one(statement: &str, requests: &mut Headers, answers: &mut Headers) -> Option<()> {
    let (directive, rest) = statement.split_once(char::is_whitespace)?;
    let words = words(rest)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (directive, words.as_slice()) {
        ("proxy_set_header", [name, value]) if is_settable(name, value) => requests.set(name, value),
        ("proxy_hide_header", [name]) => answers.remove(name),
        ("add_header", [name, value] | [name, value, "always"]) if is_settable(name, value) => {
            answers.append(name, value)
        }
        ("more_set_headers", all) if !all.is_empty() => {
            for pair in all {
                let (name, value) = pair.split_once(':')?;
                if !is_settable(name.trim(), value.trim()) {
                    return None;
                }
                answers.set(name.trim(), value.trim());
            }
        }
        ("more_clear_headers", all) if all.iter().all(|name| is_settable(name, "x")) => {
            all.iter().for_each(|name| answers.remove(name));
        }
        _ => return None,
    }
    Some(())
}

/// Words of nginx's configuration, with or without quotes.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, tail) = match first {
            '"' | '\'' => rest.get(1..)?.split_once(first)?,
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    Some(words)
}

/// HAProxy Ingress's own way to Strict-Transport-Security.
fn hsts(a: &mut Annotations<'_>, settings: &mut Settings) {
    let parts = ["hsts-max-age", "hsts-include-subdomains", "hsts-preload"];
    if a.flag("hsts") != Some(true) {
        a.unneeded("hsts", "is not set by default");
        a.ineffective(&parts, "hsts isn't true");
        return;
    }
    let age = a.number("hsts-max-age").unwrap_or(15_768_000);
    let mut value = format!("max-age={age}");
    for (name, word) in [("hsts-include-subdomains", "; includeSubDomains"), ("hsts-preload", "; preload")] {
        if a.flag(name) == Some(true) {
            value.push_str(word);
        }
    }
    settings.response_headers.set("Strict-Transport-Security", &value);
    a.became("hsts", "ResponseHeaderModifier sets Strict-Transport-Security");
    parts.into_iter().for_each(|part| a.became(part, "a part of Strict-Transport-Security"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(statement: &str) -> Option<(Headers, Headers)> {
        let (mut requests, mut answers) = (Headers::default(), Headers::default());
        one(statement, &mut requests, &mut answers)?;
        Some((requests, answers))
    }

    #[test]
    fn statements_that_only_set_headers_are_read() {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let (requests, _) = read("proxy_set_header X-Team \"the shop\"").unwrap();
        assert_eq!(requests.set, pair("X-Team", "the shop"));
        let (_, answers) = read("more_set_headers 'X-Frame-Options: DENY'").unwrap();
        assert_eq!(answers.set, pair("X-Frame-Options", "DENY"));
        let (_, answers) = read("add_header X-A b always").unwrap();
        assert_eq!(answers.add, pair("X-A", "b"));
        assert_eq!(read("more_clear_headers Server X-B").unwrap().1.remove, ["Server", "X-B"]);
        for other in [
            "return 301 https://x",
            "proxy_set_header X-Id $request_id",
            "if ($host = x) { deny all",
            "deny all",
            "proxy_set_header Host x",
            "more_set_headers \"X",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_is_named_once_in_a_filter() {
        let mut headers = Headers::default();
        headers.append("X-A", "1");
        headers.append("x-a", "2");
        headers.remove("X-A");
        headers.remove("X-B");
        let filter = headers.filter("RequestHeaderModifier", "requestHeaderModifier").unwrap();
        let spec = json!({ "set": [{ "name": "x-a", "value": "2" }], "remove": ["X-B"] });
        assert_eq!(filter, json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": spec }));
    }
}
