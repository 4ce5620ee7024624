//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Problem, suggestion};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether all pairs are there (`spec.selector` of a Service).
pub fn has_all(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether a selector matches; one that [`check`] refuses matches nothing.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.match_labels.as_ref().is_none_or(|wanted| has_all(wanted, labels))
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = labels.get(&e.key);
            let listed = || value.is_some_and(|v| e.values.iter().flatten().any(|w| w == v));
            match e.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a NetworkPolicy selects a pod of its namespace with these labels, for either direction. An empty selector selects
/// all of them, and so does one that isn't there.
pub fn under_network_policy(policy: &NetworkPolicy, labels: Option<&Labels>) -> bool {
    let none = Labels::new();
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    selector.is_none_or(|selector| matches(selector, labels.unwrap_or(&none)))
}

/// What is wrong with a selector.
pub fn check(field: &str, selector: &LabelSelector) -> Option<Problem> {
    let known = ["In", "NotIn", "Exists", "DoesNotExist"];
    selector.match_expressions.iter().flatten().enumerate().find_map(|(i, e)| {
        let field = format!("{field}.matchExpressions[{i}]");
        let values = e.values.iter().flatten().count();
        match (e.operator.as_str(), values) {
            ("In" | "NotIn", 0) => {
                Some(Problem::value(format!("{field}.values"), "is empty", "list at least one value"))
            }
            ("Exists" | "DoesNotExist", 1..) => {
                Some(Problem::value(format!("{field}.values"), "has no meaning with this operator", "remove it"))
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => None,
            (other, _) => Some(Problem::value(
                format!("{field}.operator"),
                format!("{other:?} is not an operator"),
                suggestion(other, &known),
            )),
        }
    })
}
