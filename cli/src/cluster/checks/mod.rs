//! The checks: functions of what was read, so that each is a table to test.

pub mod components;
pub mod gateway_api;
pub mod network;
pub mod objects;
pub mod platform;
pub mod protection;
pub mod rights;
pub mod trust;

use super::facts::{Facts, Read};
use super::finding::{Check, Report};

/// The checks that say whether a cluster can have the mesh.
pub fn before(facts: &Facts, required: platform::Version) -> Report {
    let mut checks = platform(facts, required);
    checks.push(known("rights to install", &facts.rights, |rights| rights::rights(rights)));
    checks.push(rights::clock(&facts.server));
    checks.push(network_policies(facts));
    checks.push(known("pod security", &facts.namespaces, |all| rights::pod_security(all, &facts.mesh)));
    Report { checks }
}

/// The checks of a mesh that is installed.
pub fn installed(facts: &Facts, required: platform::Version) -> Report {
    let mut checks = platform(facts, required);
    checks.push(rights::clock(&facts.server));
    checks.push(network_policies(facts));
    checks.push(known("pod security", &facts.namespaces, |all| rights::pod_security(all, &facts.mesh)));
    checks.push(components::own_kinds(&facts.crds));
    checks.push(components::workloads(facts));
    checks.push(components::nodes(facts));
    checks.push(known("images", &facts.pods, |_| components::images(facts)));
    checks.push(known("leases", &facts.leases, |leases| components::leases(leases, facts)));
    checks.push(components::readiness(facts));
    checks.push(known("roots", &facts.trust, |map| trust::roots(map.as_ref(), &facts.mesh, facts.server.now)));
    checks.push(trust::certificates(facts));
    checks.push(match (&facts.namespaces, &facts.pods) {
        (Ok(namespaces), Ok(pods)) => protection::labels(namespaces, pods),
        (Err(why), _) | (_, Err(why)) => Check::unknown("enrolment labels", why),
    });
    checks.push(protection::pods(facts));
    checks.push(known("routes and policies", &facts.objects, |objects| objects::accepted(objects)));
    checks.push(known("reference grants", &facts.objects, |objects| objects::grants(objects)));
    checks.push(known("configuration on nodes", &facts.refusals, |map| objects::refused(map.as_ref())));
    checks.push(match (&facts.services, &facts.namespaces) {
        (Ok(services), Ok(namespaces)) => objects::protocols(services, namespaces),
        (Err(why), _) | (_, Err(why)) => Check::unknown("protocols of ports", why),
    });
    Report { checks }
}

fn platform(facts: &Facts, required: platform::Version) -> Vec<Check> {
    vec![
        platform::api_server(&facts.server, required),
        known("kernels", &facts.nodes, |nodes| platform::kernels(nodes)),
        known("container runtimes", &facts.nodes, |nodes| platform::runtimes(nodes)),
        match (&facts.cilium, &facts.felix) {
            (Ok(cilium), Ok(felix)) => network::socket_load_balancing(cilium.as_ref(), felix.as_ref()),
            (Err(why), _) | (_, Err(why)) => Check::unknown("socket load balancing", why),
        },
        known("Gateway API", &facts.crds, |crds| gateway_api::versions(crds)),
    ]
}

fn network_policies(facts: &Facts) -> Check {
    match (&facts.network_policies, &facts.namespaces, &facts.pods) {
        (Ok(policies), Ok(namespaces), Ok(pods)) => network::policies(policies, namespaces, pods, &facts.mesh),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => Check::unknown("network policies", why),
    }
}

fn known<T>(name: &'static str, read: &Read<T>, check: impl FnOnce(&T) -> Check) -> Check {
    match read {
        Ok(value) => check(value),
        Err(why) => Check::unknown(name, why),
    }
}
