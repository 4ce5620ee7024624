//! `weft-agent bypass` with real packets: the way back when no proxy comes up.

use std::process::Output;
use std::time::Instant;

use super::support::{accept, carries};
use super::*;

/// What an operator waits at most.
const LIMIT: Duration = Duration::from_secs(5);
/// The namespace whose pods are Strict.
const STRICT: &str = "vault";

/// Pods `a`, that takes plaintext, `b`, that doesn't, and `c`, whom nobody has asked about yet.
fn bench() -> Result<Bench> {
    let world = World::builder().node("n").pod("n", "a").pod("n", "b").pod("n", "c").build()?;
    let source = Source::new(&[("shop", true), (STRICT, true)]);
    source.strict.lock().unwrap().insert(STRICT.into());
    Ok(Bench { world, dir: tempfile::tempdir()?, source })
}

impl Bench {
    /// A text with `shop/a` and the like as the agent knows these pods.
    fn named(&self, text: &str) -> String {
        let known = |text: String, (namespace, pod): (&str, &str)| {
            let (short, name) = (format!("{namespace}/{pod}"), self.world.pod(pod).name().to_owned());
            text.replace(&short, &format!("{namespace}/{name}"))
        };
        [("shop", "a"), (STRICT, "b"), ("shop", "c")].into_iter().fold(text.to_owned(), known)
    }
}

async fn bypass(bench: &Bench, args: &[&str]) -> Result<Output> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft-agent"));
    command.arg("bypass").arg("--state-dir").arg(bench.dir.path().join("state")).args(args);
    let output = tokio::time::timeout(SOON, command.output()).await.context("it hangs")??;
    Ok(output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// That it succeeded, within five seconds, and says all of this.
async fn succeeds(bench: &Bench, args: &[&str], says: &[&str]) -> Result<()> {
    // Pods are named after their namespaces in the world.
    let says: Vec<_> = says.iter().map(|part| bench.named(part)).collect();
    let began = Instant::now();
    let output = bypass(bench, args).await?;
    let (took, said) = (began.elapsed(), said(&output));
    ensure!(
        output.status.success() && says.iter().all(|part| said.contains(part.as_str())),
        "{:?}: {said}",
        output.status
    );
    ensure!(took < LIMIT, "it took {took:?}");
    Ok(())
}

/// Pods `a` and `b` of the mesh, whose proxy has gone.
async fn without_a_proxy(bench: &Bench) -> Result<()> {
    let proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
    bench.plugin("ADD", "shop", &bench.world.pod("a")).await?.ok()?;
    bench.plugin("ADD", STRICT, &bench.world.pod("b")).await?.ok()?;
    drop(proxy);
    let outside = sys(&bench.world.pod("c"))?;
    soon("the proxy's listeners go", async {
        for pod in ["a", "b"] {
            while refused(&outside, bench.world.pod(pod).addr(8080)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        anyhow::Ok(())
    })
    .await
}

/// That bytes pass from one pod to the application of another, which sees who dials.
async fn passes(from: &Pod, to: &Pod) -> Result<()> {
    let (there, here) = (sys(to)?, sys(from)?);
    let listener = app(&there, to.addr(8080))?;
    let mut client = dial(&here, to.addr(8080)).await.with_context(|| format!("{} to {}", from.name(), to.name()))?;
    let (mut server, peer, _) = accept(&listener).await?;
    ensure!(peer.ip() == from.addr(0).ip(), "{peer} instead of {}", from.addr(0));
    carries(&mut client, &mut server).await
}

/// That nothing gets from one pod to the application of another.
async fn is_closed(from: &Pod, to: &Pod) -> Result<()> {
    let (there, here) = (sys(to)?, sys(from)?);
    let _listener = app(&there, to.addr(8080))?;
    refused(&here, to.addr(8080)).await.with_context(|| format!("{} to {}", from.name(), to.name()))
}

async fn opened(running: &Running, count: usize) -> Result<()> {
    let is_open = |pod: &&LocalPod| matches!(&pod.protection, Protection::Unprotected(why) if why.contains("bypass"));
    running.until("pods that are open and say why", |pods| pods.iter().filter(is_open).count() == count).await?;
    Ok(())
}

pub(super) fn an_order_of_root_opens_what_takes_plaintext_and_gives_it_back() -> Result<()> {
    let bench = bench()?;
    let (a, b, c) = (bench.world.pod("a"), bench.world.pod("b"), bench.world.pod("c"));
    block_on(async {
        let running = bench.agent().await?;
        without_a_proxy(&bench).await?;
        for (from, to) in [(&c, &a), (&a, &c), (&c, &b), (&b, &c)] {
            is_closed(from, to).await?;
        }

        succeeds(&bench, &["--reason=INC-1"], &["opened    shop/a", "closed    vault/b: Strict"]).await?;
        passes(&c, &a).await?;
        passes(&a, &c).await?;
        is_closed(&c, &b).await?;
        is_closed(&b, &c).await?;
        // The agent neither sets the rules again nor hides it.
        opened(&running, 1).await?;
        ensure!(ruleset(&a)?.is_empty(), "{}", ruleset(&a)?);
        passes(&c, &a).await?;

        // One that starts meanwhile isn't kept from it.
        bench.plugin("ADD", "shop", &c).await?.ok()?;
        opened(&running, 2).await?;
        passes(&a, &c).await?;

        succeeds(&bench, &["--strict"], &["opened    shop/a", "opened    vault/b"]).await?;
        passes(&a, &b).await?;
        passes(&b, &c).await?;
        opened(&running, 3).await?;

        succeeds(&bench, &["--off"], &["returned  shop/a", "returned  vault/b"]).await?;
        is_closed(&a, &b).await.context("Strict at once, whoever serves")?;
        is_closed(&b, &c).await?;
        passes(&c, &a).await.context("until a proxy serves, as any pod that joins")?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(3).await?;
        succeeds(&bench, &["--off"], &["0 opened, 0 returned"]).await?;

        let log = std::fs::read_to_string(bench.dir.path().join("state/bypass.log"))?;
        ensure!(log.lines().count() == 4 && log.contains("INC-1") && log.contains(&bench.named("vault/b")), "{log}");
        Ok(())
    })
}

/// Neither the agent nor its end has anything to do with it; what was ordered outlives both.
pub(super) fn an_order_needs_no_agent_and_outlives_it() -> Result<()> {
    let bench = bench()?;
    let (a, b, c) = (bench.world.pod("a"), bench.world.pod("b"), bench.world.pod("c"));
    block_on(async {
        let running = bench.agent().await?;
        without_a_proxy(&bench).await?;
        is_closed(&c, &a).await?;
        running.stop(&bench).await?;

        succeeds(&bench, &[], &["opened    shop/a", "closed    vault/b"]).await?;
        passes(&c, &a).await?;
        is_closed(&c, &b).await?;
        succeeds(&bench, &["--strict"], &["opened    vault/b"]).await?;
        passes(&c, &b).await?;
        succeeds(&bench, &[], &["opened    shop/a", "closed    vault/b"]).await?;
        is_closed(&c, &b).await.context("the last order counts")?;
        // Given back by the one that opened it, and opened once more.
        succeeds(&bench, &["--off"], &["returned  shop/a"]).await?;
        is_closed(&c, &a).await?;
        succeeds(&bench, &[], &["opened    shop/a"]).await?;

        let running = bench.agent().await?;
        opened(&running, 1).await?;
        passes(&c, &a).await?;
        running.stop(&bench).await?;
        // The agent had it, and none is there to take it back.
        succeeds(&bench, &["--off"], &["returned  shop/a"]).await?;
        is_closed(&c, &a).await?;
        let running = bench.agent().await?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(2).await
    })
}

pub(super) fn an_order_touches_no_namespace_but_the_pods_own() -> Result<()> {
    let bench = bench()?;
    let (a, c) = (bench.world.pod("a"), bench.world.pod("c"));
    block_on(async {
        let nowhere = bypass(&Bench { dir: tempfile::tempdir()?, ..self::bench()? }, &[]).await?;
        ensure!(
            !nowhere.status.success() && said(&nowhere).contains("is this a node of the mesh"),
            "{}",
            said(&nowhere)
        );

        let running = bench.agent().await?;
        without_a_proxy(&bench).await?;
        is_closed(&c, &a).await?;
        running.stop(&bench).await?;
        let record = bench.dir.path().join("state").join(format!("{}.json", a.name()));
        let mut read: Value = serde_json::from_slice(&std::fs::read(&record)?)?;
        read["netns_ino"] = json!(read["netns_ino"].as_u64().context("an inode")? + 1);
        std::fs::write(&record, read.to_string())?;
        let output = bypass(&bench, &["--strict"]).await?;
        let said = said(&output);
        ensure!(
            output.status.code() == Some(1)
                && said.contains(&bench.named("failed    shop/a"))
                && said.contains("another namespace"),
            "{said}"
        );
        is_closed(&c, &a).await
    })
}

/// On a disk that is full, say: nothing that is written can be what a pod's traffic waits for.
pub(super) fn an_order_that_cannot_be_written_opens_all_the_same_and_says_so() -> Result<()> {
    let bench = bench()?;
    let (a, b, c) = (bench.world.pod("a"), bench.world.pod("b"), bench.world.pod("c"));
    block_on(async {
        let running = bench.agent().await?;
        without_a_proxy(&bench).await?;
        running.stop(&bench).await?;
        let state = bench.dir.path().join("state");
        for file in ["bypass", "bypass.log"] {
            std::fs::create_dir(state.join(file))?;
        }
        let output = bypass(&bench, &[]).await?;
        let said = said(&output);
        let says = ["opened    shop/a", "closed    vault/b", "not kept  the order", "not kept  this call"];
        let says: Vec<_> = says.iter().map(|part| bench.named(part)).collect();
        ensure!(output.status.code() == Some(1) && says.iter().all(|part| said.contains(part.as_str())), "{said}");
        passes(&c, &a).await?;
        is_closed(&c, &b).await?;

        // An agent knows of no order, and closes what no proxy serves.
        std::fs::remove_dir(state.join("bypass"))?;
        let running = bench.agent().await?;
        soon("the pod is closed", async {
            while is_closed(&c, &a).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        running.stop(&bench).await
    })
}
