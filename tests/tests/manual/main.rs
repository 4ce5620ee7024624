//! Commands of the manual that only read and write objects, and the examples, on a real API server without nodes.
//! `make cluster-build` makes what it needs: `cargo test -p weft-tests --test manual -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod commands;
mod examples;
