//! Bytes and requests between two ends.

pub mod front;
pub mod http;
pub mod tcp;
