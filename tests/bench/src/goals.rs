//! How a peer is to stand beside the others, and how it does.

use std::fmt;

use serde_json::{Value, json};

use crate::{REFERENCE, Report};

/// Of the reference: what may not be missed, and what is aimed at.
const OF_REFERENCE: Bar = Bar { floor: 2.2, mark: 2.5 };
/// Of the best of all others.
const OF_BEST: Bar = Bar { floor: 0.85, mark: 1.0 };

/// A ratio that may not be missed, and one that is aimed at.
#[derive(Clone, Copy, Debug)]
struct Bar {
    floor: f64,
    mark: f64,
}

/// A peer is to have more of something than the others: 2.2 times the reference and 0.85 of the best at least, 2.5 times and
/// as much as the best if it can.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The scenario.
    pub scenario: &'static str,
    /// What was measured; more of it is better.
    pub metric: &'static str,
    /// Whose goal it is.
    pub peer: &'static str,
}

/// How a goal was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The scenario.
    pub scenario: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// Against the reference; none, if that took no part.
    pub reference: Option<f64>,
    /// The best of all others, and against it.
    pub best: Option<(String, f64)>,
    /// Requests of the peer that failed on the way: a number that they spoil meets no goal.
    pub failures: u64,
}

impl Goal {
    /// How it was met; `None` if it wasn't measured, or nobody else took part.
    pub(crate) fn judge(&self, report: &Report) -> Option<Verdict> {
        let row = report.rows.iter().find(|r| r.scenario == self.scenario && r.metric == self.metric)?;
        let own = row.peers.get(self.peer)?;
        // Neither another build of the same program nor the backend alone is one of the others.
        let others = row.peers.iter().filter(|(name, _)| !name.starts_with(self.peer) && !name.starts_with('('));
        let ratios = others.filter_map(|(name, numbers)| Some((name.clone(), own.ratio(numbers)?)));
        let best = ratios.min_by(|a, b| a.1.total_cmp(&b.1));
        let reference = row.peers.get(REFERENCE).and_then(|numbers| own.ratio(numbers));
        let (scenario, metric, failures) = (self.scenario, self.metric, own.failures);
        (best.is_some()).then_some(Verdict { scenario, metric, reference, best, failures })
    }
}

impl Verdict {
    fn against(&self) -> impl Iterator<Item = (f64, Bar)> {
        let reference = self.reference.map(|ratio| (ratio, OF_REFERENCE));
        reference.into_iter().chain(self.best.as_ref().map(|(_, ratio)| (*ratio, OF_BEST)))
    }

    /// Whether no floor was missed.
    pub fn holds(&self) -> bool {
        self.failures == 0 && self.against().all(|(ratio, bar)| ratio >= bar.floor)
    }

    /// Whether every mark was reached.
    pub fn reached(&self) -> bool {
        self.failures == 0 && self.against().all(|(ratio, bar)| ratio >= bar.mark)
    }

    fn word(&self) -> &'static str {
        match (self.holds(), self.reached()) {
            (_, true) => "mark reached",
            (true, false) => "above the floor",
            (false, false) => "BELOW THE FLOOR",
        }
    }

    pub(crate) fn json(&self) -> Value {
        let best = self.best.as_ref().map(|(peer, ratio)| json!({ "peer": peer, "ratio": ratio }));
        json!({
            "scenario": self.scenario, "metric": self.metric, "reference": self.reference, "best": best,
            "failures": self.failures, "holds": self.holds(), "reached": self.reached(),
        })
    }
}

pub(crate) fn print(verdicts: &[Verdict], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if verdicts.is_empty() {
        return Ok(());
    }
    let (reference, best) = (OF_REFERENCE, OF_BEST);
    writeln!(f)?;
    writeln!(
        f,
        "{:<10} {:<30} {REFERENCE} (floor {}, mark {})   the best (floor {}, mark {})",
        "goal", "", reference.floor, reference.mark, best.floor, best.mark
    )?;
    for verdict in verdicts {
        let number = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let (who, ratio) = verdict.best.as_ref().map_or(("-", None), |(peer, ratio)| (peer.as_str(), Some(*ratio)));
        writeln!(
            f,
            "{:<10} {:<30} {:>28}   {:>6} {who:<16} {}",
            verdict.scenario,
            verdict.metric,
            number(verdict.reference),
            number(ratio),
            verdict.word()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metric;

    const GOAL: Goal = Goal { scenario: "tls h1", metric: "requests", peer: "weft" };

    /// One round of each.
    fn report(peers: &[(&str, f64, u64)]) -> Report {
        let mut report = Report::default();
        for (peer, value, failures) in peers {
            report.add(Metric { scenario: "tls h1", name: "requests", unit: "1/s" }, peer, *value, *failures);
        }
        report.demand(GOAL);
        report
    }

    fn word(peers: &[(&str, f64, u64)]) -> Option<&'static str> {
        report(peers).verdicts().first().map(Verdict::word)
    }

    #[test]
    fn the_floor_and_the_mark_are_of_the_reference_and_of_the_best() {
        let beside = |weft: f64, haproxy: f64| word(&[("envoy", 100.0, 0), ("haproxy", haproxy, 0), ("weft", weft, 0)]);
        assert_eq!(beside(250.0, 250.0), Some("mark reached"));
        assert_eq!(beside(249.0, 240.0), Some("above the floor"), "the mark of the reference is missed");
        assert_eq!(beside(260.0, 270.0), Some("above the floor"), "the best is better");
        assert_eq!(beside(219.0, 200.0), Some("BELOW THE FLOOR"), "of the reference");
        assert_eq!(beside(300.0, 360.0), Some("BELOW THE FLOOR"), "of the best");
    }

    #[test]
    fn who_is_left_out_sets_no_bar_and_a_failed_request_meets_no_goal() {
        assert_eq!(word(&[("haproxy", 100.0, 0), ("weft", 86.0, 0)]), Some("above the floor"));
        assert_eq!(word(&[("haproxy", 100.0, 0), ("weft", 200.0, 1)]), Some("BELOW THE FLOOR"));
        assert_eq!(word(&[("weft", 200.0, 0)]), None);
        // An older build and the backend alone aren't peers.
        let others = [("(direct)", 1000.0, 0), ("weft-before", 1000.0, 0), ("envoy", 100.0, 0), ("weft", 250.0, 0)];
        assert_eq!(word(&others), Some("mark reached"));
        assert_eq!(report(&others).verdicts()[0].best, Some(("envoy".to_owned(), 2.5)));
    }

    #[test]
    fn goals_are_in_the_table_and_in_the_json() {
        let report = report(&[("envoy", 100.0, 0), ("weft", 100.0, 0)]);
        assert!(report.to_string().contains("BELOW THE FLOOR"), "{report}");
        assert_eq!(report.json(&Value::Null)["goals"][0]["holds"], false);
    }
}
