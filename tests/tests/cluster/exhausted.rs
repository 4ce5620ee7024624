//! Nodes that have no more room on the disk.

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{Cluster, PATIENCE, SYSTEM, eventually};

use crate::meshed::{Meshed, breaking};

const NODE: &str = "node2";

/// The node's folder for sockets is a disk of its own, which can be full.
struct Disk<'a>(&'a Cluster);

impl<'a> Disk<'a> {
    /// Agent and proxy are killed, so that they start on it.
    fn mount(cluster: &'a Cluster) -> Result<Self> {
        let disk = Self(cluster);
        disk.sh("mount -t tmpfs -o size=1m,nr_inodes=64 weft-test /run/weft")?;
        disk.restart()?;
        Ok(disk)
    }

    fn sh(&self, command: &str) -> Result<()> {
        let output = self.0.on_node(NODE, &["sh", "-c", command]).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn restart(&self) -> Result<()> {
        for part in ["weft-agent", "weft-node-proxy"] {
            self.0.crash(NODE, part)?;
        }
        for part in ["weft-agent", "weft-node-proxy"] {
            self.0.wait_rollout(SYSTEM, &format!("daemonset/{part}"))?;
        }
        Ok(())
    }

    fn fill(&self) -> Result<()> {
        self.sh(
            "cd /run/weft && i=0; while touch filler-$i 2>/dev/null; do i=$((i + 1)); [ $i -lt 1000 ] || exit 1; done",
        )
    }

    fn make_room(&self) -> Result<()> {
        self.sh("rm -f /run/weft/filler-*")
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // Whatever becomes of the test: the next one needs the node as it was.
        let _ = self.sh("umount -l /run/weft").and_then(|()| self.restart());
    }
}

/// New proxies and agents can't make their sockets. The old proxy goes on until they can.
#[test]
#[ignore = "needs a cluster"]
fn a_rollout_onto_a_full_disk_waits_and_costs_no_request() -> Result<()> {
    let meshed = Meshed::open("t-full-disk")?;
    breaking(&meshed, || {
        let disk = Disk::mount(meshed.cluster())?;
        meshed.is_back()?;
        let load = meshed.load(120)?;
        let cluster = meshed.cluster();
        let serving = cluster.part("weft-node-proxy", NODE)?;
        // An agent has the place of the one before. What it leaves free is filled, too.
        for part in ["daemonset/weft-agent", "daemonset/weft-node-proxy"] {
            disk.fill()?;
            cluster.k(&["-n", SYSTEM, "rollout", "restart", part])?;
            if part.ends_with("agent") {
                cluster.wait_rollout(SYSTEM, part)?;
            }
        }
        eventually("a new proxy to fail on the full disk", PATIENCE, || {
            let pods = cluster.json(&["-n", SYSTEM, "pods", "-l", "app.kubernetes.io/name=weft-node-proxy"])?;
            let pods = pods["items"].as_array().context("pods")?;
            let new = pods.iter().find(|pod| {
                pod["spec"]["nodeName"] == NODE && pod["metadata"]["name"].as_str() != Some(serving.as_str())
            });
            let status = &new.context("none yet")?["status"]["containerStatuses"][0];
            ensure!(status["restartCount"].as_u64() > Some(0), "{status}");
            Ok(())
        })?;
        load.goes_on()?;
        meshed.is_strict()?;
        disk.make_room()?;
        for part in ["weft-agent", "weft-node-proxy"] {
            cluster.wait_rollout(SYSTEM, &format!("daemonset/{part}"))?;
        }
        load.all_answered()?;
        drop(disk);
        meshed.is_back()
    })
}
