//! The `nft` program, inside a namespace.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use weft_sys::Netns;

use super::apply::RulesError;

/// nft answers in milliseconds; a machine without memory may take longer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Where distributions put it, also when the agent's PATH doesn't say so.
const PLACES: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// How to run `nft`.
#[derive(Debug)]
pub(super) struct Nft {
    program: PathBuf,
}

impl Nft {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Runs one transaction.
    pub(super) async fn load(&self, netns: &Netns, text: &str) -> Result<(), RulesError> {
        self.run(netns, &["-f", "-"], text).await.map(drop)
    }

    /// What the namespace holds of the table, without what differs between two equal tables (handles, versions);
    /// `None` when there is no such table.
    pub(super) async fn list(&self, netns: &Netns) -> Result<Option<Value>, RulesError> {
        let args = ["--json", "list", "table", "inet", super::TABLE];
        let text = match self.run(netns, &args, "").await {
            Err(RulesError::Nft { message }) if message.contains("No such file") => return Ok(None),
            other => other?,
        };
        let mut listing: Value = serde_json::from_slice(&text).map_err(RulesError::Listing)?;
        if let Some(items) = listing.get_mut("nftables").and_then(Value::as_array_mut) {
            items.retain(|item| item.get("metainfo").is_none());
        }
        strip_handles(&mut listing);
        Ok(Some(listing))
    }

    async fn run(&self, netns: &Netns, args: &[&str], stdin: &str) -> Result<Vec<u8>, RulesError> {
        let path = std::env::var("PATH").map_or_else(|_| PLACES.to_owned(), |path| format!("{path}:{PLACES}"));
        let mut command = Command::new(&self.program);
        command.args(args).env("PATH", path).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The child inherits the namespace of the thread that starts it.
        let child = netns.run(|| command.spawn()).map_err(RulesError::Enter)?;
        let child = child.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                RulesError::MissingProgram { program: self.program.clone(), package: "nftables" }
            }
            _ => RulesError::Program(e),
        })?;
        tokio::time::timeout(DEADLINE, talk(child, stdin)).await.map_err(|_| RulesError::Timeout(DEADLINE))?
    }
}

fn strip_handles(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.shift_remove("handle");
            fields.values_mut().for_each(strip_handles);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_handles),
        _ => {}
    }
}

async fn talk(mut child: Child, stdin: &str) -> Result<Vec<u8>, RulesError> {
    if let Some(mut pipe) = child.stdin.take() {
        // nft that stops reading says why on its standard error.
        let _closed = pipe.write_all(stdin.as_bytes()).await;
    }
    let out = child.wait_with_output().await.map_err(RulesError::Program)?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    Err(RulesError::Nft { message: String::from_utf8_lossy(&out.stderr).trim().to_owned() })
}
