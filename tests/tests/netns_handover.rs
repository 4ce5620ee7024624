//! A node proxy is replaced, or ends, under load.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use support::{Event, Events, Mesh, SOON, Source, TestEngine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use weft_core::change::{Change, Resource};
use weft_core::identity::{TrustDomain, TrustDomains};
use weft_core::ids::PolicyKey;
use weft_core::policy::{Action, AuthorizationPolicy, AuthorizationRule, GlobMatch, Scope, Source as Callers};
use weft_core::snapshot::Snapshot;
use weft_node_proxy::app::{Ending, Proxy, Settings, Sources};
use weft_node_proxy::gateway::Progress;
use weft_node_proxy::inpod::Manager;
use weft_node_proxy::store::{SavedFile, Store};
use weft_testkit::clients as tcp;
use weft_testkit::servers::{self, Behaviour};
use weft_tls::TrustStore;

weft_testkit::netns_tests! {
    a_successor_takes_over_without_a_gap,
    a_successor_in_another_container_takes_over,
    a_successor_of_another_trust_domain_takes_over_without_a_gap,
    a_predecessor_that_is_told_to_end_serves_what_it_has,
    a_stop_waits_for_a_successor_that_is_on_its_way,
    a_predecessor_that_gives_nothing_up_is_not_started_beside,
    a_successor_that_gives_up_changes_nothing,
    a_successor_on_a_full_disk_takes_nothing,
    on_a_full_disk_a_proxy_serves_and_can_be_replaced_when_there_is_room,
    a_stop_waits_for_open_connections,
    a_stop_ends_at_its_deadline,
    a_saved_configuration_serves_without_a_controller,
}

/// A node proxy as the binary runs it, with a runtime of its own.
struct Process {
    control: tokio::runtime::Runtime,
    manager: Arc<Manager>,
    events: Events,
    stop: CancellationToken,
    displaced: CancellationToken,
    ended: tokio::task::JoinHandle<Ending>,
}

impl Process {
    fn start(mesh: &Mesh, folder: &Path, store: Store, adjust: impl Fn(&mut Settings)) -> Result<Self> {
        Self::start_in(&TrustDomains::default(), mesh, folder, store, adjust)
    }

    /// One to whom the trust domain has these names.
    fn start_in(
        domains: &TrustDomains,
        mesh: &Mesh,
        folder: &Path,
        store: Store,
        adjust: impl Fn(&mut Settings),
    ) -> Result<Self> {
        let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut settings = Settings {
            node: "n1".into(),
            agent_socket: folder.join("no-agent"),
            handover_socket: Some(folder.join("handover")),
            saved_config: None,
            workers: 2,
            drain_deadline: SOON,
            replaced_deadline: SOON * 2,
            replaced_stop_deadline: SOON,
            successor_wait: Duration::ZERO,
            connect_timeout: SOON,
            idle_timeout: None,
            node_address: Vec::new(),
            max_connections: 1000,
        };
        adjust(&mut settings);
        let events = Events::default();
        let sources = Sources {
            authority: Arc::new(Source(Arc::clone(&mesh.authority))),
            trust: TrustStore::with_domains(mesh.authority.bundle()?, domains.clone())?,
            trust_domain: domains.own().clone(),
            store: Arc::new(store),
            engine: Arc::new(TestEngine(events.clone())),
        };
        let proxy = control.block_on(Proxy::start(settings, sources, Progress::new(2)))?;
        let (manager, stop) = (Arc::clone(&proxy.manager), CancellationToken::new());
        let (stopped, displaced) = (stop.clone(), proxy.displaced());
        let ended = control.spawn(async move { proxy.run(stopped.cancelled_owned()).await });
        Ok(Self { control, manager, events, stop, displaced, ended })
    }

    /// How it ended, when it does.
    fn join(self) -> Result<Ending> {
        let Self { control, ended, .. } = self;
        control.block_on(async { Ok(tokio::time::timeout(SOON * 2, ended).await.context("it goes on")??) })
    }
}

/// A mesh whose first node is served by such a process, with pod `a` on it and an echo server in `c`.
fn world(folder: &Path, adjust: impl Fn(&mut Settings)) -> Result<(Mesh, Process, weft_testkit::Server, SocketAddr)> {
    let mut mesh = Mesh::of(&["a", "c"])?;
    mesh.kill("n1")?;
    let process = Process::start(&mesh, folder, configured(&mesh)?, adjust)?;
    let (announced, _netns) = mesh.announcement("a")?;
    process.control.block_on(process.manager.add(announced))?;
    let c = mesh.pod("c");
    let server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    Ok((mesh, process, server, c.addr(7000)))
}

fn configured(mesh: &Mesh) -> Result<Store> {
    let store = Store::default();
    store.apply(&mesh.config(&["a", "c"])?);
    Ok(store)
}

async fn echo(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"x").await?;
    ensure!(tokio::time::timeout(SOON, stream.read_u8()).await?? == b'x');
    Ok(())
}

fn a_successor_takes_over_without_a_gap() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, old, _server, target) = world(folder.path(), |_| {})?;
    let a = mesh.pod("a");
    let established = a.block_on(async { anyhow::Ok(tcp::connect(target).await?.into_std()?) })?;
    let (running, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let (go_on, count) = (Arc::clone(&running), Arc::clone(&done));
    let load = a.spawn(async move {
        let mut failures = Vec::new();
        while go_on.load(Relaxed) {
            match tcp::exchange(target, b"hello").await {
                Ok(answer) if answer == b"hello" => {}
                other => failures.push(format!("{other:?}")),
            }
            count.fetch_add(1, Relaxed);
        }
        failures
    });
    old.events.until("load", || done.load(Relaxed) > 20)?;
    let new = Process::start(&mesh, folder.path(), configured(&mesh)?, |_| {})?;
    let before = done.load(Relaxed);
    new.events.until("load on the successor", || done.load(Relaxed) > before + 50)?;
    new.events.wait("a connection of the successor", |e| matches!(e, Event::Closed(..)))?;
    running.store(false, Relaxed);
    let failures = load.join()?;
    ensure!(failures.is_empty(), "{} of {}: {failures:?}", failures.len(), done.load(Relaxed));
    ensure!(old.displaced.is_cancelled(), "both are in one network: the ports are the successor's");
    // The predecessor serves what it had.
    ensure!(!old.ended.is_finished(), "the predecessor ended under an open connection");
    a.block_on(async { echo(&mut TcpStream::from_std(established)?).await }).context("established before")?;
    ensure!(old.join()? == Ending::Replaced);
    a.block_on(tcp::exchange(target, b"after")).context("after the predecessor ended")?;
    new.stop.cancel();
    ensure!(new.join()? == Ending::Stopped);
    Ok(())
}

/// As two pods of a rolling update: the program in process, mount and network namespaces of its own, with nothing in common
/// but the socket's directory, and the same process id.
fn a_successor_in_another_container_takes_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, old, _server, target) = world(folder.path(), |_| {})?;
    let a = mesh.pod("a");
    a.block_on(tcp::exchange(target, b"before"))?;
    let established = a.block_on(async { anyhow::Ok(tcp::connect(target).await?.into_std()?) })?;
    let (saved, roots) = (folder.path().join("saved/config"), folder.path().join("roots.pem"));
    SavedFile::new(&saved).write(&configured(&mesh)?.load_full())?;
    std::fs::write(&roots, mesh.authority.bundle()?.to_pem(&TrustDomain::default()))?;
    let own = std::env::current_exe()?;
    let mut near = own.ancestors().skip(1).take(2).map(|dir| dir.join("weft-node-proxy"));
    let program = near.find(|path| path.is_file()).context("weft-node-proxy isn't built: cargo build --bins")?;
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net"]).arg(program);
    command.args(["--node=n1", "--workers=2", "--control=127.0.0.1:1"]);
    command.arg("--agent-socket").arg(folder.path().join("no-agent"));
    command.arg("--handover-socket").arg(folder.path().join("handover"));
    command.arg("--saved-config").arg(saved).arg("--trust-bundle").arg(roots);
    let mut new = weft_testkit::Process::start(mesh.world.node("n1"), command)?;
    new.wait_until(SOON * 2, |log| log.contains("taken over"))?;
    old.events.until("the predecessor listens no more", || {
        old.manager.served().is_ok_and(|served| served.iter().all(|pod| pod.listeners.is_empty()))
    })?;
    ensure!(!old.displaced.is_cancelled(), "each has ports of its own");
    a.block_on(tcp::exchange(target, b"after")).with_context(|| new.log().unwrap_or_default())?;
    a.block_on(async { echo(&mut TcpStream::from_std(established)?).await }).context("established before")?;
    a.block_on(tcp::exchange(target, b"alone")).with_context(|| new.log().unwrap_or_default())?;
    // With nothing left to serve it stays: its container would be started again, and take everything back.
    std::thread::sleep(Duration::from_secs(1));
    ensure!(!old.ended.is_finished(), "it ended by itself");
    new.signal(nix::sys::signal::Signal::SIGKILL)?;
    ensure!(old.join()? == Ending::Replaced, "without its successor it is wanted again");
    Ok(())
}

/// Only identities under this name of the trust domain, as it is written.
fn only_under(domain: &TrustDomain) -> Change {
    let identities = vec![GlobMatch::new(&format!("spiffe://{domain}/ns/shop/*"))];
    let from = vec![Callers { identities, ..Callers::default() }];
    let rules = vec![AuthorizationRule { from, to: Vec::new() }];
    let (key, action) = (PolicyKey::new("shop", "ours"), Action::Allow);
    let policy = AuthorizationPolicy { key, scope: Scope::Mesh, action, dry_run: false, rules };
    Change::Upsert(Resource::Authorization(Arc::new(policy)))
}

/// The mesh's trust domain is changed: the successor has the new name, and its predecessor, the other node, the configuration
/// and the policy the old one.
fn a_successor_of_another_trust_domain_takes_over_without_a_gap() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (former, latter): (TrustDomain, TrustDomain) = (TrustDomain::default(), "new.example".parse()?);
    let before = TrustDomains::new(former.clone(), [latter.clone()]);
    let after = TrustDomains::new(latter.clone(), [former.clone()]);
    let mut mesh = Mesh::in_domains(&["a", "c"], &before)?;
    mesh.apply(&[only_under(&former)]);
    mesh.kill("n1")?;
    let configured = |domains: &TrustDomains| {
        let store = Store::with_domains(Snapshot::default(), domains.clone());
        store.apply(&mesh.config(&["a", "c"])?);
        store.apply(&[only_under(&former)]);
        anyhow::Ok(store)
    };
    let old = Process::start_in(&before, &mesh, folder.path(), configured(&before)?, |_| {})?;
    let (announced, _netns) = mesh.announcement("a")?;
    old.control.block_on(old.manager.add(announced))?;
    let (a, c) = (mesh.pod("a"), mesh.pod("c"));
    let _server = servers::tcp(&c, "c", servers::any(7000), Behaviour::Echo)?;
    let _other = servers::tcp(&a, "a", servers::any(7000), Behaviour::Echo)?;
    let (there, back) = (c.addr(7000), a.addr(7000));
    let (running, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let load = [(&a, there), (&c, back)].map(|(pod, target)| {
        let (go_on, count) = (Arc::clone(&running), Arc::clone(&done));
        pod.spawn(async move {
            let mut failures = Vec::new();
            while go_on.load(Relaxed) {
                match tcp::exchange(target, b"hello").await {
                    Ok(answer) if answer == b"hello" => {}
                    other => failures.push(format!("{target}: {other:?}")),
                }
                count.fetch_add(1, Relaxed);
            }
            failures
        })
    });
    old.events.until("load", || done.load(Relaxed) > 20)?;
    let new = Process::start_in(&after, &mesh, folder.path(), configured(&after)?, |_| {})?;
    let name = || Some(new.manager.pods().first()?.lease.current().ok()?.identity().trust_domain.clone());
    new.events.until("a certificate under the new name", || name().as_ref() == Some(&latter))?;
    let reached = done.load(Relaxed);
    new.events.until("load under the new name", || done.load(Relaxed) > reached + 100)?;
    running.store(false, Relaxed);
    for each in load {
        let failures = each.join()?;
        ensure!(failures.is_empty(), "{failures:?}");
    }
    ensure!(old.join()? == Ending::Replaced);
    // Nobody but the other node has the old name by now, and it takes the new one for the same.
    a.block_on(tcp::exchange(there, b"after")).context("after the predecessor ended")?;
    c.block_on(tcp::exchange(back, b"after")).context("the other way")?;
    new.stop.cancel();
    new.join().map(drop)
}

fn a_predecessor_that_is_told_to_end_serves_what_it_has() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, old, _server, target) = world(folder.path(), |_| {})?;
    let a = mesh.pod("a");
    let open = a.block_on(async { anyhow::Ok(tcp::connect(target).await?.into_std()?) })?;
    let new = Process::start(&mesh, folder.path(), configured(&mesh)?, |_| {})?;
    old.events.until("replaced", || old.displaced.is_cancelled())?;
    old.stop.cancel();
    a.block_on(async {
        let mut open = TcpStream::from_std(open)?;
        for _ in 0..3 {
            echo(&mut open).await.context("after it was told to end")?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ensure!(!old.ended.is_finished(), "it ended under an open connection");
        anyhow::Ok(())
    })?;
    ensure!(old.join()? == Ending::Replaced);
    new.stop.cancel();
    new.join().map(drop)
}

fn a_stop_waits_for_a_successor_that_is_on_its_way() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, old, _server, target) = world(folder.path(), |settings| settings.successor_wait = SOON)?;
    let a = mesh.pod("a");
    old.stop.cancel();
    a.block_on(tcp::exchange(target, b"nobody else yet")).context("after it was told to end")?;
    let new = Process::start(&mesh, folder.path(), configured(&mesh)?, |_| {})?;
    ensure!(old.join()? == Ending::Replaced);
    a.block_on(tcp::exchange(target, b"hello"))?;
    new.stop.cancel();
    new.join().map(drop)
}

fn a_predecessor_that_gives_nothing_up_is_not_started_beside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, old, _server, target) = world(folder.path(), |_| {})?;
    // Whoever answers there speaks something else.
    let silent = old.control.block_on(async {
        let listener = weft_sys::SeqPacketListener::bind(&folder.path().join("handover"), 0o600)?;
        anyhow::Ok(tokio::spawn(async move { while listener.accept().await.is_ok() {} }))
    })?;
    let refused = Process::start(&mesh, folder.path(), configured(&mesh)?, |_| {}).err().context("it started")?;
    ensure!(refused.to_string().contains("can't be replaced"), "{refused:#}");
    silent.abort();
    mesh.pod("a").block_on(tcp::exchange(target, b"hello"))?;
    old.stop.cancel();
    old.join().map(drop)
}

fn a_successor_that_gives_up_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, old, _server, target) = world(folder.path(), |_| {})?;
    old.control.block_on(async {
        let pending = weft_node_proxy::handover::take_over(&folder.path().join("handover"), "test").await?;
        let pending = pending.context("a predecessor")?;
        ensure!(pending.inheritance.pods.len() == 1 && pending.inheritance.pods[0].1.len() == 6, "{pending:?}");
        ensure!(pending.inheritance.certificates.len() == 1);
        anyhow::Ok(())
    })?;
    mesh.pod("a").block_on(tcp::exchange(target, b"hello"))?;
    // And the next one may come.
    let new = Process::start(&mesh, folder.path(), configured(&mesh)?, |_| {})?;
    ensure!(old.join()? == Ending::Replaced);
    mesh.pod("a").block_on(tcp::exchange(target, b"hello"))?;
    new.stop.cancel();
    new.join().map(drop)
}

/// A small disk that can be full, in the test's own mounts.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k,nr_inodes=16", "disk"]).arg(folder.path());
        ensure!(mount.status()?.success(), "mount");
        Ok(Self(folder))
    }

    /// Not another file fits.
    fn fill(&self) -> Result<()> {
        for n in 0..64 {
            match std::fs::File::create(self.0.path().join(format!("filler-{n}"))) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("it never fills")
    }

    fn make_room(&self) -> Result<()> {
        for n in 0..2 {
            std::fs::remove_file(self.0.path().join(format!("filler-{n}")))?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn a_successor_on_a_full_disk_takes_nothing() -> Result<()> {
    let disk = Disk::mount()?;
    let (mesh, old, _server, target) = world(disk.0.path(), |_| {})?;
    let a = mesh.pod("a");
    let established = a.block_on(async { anyhow::Ok(tcp::connect(target).await?.into_std()?) })?;
    disk.fill()?;
    for _ in 0..2 {
        let refused = Process::start(&mesh, disk.0.path(), configured(&mesh)?, |_| {}).err().context("it started")?;
        ensure!(refused.to_string().contains("listen on"), "{refused:#}");
        a.block_on(tcp::exchange(target, b"hello")).context("the predecessor goes on")?;
    }
    a.block_on(async { echo(&mut TcpStream::from_std(established)?).await }).context("established before")?;
    ensure!(!old.ended.is_finished(), "the predecessor ended");
    disk.make_room()?;
    let new = Process::start(&mesh, disk.0.path(), configured(&mesh)?, |_| {})?;
    ensure!(old.join()? == Ending::Replaced);
    a.block_on(tcp::exchange(target, b"hello"))?;
    new.stop.cancel();
    new.join().map(drop)
}

fn on_a_full_disk_a_proxy_serves_and_can_be_replaced_when_there_is_room() -> Result<()> {
    let disk = Disk::mount()?;
    disk.fill()?;
    let (mesh, old, _server, target) = world(disk.0.path(), |_| {})?;
    mesh.pod("a").block_on(tcp::exchange(target, b"hello")).context("without a place for its socket")?;
    disk.make_room()?;
    old.events.until("a place for its socket", || disk.0.path().join("handover").exists())?;
    let new = Process::start(&mesh, disk.0.path(), configured(&mesh)?, |_| {})?;
    ensure!(old.join()? == Ending::Replaced);
    mesh.pod("a").block_on(tcp::exchange(target, b"hello"))?;
    new.stop.cancel();
    new.join().map(drop)
}

fn a_stop_waits_for_open_connections() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, process, _server, target) = world(folder.path(), |_| {})?;
    mesh.pod("a").block_on(async {
        let mut open = tcp::connect(target).await?;
        echo(&mut open).await?;
        process.stop.cancel();
        process
            .events
            .until("listeners closed", || process.manager.served().is_ok_and(|s| s[0].listeners.is_empty()))?;
        ensure!(tcp::exchange(target, b"late").await.is_err(), "a new connection was taken");
        echo(&mut open).await.context("open before the stop")?;
        anyhow::Ok(())
    })?;
    ensure!(process.join()? == Ending::Stopped);
    Ok(())
}

fn a_stop_ends_at_its_deadline() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let deadline = Duration::from_millis(700);
    let (mesh, process, _server, target) = world(folder.path(), |s| s.drain_deadline = deadline)?;
    let a = mesh.pod("a");
    let open = a.block_on(async {
        let mut open = tcp::connect(target).await?;
        echo(&mut open).await?;
        anyhow::Ok(open.into_std()?)
    })?;
    let since = Instant::now();
    process.stop.cancel();
    ensure!(process.join()? == Ending::Stopped);
    let took = since.elapsed();
    ensure!(took >= deadline && took < deadline * 3, "took {took:?}");
    let left = a.block_on(async { echo(&mut TcpStream::from_std(open)?).await });
    ensure!(left.is_err(), "the connection is still open");
    Ok(())
}

fn a_saved_configuration_serves_without_a_controller() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let saved = folder.path().join("config");
    let mut mesh = Mesh::of(&["a", "c"])?;
    mesh.kill("n1")?;
    SavedFile::new(&saved).write(&configured(&mesh)?.load_full())?;
    let snapshot = SavedFile::new(&saved).read()?.context("saved")?;
    let process = Process::start(&mesh, folder.path(), Store::new(snapshot), |_| {})?;
    let (announced, _netns) = mesh.announcement("a")?;
    process.control.block_on(process.manager.add(announced))?;
    let _server = servers::tcp(&mesh.pod("c"), "c", servers::any(7000), Behaviour::Echo)?;
    ensure!(mesh.pod("a").block_on(tcp::exchange(mesh.pod("c").addr(7000), b"hello"))? == b"hello");
    let Event::Closed(connection, _) = process.events.wait("closed", |e| matches!(e, Event::Closed(..)))? else {
        unreachable!()
    };
    ensure!(connection.transport == "hbone", "{connection:?}");
    process.stop.cancel();
    process.join().map(drop)
}
