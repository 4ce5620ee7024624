//! Numbers that a component shows, read from the Prometheus text format.

use std::collections::BTreeMap;

/// One number with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// By their names.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// A label; empty if it isn't there.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// What one process shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads a page. A line that can't be read costs itself only: the page may be of another version.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The same, of lines that are wanted.
    pub fn parse_lines(text: &str, is_wanted: impl Fn(&str) -> bool) -> Self {
        Self(text.lines().filter(|line| is_wanted(line)).filter_map(sample).collect())
    }

    /// All samples of a metric.
    pub fn of<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// What the counters have counted since an earlier page of the same process. One that is smaller than then has begun anew,
    /// and one that wasn't there has begun at 0. Gauges make no sense in it.
    pub fn since(&self, earlier: &Self) -> Self {
        let before: BTreeMap<_, _> =
            earlier.0.iter().map(|sample| ((&sample.name, &sample.labels), sample.value)).collect();
        let counted = self.0.iter().map(|sample| {
            let then = before.get(&(&sample.name, &sample.labels)).copied().unwrap_or_default();
            let value = if sample.value >= then { sample.value - then } else { sample.value };
            Sample { value, ..sample.clone() }
        });
        Self(counted.collect())
    }

    /// A metric without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.of(name).next().map(|sample| sample.value)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    // What may follow the value is a time.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// `a="b",c="d"} 1` to the labels and what follows.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        found.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_labels_are_read_and_a_broken_line_costs_itself() {
        let page =
            "# HELP a b\na 1\nb{x=\"1,}\",y=\"say \\\"hi\\\"\\n\"} 2.5 1700000000\nc{x=\"1\" 3\nd{} +Inf\ne nothing\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.value("a"), Some(1.0));
        let b = metrics.of("b").next().unwrap();
        assert_eq!((b.label("x"), b.label("y"), b.label("z"), b.value), ("1,}", "say \"hi\"\n", "", 2.5));
        assert_eq!(metrics.value("d"), Some(f64::INFINITY));
        assert_eq!((metrics.of("c").count(), metrics.of("e").count()), (0, 0));
    }

    #[test]
    fn what_was_counted_since_then() {
        let then = Metrics::parse("a{x=\"1\"} 5\na{x=\"2\"} 5\n");
        let now = Metrics::parse("a{x=\"1\"} 7\na{x=\"2\"} 1\na{x=\"3\"} 4\n");
        let counted: Vec<_> = now.since(&then).of("a").map(|sample| sample.value).collect();
        assert_eq!(counted, [2.0, 1.0, 4.0], "one has begun anew, one is new");
    }
}
