//! Whom a rule is for: a Gateway gets what is attached to its listeners, the mesh what is attached to Services.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::change::Resource;
use crate::ids::{GatewayKey, GatewayRuleKey};
use crate::route::{Parent, RouteRule};

/// One rule of a route as one Gateway has it.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayRule {
    /// The Gateway.
    pub gateway: GatewayKey,
    /// The rule; its parents are listeners of the Gateway.
    pub rule: Arc<RouteRule>,
}

impl GatewayRule {
    /// Its key.
    pub fn key(&self) -> GatewayRuleKey {
        GatewayRuleKey { gateway: self.gateway.clone(), rule: self.rule.key().clone() }
    }
}

/// What a rule becomes: one resource for the mesh, if it is attached to a Service, and one for each Gateway.
pub fn by_scope(rule: RouteRule) -> Vec<Resource> {
    let mut services = Vec::new();
    let mut gateways: BTreeMap<GatewayKey, Vec<Parent>> = BTreeMap::new();
    for parent in rule.parents() {
        match parent {
            Parent::Service { .. } => services.push(parent.clone()),
            Parent::Listener(listener) => {
                gateways.entry(listener.gateway.clone()).or_default().push(parent.clone());
            }
        }
    }
    let mut all = Vec::with_capacity(gateways.len() + 1);
    if gateways.is_empty() {
        if !services.is_empty() {
            all.push(Resource::Rule(Arc::new(rule)));
        }
        return all;
    }
    if !services.is_empty() {
        all.push(Resource::Rule(Arc::new(rule.attached_to(services))));
    }
    all.extend(gateways.into_iter().map(|(gateway, parents)| {
        Resource::GatewayRule(Arc::new(GatewayRule { gateway, rule: Arc::new(rule.attached_to(parents)) }))
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ResourceKey;
    use crate::ids::{ListenerKey, ListenerSetKey, Port, RouteKey, RouteKind, RuleKey, ServiceKey, ServicePortKey};
    use crate::route::{Created, L4Rule};

    fn rule(parents: Vec<Parent>) -> RouteRule {
        let route = RouteKey { kind: RouteKind::Tcp, namespace: "ns".into(), name: "r".into() };
        RouteRule::L4(L4Rule {
            key: RuleKey { route, index: 0 },
            name: None,
            created: Created::default(),
            parents,
            hostnames: Vec::new(),
            backends: Vec::new(),
        })
    }

    fn service() -> Parent {
        let port = ServicePortKey { service: ServiceKey::new("ns", "s"), port: Port::new(80).unwrap() };
        Parent::Service { port, consumer: None }
    }

    fn listener(gateway: &str, name: &str) -> Parent {
        Parent::Listener(ListenerKey::new(GatewayKey::new("ns", gateway), name))
    }

    #[test]
    fn each_gateway_gets_what_is_attached_to_it_and_nobody_what_is_not() {
        let gateway = GatewayKey::new("ns", "a");
        let of_set = Parent::Listener(ListenerKey::of_set(gateway, ListenerSetKey::new("other", "set"), "l"));
        let all = by_scope(rule(vec![listener("b", "x"), service(), listener("a", "y"), of_set.clone()]));
        let told: Vec<_> = all
            .iter()
            .map(|resource| match resource {
                Resource::Rule(rule) => (None, rule.parents().to_vec()),
                Resource::GatewayRule(it) => (Some(it.gateway.name.as_str()), it.rule.parents().to_vec()),
                other => panic!("{other:?}"),
            })
            .collect();
        let want = vec![
            (None, vec![service()]),
            (Some("a"), vec![listener("a", "y"), of_set]),
            (Some("b"), vec![listener("b", "x")]),
        ];
        assert_eq!(told, want);
        let keys: Vec<_> = all.iter().map(Resource::key).collect();
        assert!(matches!(&keys[..], [ResourceKey::Rule(_), ResourceKey::GatewayRule(_), ResourceKey::GatewayRule(_)]));
    }

    #[test]
    fn what_is_attached_to_nothing_is_for_nobody() {
        assert_eq!(by_scope(rule(Vec::new())), []);
        assert!(matches!(&by_scope(rule(vec![service()]))[..], [Resource::Rule(_)]));
        assert!(matches!(&by_scope(rule(vec![listener("a", "x")]))[..], [Resource::GatewayRule(_)]));
    }
}
