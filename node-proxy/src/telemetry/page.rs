//! Writes a page in Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use weft_metrics::Family;

use super::exemplar::Exemplar;
use super::labels::pair;
use super::numbers::{Bounds, HistogramTotal};

/// Lines of one family after another.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) text: String,
    /// Whether buckets carry exemplars: only OpenMetrics, which the page is to become, knows them.
    exemplars: bool,
}

impl Page {
    pub(super) fn new(exemplars: bool) -> Self {
        Self { text: String::with_capacity(16 * 1024), exemplars }
    }

    /// The head of a family; all of its samples come next.
    pub(super) fn family(&mut self, family: &Family) {
        self.text.push_str(&family.head());
    }

    /// A sample with labels as [`pair`] writes them.
    pub(super) fn sample(&mut self, family: &Family, labels: &str, value: impl Display) {
        let name = family.name;
        // Writing to a String cannot fail.
        let _ = match labels.is_empty() {
            true => writeln!(self.text, "{name} {value}"),
            false => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    /// A sample with these labels.
    pub(super) fn value(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) {
        let mut text = String::new();
        labels.iter().for_each(|(label, value)| pair(&mut text, label, value));
        self.sample(family, &text, value);
    }

    /// A family with one sample, without labels.
    pub(super) fn single(&mut self, family: &Family, value: impl Display) {
        self.family(family);
        self.value(family, &[], value);
    }

    /// The samples of one histogram.
    pub(super) fn histogram<const N: usize>(
        &mut self,
        family: &Family,
        labels: &str,
        total: &HistogramTotal,
        bounds: &Bounds<N>,
    ) {
        let (name, mut below) = (family.name, 0);
        for (place, (le, count)) in bounds.le.iter().zip(&total.buckets).enumerate() {
            below += count;
            let _ = write!(self.text, "{name}_bucket{{{labels},le=\"{le}\"}} {below}");
            self.exemplar(total.exemplars.get(place).copied().flatten(), bounds.unit);
        }
        let _ = write!(self.text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", total.count);
        self.exemplar(total.exemplars.get(N).copied().flatten(), bounds.unit);
        let _ = writeln!(self.text, "{name}_sum{{{labels}}} {}", total.sum as f64 / bounds.unit);
        let _ = writeln!(self.text, "{name}_count{{{labels}}} {}", total.count);
    }

    /// The end of a bucket's line (OpenMetrics, "Exemplars").
    fn exemplar(&mut self, exemplar: Option<Exemplar>, unit: f64) {
        if let Some(Exemplar { trace, value, at_millis }) = exemplar.filter(|_| self.exemplars) {
            let (value, at) = (value as f64 / unit, at_millis as f64 / 1e3);
            let _ = write!(self.text, " # {{trace_id=\"{trace}\"}} {value} {at:.3}");
        }
        self.text.push('\n');
    }
}
