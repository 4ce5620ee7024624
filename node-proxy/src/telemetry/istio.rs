//! Istio's names for what is counted anyway, made when the page is read.
//!
//! Tools differ in whether they ask for the caller's or the called end's word, and here the destination's proxy parses
//! HTTP only where a policy needs it. So what the caller's proxy counted between two ends of the mesh is told as the
//! destination's word too, and what the destination's proxy counted only if its client is none of the mesh.

use std::collections::BTreeMap;

use weft_core::ids::ServicePortKey;
use weft_core::reason::Reason;
use weft_metrics::{Family, istio};

use super::labels::{WorkloadLabel, pair};
use super::numbers::{Bounds, DURATIONS, HistogramTotal, OF_DURATIONS, SIZES};
use super::page::Page;
use super::render::{outcomes, sum, total};
use super::security::Security;
use super::series::ConnectionSeries;
use super::shard::Registry;

/// The bounds of durations in milliseconds.
static MILLISECONDS: Bounds<OF_DURATIONS> = Bounds {
    upper: DURATIONS.upper,
    le: ["1.0", "5.0", "25.0", "100.0", "250.0", "500.0", "1000.0", "2500.0", "10000.0"],
    unit: 1e6,
};

/// What the labels of a series say.
#[derive(Clone, Copy)]
struct Told<'a> {
    source: Option<&'a WorkloadLabel>,
    destination: Option<&'a WorkloadLabel>,
    service: Option<&'a ServicePortKey>,
    security: Security,
    protocol: &'static str,
    flags: &'static str,
}

/// A number of a series.
type Of = fn(&ConnectionSeries) -> u64;

/// Series that differ only in what Istio has no label for are one.
type Sums<T> = BTreeMap<String, T>;

impl Registry {
    /// The families of Istio, in the text format. Services are named within the cluster's domain.
    pub fn render_istio(&self, cluster_domain: &str) -> String {
        let mut page = Page::default();
        self.istio_requests(&mut page, cluster_domain);
        self.istio_durations(&mut page, cluster_domain);
        self.istio_sizes(&mut page, cluster_domain);
        self.istio_connections(&mut page, cluster_domain);
        page.text
    }

    fn istio_requests(&self, page: &mut Page, domain: &str) {
        let mut sums = Sums::<u64>::new();
        for (labels, series) in self.gather(|shard| &shard.requests) {
            for (outcome, count) in outcomes(&series) {
                let protocol = if labels.protocol == "grpc" { "grpc" } else { "http" };
                let told = Told {
                    source: Some(&labels.source),
                    destination: Some(&labels.destination),
                    service: labels.service.as_ref(),
                    security: labels.security,
                    protocol,
                    flags: flags(outcome.reason),
                };
                for reporter in reporters(labels.reporter, labels.security) {
                    let mut text = told.text(reporter, domain);
                    pair(&mut text, "response_code", code(outcome.class));
                    let status = outcome.grpc_status.map(|status| status.to_string()).unwrap_or_default();
                    pair(&mut text, "grpc_response_status", &status);
                    *sums.entry(text).or_default() += count;
                }
            }
        }
        tell(page, &istio::REQUESTS, &sums);
    }

    fn istio_durations(&self, page: &mut Page, domain: &str) {
        let mut sums = Sums::<HistogramTotal>::new();
        for (labels, series) in self.gather(|shard| &shard.durations) {
            if labels.reporter != "source" {
                continue;
            }
            let told = Told {
                source: None,
                destination: Some(&labels.destination),
                service: labels.service.as_ref(),
                security: Security::None,
                protocol: "http",
                flags: "-",
            };
            let reporters: &[_] = if labels.destination.is_nobody() { &["source"] } else { &["source", "destination"] };
            for reporter in reporters {
                let sum = sums.entry(told.text(reporter, domain)).or_default();
                series.iter().for_each(|series| series.took.add_to(sum));
            }
        }
        page.family(&istio::DURATION);
        sums.iter().for_each(|(labels, total)| page.histogram(&istio::DURATION, labels, total, &MILLISECONDS));
    }

    fn istio_sizes(&self, page: &mut Page, domain: &str) {
        let all = self.gather(|shard| &shard.sizes);
        let told = |reporter: &str, local| {
            let (source, destination) = if reporter == "source" { (Some(local), None) } else { (None, Some(local)) };
            let (service, security, protocol, flags) = (None, Security::None, "http", "-");
            Told { source, destination, service, security, protocol, flags }.text(reporter, domain)
        };
        page.family(&istio::REQUEST_BYTES);
        for (labels, series) in &all {
            let total = total(series, |series, total| series.request.add_to(total));
            page.histogram(&istio::REQUEST_BYTES, &told(labels.reporter, &labels.local), &total, &SIZES);
        }
        page.family(&istio::RESPONSE_BYTES);
        for (labels, series) in &all {
            let total = total(series, |series, total| series.response.add_to(total));
            page.histogram(&istio::RESPONSE_BYTES, &told(labels.reporter, &labels.local), &total, &SIZES);
        }
    }

    fn istio_connections(&self, page: &mut Page, domain: &str) {
        let families: [(&Family, Of); 4] = [
            (&istio::TCP_OPENED, |series| series.opened.get()),
            (&istio::TCP_CLOSED, |series| series.closed.get()),
            (&istio::TCP_RECEIVED, |series| series.received.get()),
            (&istio::TCP_SENT, |series| series.sent.get()),
        ];
        let mut sums: [Sums<u64>; 4] = Default::default();
        for (labels, series) in self.gather(|shard| &shard.connections) {
            // Those of which requests are told, and those that the other end tells.
            if labels.source.is_various() || labels.destination.is_various() {
                continue;
            }
            let told = Told {
                source: Some(&labels.source),
                destination: Some(&labels.destination),
                service: labels.service.as_ref(),
                security: labels.security,
                protocol: "tcp",
                flags: "-",
            };
            for reporter in reporters(labels.reporter, labels.security) {
                let text = told.text(reporter, domain);
                for (sums, (_, of)) in sums.iter_mut().zip(&families) {
                    *sums.entry(text.clone()).or_default() += sum(&series, of);
                }
            }
        }
        families.iter().zip(&sums).for_each(|((family, _), sums)| tell(page, family, sums));
    }
}

fn tell(page: &mut Page, family: &Family, sums: &Sums<u64>) {
    page.family(family);
    sums.iter().for_each(|(labels, sum)| page.sample(family, labels, sum));
}

/// Whose word a series is told as.
fn reporters(counted_by: &str, security: Security) -> &'static [&'static str] {
    match (counted_by, security) {
        ("source", Security::Mtls | Security::Local) => &["source", "destination"],
        ("source", _) => &["source"],
        (_, Security::Mtls | Security::Local) => &[],
        _ => &["destination"],
    }
}

impl Told<'_> {
    fn text(&self, reporter: &str, domain: &str) -> String {
        const UNKNOWN: &str = "unknown";
        let mut text = String::with_capacity(1024);
        pair(&mut text, "reporter", reporter);
        for (side, end) in [("source", self.source), ("destination", self.destination)] {
            let (namespace, workload) = end.map_or((UNKNOWN, UNKNOWN), |end| (&*end.namespace, &*end.workload));
            for (label, value) in [
                ("workload", workload),
                ("workload_namespace", namespace),
                ("canonical_service", workload),
                ("canonical_revision", "latest"),
                ("app", workload),
                ("version", "latest"),
                ("cluster", "Kubernetes"),
                ("principal", UNKNOWN),
            ] {
                pair(&mut text, &format!("{side}_{label}"), value);
            }
        }
        let (namespace, name) =
            self.service.map_or((UNKNOWN, UNKNOWN), |key| (key.service.namespace.as_str(), key.service.name.as_str()));
        let host = match self.service {
            Some(_) => format!("{name}.{namespace}.svc.{domain}"),
            None => UNKNOWN.to_owned(),
        };
        let policy = match self.security {
            Security::Mtls | Security::Local => "mutual_tls",
            Security::Plaintext | Security::Node => "none",
            Security::Passthrough | Security::None => UNKNOWN,
        };
        for (label, value) in [
            ("destination_service", host.as_str()),
            ("destination_service_name", name),
            ("destination_service_namespace", namespace),
            ("connection_security_policy", policy),
            ("request_protocol", self.protocol),
            ("response_flags", self.flags),
        ] {
            pair(&mut text, label, value);
        }
        text
    }
}

/// The first code of a class: no more is counted.
fn code(class: u8) -> &'static str {
    ["0", "100", "200", "300", "400", "500"].get(usize::from(class)).copied().unwrap_or("0")
}

/// Envoy's flag for what the proxy did (Envoy, "Access logging", `RESPONSE_FLAGS`).
const fn flags(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoute | Reason::NoListener | Reason::NoBackend | Reason::InvalidBackend => "NR",
        Reason::NoEndpoint => "UH",
        Reason::ConnectFailed | Reason::ConnectTimeout | Reason::TunnelRefused => "UF",
        Reason::RequestTimeout | Reason::BackendTimeout => "UT",
        Reason::RetryBudget | Reason::LimitConnections => "UO",
        Reason::UpstreamReset | Reason::TunnelReset => "UC",
        Reason::UpstreamProtocol => "UPE",
        Reason::DownstreamReset => "DC",
        Reason::BadRequest | Reason::HeadersTooLarge => "DPE",
        Reason::AuthDenied | Reason::AuthFailed => "UAEX",
        _ => "-",
    }
}
