//! The mesh's roots and certificates.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use weft_core::identity::TrustDomain;
use weft_tls::{CertificateDer, TrustBundle};

use crate::cluster::facts::{Facts, name_of, node_of};
use crate::cluster::finding::{Check, Finding, Severity};

/// The ConfigMap of the roots and its key.
const NAME: &str = "weft-trust";
const KEY: &str = "root.pem";
/// A root that ends sooner is told of.
const SOON: Duration = Duration::from_secs(30 * 86_400);
/// A leaf that ends sooner should have been renewed long ago: that happens at half of its life.
const LEAF_SOON: Duration = Duration::from_secs(30 * 60);

/// When each root ends.
///
/// # Errors
/// What is wrong with the text.
pub fn ends(pem: &str) -> Result<Vec<SystemTime>, String> {
    let domain = TrustDomain::default();
    let bundle = TrustBundle::from_pem(domain.clone(), pem.as_bytes()).map_err(|e| e.to_string())?;
    bundle.roots(&domain).iter().map(end).collect()
}

fn end(der: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
    let seconds = certificate.validity().not_after.timestamp();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// `2036-11-19`
pub fn date(at: SystemTime) -> String {
    time::OffsetDateTime::from(at).date().to_string()
}

/// Whether roots are published and in force.
pub fn roots(map: Option<&ConfigMap>, mesh: &str, now: SystemTime) -> Check {
    let name = "roots";
    let object = format!("ConfigMap {mesh}/{NAME}");
    let one = |what: String, remedy: String| {
        Check::new(name, "none", vec![Finding::new(Severity::Error, object.clone(), what).remedy(remedy)])
    };
    let logs = format!("kubectl -n {mesh} logs deployment/weft-ca: the authority publishes it when it leads");
    let Some(map) = map else { return one("it isn't there: nobody knows whom to trust".to_owned(), logs) };
    let Some(pem) = map.data.as_ref().and_then(|data| data.get(KEY)) else {
        return one(format!("it has no key {KEY}"), logs);
    };
    let ends = match ends(pem) {
        Ok(ends) => ends,
        Err(why) => {
            return one(
                format!("{KEY}: {why}"),
                format!("kubectl -n {mesh} delete configmap {NAME}: the authority publishes it anew"),
            );
        }
    };
    let mut findings = Vec::new();
    for end in &ends {
        let until = date(*end);
        if *end <= now {
            findings.push(
                Finding::new(Severity::Error, object.clone(), format!("a root has ended, on {until}"))
                    .remedy("rotate the root"),
            );
        } else if *end <= now + SOON {
            findings.push(
                Finding::new(Severity::Warning, object.clone(), format!("a root ends soon, on {until}"))
                    .remedy("rotate the root"),
            );
        }
    }
    let nearest = ends.iter().min().map(|end| date(*end)).unwrap_or_default();
    Check::new(name, format!("{}, until {nearest}", ends.len()), findings)
}

/// Certificates that node proxies hold: whose, on which node, until when (`None`: there is none), and failures since.
pub fn leaves(facts: &Facts) -> Vec<(String, String, Option<SystemTime>, f64)> {
    let proxies = facts.component("weft-node-proxy");
    let pages =
        proxies.filter_map(|pod| Some((node_of(pod), facts.pages.get(name_of(&pod.metadata))?.metrics.as_ref().ok()?)));
    pages
        .flat_map(|(node, metrics)| {
            metrics.of("weft_certificate_expiry_timestamp_seconds").map(move |sample| {
                let identity = sample.label("identity");
                let end =
                    (sample.value >= 1.0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(sample.value as u64));
                let mut failures =
                    metrics.of("weft_certificate_renewal_failures").filter(|s| s.label("identity") == identity);
                (identity.to_owned(), node.to_owned(), end, failures.next().map_or(0.0, |s| s.value))
            })
        })
        .collect()
}

/// When the authority's own certificates end, by what they are.
pub fn authority(facts: &Facts) -> Vec<(&'static str, SystemTime)> {
    let metrics =
        facts.component("weft-ca").filter_map(|pod| facts.pages.get(name_of(&pod.metadata))?.metrics.as_ref().ok());
    let mut ends: Vec<_> = metrics
        .flat_map(|metrics| {
            [
                ("root", "weft_ca_root_expiry_timestamp_seconds"),
                ("intermediate", "weft_ca_intermediate_expiry_timestamp_seconds"),
            ]
            .into_iter()
            .filter_map(|(what, name)| Some((what, metrics.value(name).filter(|v| *v >= 1.0)?)))
            .map(|(what, value)| (what, SystemTime::UNIX_EPOCH + Duration::from_secs(value as u64)))
        })
        .collect();
    ends.sort_by_key(|(what, end)| (*what, *end));
    ends.dedup_by_key(|(what, _)| *what);
    ends
}

/// Whether every identity has a certificate with life left.
pub fn certificates(facts: &Facts) -> Check {
    let now = facts.server.now;
    let mut findings = Vec::new();
    let leaves = leaves(facts);
    let mesh = &facts.mesh;
    for (identity, node, end, failures) in &leaves {
        let object = format!("{identity} on node {node}");
        let logs = format!("kubectl -n {mesh} logs daemonset/weft-node-proxy and deployment/weft-ca say why");
        match end {
            None => findings.push(
                Finding::new(Severity::Error, object, "it has no certificate: its pods can't call or be called")
                    .remedy(logs),
            ),
            Some(end) if *end <= now => findings.push(
                Finding::new(
                    Severity::Error,
                    object,
                    format!("its certificate has ended, after {failures} failed attempts to renew it"),
                )
                .remedy(logs),
            ),
            Some(end) if *end <= now + LEAF_SOON && *failures > 0.0 => findings.push(
                Finding::new(
                    Severity::Warning,
                    object,
                    format!("its certificate ends within half an hour, and renewing it has failed {failures} times"),
                )
                .remedy(logs),
            ),
            Some(_) => {}
        }
    }
    for (what, end) in authority(facts) {
        let object = format!("the authority's {what}");
        if end <= now {
            findings.push(
                Finding::new(Severity::Error, object, format!("it has ended, on {}", date(end)))
                    .remedy("rotate the root"),
            );
        } else if what == "root" && end <= now + SOON {
            findings.push(
                Finding::new(Severity::Warning, object, format!("it ends soon, on {}", date(end)))
                    .remedy("rotate the root"),
            );
        }
    }
    Check::new("certificates", format!("{} of workloads", leaves.len()), findings)
}
