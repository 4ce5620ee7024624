//! NetworkPolicies beside the mesh: the network enforces them on packets, so there have to be some.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use support::{Mesh, upsert};
use weft_core::change::Resource;
use weft_core::workload::Workload;
use weft_testkit::capture::Capture;
use weft_testkit::clients as tcp;
use weft_testkit::servers::{self, Behaviour};

const SECRET: &[u8] = b"the secret that must not be on the wire";

weft_testkit::netns_tests! {
    a_pod_that_a_network_policy_selects_is_reached_over_the_network,
    a_deny_blocks_on_one_node_and_between_nodes,
}

/// As a NetworkPolicy makes it that selects these pods.
fn select(mesh: &Mesh, names: &[&str], selected: bool) {
    let workload = |name: &&str| Workload { network_policy: selected, ..mesh.workload(name, true) };
    let changes: Vec<_> = names.iter().map(|name| upsert(Resource::Workload(Arc::new(workload(name))))).collect();
    mesh.apply(&changes);
}

fn a_pod_that_a_network_policy_selects_is_reached_over_the_network() -> Result<()> {
    let mesh = Mesh::of(&["a", "b"])?;
    let (a, b) = (mesh.pod("a"), mesh.pod("b"));
    let _server = servers::tcp(&b, "b", servers::any(7000), Behaviour::Echo)?;
    // Neither, client, server, both. A tunnel that is there lives on, so neither comes first.
    for (selected, ports) in [(&[][..], &[][..]), (&["a"], &[15008]), (&["b"], &[15008]), (&["a", "b"], &[15008])] {
        select(&mesh, &["a", "b"], false);
        select(&mesh, selected, true);
        let capture = Capture::start(&b, "eth0")?;
        ensure!(a.block_on(tcp::exchange(b.addr(7000), SECRET))? == SECRET);
        let packets = capture.stop()?;
        if !ports.is_empty() {
            packets.assert_no_plaintext(SECRET);
        }
        let mut crossed: Vec<_> = packets.flows().iter().map(|flow| flow.from().port().min(flow.to().port())).collect();
        crossed.sort_unstable();
        crossed.dedup();
        ensure!(crossed == ports, "with {selected:?} selected: {crossed:?}");
    }
    Ok(())
}

fn a_deny_blocks_on_one_node_and_between_nodes() -> Result<()> {
    let mesh = Mesh::of(&["a", "b", "c"])?;
    let a = mesh.pod("a");
    for name in ["b", "c"] {
        let to = mesh.pod(name);
        let _server = servers::tcp(&to, name, servers::any(7000), Behaviour::Echo)?;
        let call = || a.block_on(tcp::exchange(to.addr(7000), SECRET));
        ensure!(call().with_context(|| format!("{name} before"))? == SECRET);
        // What a network does that enforces a policy without an entry for `a`, tunnels that are open included.
        let deny = format!(
            "add table inet deny; add chain inet deny in {{ type filter hook input priority 0; }}; \
             add rule inet deny in ip saddr {} meta l4proto tcp reject with tcp reset",
            a.ipv4()
        );
        to.exec(&format!("nft {deny}"))?;
        select(&mesh, &[name], true);
        ensure!(call().is_err(), "{name} was reached");
        to.exec("nft delete table inet deny")?;
        ensure!(call().with_context(|| format!("{name} after"))? == SECRET);
    }
    Ok(())
}
