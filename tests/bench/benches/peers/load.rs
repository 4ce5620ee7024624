//! Load generators: wrk and h2load for "as much as it can", the test kit's for a fixed rate.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use weft_testkit::clients::{Load, Report};

use crate::programs::Front;

/// What came out of a saturating load.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Answers per second.
    pub per_second: f64,
    /// Answers.
    pub requests: u64,
    /// Requests that failed: errors of sockets, time-outs, wrong statuses.
    pub failures: u64,
}

/// A saturating HTTP/1.1 load.
#[derive(Clone, Copy, Debug)]
pub struct Wrk<'a> {
    /// Where to.
    pub front: &'a Front,
    /// What to ask for.
    pub path: &'static str,
    /// Connections.
    pub connections: usize,
    /// A new connection for each request.
    pub reconnect: bool,
}

/// Runs wrk on a core.
///
/// # Errors
/// When it fails or says what can't be understood.
pub fn wrk(load: &Wrk<'_>, core: usize, time: Duration) -> Result<Rate> {
    let Wrk { front, path, connections, reconnect } = *load;
    let mut words: Vec<_> =
        format!("-t1 -c{connections} -d{}s --timeout 5s", time.as_secs()).split(' ').map(str::to_owned).collect();
    if reconnect {
        words.extend(["-H".to_owned(), "Connection: close".to_owned()]);
    }
    words.push(front.url(path));
    let text = on_core(front, core, "wrk", &words)?;
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let per_second = number_after(&text, "Requests/sec:").with_context(|| text.clone())?;
    let bad_status = number_after(&text, "Non-2xx or 3xx responses:").unwrap_or_default();
    let errors = ["connect ", "read ", "write ", "timeout "].map(|kind| {
        let line = text.lines().find(|l| l.contains("Socket errors:")).unwrap_or_default();
        number_after(line, kind).unwrap_or_default()
    });
    let failures = (bad_status + errors.iter().sum::<f64>()) as u64;
    Ok(Rate { per_second, requests: requests.with_context(|| text.clone())?, failures })
}

/// Clients of HTTP/2: how many connections, and how many requests at a time on each.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    connections: usize,
    streams: usize,
}

/// A few clients that ask for much at a time, as a proxy in front of this one does.
pub const BUSY: Clients = Clients { connections: 4, streams: 16 };
/// As many connections as the load of HTTP/1.1 has, with a few requests at a time, as browsers have.
pub const MANY: Clients = Clients { connections: 64, streams: 4 };

/// Runs h2load (HTTP/2, agreed on by ALPN or with prior knowledge; for 1 KiB) on a core.
///
/// # Errors
/// When it fails or says what can't be understood.
pub fn h2load(front: &Front, clients: Clients, core: usize, time: Duration) -> Result<Rate> {
    let Clients { connections, streams } = clients;
    let words = format!("-t1 -c{connections} -m{streams} -D{} {}", time.as_secs(), front.url("/1k"));
    let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    let text = on_core(front, core, "h2load", &words)?;
    let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned();
    let per_second = line("finished in").split(", ").find_map(|part| part.strip_suffix(" req/s")?.parse().ok());
    let counts = line("requests:");
    let count = |what: &str| counts.split(", ").find_map(|p| p.strip_suffix(what)?.trim().parse::<u64>().ok());
    let failures = [" failed", " errored", " timeout"].iter().filter_map(|what| count(what)).sum();
    let requests = count(" succeeded").with_context(|| text.clone())?;
    Ok(Rate { per_second: per_second.with_context(|| text.clone())?, requests, failures })
}

/// Sends GETs for 1 KiB at a fixed rate from a core, open loop: latency counts from when a request was due.
///
/// # Errors
/// When the load can't be started.
pub fn steady(front: &Front, connections: usize, rate: f64, core: usize, time: Duration) -> Result<Report> {
    let requests = (rate * time.as_secs_f64()) as u64;
    let load = Load { target: "/1k".to_owned(), connections, requests, rate: Some(rate), ..Load::new(front.addr) };
    pinned(front, core, move |runtime| runtime.block_on(load.run()))
}

/// Runs code where the client is, on a core.
pub fn pinned<T: Send>(
    front: &Front,
    core: usize,
    code: impl FnOnce(&tokio::runtime::Runtime) -> Result<T> + Send,
) -> Result<T> {
    front.from.run(move || {
        let mut cores = CpuSet::new();
        cores.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &cores)?;
        code(&tokio::runtime::Builder::new_current_thread().enable_all().build()?)
    })
}

fn on_core(front: &Front, core: usize, program: &str, words: &[String]) -> Result<String> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]).args(words);
    let out = front.from.output(&mut command)?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(
        out.status.success(),
        "{program} {words:?}: {}\n{text}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(text)
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    let rest = text.split_once(label)?.1.trim_start();
    rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.parse().ok()
}
