//! The data plane of Weft: node and gateway fronts.
//!
//! Two short pipelines of the same stages, which are also the module names. Outbound: `accept`, [`identify`],
//! `route`, [`connect`], [`relay`]. Inbound: `accept`, [`identify`], [`authorize`], [`connect`], [`relay`].
//!
//! Invariants:
//! - connection state never crosses threads: it lives on one worker, a current-thread runtime with its `LocalSet`;
//! - whose connection it is follows from the listener that accepted it, never from an address;
//! - nothing reaches an application without a `Permit`, which only [`authorize`] can make.

#![forbid(unsafe_code)]

mod accept;
pub mod admin;
pub mod app;
pub mod authorize;
pub mod balance;
pub mod budget;
pub mod connect;
pub mod control;
mod external;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod handover;
pub mod identify;
pub mod inpod;
pub mod observe;
pub mod otlp;
mod pipeline;
pub mod plain;
pub mod process;
mod proxy_protocol;
pub mod records;
pub mod relay;
mod route;
pub mod store;
pub mod tap;
pub mod telemetry;
pub mod trace;
mod util;
pub mod worker;

pub use pipeline::InboundHalf;
