//! `weft bugreport`: what somebody needs who is to find a mistake from afar, in one file: statuses, checks, configurations,
//! metrics, requests that failed and logs of all parts. No Secret is read, and what looks like one in a log is taken out.

mod archive;
mod redact;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use self::archive::Archive;
use crate::ask::{Proxies, Whom};
use crate::cluster::{self, Session, Target, block_on};

/// The pages of a proxy, and the names of their files.
const PAGES: [(&str, &str); 5] = [
    ("/config_dump", "config_dump.json"),
    ("/metrics", "metrics.txt"),
    ("/connections", "connections.json"),
    ("/requests?last=1000", "requests.json"),
    ("/readyz", "readyz.txt"),
];

/// What to collect, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write; - is standard output [default: weft-bugreport-TIME.tar.gz]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Logs of the last so long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "1h")]
    since: Duration,
    /// The most lines of each log
    #[arg(long, value_name = "N", default_value_t = 5000)]
    lines: u32,
    #[command(flatten)]
    from: Whom,
}

/// Collects and writes. What can't be read is noted in the file `unread.txt` of the report, and costs itself only.
///
/// # Errors
/// Nothing at all could be read, or the file can't be written.
pub fn run(args: &Args, target: &Target) -> anyhow::Result<ExitCode> {
    let now = time::OffsetDateTime::now_utc();
    let (date, clock) = (now.date(), now.time());
    let stamp = format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    let name = format!("weft-bugreport-{stamp}");
    let mut archive = Archive::new(&name);
    archive.add("version.txt", concat!("weft ", env!("CARGO_PKG_VERSION"), "\n"));
    block_on(collect(&mut archive, args, target))?;
    let bytes = archive.finish()?;
    let path = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    if path.as_os_str() == "-" {
        use std::io::Write as _;
        std::io::stdout().lock().write_all(&bytes).context("standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} KiB", path.display(), bytes.len().div_ceil(1024));
    println!("It names pods, Services, hosts and paths of requests; look through it before you give it away.");
    Ok(ExitCode::SUCCESS)
}

async fn collect(archive: &mut Archive, args: &Args, target: &Target) -> anyhow::Result<()> {
    let proxies = Proxies::of(target, &args.from).await?;
    let mut unread = Vec::new();
    let mut read = 0;
    for (page, file) in PAGES {
        let take = |name: &str, answer: anyhow::Result<bytes::Bytes>| match answer {
            Ok(body) => {
                read += 1;
                archive.add(&format!("proxies/{}/{file}", archive::file_name(name)), &String::from_utf8_lossy(&body));
            }
            Err(error) => unread.push(format!("{page} of {name}: {error:#}")),
        };
        proxies.each(page, take).await;
    }
    if let Some(session) = proxies.session() {
        read += of_cluster(archive, session, args, &mut unread).await;
    }
    archive.add("unread.txt", &(unread.join("\n") + "\n"));
    ensure!(read > 0, "nothing could be read: {}", unread.join("; "));
    Ok(())
}

/// Statuses, checks and logs. How many files there are.
async fn of_cluster(archive: &mut Archive, session: &Session, args: &Args, unread: &mut Vec<String>) -> usize {
    let mut files = 0;
    match cluster::overview(session).await {
        Ok(parts) => {
            for (file, text) in parts {
                archive.add(&file, &text);
                files += 1;
            }
        }
        Err(error) => unread.push(format!("status: {error:#}")),
    }
    let since = i64::try_from(args.since.as_secs()).unwrap_or(i64::MAX);
    let take = |name: &str, log: Result<String, _>| match log {
        Ok(text) => {
            archive.add(&format!("logs/{}.txt", archive::file_name(name)), &text);
            files += 1;
        }
        Err(why) => unread.push(format!("log of {name}: {why}")),
    };
    if let Err(error) = cluster::logs(session, since, i64::from(args.lines), take).await {
        unread.push(format!("logs: {error:#}"));
    }
    files
}
