//! Test-only: network namespace nodes, echo servers, load clients, fakes.
