//! Whether a Gateway keeps to what its class allows it (`spec.limits` of the class's `GatewayParameters`).

use serde_json::Value;

use crate::object::{GatewayLimits, GatewayParametersSpec};
use crate::translate::{Problem, Reason};

/// What a Gateway asks for by itself.
pub(super) struct Asked<'a> {
    /// Its class.
    pub class: &'a str,
    /// Its own parameters, by namespace and name, if it names some.
    pub parameters: Option<(&'a str, &'a str, &'a GatewayParametersSpec)>,
    /// Whether it has labels and annotations in `spec.infrastructure`.
    pub labels: (bool, bool),
}

/// The first thing that goes further than the class allows.
pub(super) fn exceeded(asked: &Asked<'_>, limits: Option<&GatewayLimits>) -> Option<Problem> {
    let own = asked.parameters.filter(|(_, _, spec)| spec.limits.is_some()).map(|(namespace, name, _)| {
        let message = format!("GatewayParameters {namespace}/{name}: spec.limits is for those of a GatewayClass");
        problem(message, "remove it, or name others in the Gateway")
    });
    own.or_else(|| {
        let limits = limits?;
        numbers(asked, limits).or_else(|| kinds(asked, limits)).or_else(|| fields(asked, limits))
    })
}

fn numbers(asked: &Asked<'_>, limits: &GatewayLimits) -> Option<Problem> {
    let (most, (_, _, own)) = (limits.max_replicas?, asked.parameters?);
    let scaling = own.autoscaling.as_ref();
    let wanted = [
        ("replicas", own.replicas),
        ("autoscaling.minReplicas", scaling.and_then(|it| it.min_replicas)),
        ("autoscaling.maxReplicas", scaling.map(|it| it.max_replicas)),
    ];
    let (field, wanted) =
        wanted.into_iter().find_map(|(field, wanted)| Some((field, wanted.filter(|it| *it > most)?)))?;
    Some(beyond(asked, field, &wanted.to_string(), &format!("{most} at most (limits.maxReplicas)")))
}

fn kinds(asked: &Asked<'_>, limits: &GatewayLimits) -> Option<Problem> {
    let (allowed, (_, _, own)) = (limits.service_types.as_ref()?, asked.parameters?);
    let wanted = own.service.as_ref()?.kind.filter(|kind| !allowed.contains(kind))?;
    let allowed: Vec<_> = allowed.iter().map(|kind| kind.as_str()).collect();
    let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    Some(beyond(asked, "service.type", wanted.as_str(), &format!("{allowed} (limits.serviceTypes)")))
}

/// Whether a Gateway may set a field, as `service.type`.
pub(super) fn allows(limits: &GatewayLimits, field: &str) -> bool {
    limits.fields.as_ref().is_none_or(|allowed| allowed.iter().any(|it| it.covers(field)))
}

fn fields(asked: &Asked<'_>, limits: &GatewayLimits) -> Option<Problem> {
    let allowed = limits.fields.as_ref()?;
    let is_allowed = |field: &str| allows(limits, field);
    let list = || {
        let names: Vec<_> = allowed.iter().map(|it| it.name()).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        format!("class {} lets Gateways set {names} (limits.fields)", asked.class)
    };
    let (labels, annotations) = asked.labels;
    let infrastructure = [("infrastructure.labels", labels), ("infrastructure.annotations", annotations)];
    let of_gateway = infrastructure.into_iter().find(|(field, is_set)| *is_set && !is_allowed(field));
    if let Some((field, _)) = of_gateway {
        let field = format!("spec.{field}");
        let remedy = "remove it, or ask whoever keeps the GatewayClass";
        return Some(Problem::new(field, Reason::InvalidParameters, format!("is set, and {}", list()), remedy));
    }
    let (namespace, name, own) = asked.parameters?;
    let field = set(own).into_iter().find(|field| !is_allowed(field))?;
    let message = format!("GatewayParameters {namespace}/{name}: spec.{field} is set, and {}", list());
    Some(problem(message, "remove it, or ask whoever keeps the GatewayClass"))
}

/// The fields that are set, as `service.type`: of what is made of parts, the parts.
fn set(own: &GatewayParametersSpec) -> Vec<String> {
    let value = serde_json::to_value(own).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    let each = fields.flat_map(|(name, value)| match (name.as_str(), value) {
        ("service" | "podTemplate", Value::Object(parts)) => {
            parts.keys().map(|part| format!("{name}.{part}")).collect()
        }
        _ => vec![name.clone()],
    });
    each.collect()
}

fn beyond(asked: &Asked<'_>, field: &str, wanted: &str, allowed: &str) -> Problem {
    let (namespace, name) = asked.parameters.map_or(("", ""), |(namespace, name, _)| (namespace, name));
    let class = asked.class;
    let message =
        format!("GatewayParameters {namespace}/{name}: spec.{field} is {wanted}, and class {class} allows {allowed}");
    problem(message, "ask for what is allowed, or ask whoever keeps the GatewayClass")
}

fn problem(message: String, remedy: &str) -> Problem {
    Problem::new("spec.infrastructure.parametersRef", Reason::InvalidParameters, message, remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(limits: Value, own: Value, labels: (bool, bool)) -> String {
        let (limits, own) = (serde_json::from_value(limits).unwrap(), serde_json::from_value(own).unwrap());
        let asked = Asked { class: "weft", parameters: Some(("edge", "p", &own)), labels };
        exceeded(&asked, Some(&limits)).map_or_else(String::new, |problem| problem.to_string())
    }

    #[test]
    fn what_goes_further_than_the_class_allows_is_named_with_value_and_limit() {
        let none = (false, false);
        for (limits, own, expected) in [
            (json!({ "maxReplicas": 5 }), json!({ "replicas": 5 }), ""),
            (
                json!({ "maxReplicas": 5 }),
                json!({ "replicas": 6 }),
                "spec.replicas is 6, and class weft allows 5 at most",
            ),
            (json!({ "maxReplicas": 5 }), json!({ "autoscaling": { "maxReplicas": 5 } }), ""),
            (
                json!({ "maxReplicas": 5 }),
                json!({ "autoscaling": { "maxReplicas": 6 } }),
                "GatewayParameters edge/p: spec.autoscaling.maxReplicas is 6",
            ),
            (
                json!({ "maxReplicas": 5 }),
                json!({ "autoscaling": { "minReplicas": 7, "maxReplicas": 3 } }),
                "spec.autoscaling.minReplicas is 7",
            ),
            (json!({ "serviceTypes": ["ClusterIP"] }), json!({ "service": { "type": "ClusterIP" } }), ""),
            (json!({ "serviceTypes": ["ClusterIP"] }), json!({ "service": { "externalTrafficPolicy": "Local" } }), ""),
            (
                json!({ "serviceTypes": ["ClusterIP", "NodePort"] }),
                json!({ "service": { "type": "LoadBalancer" } }),
                "spec.service.type is LoadBalancer, and class weft allows ClusterIP, NodePort",
            ),
            (json!({ "serviceTypes": [] }), json!({ "service": { "type": "ClusterIP" } }), "allows none"),
            (
                json!({ "fields": ["replicas", "service.type"] }),
                json!({ "replicas": 3, "service": { "type": "NodePort" } }),
                "",
            ),
            (
                json!({ "fields": ["replicas", "service.type"] }),
                json!({ "service": { "annotations": { "a": "b" } } }),
                "spec.service.annotations is set, and class weft lets Gateways set replicas, service.type",
            ),
            (json!({ "fields": ["service"] }), json!({ "service": { "annotations": { "a": "b" } } }), ""),
            (
                json!({ "fields": [] }),
                json!({ "shutdown": {} }),
                "spec.shutdown is set, and class weft lets Gateways set nothing",
            ),
            (
                json!({ "fields": ["minReadySeconds", "podTemplate.topologySpreadConstraints"] }),
                json!({ "minReadySeconds": 5, "podTemplate": { "topologySpreadConstraints": [] } }),
                "",
            ),
            (
                json!({ "fields": ["minReadySeconds"] }),
                json!({ "podTemplate": { "priorityClassName": "system-cluster-critical" } }),
                "spec.podTemplate.priorityClassName is set, and class weft lets Gateways set minReadySeconds",
            ),
            (
                json!({ "fields": ["podTemplate.labels"] }),
                json!({ "podTemplate": { "imagePullSecrets": [{ "name": "a" }] } }),
                "spec.podTemplate.imagePullSecrets is set",
            ),
            (json!({ "fields": [] }), json!({}), ""),
            (json!({}), json!({ "replicas": 900, "service": { "type": "NodePort" } }), ""),
            (json!({}), json!({ "limits": {} }), "spec.limits is for those of a GatewayClass"),
        ] {
            let found = told(limits.clone(), own.clone(), none);
            assert_eq!(found.is_empty(), expected.is_empty(), "{limits} {own}: {found}");
            assert!(found.contains(expected), "{limits} {own}: {found}");
        }
    }

    /// Annotations of the Gateway are the Service's, too: a way around limits of the Service's own.
    #[test]
    fn labels_and_annotations_of_the_gateway_are_fields_like_others() {
        let limits = json!({ "fields": ["replicas", "infrastructure.labels"] });
        assert_eq!(told(limits.clone(), json!({}), (true, false)), "");
        let found = told(limits, json!({}), (true, true));
        assert!(found.starts_with("spec.infrastructure.annotations: is set"), "{found}");
        let limits = GatewayLimits { fields: Some(Vec::new()), ..GatewayLimits::default() };
        let asked = Asked { class: "weft", parameters: None, labels: (false, true) };
        assert!(exceeded(&asked, Some(&limits)).is_some() && exceeded(&asked, None).is_none());
    }
}
