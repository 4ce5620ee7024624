//! Statuses as the API has them: ours as JSON, and ours put among those of others.

use serde_json::{Value, json};

use super::{CONTROLLER_NAME, Condition, GATEWAY_GROUP, ObjectStatus};

/// Most entries that the Gateway API's schemas allow in the list.
const MAX_PARENTS: usize = 32;
const MAX_ANCESTORS: usize = 16;

impl ObjectStatus {
    /// The `status` of an object, as the API has it: our entries only. A condition keeps the
    /// `lastTransitionTime` it has in `before` unless its status is another; `now` is in RFC 3339.
    pub fn to_json(&self, generation: i64, before: Option<&Value>, now: &str) -> Value {
        match self {
            Self::Parents(parents) => {
                let entries = parents.iter().map(|p| {
                    let mut reference = json!(p.parent_ref);
                    if let Some(fields) = reference.as_object_mut() {
                        fields.entry("group").or_insert_with(|| json!(GATEWAY_GROUP));
                        fields.entry("kind").or_insert_with(|| json!("Gateway"));
                    }
                    entry("parentRef", reference, &p.conditions, (generation, find(before, "parents"), now))
                });
                json!({ "parents": entries.collect::<Vec<_>>() })
            }
            Self::Ancestors(ancestors) => {
                let entries = ancestors.iter().map(|a| {
                    let context = (generation, find(before, "ancestors"), now);
                    entry("ancestorRef", json!(a.ancestor_ref), &a.conditions, context)
                });
                json!({ "ancestors": entries.collect::<Vec<_>>() })
            }
            Self::GatewayAncestors(ancestors) => {
                let entries = ancestors.iter().map(|a| {
                    let context = (generation, find(before, "ancestors"), now);
                    entry("ancestorRef", json!(a.parent_ref), &a.conditions, context)
                });
                json!({ "ancestors": entries.collect::<Vec<_>>() })
            }
            Self::Gateway(status) => status.to_json(generation, before, now),
            Self::ListenerSet(status) => status.to_json(generation, before, now),
        }
    }

    /// The fields of `status` that are ours with our entries put in place, or `None` if nothing is to be changed:
    /// `{"parents": [...]}`, `{"ancestors": [...]}`, or all of a Gateway's or ListenerSet's. Entries of other controllers
    /// stay where and what they are; ours that no longer apply are gone. Where the list would get longer than the API
    /// allows, ours are left out, the last first.
    pub fn merge(&self, generation: i64, current: Option<&Value>, now: &str) -> Option<Value> {
        let (list, reference, most) = match self {
            Self::Parents(_) => ("parents", "parentRef", MAX_PARENTS),
            Self::Ancestors(_) | Self::GatewayAncestors(_) => ("ancestors", "ancestorRef", MAX_ANCESTORS),
            Self::Gateway(status) => return status.merge(generation, current, now),
            Self::ListenerSet(status) => return status.merge(generation, current, now),
        };
        let before = find(current, list);
        let mut wanted = self.to_json(generation, current, now);
        let mut ours: Vec<Value> = match wanted.get_mut(list).map(Value::take) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        let others = before.iter().filter(|e| !self.owns(e)).count();
        ours.truncate(most.saturating_sub(others));
        let mut after = Vec::with_capacity(others + ours.len());
        for entry in before {
            if !self.owns(entry) {
                after.push(entry.clone());
            } else if let Some(i) = ours.iter().position(|o| o.get(reference) == entry.get(reference)) {
                after.push(ours.remove(i));
            }
        }
        after.append(&mut ours);
        (after != before).then(|| json!({ list: after }))
    }

    /// Whether an entry of the list is one that we write.
    fn owns(&self, entry: &Value) -> bool {
        let of_us = entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME);
        match self {
            Self::Parents(_) | Self::Ancestors(_) | Self::GatewayAncestors(_) => of_us,
            Self::Gateway(_) | Self::ListenerSet(_) => false,
        }
    }
}

fn find<'a>(before: Option<&'a Value>, list: &str) -> &'a [Value] {
    before.and_then(|b| b.get(list)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn entry(
    name: &str,
    reference: Value,
    conditions: &[Condition],
    (generation, before, now): (i64, &[Value], &str),
) -> Value {
    let ours = |e: &&Value| e.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME);
    let old = before.iter().filter(ours).find(|e| e.get(name) == Some(&reference));
    let old = old.and_then(|o| o.get("conditions")).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let conditions = conditions.iter().map(|c| c.to_json(generation, old, now));
    let mut made = serde_json::Map::new();
    made.insert(name.to_owned(), reference);
    made.insert("controllerName".into(), json!(CONTROLLER_NAME));
    made.insert("conditions".into(), Value::Array(conditions.collect()));
    Value::Object(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::route::ParentReference;
    use crate::object::{ConditionType, RouteParentStatus};

    const NOW: &str = "2026-11-21T12:00:00Z";
    const THEN: &str = "2026-01-01T00:00:00Z";

    fn ours(names: &[(&str, bool)]) -> ObjectStatus {
        let entry = |(name, accepted): &(&str, bool)| RouteParentStatus {
            parent_ref: ParentReference {
                group: Some(String::new()),
                kind: Some("Service".into()),
                name: (*name).into(),
                ..ParentReference::default()
            },
            conditions: vec![Condition::new(ConditionType::Accepted, *accepted, "Accepted", "")],
        };
        ObjectStatus::Parents(names.iter().map(entry).collect())
    }

    fn of_another(name: &str) -> Value {
        json!({ "parentRef": { "kind": "Service", "name": name }, "controllerName": "example.com/other",
                "conditions": [{ "type": "Accepted", "status": "False", "note": "in words of its own" }] })
    }

    fn names(status: &Value) -> Vec<String> {
        let of = |e: &Value| format!("{} {}", e["controllerName"].as_str().unwrap(), e["parentRef"]["name"]);
        status["parents"].as_array().unwrap().iter().map(of).collect()
    }

    #[test]
    fn entries_of_others_stay_as_they_are_and_stale_ones_of_ours_go() {
        // A Gateway that was ours once.
        let gateway = json!({ "parentRef": { "kind": "Gateway", "name": "gw" }, "controllerName": CONTROLLER_NAME });
        let first = ours(&[("a", true), ("b", true)]).merge(1, None, THEN).unwrap();
        let mut entries = first["parents"].as_array().unwrap().clone();
        entries.insert(1, of_another("x"));
        let current = json!({ "parents": entries });
        assert_eq!(ours(&[("a", true), ("b", true)]).merge(1, Some(&current), NOW), None);

        entries.insert(0, gateway);
        let current = json!({ "parents": entries });
        let next = ours(&[("c", true), ("b", false)]).merge(1, Some(&current), NOW).unwrap();
        let us = |name: &str| format!("{CONTROLLER_NAME} {name:?}");
        assert_eq!(names(&next), ["example.com/other \"x\"".into(), us("b"), us("c")]);
        assert_eq!(next["parents"][0], of_another("x"));
        assert_eq!(ours(&[]).merge(1, Some(&json!({ "parents": [of_another("x")] })), NOW), None);
        assert_eq!(ours(&[]).merge(1, Some(&first), NOW), Some(json!({ "parents": [] })));
    }

    #[test]
    fn times_change_with_the_status_and_generations_are_kept_up_to_date() {
        let first = ours(&[("a", true), ("b", true)]).merge(1, None, THEN).unwrap();
        let next = ours(&[("a", true), ("b", false)]).merge(2, Some(&first), NOW).unwrap();
        let of = |i: usize, field: &str| next["parents"][i]["conditions"][0][field].clone();
        assert_eq!((of(0, "lastTransitionTime"), of(0, "observedGeneration")), (json!(THEN), json!(2)));
        assert_eq!((of(1, "lastTransitionTime"), of(1, "status")), (json!(NOW), json!("False")));
    }

    #[test]
    fn the_list_never_gets_longer_than_the_api_allows() {
        let foreign: Vec<_> = (0..31).map(|n| of_another(&n.to_string())).collect();
        let current = json!({ "parents": foreign });
        let next = ours(&[("a", true), ("b", true)]).merge(1, Some(&current), NOW).unwrap();
        assert_eq!(next["parents"].as_array().unwrap().len(), MAX_PARENTS);
        assert_eq!(names(&next).last().unwrap(), &format!("{CONTROLLER_NAME} \"a\""));
    }
}
