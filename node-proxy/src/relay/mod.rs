//! Bytes and requests between two ends.

pub(crate) mod encrypted;
pub mod front;
pub mod http;
pub mod tcp;
