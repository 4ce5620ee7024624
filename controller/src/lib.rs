//! Watches Kubernetes or a directory, computes configuration and status, serves delta xDS.

pub mod audit;
pub mod dns;
pub mod kubernetes;
mod publish;
pub mod standalone;
pub mod view;
