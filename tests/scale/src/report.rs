//! What was measured, as a table with a column for each size, and as JSON.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::edits::Cost;
use crate::measure::load_average;
use crate::objects::Size;

/// One size.
#[derive(Debug)]
pub struct Row {
    size: Size,
    clients: usize,
    numbers: Vec<(String, f64)>,
    notes: Map<String, Value>,
}

impl Row {
    pub fn new(size: Size, clients: usize) -> Self {
        Self { size, clients, numbers: Vec::new(), notes: Map::new() }
    }

    pub fn set(&mut self, name: &str, value: f64) {
        self.numbers.push((name.to_owned(), value));
    }

    pub fn note(&mut self, name: &str, value: Value) {
        self.notes.insert(name.to_owned(), value);
    }

    /// What edits of a kind cost.
    pub fn edit(&mut self, kind: &str, cost: &Cost) {
        self.set(&format!("{kind}: p50, ms"), cost.quantile(0.5));
        self.set(&format!("{kind}: p99, ms"), cost.quantile(0.99));
        self.set(&format!("{kind}: slowest, ms"), cost.quantile(1.0));
        self.set(&format!("{kind}: CPU of the controller, ms"), cost.cpu.as_secs_f64() * 1000.0);
        self.set(&format!("{kind}: sent, KiB"), cost.bytes / 1024.0);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        self.set(&format!("{kind}: sent to a client, bytes"), cost.bytes / (self.clients + 1) as f64);
        let all: Vec<f64> = cost.took.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        self.note(kind, json!({ "milliseconds": all }));
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Rows(Vec<Row>);

impl Rows {
    pub fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    /// All numbers, and each edit's.
    pub fn to_json(&self) -> Value {
        let of = |row: &Row| {
            let numbers: Map<_, _> = row.numbers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({ "services": row.size.services, "pods": row.size.pods, "clients": row.clients, "numbers": numbers,
                "details": row.notes })
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        json!({ "cores": cores, "load_average": load_average().ok(), "sizes": self.0.iter().map(of).collect::<Vec<_>>() })
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(widest) = self.0.first() else { return Ok(()) };
        let head = |of: &dyn Fn(&Row) -> usize| self.0.iter().map(|r| format!(" {} |", of(r))).collect::<String>();
        writeln!(f, "\n| Services |{}", head(&|r| r.size.services))?;
        writeln!(f, "|---|{}", "---:|".repeat(self.0.len()))?;
        writeln!(f, "| pods |{}", head(&|r| r.size.pods))?;
        writeln!(f, "| clients, besides a node proxy |{}", head(&|r| r.clients))?;
        for (name, _) in &widest.numbers {
            let cell = |row: &Row| {
                let value = row.numbers.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
                value.map_or(" - |".to_owned(), |v| if v < 100.0 { format!(" {v:.1} |") } else { format!(" {v:.0} |") })
            };
            writeln!(f, "| {name} |{}", self.0.iter().map(cell).collect::<String>())?;
        }
        Ok(())
    }
}
