//! Bytes and requests between two ends.

pub mod front;
