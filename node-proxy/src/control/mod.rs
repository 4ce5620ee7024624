//! The conversation with the control plane: the client of configuration.

mod bound;
mod config;

pub use self::config::{ConfigClient, ListensFrom};
