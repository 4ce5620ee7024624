//! Watches over the node proxy: starts it, starts it again when it ends, replaces it on SIGHUP.
//!
//! Replacing is starting one more: it takes sockets and keys over from the one that runs, which then serves its
//! connections to their end. The newest one is the one that counts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::sleep_until;

/// Pauses before a proxy that ended is started again: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A proxy that ran for so long was well; the next pause is the first one again.
const WELL: Duration = Duration::from_secs(10);

/// How the proxy is started.
#[derive(Clone, Debug)]
pub struct ProxyCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// The proxies of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxies {
    /// Process ids: the newest last; those before it serve their connections to the end.
    pub pids: Vec<u32>,
    /// How often one ended without being told to.
    pub failures: u64,
}

struct Supervisor {
    command: ProxyCommand,
    children: JoinSet<(u32, std::io::Result<ExitStatus>)>,
    shown: watch::Sender<Proxies>,
    pause: Duration,
    started: Instant,
    /// When the next one is due.
    again: Option<Instant>,
}

/// Starts to watch. The task ends when `stop` is cancelled and every proxy has ended.
pub fn supervise(command: ProxyCommand, stop: CancellationToken) -> (watch::Receiver<Proxies>, JoinHandle<()>) {
    let (shown, seen) = watch::channel(Proxies::default());
    let supervisor = Supervisor {
        command,
        children: JoinSet::new(),
        shown,
        pause: PAUSES.0,
        started: Instant::now(),
        again: Some(Instant::now()),
    };
    (seen, tokio::spawn(supervisor.run(stop)))
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        let mut hangup = signal(SignalKind::hangup()).inspect_err(|e| tracing::error!("no SIGHUP: {e}")).ok();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(self.again) => self.start(),
                Some(()) = hung_up(&mut hangup) => {
                    tracing::info!("replacing the proxy");
                    self.start();
                }
                Some(ended) = self.children.join_next() => self.ended(ended),
            }
        }
        for pid in &self.shown.borrow().pids {
            terminate(*pid);
        }
        while let Some(ended) = self.children.join_next().await {
            if let Ok((pid, status)) = ended {
                self.forget(pid);
                tracing::info!(pid, ?status, "proxy ended");
            }
        }
    }

    fn start(&mut self) {
        self.again = None;
        let mut command = Command::new(&self.command.program);
        command.args(&self.command.arguments).stdin(Stdio::null());
        match command.spawn() {
            Ok(mut child) => {
                let pid = child.id().unwrap_or_default();
                tracing::info!(pid, "proxy started");
                self.started = Instant::now();
                self.shown.send_modify(|proxies| proxies.pids.push(pid));
                self.children.spawn(async move { (pid, child.wait().await) });
            }
            Err(error) => {
                tracing::error!(program = %self.command.program.display(), "the proxy can't be started: {error}");
                self.later();
            }
        }
    }

    fn ended(&mut self, ended: Result<(u32, std::io::Result<ExitStatus>), tokio::task::JoinError>) {
        let Ok((pid, status)) = ended else { return };
        let newest = self.shown.borrow().pids.last() == Some(&pid);
        self.forget(pid);
        if !newest {
            return tracing::info!(pid, ?status, "a proxy that was replaced has ended");
        }
        tracing::error!(pid, ?status, "the proxy ended: pods' connections are refused until the next one serves");
        self.shown.send_modify(|proxies| proxies.failures += 1);
        if self.started.elapsed() > WELL {
            self.pause = PAUSES.0;
        }
        self.later();
    }

    fn forget(&self, pid: u32) {
        self.shown.send_modify(|proxies| proxies.pids.retain(|other| *other != pid));
    }

    fn later(&mut self) {
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

fn terminate(pid: u32) {
    let target = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw);
    // It may have ended a moment ago; its status is collected all the same.
    let _ = target.map(|target| kill(target, Signal::SIGTERM));
}
