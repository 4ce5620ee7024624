//! Rules of routes: what their weights say, and where requests really went.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weft_core::ids::{RuleKey, ServicePortKey};
use weft_core::route::{BackendTarget, HttpAction, Parent, RouteRule};
use weft_core::snapshot::Snapshot;

use crate::count::{Histogram, Window, has_failed};
use crate::lens::HIDDEN;
use crate::words::wanted;
use crate::{Lens, Sample, rounded};

/// All rules that a reader may see.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Routes {
    /// How long was counted.
    pub seconds: f64,
    /// By route and place.
    pub rules: Vec<Rule>,
}

/// A rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// `HTTPRoute namespace/name`
    pub route: String,
    /// The route's namespace.
    pub namespace: String,
    /// Its place in the route, from 0.
    pub rule: u16,
    /// `rules[].name`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it is attached.
    pub parents: BTreeSet<String>,
    /// What a request has to have: any of these. Empty: nothing.
    pub wants: Vec<String>,
    /// What it does instead of sending requests somewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answers: String,
    /// Requests; `None`: the mesh doesn't count by rules of this kind, which carry bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// 0 to 1, of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    /// 99 of 100 answers took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// Where requests go.
    pub backends: Vec<Backend>,
}

/// A backend of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `Service namespace/name:port`, or what was written and isn't one.
    pub target: String,
    /// As the route says.
    pub weight: u32,
    /// 0 to 1, of the weights of the rule.
    pub share: f64,
    /// 0 to 1, of the requests that an endpoint answered; `None`: none did, or its workloads serve another backend as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<f64>,
    /// Requests that went there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// 0 to 1, of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success: Option<f64>,
    /// 99 of 100 answers took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// Why its share gets 500.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

#[derive(Clone, Default)]
struct Sums {
    requests: f64,
    failed: f64,
    latency: Histogram,
}

/// By the rule's name in metrics, its place, and the workload that answered.
type Counted = BTreeMap<(String, String), BTreeMap<(String, String), Sums>>;

impl Routes {
    /// Of a configuration, with what was counted.
    pub fn of(snapshot: &Snapshot, window: &Window, lens: &Lens) -> Self {
        let counted = counted(window);
        let mut rules = BTreeMap::<RuleKey, Rule>::new();
        let of_services = snapshot.rules().map(|rule| &**rule);
        for rule in of_services.chain(snapshot.gateway_rules().map(|it| &*it.rule)) {
            let route = &rule.key().route;
            if !lens.wants(route.namespace.as_str()) {
                continue;
            }
            let new = || Rule::of(rule, snapshot, &counted, window.seconds, lens);
            let entry = rules.entry(rule.key().clone()).or_insert_with(new);
            entry.parents.extend(rule.parents().iter().map(|parent| words(parent, lens)));
        }
        Self { seconds: rounded(window.seconds), rules: rules.into_values().collect() }
    }
}

fn counted(window: &Window) -> Counted {
    let mut counted = Counted::new();
    let mut add = |metric: &str, to: &dyn Fn(&mut Sums, &Sample)| {
        let of_callers = |sample: &&Sample| sample.label("reporter") == "source" && sample.value > 0.0;
        for sample in window.of(metric).filter(of_callers).filter(|sample| !sample.label("route").is_empty()) {
            let [route, rule, namespace, workload] = ["route", "rule", "destination_namespace", "destination_workload"]
                .map(|name| sample.label(name).to_owned());
            to(counted.entry((route, rule)).or_default().entry((namespace, workload)).or_default(), sample);
        }
    };
    add("weft_http_requests_total", &|sums, sample| {
        sums.requests += sample.value;
        sums.failed += if has_failed(sample) { sample.value } else { 0.0 };
    });
    add("weft_http_request_duration_seconds_bucket", &|sums, sample| sums.latency.add(sample));
    counted
}

fn words(parent: &Parent, lens: &Lens) -> String {
    match parent {
        Parent::Service { port, .. } if !lens.may_view(port.service.namespace.as_str()) => HIDDEN.to_owned(),
        Parent::Service { port, consumer: None } => format!("Service {port}"),
        Parent::Service { port, consumer: Some(clients) } => format!("Service {port}, for clients in {clients}"),
        Parent::Listener(key) if !lens.may_view(key.gateway.namespace.as_str()) => HIDDEN.to_owned(),
        Parent::Listener(key) => format!("Gateway {} listener {}", key.gateway, key.name),
    }
}

impl Sums {
    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.latency.merge(&other.latency);
    }

    fn success(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| rounded((self.requests - self.failed) / self.requests))
    }

    fn per_second(&self, seconds: f64) -> f64 {
        if seconds > 0.0 { rounded(self.requests / seconds) } else { 0.0 }
    }
}

impl Rule {
    fn of(rule: &RouteRule, snapshot: &Snapshot, counted: &Counted, seconds: f64, lens: &Lens) -> Self {
        let key = rule.key();
        let mut it = Self {
            route: key.route.to_string().replacen('/', " ", 1),
            namespace: key.route.namespace.to_string(),
            rule: key.index,
            ..Self::default()
        };
        match rule {
            RouteRule::Http(rule) => {
                it.name = rule.name.as_ref().map(ToString::to_string).unwrap_or_default();
                it.wants = rule.matches.iter().map(wanted).collect();
                let none = BTreeMap::new();
                let by_workload = counted.get(&(key.route.to_string(), key.index.to_string())).unwrap_or(&none);
                let mut all = Sums::default();
                by_workload.values().for_each(|sums| all.merge(sums));
                it.requests_per_second = Some(all.per_second(seconds));
                it.success = all.success();
                it.p99_seconds = all.latency.quantile(0.99).map(rounded);
                match &rule.action {
                    HttpAction::Forward(backends) => {
                        let targets: Vec<_> = backends.iter().map(|it| (&it.target, it.weight)).collect();
                        it.backends = measured(&targets, snapshot, by_workload, seconds, lens);
                    }
                    HttpAction::Redirect(redirect) => it.answers = format!("a redirect, {}", redirect.status.as_u16()),
                    HttpAction::Invalid(why) => it.answers = format!("500: {why}"),
                }
            }
            RouteRule::L4(rule) => {
                it.name = rule.name.as_ref().map(ToString::to_string).unwrap_or_default();
                let targets: Vec<_> = rule.backends.iter().map(|it| (&it.target, it.weight)).collect();
                it.backends = weighted(&targets, lens);
            }
        }
        it
    }
}

fn weighted(targets: &[(&BackendTarget, u32)], lens: &Lens) -> Vec<Backend> {
    let total: u64 = targets.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let backend = |(target, weight): &(&BackendTarget, u32)| {
        let (target, problem) = match target {
            BackendTarget::Service(key) if !lens.may_view(key.service.namespace.as_str()) => {
                (HIDDEN.to_owned(), String::new())
            }
            BackendTarget::Service(key) => (format!("Service {key}"), String::new()),
            BackendTarget::Invalid { reference, reason } => (reference.clone(), format!("{reason:?}")),
        };
        let share = if total > 0 { rounded(f64::from(*weight) / total as f64) } else { 0.0 };
        Backend { target, weight: *weight, share, problem, ..Backend::default() }
    };
    targets.iter().map(backend).collect()
}

/// The workloads behind a Service's port, as metrics name them.
fn behind(snapshot: &Snapshot, key: &ServicePortKey) -> BTreeSet<(String, String)> {
    let entries = snapshot.frontend(key).map(|frontend| frontend.endpoints.entries.as_slice()).unwrap_or_default();
    let workloads = entries.iter().filter_map(|entry| snapshot.workload_at(entry.address.ip()));
    workloads.map(|it| (it.namespace.to_string(), it.owner.name.to_string())).collect()
}

/// Backends with what their workloads answered. Which backend a workload answered for can't be told where it is behind two.
fn measured(
    targets: &[(&BackendTarget, u32)],
    snapshot: &Snapshot,
    by_workload: &BTreeMap<(String, String), Sums>,
    seconds: f64,
    lens: &Lens,
) -> Vec<Backend> {
    let behind: Vec<_> = targets
        .iter()
        .map(|(target, _)| match target {
            BackendTarget::Service(key) => behind(snapshot, key),
            BackendTarget::Invalid { .. } => BTreeSet::new(),
        })
        .collect();
    let is_shared = |workload: &(String, String)| behind.iter().filter(|it| it.contains(workload)).count() > 1;
    let sums = behind.iter().map(|workloads| {
        let mut sums = Sums::default();
        let own = workloads.iter().filter_map(|workload| by_workload.get(workload));
        own.for_each(|of| sums.merge(of));
        (!workloads.is_empty() && !workloads.iter().any(is_shared)).then_some(sums)
    });
    let sums: Vec<_> = sums.collect();
    let known: BTreeSet<_> = behind.iter().flatten().collect();
    let answered: f64 = known.iter().filter_map(|workload| by_workload.get(*workload)).map(|sums| sums.requests).sum();
    let mut backends = weighted(targets, lens);
    for (backend, sums) in backends.iter_mut().zip(sums) {
        let Some(sums) = sums else { continue };
        backend.measured = (answered > 0.0).then(|| rounded(sums.requests / answered));
        backend.requests_per_second = Some(sums.per_second(seconds));
        if backend.target != HIDDEN {
            backend.success = sums.success();
            backend.p99_seconds = sums.latency.quantile(0.99).map(rounded);
        }
    }
    backends
}
