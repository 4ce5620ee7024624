//! Numbers of a stretch of time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::{Metrics, Sample};

/// gRPC statuses by which a server says that it failed: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and
/// DATA_LOSS.
const FAILED_GRPC: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

/// What all proxies have counted in a stretch of time.
#[derive(Debug, Default)]
pub struct Window {
    /// Counted in it, a page of each proxy.
    pub counted: Vec<Metrics>,
    /// As it is at the end, for gauges.
    pub now: Vec<Metrics>,
    /// How long it was, in seconds.
    pub seconds: f64,
}

impl Window {
    /// Between two readings. A proxy that was in one of them only counts for nothing: what it shows for the first time may be of
    /// long before.
    pub fn between(first: &[(String, Metrics)], second: &[(String, Metrics)], took: Duration) -> Self {
        let counted = second.iter().filter_map(|(name, now)| {
            let (_, then) = first.iter().find(|(other, _)| other == name)?;
            Some(now.since(then))
        });
        let now = second.iter().map(|(_, now)| now.clone()).collect();
        Self { counted: counted.collect(), now, seconds: took.as_secs_f64() }
    }

    /// The samples of a counter.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.counted.iter().flat_map(move |metrics| metrics.of(name))
    }

    /// The samples of a gauge.
    pub fn gauge<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.now.iter().flat_map(move |metrics| metrics.of(name))
    }
}

/// Whose traffic counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `namespace` or `namespace/workload`.
    pub from: Option<String>,
    /// The same of whom it goes to.
    pub to: Option<String>,
    /// `namespace/name`.
    pub service: Option<String>,
}

impl Filter {
    /// Whether a sample is of it.
    pub fn has(&self, sample: &Sample) -> bool {
        let end = |wanted: &Option<String>, side: &str| {
            wanted.as_deref().is_none_or(|wanted| {
                let namespace = sample.label(&format!("{side}_namespace"));
                namespace == wanted || workload(sample, side) == wanted
            })
        };
        let service = self.service.as_deref().is_none_or(|wanted| {
            let name = service(sample).unwrap_or_default();
            name.rsplit_once(':').is_some_and(|(name, _)| name == wanted)
        });
        end(&self.from, "source") && end(&self.to, "destination") && service
    }
}

/// One end of a call: `namespace/workload`.
pub fn workload(sample: &Sample, side: &str) -> String {
    format!("{}/{}", sample.label(&format!("{side}_namespace")), sample.label(&format!("{side}_workload")))
}

/// The Service port that was dialled, `namespace/name:port`.
pub fn service(sample: &Sample) -> Option<String> {
    let name = sample.label("destination_service");
    let namespace = sample.label("destination_service_namespace");
    (!name.is_empty()).then(|| format!("{namespace}/{name}:{}", sample.label("destination_port")))
}

/// Whether requests of a series count as failures of the server: a status of 500 and up, none at all, or a gRPC status that
/// says so. What a client did wrong isn't one.
pub fn has_failed(sample: &Sample) -> bool {
    matches!(sample.label("response_class"), "5xx" | "none") || FAILED_GRPC.contains(&sample.label("grpc_status"))
}

/// Whether what protects a connection is the mesh.
pub fn is_secure(sample: &Sample) -> bool {
    matches!(sample.label("connection_security"), "mutual_tls" | "local")
}

/// Whether there was a connection that could be protected: not where a request had an answer without one, nor a probe.
pub fn counts_for_security(sample: &Sample) -> bool {
    !matches!(sample.label("connection_security"), "none" | "node" | "passthrough")
}

/// Whether a connection names both ends: others have requests that do, or another proxy that does.
pub fn names_both_ends(sample: &Sample) -> bool {
    let of_ends = ["source_workload", "destination_workload"].map(|end| sample.label(end));
    let of_caller = sample.label("reporter") == "source";
    !of_ends.contains(&"various") && (of_caller || sample.label("connection_security") == "plaintext")
}

/// A histogram, added up over series: counts by upper bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(BTreeMap<u64, f64>);

impl Histogram {
    /// Adds the bucket of a sample.
    pub fn add(&mut self, sample: &Sample) {
        let bound = match sample.label("le") {
            "+Inf" => f64::INFINITY,
            text => match text.parse::<f64>() {
                Ok(bound) if bound >= 0.0 => bound,
                _ => return,
            },
        };
        // Of numbers that aren't negative the bits sort as they do.
        *self.0.entry(bound.to_bits()).or_default() += sample.value;
    }

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            *self.0.entry(*bound).or_default() += count;
        }
    }

    /// A quantile, interpolated within its bucket as Prometheus does; beyond the last bound it is that bound.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.0.values().next_back().copied().filter(|total| *total > 0.0)?;
        let rank = q * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            let bound = f64::from_bits(*bound);
            if *count >= rank {
                if bound.is_infinite() || *count <= below {
                    return Some(low);
                }
                return Some(low + (bound - low) * (rank - below) / (count - below));
            }
            (low, below) = (bound, *count);
        }
        None
    }
}
