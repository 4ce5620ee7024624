//! What the status of an object is to be.

use serde_json::{Value, json};
use weft_k8s::object::{CONTROLLER_NAME, Condition, ConditionType, Object, ObjectStatus};
use weft_k8s::translate::Problem;
use weft_k8s::translate::gateway::GATEWAY_FEATURES;

/// The controller name of the `XMesh` that is ours.
pub const MESH_CONTROLLER_NAME: &str = "weftmesh.io/mesh-controller";

/// The features of the mesh that are there, by name, as the Gateway API wants them sorted. Besides those of the mesh
/// they are the ones of routes that its mesh tests ask for.
pub const MESH_FEATURES: [&str; 17] = [
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// What the status of an object is to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired {
    /// Entries of ours in a list that others write to, too.
    Entries(ObjectStatus),
    /// One condition, and the names of what is supported, if any are claimed.
    Condition(Condition, &'static [&'static str]),
}

impl Desired {
    /// For a GatewayClass, with what is wrong with its parameters and whether Gateways are served; `None` if it is another
    /// controller's.
    pub fn of_class(spec: &Value, wrong: Option<&Problem>, serves: bool) -> Option<Self> {
        if spec.get("controllerName").and_then(Value::as_str) != Some(CONTROLLER_NAME) {
            return None;
        }
        let condition = match (wrong, serves) {
            (Some(problem), _) => accepted(false, problem.reason.as_str(), &problem.to_string()),
            (None, true) => accepted(true, "Accepted", "Served by Weft"),
            (None, false) => {
                let message = "Known to Weft. This installation serves routes of Services; it was not given an image for Gateways";
                accepted(true, "Accepted", message)
            }
        };
        let features: &'static [_] = if serves { &GATEWAY_FEATURES } else { &[] };
        Some(Self::Condition(condition, features))
    }

    /// For an XMesh; `None` if it is another controller's.
    pub fn of_mesh(spec: &Value) -> Option<Self> {
        if spec.get("controllerName").and_then(Value::as_str) != Some(MESH_CONTROLLER_NAME) {
            return None;
        }
        let condition = if spec.get("parametersRef").is_some_and(|p| !p.is_null()) {
            let message = "spec.parametersRef: no kind of parameters is supported; remove it";
            accepted(false, "InvalidParameters", message)
        } else {
            accepted(true, "Accepted", "Served by Weft")
        };
        Some(Self::Condition(condition, &MESH_FEATURES))
    }

    /// For a route or a policy. What is odd about a route is told by the condition that says whether it is in force; a
    /// policy's own conditions tell it, because it denies then.
    pub fn entries(mut status: ObjectStatus, odd: Option<&str>) -> Self {
        let conditions: Vec<&mut Condition> = match &mut status {
            ObjectStatus::Parents(parents) => parents.iter_mut().flat_map(|parent| &mut parent.conditions).collect(),
            ObjectStatus::Gateway(gateway) => gateway.conditions.iter_mut().collect(),
            ObjectStatus::ListenerSet(set) => set.conditions.iter_mut().collect(),
            ObjectStatus::Ancestors(_) | ObjectStatus::GatewayAncestors(_) => Vec::new(),
        };
        for condition in conditions.into_iter().filter(|condition| condition.kind == ConditionType::Accepted) {
            odd.into_iter().for_each(|odd| condition.message.extend(["; ", odd]));
        }
        Self::Entries(status)
    }

    /// The fields of `status` to be written over `current`, or `None` if it is as it should be. `now` in RFC 3339.
    pub fn merge(&self, generation: i64, current: Option<&Value>, now: &str) -> Option<Value> {
        match self {
            Self::Entries(status) => status.merge(generation, current, now),
            Self::Condition(condition, features) => merge_condition(condition, features, generation, (current, now)),
        }
    }

    /// What is refused, as reason and message of an Event.
    pub fn refusals(&self) -> Vec<(String, String)> {
        let conditions: Vec<&Condition> = match self {
            Self::Entries(ObjectStatus::Parents(parents)) => parents.iter().flat_map(|p| &p.conditions).collect(),
            Self::Entries(ObjectStatus::Ancestors(all)) => all.iter().flat_map(|a| &a.conditions).collect(),
            Self::Entries(ObjectStatus::GatewayAncestors(all)) => all.iter().flat_map(|a| &a.conditions).collect(),
            Self::Entries(ObjectStatus::ListenerSet(set)) => {
                let of_listeners = set.listeners.iter().flat_map(|listener| &listener.conditions);
                set.conditions.iter().chain(of_listeners).collect()
            }
            Self::Entries(ObjectStatus::Gateway(gateway)) => {
                let of_listeners = gateway.listeners.iter().flat_map(|listener| &listener.conditions);
                gateway.conditions.iter().chain(of_listeners).collect()
            }
            Self::Condition(condition, _) => vec![condition],
        };
        let bad = |c: &&&Condition| match c.kind {
            ConditionType::Accepted | ConditionType::ResolvedRefs => !c.status,
            ConditionType::PartiallyInvalid | ConditionType::PartiallyEnforced | ConditionType::Conflicted => c.status,
            // Said by the replica that the node told.
            ConditionType::Programmed | ConditionType::GatewayProgrammed => false,
            // Served all the same.
            ConditionType::OverlappingTlsConfig | ConditionType::InsecureFrontendValidationMode => false,
        };
        let mut found: Vec<_> = conditions.iter().filter(bad).map(|c| (c.reason.clone(), c.message.clone())).collect();
        found.sort();
        found.dedup();
        found
    }
}

fn accepted(status: bool, reason: &str, message: &str) -> Condition {
    Condition::new(ConditionType::Accepted, status, reason, message)
}

fn merge_condition(
    condition: &Condition,
    features: &[&str],
    generation: i64,
    (current, now): (Option<&Value>, &str),
) -> Option<Value> {
    let list = |field: &str| current.and_then(|c| c.get(field)).and_then(Value::as_array).cloned();
    let before = list("conditions").unwrap_or_default();
    let wanted = condition.to_json(generation, &before, now);
    let mut after = before.clone();
    match after.iter_mut().find(|c| c.get("type") == wanted.get("type")) {
        Some(place) => *place = wanted,
        None => after.push(wanted),
    }
    let names: Vec<Value> = features.iter().map(|name| json!({ "name": name })).collect();
    let claimed = list("supportedFeatures").unwrap_or_default();
    if after == before && (names.is_empty() || claimed == names) {
        return None;
    }
    let mut status = json!({ "conditions": after });
    if let Some(fields) = status.as_object_mut().filter(|_| !names.is_empty()) {
        fields.insert("supportedFeatures".into(), Value::Array(names));
    }
    Some(status)
}

/// Whether a status says of a newer generation what it said of an older one: nothing but `observedGeneration` differs.
pub fn confirms(wanted: &Value, current: &Value) -> bool {
    match (wanted, current) {
        (Value::Object(wanted), Value::Object(current)) => {
            let same = |(name, value): (&String, &Value)| {
                current.get(name).is_some_and(|before| name == "observedGeneration" || confirms(value, before))
            };
            wanted.len() == current.len() && wanted.iter().all(same)
        }
        (Value::Array(wanted), Value::Array(current)) => {
            wanted.len() == current.len()
                && wanted.iter().zip(current).all(|(wanted, current)| confirms(wanted, current))
        }
        _ => wanted == current,
    }
}

/// The parts of a status that others write to as well, as they are in the cluster.
pub fn entries(object: &Object) -> Option<Value> {
    let routes = |status: Option<&weft_k8s::object::route::RouteStatus>| json!({ "parents": status.map(|s| s.parents.as_slice()).unwrap_or_default() });
    let policies = |status: Option<&weft_k8s::object::policy::PolicyStatus>| json!({ "ancestors": status.map(|s| s.ancestors.as_slice()).unwrap_or_default() });
    Some(match object {
        Object::HttpRoute(it) => routes(it.status.as_ref()),
        Object::GrpcRoute(it) => routes(it.status.as_ref()),
        Object::TlsRoute(it) => routes(it.status.as_ref()),
        Object::TcpRoute(it) => routes(it.status.as_ref()),
        Object::UdpRoute(it) => routes(it.status.as_ref()),
        Object::XBackend(it) => routes(it.status.as_ref()),
        Object::MeshPolicy(it) => policies(it.status.as_ref()),
        Object::TelemetryPolicy(it) => policies(it.status.as_ref()),
        Object::AuthorizationPolicy(it) => policies(it.status.as_ref()),
        Object::BackendTrafficPolicy(it) => policies(it.status.as_ref()),
        Object::Gateway(_) | Object::ListenerSet(_) | Object::BackendTlsPolicy(_) => {
            object.to_json().get("status").cloned().unwrap_or_default()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";

    #[test]
    fn a_class_of_ours_is_accepted_and_claims_nothing_where_gateways_are_not_served() {
        assert_eq!(Desired::of_class(&json!({ "controllerName": "example.com/other" }), None, false), None);
        let class = Desired::of_class(&json!({ "controllerName": CONTROLLER_NAME }), None, false).unwrap();
        let pending = json!({ "conditions": [
            { "type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z" },
            { "type": "SupportedVersion", "status": "True" },
        ] });
        let status = class.merge(3, Some(&pending), NOW).unwrap();
        let first = &status["conditions"][0];
        assert_eq!((&first["status"], &first["observedGeneration"]), (&json!("True"), &json!(3)));
        assert_eq!(first["lastTransitionTime"], NOW);
        assert_eq!(status["conditions"][1], pending["conditions"][1]);
        assert!(status.get("supportedFeatures").is_none());
        assert_eq!(class.merge(3, Some(&status), "later"), None);
        assert!(class.merge(4, Some(&status), "later").is_some(), "the generation is part of it");
        assert!(class.refusals().is_empty());
    }

    #[test]
    fn what_is_said_again_of_a_newer_generation_confirms() {
        let condition = |kind: &str, status: &str, generation: i64| json!({ "type": kind, "status": status, "reason": "R", "observedGeneration": generation, "lastTransitionTime": NOW });
        let of =
            |conditions: &[Value]| json!({ "parents": [{ "parentRef": { "name": "web" }, "conditions": conditions }] });
        let before = of(&[condition("Accepted", "True", 1), condition("ResolvedRefs", "True", 1)]);
        for (after, expected) in [
            (of(&[condition("Accepted", "True", 2), condition("ResolvedRefs", "True", 2)]), true),
            (of(&[condition("Accepted", "True", 2), condition("ResolvedRefs", "False", 2)]), false),
            (of(&[condition("Accepted", "True", 2)]), false),
            (json!({ "parents": [] }), false),
        ] {
            assert_eq!(confirms(&after, &before), expected, "{after}");
            assert_eq!(confirms(&before, &after), expected, "{after}");
        }
        assert!(!confirms(&before, &Value::Null), "the first that is said");
        // Nobody wrote of which generation the older was.
        let mut bare = of(&[condition("Accepted", "True", 1)]);
        let fields = bare["parents"][0]["conditions"][0].as_object_mut().unwrap();
        fields.remove("observedGeneration");
        fields.insert("message".to_owned(), json!("another's"));
        assert!(!confirms(&of(&[condition("Accepted", "True", 1)]), &bare));
    }

    #[test]
    fn a_class_tells_what_gateways_can_do_and_which_parameters_are_missing() {
        let spec = json!({ "controllerName": CONTROLLER_NAME });
        let class = Desired::of_class(&spec, None, true).unwrap();
        let status = class.merge(1, None, NOW).unwrap();
        assert_eq!(status["supportedFeatures"].as_array().unwrap().len(), GATEWAY_FEATURES.len());
        assert_eq!(class.merge(1, Some(&status), "later"), None);
        let reason = weft_k8s::translate::Reason::InvalidParameters;
        let wrong = Problem::new("spec.parametersRef.name", reason, "does not exist", "create it");
        let refused = Desired::of_class(&spec, Some(&wrong), true).unwrap().merge(1, Some(&status), NOW).unwrap();
        let condition = &refused["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("InvalidParameters")));
    }

    #[test]
    fn a_mesh_of_ours_tells_its_features_and_parameters_are_refused() {
        assert!(MESH_FEATURES.is_sorted());
        let spec = json!({ "controllerName": MESH_CONTROLLER_NAME });
        let mesh = Desired::of_mesh(&spec).unwrap();
        let status = mesh.merge(1, None, NOW).unwrap();
        assert_eq!(status["supportedFeatures"].as_array().unwrap().len(), MESH_FEATURES.len());
        assert_eq!(mesh.merge(1, Some(&status), "later"), None);
        let spec = json!({ "controllerName": MESH_CONTROLLER_NAME, "parametersRef": { "name": "x" } });
        let refused = Desired::of_mesh(&spec).unwrap();
        assert_eq!(refused.refusals()[0].0, "InvalidParameters");
        let before = status["conditions"][0]["lastTransitionTime"].clone();
        let after = refused.merge(1, Some(&status), "2027-01-01T00:00:00Z").unwrap();
        assert_ne!(after["conditions"][0]["lastTransitionTime"], before);
    }
}
