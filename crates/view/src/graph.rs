//! Who calls whom, to be drawn.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::count::{Histogram, Window, counts_for_security, has_failed, is_secure, names_both_ends, service};
use crate::lens::HIDDEN;
use crate::{Lens, Sample, rounded};

/// Workloads and the calls between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// How long was counted.
    pub seconds: f64,
    /// Ends of edges, by their ids.
    pub nodes: Vec<Node>,
    /// One for each pair that calls.
    pub edges: Vec<Edge>,
}

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What owns pods.
    Workload,
    /// A Gateway of the mesh.
    Gateway,
    /// A Service of which no endpoint answered.
    Service,
    /// Whoever isn't in the mesh.
    Outside,
    /// Series that there was no room for: many workloads.
    Overflow,
    /// Whatever is in namespaces that the reader may not view.
    Hidden,
}

/// An end of calls. Its numbers are of the calls to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// `namespace/name`, or words.
    pub id: String,
    /// Empty for what has none.
    pub namespace: String,
    /// What people read.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Requests to it.
    pub requests_per_second: f64,
    /// 0 to 1, of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    /// Half of its answers took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_seconds: Option<f64>,
    /// 99 of 100 took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
}

/// Calls of one to another. Towards what the reader may not view there are counts, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The caller's id.
    pub from: String,
    /// The id of whom it calls.
    pub to: String,
    /// Requests.
    pub requests_per_second: f64,
    /// 0 to 1, of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    /// How long one takes, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_seconds: Option<f64>,
    /// Of the same destination and Services, but of all their callers: a histogram for every pair isn't kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// 0 to 1: requests, or connections where there are none, over mutual TLS or within a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<f64>,
    /// `mutual_tls`, `local`, `plaintext`, ...
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub security: BTreeSet<String>,
    /// What was dialled, `namespace/name:port`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub services: BTreeSet<String>,
    /// Connections that are relayed as bytes, or come from outside of the mesh, and are open now.
    pub open_connections: u64,
    /// Of those, opened each second.
    pub opened_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Named { namespace: String, name: String },
    Service { namespace: String, name: String },
    Outside,
    Overflow,
    Hidden,
}

impl End {
    fn of(sample: &Sample, side: &str) -> Self {
        let namespace = sample.label(&format!("{side}_namespace"));
        let name = sample.label(&format!("{side}_workload"));
        match (namespace, name, service(sample)) {
            ("unknown", "unknown", Some(dialled)) if side == "destination" => {
                let namespace = sample.label("destination_service_namespace").to_owned();
                Self::Service { namespace, name: dialled }
            }
            ("unknown", "unknown", _) => Self::Outside,
            ("overflow", "overflow", _) => Self::Overflow,
            _ => Self::Named { namespace: namespace.to_owned(), name: name.to_owned() },
        }
    }

    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Named { namespace, .. } | Self::Service { namespace, .. } => Some(namespace),
            Self::Outside | Self::Overflow | Self::Hidden => None,
        }
    }

    fn through(self, lens: &Lens) -> Self {
        if self.namespace().is_none_or(|namespace| lens.may_view(namespace)) { self } else { Self::Hidden }
    }

    fn id(&self) -> String {
        match self {
            Self::Named { namespace, name } => format!("{namespace}/{name}"),
            Self::Service { name, .. } => format!("Service {name}"),
            Self::Outside => "outside of the mesh".to_owned(),
            Self::Overflow => "overflow".to_owned(),
            Self::Hidden => HIDDEN.to_owned(),
        }
    }

    fn node(&self, gateways: &BTreeSet<String>) -> Node {
        let id = self.id();
        let (name, kind) = match self {
            Self::Named { name, .. } if gateways.contains(&id) => (name.clone(), Kind::Gateway),
            Self::Named { name, .. } => (name.clone(), Kind::Workload),
            Self::Service { namespace, name } => {
                (name.strip_prefix(&format!("{namespace}/")).unwrap_or(name).to_owned(), Kind::Service)
            }
            Self::Outside => (id.clone(), Kind::Outside),
            Self::Overflow => ("many workloads".to_owned(), Kind::Overflow),
            Self::Hidden => (id.clone(), Kind::Hidden),
        };
        let namespace = self.namespace().unwrap_or_default().to_owned();
        let (requests_per_second, success, p50_seconds, p99_seconds) = (0.0, None, None, None);
        Node { id, namespace, name, kind, requests_per_second, success, p50_seconds, p99_seconds }
    }
}

/// The ends of a call as a reader may see them; `None`: it doesn't concern him.
fn ends(sample: &Sample, lens: &Lens) -> Option<(End, End)> {
    let ends = (End::of(sample, "source"), End::of(sample, "destination"));
    let wants = |end: &End| end.namespace().is_some_and(|namespace| lens.wants(namespace));
    // Who may view everything also sees what there was no room to name.
    let all = *lens == Lens::all();
    (wants(&ends.0) || wants(&ends.1) || all).then(|| (ends.0.through(lens), ends.1.through(lens)))
}

#[derive(Default)]
struct Sums {
    requests: f64,
    failed: f64,
    time: f64,
    secure: f64,
    securable: f64,
    security: BTreeSet<String>,
    services: BTreeSet<String>,
    open: f64,
    opened: f64,
    opened_secure: f64,
    opened_securable: f64,
}

type Pairs = BTreeMap<(End, End), Sums>;

/// What is added up for the drawing.
#[derive(Default)]
struct Counted {
    pairs: Pairs,
    /// By destination and what was dialled.
    latency: BTreeMap<(End, String), Histogram>,
}

impl Graph {
    /// Of what was counted. `gateways` are those of the mesh, as `namespace/name`.
    pub fn of(window: &Window, gateways: &BTreeSet<String>, lens: &Lens) -> Self {
        let mut counted = Counted::default();
        counted.requests(window, lens);
        counted.connections(window, lens);
        counted.latency(window, lens);
        let per_second = |count: f64| if window.seconds > 0.0 { rounded(count / window.seconds) } else { 0.0 };
        let edges = counted.pairs.iter().map(|((from, to), sums)| {
            let mut edge = Edge {
                from: from.id(),
                to: to.id(),
                requests_per_second: per_second(sums.requests),
                open_connections: sums.open as u64,
                opened_per_second: per_second(sums.opened),
                ..Edge::default()
            };
            if *from != End::Hidden && *to != End::Hidden {
                counted.tell(&mut edge, to, sums);
            }
            edge
        });
        let edges = edges.collect();
        Self { seconds: rounded(window.seconds), nodes: counted.nodes(gateways, per_second), edges }
    }
}

impl Counted {
    fn pair(&mut self, sample: &Sample, lens: &Lens) -> Option<&mut Sums> {
        let ends = ends(sample, lens)?;
        let is_hidden = ends.0 == End::Hidden || ends.1 == End::Hidden;
        let sums = self.pairs.entry(ends).or_default();
        if !is_hidden {
            sums.security.insert(sample.label("connection_security").to_owned());
            let namespace = sample.label("destination_service_namespace");
            sums.services.extend(service(sample).filter(|_| lens.may_view(namespace)));
        }
        Some(sums)
    }

    fn requests(&mut self, window: &Window, lens: &Lens) {
        let of_callers = |sample: &&Sample| sample.label("reporter") == "source" && sample.value > 0.0;
        for sample in window.of("weft_http_requests_total").filter(of_callers) {
            let Some(sums) = self.pair(sample, lens) else { continue };
            sums.requests += sample.value;
            sums.failed += if has_failed(sample) { sample.value } else { 0.0 };
            if counts_for_security(sample) {
                sums.securable += sample.value;
                sums.secure += if is_secure(sample) { sample.value } else { 0.0 };
            }
        }
        for sample in window.of("weft_http_request_time_seconds_total").filter(of_callers) {
            if let Some(sums) = ends(sample, lens).and_then(|ends| self.pairs.get_mut(&ends)) {
                sums.time += sample.value;
            }
        }
    }

    fn connections(&mut self, window: &Window, lens: &Lens) {
        let named = |sample: &&Sample| sample.value > 0.0 && names_both_ends(sample);
        for sample in window.gauge("weft_tcp_connections").filter(named) {
            let Some(sums) = self.pair(sample, lens) else { continue };
            sums.open += sample.value;
            sums.connection(sample);
        }
        for sample in window.of("weft_tcp_connections_opened_total").filter(named) {
            let Some(sums) = self.pair(sample, lens) else { continue };
            sums.opened += sample.value;
            sums.connection(sample);
        }
    }

    fn latency(&mut self, window: &Window, lens: &Lens) {
        let of_callers = |sample: &&Sample| sample.label("reporter") == "source" && sample.value > 0.0;
        for sample in window.of("weft_http_request_duration_seconds_bucket").filter(of_callers) {
            let end = End::of(sample, "destination").through(lens);
            if end != End::Hidden {
                self.latency.entry((end, service(sample).unwrap_or_default())).or_default().add(sample);
            }
        }
    }

    /// How long an end's answers took: to what was dialled, or to anything.
    fn quantile(&self, end: &End, dialled: Option<&BTreeSet<String>>, q: f64) -> Option<f64> {
        let mut all = Histogram::default();
        let of_end = self.latency.iter().filter(|((other, service), _)| {
            other == end && dialled.is_none_or(|dialled| service.is_empty() || dialled.contains(service))
        });
        of_end.for_each(|(_, histogram)| all.merge(histogram));
        all.quantile(q).map(rounded)
    }

    fn tell(&self, edge: &mut Edge, to: &End, sums: &Sums) {
        let of = |part: f64, whole: f64| (whole > 0.0).then(|| rounded(part / whole));
        edge.success = of(sums.requests - sums.failed, sums.requests);
        edge.mean_seconds = of(sums.time, sums.requests).filter(|_| sums.time > 0.0);
        edge.encrypted = of(sums.secure, sums.securable).or_else(|| of(sums.opened_secure, sums.opened_securable));
        edge.security.clone_from(&sums.security);
        edge.services.clone_from(&sums.services);
        if sums.requests > 0.0 {
            edge.p99_seconds = self.quantile(to, Some(&sums.services), 0.99);
        }
    }

    fn nodes(&self, gateways: &BTreeSet<String>, per_second: impl Fn(f64) -> f64) -> Vec<Node> {
        let mut of_end = BTreeMap::<&End, (f64, f64)>::new();
        for ((from, to), sums) in &self.pairs {
            of_end.entry(from).or_default();
            let (requests, failed) = of_end.entry(to).or_default();
            *requests += sums.requests;
            *failed += sums.failed;
        }
        let node = |(end, (requests, failed)): (&End, (f64, f64))| {
            let mut node = end.node(gateways);
            if *end != End::Hidden {
                node.requests_per_second = per_second(requests);
                node.success = (requests > 0.0).then(|| rounded((requests - failed) / requests));
                node.p50_seconds = self.quantile(end, None, 0.5);
                node.p99_seconds = self.quantile(end, None, 0.99);
            }
            node
        };
        of_end.into_iter().map(node).collect()
    }
}

impl Sums {
    fn connection(&mut self, sample: &Sample) {
        if counts_for_security(sample) {
            self.opened_securable += sample.value;
            self.opened_secure += if is_secure(sample) { sample.value } else { 0.0 };
        }
    }
}
