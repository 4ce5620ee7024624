//! The CNI plugin, as container runtimes call it.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use weft_cni::plugin::{Environment, run};

/// More than any network configuration; a runtime that writes without end must not fill the memory.
const STDIN_LIMIT: u64 = 16 << 20;

fn main() -> anyhow::Result<ExitCode> {
    let mut stdin = Vec::new();
    std::io::stdin().lock().take(STDIN_LIMIT).read_to_end(&mut stdin)?;
    let environment = Environment::from_variables(|name| std::env::var(name).ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&environment, &stdin, &mut std::io::stderr()));
    std::io::stdout().lock().write_all(outcome.stdout.as_bytes())?;
    Ok(ExitCode::from(outcome.status))
}
