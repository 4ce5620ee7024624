//! What answers and refusals should be, as values.

use std::collections::BTreeMap;
use std::fmt;

use super::outcome::Outcome;

/// How far a share may be from what is expected, in percentage points.
const TOLERANCE: f64 = 3.0;

/// A share of the answers: `NAME=PERCENT`.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    name: String,
    percent: f64,
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected NAME=PERCENT such as v2=10, not {text:?}");
        let (name, percent) = text.split_once('=').ok_or_else(expected)?;
        let percent = percent.trim_end_matches('%').parse().map_err(|_| expected())?;
        if name.is_empty() || !(0.0..=100.0).contains(&percent) {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), percent })
    }
}

/// How many requests ended how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    answers: BTreeMap<String, u32>,
    others: BTreeMap<String, u32>,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Answered(name) => self.answers.entry(name),
            other => self.others.entry(other.to_string()),
        };
        *count.or_default() += 1;
    }

    fn total(&self) -> u32 {
        self.answers.values().chain(self.others.values()).sum()
    }

    /// What isn't as it should be: requests without an answer, and shares that are off.
    pub fn complaints(&self, expected: &[Share]) -> Vec<String> {
        let failed: u32 = self.others.values().sum();
        let total = self.total();
        let mut complaints = Vec::new();
        if failed > 0 {
            complaints.push(format!("{failed} of {total} requests got no answer"));
        }
        for share in expected {
            let count = self.answers.get(&share.name).copied().unwrap_or_default();
            let percent = percent(count, total);
            if (percent - share.percent).abs() > TOLERANCE {
                let (name, wanted) = (&share.name, share.percent);
                complaints.push(format!("{name} gave {percent:.1}% of the answers instead of {wanted}%"));
            }
        }
        complaints
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        for (what, count) in self.answers.iter().chain(&self.others) {
            writeln!(f, "{count:>6}  {:>5.1}%  {what}", percent(*count, total))?;
        }
        Ok(())
    }
}

fn percent(count: u32, total: u32) -> f64 {
    if total == 0 { 0.0 } else { f64::from(count) * 100.0 / f64::from(total) }
}

/// What should become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// An answer.
    Reach,
    /// A refusal; a server that isn't there is none.
    Refuse,
}

impl Wish {
    /// Whether it came true.
    pub fn holds(self, outcome: &Outcome) -> bool {
        match self {
            Self::Reach => matches!(outcome, Outcome::Answered(_)),
            Self::Refuse => matches!(outcome, Outcome::Refused(_)),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reach => "should be reached",
            Self::Refuse => "should be refused",
        })
    }
}
