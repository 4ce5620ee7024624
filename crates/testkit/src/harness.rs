//! The main function of a test binary whose tests need namespaces of their own.
//!
//! Three processes, one binary. The first unshares its namespaces and starts the second, which is process 1
//! of a process namespace: it reaps orphans and starts the third, which runs the tests. When the first is killed the
//! kernel kills the second, and with process 1 goes everything inside: servers, namespaces, mounts. So nothing can be
//! left behind, and nothing here has to clean up for that to be true.
//!
//! ```no_run
//! fn pods_reach_each_other() -> anyhow::Result<()> { Ok(()) }
//! weft_testkit::netns_tests! { pods_reach_each_other }
//! ```

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};

/// Says to the binary which of the three processes it is.
const STAGE: &str = "WEFT_TESTKIT_STAGE";
/// A test that takes longer than this is stuck: the binary ends, and the namespaces with it.
const TEST_DEADLINE: Duration = Duration::from_secs(180);

/// Declares `main` for a test with `harness = false` and runs the named functions
/// (`fn() -> anyhow::Result<()>`) in private namespaces, with the command line of an ordinary Rust test.
#[macro_export]
macro_rules! netns_tests {
    ($($test:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            $crate::harness::main(&[$((stringify!($test), $test as $crate::harness::Test)),+])
        }
    };
}

/// A test: passes when it returns `Ok`.
pub type Test = fn() -> Result<()>;

/// Lists or runs the tests; see [`netns_tests!`](crate::netns_tests).
pub fn main(tests: &[(&'static str, Test)]) -> ExitCode {
    let mut args = Arguments::from_args();
    // Two cores and real sockets: one world at a time keeps the timing of each honest.
    args.test_threads = args.test_threads.or(Some(1));
    if !args.list
        && let Err(e) = enter()
    {
        eprintln!("no private namespaces for the tests (root or unprivileged user namespaces are needed): {e:#}");
        return ExitCode::FAILURE;
    }
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, move || run(name, test))).collect();
    libtest_mimic::run(&args, trials).exit_code()
}

fn run(name: &'static str, test: Test) -> Result<(), Failed> {
    let _watchdog = watchdog(name);
    test().map_err(|e| Failed::from(format!("{e:?}")))
}

/// Ends the process when the returned guard still lives after [`TEST_DEADLINE`].
fn watchdog(name: &'static str) -> mpsc::Sender<()> {
    let (guard, done) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if done.recv_timeout(TEST_DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("test {name} still runs after {TEST_DEADLINE:?}: giving up on the whole binary");
            std::process::exit(101);
        }
    });
    guard
}

/// Continues inside private mount, network, process, host name and IPC namespaces. The processes outside never
/// return from here: they exit with the status of the one inside. Call it first thing in `main`, before any thread starts.
///
/// # Errors
/// When the kernel refuses the namespaces.
pub fn enter() -> Result<()> {
    match std::env::var(STAGE).as_deref() {
        Ok("inside") => Ok(()),
        Ok("init") => std::process::exit(init()?),
        _ => std::process::exit(launch()?),
    }
}

/// This same binary with its arguments, as if started outside; for tests of the harness itself.
pub fn again_from_outside() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env_remove(STAGE);
    command
}

fn launch() -> Result<i32> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    match unshare(flags) {
        Ok(()) => {}
        Err(Errno::EPERM) => unshare_as_user(flags)?,
        Err(e) => bail!("unshare: {e}"),
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make mounts private")?;
    let status = this_binary("init")?.status().context("start the first process inside")?;
    Ok(exit_code(status))
}

fn unshare_as_user(flags: CloneFlags) -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(flags | CloneFlags::CLONE_NEWUSER).context("unshare with a user namespace")?;
    std::fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("uid_map")?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("gid_map")
}

/// Process 1 of the process namespace.
fn init() -> Result<i32> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("ask to die with the parent")?;
    let none = MsFlags::empty();
    mount(Some("proc"), "/proc", Some("proc"), none, None::<&str>).context("mount /proc")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), none, None::<&str>).context("mount /run")?;
    let child = this_binary("inside")?.spawn().context("start the tests")?.id().cast_signed();
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                eprintln!("the tests were ended by {signal}");
                return Ok(128 + signal as i32);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => bail!("wait for the tests: {e}"),
        }
    }
}

fn this_binary(stage: &str) -> Result<Command> {
    let exe = Path::new("/proc/self/exe").canonicalize().context("find this binary")?;
    let mut command = Command::new(exe);
    command.args(std::env::args_os().skip(1)).env(STAGE, stage);
    Ok(command)
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
