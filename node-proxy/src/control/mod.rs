//! The conversation with the control plane: the client of configuration.

mod config;

pub use self::config::ConfigClient;
