//! A guide of the manual as somebody follows it: its commands one by one, and what each is to say.
//!
//! A command with `# -> TEXT` behind it says TEXT; where that begins with `error`, in whatever case, it also fails. All
//! others succeed.

use std::os::unix::fs::symlink;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::repository;
use crate::manual::{Block, marked};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// A folder with what people have of the repository beside them, so that what the guides write isn't left in it.
///
/// # Errors
/// When it can't be made.
pub fn desk() -> Result<tempfile::TempDir> {
    let desk = tempfile::tempdir()?;
    for name in ["charts", "examples"] {
        symlink(repository().join(name), desk.path().join(name))?;
    }
    Ok(desk)
}

/// A command of a guide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As it is typed.
    pub command: String,
    /// What it is to say.
    pub says: Option<String>,
}

impl Step {
    /// The steps of a block, in their order.
    pub fn all(block: &Block) -> Vec<Self> {
        let joined = block.text.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let steps = lines.map(|line| match line.split_once("# -> ") {
            Some((command, says)) => Self { command: command.trim().to_owned(), says: Some(says.trim().to_owned()) },
            None => Self { command: line.to_owned(), says: None },
        });
        steps.collect()
    }

    /// Whether that is what the guide says of it.
    ///
    /// # Errors
    /// When it isn't; with what it said.
    pub fn holds(&self, output: &Output) -> Result<()> {
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let failed = !output.status.success();
        let complaint = match &self.says {
            None if failed => format!("{}", output.status),
            Some(says) if !said.contains(says.as_str()) => format!("it doesn't say {says:?}"),
            Some(says) if says.to_lowercase().starts_with("error") && !failed => "it went through".to_owned(),
            _ => return Ok(()),
        };
        bail!("$ {}\n{complaint}: {said}", self.command)
    }
}

/// Follows a guide: all blocks of a page that this function of this file is to run, but for steps that are left out. A step
/// that is to say something is tried until it does: what forbids it takes a moment to be known everywhere.
///
/// # Errors
/// The first step that isn't as the guide says, within `patience`.
pub fn follow(
    (page, file, function): (&str, &str, &str),
    left_out: impl Fn(&Step) -> bool,
    patience: Duration,
    mut run: impl FnMut(&str) -> Result<Output>,
) -> Result<usize> {
    let mut followed = 0;
    for block in marked(page, file, function)? {
        for step in Step::all(&block).into_iter().filter(|step| !left_out(step)) {
            let end = Instant::now() + patience;
            loop {
                let output = run(&step.command).with_context(|| step.command.clone())?;
                match step.holds(&output) {
                    Ok(()) => break,
                    Err(error) if step.says.is_none() || Instant::now() >= end => {
                        return Err(error.context(block.place()));
                    }
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
            followed += 1;
        }
    }
    ensure!(followed > 0, "every step of {page} was left out");
    Ok(followed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;
    use crate::manual::blocks;

    fn output(code: i32, said: &str) -> Output {
        Output { status: ExitStatus::from_raw(code << 8), stdout: Vec::new(), stderr: said.into() }
    }

    #[test]
    fn a_step_holds_when_it_ends_and_says_what_the_guide_says() {
        let page =
            "```sh\n# comment\nkubectl get \\\n  pods\nkubectl get b    # -> Error (No)\nweft check  # -> note\n```\n";
        let steps = Step::all(&blocks("a.md", page).unwrap()[0]);
        assert_eq!(
            steps.iter().map(|step| step.command.as_str()).collect::<Vec<_>>(),
            ["kubectl get    pods", "kubectl get b", "weft check"]
        );
        for (step, code, said, holds) in [
            (0, 0, "", true),
            (0, 1, "", false),
            (1, 1, "Error (No): x", true),
            (1, 1, "Error (Other)", false),
            (1, 0, "Error (No): x", false),
            (2, 0, "a note", true),
            (2, 2, "a note", true),
            (2, 0, "", false),
        ] {
            assert_eq!(steps[step].holds(&output(code, said)).is_ok(), holds, "{step} {code} {said}");
        }
    }
}
