//! The status of a Gateway as a value.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_core::ids::RouteKind;

use super::{Condition, ConditionType, GATEWAY_GROUP};

/// `status` of a Gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Where clients reach it.
    pub addresses: Vec<GatewayAddress>,
    /// What is to be said of the whole.
    pub conditions: Vec<Condition>,
    /// One for each listener of the spec, in its order.
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets are attached and accepted.
    pub attached_listener_sets: usize,
}

/// `status.addresses[]`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GatewayAddress {
    /// `IPAddress`
    Ip(IpAddr),
    /// `Hostname`, of a load balancer that has a name.
    Hostname(String),
}

impl GatewayAddress {
    fn to_json(&self) -> Value {
        match self {
            Self::Ip(ip) => json!({ "type": "IPAddress", "value": ip }),
            Self::Hostname(name) => json!({ "type": "Hostname", "value": name }),
        }
    }
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
        let addresses = self.addresses.iter().map(GatewayAddress::to_json);
        let mut json = json!({
            "addresses": addresses.collect::<Vec<_>>(),
            "conditions": conditions_json(&self.conditions, generation, before, now),
            "listeners": listeners_json(&self.listeners, generation, before, now),
        });
        // Not every version of the API has the field: where it is of no use it is left out.
        let had = before.is_some_and(|it| it.get(ATTACHED_SETS).is_some());
        if let Some(fields) = json.as_object_mut().filter(|_| had || self.attached_listener_sets > 0) {
            fields.insert(ATTACHED_SETS.to_owned(), json!(self.attached_listener_sets));
        }
        json
    }

    /// The fields of `status` that are ours, or `None` if nothing is to be changed. Conditions of other types stay.
    pub fn merge(&self, generation: i64, current: Option<&Value>, now: &str) -> Option<Value> {
        let mut wanted = self.to_json(generation, current, now);
        if let Some(conditions) = wanted.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.extend(of_others(current));
        }
        let same = |field: &str| current.and_then(|it| it.get(field)) == wanted.get(field);
        let is_same = ["addresses", "conditions", "listeners", ATTACHED_SETS].into_iter().all(same);
        (!is_same).then_some(wanted)
    }
}

/// `status.attachedListenerSets`
const ATTACHED_SETS: &str = "attachedListenerSets";

/// The types of conditions that are ours, whether they are there now or not.
const OURS: [ConditionType; 5] = [
    ConditionType::Accepted,
    ConditionType::GatewayProgrammed,
    ConditionType::Programmed,
    ConditionType::ResolvedRefs,
    ConditionType::InsecureFrontendValidationMode,
];

/// The conditions of a status that others write.
pub(super) fn of_others(current: Option<&Value>) -> Vec<Value> {
    let ours = |it: &&Value| OURS.iter().any(|kind| it.get("type") == Some(&json!(kind)));
    list(current, "conditions").iter().filter(|it| !ours(it)).cloned().collect()
}

/// Conditions as the API has them, among those of `before`.
pub(super) fn conditions_json(
    conditions: &[Condition],
    generation: i64,
    before: Option<&Value>,
    now: &str,
) -> Vec<Value> {
    conditions.iter().map(|c| c.to_json(generation, list(before, "conditions"), now)).collect()
}

/// `status.listeners` as the API has it.
pub(super) fn listeners_json(
    listeners: &[ListenerStatus],
    generation: i64,
    before: Option<&Value>,
    now: &str,
) -> Vec<Value> {
    let each = listeners.iter().map(|listener| {
        let old = list(before, "listeners").iter().find(|it| it.get("name") == Some(&json!(listener.name)));
        let kinds = listener.supported_kinds.iter();
        let kinds: Vec<_> = kinds.map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind.as_str() })).collect();
        json!({
            "name": listener.name,
            "supportedKinds": kinds,
            "attachedRoutes": listener.attached_routes,
            "conditions": conditions_json(&listener.conditions, generation, old, now),
        })
    });
    each.collect()
}

fn list<'a>(of: Option<&'a Value>, field: &str) -> &'a [Value] {
    of.and_then(|it| it.get(field)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";
    const THEN: &str = "2026-01-01T00:00:00Z";

    fn status(accepted: bool, attached_routes: usize) -> GatewayStatus {
        let condition = |status| Condition::new(ConditionType::Accepted, status, "Accepted", "");
        GatewayStatus {
            addresses: vec![
                GatewayAddress::Ip("192.0.2.1".parse().unwrap()),
                GatewayAddress::Hostname("lb.example.com".into()),
            ],
            conditions: vec![condition(true)],
            listeners: vec![ListenerStatus {
                name: "http".into(),
                supported_kinds: vec![RouteKind::Http],
                attached_routes,
                conditions: vec![condition(accepted)],
            }],
            attached_listener_sets: 0,
        }
    }

    #[test]
    fn sets_are_counted_where_there_are_any_and_conditions_that_are_over_go() {
        let of = |sets, insecure: bool| {
            let mut status = GatewayStatus { attached_listener_sets: sets, ..status(true, 0) };
            let kind = ConditionType::InsecureFrontendValidationMode;
            let condition = Condition::new(kind, true, "ConfigurationChanged", "");
            status.conditions.extend(insecure.then_some(condition));
            status
        };
        let none = of(0, true).merge(1, None, THEN).unwrap();
        assert_eq!((none.get(ATTACHED_SETS), none["conditions"].as_array().unwrap().len()), (None, 2));
        let two = of(2, false).merge(1, Some(&none), NOW).unwrap();
        assert_eq!((&two[ATTACHED_SETS], two["conditions"].as_array().unwrap().len()), (&json!(2), 1));
        let gone = of(0, false).merge(1, Some(&two), NOW).unwrap();
        assert_eq!(gone[ATTACHED_SETS], 0);
        assert_eq!(of(0, false).merge(1, Some(&gone), NOW), None);
    }

    #[test]
    fn times_change_with_the_status_and_conditions_of_others_stay() {
        let mut first = status(true, 0).merge(1, None, THEN).unwrap();
        assert_eq!(first["addresses"][0], json!({ "type": "IPAddress", "value": "192.0.2.1" }));
        assert_eq!(first["addresses"][1], json!({ "type": "Hostname", "value": "lb.example.com" }));
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
