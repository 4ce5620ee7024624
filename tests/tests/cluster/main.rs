//! What Weft does on a real Kubernetes. Each test has namespaces of its own; `make cluster-test` runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod backends;
mod check;
mod collector;
mod dashboard;
mod enrolment;
mod exhausted;
mod failures;
mod gateway;
mod guides;
mod http3;
mod identity;
mod istio;
mod life;
mod lifecycle;
mod meshed;
mod mtls;
mod observability;
mod outages;
mod prometheus;
mod provisioned;
mod refusals;
mod release;
mod routes;
mod seeing;
mod skew;
mod soak;
mod strict;
mod tap;
mod teams;
mod upgrades;
mod wayback;
mod workloads;
