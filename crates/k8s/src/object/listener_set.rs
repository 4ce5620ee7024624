//! The status of a ListenerSet as a value.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Condition;
use super::gateway::{ListenerStatus, conditions_json, listeners_json, of_others};

/// `status` of a ListenerSet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetStatus {
    /// What is to be said of the whole.
    pub conditions: Vec<Condition>,
    /// One for each listener of the spec, in its order; none while it isn't attached.
    pub listeners: Vec<ListenerStatus>,
}

impl ListenerSetStatus {
    /// As the API has it; times are kept as in [`super::GatewayStatus::to_json`].
    pub fn to_json(&self, generation: i64, before: Option<&Value>, now: &str) -> Value {
        json!({
            "conditions": conditions_json(&self.conditions, generation, before, now),
            "listeners": listeners_json(&self.listeners, generation, before, now),
        })
    }

    /// The fields of `status` that are ours, or `None` if nothing is to be changed. Conditions of other types stay.
    pub fn merge(&self, generation: i64, current: Option<&Value>, now: &str) -> Option<Value> {
        let mut wanted = self.to_json(generation, current, now);
        if let Some(conditions) = wanted.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.extend(of_others(current));
        }
        let same = |field: &str| current.and_then(|it| it.get(field)) == wanted.get(field);
        (!["conditions", "listeners"].into_iter().all(same)).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use weft_core::ids::RouteKind;

    use super::*;
    use crate::object::ConditionType;

    const NOW: &str = "2026-11-21T12:00:00Z";
    const THEN: &str = "2026-01-01T00:00:00Z";

    fn status(accepted: bool) -> ListenerSetStatus {
        let accepted = Condition::new(ConditionType::Accepted, accepted, "Accepted", "");
        let listener = ListenerStatus {
            name: "l".into(),
            supported_kinds: vec![RouteKind::Tcp],
            attached_routes: 2,
            conditions: vec![accepted.clone()],
        };
        ListenerSetStatus { conditions: vec![accepted], listeners: vec![listener] }
    }

    #[test]
    fn it_is_written_when_it_differs_and_keeps_what_is_not_ours() {
        let mut first = status(true).merge(1, None, THEN).unwrap();
        assert_eq!(first["listeners"][0]["attachedRoutes"], 2);
        assert_eq!(first["listeners"][0]["supportedKinds"][0]["kind"], "TCPRoute");
        let foreign = json!({ "type": "example.com/Foreign", "status": "True" });
        first["conditions"].as_array_mut().unwrap().push(foreign.clone());
        assert_eq!(status(true).merge(1, Some(&first), NOW), None);
        let next = status(false).merge(2, Some(&first), NOW).unwrap();
        assert_eq!(next["conditions"][1], foreign);
        assert_eq!(next["conditions"][0]["observedGeneration"], 2);
        assert_eq!(next["listeners"][0]["conditions"][0]["lastTransitionTime"], NOW);
    }
}
