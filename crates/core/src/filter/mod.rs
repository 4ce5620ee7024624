//! What a rule does with a request, as values: [`plan_http`] decides, the plan's methods apply the filters.
//!
//! Order, where the spec leaves it open:
//! - A CORS preflight is answered before anything else, redirects included: a browser follows none for it.
//! - Request: the rule's header modifiers in their order, then those of the backend that was picked; then the
//!   rewrite. A rewrite of the backend replaces the rule's. The rewritten host wins over a `Host` set by a modifier
//!   (the controller refuses rules that give both).
//! - A mirror gets the request as the rule changed it, without the backend's own filters.
//! - Response: the backend's modifiers, then the rule's, then CORS, so that nothing undoes CORS.
//!
//! No filter can touch what frames a message or belongs to one hop ([`is_protected`]).

mod cors;
mod headers;
mod path;
mod plan;
mod redirect;
mod reply;
mod validate;

#[cfg(test)]
mod tests;

pub use self::cors::{CorsResponse, InvalidOrigin};
pub use self::headers::is_protected;
pub use self::path::replace_path;
pub use self::plan::{ForwardPlan, FrontFacts, HttpPlan, plan_http};
pub use self::reply::{LocalReply, grpc_status};
pub use self::validate::{InvalidRule, validate_rule};
