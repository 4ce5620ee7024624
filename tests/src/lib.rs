//! World, namespace, demo and benchmark harnesses.

#![allow(clippy::indexing_slicing, clippy::panic, reason = "test code: a panic is how a test fails")]

pub mod apiserver;
mod chatter;
pub mod cluster;
mod dns;
pub mod edge;
mod flood;
pub mod guide;
mod machine;
pub mod manual;
mod mesh;
mod observatory;
#[cfg(test)]
mod outages;
mod pods;
mod setup;
mod tools;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use chatter::{chatter, echoes};
pub use dns::resolve;
pub use flood::{Flood, flood};
pub use machine::Machine;
pub use mesh::{Mesh, MeshNode, NODES, Programs};
pub use observatory::{Observatory, SHOP_GATEWAY, STATUS_LISTEN, Target};
pub use pods::{PodManifest, RunningPod, pod_manifests};
pub use setup::{Invitation, Setup};
pub use tools::{installed, tool};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shop of the examples on two nodes, with all its pods and endpoints ready. `proxy` are more options of the
/// proxies.
///
/// # Errors
/// When something doesn't come up; with its log.
pub fn shop(proxy: &[&str]) -> Result<Mesh> {
    let mut mesh = bare_shop(Setup { proxy, ..Setup::default() })?;
    mesh.start_pods()?;
    mesh.wait_endpoints()?;
    Ok(mesh)
}

/// The nodes of the shop, without its pods.
///
/// # Errors
/// When something doesn't come up; with its log.
pub fn bare_shop(setup: Setup<'_>) -> Result<Mesh> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    let usual = ["--workers", "1", "--access-log", "all", "--drain-deadline", "1s", "--replaced-deadline", "30s"];
    Mesh::start(&manifests, Setup { proxy: &[&usual, setup.proxy].concat(), ..setup })
}

/// Waits until something holds.
///
/// # Errors
/// When it doesn't within half a minute, or looking fails.
pub fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds().with_context(|| what.to_owned())? {
        if Instant::now() > end {
            bail!("not within {PATIENCE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The text of all files below a directory; none if it isn't there.
///
/// # Errors
/// When a file can't be read.
pub fn read_all(dir: &Path) -> Result<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(String::new()) };
    let mut text = String::new();
    for entry in entries {
        let path = entry?.path();
        text += &if path.is_dir() { read_all(&path)? } else { std::fs::read_to_string(&path)? };
    }
    Ok(text)
}
