//! What the demo prints.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Results, in the order in which they came.
#[derive(Default)]
pub struct Board {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    seen: String,
    well: bool,
}

impl Board {
    /// Says what is going on, does it, says how long it took.
    pub fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        print!("{what} ... ");
        // Only a matter of looks.
        let _ = std::io::stdout().flush();
        let since = Instant::now();
        let done = work();
        println!("{} ({:.1} s)", if done.is_ok() { "done" } else { "FAILED" }, since.elapsed().as_secs_f64());
        done
    }

    /// Notes a result, and whether it is what it should be.
    pub fn note(&mut self, what: impl Into<String>, seen: impl Into<String>, well: bool) {
        self.rows.push(Row { what: what.into(), seen: seen.into(), well });
    }

    /// Prints the table.
    pub fn print(&self) {
        println!();
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
        for Row { what, seen, well } in &self.rows {
            let mut lines = seen.lines();
            let mark = if *well { "ok  " } else { "FAIL" };
            println!("{mark} {what:width$}  {}", lines.next().unwrap_or_default());
            lines.for_each(|line| println!("     {:width$}  {line}", ""));
        }
    }

    /// Whether nothing failed.
    pub fn all_well(&self) -> bool {
        self.rows.iter().all(|row| row.well)
    }
}

/// Milliseconds, for people.
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
