//! A network namespace with a name, and ways to run things in it.
//!
//! A thread enters a namespace once and for its whole life; nobody ever comes back. That way no thread of a
//! pool can be left in the wrong place by an early return or a panic.

use std::fs::File;
use std::future::Future;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::Process;
use crate::task::Task;

/// Where named network namespaces live, as `ip netns` and CNI runtimes have it.
pub const NETNS_DIR: &str = "/run/netns";
/// Longer than the kernel takes for what it does in the background.
const SETTLE: Duration = Duration::from_secs(5);
/// `RTF_LOCAL` of `<linux/ipv6_route.h>`.
const RTF_LOCAL: u32 = 0x8000_0000;

/// A network namespace. Clones are the same namespace; its name goes when the last clone does, the namespace itself
/// when its last process and socket do.
#[derive(Clone, Debug)]
pub struct Netns(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    /// Where the caller already is: nothing to enter, no privilege needed.
    Here,
    Named {
        name: String,
        fd: OwnedFd,
    },
}

impl Netns {
    /// The namespace of whoever uses it; lets servers and clients work without a world.
    pub fn here() -> Self {
        Self(Arc::new(Inner::Here))
    }

    /// Makes a namespace under [`NETNS_DIR`], with loopback up, duplicate address detection off (an address works at
    /// once) and unprivileged ping.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        // Whoever makes the first one on a machine makes the directory, as ip-netns(8) does.
        std::fs::create_dir_all(NETNS_DIR).with_context(|| format!("create {NETNS_DIR}"))?;
        let path = Path::new(NETNS_DIR).join(name);
        File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        let bound = scoped(|| -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare a network namespace")?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .context("give the namespace a name")?;
            for (key, value) in [
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                ("ipv4/ping_group_range", "0 0"),
            ] {
                write_sysctl(key, value)?;
            }
            Ok(())
        });
        if bound.is_err() {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(&path);
        }
        bound?;
        let fd = File::open(&path).context("open the namespace")?.into();
        let this = Self(Arc::new(Inner::Named { name: name.to_owned(), fd }));
        this.ip(&["link set lo up"])?;
        Ok(this)
    }

    /// Its name; empty for [`here`](Self::here).
    pub fn name(&self) -> &str {
        match &*self.0 {
            Inner::Here => "",
            Inner::Named { name, .. } => name,
        }
    }

    /// The path a CNI plugin gets in `CNI_NETNS`.
    pub fn path(&self) -> PathBuf {
        match &*self.0 {
            Inner::Here => PathBuf::from("/proc/thread-self/ns/net"),
            Inner::Named { name, .. } => Path::new(NETNS_DIR).join(name),
        }
    }

    /// The descriptor to hand to somebody else, as the node agent does; none for [`here`](Self::here).
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &*self.0 {
            Inner::Here => None,
            Inner::Named { fd, .. } => Some(fd.as_fd()),
        }
    }

    /// Moves the calling thread here for the rest of its life.
    pub(crate) fn enter(&self) -> Result<()> {
        match self.fd() {
            Some(fd) => setns(fd, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter netns {}", self.name())),
            None => Ok(()),
        }
    }

    /// Runs code here, on a thread of its own, and waits for it. A panic in it goes on in the caller.
    ///
    /// # Panics
    /// When the namespace can't be entered, or the code panics.
    pub fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        scoped(|| {
            self.enter().unwrap_or_else(|e| panic!("{e:#}"));
            code()
        })
    }

    /// Drives a future here, on a thread with a single-threaded runtime, and waits for it.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.run(|| crate::task::runtime().block_on(future))
    }

    /// Drives a future here in the background until the returned task is dropped.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        self.spawn_with(move || future)
    }

    /// As [`spawn`](Self::spawn), for futures that need the runtime, or this namespace, to be made.
    pub fn spawn_with<T, F>(&self, make: impl FnOnce() -> F + Send + 'static) -> Task<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        Task::spawn(self.clone(), make)
    }

    /// Runs a program here and returns what it said, whatever its exit status.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        let text = format!("{command:?}");
        self.run(move || command.stdin(Stdio::null()).output()).with_context(|| format!("run {text}"))
    }

    /// Runs a program here with arguments split at blanks; its standard output.
    ///
    /// # Errors
    /// When it can't be started or fails; with its standard error.
    pub fn exec(&self, command: &str) -> Result<String> {
        let mut words = command.split_whitespace();
        let mut cmd = Command::new(words.next().unwrap_or_default());
        let out = self.output(cmd.args(words))?;
        let stderr = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "{}: {command}: {}: {stderr}", self.name(), out.status);
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Starts a program here that is killed when the returned guard is dropped.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, command: Command) -> Result<Process> {
        Process::start(self, command)
    }

    /// Runs lines of `ip` commands here, as one batch.
    ///
    /// # Errors
    /// At the first line that fails.
    pub fn ip<S: AsRef<str>>(&self, lines: &[S]) -> Result<()> {
        use std::io::Write as _;
        let script = lines.iter().map(|l| format!("{}\n", l.as_ref())).collect::<String>();
        let out = self.run(|| -> Result<Output> {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = ip.spawn().context("start ip")?;
            child.stdin.take().context("ip has no stdin")?.write_all(script.as_bytes())?;
            Ok(child.wait_with_output()?)
        })?;
        let stderr = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "ip in {:?}: {stderr}\n{script}", self.name());
        Ok(())
    }

    /// Waits until an interface has a carrier.
    ///
    /// # Errors
    /// When it has none after five seconds.
    pub(crate) fn wait_carrier(&self, interface: &str) -> Result<()> {
        let running = |i: &InterfaceAddress| i.flags.contains(InterfaceFlags::IFF_RUNNING);
        self.wait(&format!("carrier of {interface}"), || {
            Ok(getifaddrs()?.any(|i| i.interface_name == interface && running(&i)))
        })
    }

    /// Waits until an address is delivered locally. The kernel adds that route some time after the address; until then its
    /// own pod looks for it on the link.
    ///
    /// # Errors
    /// When it isn't after five seconds.
    pub(crate) fn wait_local(&self, address: Ipv6Addr) -> Result<()> {
        let start = format!("{:032x} 80 ", address.to_bits());
        self.wait(&format!("route of {address}"), || {
            let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route")?;
            let flags = |r: &str| r.split_whitespace().nth(8).and_then(|f| u32::from_str_radix(f, 16).ok());
            Ok(routes.lines().any(|r| r.starts_with(&start) && flags(r).is_some_and(|f| f & RTF_LOCAL != 0)))
        })
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> Result<bool> + Send) -> Result<()> {
        let end = Instant::now() + SETTLE;
        self.run(|| {
            while !done()? {
                ensure!(Instant::now() < end, "no {what} in {:?}", self.name());
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }

    /// Sets a sysctl here; `key` is a path below `/proc/sys/net`.
    ///
    /// # Errors
    /// When there is no such key or the value is refused.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| write_sysctl(key, value))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Self::Named { name, .. } = self {
            let path = Path::new(NETNS_DIR).join(name);
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// `/proc/sys/net` shows the namespace of the thread that opens the file.
fn write_sysctl(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(key);
    std::fs::write(&path, value).with_context(|| format!("write {value:?} to {}", path.display()))
}

/// Runs code on a new thread and waits; the caller's thread keeps its namespaces.
fn scoped<T: Send>(code: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| s.spawn(code).join().unwrap_or_else(|panic| resume_unwind(panic)))
}
