//! Programs started by tests, ended by a guard.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running program. Its output is collected in a file without a name; dropping the guard kills it and waits.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: File,
}

impl Process {
    /// Starts a program in a namespace.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(place: &Netns, mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = tempfile::tempfile().context("a file for output")?;
        let (stdout, stderr) = (log.try_clone()?, log.try_clone()?);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = place.run(move || command.spawn()).with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote to standard output and error so far.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn log(&self) -> Result<String> {
        // The descriptor shares its offset with the writer, which must go on at the end.
        let mut file = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.log)))?;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// When the program ends before, or the deadline passes; with its log.
    pub fn wait_until(&mut self, deadline: Duration, mut ready: impl FnMut(&str) -> bool) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            let log = self.log()?;
            if ready(&log) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended early ({status}):\n{log}", self.name);
            }
            if Instant::now() > end {
                bail!("{} isn't ready after {deadline:?}:\n{log}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the program is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).with_context(|| format!("signal {}", self.name))
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    /// When the deadline passes; with its log.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} still runs after {deadline:?}:\n{}", self.name, self.log()?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end (SIGTERM), kills it after five seconds; how it ended.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if let Ok(status) = self.wait(GRACE) {
            return Ok(status);
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
