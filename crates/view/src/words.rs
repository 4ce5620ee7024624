//! Rules in words.

use weft_core::route::{HttpMatch, PathMatch, TextMatch};

/// What a match asks for.
pub fn wanted(condition: &HttpMatch) -> String {
    let mut parts = vec![match &condition.path {
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(path) => format!("path below {}", if path.is_empty() { "/" } else { path }),
        PathMatch::Regex(pattern) => format!("path like {}", pattern.source()),
        PathMatch::Grpc { service, method } => {
            let part = |part: &Option<TextMatch>| part.as_ref().map_or_else(|| "*".to_owned(), text);
            format!("gRPC {}/{}", part(service), part(method))
        }
    }];
    parts.extend(condition.method.as_ref().map(|method| format!("method {method}")));
    parts.extend(condition.headers.iter().map(|header| format!("header {}: {}", header.name, text(&header.value))));
    parts.extend(condition.query.iter().map(|query| format!("query {}={}", query.name, text(&query.value))));
    parts.join(" and ")
}

fn text(condition: &TextMatch) -> String {
    match condition {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Regex(pattern) => format!("~{}", pattern.source()),
    }
}
