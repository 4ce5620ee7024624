//! The HTTP stage between pipes: what a client and an application see, on both versions of HTTP, with the clock paused.

mod churn;
mod edge;
mod extended;
mod flow;
mod gateway;
mod inbound;
mod interim;
mod policy;
mod probe;
mod world;
