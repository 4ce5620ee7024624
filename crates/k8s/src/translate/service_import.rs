//! ServiceImport -> [`core::Service`](weft_core::service::Service) (GEP-1748).
//!
//! Routes send to its endpoints. Its own addresses are left to whoever imports it: a client that dials them gets what it
//! would get without the mesh.

use k8s_openapi::api::core::v1 as k8s;
use weft_core::backend_kind::BackendKind;
use weft_core::ids::ServiceKey;
use weft_core::service::Service;

use super::{Problem, service};
use crate::object::ServiceImport;

/// Translates a ServiceImport; a port that can't be used is left out, with a problem.
pub fn service_import(object: &ServiceImport) -> (Service, Vec<Problem>) {
    let spec = &object.spec;
    let headless = match spec.kind.as_str() {
        "" | "ClusterSetIP" => Ok(false),
        "Headless" => Ok(true),
        other => Err(Problem::value(
            "spec.type",
            format!("{other:?} is not a type that is known"),
            "use ClusterSetIP or Headless",
        )),
    };
    let port = |port: &crate::object::ImportedPort| k8s::ServicePort {
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
        port: port.port,
        ..k8s::ServicePort::default()
    };
    let affinity = spec.session_affinity_config.clone().and_then(|config| serde_json::from_value(config).ok());
    let of_cluster = k8s::ServiceSpec {
        ports: Some(spec.ports.iter().map(port).collect()),
        cluster_ip: matches!(headless, Ok(true)).then(|| "None".to_owned()),
        // It has no meaning where there is no frontend.
        session_affinity: spec.session_affinity.clone().filter(|_| !matches!(headless, Ok(true))),
        session_affinity_config: affinity,
        internal_traffic_policy: spec.internal_traffic_policy.clone(),
        traffic_distribution: spec.traffic_distribution.clone(),
        ..k8s::ServiceSpec::default()
    };
    let as_service = k8s::Service { metadata: object.metadata.clone(), spec: Some(of_cluster), status: None };
    let (mut made, mut problems) = service::service(&as_service);
    made.key = ServiceKey::of_kind(BackendKind::ServiceImport, made.key.namespace.clone(), made.key.name.as_str());
    problems.extend(headless.err());
    (made, problems)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use weft_core::service::{AppProtocol, ServiceKind};

    use super::*;

    fn made(spec: serde_json::Value) -> (Service, Vec<Problem>) {
        let object = json!({ "metadata": { "name": "store", "namespace": "shop" }, "spec": spec });
        service_import(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_import_is_a_service_without_addresses_of_its_own() {
        let ports = json!([{ "name": "web", "port": 80, "appProtocol": "kubernetes.io/h2c" }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
        let config = json!({ "clientIP": { "timeoutSeconds": 60 } });
        let (found, problems) = made(json!({ "type": "ClusterSetIP", "ips": ["10.42.0.1"], "ports": ports,
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": config }));
        assert!(problems.is_empty() && found.addresses.is_empty(), "{found:?} {problems:?}");
        assert_eq!((found.key.described().as_str(), found.kind), ("ServiceImport shop/store", ServiceKind::ClusterIp));
        let ports: Vec<_> = found.ports.iter().map(|it| (it.name.as_str(), it.port.get(), it.protocol)).collect();
        assert_eq!(ports, [("web", 80, AppProtocol::H2c), ("dns", 53, AppProtocol::Udp)]);
        assert_eq!(found.client_ip_affinity, Some(Duration::from_secs(60)));
        let (headless, _) =
            made(json!({ "type": "Headless", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP" }));
        assert_eq!((headless.kind, headless.client_ip_affinity), (ServiceKind::Headless, None));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (found, problems) = made(json!({ "type": "Other", "ports": [{ "port": 0 }, { "port": 81 }] }));
        assert_eq!(found.ports.len(), 1);
        let fields: Vec<_> = problems.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, ["spec.ports[0].port", "spec.type"]);
    }
}
