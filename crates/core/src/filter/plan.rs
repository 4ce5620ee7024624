//! What becomes of a request.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::filter::cors::CorsResponse;
use crate::filter::path::replace_path;
use crate::filter::redirect::location;
use crate::filter::reply::LocalReply;
use crate::ids::{Port, ServicePortKey};
use crate::matching::{Matched, RequestFacts, draw, pick_weighted, scale};
use crate::reason::Reason;
use crate::route::{
    BackendTarget, Cors, HttpAction, HttpBackend, HttpFilter, HttpRule, InvalidBackend, Mirror, Redirect,
    RedirectScheme, Retry, Rewrite, Timeouts,
};

/// What the client dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontFacts {
    /// The scheme the client spoke.
    pub scheme: RedirectScheme,
    /// The port of the listener, in the mesh of the Service.
    pub port: Port,
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum HttpPlan<'a> {
    /// Answer it.
    Reply(LocalReply<'a>),
    /// Send it on.
    Forward(ForwardPlan<'a>),
}

/// How to send a request on. It borrows from the table: without a rewrite nothing is allocated.
#[derive(Clone, Debug)]
pub struct ForwardPlan<'a> {
    /// The rule.
    pub rule: &'a HttpRule,
    /// The backend that was picked, with its filters.
    pub backend: &'a HttpBackend,
    /// Where the request goes.
    pub target: &'a ServicePortKey,
    /// The new authority, if it is rewritten.
    pub authority: Option<&'a HeaderValue>,
    /// The new path with the request's query, if it is rewritten.
    pub path_and_query: Option<PathAndQuery>,
    /// Where copies go.
    pub mirrors: SmallVec<[&'a ServicePortKey; 2]>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// When it is tried again.
    pub retry: Option<&'a Retry>,
    /// What CORS adds to the response.
    pub cors: CorsResponse<'a>,
}

/// Decides what becomes of a request that matched, or did not. `entropy` is uniform and used once.
pub fn plan_http<'a>(
    matched: Option<Matched<'a>>,
    facts: &RequestFacts<'_>,
    front: &FrontFacts,
    entropy: u64,
) -> HttpPlan<'a> {
    let Some(matched) = matched else {
        return HttpPlan::Reply(LocalReply::new(StatusCode::NOT_FOUND, Reason::NoRoute));
    };
    let rule = matched.rule;
    if let HttpAction::Invalid(why) = &rule.action {
        return HttpPlan::Reply(invalid_route().with_detail(why.as_str()));
    }
    let cors = cors_of(&rule.filters);
    if let Some(cors) = cors.filter(|_| Cors::is_preflight(facts)) {
        return HttpPlan::Reply(cors.preflight(facts.headers));
    }
    match &rule.action {
        HttpAction::Forward(backends) => forward(&matched, backends, facts, entropy),
        HttpAction::Redirect(redirect) => HttpPlan::Reply(reply_redirect(&matched, redirect, facts, front)),
        HttpAction::Invalid(_) => HttpPlan::Reply(invalid_route()),
    }
}

fn invalid_route<'a>() -> LocalReply<'a> {
    LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::InvalidRoute)
}

fn cors_of(filters: &[HttpFilter]) -> Option<&Cors> {
    filters.iter().find_map(|filter| match filter {
        HttpFilter::Cors(cors) => Some(cors),
        _ => None,
    })
}

/// The redirect, with the response filters of its rule.
fn reply_redirect<'a>(
    matched: &Matched<'a>,
    redirect: &Redirect,
    facts: &RequestFacts<'_>,
    front: &FrontFacts,
) -> LocalReply<'a> {
    let Some(location) = location(redirect, facts, front, matched.prefix_len) else {
        return invalid_route().with_detail("the redirect gives no valid Location");
    };
    let mut reply = LocalReply::new(redirect.status, Reason::Redirect);
    apply_response_filters(&matched.rule.filters, &mut reply.headers);
    if let Some(cors) = cors_of(&matched.rule.filters) {
        CorsResponse::new(cors, facts.headers).apply(&mut reply.headers);
    }
    reply.headers.insert(header::LOCATION, location);
    reply
}

fn forward<'a>(
    matched: &Matched<'a>,
    backends: &'a [HttpBackend],
    facts: &RequestFacts<'_>,
    entropy: u64,
) -> HttpPlan<'a> {
    let picked = match backends {
        [only] if only.weight > 0 => Some(only),
        _ => pick_weighted(backends.iter().map(|it| it.weight), draw(entropy, 0)).and_then(|it| backends.get(it)),
    };
    let refuse = |reason| LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, reason);
    let Some(backend) = picked else {
        return HttpPlan::Reply(refuse(Reason::NoBackend));
    };
    let target = match &backend.target {
        BackendTarget::Service(target) => target,
        BackendTarget::Invalid { reference, reason } => {
            return HttpPlan::Reply(refuse(Reason::InvalidBackend).with_detail(invalid_backend(reference, *reason)));
        }
    };
    let rule = matched.rule;
    if let Some(cors) = cors_of(&backend.filters).filter(|_| Cors::is_preflight(facts)) {
        return HttpPlan::Reply(cors.preflight(facts.headers));
    }
    let Some(Rewritten { authority, path_and_query }) = rewrite(matched, backend, facts) else {
        return HttpPlan::Reply(invalid_route().with_detail("the rewrite gives no valid path"));
    };
    let cors = cors_of(&rule.filters).or_else(|| cors_of(&backend.filters));
    HttpPlan::Forward(ForwardPlan {
        rule,
        backend,
        target,
        authority,
        path_and_query,
        mirrors: mirrors(rule, backend, entropy),
        timeouts: rule.timeouts,
        retry: rule.retry.as_ref(),
        cors: cors.map_or(CorsResponse::None, |cors| CorsResponse::new(cors, facts.headers)),
    })
}

fn invalid_backend<'a>(reference: &str, reason: InvalidBackend) -> Cow<'a, str> {
    let why = match reason {
        InvalidBackend::NotFound => "not found",
        InvalidBackend::NotPermitted => "no ReferenceGrant permits it",
        InvalidBackend::InvalidKind => "not a kind that can be a backend",
        InvalidBackend::UnsupportedPort => "it has no such port",
    };
    Cow::Owned(format!("backend {reference}: {why}"))
}

#[derive(Default)]
struct Rewritten<'a> {
    authority: Option<&'a HeaderValue>,
    path_and_query: Option<PathAndQuery>,
}

/// The new authority and path, or `None` if the rule cannot give a valid path.
fn rewrite<'a>(matched: &Matched<'a>, backend: &'a HttpBackend, facts: &RequestFacts<'_>) -> Option<Rewritten<'a>> {
    let mut set_host = None;
    let mut rewritten = Rewritten::default();
    let mut path = None;
    for filter in matched.rule.filters.iter().chain(&backend.filters) {
        match filter {
            HttpFilter::RequestHeaders(modifier) => set_host = modifier.host().or(set_host),
            HttpFilter::Rewrite(Rewrite { hostname, path: modifier }) => {
                rewritten.authority = hostname.as_ref().or(rewritten.authority);
                path = modifier.as_ref().or(path);
            }
            HttpFilter::ResponseHeaders(_) | HttpFilter::Mirror(_) | HttpFilter::Cors(_) => {}
        }
    }
    rewritten.authority = rewritten.authority.or(set_host);
    // `OPTIONS *` has no path to rewrite.
    if let Some(modifier) = path.filter(|_| facts.path.starts_with('/')) {
        let path = replace_path(modifier, facts.path, matched.prefix_len)?;
        let text = match facts.query {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        rewritten.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    }
    Some(rewritten)
}

/// The mirrors whose share this request falls into. One that could not be resolved is left out, as the API says.
fn mirrors<'a>(rule: &'a HttpRule, backend: &'a HttpBackend, entropy: u64) -> SmallVec<[&'a ServicePortKey; 2]> {
    let all = rule.filters.iter().chain(&backend.filters).filter_map(|filter| match filter {
        HttpFilter::Mirror(mirror) => Some(mirror),
        _ => None,
    });
    let sampled = all.zip(1..).filter(|(mirror, nth)| mirror.is_sampled(draw(entropy, *nth)));
    let targets = sampled.filter_map(|(mirror, _)| match &mirror.backend {
        BackendTarget::Service(target) => Some(target),
        BackendTarget::Invalid { .. } => None,
    });
    targets.collect()
}

impl Mirror {
    /// Whether a request gets a copy, each with the probability of the fraction; `entropy` is uniform.
    pub fn is_sampled(&self, entropy: u64) -> bool {
        scale(entropy, u64::from(self.fraction.denominator.get())) < u64::from(self.fraction.numerator)
    }
}

fn apply_request_filters(filters: &[HttpFilter], headers: &mut HeaderMap) {
    for filter in filters {
        if let HttpFilter::RequestHeaders(modifier) = filter {
            modifier.apply(headers);
        }
    }
}

fn apply_response_filters(filters: &[HttpFilter], headers: &mut HeaderMap) {
    for filter in filters {
        if let HttpFilter::ResponseHeaders(modifier) = filter {
            modifier.apply(headers);
        }
    }
}

impl ForwardPlan<'_> {
    /// Changes the headers of the request for a mirror: what the rule says, without the backend.
    pub fn apply_mirror_request(&self, headers: &mut HeaderMap) {
        apply_request_filters(&self.rule.filters, headers);
    }

    /// Changes the headers of the request for its backend. The authority and the path are the caller's to replace.
    pub fn apply_request(&self, headers: &mut HeaderMap) {
        apply_request_filters(&self.rule.filters, headers);
        apply_request_filters(&self.backend.filters, headers);
    }

    /// Changes the headers of the response.
    pub fn apply_response(&self, headers: &mut HeaderMap) {
        apply_response_filters(&self.backend.filters, headers);
        apply_response_filters(&self.rule.filters, headers);
        self.cors.apply(headers);
    }
}
