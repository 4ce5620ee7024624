//! The plugin's binary, the agent and a proxy, around real pods.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is how a test fails"
)]

#[path = "support/bypass.rs"]
mod bypass;
#[path = "support/disk.rs"]
mod disk;
#[path = "support/proxy.rs"]
mod fake;
#[path = "support/node.rs"]
mod node;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bypass::{
    an_order_needs_no_agent_and_outlives_it, an_order_of_root_opens_what_takes_plaintext_and_gives_it_back,
    an_order_that_cannot_be_written_opens_all_the_same_and_says_so, an_order_touches_no_namespace_but_the_pods_own,
};
use disk::on_a_full_disk_pods_that_run_are_enrolled_and_the_agent_waits_for_room;
use fake::FakeProxy;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use node::{Bench, Running, Source};
use serde_json::{Value, json};
use support::{SOON, app, block_on, dial, refused, soon, sys};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use weft_cni::agent::{
    Agent, AgentOptions, Counts, Decision, Enrolled, EnrolmentSource, LocalPod, Outside, PodRef, Protection, Undecided,
};
use weft_cni::rules::OlderFlows;
use weft_core::ids::Namespace;
use weft_testkit::{Netns, Pod, World, netns_tests};

netns_tests! {
    add_check_del,
    without_a_proxy_a_pod_stays_closed_until_one_comes,
    a_proxy_that_refuses_fails_the_add,
    an_undecided_pod_is_tried_again,
    a_pod_outside_is_untouched_and_can_join_and_leave,
    what_becomes_strict_is_enforced_at_once,
    what_is_presumed_is_for_pods_that_start,
    the_agent_restarts,
    what_passed_without_the_agent_is_taken_over,
    one_proxy_replaces_another,
    garbage_is_collected,
    a_pod_that_vanishes_is_dropped,
    the_nodes_own_namespace_is_refused,
    an_order_of_root_opens_what_takes_plaintext_and_gives_it_back,
    an_order_needs_no_agent_and_outlives_it,
    an_order_that_cannot_be_written_opens_all_the_same_and_says_so,
    an_order_touches_no_namespace_but_the_pods_own,
    on_a_full_disk_pods_that_run_are_enrolled_and_the_agent_waits_for_room,
}

fn ruleset(pod: &Pod) -> Result<String> {
    pod.exec("nft list ruleset")
}

fn add_check_del() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        // Rarely: it must be CHECK that finds the damage, not the agent's own round.
        let running = bench.agent_verifying(Duration::from_secs(3600)).await?;
        let mut proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        let rules_before = a.exec("ip rule")?;
        let added = bench.plugin("ADD", "shop", &a).await?;
        ensure!(*added.ok()? == Bench::result(&a), "the result of the plugins before is passed on: {}", added.json);
        {
            let pods = proxy.pods.lock().unwrap();
            let (workload, netns, _) = pods.get(a.name()).context("the proxy has the pod when ADD returns")?;
            ensure!(*netns == sys(&a)?);
            ensure!(workload.uid == format!("Kubernetes//Pod/shop/{}", a.name()), "{workload:?}");
            ensure!(
                workload.service_account == "cart" && workload.ips.len() == 2 && workload.node == "n",
                "{workload:?}"
            );
        }
        dial(&sys(&b)?, a.addr(8080)).await.context("redirected to the proxy's listener")?;
        dial(&sys(&a)?, b.addr(8080)).await.context("redirected to the proxy's listener")?;
        running.protected(1).await?;
        bench.plugin("ADD", "shop", &a).await?.ok().context("the same call again")?;
        bench.plugin("CHECK", "shop", &a).await?.ok()?;
        bench.plugin("STATUS", "shop", &a).await?.ok()?;

        a.exec("nft flush chain inet weft outbound")?;
        bench.plugin("CHECK", "shop", &a).await?.failed(100)?;
        soon("the agent repairs it", async {
            while bench.plugin("CHECK", "shop", &a).await?.status != Some(0) {}
            anyhow::Ok(())
        })
        .await?;

        bench.plugin("DEL", "shop", &a).await?.ok()?;
        ensure!(ruleset(&a)?.is_empty() && a.exec("ip rule")? == rules_before, "nothing is left in the pod");
        proxy.until("the proxy lets go", |pods| pods.is_empty()).await?;
        ensure!(running.agent.pods().borrow().is_empty());
        ensure!(std::fs::read_dir(bench.dir.path().join("state"))?.next().is_none(), "no record is left");
        bench.plugin("DEL", "shop", &a).await?.ok().context("DEL of what is gone")?;
        bench.plugin("CHECK", "shop", &a).await?.failed(3)?;
        Ok(())
    })
}

fn without_a_proxy_a_pod_stays_closed_until_one_comes() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        let running = bench.agent().await?;
        let text = bench.plugin("ADD", "shop", &a).await?.failed(11)?;
        ensure!(text.contains("no node proxy is connected"), "{text}");
        let server = app(&sys(&a)?, a.addr(8080))?;
        let knock = tokio::time::timeout(support::A_WHILE, dial(&sys(&b)?, a.addr(8080))).await;
        ensure!(knock.is_err(), "closed: {knock:?}");
        support::nobody_comes(&server).await?;
        ensure!(running.agent.counts() == Counts { closed: 1, ..Counts::default() }, "{:?}", running.agent.counts());

        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(1).await?;
        dial(&sys(&b)?, a.addr(8080)).await?;
        support::nobody_comes(&server).await?;
        drop(_proxy);
        running.until("the pod isn't served", |pods| Counts::of(pods).closed == 1).await?;
        refused(&sys(&b)?, a.addr(8080)).await.context("never in the clear")
    })
}

fn a_proxy_that_refuses_fails_the_add() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let a = bench.world.pod("a");
    block_on(async {
        let running = bench.agent().await?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), Some("out of descriptors")).await?;
        let text = bench.plugin("ADD", "shop", &a).await?.failed(11)?;
        ensure!(text.contains("out of descriptors"), "{text}");
        ensure!(ruleset(&a)?.contains("closed-in"), "closed");
        let _better = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(1).await
    })
}

fn an_undecided_pod_is_tried_again() -> Result<()> {
    let bench = Bench::new(&[])?;
    let a = bench.world.pod("a");
    block_on(async {
        let running = bench.agent().await?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        let text = bench.plugin("ADD", "new", &a).await?.failed(11)?;
        ensure!(text.contains("is not known yet"), "{text}");
        bench.source.set("new", true);
        bench.plugin("ADD", "new", &a).await?.ok()?;
        running.protected(1).await
    })
}

fn a_pod_outside_is_untouched_and_can_join_and_leave() -> Result<()> {
    let bench = Bench::new(&[("plain", false)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        let running = bench.agent().await?;
        let mut proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        ensure!(*bench.plugin("ADD", "plain", &a).await?.ok()? == Bench::result(&a));
        bench.plugin("CHECK", "plain", &a).await?.ok()?;
        ensure!(ruleset(&a)?.is_empty() && proxy.held().is_empty());
        let pods = running.until("it is known", |pods| pods.len() == 1).await?;
        ensure!(pods[0].protection == Protection::Outside(Outside::NotLabelled) && pods[0].ips == a.ips(), "{pods:?}");

        let server = app(&sys(&a)?, a.addr(8080))?;
        let mut older = dial(&sys(&b)?, a.addr(8080)).await?;
        let mut accepted = soon("accept", server.accept()).await?.0;
        bench.source.set("plain", true);
        running.protected(1).await?;
        ensure!(proxy.held() == [a.name()]);
        let pods = running.agent.pods().borrow().clone();
        ensure!(pods[0].service_account.as_ref().is_some_and(|s| s.as_str() == "cart"), "{pods:?}");
        dial(&sys(&b)?, a.addr(8080)).await?;
        support::nobody_comes(&server).await?;
        support::carries(&mut older, &mut accepted).await.context("connections older than the enrolment go on")?;

        bench.source.set("plain", false);
        running.until("it left", |pods| Counts::of(pods).outside == 1).await?;
        ensure!(ruleset(&a)?.is_empty());
        proxy.until("the proxy lets go", |pods| pods.is_empty()).await?;
        dial(&sys(&b)?, a.addr(8080)).await?;
        soon("in the clear again", server.accept()).await?;
        Ok(())
    })
}

fn what_becomes_strict_is_enforced_at_once() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let a = bench.world.pod("a");
    block_on(async {
        // Rarely: it must be the other decision that changes the rules, not the agent's own round.
        let running = bench.agent_verifying(Duration::from_secs(3600)).await?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        bench.plugin("ADD", "shop", &a).await?.ok()?;
        running.protected(1).await?;
        ensure!(!ruleset(&a)?.contains("older-in"), "older connections may go on");
        bench.source.close_older_flows();
        soon("older connections are closed", async {
            while !ruleset(&a)?.contains("older-in") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        running.protected(1).await
    })
}

fn what_is_presumed_is_for_pods_that_start() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        let running = bench.agent().await?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        bench.plugin("ADD", "shop", &a).await?.ok()?;
        bench.source.lose_all_but("shop");
        bench.plugin("ADD", "shop", &b).await?.ok().context("as without an agent")?;
        ensure!(ruleset(&b)?.is_empty());
        bench.plugin("ADD", "shop", &a).await?.failed(11).context("the same call again")?;
        // A round with verification goes by meanwhile.
        tokio::time::sleep(support::A_WHILE).await;
        ensure!(ruleset(&a)?.contains("redirect to :15001"), "it was decided, and runs");
        let both = Counts { protected: 1, outside: 1, ..Counts::default() };
        running.until("both", |pods| Counts::of(pods) == both).await.map(drop)
    })
}

fn the_agent_restarts() -> Result<()> {
    let bench = Bench::new(&[("shop", true), ("plain", false)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    let c = bench.world.add_pod("n", "c")?;
    block_on(async {
        let running = bench.agent().await?;
        let proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        bench.plugin("ADD", "shop", &a).await?.ok()?;
        bench.plugin("ADD", "plain", &b).await?.ok()?;
        bench.plugin("ADD", "shop", &c).await?.ok()?;
        running.stop(&bench).await?;
        drop(proxy);

        // Meanwhile: one pod's rules are broken, another is gone, and the source has nothing yet.
        a.exec("nft flush ruleset")?;
        a.exec("ip rule del priority 20574")?;
        nix::mount::umount2(&c.path(), nix::mount::MntFlags::MNT_DETACH)?;
        bench.source.namespaces.lock().unwrap().clear();

        let running = bench.agent().await?;
        let mut names: Vec<_> = running.agent.pods().borrow().iter().map(|p| p.sandbox.to_string()).collect();
        names.sort();
        ensure!(names == [a.name(), b.name()], "{names:?}");
        // Still protected by the former decision, and repaired even before a proxy is there: refused, not in the clear.
        soon("repaired", async {
            while !ruleset(&a)?.contains("redirect to :15001") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        refused(&sys(&b)?, a.addr(8080)).await?;
        let proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(1).await?;
        ensure!(proxy.held() == [a.name()]);
        ensure!(running.agent.counts() == Counts { protected: 1, outside: 1, ..Counts::default() });
        bench.plugin("DEL", "shop", &a).await?.ok()?;
        ensure!(ruleset(&a)?.is_empty());
        Ok(())
    })
}

fn what_passed_without_the_agent_is_taken_over() -> Result<()> {
    let bench = Bench::new(&[("plain", false), ("shop", true)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        bench.plugin("ADD", "plain", &a).await?.failed(11).context("no agent ever ran")?;
        bench.agent().await?.stop(&bench).await?;
        bench.plugin("ADD", "shop", &b).await?.failed(11).context("in the mesh: waits for the agent")?;
        bench.plugin("ADD", "unknown", &b).await?.failed(11).context("may be in the mesh: waits too")?;
        bench.plugin("ADD", "plain", &a).await?.ok().context("known to be outside")?;
        bench.plugin("DEL", "shop", &b).await?.ok().context("DEL never fails")?;

        // The label came while the agent was down.
        bench.source.set("plain", true);
        let running = bench.agent().await?;
        let pods = running.until("taken over", |pods| Counts::of(pods).unprotected == 1).await?;
        ensure!(pods[0].pod.namespace.as_str() == "plain" && pods[0].ips == a.ips(), "{pods:?}");
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(1).await?;
        ensure!(std::fs::read_dir(bench.dir.path().join("missed"))?.next().is_none(), "the note is gone");
        bench.plugin("CHECK", "plain", &a).await?.ok().map(drop)
    })
}

fn one_proxy_replaces_another() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    let c = bench.world.add_pod("n", "c")?;
    block_on(async {
        let running = bench.agent().await?;
        let mut old = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        bench.plugin("ADD", "shop", &a).await?.ok()?;
        let mut new = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        new.until("the new one gets the snapshot", |pods| pods.len() == 1).await?;
        running.protected(1).await?;
        bench.plugin("ADD", "shop", &b).await?.ok()?;
        ensure!(old.held() == [a.name()], "new pods go to the newest only: {:?}", old.held());
        ensure!(new.held() == [a.name(), b.name()]);
        bench.plugin("DEL", "shop", &a).await?.ok()?;
        old.until("the old one hears of removals", |pods| pods.is_empty()).await?;
        new.until("so does the new one", |pods| pods.len() == 1).await?;
        // The new one crashes: the old one is the newest again, and gets what it wasn't told.
        drop(new);
        old.until("it takes over", |pods| pods.contains_key(b.name())).await?;
        running.protected(1).await?;
        bench.plugin("ADD", "shop", &c).await?.ok()?;
        ensure!(old.held() == [b.name(), c.name()]);
        running.protected(2).await
    })
}

fn garbage_is_collected() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let (a, b) = (bench.world.pod("a"), bench.world.pod("b"));
    block_on(async {
        let running = bench.agent().await?;
        let proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        for pod in [&a, &b] {
            bench.plugin("ADD", "shop", pod).await?.ok()?;
        }
        let valid = json!({ "cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": b.name(), "ifname": "eth0"}] });
        bench.call("GC", "shop", &a, valid).await?.ok()?;
        running.until("one is left", |pods| pods.len() == 1).await?;
        ensure!(ruleset(&a)?.is_empty() && !ruleset(&b)?.is_empty());
        bench.plugin("CHECK", "shop", &b).await?.ok()?;
        drop(proxy);
        Ok(())
    })
}

fn a_pod_that_vanishes_is_dropped() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    let a = bench.world.pod("a");
    block_on(async {
        let running = bench.agent().await?;
        let mut proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        bench.plugin("ADD", "shop", &a).await?.ok()?;
        nix::mount::umount2(&a.path(), nix::mount::MntFlags::MNT_DETACH)?;
        running.until("dropped", |pods| pods.is_empty()).await?;
        proxy.until("the proxy lets go", |pods| pods.is_empty()).await
    })
}

fn the_nodes_own_namespace_is_refused() -> Result<()> {
    let bench = Bench::new(&[("shop", true)])?;
    block_on(async {
        let _running = bench.agent().await?;
        let here = Netns::here();
        let mut config = json!({"prevResult": {"ips": []}});
        config["agentSocket"] = json!(bench.dir.path().join("agent.sock"));
        let own = std::fs::canonicalize("/proc/self")?.join("ns/net");
        let mut plugin = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft-cni"));
        plugin.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", "c").env("CNI_IFNAME", "eth0").env("CNI_NETNS", own);
        plugin.env("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=x");
        config["cniVersion"] = json!("1.0.0");
        let mut child = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(config.to_string().as_bytes()).await?;
        let out = child.wait_with_output().await?;
        let error: Value = serde_json::from_slice(&out.stdout)?;
        ensure!(error["code"] == 4 && error["msg"].to_string().contains("node's own"), "{error}");
        ensure!(here.exec("nft list ruleset")?.is_empty(), "nothing was set on the node");
        Ok(())
    })
}
