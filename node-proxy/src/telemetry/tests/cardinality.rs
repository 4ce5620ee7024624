//! How many series a large cluster has: measured, not reckoned.

use std::collections::BTreeSet;

use weft_core::ids::*;

use super::*;

const NODES: usize = 30;
const SERVICES: usize = 300;
const PODS: usize = 10;
const CALLERS: usize = 10;
/// The most that all proxies together may have.
const MOST: usize = 300_000;
/// What a proxy has of each pod beside its traffic: six of its budget and two of its certificate; and of itself.
const OF_A_POD: usize = 8;
const OF_A_PROXY: usize = 60;

fn workload(service: usize) -> WorkloadLabel {
    WorkloadLabel { namespace: format!("ns{}", service % 30).into(), workload: format!("app{service}").into() }
}

fn key(service: usize) -> ServicePortKey {
    let namespace = format!("ns{}", service % 30);
    ServicePortKey {
        service: ServiceKey::new(namespace.as_str(), format!("app{service}").as_str()),
        port: Port::new(80).unwrap(),
    }
}

/// The Services whose pods a node has, one for each pod.
fn pods_of(node: usize) -> Vec<usize> {
    let all = (0..SERVICES).flat_map(|service| (0..PODS).map(move |pod| (service, (service + 3 * pod) % NODES)));
    all.filter(|(_, on)| *on == node).map(|(service, _)| service).collect()
}

/// Every pod of the node calls what it calls, and is called by all of its callers, over HTTP without policies that look at it.
fn traffic_of(node: usize) -> Registry {
    let (registry, here) = (Registry::default(), pods_of(node));
    let local: BTreeSet<usize> = here.iter().copied().collect();
    let recorder = registry.recorder();
    let ways = |other: usize| {
        let near = local.contains(&other).then_some(Security::Local);
        [Some(Security::Mtls), near].into_iter().flatten()
    };
    for service in local.iter().copied() {
        for distance in (1..=CALLERS).map(|n| 17 * n) {
            let (called, caller) =
                ((service + distance) % SERVICES, (service + SERVICES - distance % SERVICES) % SERVICES);
            for security in ways(called) {
                let labels = RequestLabels {
                    reporter: "source",
                    source: workload(service),
                    destination: workload(called),
                    service: Some(key(called)),
                    rule: None,
                    security,
                    protocol: "http2",
                };
                recorder.requests(&labels).record(OK, &measure(3));
                connection(&recorder, ("source", workload(service), WorkloadLabel::various()), security);
            }
            for security in ways(caller) {
                connection(&recorder, ("destination", WorkloadLabel::various(), workload(service)), security);
            }
        }
        for role in ["client", "server"] {
            let more =
                [("role", role), ("result", "ok"), ("tls_version", "TLSv1.3"), ("cipher", "TLS_AES_256_GCM_SHA384")];
            let more = more.map(|(name, value)| (name, value.into())).to_vec();
            recorder.event(&EventLabels { family: &families::HANDSHAKES, workload: Some(workload(service)), more }, 1);
            recorder.handshake(RoleLabel(role), Duration::from_millis(1));
        }
    }
    registry
}

fn connection(
    recorder: &Recorder,
    (reporter, source, destination): (&'static str, WorkloadLabel, WorkloadLabel),
    security: Security,
) {
    recorder.connections(&ConnectionLabels { reporter, source, destination, service: None, security }).opened.add(1);
}

#[test]
fn a_large_cluster_has_few_enough_series() {
    let mut all = 0;
    for node in 0..NODES {
        let registry = traffic_of(node);
        let text = registry.render();
        assert!(!text.contains("overflow\""), "the budget is for more than that");
        all += text.lines().filter(|line| !line.starts_with('#')).count();
        all += OF_A_POD * pods_of(node).len() + OF_A_PROXY;
    }
    assert!(all <= MOST, "{all}");
    let digits = all.to_string();
    let (thousands, rest) = digits.split_at(digits.len() - 3);
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let documented = std::fs::read_to_string(file).unwrap();
    assert!(
        documented.contains(&format!(" {thousands},{rest} series")),
        "docs/metrics.md should say {thousands},{rest} series"
    );
}

#[test]
fn routes_without_traffic_have_no_series() {
    let registry = Registry::default();
    let _workers = [registry.recorder(), registry.recorder()];
    let mut alive = Alive::default();
    for n in 0..5_000 {
        let route = RouteKey { kind: RouteKind::Http, namespace: "shop".into(), name: format!("r{n}").as_str().into() };
        alive.rules.insert(RuleKey { route, index: 0 });
    }
    registry.retain(&alive);
    assert_eq!(registry.render().lines().filter(|line| !line.starts_with('#')).count(), 3, "what it tells of itself");
}
