//! What a process tells of itself: its build, memory, processor time and descriptors.

use std::fmt::{Display, Write as _};
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::catalogue::everywhere;
use crate::family::{Component, Family};

/// Families of the process and its build, in the text format. What the kernel doesn't tell is left out.
pub fn render(component: Component, version: &str) -> String {
    let mut page = everywhere::BUILD.head();
    // Writing to a String cannot fail.
    let _ =
        writeln!(page, "{}{{version=\"{version}\",component=\"{}\"}} 1", everywhere::BUILD.name, component.as_str());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let bytes = |name: &str| field(name)?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10);
    tell(&mut page, &everywhere::CPU, cpu_seconds());
    tell(&mut page, &everywhere::RESIDENT_MEMORY, bytes("VmRSS:"));
    tell(&mut page, &everywhere::VIRTUAL_MEMORY, bytes("VmSize:"));
    tell(&mut page, &everywhere::OPEN_FDS, open_descriptors());
    tell(&mut page, &everywhere::MAX_FDS, getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft));
    tell(&mut page, &everywhere::THREADS, field("Threads:").and_then(|count| count.parse::<u64>().ok()));
    tell(&mut page, &everywhere::START_TIME, start_time());
    page
}

fn tell(page: &mut String, family: &Family, value: Option<impl Display>) {
    if let Some(value) = value {
        let _ = writeln!(page, "{}{} {value}", family.head(), family.name);
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(Duration::from_micros(u64::try_from(micros).ok()?).as_secs_f64())
}

fn open_descriptors() -> Option<usize> {
    // The folder itself is one while it is read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// When the process started. The kernel tells it in ticks since the machine's start, a hundred a second on every
/// architecture of Linux that user programs see (`USER_HZ`); what comes of it is kept, so that it never moves with the clock.
fn start_time() -> Option<f64> {
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in parentheses, may hold anything; the start is the 20th field after it.
        let after = stat.rsplit_once(") ")?.1;
        let ticks: u64 = after.split(' ').nth(19)?.parse().ok()?;
        let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let since_boot = Duration::from_millis(ticks.saturating_mul(10)).as_secs_f64();
        Some(now.as_secs_f64() - (uptime - since_boot).max(0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, families};

    #[test]
    fn a_process_tells_of_itself() {
        let page = render(Component::Agent, "1.2.3");
        assert_eq!(check(&page, Component::Agent), Vec::<String>::new());
        for family in families().filter(|family| family.components == Component::ALL) {
            assert!(page.contains(&family.head()), "{}", family.name);
        }
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 1.0 && value("process_open_fds") < value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let age =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - value("process_start_time_seconds");
        assert!((-1.0..86_400.0).contains(&age), "{age}");
        assert!(page.contains("weft_build_info{version=\"1.2.3\",component=\"agent\"} 1"));
        assert_eq!(start_time(), start_time(), "it doesn't move");
    }
}
