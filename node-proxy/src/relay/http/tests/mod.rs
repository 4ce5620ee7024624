//! The HTTP stage between pipes: what a client and an application see, on both versions of HTTP, with the clock paused.

mod attacks;
mod churn;
mod edge;
mod extended;
mod external_auth;
mod flow;
mod gateway;
mod grpc_web;
mod inbound;
mod interim;
mod log_export;
mod policy;
mod probe;
mod reasons;
mod retry;
mod session;
mod stalled;
mod tap;
mod trace;
mod turned_away;
mod world;
