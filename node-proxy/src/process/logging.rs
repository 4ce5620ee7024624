//! The process's own log: lines on standard error, with a filter that can be set while it runs.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// Sets the filter.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Sets the filter, such as `info` or `weft_node_proxy=debug,info`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
        self.0.reload(filter).map_err(|e| e.to_string())
    }
}

/// Starts logging: text for a terminal, one JSON object a line otherwise.
///
/// # Errors
/// A filter that can't be read, or a process that logs already.
pub fn start_logging(filter: &str) -> anyhow::Result<LogControl> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if terminal { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("logging")?;
    Ok(LogControl(handle))
}
