//! What a rule does with a request, as values: [`plan_http`] decides, the plan's methods apply the filters.
//!
//! Order, where the spec leaves it open:
//! - A CORS preflight is answered before anything else, redirects included: a browser follows none for it.
//! - Request: the rule's header modifiers in their order, then those of the backend that was picked; then the
//!   rewrite. A rewrite of the backend replaces the rule's. The rewritten host wins over a `Host` set by a modifier
//!   (the controller refuses rules that give both).
//! - Authorizers are asked after that, before anything else is done with the request, mirrors included: each of them sees
//!   the request with the header modifiers in front of it, and its changes are applied at its place.
//! - A mirror gets the request as the rule changed it, without the backend's own filters.
//! - Response: what authorizers add, the backend's modifiers, then the rule's, then CORS, so that nothing undoes CORS.
//!
//! No filter can touch what frames a message or belongs to one hop ([`is_protected`]).

mod cors;
mod external_auth;
mod headers;
mod mutation;
mod path;
mod plan;
mod redirect;
mod reply;
mod validate;

#[cfg(test)]
mod tests;

pub use self::cors::{CorsResponse, InvalidOrigin};
pub use self::external_auth::{Grant, describes_message, http_grant, question_headers, question_target};
pub use self::headers::is_protected;
pub use self::mutation::{HeaderChange, HeaderMutation};
pub use self::path::replace_path;
pub use self::plan::{ForwardPlan, FrontFacts, HttpPlan, plan_http, plan_http_kept};
pub use self::reply::{LocalReply, grpc_status};
pub use self::validate::{InvalidRule, validate_rule};
