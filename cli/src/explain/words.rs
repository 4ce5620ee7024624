//! Rules in words.

use weft_core::filter::ForwardPlan;
use weft_core::route::{BackendTarget, HttpMatch, PathMatch, TextMatch};

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

/// What the rule does to a request on its way, for the first of its backends.
pub fn changes(plan: &ForwardPlan<'_>) -> String {
    let mut changes = Vec::new();
    for auth in plan.authorizers() {
        if let BackendTarget::Service(key) = &auth.authorizer {
            changes.push(format!("if Service {key} permits it"));
        }
    }
    if let Some(path) = &plan.path_and_query {
        changes.push(format!("path rewritten to {path}"));
    }
    if let Some(authority) = plan.authority {
        changes.push(format!("host rewritten to {}", String::from_utf8_lossy(authority.as_bytes())));
    }
    changes.extend(plan.mirrors.iter().map(|mirror| format!("a copy to Service {mirror}")));
    if let Some(limit) = plan.timeouts.request {
        changes.push(format!("at most {limit:?}"));
    }
    if let Some(retry) = plan.retry {
        changes.push(format!("tried again up to {} times", retry.attempts));
    }
    changes.into_iter().map(|change| format!(", {change}")).collect()
}

fn text(condition: &TextMatch) -> String {
    match condition {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Regex(pattern) => format!("~{}", pattern.source()),
    }
}
