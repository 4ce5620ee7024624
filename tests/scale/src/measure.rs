//! Memory and processor time of a process, and bytes of a listener, as the kernel counts them.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

/// A process.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

impl Process {
    pub const fn of(id: u32) -> Self {
        Self(id)
    }

    /// Memory it has now, MiB.
    pub fn memory(self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most memory it had, MiB.
    pub fn peak(self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(self, field: &str) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time of all its threads since it started.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0))? {
            // A thread may end meanwhile.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += text.split(' ').next().context("schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

/// Bytes that a listener's open connections have sent, as TCP has it: TLS and HTTP/2 included.
pub fn bytes_sent(port: u16) -> anyhow::Result<f64> {
    let output = Command::new("ss").args(["-tinH", "state", "established", &format!("sport = :{port}")]).output();
    let output = output.context("ss, of iproute2")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sent = text.split_whitespace().filter_map(|word| word.strip_prefix("bytes_sent:")?.parse::<f64>().ok());
    Ok(sent.sum())
}

/// Of the last minute: what else goes on on this machine is part of every number.
pub fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().context("loadavg")?.parse()?)
}
