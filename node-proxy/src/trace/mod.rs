//! Traces: whether a request is part of one and is sampled, what its span says, and its way to a collector.
//!
//! ```text
//!  worker: begin (headers, policy) --> the request goes its way --> end: a span --try_send--> thread "otlp-spans": batches --> collector
//! ```
//!
//! Invariants: without a collector, and for a request that isn't sampled, nothing is allocated and headers pass as they are;
//! a worker never waits for a collector: what doesn't fit into the queue is dropped and counted.

mod begin;
mod context;
mod export;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

pub(crate) use begin::{Place, Trace, begin};
pub(crate) use context::trace_of;
pub(crate) use export::Finished;
pub use export::{Spans, start};
