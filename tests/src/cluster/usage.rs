//! What processes take over time, and whether it grows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::Process;

/// What may grow without end, of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Resident memory that no file backs, in KiB.
    Memory,
    /// Open descriptors.
    Descriptors,
    /// Threads.
    Threads,
    /// Series in what it counts.
    Series,
}

impl Quantity {
    /// By how much it may have grown at the end and still count as flat: a share of its median, or so many of its unit if
    /// that is more. What comes and goes is at another point of its round at the end than at the beginning.
    fn allowance(self) -> (f64, f64) {
        match self {
            Self::Memory => (0.05, 3072.0),
            Self::Descriptors => (0.05, 4.0),
            Self::Threads => (0.0, 0.5),
            Self::Series => (0.02, 20.0),
        }
    }
}

impl Process {
    /// What it takes at the moment, but for its series.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage(self) -> Result<[(Quantity, f64); 3]> {
        let path = format!("/proc/{}/status", self.number());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
            Ok(line.split_whitespace().next().context("no number")?.parse()?)
        };
        let descriptors = u32::try_from(self.descriptors()?)?;
        Ok([
            (Quantity::Memory, field("RssAnon:")?),
            (Quantity::Descriptors, f64::from(descriptors)),
            (Quantity::Threads, field("Threads:")?),
        ])
    }
}

/// What was seen of all processes, in the order in which it was.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<(String, Quantity), Vec<(f64, f64)>>);

impl Samples {
    /// Notes that `who` had so much of something, `at` seconds after the beginning.
    pub fn note(&mut self, who: &str, what: Quantity, at: f64, value: f64) {
        self.0.entry((who.to_owned(), what)).or_default().push((at, value));
    }

    /// A table of everything from `from` seconds on, which leaves out what filled up at the beginning.
    ///
    /// # Errors
    /// With what grew beside the table, or that something was hardly ever seen.
    pub fn flat(&self, from: f64) -> Result<String> {
        let mut table = "| process | | first | median | last | slope in an hour | grown by | may |\n".to_owned();
        table += "|---|---|---:|---:|---:|---:|---:|---:|\n";
        let mut grown = Vec::new();
        for ((who, what), all) in &self.0 {
            let seen: Vec<_> = all.iter().copied().filter(|(at, _)| *at >= from).collect();
            ensure!(seen.len() >= 10, "{who}: {what:?} was seen {} times", seen.len());
            let [(begin, first), .., (end, last)] = seen[..] else { continue };
            let (slope, middle) = (slope(&seen), median(seen.iter().map(|(_, value)| *value).collect()));
            let (share, floor) = what.allowance();
            let (growth, allowed) = (slope * (end - begin), (share * middle).max(floor));
            let hour = slope * 3600.0;
            writeln!(
                table,
                "| {who} | {what:?} | {first:.0} | {middle:.0} | {last:.0} | {hour:+.1} | {growth:+.1} | {allowed:.1} |"
            )?;
            if growth > allowed {
                grown.push(format!("{who}: {what:?} by {growth:.1}: {:?}", course(&seen)));
            }
        }
        ensure!(!self.0.is_empty(), "nothing was seen");
        ensure!(grown.is_empty(), "grew: {grown:?}\n{table}");
        Ok(table)
    }
}

/// The medians of so many parts of the time.
const PARTS: usize = 12;

/// How it went: a leak climbs to the end, what only fills up or takes a step doesn't.
fn course(samples: &[(f64, f64)]) -> Vec<f64> {
    let part = samples.len().div_ceil(PARTS).max(1);
    samples.chunks(part).map(|part| median(part.iter().map(|(_, value)| *value).collect())).collect()
}

/// How fast something grows: the median of the slopes between any two samples (Theil and Sen), which a peak or a step that
/// goes back doesn't bend.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let later = |n: usize| samples.iter().skip(n + 1);
    let between = |(a, b): ((f64, f64), (f64, f64))| (b.1 - a.1) / (b.0 - a.0);
    let pairs = samples.iter().enumerate().flat_map(|(n, one)| later(n).map(move |other| (*one, *other)));
    median(pairs.filter(|(a, b)| b.0 > a.0).map(between).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let (_, value, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    *value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of samples, one every 15 seconds.
    fn hour(of: impl Fn(f64) -> f64) -> Samples {
        let mut samples = Samples::default();
        for at in (0..3600).step_by(15).map(f64::from) {
            samples.note("proxy", Quantity::Memory, at, of(at));
        }
        samples
    }

    #[test]
    fn what_grew_is_shown_as_it_went() {
        let samples: Vec<_> = (0..24).map(|n| (f64::from(n), if n < 12 { 1.0 } else { 5.0 })).collect();
        assert_eq!(course(&samples), [[1.0; 6], [5.0; 6]].concat());
        assert_eq!(course(&samples[..3]), [1.0; 3]);
    }

    #[test]
    fn what_comes_and_goes_is_flat() {
        let around = |at: f64| 40_000.0 + 6_000.0 * (at / 97.0).sin();
        assert!(hour(around).flat(600.0).is_ok());
        let peak = |at: f64| if (1000.0..1300.0).contains(&at) { 90_000.0 } else { 40_000.0 };
        assert!(hour(peak).flat(600.0).is_ok());
        let fills_up = |at: f64| 20_000.0 + (at * 40.0).min(20_000.0);
        assert!(hour(fills_up).flat(600.0).is_ok());
        assert!(hour(fills_up).flat(0.0).is_ok(), "the beginning is a small part of an hour");
    }

    #[test]
    fn what_grows_is_seen_whatever_comes_and_goes_beside_it() {
        let leak = |at: f64| 40_000.0 + 1.5 * at + 2_000.0 * (at / 97.0).sin();
        let seen = hour(leak).flat(600.0).unwrap_err().to_string();
        assert!(seen.contains("proxy: Memory by "), "{seen}");
        let steps = |at: f64| 40_000.0 + 1024.0 * (at / 600.0).floor();
        assert!(hour(steps).flat(600.0).is_err());
    }

    #[test]
    fn one_thread_more_is_one_too_many() {
        let mut samples = Samples::default();
        for at in (0..3600).step_by(15).map(f64::from) {
            samples.note("agent", Quantity::Threads, at, 5.0 + (at / 1800.0).floor());
        }
        assert!(samples.flat(0.0).is_err());
    }

    #[test]
    fn what_was_hardly_seen_is_not_taken_for_flat() {
        let mut samples = Samples::default();
        samples.note("agent", Quantity::Threads, 1.0, 5.0);
        assert!(samples.flat(0.0).is_err());
        assert!(Samples::default().flat(0.0).is_err());
    }

    #[test]
    fn a_slope_is_that_of_the_line() {
        let line: Vec<_> = (0..20).map(f64::from).map(|at| (at, 3.0 + 0.5 * at)).collect();
        assert!((slope(&line) - 0.5).abs() < 1e-9);
        assert!(slope(&[]).abs() < 1e-9);
    }
}
