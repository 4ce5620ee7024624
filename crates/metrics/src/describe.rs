//! Explains the catalogue to the recorder of the `metrics` crate.

use metrics::{Unit as Exported, counter, describe_counter, describe_gauge, describe_histogram};

use crate::catalogue::of;
use crate::family::{Component, Family, Kind, Unit};

/// Upper bounds of the buckets of histograms in seconds.
pub const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Says what each metric of a component is. A counter without labels is there from now on, with 0: an increase from
/// nothing to 1 is none for Prometheus.
pub fn describe(component: Component) {
    for Family { name, kind, unit, labels, help, .. } in of(component).copied() {
        match kind {
            Kind::Counter => describe_counter!(name, exported(unit), help),
            Kind::Gauge => describe_gauge!(name, exported(unit), help),
            Kind::Histogram => describe_histogram!(name, exported(unit), help),
        }
        if kind == Kind::Counter && labels.is_empty() && name.starts_with("weft_") && component != Component::Proxy {
            counter!(name).increment(0);
        }
    }
}

const fn exported(unit: Unit) -> Exported {
    match unit {
        Unit::None => Exported::Count,
        Unit::Seconds => Exported::Seconds,
        Unit::Milliseconds => Exported::Milliseconds,
        Unit::Bytes => Exported::Bytes,
    }
}
