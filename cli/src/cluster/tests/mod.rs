//! Tables of the checks, golden screens, and reading from an API server in memory.

mod checks;
mod reading;
mod sample;
mod screens;

pub use sample::healthy;
