//! Where objects come from. A Kubernetes watch is not here: it would bring the client along.

pub mod dir;
mod state;
mod status;
mod walk;

pub use dir::{DirOptions, DirSource, Scan};
