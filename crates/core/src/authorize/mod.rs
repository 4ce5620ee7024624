//! Whether a call is allowed: a pure function of the policies of the destination and of what is known of the call.
//!
//! A condition that cannot be decided (an HTTP condition on bytes that are not parsed, a path that servers read
//! differently) counts as met in a DENY rule and as not met in an ALLOW rule: uncertainty never opens a door.

mod evaluate;
mod settings;

#[cfg(test)]
mod tests;

pub use self::evaluate::{Audited, CallFacts, Decision, DenyCause, HttpFacts, Outcome, Verdict, evaluate, needs_http};
pub use self::settings::{effective_limits, effective_mode, is_strict_somewhere};
