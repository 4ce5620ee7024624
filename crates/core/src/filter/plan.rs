//! What becomes of a request.

use std::borrow::Cow;
use std::num::NonZeroU32;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::filter::cors::CorsResponse;
use crate::filter::external_auth::{Grant, authorizers};
use crate::filter::path::replace_path;
use crate::filter::redirect::location;
use crate::filter::reply::LocalReply;
use crate::ids::{Port, ServicePortKey};
use crate::matching::{Matched, RequestFacts, draw, pick_weighted, scale};
use crate::reason::Reason;
use crate::route::{
    BackendTarget, Cors, ExternalAuth, HttpAction, HttpBackend, HttpFilter, HttpRule, InvalidBackend, Mirror, Redirect,
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
    /// Its place among those of the rule.
    pub index: usize,
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
    /// Boxed: few rules have some.
    checks: Option<Box<Checks<'a>>>,
}

/// Who must permit a request.
#[derive(Clone, Debug)]
struct Checks<'a> {
    /// In this order: the rule's authorizers, then the backend's.
    authorizers: Vec<&'a ExternalAuth>,
    /// What those that were asked have granted.
    granted: Vec<Grant>,
}

impl<'a> Checks<'a> {
    fn of(rule: &'a HttpRule, backend: &'a HttpBackend) -> Option<Box<Self>> {
        let authorizers: Vec<_> = authorizers(&rule.filters).chain(authorizers(&backend.filters)).collect();
        (!authorizers.is_empty()).then(|| Box::new(Self { authorizers, granted: Vec::new() }))
    }

    fn invalid(&self) -> Option<(&str, InvalidBackend)> {
        self.authorizers.iter().find_map(|auth| auth.authorizer.invalid())
    }
}

/// Decides what becomes of a request that matched, or did not. `entropy` is uniform and used once.
pub fn plan_http<'a>(
    matched: Option<Matched<'a>>,
    facts: &RequestFacts<'_>,
    front: &FrontFacts,
    entropy: u64,
) -> HttpPlan<'a> {
    plan_http_kept(matched, facts, front, entropy, None)
}

/// The same for a request of a session, which keeps its backend (an index among those of the rule) whatever the weights say
/// (GEP-1619, "Traffic Splitting").
pub fn plan_http_kept<'a>(
    matched: Option<Matched<'a>>,
    facts: &RequestFacts<'_>,
    front: &FrontFacts,
    entropy: u64,
    kept: Option<usize>,
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
        HttpAction::Forward(backends) => forward(&matched, backends, facts, (entropy, kept)),
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
    (entropy, kept): (u64, Option<usize>),
) -> HttpPlan<'a> {
    let picked = match backends {
        _ if kept.is_some() => kept,
        [only] if only.weight > 0 => Some(0),
        _ => pick_weighted(backends.iter().map(|it| it.weight), draw(entropy, 0)),
    };
    let refuse = |reason| LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, reason);
    let Some((index, backend)) = picked.and_then(|index| Some((index, backends.get(index)?))) else {
        return HttpPlan::Reply(refuse(Reason::NoBackend));
    };
    let target = match &backend.target {
        BackendTarget::Service(target) => target,
        BackendTarget::Invalid { reference, reason } => {
            return HttpPlan::Reply(refuse(Reason::InvalidBackend).with_detail(invalid_backend(reference, *reason)));
        }
    };
    let rule = matched.rule;
    let checks = Checks::of(rule, backend);
    if let Some((reference, reason)) = checks.as_ref().and_then(|checks| checks.invalid()) {
        return HttpPlan::Reply(refuse(Reason::InvalidBackend).with_detail(invalid_backend(reference, reason)));
    }
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
        index,
        target,
        authority,
        path_and_query,
        mirrors: mirrors(rule, backend, entropy),
        timeouts: rule.timeouts,
        retry: rule.retry.as_ref(),
        cors: cors.map_or(CorsResponse::None, |cors| CorsResponse::new(cors, facts.headers)),
        checks,
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
            HttpFilter::ResponseHeaders(_)
            | HttpFilter::Mirror(_)
            | HttpFilter::Cors(_)
            | HttpFilter::ExternalAuth(_) => {}
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

/// Applies the filters, each authorizer's grant at its place; up to the first authorizer that granted nothing yet.
fn apply_request_filters<'a>(
    filters: impl IntoIterator<Item = &'a HttpFilter>,
    granted: &[Grant],
    headers: &mut HeaderMap,
) {
    let mut granted = granted.iter();
    for filter in filters {
        match filter {
            HttpFilter::RequestHeaders(modifier) => modifier.apply(headers),
            HttpFilter::ExternalAuth(_) => match granted.next() {
                Some(grant) => grant.request.apply(headers),
                None => return,
            },
            _ => {}
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

impl<'a> ForwardPlan<'a> {
    /// Who is asked, in order.
    pub fn authorizers(&self) -> &[&'a ExternalAuth] {
        self.checks.as_ref().map_or(&[], |checks| &checks.authorizers)
    }

    /// Who must be asked next: as long as there is somebody, the request must not go anywhere.
    pub fn next_authorizer(&self) -> Option<&'a ExternalAuth> {
        self.authorizers().get(self.granted().len()).copied()
    }

    /// How much of a body all authorizers want to see, in bytes: the least of what they take, because a body that is too
    /// long for one of them is refused. `None`: nobody looks at it.
    pub fn shown_body(&self) -> Option<u32> {
        self.authorizers().iter().filter_map(|auth| auth.max_body).min().map(NonZeroU32::get)
    }

    /// The authorizer that was to be asked next says yes.
    pub fn grant(&mut self, grant: Grant) {
        if let Some(checks) = &mut self.checks {
            checks.granted.push(grant);
        }
    }

    fn granted(&self) -> &[Grant] {
        self.checks.as_ref().map_or(&[], |checks| &checks.granted)
    }

    /// Changes the headers of the request for a mirror: what the rule says, without the backend.
    pub fn apply_mirror_request(&self, headers: &mut HeaderMap) {
        apply_request_filters(&self.rule.filters, self.granted(), headers);
    }

    /// Changes the headers of the request for its backend, or for the authorizer that is to be asked next. The authority and the path are the caller's to replace.
    pub fn apply_request(&self, headers: &mut HeaderMap) {
        apply_request_filters(self.rule.filters.iter().chain(&self.backend.filters), self.granted(), headers);
    }

    /// Changes the headers of the response.
    pub fn apply_response(&self, headers: &mut HeaderMap) {
        self.granted().iter().for_each(|grant| grant.response.apply(headers));
        apply_response_filters(&self.backend.filters, headers);
        apply_response_filters(&self.rule.filters, headers);
        self.cors.apply(headers);
    }
}
