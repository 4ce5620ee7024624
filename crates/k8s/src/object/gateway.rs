//! The status of a Gateway as a value.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_core::ids::RouteKind;

use super::{Condition, GATEWAY_GROUP};

/// `status` of a Gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Where clients reach it.
    pub addresses: Vec<IpAddr>,
    /// What is to be said of the whole.
    pub conditions: Vec<Condition>,
    /// One for each listener of the spec, in its order.
    pub listeners: Vec<ListenerStatus>,
}

/// `status.listeners[]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The kinds of route that it takes.
    pub supported_kinds: Vec<RouteKind>,
    /// How many routes are attached and accepted.
    pub attached_routes: usize,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl GatewayStatus {
    /// As the API has it. Conditions keep the `lastTransitionTime` that they have in `before` unless their status is
    /// another; `now` is in RFC 3339.
    pub fn to_json(&self, generation: i64, before: Option<&Value>, now: &str) -> Value {
        let json = |conditions: &[Condition], old: &[Value]| -> Vec<Value> {
            conditions.iter().map(|c| c.to_json(generation, old, now)).collect()
        };
        let listeners = self.listeners.iter().map(|listener| {
            let old = list(before, "listeners").iter().find(|it| it.get("name") == Some(&json!(listener.name)));
            let kinds = listener.supported_kinds.iter();
            let kinds: Vec<_> = kinds.map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind.as_str() })).collect();
            json!({
                "name": listener.name,
                "supportedKinds": kinds,
                "attachedRoutes": listener.attached_routes,
                "conditions": json(&listener.conditions, list(old, "conditions")),
            })
        });
        let addresses = self.addresses.iter().map(|ip| json!({ "type": "IPAddress", "value": ip }));
        json!({
            "addresses": addresses.collect::<Vec<_>>(),
            "conditions": json(&self.conditions, list(before, "conditions")),
            "listeners": listeners.collect::<Vec<_>>(),
        })
    }

    /// The fields of `status` that are ours, or `None` if nothing is to be changed. Conditions of other types stay.
    pub fn merge(&self, generation: i64, current: Option<&Value>, now: &str) -> Option<Value> {
        let mut wanted = self.to_json(generation, current, now);
        let ours = |it: &&Value| self.conditions.iter().any(|c| it.get("type") == Some(&json!(c.kind)));
        let foreign: Vec<_> = list(current, "conditions").iter().filter(|it| !ours(it)).cloned().collect();
        if let Some(conditions) = wanted.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.extend(foreign);
        }
        let same = |field: &str| current.and_then(|it| it.get(field)) == wanted.get(field);
        let is_same = ["addresses", "conditions", "listeners"].into_iter().all(same);
        (!is_same).then_some(wanted)
    }
}

fn list<'a>(of: Option<&'a Value>, field: &str) -> &'a [Value] {
    of.and_then(|it| it.get(field)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ConditionType;

    const NOW: &str = "2026-11-21T12:00:00Z";
    const THEN: &str = "2026-01-01T00:00:00Z";

    fn status(accepted: bool, attached_routes: usize) -> GatewayStatus {
        let condition = |status| Condition::new(ConditionType::Accepted, status, "Accepted", "");
        GatewayStatus {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            conditions: vec![condition(true)],
            listeners: vec![ListenerStatus {
                name: "http".into(),
                supported_kinds: vec![RouteKind::Http],
                attached_routes,
                conditions: vec![condition(accepted)],
            }],
        }
    }

    #[test]
    fn times_change_with_the_status_and_conditions_of_others_stay() {
        let mut first = status(true, 0).merge(1, None, THEN).unwrap();
        assert_eq!(first["addresses"][0], json!({ "type": "IPAddress", "value": "192.0.2.1" }));
        assert_eq!(first["listeners"][0]["supportedKinds"][0]["kind"], "HTTPRoute");
        let foreign = json!({ "type": "example.com/Foreign", "status": "True" });
        first["conditions"].as_array_mut().unwrap().push(foreign.clone());
        assert_eq!(status(true, 0).merge(1, Some(&first), NOW), None);
        let next = status(false, 1).merge(2, Some(&first), NOW).unwrap();
        assert_eq!(next["conditions"][1], foreign);
        let (gateway, listener) = (&next["conditions"][0], &next["listeners"][0]["conditions"][0]);
        assert_eq!((&gateway["lastTransitionTime"], &gateway["observedGeneration"]), (&json!(THEN), &json!(2)));
        assert_eq!((&listener["lastTransitionTime"], &listener["status"]), (&json!(NOW), &json!("False")));
        assert_eq!(next["listeners"][0]["attachedRoutes"], 1);
    }
}
