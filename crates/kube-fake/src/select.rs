//! What of an object is asked for or changed.

use serde_json::{Value, json};

pub(crate) fn selected(object: &Value, labels: Option<&str>, fields: Option<&str>) -> bool {
    let label = |term: &str| match term.split_once('=') {
        Some((key, value)) => object["metadata"]["labels"][key] == json!(value.trim_start_matches('=')),
        None => object["metadata"]["labels"][term].is_string(),
    };
    let field = |term: &str| match term.split_once('=') {
        Some((path, value)) => {
            let found = path.trim_end_matches('!').split('.').fold(object, |at, step| &at[step]);
            (found.as_str().unwrap_or_default() == value.trim_start_matches('=')) != path.ends_with('!')
        }
        None => true,
    };
    labels.into_iter().flat_map(|s| s.split(',')).filter(|t| !t.is_empty()).all(label)
        && fields.into_iter().flat_map(|s| s.split(',')).filter(|t| !t.is_empty()).all(field)
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().expect("an object").remove(key)),
            _ => merge(&mut target[key], value),
        }
    }
}
