//! Replacing the root and the intermediate while everybody goes on working.
//!
//! ```text
//!   Stable(A) --start--> Publishing(A, B)  bundle A+B, issued under A, for the propagation time
//!                   --> Issuing(A, B)      bundle A+B, issued under B, until the last leaf of A has expired
//!                   --> Stable(B)          bundle B, the key of A is gone
//! ```
//!
//! A step is a new value of the state. Whoever keeps the state saves it, and only then it takes effect, so that a
//! restart goes on where it stood.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::authority::AuthoritySettings;
use crate::error::{AuthorityError, stamp};
use crate::state::{Branch, State, new_intermediate};

/// A clock that tells an earlier time, counted from 1970, has not been set yet: a machine without a battery says 1970 when it
/// starts. It is wrong about what is of the future. (The first of January 2026.)
const SOONEST: Duration = Duration::from_secs(1_767_225_600);

/// Where a rotation of the root stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Stage {
    /// One root.
    Stable,
    /// The new root is published; the old one issues.
    Publishing {
        /// Since when.
        since: SystemTime,
    },
    /// The new root issues; leaves of the old one are still about.
    Issuing {
        /// Since when.
        since: SystemTime,
    },
}

impl Stage {
    /// Its name, for metrics and messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Publishing { .. } => "publishing",
            Self::Issuing { .. } => "issuing",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str(self.name()),
            Self::Publishing { since } | Self::Issuing { since } => {
                write!(f, "{} since {}", self.name(), stamp(*since))
            }
        }
    }
}

/// A step of a rotation that a person commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new root is made and published.
    Start,
    /// The next step at once. Whoever takes it ahead of time answers for it that the bundle has reached everybody
    /// (`Publishing`), or that no leaf of the old root is in use (`Issuing`).
    Advance,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Advance => "advance",
        })
    }
}

/// The text is no step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no step of a rotation: expected start or advance")]
pub struct InvalidStep;

impl FromStr for Step {
    type Err = InvalidStep;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "start" => Ok(Self::Start),
            "advance" => Ok(Self::Advance),
            _ => Err(InvalidStep),
        }
    }
}

/// Why the root cannot be rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// One is going on.
    #[error("a rotation is going on: {0}")]
    UnderWay(Stage),
    /// None is going on.
    #[error("no rotation is going on")]
    NotUnderWay,
    /// The root's key is elsewhere.
    #[error("the root's key is not here; whoever makes the CA certificates rotates them")]
    External,
    /// It failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl State {
    /// The state after a commanded step.
    pub fn take(&self, step: Step, settings: &AuthoritySettings, now: SystemTime) -> Result<Self, RotateError> {
        match (step, self.stage) {
            (Step::Start, Stage::Stable) if self.issuing()?.root.is_none() => Err(RotateError::External),
            (Step::Start, Stage::Stable) => Ok(self.start_with(Branch::own(settings, self.next_number(), now)?, now)),
            (Step::Start, stage) => Err(RotateError::UnderWay(stage)),
            (Step::Advance, Stage::Stable) => Err(RotateError::NotUnderWay),
            (Step::Advance, Stage::Publishing { .. }) => Ok(self.with_stage(Stage::Issuing { since: now })),
            (Step::Advance, Stage::Issuing { .. }) => {
                let mut next = self.with_stage(Stage::Stable);
                let retired = next.branches.len().saturating_sub(1);
                next.branches.drain(..retired);
                Ok(next)
            }
        }
    }

    /// The state in which `fresh` begins to replace the root.
    pub fn start_with(&self, fresh: Branch, now: SystemTime) -> Self {
        let mut next = self.with_stage(Stage::Publishing { since: now });
        next.branches.push(fresh);
        next
    }

    /// The state after what is due by time, if anything is.
    pub fn due(&self, settings: &AuthoritySettings, now: SystemTime) -> Result<Option<Self>, RotateError> {
        let over = |since: SystemTime, wait: Duration| now.duration_since(since).is_ok_and(|d| d >= wait);
        let last_leaf = settings.leaf_life.saturating_add(settings.backdate);
        match self.stage {
            Stage::Stable if self.root_is_due(now)? => self.take(Step::Start, settings, now).map(Some),
            // Under an expired intermediate nothing can be issued at all, and waiting only makes it longer.
            Stage::Publishing { since }
                if over(since, settings.propagation) || self.issuing()?.intermediate.not_after <= now =>
            {
                self.take(Step::Advance, settings, now).map(Some)
            }
            Stage::Issuing { since } if over(since, last_leaf) => self.take(Step::Advance, settings, now).map(Some),
            _ => Ok(self.with_new_intermediates(settings, now)?),
        }
    }

    /// A tenth of the root's life is left.
    fn root_is_due(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        let root = self.issuing()?.root.as_ref();
        Ok(root.is_some_and(|root| part_passed(root.not_before, root.not_after, now, 0.9)))
    }

    /// The intermediate that issues, and the one that is about to, are replaced at half their life, and when they begin in what
    /// is the future now: a clock that was ahead made them, and nobody else would believe what they sign. No bundle changes: they
    /// travel in the chains.
    fn with_new_intermediates(
        &self,
        settings: &AuthoritySettings,
        now: SystemTime,
    ) -> Result<Option<Self>, AuthorityError> {
        let is_set = now.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|time| time > SOONEST);
        let mut next = None;
        for (at, branch) in self.branches.iter().enumerate() {
            let old = &branch.intermediate;
            let Some(root) = branch.root.as_ref() else { continue };
            // One that ends with its root cannot be bettered.
            let can_last_longer = old.not_after < root.not_after;
            let is_of_the_future = old.not_before > now && is_set;
            if is_of_the_future || can_last_longer && part_passed(old.not_before, old.not_after, now, 0.5) {
                let fresh = Arc::new(new_intermediate(root, settings, now)?);
                let next = next.get_or_insert_with(|| self.clone());
                if let Some(branch) = next.branches.get_mut(at) {
                    branch.intermediate = fresh;
                }
            }
        }
        Ok(next)
    }

    fn with_stage(&self, stage: Stage) -> Self {
        Self { stage, generation: self.generation.saturating_add(1), ..self.clone() }
    }
}

fn part_passed(from: SystemTime, to: SystemTime, now: SystemTime, part: f64) -> bool {
    let life = to.duration_since(from).unwrap_or_default();
    now.duration_since(from).is_ok_and(|age| age >= life.mul_f64(part))
}
