//! A rule of a GRPCRoute.

use weft_core::route::{HttpMatch, HttpRule, PathMatch, RouteRule, Timeouts};

use super::filter::{Place, filters};
use super::{RuleContext, RuleOutcome, http, matches, text};
use crate::object::route::GrpcRouteRule;
use crate::translate::Problem;

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
    if spec.session_persistence.is_some() {
        let field = ctx.field(".sessionPersistence");
        wrong.push(Problem::value(field, "is not supported", "remove it; sessionAffinity of the Service is supported"));
    }
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
    };
    RuleOutcome { rule: Some(RouteRule::Http(rule)), problems }
}
