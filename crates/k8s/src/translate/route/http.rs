//! A rule of an HTTPRoute.

use http::StatusCode;
use weft_core::route::{HttpAction, HttpBackend, HttpRule, PathMatch, Retry, RouteRule, Timeouts};

use super::filter::{Filters, Place, filters};
use super::{RuleContext, RuleOutcome, backend, matches, session, text};
use crate::object::route::{BackendRef, HttpRouteRule, RouteRetry, RouteTimeouts};
use crate::translate::{Problem, Reason, summary};

/// Tries after the first, if `retry` does not say.
const DEFAULT_ATTEMPTS: u32 = 1;
/// Least time between two tries, if `retry` does not say.
const DEFAULT_BACKOFF: std::time::Duration = std::time::Duration::from_millis(25);

pub(super) fn rule(ctx: &RuleContext<'_>, spec: &HttpRouteRule) -> RuleOutcome {
    let mut problems = Vec::new();
    let listed = spec.matches.as_deref().unwrap_or_default();
    let conditions = if listed.is_empty() {
        vec![matches::everything()]
    } else {
        matches::all(listed, &ctx.field(".matches"), &mut problems, matches::http)
    };
    let one_prefix = matches!(conditions.as_slice(), [only] if matches!(only.path, PathMatch::Prefix(_)));
    let field = ctx.field(".filters");
    let place = Place { field: &field, one_prefix, of_backend: false };
    // What is wrong from here on is not a matter of which requests match, but of what is done with them.
    let mut wrong = Vec::new();
    let made = filters(ctx, place, spec.filters.as_deref().unwrap_or_default(), &mut wrong);
    let list = spec.backend_refs.as_deref().unwrap_or_default();
    let forward = backends(ctx, list, one_prefix, &mut wrong);
    if made.redirect.is_some() && !list.is_empty() {
        let message = "RequestRedirect answers by itself and can't stand together with backendRefs";
        wrong.push(Problem::value(ctx.field(".backendRefs"), message, "remove the backendRefs or the redirect"));
    }
    let asked = (spec.session_persistence.as_ref(), spec.name.as_ref());
    let sessions = session::sessions(ctx, asked, &forward, &mut wrong);
    let timeouts = timeouts(ctx, spec.timeouts.as_ref(), &mut wrong);
    let retry = retry(ctx, spec.retry.as_ref(), &mut wrong);
    let action = action(&made, forward, &wrong, matches::any_possible(&conditions), &problems);
    problems.extend(wrong);
    let rule = HttpRule {
        key: ctx.view.rule_key(ctx.index),
        name: ctx.name(spec.name.as_ref()),
        created: ctx.view.created,
        parents: ctx.parents.to_vec(),
        hostnames: text::hostnames(ctx),
        matches: conditions,
        filters: made.list,
        action,
        timeouts,
        retry,
        sessions,
    };
    RuleOutcome { rule: Some(RouteRule::Http(rule)), problems }
}

/// What the rule does: anything wrong besides references makes it answer 500.
pub(super) fn action(
    made: &Filters,
    forward: Vec<HttpBackend>,
    wrong: &[Problem],
    possible: bool,
    match_problems: &[Problem],
) -> HttpAction {
    let serious: Vec<_> = wrong.iter().filter(|p| !p.reason.is_reference() && p.reason != Reason::Note).collect();
    if !serious.is_empty() {
        return HttpAction::Invalid(summary(serious));
    }
    if !possible {
        return HttpAction::Invalid(summary(match_problems));
    }
    match &made.redirect {
        Some(redirect) => HttpAction::Redirect(redirect.clone()),
        None => HttpAction::Forward(forward),
    }
}

/// The backends of a rule.
pub(super) fn backends(
    ctx: &RuleContext<'_>,
    list: &[BackendRef],
    one_prefix: bool,
    problems: &mut Vec<Problem>,
) -> Vec<HttpBackend> {
    let mut made = Vec::with_capacity(list.len());
    for (i, spec) in list.iter().enumerate() {
        let field = ctx.field(&format!(".backendRefs[{i}]"));
        let weight = backend::weight(&field, spec.weight).unwrap_or_else(|problem| {
            problems.push(problem);
            0
        });
        let target = backend::target(ctx, &field, &spec.reference(), problems);
        let field = format!("{field}.filters");
        let place = Place { field: &field, one_prefix, of_backend: true };
        let filters = filters(ctx, place, spec.filters.as_deref().unwrap_or_default(), problems);
        made.push(HttpBackend { target, weight, filters: filters.list });
    }
    made
}

fn timeouts(ctx: &RuleContext<'_>, spec: Option<&RouteTimeouts>, problems: &mut Vec<Problem>) -> Timeouts {
    let Some(spec) = spec else { return Timeouts::default() };
    let mut read =
        |name: &str, text: Option<&String>| match text::duration(&ctx.field(&format!(".timeouts.{name}")), text?) {
            Ok(time) => (!time.is_zero()).then_some(time),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
    let made = Timeouts {
        request: read("request", spec.request.as_ref()),
        backend_request: read("backendRequest", spec.backend_request.as_ref()),
    };
    if let (Some(request), Some(one)) = (made.request, made.backend_request)
        && one > request
    {
        let field = ctx.field(".timeouts.backendRequest");
        problems.push(Problem::value(field, "is longer than request", "make it at most as long as timeouts.request"));
    }
    made
}

fn retry(ctx: &RuleContext<'_>, spec: Option<&RouteRetry>, problems: &mut Vec<Problem>) -> Option<Retry> {
    let spec = spec?;
    let mut codes = Vec::new();
    for (i, code) in spec.codes.iter().flatten().enumerate() {
        let known = u16::try_from(*code).ok().filter(|c| (400..=599).contains(c));
        match known.and_then(|c| StatusCode::from_u16(c).ok()) {
            Some(code) => codes.push(code),
            None => {
                let field = ctx.field(&format!(".retry.codes[{i}]"));
                problems.push(Problem::value(field, format!("{code} is not an error status"), "use 400 to 599"));
            }
        }
    }
    let attempts = match spec.attempts {
        None => DEFAULT_ATTEMPTS,
        Some(n) => u32::try_from(n).ok().filter(|n| *n > 0).unwrap_or_else(|| {
            let message = format!("{n} is not a number of tries");
            problems.push(Problem::value(ctx.field(".retry.attempts"), message, "use at least 1, or remove retry"));
            0
        }),
    };
    let backoff = match spec.backoff.as_deref() {
        None => DEFAULT_BACKOFF,
        Some(text) => text::duration(&ctx.field(".retry.backoff"), text).unwrap_or_else(|problem| {
            problems.push(problem);
            DEFAULT_BACKOFF
        }),
    };
    Some(Retry { attempts, backoff, codes })
}
