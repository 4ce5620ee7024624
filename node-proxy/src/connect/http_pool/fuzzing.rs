//! See [`crate::fuzzing`].

pub use super::h1::fuzzing::answer;
