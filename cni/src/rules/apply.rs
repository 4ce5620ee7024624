//! Sets, compares and removes the declared set in a namespace.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use weft_sys::Netns;

use super::nft::Nft;
use super::routes::Routes;
use super::{RuleSet, TABLE};

/// Why the rules of a namespace could not be set, compared or removed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A program is not installed.
    #[error("the program `{}` is not installed where the agent runs, or may not be run; install the package {package}", program.display())]
    MissingProgram {
        /// What was to be started.
        program: PathBuf,
        /// Where it comes from.
        package: &'static str,
    },
    /// The namespace can't be entered: gone, or the agent lacks `CAP_SYS_ADMIN`.
    #[error("enter the pod's network namespace: {0}")]
    Enter(#[source] io::Error),
    /// A program could not be run.
    #[error("run nft: {0}")]
    Program(#[source] io::Error),
    /// nft refused.
    #[error("nft: {message}")]
    Nft {
        /// Its standard error.
        message: String,
    },
    /// nft's listing is not JSON.
    #[error("read nft's listing: {0}")]
    Listing(#[source] serde_json::Error),
    /// The kernel refused a route or rule.
    #[error("{what} for {family}: {message}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// For which addresses.
        family: &'static str,
        /// What the kernel said.
        message: String,
    },
    /// nft hangs.
    #[error("nft didn't answer in {0:?}")]
    Timeout(Duration),
}

/// A difference between what a namespace holds and what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// There is no table of ours.
    NoTable,
    /// The table holds something else.
    Table,
    /// The rule for marked replies of this family is missing or double.
    Rule(&'static str),
    /// The route for marked replies of this family is missing or changed.
    Route(&'static str),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable => write!(f, "the table inet {TABLE} is missing"),
            Self::Table => write!(f, "the table inet {TABLE} was changed"),
            Self::Rule(family) => write!(f, "the {family} routing rule for replies is missing or changed"),
            Self::Route(family) => write!(f, "the {family} route for replies is missing or changed"),
        }
    }
}

/// What a namespace holds of ours, as somebody finds it who doesn't know what was set there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// [`RuleSet::Closed`]
    Closed,
    /// A table of ours that redirects, or that somebody changed.
    Other,
}

/// Executes rule sets. Knows how the local nft lists each set, so that a listing can be compared.
#[derive(Debug)]
pub struct Rules {
    nft: Nft,
    /// A set and its listing, taken once from an empty namespace: nft and kernel write expressions in their
    /// own words, which differ between versions.
    references: Mutex<HashMap<RuleSet, Value>>,
}

impl Default for Rules {
    /// With the `nft` found in PATH or where distributions put it.
    fn default() -> Self {
        Self::with_nft("nft")
    }
}

impl Rules {
    /// With the `nft` program at a place of its own, or by name.
    pub fn with_nft(program: impl Into<PathBuf>) -> Self {
        Self { nft: Nft::new(program.into()), references: Mutex::default() }
    }

    /// Makes the namespace hold exactly this set. Idempotent.
    ///
    /// # Errors
    /// What was refused. When closing, the table comes first and stays even if a route fails; when redirecting, the
    /// table comes last, so that the former set holds on if a route fails.
    pub async fn apply(&self, netns: &Netns, set: RuleSet) -> Result<(), RulesError> {
        match set {
            RuleSet::Closed => {
                self.nft.load(netns, &set.render()).await?;
                Routes::open(netns)?.apply().await
            }
            RuleSet::Redirecting { .. } => {
                Routes::open(netns)?.apply().await?;
                self.nft.load(netns, &set.render()).await
            }
        }
    }

    /// What differs from this set; empty when nothing does.
    ///
    /// # Errors
    /// When the namespace can't be read.
    pub async fn verify(&self, netns: &Netns, set: RuleSet) -> Result<Vec<Drift>, RulesError> {
        let mut drift = Vec::new();
        match self.nft.list(netns).await? {
            None => drift.push(Drift::NoTable),
            Some(listing) if listing != self.reference(set).await? => drift.push(Drift::Table),
            Some(_) => {}
        }
        Routes::open(netns)?.verify(&mut drift).await?;
        Ok(drift)
    }

    /// What there is.
    ///
    /// # Errors
    /// When the namespace can't be read.
    pub async fn held(&self, netns: &Netns) -> Result<Held, RulesError> {
        match self.nft.list(netns).await? {
            None => Ok(Held::Nothing),
            Some(listing) if listing == self.reference(RuleSet::Closed).await? => Ok(Held::Closed),
            Some(_) => Ok(Held::Other),
        }
    }

    /// Takes everything of ours away. Idempotent; tries both halves even if one fails.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn remove(&self, netns: &Netns) -> Result<(), RulesError> {
        let table = self.nft.load(netns, &RuleSet::render_removal()).await;
        let routes = match Routes::open(netns) {
            Ok(routes) => routes.remove().await,
            Err(e) => Err(e),
        };
        table.and(routes)
    }

    async fn reference(&self, set: RuleSet) -> Result<Value, RulesError> {
        let mut references = self.references.lock().await;
        if let Some(known) = references.get(&set) {
            return Ok(known.clone());
        }
        let scratch = Netns::create().map_err(RulesError::Enter)?;
        self.nft.load(&scratch, &set.render()).await?;
        let listing = self.nft.list(&scratch).await?.unwrap_or(Value::Null);
        references.insert(set, listing.clone());
        Ok(listing)
    }
}
