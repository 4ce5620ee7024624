//! The sessions of a rule: its own, or those that policies of its backends ask for.

use weft_core::route::{BackendTarget, HttpBackend};
use weft_core::traffic::Sessions;

use super::RuleContext;
use crate::object::route::SessionPersistence;
use crate::translate::Problem;
use crate::translate::session::{Owner, for_user, session};

pub(super) fn sessions(
    ctx: &RuleContext<'_>,
    (spec, name): (Option<&SessionPersistence>, Option<&String>),
    backends: &[HttpBackend],
    problems: &mut Vec<Problem>,
) -> Sessions {
    // Sessions outlast an edit that moves a rule, if it has a name.
    let rule = name.map_or_else(|| ctx.index.to_string(), |name| format!("={name}"));
    let part = format!("{} {rule}", ctx.view.key);
    let Some(spec) = spec else { return of_backends(ctx, backends, &part) };
    let field = ctx.field(".sessionPersistence");
    for backend in backends {
        let BackendTarget::Service(key) = &backend.target else { continue };
        if ctx.lookup.service(&key.service).is_some_and(|service| service.client_ip_affinity.is_some()) {
            // "The route MUST be rejected" (GEP-1619, "Session Affinity in K8S Services").
            let message = format!("{} has sessionAffinity ClientIP, which excludes it", key.service.described());
            problems.push(Problem::value(&field, message, "remove one of the two"));
        }
    }
    let owner = Owner::new(ctx.view.object.meta().uid.as_ref(), part);
    session(&field, spec, &owner, problems).map_or(Sessions::None, |made| Sessions::OfRule(Box::new(made)))
}

fn of_backends(ctx: &RuleContext<'_>, backends: &[HttpBackend], part: &str) -> Sessions {
    let of_backend = |backend: &HttpBackend| match &backend.target {
        BackendTarget::Service(key) => {
            let session = ctx.lookup.traffic(&key.service)?.session.as_ref()?;
            Some(for_user(session, part))
        }
        BackendTarget::Invalid { .. } => None,
    };
    let each: Vec<_> = backends.iter().map(of_backend).collect();
    if each.iter().all(Option::is_none) { Sessions::None } else { Sessions::OfBackends(each) }
}
