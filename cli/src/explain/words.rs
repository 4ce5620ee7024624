//! Rules in words.

use weft_core::filter::ForwardPlan;
use weft_core::route::BackendTarget;
pub use weft_view::words::wanted;

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
