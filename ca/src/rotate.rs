//! Replacing the root and the intermediate while everybody goes on working.
//!
//! ```text
//!   Stable(A) --start--> Publishing(A, B)  bundle A+B, issued under A, for the propagation time
//!                   --> Issuing(A, B)      bundle A+B, issued under B, until the last leaf of A has expired
//!                   --> Stable(B)          bundle B, the key of A is gone
//! ```
//!
//! Every step is saved before it takes effect, so that a restart goes on where it stood.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError, Branch, State, new_branch, new_intermediate};
use crate::store::{Saved, Store};

/// How often [`Authority::run`] looks whether a step is due.
const LOOK: Duration = Duration::from_secs(30);

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

/// Why the root cannot be rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// One is going on.
    #[error("a rotation is going on: {0:?}")]
    UnderWay(Stage),
    /// None is going on.
    #[error("no rotation is going on")]
    NotUnderWay,
    /// The root's key is elsewhere.
    #[error("the root's key is not here; whoever mounted the CA certificates rotates them")]
    External,
    /// It failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

impl Authority {
    /// Starts to replace the root: makes a new one and publishes it.
    ///
    /// # Errors
    ///
    /// If a rotation is going on, the root is not ours, or the disk fails.
    pub fn start_rotation(&self) -> Result<Stage, RotateError> {
        let store = self.own_store()?;
        let mut state = self.state.lock();
        if state.stage != Stage::Stable {
            return Err(RotateError::UnderWay(state.stage));
        }
        let now = self.clock.now();
        let number = state.branches.iter().map(|b| b.number).max().unwrap_or(0).saturating_add(1);
        let fresh = new_branch(store, &self.settings, number, now)?;
        let mut numbers = state.numbers();
        numbers.push(number);
        self.enter(store, &mut state, (Stage::Publishing { since: now }, numbers), |branches| branches.push(fresh))
    }

    /// Takes the next step of a rotation at once. Whoever does this ahead of time answers for it that the bundle has
    /// reached everybody (`Publishing`), or that no leaf of the old root is in use (`Issuing`).
    ///
    /// # Errors
    ///
    /// If none is going on, or the disk fails.
    pub fn advance_rotation(&self) -> Result<Stage, RotateError> {
        let store = self.own_store()?;
        let mut state = self.state.lock();
        match state.stage {
            Stage::Stable => Err(RotateError::NotUnderWay),
            Stage::Publishing { .. } => {
                let since = self.clock.now();
                let numbers = state.numbers();
                self.enter(store, &mut state, (Stage::Issuing { since }, numbers), |_| {})
            }
            Stage::Issuing { .. } => {
                let mut numbers = state.numbers();
                let retired = numbers.remove(0);
                let stage =
                    self.enter(store, &mut state, (Stage::Stable, numbers), |branches| drop(branches.remove(0)))?;
                store.remove_signer("root", retired);
                store.remove_signer("intermediate", retired);
                Ok(stage)
            }
        }
    }

    /// Takes whatever step is due by time; tells whether one was.
    ///
    /// # Errors
    ///
    /// If the disk fails; nothing has changed then.
    pub fn tick(&self) -> Result<bool, RotateError> {
        let Some(store) = &self.store else { return Ok(false) };
        let now = self.clock.now();
        let over = |since: SystemTime, wait: Duration| now.duration_since(since).is_ok_and(|d| d >= wait);
        let stage = self.state.lock().stage;
        let last_leaf = self.settings.leaf_life.saturating_add(self.settings.backdate);
        match stage {
            Stage::Stable if self.root_is_due(now)? => self.start_rotation().map(|_| true),
            Stage::Publishing { since } if over(since, self.settings.propagation) => {
                self.advance_rotation().map(|_| true)
            }
            Stage::Issuing { since } if over(since, last_leaf) => self.advance_rotation().map(|_| true),
            _ => Ok(self.renew_intermediate(store, now)?),
        }
    }

    /// Takes steps as they come due, for ever.
    pub async fn run(&self) {
        loop {
            match self.tick() {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(LOOK).await,
                Err(error) => {
                    tracing::error!(%error, "rotation is stuck");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    fn own_store(&self) -> Result<&Store, RotateError> {
        self.store.as_ref().ok_or(RotateError::External)
    }

    /// A tenth of the root's life is left.
    fn root_is_due(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        let state = self.state.lock();
        let root = state.issuing()?.root.as_ref();
        Ok(root.is_some_and(|root| part_passed(root.not_before, root.not_after, now, 0.9)))
    }

    /// The intermediate that issues, and the one that is about to, are replaced at half their life. No bundle changes:
    /// they travel in the chains.
    fn renew_intermediate(&self, store: &Store, now: SystemTime) -> Result<bool, AuthorityError> {
        let mut renewed = false;
        for branch in &mut self.state.lock().branches {
            let old = &branch.intermediate;
            let Some(root) = branch.root.as_ref() else { continue };
            // One that ends with its root cannot be bettered.
            let can_last_longer = old.not_after < root.not_after;
            if can_last_longer && part_passed(old.not_before, old.not_after, now, 0.5) {
                let fresh = new_intermediate(root, &self.settings, now)?;
                store.save_signer("intermediate", branch.number, &fresh)?;
                branch.intermediate = fresh;
                renewed = true;
                tracing::info!(root = branch.number, "a new intermediate issues");
            }
        }
        Ok(renewed)
    }

    /// Saves the stage, then makes it true: if the disk fails, nothing has changed.
    fn enter(
        &self,
        store: &Store,
        state: &mut State,
        (stage, numbers): (Stage, Vec<u32>),
        change: impl FnOnce(&mut Vec<Branch>),
    ) -> Result<Stage, RotateError> {
        let generation = state.generation.saturating_add(1);
        store.save(&Saved { trust_domain: self.settings.trust_domain.clone(), generation, stage, roots: numbers })?;
        state.stage = stage;
        state.generation = generation;
        change(&mut state.branches);
        self.publish(state)?;
        tracing::info!(?stage, generation, "root rotation");
        Ok(stage)
    }
}

fn part_passed(from: SystemTime, to: SystemTime, now: SystemTime, part: f64) -> bool {
    let life = to.duration_since(from).unwrap_or_default();
    now.duration_since(from).is_ok_and(|age| age >= life.mul_f64(part))
}
