//! What Weft does on a real Kubernetes. Each test has namespaces of its own; `make cluster-test` runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod check;
mod collector;
mod dashboard;
mod enrolment;
mod failures;
mod gateway;
mod istio;
mod lifecycle;
mod mtls;
mod observability;
mod prometheus;
mod refusals;
mod routes;
mod seeing;
mod strict;
mod tap;
mod workloads;
