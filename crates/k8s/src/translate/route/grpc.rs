//! A rule of a GRPCRoute.

use weft_core::route::{HttpMatch, HttpRule, PathMatch, RouteRule, Timeouts};

use super::filter::{Place, filters};
use super::{RuleContext, RuleOutcome, http, matches, session, text};
use crate::object::route::GrpcRouteRule;

pub(super) fn rule(ctx: &RuleContext<'_>, spec: &GrpcRouteRule) -> RuleOutcome {
    let mut problems = Vec::new();
    let listed = spec.matches.as_deref().unwrap_or_default();
    let conditions = if listed.is_empty() {
        vec![HttpMatch { path: PathMatch::Grpc { service: None, method: None }, ..matches::everything() }]
    } else {
        matches::all(listed, &ctx.field(".matches"), &mut problems, matches::grpc)
    };
    let mut wrong = Vec::new();
    let field = ctx.field(".filters");
    let place = Place { field: &field, one_prefix: false, of_backend: false };
    let made = filters(ctx, place, spec.filters.as_deref().unwrap_or_default(), &mut wrong);
    let forward = http::backends(ctx, spec.backend_refs.as_deref().unwrap_or_default(), false, &mut wrong);
    let asked = (spec.session_persistence.as_ref(), spec.name.as_ref());
    let sessions = session::sessions(ctx, asked, &forward, &mut wrong);
    let action = http::action(&made, forward, &wrong, matches::any_possible(&conditions), &problems);
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
        timeouts: Timeouts::default(),
        retry: None,
        sessions,
    };
    RuleOutcome { rule: Some(RouteRule::Http(rule)), problems }
}
