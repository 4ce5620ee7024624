//! What failed, by the reason that the proxies give.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weft_core::reason::{MadeBy, Reason};

use crate::count::{Window, has_failed, service, workload};
use crate::lens::HIDDEN;
use crate::{Lens, Sample, rounded};

/// In the place of a reason: the application itself answered that it failed.
pub const APPLICATION: &str = "application";

/// All of it, the most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// How long was counted.
    pub seconds: f64,
    /// By reason and place.
    pub failures: Vec<Failure>,
}

/// Requests or connections that ended for one reason at one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// A reason code, or [`APPLICATION`].
    pub reason: String,
    /// `application`, `proxy` or `network`: whose doing it is.
    pub made_by: &'static str,
    /// `requests` or `connections`.
    pub of: &'static str,
    /// The Service that was dialled as `Service namespace/name:port`, or the workload as `namespace/name`.
    pub at: String,
    /// The namespace of that.
    pub namespace: String,
    /// Who called, as far as it is known.
    pub callers: BTreeSet<String>,
    /// How many.
    pub per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reason: String,
    of: &'static str,
    at: String,
    namespace: String,
}

/// Reasons of what didn't fail: proxies answer these for routes, and clients go when they like.
fn is_failure(reason: &str) -> bool {
    let fine = [Reason::Ok, Reason::Redirect, Reason::CorsPreflight, Reason::DownstreamReset];
    !reason.is_empty() && fine.iter().all(|it| it.as_str() != reason)
}

impl Failures {
    /// Of what was counted. Failures in namespaces that may not be viewed are left out.
    pub fn of(window: &Window, lens: &Lens) -> Self {
        let mut found = BTreeMap::<Key, (f64, BTreeSet<String>)>::new();
        let requests = window.of("weft_http_requests_total").filter(|sample| sample.label("reporter") == "source");
        for sample in requests.filter(|sample| sample.value > 0.0) {
            if let Some(key) = of_request(sample, lens) {
                let (count, callers) = found.entry(key).or_default();
                *count += sample.value;
                callers.insert(caller(sample, lens));
            }
        }
        for metric in ["weft_tcp_connections_refused_total", "weft_tcp_connections_shed_total"] {
            for sample in window.of(metric).filter(|sample| sample.value > 0.0) {
                let (namespace, reason) = (sample.label("namespace"), sample.label("reason"));
                if lens.wants(namespace) && is_failure(reason) {
                    let key = Key {
                        reason: reason.to_owned(),
                        of: "connections",
                        at: format!("{namespace}/{}", sample.label("workload")),
                        namespace: namespace.to_owned(),
                    };
                    found.entry(key).or_default().0 += sample.value;
                }
            }
        }
        let failure = |(key, (count, callers)): (Key, (f64, BTreeSet<String>))| Failure {
            made_by: Reason::of_code(&key.reason).map_or(MadeBy::Application, Reason::made_by).as_str(),
            reason: key.reason,
            of: key.of,
            at: key.at,
            namespace: key.namespace,
            callers,
            per_second: if window.seconds > 0.0 { rounded(count / window.seconds) } else { 0.0 },
        };
        let mut failures: Vec<_> = found.into_iter().map(failure).collect();
        failures.sort_by(|a, b| {
            b.per_second.total_cmp(&a.per_second).then_with(|| (&a.at, &a.reason).cmp(&(&b.at, &b.reason)))
        });
        Self { seconds: rounded(window.seconds), failures }
    }
}

fn of_request(sample: &Sample, lens: &Lens) -> Option<Key> {
    let reason = match sample.label("reason") {
        reason if is_failure(reason) => reason,
        _ if has_failed(sample) && sample.label("reason") == Reason::Ok.as_str() => APPLICATION,
        _ => return None,
    };
    let (at, namespace) = match service(sample) {
        Some(dialled) => (format!("Service {dialled}"), sample.label("destination_service_namespace")),
        None => (workload(sample, "destination"), sample.label("destination_namespace")),
    };
    let source = sample.label("source_namespace");
    let is_wanted = lens.wants(namespace) || lens.wants(source) || *lens == Lens::all();
    (is_wanted && lens.may_view(namespace)).then(|| Key {
        reason: reason.to_owned(),
        of: "requests",
        at,
        namespace: namespace.to_owned(),
    })
}

fn caller(sample: &Sample, lens: &Lens) -> String {
    let caller = workload(sample, "source");
    match caller.as_str() {
        "unknown/unknown" => "outside of the mesh".to_owned(),
        _ if lens.may_view(sample.label("source_namespace")) => caller,
        _ => HIDDEN.to_owned(),
    }
}
