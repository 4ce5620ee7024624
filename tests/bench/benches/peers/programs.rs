//! Programs that are measured: how they start on one core, what they use, how they end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use weft_testkit::{Netns, Process, clients};

use crate::handshakes;

/// How long a program may take until it serves.
const READY: Duration = Duration::from_secs(20);

/// An address as a client somewhere sees it.
#[derive(Clone, Debug)]
pub struct Front {
    /// Where the client is.
    pub from: Netns,
    /// What it dials.
    pub addr: SocketAddr,
    /// TLS is spoken there: a file with the authority of its certificate, as PEM.
    pub authority: Option<PathBuf>,
}

/// A program, its arguments, and the namespace that it runs in.
#[derive(Debug)]
pub struct Program {
    /// Where.
    pub netns: Netns,
    /// The program and its arguments.
    pub words: Vec<String>,
}

/// Something between client and backend that isn't started yet: one program or several.
#[derive(Debug)]
pub struct Spec {
    /// What the report calls it.
    pub name: &'static str,
    /// Where it takes HTTP/1.1.
    pub h1: Front,
    /// Where it takes HTTP/2 with prior knowledge, if it does.
    pub h2: Option<Front>,
    /// Where it takes bytes and doesn't look at them, if it does.
    pub tcp: Option<Front>,
    /// What it is.
    pub programs: Vec<Program>,
}

/// The same, running. Its programs are killed when it is dropped.
#[derive(Debug)]
pub struct Peer {
    /// See [`Spec::name`].
    pub name: &'static str,
    /// See [`Spec::h1`].
    pub h1: Front,
    /// See [`Spec::h2`].
    pub h2: Option<Front>,
    /// See [`Spec::tcp`].
    pub tcp: Option<Front>,
    programs: Vec<Process>,
}

/// What programs have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system, since they started.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub memory: u64,
}

impl Front {
    /// On the loopback device of the benchmark's own namespace.
    pub fn here(addr: SocketAddr) -> Self {
        Self { from: Netns::here(), addr, authority: None }
    }

    /// Its URL of a path.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.addr)
    }

    /// Whether it answers as the backend does.
    async fn answers(&self) -> Result<()> {
        if let Some(authority) = &self.authority {
            return handshakes::answers(self.addr, authority).await;
        }
        let reply = clients::get(self.addr, "/1k").await?;
        ensure!(reply.status == 200 && reply.body.len() == 1024, "{reply:?}");
        Ok(())
    }
}

impl Program {
    /// In the benchmark's own namespace.
    pub fn here(words: Vec<String>) -> Self {
        Self { netns: Netns::here(), words }
    }

    fn installed(&self) -> bool {
        let program = self.words.first().map(String::as_str).unwrap_or_default();
        let path = std::env::var_os("PATH").unwrap_or_default();
        program.contains('/') && Path::new(program).is_file()
            || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    }
}

impl Spec {
    /// The first of its programs that isn't installed.
    pub fn missing(&self) -> Option<&str> {
        self.programs
            .iter()
            .find(|program| !program.installed())
            .and_then(|program| program.words.first())
            .map(|w| &**w)
    }
}

impl Peer {
    /// Starts it on one core and waits until it answers.
    ///
    /// # Errors
    /// When a program can't be started, ends, or doesn't answer in time; with its output.
    pub fn start(spec: Spec, core: usize) -> Result<Self> {
        let mut programs = Vec::new();
        for program in &spec.programs {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).args(&program.words);
            programs.push(program.netns.start(command).with_context(|| spec.name)?);
        }
        let Spec { name, h1, h2, tcp, .. } = spec;
        let peer = Self { name, h1, h2, tcp, programs };
        peer.ready().with_context(|| peer.name)?;
        Ok(peer)
    }

    fn ready(&self) -> Result<()> {
        let end = Instant::now() + READY;
        for front in [Some(&self.h1), self.tcp.as_ref()].into_iter().flatten() {
            loop {
                match front.from.block_on(front.answers()) {
                    Ok(()) => break,
                    Err(error) if Instant::now() > end => {
                        let logs = self.programs.iter().map(Process::log).collect::<Result<Vec<_>>>()?;
                        bail!("{} doesn't serve: {error:#}\n{}", front.addr, logs.join("\n"));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        }
        Ok(())
    }

    /// What its programs have used so far.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for program in &self.programs {
            let used = usage(program.pid()).with_context(|| format!("{} is gone: {:?}", self.name, program.log()))?;
            sum.cpu += used.cpu;
            sum.memory += used.memory;
        }
        Ok(sum)
    }
}

fn usage(pid: u32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the program's name in parentheses, which may hold anything: field 3 and on (proc_pid_stat(5)).
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |field: usize| -> Result<u64> { Ok(fields.get(field - 3).context("a short stat")?.parse()?) };
    let ticks = number(14)? + number(15)?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.context("no page size")?;
    let cpu = Duration::from_secs_f64(ticks as f64 / per_second as f64);
    Ok(Usage { cpu, memory: number(24)? * page.cast_unsigned() })
}
