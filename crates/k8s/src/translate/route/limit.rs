//! How much one route may be.

use weft_core::route::{HttpAction, RouteRule};

use super::RuleOutcome;
use crate::translate::Problem;

/// Most rules of a route. The API has 16; where no API server looks at manifests they may be more, but each is a resource of
/// its own for every proxy, and its number is a part of its name.
pub(super) const MAX_RULES: usize = 4096;

/// What becomes of a route with more: `everything` is its rule that matches all there is, and it answers with an error. To
/// leave out some rules would send what they match to others.
pub(super) fn too_many(everything: RuleOutcome, count: usize) -> RuleOutcome {
    let message = format!("{count} rules are more than a route can have, which is {MAX_RULES}");
    let problem = Problem::value("spec.rules", message, "split it into several routes");
    let rule = match everything.rule {
        Some(RouteRule::Http(mut rule)) => {
            rule.action = HttpAction::Invalid(problem.to_string());
            Some(RouteRule::Http(rule))
        }
        Some(RouteRule::L4(_)) | None => None,
    };
    RuleOutcome { rule, problems: vec![problem] }
}
