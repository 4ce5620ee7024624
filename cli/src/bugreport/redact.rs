//! What must not leave: keys, tokens, passwords, and values of headers that policies ask for.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What stands in place of it.
const GONE: &str = "[redacted]";

/// Patterns of what is secret wherever it stands, and what to put in their place.
static SECRETS: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let name = "[A-Za-z0-9_.-]*(?:password|passwd|secret|token|api[_-]?key|private[_-]?key|credential)s?";
    let header = r#"\\?"[A-Za-z0-9_.-]*(?:authorization|cookies?)"#;
    let all = [
        // PEM, also on one line with its breaks escaped; and one that is cut off.
        (
            r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)".to_owned(),
            GONE.to_owned(),
        ),
        // JSON Web Tokens, as ServiceAccounts have them.
        (r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*".to_owned(), GONE.to_owned()),
        (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}".to_owned(), format!("$1 {GONE}")),
        // Headers in JSON, with one value or several; and in JSON that is text in another one.
        (
            format!(r#"(?i)({header}"\s*:\s*)(?:\[(?:[^\]"]|"(?:[^"\\]|\\.)*")*\]?|"(?:[^"\\]|\\.)*"?)"#),
            format!(r#"${{1}}"{GONE}""#),
        ),
        (format!(r#"(?i)({header}\\"\s*:\s*\[?\\")[^"\\]*"#), format!("${{1}}{GONE}")),
        (r"(?i)\b((?:proxy-)?authorization|cookie|set-cookie)(\s*[:=]\s*)[^\n]+".to_owned(), format!("$1$2{GONE}")),
        (format!(r#"(?i)({name}\\?["']?\s*[=:]\s*\\?["']?)[^\s"',}}\\]+"#), format!("${{1}}{GONE}")),
        // Of join commands.
        (r"(?i)(--(?:token|password)\s+)\S+".to_owned(), format!("${{1}}{GONE}")),
    ];
    all.into_iter().filter_map(|(pattern, with)| Regex::new(&pattern).ok().map(|regex| (regex, with))).collect()
});

/// A file's text without secrets.
pub fn redacted(path: &str, text: &str) -> String {
    let mut text = match path.ends_with("config_dump.json").then(|| serde_json::from_str::<Value>(text)) {
        Some(Ok(mut dump)) => {
            hide_values(&mut dump);
            serde_json::to_string_pretty(&dump).unwrap_or_default()
        }
        _ => text.to_owned(),
    };
    for (pattern, with) in SECRETS.iter() {
        if let std::borrow::Cow::Owned(changed) = pattern.replace_all(&text, with.as_str()) {
            text = changed;
        }
    }
    text
}

/// Hides what headers must say, in policies: it may be a key that clients share.
fn hide_values(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("headers", Value::Array(headers)) => headers.iter_mut().for_each(hide_header),
                    (_, value) => hide_values(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide_values),
        _ => {}
    }
}

fn hide_header(header: &mut Value) {
    for list in ["values", "not_values"] {
        if let Some(Value::Array(values)) = header.get_mut(list) {
            values.iter_mut().for_each(|value| *value = GONE.into());
        }
    }
}

/// How many patterns there are: one that can't be read is left out, which a test holds against.
#[cfg(test)]
pub fn patterns() -> usize {
    SECRETS.len()
}
