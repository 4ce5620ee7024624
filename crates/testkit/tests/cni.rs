//! The CNI runtime calls plugins as the specification says; Debian's plugins wire a pod that then works.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_testkit::servers::{Behaviour, any};
use weft_testkit::{Attachment, CniChain, World, clients, cni, netns_tests, servers};

netns_tests! {
    results_pass_from_plugin_to_plugin_and_back,
    a_failing_plugin_ends_add_with_its_error,
    gc_names_what_is_valid_to_every_plugin,
    debians_bridge_wires_a_pod,
}

/// A plugin that writes what it got beside itself, `NAME.COMMAND.json` and `.env`, and answers ADD with its own name.
fn recorder(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    let script = "#!/bin/sh\ncat > \"$0.$CNI_COMMAND.json\"; env > \"$0.$CNI_COMMAND.env\"\n\
        [ -e \"$0.fail\" ] && { echo '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"later\"}'; exit 1; }\n\
        [ $CNI_COMMAND = ADD ] && echo \"{\\\"cniVersion\\\":\\\"1.0.0\\\",\\\"by\\\":\\\"${0##*/}\\\"}\"\nexit 0\n";
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn got(folder: &Path, call: &str) -> Result<Value> {
    let text = std::fs::read_to_string(folder.join(format!("{call}.json"))).context("never called")?;
    Ok(serde_json::from_str(&text)?)
}

fn chain(folder: &Path, version: &str) -> Result<CniChain> {
    let chain = CniChain::new("test", version);
    let chain = chain.plugin(recorder(folder, "first")?, json!({ "type": "first", "own": 1 }));
    Ok(chain.plugin(recorder(folder, "second")?, json!({ "type": "second" })))
}

fn results_pass_from_plugin_to_plugin_and_back() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let (folder, pod) = (tempfile::tempdir()?, world.pod("p"));
    let (folder, chain) = (folder.path(), chain(folder.path(), "1.0.0")?);
    let attachment = Attachment::of(&pod, "shop");
    let result = chain.add(world.node("n"), &attachment)?;
    ensure!(result["by"] == "second", "{result}");
    let first = got(folder, "first.ADD")?;
    ensure!(first["prevResult"]["ips"][0]["address"] == format!("{}/24", pod.ipv4()), "{first}");
    ensure!((&first["own"], &first["name"], &first["cniVersion"]) == (&json!(1), &json!("test"), &json!("1.0.0")));
    ensure!(got(folder, "second.ADD")?["prevResult"]["by"] == "first");
    let env = std::fs::read_to_string(folder.join("second.ADD.env"))?;
    for entry in ["K8S_POD_NAMESPACE=shop;K8S_POD_NAME=p;", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/w"] {
        ensure!(env.contains(entry), "{entry} isn't in {env}");
    }
    chain.check(world.node("n"), &attachment)?;
    chain.del(world.node("n"), &attachment)?;
    for call in ["first.CHECK", "second.CHECK", "first.DEL", "second.DEL"] {
        ensure!(got(folder, call)?["prevResult"]["by"] == "second", "{call}");
    }
    let when = |call: &str| std::fs::metadata(folder.join(format!("{call}.env")))?.modified();
    ensure!(when("second.DEL")? < when("first.DEL")?, "DEL goes backwards");
    Ok(())
}

fn a_failing_plugin_ends_add_with_its_error() -> Result<()> {
    let world = World::builder().node("n").build()?;
    let folder = tempfile::tempdir()?;
    let (folder, chain) = (folder.path(), chain(folder.path(), "1.0.0")?);
    let netns = world.netns("p")?;
    std::fs::write(folder.join("first.fail"), "")?;
    let error = chain.add(world.node("n"), &Attachment::new(&netns, "shop", "p")).err().context("ADD worked")?;
    ensure!((error.code, &*error.msg, &*error.plugin) == (11, "later", "first"), "{error}");
    ensure!(got(folder, "second.ADD").is_err(), "the second plugin was called");
    Ok(())
}

fn gc_names_what_is_valid_to_every_plugin() -> Result<()> {
    let world = World::builder().node("n").build()?;
    let folder = tempfile::tempdir()?;
    let (folder, chain) = (folder.path(), chain(folder.path(), "1.1.0")?);
    let attachment = Attachment::new(&world.netns("p")?, "shop", "p");
    std::fs::write(folder.join("first.fail"), "")?;
    let errors = chain.gc(world.node("n"), &[&attachment]).err().context("GC worked")?;
    ensure!(errors.len() == 1 && errors[0].plugin == "first", "{errors:?}");
    let valid = &got(folder, "second.GC")?["cni.dev/valid-attachments"];
    ensure!(*valid == json!([{ "containerID": attachment.container, "ifname": "eth0" }]), "{valid}");
    Ok(())
}

fn debians_bridge_wires_a_pod() -> Result<()> {
    if !Path::new(cni::DEBIAN_PLUGINS).join("bridge").exists() {
        eprintln!("left out: containernetworking-plugins isn't installed");
        return Ok(());
    }
    let world = World::builder().node("n1").node("n2").pod("n2", "far").build()?;
    let (node, far, state) = (world.node("n1"), world.pod("far"), tempfile::tempdir()?);
    let chain = CniChain::new("pods", "1.0.0").bridge(node, state.path());
    let netns = world.netns("wired")?;
    let attachment = Attachment::new(&netns, "shop", "wired");
    let result = chain.add(node, &attachment)?;
    let addresses: Vec<_> = result["ips"].as_array().context("no ips")?.iter().map(|ip| &ip["address"]).collect();
    ensure!(addresses.len() == 2, "{result}");
    chain.check(node, &attachment)?;
    let server = servers::tcp(&far, "far", any(7), Behaviour::Banner)?;
    ensure!(netns.block_on(clients::banner(far.addr(7)))? == "220 far");
    let peer = server.peers()[0].ip().to_string();
    ensure!(
        addresses.iter().any(|a| a.as_str().is_some_and(|a| a.starts_with(&format!("{peer}/")))),
        "{peer}: {result}"
    );
    chain.del(node, &attachment)?;
    ensure!(netns.exec("ip -o link")?.lines().all(|l| !l.contains("eth0")), "eth0 is still there");
    Ok(())
}
