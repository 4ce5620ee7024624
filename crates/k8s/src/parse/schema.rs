//! The fields a type has at a path, from its JSON schema: only asked when a field is unknown.

use serde_json::Value;

use crate::object::Kind;

/// The names of the fields of the object at `path` (keys; indexes of lists as numbers).
pub(super) fn fields_at(kind: Kind, path: &[String]) -> Vec<String> {
    let root = kind.schema().to_value();
    let mut at = vec![&root];
    for step in path {
        at = at.into_iter().flat_map(|s| below(&root, s, step)).collect();
    }
    let mut names: Vec<String> =
        at.into_iter().flat_map(|s| alternatives(&root, s)).flat_map(properties).map(|(k, _)| k.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn below<'a>(root: &'a Value, schema: &'a Value, step: &str) -> Vec<&'a Value> {
    alternatives(root, schema)
        .into_iter()
        .filter_map(|s| match step.parse::<usize>() {
            Ok(_) => s.get("items"),
            Err(_) => s.get("properties").and_then(|p| p.get(step)).or_else(|| s.get("additionalProperties")),
        })
        .collect()
}

/// A schema with references followed, and what it is put together from.
fn alternatives<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut todo = vec![schema];
    // Schemas of Kubernetes types are not recursive but for JSONSchemaProps; the bound is for those.
    while let Some(schema) = todo.pop().filter(|_| found.len() < 32) {
        found.push(schema);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) {
            todo.extend(root.pointer(target));
        }
        for list in ["anyOf", "allOf", "oneOf"] {
            todo.extend(schema.get(list).and_then(Value::as_array).into_iter().flatten());
        }
    }
    found
}
