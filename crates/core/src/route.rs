//! Routes as the data plane knows them: one rule of a route object is one [`RouteRule`].
//!
//! Everything is validated and resolved by the controller; what could not be resolved is kept as an invalid
//! variant that answers with an error, so that one mistake costs one rule and never a listener.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::ids::{ListenerKey, Namespace, Port, RuleKey, SectionName, ServiceKey, ServicePortKey};
use crate::traffic::Sessions;

mod external_auth;
mod l4;
mod pattern;

pub use external_auth::{AuthProtocol, ExternalAuth, MAX_SHOWN_BODY};
pub use l4::{L4Backend, L4Rule};
pub use pattern::Pattern;

/// One rule of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteRule {
    /// Of an HTTPRoute or GRPCRoute.
    Http(HttpRule),
    /// Of a TLSRoute, TCPRoute or UDPRoute.
    L4(L4Rule),
}

impl RouteRule {
    /// The rule's key.
    pub fn key(&self) -> &RuleKey {
        match self {
            Self::Http(rule) => &rule.key,
            Self::L4(rule) => &rule.key,
        }
    }

    /// Where the rule is attached.
    pub fn parents(&self) -> &[Parent] {
        match self {
            Self::Http(rule) => &rule.parents,
            Self::L4(rule) => &rule.parents,
        }
    }

    /// The same rule, attached elsewhere.
    #[must_use]
    pub fn attached_to(&self, parents: Vec<Parent>) -> Self {
        match self {
            Self::Http(rule) => Self::Http(HttpRule { parents, ..rule.clone() }),
            Self::L4(rule) => Self::L4(L4Rule { parents, ..rule.clone() }),
        }
    }
}

/// Where a rule is attached; the controller has resolved names and ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    /// A port of a Service (GAMMA).
    Service {
        /// The Service port.
        port: ServicePortKey,
        /// Set for a consumer route (GEP-1426: the route's namespace is not the Service's): it applies only to
        /// clients in this namespace.
        consumer: Option<Namespace>,
    },
    /// A listener of a Gateway.
    Listener(ListenerKey),
}

/// When a route object was made, for the precedence among routes: older wins, then `namespace/name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Created {
    /// Seconds since the Unix epoch.
    pub unix_seconds: i64,
}

/// A rule of an HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Its key; the route kind in it says whether it is a gRPC rule.
    pub key: RuleKey,
    /// `rules[].name`
    pub name: Option<SectionName>,
    /// When its route was made.
    pub created: Created,
    /// Where it is attached.
    pub parents: Vec<Parent>,
    /// The route's hostnames; empty means any. Always empty for a Service parent.
    pub hostnames: Vec<HostnameMatch>,
    /// Any of these; never empty (the API's default is the prefix `/`).
    pub matches: Vec<HttpMatch>,
    /// Filters in the order of the rule.
    pub filters: Vec<HttpFilter>,
    /// What is done with a request that matched.
    pub action: HttpAction,
    /// `timeouts`
    pub timeouts: Timeouts,
    /// `retry`
    pub retry: Option<Retry>,
    /// Sessions, of the rule or of its backends.
    pub sessions: Sessions,
}

/// What a rule does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAction {
    /// Forward to one of these by weight. Empty, or all weights 0: 500.
    Forward(Vec<HttpBackend>),
    /// A redirect filter answers; there is no backend.
    Redirect(Redirect),
    /// The rule could not be understood: every request that matches gets 500, with this reason in the log.
    Invalid(String),
}

/// A hostname of a route or listener, lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostnameMatch {
    /// The whole host.
    Exact(String),
    /// `*.suffix`: holds `suffix` without the `*.`; at least one label must stand before it.
    Suffix(String),
}

/// One `matches[]` entry: all conditions must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpMatch {
    /// The path.
    pub path: PathMatch,
    /// The method.
    pub method: Option<http::Method>,
    /// Headers; of entries with equivalent names only the first counts (already removed).
    pub headers: Vec<HeaderMatch>,
    /// Query parameters, names and values case-sensitive.
    pub query: Vec<QueryMatch>,
}

/// A path condition.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// Exactly this path, case-sensitive.
    Exact(String),
    /// By path element; without a trailing slash, `/` is the empty string.
    Prefix(String),
    /// The whole path by a linear-time expression (RE2 syntax, anchored).
    Regex(Pattern),
    /// A gRPC method; `None` for both is any call.
    Grpc {
        /// `method.service`
        service: Option<TextMatch>,
        /// `method.method`
        method: Option<TextMatch>,
    },
}

/// Exact text or an anchored expression.
#[derive(Clone, Debug, PartialEq)]
pub enum TextMatch {
    /// Equal, case-sensitive.
    Exact(String),
    /// The whole text matches.
    Regex(Pattern),
}

/// A header condition.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// The name.
    pub name: HeaderName,
    /// The value.
    pub value: TextMatch,
}

/// A query parameter condition.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// The name, case-sensitive.
    pub name: String,
    /// The value.
    pub value: TextMatch,
}

/// A filter of a rule or of one of its backends.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpFilter {
    /// `RequestHeaderModifier`
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`
    ResponseHeaders(HeaderModifier),
    /// `URLRewrite`
    Rewrite(Rewrite),
    /// `RequestMirror`
    Mirror(Mirror),
    /// `CORS`
    Cors(Cors),
    /// `ExternalAuth`
    ExternalAuth(ExternalAuth),
}

/// Sets, adds and removes headers, in this order: set overwrites, add appends, remove deletes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Overwritten or made.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appended to what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Deleted.
    pub remove: Vec<HeaderName>,
}

/// `RequestRedirect`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`; the request's if absent.
    pub scheme: Option<RedirectScheme>,
    /// The host; the request's if absent.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port; see the API for what absence means.
    pub port: Option<Port>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// The scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// `URLRewrite`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Replaces the authority.
    pub hostname: Option<HeaderValue>,
    /// Replaces the path.
    pub path: Option<PathModifier>,
}

/// How a path is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// `ReplaceFullPath`
    Full(String),
    /// `ReplacePrefixMatch`: the prefix that matched.
    Prefix(String),
}

/// `RequestMirror`
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where the copy goes; its answer is thrown away.
    pub backend: BackendTarget,
    /// Of all requests, `numerator / denominator`.
    pub fraction: Fraction,
}

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// Not more than the denominator.
    pub numerator: u32,
    /// Never 0.
    pub denominator: std::num::NonZeroU32,
}

/// `CORS`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Allowed origins.
    pub allow_origins: Vec<OriginMatch>,
    /// `allowCredentials`
    pub allow_credentials: bool,
    /// Methods; `*` stands for all.
    pub allow_methods: Vec<String>,
    /// Request headers; `*` stands for all.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// `maxAge`, seconds; the API's default is 5.
    pub max_age_seconds: u32,
}

/// An allowed origin: `*`, a whole origin, or one whose host starts with `*.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginMatch {
    /// `*`
    Any,
    /// `scheme://host[:port]`, compared whole, lower case.
    Exact(String),
    /// `scheme://*.suffix[:port]`; `*` spans several labels.
    Wildcard {
        /// The scheme.
        scheme: String,
        /// What follows `*`, starting with a dot; includes the port.
        suffix: String,
    },
}

/// A backendRef with its weight and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpBackend {
    /// Where it goes.
    pub target: BackendTarget,
    /// Its share; 0 gets nothing.
    pub weight: u32,
    /// Filters for this backend only.
    pub filters: Vec<HttpFilter>,
}

/// What a backendRef means: endpoints, never another frontend's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// The endpoints of a Service port.
    Service(ServicePortKey),
    /// Could not be resolved: its share of the requests gets 500.
    Invalid {
        /// What the user wrote, for logs.
        reference: String,
        /// Why.
        reason: InvalidBackend,
    },
}

impl BackendTarget {
    /// What the user wrote and why it can't be followed, if it can't.
    pub fn invalid(&self) -> Option<(&str, InvalidBackend)> {
        match self {
            Self::Service(_) => None,
            Self::Invalid { reference, reason } => Some((reference, *reason)),
        }
    }
}

/// Why a backendRef is not usable; the `ResolvedRefs` reasons of the Gateway API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvalidBackend {
    /// `BackendNotFound`
    NotFound,
    /// `RefNotPermitted`
    NotPermitted,
    /// `InvalidKind`
    InvalidKind,
    /// `UnsupportedProtocol` or a port that the Service lacks.
    UnsupportedPort,
}

/// `timeouts`; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of the request to the last of the response, retries included.
    pub request: Option<Duration>,
    /// One try.
    pub backend_request: Option<Duration>,
}

/// `retry`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Least time between two tries.
    pub backoff: Duration,
    /// Status codes that are tried again.
    pub codes: Vec<StatusCode>,
}

/// A Service named by text, for messages.
pub fn service_reference(key: &ServiceKey, port: Option<Port>) -> String {
    match port {
        Some(port) => format!("Service {key}:{port}"),
        None => format!("Service {key}"),
    }
}
