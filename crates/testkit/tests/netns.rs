//! The harness itself: worlds come up, carry traffic, and leave nothing behind.

#![allow(clippy::expect_used, clippy::panic, reason = "test code: a panic is how a test fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::panic::catch_unwind;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weft_testkit::{Netns, Pod, World, harness, netns_tests};

netns_tests! {
    pods_reach_each_other_over_both_families,
    a_namespace_sees_only_its_own_links,
    a_panicking_test_leaves_nothing,
    a_killed_binary_leaves_nothing,
    a_failing_test_fails_the_binary,
    programs_run_inside_and_die_with_their_guard,
    a_dropped_task_frees_its_port,
}

/// One connection: what the server saw as its peer, and what the client got.
fn exchange(from: &Pod, to: &Pod, ip: IpAddr) -> Result<(SocketAddr, String)> {
    let listener = to.run(|| TcpListener::bind(SocketAddr::new(ip, 7000)))?;
    let addr = listener.local_addr()?;
    let server = std::thread::spawn(move || -> Result<SocketAddr> {
        let (mut stream, peer) = listener.accept()?;
        stream.write_all(b"hello")?;
        Ok(peer)
    });
    let mut stream = from.run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok((server.join().expect("server thread")?, text))
}

fn pods_reach_each_other_over_both_families() -> Result<()> {
    let world = World::two_nodes()?;
    let a = world.pod("a");
    for name in ["b", "c"] {
        let to = world.pod(name);
        for (from, ip) in a.ips().into_iter().zip(to.ips()) {
            let (peer, text) = exchange(&a, &to, ip).with_context(|| format!("a to {name} at {ip}"))?;
            ensure!(text == "hello", "{text:?}");
            ensure!(peer.ip() == from, "the server saw {peer}, not {from}");
        }
    }
    a.exec(&format!("ping -c1 -W2 {}", world.pod("d").ipv4()))?;
    a.exec(&format!("ping -c1 -W2 {}", world.node("n2").ipv6()))?;
    Ok(())
}

fn a_namespace_sees_only_its_own_links() -> Result<()> {
    let world = World::two_nodes()?;
    let links = world.pod("a").exec("ip -o link")?;
    let names: Vec<_> = links.lines().filter_map(|l| l.split(": ").nth(1)).collect();
    ensure!(names.iter().all(|n| *n == "lo" || n.starts_with("eth0")), "{links}");
    Ok(())
}

/// What must be the same before and after: links, mounts and named namespaces as this process sees them.
fn leftovers() -> Result<[String; 3]> {
    let links = Netns::here().exec("ip -o link")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    // The directory isn't there before the first namespace.
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| Ok(e?.file_name().into_string())).collect::<Result<_>>()?;
    names.sort();
    Ok([links, mounts, format!("{names:?}")])
}

fn a_panicking_test_leaves_nothing() -> Result<()> {
    let before = leftovers()?;
    let panicked = catch_unwind(|| {
        let world = World::two_nodes().expect("a world");
        let _listener = world.pod("a").run(|| TcpListener::bind("[::]:80")).expect("a listener");
        panic!("on purpose");
    });
    ensure!(panicked.is_err());
    let after = leftovers()?;
    ensure!(before == after, "left behind: {before:#?} {after:#?}");
    Ok(())
}

/// Not a test by itself: builds a world, says so, and waits to be killed or to be told to fail.
fn helper(mode: &str) -> Command {
    let mut command = harness::again_from_outside();
    command.args(["--exact", "a_failing_test_fails_the_binary"]).env("WEFT_TESTKIT_HELPER", mode);
    command
}

fn a_killed_binary_leaves_nothing() -> Result<()> {
    let before = leftovers()?;
    let mut child = helper("hang").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let up = stdout.lines().map_while(Result::ok).any(|line| line.contains("world is up"));
    ensure!(up, "the helper never came up: {:?}", child.wait()?);
    ensure!(processes_with("WEFT_TESTKIT_HELPER=hang")? >= 3, "the helper's processes aren't visible here");
    child.kill()?;
    child.wait()?;
    let end = Instant::now() + Duration::from_secs(10);
    while processes_with("WEFT_TESTKIT_HELPER=hang")? > 0 {
        ensure!(Instant::now() < end, "processes outlive the killed binary");
        std::thread::sleep(Duration::from_millis(10));
    }
    let after = leftovers()?;
    ensure!(before == after, "left behind: {before:#?} {after:#?}");
    Ok(())
}

/// Processes, zombies aside, whose environment has this entry.
fn processes_with(entry: &str) -> Result<usize> {
    let environs = std::fs::read_dir("/proc")?.filter_map(|e| std::fs::read(e.ok()?.path().join("environ")).ok());
    Ok(environs.filter(|env| env.split(|b| *b == 0).any(|v| v == entry.as_bytes())).count())
}

fn a_failing_test_fails_the_binary() -> Result<()> {
    match std::env::var("WEFT_TESTKIT_HELPER").as_deref() {
        Ok("hang") => {
            let world = World::two_nodes()?;
            let mut sleep = Command::new("sleep");
            sleep.arg("60");
            let _sleep = world.pod("a").start(sleep)?;
            println!("world is up");
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        Ok(_) => anyhow::bail!("failing as asked"),
        Err(_) => {}
    }
    let out = helper("fail").output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.code() == Some(101), "{}: {text}", out.status);
    ensure!(text.contains("failing as asked") && text.contains("test result: FAILED"), "{text}");
    Ok(())
}

fn programs_run_inside_and_die_with_their_guard() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let pod = world.pod("p");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ip -4 -o addr show eth0; exec sleep 60"]);
    let mut process = pod.start(shell)?;
    let address = pod.ipv4().to_string();
    process.wait_until(Duration::from_secs(5), |log| log.contains(&address))?;
    let path = format!("/proc/{}", process.pid());
    ensure!(std::fs::exists(&path)?);
    drop(process);
    ensure!(!std::fs::exists(&path)?, "{path} is still there");
    Ok(())
}

fn a_dropped_task_frees_its_port() -> Result<()> {
    let world = World::builder().node("n").pod("n", "p").build()?;
    let pod = world.pod("p");
    let (ready, is_ready) = std::sync::mpsc::channel();
    let task = pod.spawn(async move {
        let listener = tokio::net::TcpListener::bind("[::]:80").await.expect("bind");
        ready.send(()).expect("test waits");
        listener.accept().await.map(|(_, peer)| peer)
    });
    is_ready.recv()?;
    ensure!(pod.run(|| TcpListener::bind("[::]:80")).is_err(), "the task isn't in the pod");
    drop(task);
    pod.run(|| TcpListener::bind("[::]:80")).context("the port after the task")?;
    Ok(())
}
