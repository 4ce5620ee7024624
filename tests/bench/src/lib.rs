//! The report of a benchmark: numbers by scenario, metric and peer; medians, ratios, a table and JSON.
//!
//! What makes peers comparable is in `benches/peers`, which `make bench` runs.

mod goals;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

pub use goals::{Goal, Verdict};

/// The peer all others are compared with.
pub const REFERENCE: &str = "envoy";

/// Everything measured, in the order it was.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    goals: Vec<Goal>,
    left_out: Vec<String>,
}

#[derive(Debug)]
struct Row {
    scenario: &'static str,
    metric: String,
    unit: &'static str,
    peers: BTreeMap<String, Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    rounds: Vec<f64>,
    failures: u64,
}

/// What a number is of.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// The scenario, such as `plain h1`.
    pub scenario: &'static str,
    /// What was measured, such as `requests`.
    pub name: &'a str,
    /// In which unit, such as `1/s`.
    pub unit: &'static str,
}

impl Report {
    /// Notes one round's number and the requests that failed on the way to it.
    pub fn add(&mut self, metric: Metric<'_>, peer: &str, value: f64, failures: u64) {
        let same = |r: &Row| r.scenario == metric.scenario && r.metric == metric.name;
        if !self.rows.iter().any(same) {
            let (name, peers) = (metric.name.to_owned(), BTreeMap::new());
            self.rows.push(Row { scenario: metric.scenario, metric: name, unit: metric.unit, peers });
        }
        for row in self.rows.iter_mut().filter(|row| same(row)) {
            let numbers = row.peers.entry(peer.to_owned()).or_default();
            numbers.rounds.push(value);
            numbers.failures += failures;
        }
    }

    /// Notes who couldn't take part, and why.
    pub fn leave_out(&mut self, peer: &str, why: &str) {
        self.left_out.push(format!("{peer}: {why}"));
    }

    /// Says how a peer is to stand beside the others; the report says how it does.
    pub fn demand(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    /// How each goal that was measured was met.
    pub fn verdicts(&self) -> Vec<Verdict> {
        self.goals.iter().filter_map(|goal| goal.judge(self)).collect()
    }

    /// The median of a peer's rounds.
    pub fn median(&self, scenario: &str, metric: &str, peer: &str) -> Option<f64> {
        let row = self.rows.iter().find(|r| r.scenario == scenario && r.metric == metric)?;
        row.peers.get(peer).map(|numbers| median(&numbers.rounds))
    }

    /// All of it, with the rounds. `run` says how and where it was measured.
    pub fn json(&self, run: &Value) -> Value {
        let rows: Vec<_> = self.rows.iter().flat_map(Row::json).collect();
        let goals: Vec<_> = self.verdicts().iter().map(Verdict::json).collect();
        json!({ "run": run, "reference": REFERENCE, "left_out": self.left_out, "results": rows, "goals": goals })
    }
}

impl Numbers {
    /// The median of each round's ratio to another peer's.
    fn ratio(&self, other: &Self) -> Option<f64> {
        let ratios: Vec<_> = self.rounds.iter().zip(&other.rounds).map(|(own, other)| own / other).collect();
        Some(median(&ratios)).filter(|ratio| ratio.is_finite())
    }
}

impl Row {
    /// Against the reference, round by round, so that both saw the same machine: the median of those ratios.
    fn ratio(&self, numbers: &Numbers) -> Option<f64> {
        numbers.ratio(self.peers.get(REFERENCE)?)
    }

    fn json(&self) -> impl Iterator<Item = Value> {
        self.peers.iter().map(|(peer, numbers)| {
            json!({
                "scenario": self.scenario, "metric": self.metric, "unit": self.unit, "peer": peer,
                "rounds": numbers.rounds, "median": median(&numbers.rounds), "ratio": self.ratio(numbers),
                "failures": numbers.failures,
            })
        })
    }
}

fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2))
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.1}k", value / 1000.0),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:<42} {:<12} {:>9} {:>8}  rounds", "scenario", "metric", "peer", "median", "ratio")?;
        for row in &self.rows {
            for (peer, numbers) in &row.peers {
                let ratio = row.ratio(numbers).map_or("-".to_owned(), |r| format!("{r:.2}"));
                let metric = format!("{} ({})", row.metric, row.unit);
                let all: Vec<_> = numbers.rounds.iter().map(|v| short(*v)).collect();
                write!(f, "{:<10} {metric:<42} {peer:<12} ", row.scenario)?;
                write!(f, "{:>9} {ratio:>8}  {}", short(median(&numbers.rounds)), all.join(" "))?;
                match numbers.failures {
                    0 => writeln!(f)?,
                    failed => writeln!(f, "   {failed} FAILED")?,
                }
            }
        }
        goals::print(&self.verdicts(), f)?;
        self.left_out.iter().try_for_each(|who| writeln!(f, "left out: {who}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let mut report = Report::default();
        let metric = Metric { scenario: "s", name: "requests", unit: "1/s" };
        // The machine was twice as slow in the second round, for both.
        for (envoy, weft) in [(100.0, 300.0), (50.0, 150.0), (100.0, 310.0)] {
            report.add(metric, REFERENCE, envoy, 0);
            report.add(metric, "weft", weft, 1);
        }
        let json = report.json(&Value::Null);
        let weft = json["results"].as_array().unwrap().iter().find(|row| row["peer"] == "weft").unwrap();
        assert_eq!((&weft["ratio"], &weft["median"], &weft["failures"]), (&json!(3.0), &json!(300.0), &json!(3)));
        assert!(report.to_string().lines().any(|line| line.contains("weft") && line.contains("3 FAILED")));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!((median(&[4.0, 1.0]), median(&[3.0, 1.0, 2.0])), (2.5, 2.0));
    }
}
