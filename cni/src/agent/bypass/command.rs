//! `weft node bypass`, which is `weft-agent bypass` in the agent's image: what root does on the node itself.
//!
//! ```text
//!   order (file) --> each enrolled pod that it is for: namespace from its record, pinned by device and inode --> rules removed
//!                `-> the agent, if one runs: leaves these pods alone, opens what couldn't be reached from here
//! ```
//!
//! The order comes first: an agent that looked before it was there may set rules once more, and takes them away at its next
//! look. What is done is written below the state, in `bypass.log`, one JSON object for each call.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use serde::Serialize;
use tokio::time::Instant;
use weft_core::ids::ServiceAccount;
use weft_sys::{ErrorContext as _, Netns};

use super::Bypass;
use crate::agent::enrolment::{Decision, Enrolled};
use crate::agent::store::{self, Applied, Record};
use crate::rules::{OlderFlows, RuleSet, Rules};

/// Where calls are written to, in the directory of state.
const LOG: &str = "bypass.log";
/// Pods under work at once.
const AT_ONCE: usize = 8;
/// How long a running agent gets for what can't be done from here. All of it stays below five seconds.
const AGENT: Duration = Duration::from_millis(3500);
/// Between two looks whether it has done it.
const LOOK: Duration = Duration::from_millis(100);

/// What root asks for.
#[derive(Clone, Debug, clap::Args)]
pub struct BypassSettings {
    /// Take the pods into the mesh again
    #[arg(long)]
    pub off: bool,
    /// Open Strict pods too, and those of which it isn't known: anybody reaches them in plaintext, whatever policies say
    #[arg(long, conflicts_with = "off")]
    pub strict: bool,
    /// Why, for the log and whoever finds it
    #[arg(long, default_value = "", conflicts_with = "off")]
    pub reason: String,
    /// The directory where this node's agent keeps its state
    #[arg(long, env = "WEFT_STATE_DIR", default_value = "/var/lib/weft/agent")]
    pub state_dir: PathBuf,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum BypassError {
    /// Not root.
    #[error("only root on the node may do this")]
    NotRoot,
    /// No agent has been here.
    #[error("there is no agent's state in {}: is this a node of the mesh? --state-dir names another place", .0.display())]
    NoState(PathBuf),
    /// The order, the records or the log.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing of ours is between it and the network.
    Opened,
    /// It stays as it was: Strict, or nobody knows.
    Closed,
    /// Its rules are there again, or will be as soon as a proxy serves.
    Returned,
    /// Neither, and why.
    Failed(String),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By namespace and name.
    pub pods: BTreeMap<String, Outcome>,
    /// Records that can't be read.
    pub unreadable: Vec<String>,
    /// What should have been written and wasn't, on a disk that is full say: pods are opened all the same.
    pub unkept: Vec<String>,
}

impl Report {
    /// Whether every pod became what was asked for, and stays so.
    pub fn is_complete(&self) -> bool {
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        self.unreadable.is_empty() && self.unkept.is_empty() && !self.pods.values().any(failed)
    }

    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.pods.values().filter(|outcome| wanted(outcome)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (pod, outcome) in &self.pods {
            match outcome {
                Outcome::Opened => writeln!(f, "opened    {pod}")?,
                Outcome::Closed => writeln!(f, "closed    {pod}: Strict, or not known; --strict opens it too")?,
                Outcome::Returned => writeln!(f, "returned  {pod}")?,
                Outcome::Failed(why) => writeln!(f, "failed    {pod}: {why}")?,
            }
        }
        for what in &self.unreadable {
            writeln!(f, "failed    {what}")?;
        }
        for what in &self.unkept {
            writeln!(f, "not kept  {what}")?;
        }
        let (opened, returned) = (self.count(|o| *o == Outcome::Opened), self.count(|o| *o == Outcome::Returned));
        let failed = self.count(|o| matches!(o, Outcome::Failed(_))) + self.unreadable.len();
        let closed = self.count(|o| *o == Outcome::Closed);
        writeln!(f, "{opened} opened, {returned} returned, {closed} left closed, {failed} failed")?;
        if opened > 0 {
            writeln!(
                f,
                "what is open is out of the mesh until `weft node bypass --off`: no encryption, no policies, no routes"
            )?;
        }
        Ok(())
    }
}

/// Does what is asked for.
///
/// # Errors
/// [`BypassError`]: who asks may not, or the state can't be read or written.
pub async fn run(settings: &BypassSettings) -> Result<Report, BypassError> {
    permitted(nix::unistd::geteuid().is_root())?;
    let rules = Rules::default();
    let (order, mut report) = if settings.off {
        (Bypass::read(&settings.state_dir).ok().flatten(), give_back(&settings.state_dir, &rules).await?)
    } else {
        let order = ordered(settings);
        let report = open(&settings.state_dir, &order, &rules).await?;
        (Some(order), report)
    };
    if let Err(error) = log(&settings.state_dir, settings.off, order.as_ref(), &report) {
        report.unkept.push(format!("this call isn't in {LOG}: {error}"));
    }
    Ok(report)
}

fn permitted(is_root: bool) -> Result<(), BypassError> {
    if is_root { Ok(()) } else { Err(BypassError::NotRoot) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn ordered(settings: &BypassSettings) -> Bypass {
    // Whoever became root by sudo; a shell of root's own says no more.
    let by = std::env::var("SUDO_USER").map_or_else(|_| "root".to_owned(), |user| format!("root ({user})"));
    Bypass { since: now(), by, reason: settings.reason.clone(), strict: settings.strict }
}

/// Orders it, and opens what it is for. An order that can't be written keeps no pod closed, but no agent knows of it.
///
/// # Errors
/// When no agent has been here, or its records can't be listed.
pub async fn open(state_dir: &Path, order: &Bypass, rules: &Rules) -> Result<Report, BypassError> {
    let (enrolled, unreadable) = enrolled(state_dir)?;
    let former = Bypass::read(state_dir).ok().flatten();
    let unkept = order.write(state_dir).err().map(|error| {
        format!("the order: {error}. An agent that runs, or starts, takes these pods into the mesh again: make room and say it once more")
    });
    let (wanted, closed): (Vec<_>, Vec<_>) = enrolled.into_iter().partition(|(_, pod)| order.opens(pod));
    let mut report = Report { unreadable, unkept: unkept.into_iter().collect(), ..Report::default() };
    for (record, pod) in closed {
        // What the order before opened, and this one doesn't.
        let again = match former.as_ref().is_some_and(|former| former.opens(&pod)) {
            true => set_again(&record, &pod, rules).await,
            false => Ok(()),
        };
        report.pods.insert(record.pod.to_string(), again.map_or_else(Outcome::Failed, |()| Outcome::Closed));
    }
    let removed = futures::stream::iter(wanted).map(|(record, _)| async move {
        let done = match namespace(&record) {
            Ok(netns) => rules.remove(&netns).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        (record, done)
    });
    let removed: Vec<_> = removed.buffer_unordered(AT_ONCE).collect().await;
    let is_open = |record: &Record| record.bypassed && record.set == Applied::Nothing;
    let end = Instant::now() + AGENT;
    for (record, done) in removed {
        let outcome = match done {
            Ok(()) => Outcome::Opened,
            Err(_) if by_agent(state_dir, &record, end, is_open).await => Outcome::Opened,
            Err(why) => Outcome::Failed(why),
        };
        report.pods.insert(record.pod.to_string(), outcome);
    }
    Ok(report)
}

/// Takes the order back, and sets the rules of what no agent takes care of.
///
/// # Errors
/// When no agent has been here, or the order can't be removed.
pub async fn give_back(state_dir: &Path, rules: &Rules) -> Result<Report, BypassError> {
    let (enrolled, unreadable) = enrolled(state_dir)?;
    let mut report = Report { unreadable, ..Report::default() };
    if !Bypass::remove(state_dir)? {
        return Ok(report);
    }
    let end = Instant::now() + AGENT;
    for (record, pod) in enrolled {
        let done = match record.bypassed && by_agent(state_dir, &record, end, |record| !record.bypassed).await {
            true => Ok(()),
            false => set_again(&record, &pod, rules).await,
        };
        report.pods.insert(record.pod.to_string(), done.map_or_else(Outcome::Failed, |()| Outcome::Returned));
    }
    Ok(report)
}

/// Sets the rules that a pod had before it was opened. One that no proxy serves is closed by them until one does.
async fn set_again(record: &Record, pod: &Enrolled, rules: &Rules) -> Result<(), String> {
    let set = match record.set {
        Applied::Closed => RuleSet::Closed,
        // Never set: nothing was taken away.
        Applied::Nothing if !record.bypassed => return Ok(()),
        Applied::Redirecting | Applied::Nothing => RuleSet::Redirecting { older_flows: pod.older_flows },
    };
    let netns = namespace(record).map_err(|error| error.to_string())?;
    rules.apply(&netns, set).await.map_err(|error| error.to_string())
}

/// A pod of the mesh, as the agent last knew it.
type EnrolledPod = (Record, Enrolled);

/// The enrolled pods of the node, and what can't be read of it.
fn enrolled(state_dir: &Path) -> Result<(Vec<EnrolledPod>, Vec<String>), BypassError> {
    let read = match store::read(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BypassError::NoState(state_dir.to_owned()));
        }
        read => read?,
    };
    let (mut pods, mut unreadable) = (Vec::new(), Vec::new());
    for (path, record) in read {
        match record {
            Ok(record) => match record.decision.clone() {
                Some(Decision::Enrolled(enrolled)) => pods.push((record, enrolled)),
                // Rules without a decision: an agent found it so, and has heard nothing of it since.
                None if record.set != Applied::Nothing => {
                    let account = ServiceAccount::from("");
                    let unknown = Enrolled { service_account: account, older_flows: OlderFlows::Keep, strict: None };
                    pods.push((record, unknown));
                }
                Some(Decision::Outside(_)) | None => {}
            },
            Err(why) => unreadable.push(format!("{}: {why}", path.display())),
        }
    }
    Ok((pods, unreadable))
}

/// The pod's namespace, and no other's that has its path by now.
fn namespace(record: &Record) -> io::Result<Netns> {
    let netns = Netns::open(&record.netns_path)?;
    if netns.id() == record.netns_id() {
        return Ok(netns);
    }
    let what = format!("{} is another namespace now", record.netns_path.display());
    Err(io::Error::new(io::ErrorKind::NotFound, what))
}

/// Whether a running agent makes the record so, in time.
async fn by_agent(dir: &Path, record: &Record, end: Instant, done: impl Fn(&Record) -> bool) -> bool {
    loop {
        let found = store::read_one(dir, &record.sandbox);
        // One that is gone needs nothing any more.
        if found.as_ref().is_ok_and(&done) || found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A line of the log.
#[derive(Serialize)]
struct Line<'a> {
    time: u64,
    off: bool,
    order: Option<&'a Bypass>,
    #[serde(flatten)]
    report: &'a Report,
}

fn log(dir: &Path, off: bool, order: Option<&Bypass>, report: &Report) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = dir.join(LOG);
    let line = serde_json::to_string(&Line { time: now(), off, order, report })? + "\n";
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_may_not_and_where_nothing_is_known_nothing_is_done() {
        assert!(matches!(permitted(false), Err(BypassError::NotRoot)));
        assert!(permitted(true).is_ok());
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        let order = Bypass { since: 1, by: "root".into(), reason: String::new(), strict: false };
        for refused in [open(&missing, &order, &Rules::default()).await, give_back(&missing, &Rules::default()).await] {
            assert!(matches!(&refused, Err(BypassError::NoState(place)) if *place == missing), "{refused:?}");
        }
        assert!(!missing.exists(), "an order for nobody");
    }

    /// A newer agent's record, or one that the disk spoilt: reported, left as it is, and nothing else is kept from it.
    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let spoilt = dir.path().join("abc.json");
        std::fs::write(&spoilt, "{").unwrap();
        let order = Bypass { since: 1, by: "root".into(), reason: String::new(), strict: true };
        let report = open(dir.path(), &order, &Rules::default()).await.unwrap();
        assert!(!report.is_complete() && report.unreadable.len() == 1, "{report}");
        assert!(report.to_string().contains("abc.json"), "{report}");
        assert_eq!(std::fs::read_to_string(&spoilt).unwrap(), "{");
        assert_eq!(Bypass::read(dir.path()).unwrap(), Some(order));
    }

    #[test]
    fn every_call_is_a_line_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let order = Bypass { since: 1, by: "root (ann)".into(), reason: "INC-1".into(), strict: false };
        let report = Report { pods: [("shop/cart".to_owned(), Outcome::Opened)].into(), ..Report::default() };
        log(dir.path(), false, Some(&order), &report).unwrap();
        log(dir.path(), true, Some(&order), &Report::default()).unwrap();
        let lines = std::fs::read_to_string(dir.path().join(LOG)).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["order"]["by"], "root (ann)");
        assert_eq!((&lines[0]["pods"]["shop/cart"], &lines[0]["off"]), (&"opened".into(), &false.into()));
        assert_eq!(lines[1]["off"], true);
    }
}
