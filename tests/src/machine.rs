//! A machine without Kubernetes that is a Gateway: `weft standalone` on a directory of manifests, and the network around it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use weft_testkit::clients::connect;
use weft_testkit::process::Process;
use weft_testkit::{Netns, World};

use crate::{Programs, edge, eventually};

const NODE: &str = "node-a";
/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The machine, in namespaces of its own. Dropping it ends everything.
#[derive(Debug)]
pub struct Machine {
    node: Process,
    world: World,
    manifests: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Machine {
    /// The address that the network around it has: clients come from there, and endpoints may be there.
    pub const OUTSIDE: &str = "172.31.0.254";

    /// A machine with these manifests. Ready to be asked when [`Machine::listens`] has said so.
    ///
    /// # Errors
    /// When it doesn't come up; with its log.
    pub fn start(manifests: tempfile::TempDir) -> Result<Self> {
        let world = World::builder().node(NODE).build()?;
        world.wire().ip(&[format!("addr add {}/24 dev wire", Self::OUTSIDE)])?;
        let home = tempfile::tempdir()?;
        let mut command = Programs::find()?.weft();
        command.args(["standalone", "--node", NODE, "--dir"]).arg(manifests.path());
        command.arg("--state").arg(home.path().join("state")).arg("--run").arg(home.path().join("run"));
        command.args(["--", "--workers", "2", "--drain-deadline", "1s"]);
        let mut node = Process::start(world.node(NODE), command)?;
        node.wait_until(PATIENCE, |log| log.contains("node started"))?;
        Ok(Self { node, world, manifests, home })
    }

    /// Waits until somebody listens on TCP ports.
    ///
    /// # Errors
    /// When nobody does; with the log.
    pub fn listens(&self, ports: &[u16]) -> Result<()> {
        for port in ports {
            let at = self.at(*port);
            let listens = || Ok(self.outside().block_on(connect(at)).is_ok());
            eventually("the Gateways listen", listens).with_context(|| self.log())?;
        }
        Ok(())
    }

    /// Its address as others reach it.
    pub fn address(&self) -> IpAddr {
        self.world.node(NODE).ipv4().into()
    }

    /// A port of it.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.address(), port).into()
    }

    /// Its own network, for other programs that run on it.
    pub fn inside(&self) -> &Netns {
        self.world.node(NODE)
    }

    /// What `weft status` says of it.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn shown(&self) -> Result<Value> {
        let mut command = Programs::find()?.weft();
        let output = command.args(["status", "-o", "json", "--run"]).arg(self.home.path().join("run")).output()?;
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The network around it.
    pub fn outside(&self) -> &Netns {
        self.world.wire()
    }

    /// Its manifests, which may be edited.
    pub fn manifests(&self) -> &Path {
        self.manifests.path()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.node.log().unwrap_or_default()
    }

    /// The status of an object, as `httproute.edge.web`, if there is one.
    ///
    /// # Errors
    /// It can't be read.
    pub fn status(&self, object: &str) -> Result<Option<Value>> {
        edge::status(self.manifests(), object)
    }
}
