//! What was measured, each with the most that it may be; or one size beside the other, and how it grew.

use std::fmt;

use serde_json::{Map, Value, json};

/// How much more than in proportion something may grow, for what a machine does besides.
const ALLOWANCE: f64 = 1.15;

/// A table with a column for each size.
#[derive(Debug)]
pub struct Sheet {
    title: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// How large it is, for what grows with it.
    size: f64,
}

#[derive(Debug)]
struct Row {
    name: String,
    values: Vec<Option<f64>>,
    bar: Bar,
}

/// What a number may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Anything.
    None,
    /// So much at most.
    AtMost(f64),
    /// As many times as the size, at most.
    Linear,
}

impl Sheet {
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), columns: Vec::new(), rows: Vec::new() }
    }

    /// Begins a column; what is set from now on is in it.
    #[expect(clippy::cast_precision_loss, reason = "small")]
    pub fn column(&mut self, name: &str, size: usize) {
        self.columns.push(Column { name: name.to_owned(), size: size as f64 });
    }

    /// Notes a number of the last column.
    pub fn set(&mut self, name: &str, value: f64, bar: Bar) {
        let place = self.columns.len().saturating_sub(1);
        let row = match self.rows.iter().position(|row| row.name == name) {
            Some(found) => &mut self.rows[found],
            None => {
                self.rows.push(Row { name: name.to_owned(), values: Vec::new(), bar });
                self.rows.last_mut().expect("it was just put there")
            }
        };
        row.values.resize(place, None);
        row.values.push(Some(value));
    }

    /// Notes a number without a limit.
    pub fn note(&mut self, name: &str, value: f64) {
        self.set(name, value, Bar::None);
    }

    fn verdict(&self, row: &Row) -> Option<bool> {
        match row.bar {
            Bar::None => None,
            Bar::AtMost(most) => Some(row.values.iter().flatten().all(|value| *value <= most)),
            Bar::Linear => {
                let pairs = row
                    .values
                    .iter()
                    .zip(&self.columns)
                    .filter_map(|(value, column)| Some((*value.as_ref()?, column.size)));
                let pairs: Vec<_> = pairs.collect();
                let ((first, small), (last, large)) = (pairs.first()?, pairs.last()?);
                // Of one size alone nothing can be said.
                (large > small).then(|| last / first <= large / small * ALLOWANCE)
            }
        }
    }

    /// The rows that are more than they may be.
    pub fn missed(&self) -> Vec<&str> {
        self.rows.iter().filter(|row| self.verdict(row) == Some(false)).map(|row| row.name.as_str()).collect()
    }

    /// All numbers.
    pub fn to_json(&self) -> Value {
        let column = |(place, column): (usize, &Column)| {
            let value = |row: &Row| Some((row.name.clone(), json!(row.values.get(place).copied().flatten()?)));
            let numbers: Map<_, _> = self.rows.iter().filter_map(value).collect();
            json!({ "name": column.name, "size": column.size, "numbers": numbers })
        };
        let columns: Vec<_> = self.columns.iter().enumerate().map(column).collect();
        json!({ "columns": columns, "missed": self.missed() })
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 || v == 0.0 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells =
            |texts: &mut dyn Iterator<Item = String>| texts.map(|text| format!(" {text} |")).collect::<String>();
        writeln!(f, "\n| {} |{} at most | |", self.title, cells(&mut self.columns.iter().map(|c| c.name.clone())))?;
        writeln!(f, "|---|{}---|---|", "---:|".repeat(self.columns.len()))?;
        for row in &self.rows {
            let value = |place: usize| row.values.get(place).copied().flatten().map_or("-".to_owned(), number);
            let values = cells(&mut (0..self.columns.len()).map(value));
            let most = match row.bar {
                Bar::None => String::new(),
                Bar::AtMost(most) => number(most),
                Bar::Linear => "in proportion".to_owned(),
            };
            let word = match self.verdict(row) {
                None => "",
                Some(true) => "yes",
                Some(false) => "**NO**",
            };
            writeln!(f, "| {} |{values} {most} | {word} |", row.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_for_every_size() {
        let mut sheet = Sheet::new("t");
        for (name, value) in [("one", 40.0), ("two", 41.0)] {
            sheet.column(name, 1);
            sheet.set("MiB", value, Bar::AtMost(40.5));
            sheet.set("s", value, Bar::AtMost(41.0));
            sheet.note("load", 99.0);
        }
        assert_eq!(sheet.missed(), ["MiB"]);
        let text = sheet.to_string();
        assert!(
            text.contains("| MiB | 40.0 | 41.0 | 40.5 | **NO** |") && text.contains("| load | 99.0 | 99.0 |  |  |"),
            "{text}"
        );
    }

    #[test]
    fn what_grows_faster_than_the_size_is_named() {
        let mut sheet = Sheet::new("t");
        for (size, cpu, memory) in [(10, 1.0, 10.0), (40, 5.0, 30.0)] {
            sheet.column("n", size);
            sheet.set("CPU", cpu, Bar::Linear);
            sheet.set("memory", memory, Bar::Linear);
        }
        assert_eq!(sheet.missed(), ["CPU"]);
        assert_eq!(sheet.to_json()["missed"], json!(["CPU"]));
    }

    #[test]
    fn of_one_size_alone_nothing_is_said_and_a_number_of_a_later_size_is_in_its_column() {
        let mut sheet = Sheet::new("t");
        sheet.column("small", 10);
        sheet.set("CPU", 1.0, Bar::Linear);
        assert_eq!(sheet.missed(), Vec::<&str>::new());
        sheet.column("large", 40);
        sheet.note("later", 3.0);
        assert!(sheet.to_string().contains("| later | - | 3.0 |"), "{sheet}");
    }
}
