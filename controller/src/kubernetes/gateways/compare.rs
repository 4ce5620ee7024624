//! Whether an object that is there is what is wanted. Pure.

use serde_json::Value;

use super::quantity::Quantity;

/// Where a value stands, as far as that says how values are compared.
#[derive(Clone, Copy)]
enum Place {
    /// Anywhere.
    Any,
    /// `resources` of a container.
    Resources,
    /// `requests` or `limits` of these: each value is a quantity.
    Amounts,
}

impl Place {
    fn below(self, field: &str) -> Self {
        match (self, field) {
            (Self::Any, "resources") => Self::Resources,
            (Self::Resources, "requests" | "limits") => Self::Amounts,
            _ => Self::Any,
        }
    }
}

/// Whether an object has everything that is wanted of it; it may have more, which others give it.
pub fn holds(live: &Value, wanted: &Value) -> bool {
    holds_at(Place::Any, live, wanted)
}

fn holds_at(place: Place, live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(wanted)) => {
            let has = |(field, value): (&String, &Value)| match (live.get(field), place) {
                // The API server writes them in its own way.
                (Some(live), Place::Amounts) => holds_at(Place::Any, live, value) || is_same_amount(live, value),
                (Some(live), _) => holds_at(place.below(field), live, value),
                (None, _) => is_empty(value),
            };
            wanted.iter().all(has)
        }
        (Value::Array(live), Value::Array(wanted)) => {
            wanted.iter().all(|it| live.iter().any(|one| holds_at(Place::Any, one, it)))
        }
        (live, wanted) => live == wanted,
    }
}

fn is_same_amount(live: &Value, wanted: &Value) -> bool {
    Quantity::of(wanted).is_some_and(|wanted| Quantity::of(live) == Some(wanted))
}

/// What is empty need not be kept. `false` and 0 say something.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Array(all) => all.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_may_have_more_than_is_wanted_of_it() {
        for (live, wanted, is_held) in [
            (json!({ "a": 1, "b": 2 }), json!({ "a": 1 }), true),
            (json!({ "a": 1 }), json!({ "a": 1, "b": 2 }), false),
            (json!({ "a": 1 }), json!({ "a": 2 }), false),
            (json!({ "l": [{ "n": 1, "x": 0 }, { "n": 2 }] }), json!({ "l": [{ "n": 2 }, { "n": 1 }] }), true),
            (json!({ "l": [{ "n": 1 }] }), json!({ "l": [{ "n": 2 }] }), false),
            (json!({}), json!({ "labels": {}, "nothing": null, "list": [], "text": "" }), true),
            (json!({}), json!({ "list": [1] }), false),
            (json!({}), json!({ "on": false }), false),
            (json!({ "text": "a" }), json!({ "text": "" }), false),
        ] {
            assert_eq!(holds(&live, &wanted), is_held, "{live} {wanted}");
        }
    }

    /// Else a Deployment would be applied again with each change of its status.
    #[test]
    fn amounts_are_compared_as_such_where_they_are_amounts() {
        let pod = |resources: Value| json!({ "spec": { "containers": [{ "name": "a", "resources": resources }] } });
        let live = json!({ "requests": { "cpu": "1", "memory": "1Gi" }, "limits": { "memory": "2Gi" } });
        for (wanted, is_held) in [
            (json!({ "requests": { "cpu": "1000m", "memory": "1024Mi" }, "limits": { "memory": "2048Mi" } }), true),
            (json!({ "requests": { "cpu": 1 } }), true),
            (json!({ "requests": { "cpu": "1.001" } }), false),
            (json!({ "requests": { "memory": "1G" } }), false),
            (json!({ "limits": { "cpu": "1" } }), false),
            (json!({ "limits": { "memory": "much" } }), false),
        ] {
            assert_eq!(holds(&pod(live.clone()), &pod(wanted.clone())), is_held, "{wanted}");
        }
        // An annotation isn't one, nor is a label called like that.
        let live = json!({ "annotations": { "cpu": "1" }, "labels": { "resources": "1" }, "limits": { "cpu": "1" } });
        for wanted in [
            json!({ "annotations": { "cpu": "1000m" } }),
            json!({ "labels": { "resources": "1000m" } }),
            json!({ "limits": { "cpu": "1000m" } }),
        ] {
            assert!(!holds(&live, &wanted), "{wanted}");
        }
    }
}
