//! The Gateway API's CRDs.

use std::collections::BTreeSet;

use weft_k8s::object::GATEWAY_GROUP;

use super::platform::{Version, version};
use crate::cluster::facts::Crd;
use crate::cluster::finding::{Check, Finding, Severity};

/// Bundles that were tried.
const OLDEST: Version = (1, 2);
const NEWEST: Version = (1, 6);
/// Kinds that can be attached to Services.
const ROUTES: [&str; 5] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"];
const RELEASES: &str = "https://github.com/kubernetes-sigs/gateway-api/releases";

/// Which channel and bundle is there.
pub fn versions(crds: &[Crd]) -> Check {
    let name = "Gateway API";
    let ours: Vec<_> = crds.iter().filter(|crd| crd.group == GATEWAY_GROUP).collect();
    if ours.is_empty() {
        let finding = Finding::new(
            Severity::Note,
            "CustomResourceDefinitions",
            "the cluster has no Gateway API: mutual TLS and policies work, routes can't be written",
        )
        .remedy(format!("kubectl apply --server-side -f {RELEASES}/download/v1.6.3/standard-install.yaml"));
        return Check::new(name, "none", vec![finding]);
    }
    let bundles: BTreeSet<_> = ours.iter().filter_map(|crd| crd.bundle.as_deref()).collect();
    let channels: BTreeSet<_> = ours.iter().filter_map(|crd| crd.channel.as_deref()).collect();
    let mut findings = Vec::new();
    let list = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(" and ");
    if bundles.len() > 1 {
        let what = format!("CRDs of {} are mixed", list(&bundles));
        let remedy = format!("apply one release in whole: {RELEASES}");
        findings.push(Finding::new(Severity::Warning, "CustomResourceDefinitions", what).remedy(remedy));
    }
    for bundle in &bundles {
        let what = match version(bundle) {
            Some(found) if found < OLDEST => format!("{bundle} is older than the oldest that was tried, 1.2"),
            Some(found) if found > NEWEST => format!("{bundle} is newer than the newest that was tried, 1.6"),
            Some(_) => continue,
            None => format!("{bundle:?} is no version"),
        };
        findings.push(Finding::new(Severity::Note, "CustomResourceDefinitions", what));
    }
    if bundles.is_empty() {
        let what = format!("no version in the annotation {GATEWAY_GROUP}/bundle-version");
        findings.push(Finding::new(Severity::Note, "CustomResourceDefinitions", what));
    }
    let missing: Vec<_> = ROUTES.into_iter().filter(|kind| !ours.iter().any(|crd| crd.kind == *kind)).collect();
    let without = if missing.is_empty() { String::new() } else { format!(", without {}", missing.join(", ")) };
    Check::new(name, format!("{}, {} channel{without}", list(&bundles), list(&channels)), findings)
}
