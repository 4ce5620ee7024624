//! A summary of a snapshot as JSON. It names identities and holds no key.

use serde_json::{Value, json};
use weft_core::route::{HttpAction, Parent, RouteRule};
use weft_core::snapshot::Snapshot;

/// Workloads, Services with their endpoints, rules and policies.
pub(super) fn snapshot(snapshot: &Snapshot) -> Value {
    let mut workloads: Vec<_> = snapshot.workloads().map(|workload| json!(workload)).collect();
    let mut services: Vec<_> = snapshot.services().map(|service| self::service(snapshot, service)).collect();
    let of_gateways = snapshot.gateway_rules().map(|it| &it.rule);
    let mut rules: Vec<_> = snapshot.rules().chain(of_gateways).map(|rule| self::rule(rule)).collect();
    // The order of a snapshot is nobody's; a dump is compared.
    for list in [&mut workloads, &mut services, &mut rules] {
        list.sort_by_key(ToString::to_string);
    }
    json!({
        "mesh": snapshot.mesh().as_ref(),
        "workloads": workloads,
        "services": services,
        "rules": rules,
        "authorizationPolicies": snapshot.authorization_policies().collect::<Vec<_>>(),
        "meshPolicies": snapshot.mesh_policies().collect::<Vec<_>>(),
        "telemetryPolicies": snapshot.telemetry_policies().collect::<Vec<_>>(),
    })
}

fn service(snapshot: &Snapshot, service: &weft_core::service::Service) -> Value {
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| {
            let key = weft_core::ids::ServicePortKey { service: service.key.clone(), port: port.port };
            let endpoints: Vec<_> = snapshot
                .frontend(&key)
                .iter()
                .flat_map(|frontend| &frontend.endpoints.entries)
                .map(|entry| json!({ "address": entry.address, "health": entry.health, "node": entry.node, "zone": entry.zone }))
                .collect();
            json!({ "port": port.port, "protocol": port.protocol, "endpoints": endpoints })
        })
        .collect();
    json!({ "service": service.key.to_string(), "addresses": service.addresses, "ports": ports })
}

fn rule(rule: &RouteRule) -> Value {
    let parents: Vec<_> = rule.parents().iter().map(parent).collect();
    let invalid = match rule {
        RouteRule::Http(http) => match &http.action {
            HttpAction::Invalid(why) => Some(why.as_str()),
            HttpAction::Forward(_) | HttpAction::Redirect(_) => None,
        },
        RouteRule::L4(_) => None,
    };
    json!({ "rule": rule.key().to_string(), "parents": parents, "invalid": invalid })
}

/// A parent as routes are named: kind, namespace and name, then the port or the listener.
fn parent(parent: &Parent) -> String {
    match parent {
        Parent::Service { port, consumer: None } => format!("Service/{port}"),
        Parent::Service { port, consumer: Some(namespace) } => format!("Service/{port} for clients in {namespace}"),
        Parent::Listener(listener) => format!("Gateway/{}:{}", listener.gateway, listener.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::ids::{GatewayKey, ListenerKey, Port, ServiceKey, ServicePortKey};

    #[test]
    fn policies_of_all_kinds_are_in_it() {
        use weft_core::change::{Change, Resource};
        use weft_core::telemetry::TelemetryPolicy;
        let policy = TelemetryPolicy {
            key: weft_core::ids::PolicyKey::new("shop", "traces"),
            scope: weft_core::policy::Scope::Mesh,
            gateways: Vec::new(),
            created_unix_seconds: 0,
            access_log: Default::default(),
            tracing: Default::default(),
        };
        let with = Snapshot::default().apply(&[Change::Upsert(Resource::Telemetry(policy.into()))]);
        let dump = super::snapshot(&with);
        assert_eq!(dump["telemetryPolicies"][0]["scope"], "Mesh", "{dump}");
        for kind in ["authorizationPolicies", "meshPolicies"] {
            assert_eq!(dump[kind], json!([]), "{kind}");
        }
    }

    #[test]
    fn parents_are_named_like_routes() {
        let service = ServiceKey { namespace: "shop".into(), name: "cart".into() };
        let port = ServicePortKey { service, port: Port::new(80).unwrap() };
        let named = |consumer: Option<&str>| {
            parent(&Parent::Service { port: port.clone(), consumer: consumer.map(Into::into) })
        };
        assert_eq!(named(None), "Service/shop/cart:80");
        assert_eq!(named(Some("web")), "Service/shop/cart:80 for clients in web");
        let gateway = GatewayKey { namespace: "edge".into(), name: "public".into() };
        assert_eq!(parent(&Parent::Listener(ListenerKey::new(gateway, "https"))), "Gateway/edge/public:https");
    }
}
