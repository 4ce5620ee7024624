//! A rule of a TLSRoute or TCPRoute.

use weft_core::ids::RouteKind;
use weft_core::route::{BackendTarget, InvalidBackend, L4Backend, L4Rule, RouteRule};

use super::{RuleContext, RuleOutcome, backend, text};
use crate::object::route::L4RouteRule;
use crate::translate::Problem;

pub(super) fn rule(ctx: &RuleContext<'_>, spec: &L4RouteRule) -> RuleOutcome {
    let mut problems = Vec::new();
    if ctx.index > 0 {
        // Nothing tells the rules of one route apart: only the first can ever be used.
        let message = format!("a {} has one rule", ctx.view.key.kind.as_str());
        problems.push(Problem::value(ctx.field(""), message, "make it a route of its own, or remove it"));
        return RuleOutcome { rule: None, problems };
    }
    let hostnames = match ctx.view.key.kind {
        RouteKind::Tls => text::sni_names(ctx.view, &mut problems),
        _ => Vec::new(),
    };
    let mut backends = Vec::new();
    for (i, entry) in spec.backend_refs.iter().flatten().enumerate() {
        let field = ctx.field(&format!(".backendRefs[{i}]"));
        let weight = backend::weight(&field, entry.weight).unwrap_or_else(|problem| {
            problems.push(problem);
            0
        });
        if entry.filters.is_some() {
            let message = format!("a {} has no filters", ctx.view.key.kind.as_str());
            problems.push(Problem::value(format!("{field}.filters"), message, "remove it"));
        }
        backends.push(L4Backend { target: backend::target(ctx, &field, &entry.reference(), &mut problems), weight });
    }
    // Names that could not be read must not turn into "any name".
    if hostnames.is_empty() && !ctx.view.hostnames.is_empty() {
        for b in &mut backends {
            let reference = format!("spec.hostnames of {}", ctx.view.key);
            b.target = BackendTarget::Invalid { reference, reason: InvalidBackend::NotFound };
        }
    }
    let rule = L4Rule {
        key: ctx.view.rule_key(ctx.index),
        name: ctx.name(spec.name.as_ref()),
        created: ctx.view.created,
        parents: ctx.parents.to_vec(),
        hostnames,
        backends,
    };
    RuleOutcome { rule: Some(RouteRule::L4(rule)), problems }
}
