//! The order to open this node's pods: the way back when nobody can bring the proxy up, and the API server can't be asked.
//!
//! It is a file in the agent's directory of state, written by root on the node ([`command`]) and looked at here, so that it
//! outlives the agent and the node's reboot, and needs neither a proxy nor an API server. While it is there:
//!
//! ```text
//!   enrolled, takes plaintext anyway ---> no rules, not the proxy's       (Unprotected: alert)
//!   enrolled, Strict or not known ------> as ever; with `strict` as above
//! ```
//!
//! Invariants:
//! - A file that can't be read opens nothing.
//! - What was opened and isn't known to take plaintext is closed in the round that finds the file gone, whether a proxy
//!   serves or not. What takes plaintext anyway waits for a proxy, like any running pod that joins.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Agent;
use super::enrolment::Enrolled;
use super::store::write_atomically;

pub mod command;

/// The order's file in the directory of state. Records end in `.json`: this is none.
const FILE: &str = "bypass";
/// How often an agent looks whether there is one.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// Who ordered what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    /// When, seconds since the Unix epoch.
    pub since: u64,
    /// By whom, as far as the shell says.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// Whether Strict pods are opened too.
    pub strict: bool,
}

impl Bypass {
    /// The order that is in force.
    ///
    /// # Errors
    /// When there is one that can't be read.
    pub fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(state_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Orders it.
    ///
    /// # Errors
    /// What the file system says; nothing is ordered then.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        write_atomically(&path(state_dir), &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Takes the order back; whether there was one.
    ///
    /// # Errors
    /// What the file system says; it stays in force then.
    pub fn remove(state_dir: &Path) -> io::Result<bool> {
        match std::fs::remove_file(path(state_dir)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it is for such a pod.
    pub fn opens(&self, enrolled: &Enrolled) -> bool {
        self.strict || enrolled.strict == Some(false)
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

impl Agent {
    /// The order that is in force on this node, if there is one that can be read.
    pub fn bypass(&self) -> Option<Bypass> {
        Bypass::read(&self.options.state_dir).ok().flatten()
    }

    /// Says what became of the order since the last look; whether it is another one.
    pub(super) fn notice_bypass(&self, last: &mut Option<Bypass>) -> bool {
        let now = match Bypass::read(&self.options.state_dir) {
            Ok(now) => now,
            Err(error) => {
                tracing::error!(%error, "the order of `weft node bypass` can't be read, and opens nothing");
                None
            }
        };
        if now == *last {
            return false;
        }
        match &now {
            Some(Bypass { by, reason, strict, .. }) => tracing::warn!(
                by,
                reason,
                strict,
                "`weft node bypass`: this node's pods are taken out of the mesh and talk in the clear until `weft node bypass --off`"
            ),
            None => tracing::warn!("`weft node bypass` is over: this node's pods are taken into the mesh again"),
        }
        *last = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::OlderFlows;

    #[test]
    fn only_what_is_known_to_take_plaintext_is_opened_without_a_word() {
        let pod = |strict| Enrolled { service_account: "a".into(), older_flows: OlderFlows::Keep, strict };
        let order = |strict| Bypass { since: 1, by: "root".into(), reason: String::new(), strict };
        for (known, plain, with_strict) in [(Some(false), true, true), (Some(true), false, true), (None, false, true)] {
            assert_eq!(order(false).opens(&pod(known)), plain, "{known:?}");
            assert_eq!(order(true).opens(&pod(known)), with_strict, "{known:?}");
        }
    }

    #[test]
    fn an_order_is_kept_and_one_that_cannot_be_read_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let order = Bypass { since: 7, by: "root (ann)".into(), reason: "INC-1".into(), strict: true };
        assert_eq!(Bypass::read(dir.path()).unwrap(), None);
        order.write(dir.path()).unwrap();
        assert_eq!(Bypass::read(dir.path()).unwrap(), Some(order));
        std::fs::write(path(dir.path()), "{").unwrap();
        assert!(Bypass::read(dir.path()).is_err());
        assert!(Bypass::remove(dir.path()).unwrap() && !Bypass::remove(dir.path()).unwrap());
    }
}
