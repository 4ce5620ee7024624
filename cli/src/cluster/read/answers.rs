//! What the API server and the mesh's programs answer, as facts.

use std::time::SystemTime;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use weft_k8s::object::GATEWAY_GROUP;

use crate::cluster::facts::{Crd, Right, Unread};

pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> Unread {
    Unread { what: what.to_owned(), why: error.to_string() }
}

pub(super) fn unexpected(what: &str, code: u16) -> Unread {
    Unread { what: what.to_owned(), why: format!("it answered {code}") }
}

/// What a readiness page says is missing; `None` if it is no such page.
pub(super) fn missing(code: u16, text: &str) -> Option<Vec<String>> {
    match code {
        200 => Some(Vec::new()),
        503 => {
            let lines = text.lines().map(|line| line.trim_start_matches("waiting for: ").trim().to_owned());
            let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
            Some(if lines.is_empty() { vec!["something it doesn't name".to_owned()] } else { lines })
        }
        _ => None,
    }
}

pub(super) fn http_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

pub(super) fn crd_of(crd: &CustomResourceDefinition) -> Crd {
    let annotation = |name: &str| crd.metadata.annotations.as_ref()?.get(&format!("{GATEWAY_GROUP}/{name}")).cloned();
    let served = crd.spec.versions.iter().find(|v| v.served);
    Crd {
        group: crd.spec.group.clone(),
        kind: crd.spec.names.kind.clone(),
        plural: crd.spec.names.plural.clone(),
        version: served.map(|v| v.name.clone()).unwrap_or_default(),
        channel: annotation("channel"),
        bundle: annotation("bundle-version"),
    }
}

/// What the chart makes, and Helm keeps.
pub(super) fn wanted(mesh: &str) -> Vec<Right> {
    let cluster = [
        ("", "namespaces"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ];
    let namespaced = [
        ("", "serviceaccounts"),
        ("", "services"),
        ("", "secrets"),
        ("apps", "deployments"),
        ("apps", "daemonsets"),
        ("batch", "jobs"),
        ("policy", "poddisruptionbudgets"),
        ("networking.k8s.io", "networkpolicies"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ];
    let right = |namespace: Option<&str>, (group, resource)| Right {
        verb: "create",
        group,
        resource,
        namespace: namespace.map(str::to_owned),
        allowed: false,
    };
    cluster.map(|it| right(None, it)).into_iter().chain(namespaced.map(|it| right(Some(mesh), it))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_pages_of_both_kinds_are_read() {
        assert_eq!(missing(200, "ready\n"), Some(vec![]));
        assert_eq!(missing(503, "waiting for: a, b\n"), Some(vec!["a, b".to_owned()]));
        assert_eq!(missing(503, "a\nb\n"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(missing(404, "no"), None);
    }

    #[test]
    fn dates_of_http_are_read() {
        let date = http_date("Sat, 21 Nov 2026 10:07:17 GMT").unwrap();
        assert_eq!(date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_795_255_637);
    }
}
