//! Statuses as values; whoever writes them adds `lastTransitionTime` and keeps other controllers' entries.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ObjectRef;
use super::gateway::GatewayStatus;
use super::listener_set::ListenerSetStatus;
use super::policy::TargetRef;
use super::route::ParentReference;

/// What we write as `controllerName`, and answer to in a GatewayClass.
pub const CONTROLLER_NAME: &str = "weftmesh.io/gateway-controller";

/// Most bytes of a condition's message: the API takes as many characters (`metav1.Condition`).
const MAX_MESSAGE: usize = 32 << 10;
/// What stands for the rest of one that is longer.
const CUT: &str = "...";

/// The type of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// The object is understood and in force.
    Accepted,
    /// All references were found and permitted.
    ResolvedRefs,
    /// Some rules of the route are invalid; present only when true.
    PartiallyInvalid,
    /// A part of the policy cannot be evaluated and denies instead; present only when true.
    PartiallyEnforced,
    /// Every node does what the object says; present only when false: nodes refuse what was made of it.
    #[serde(rename = "weftmesh.io/Programmed")]
    Programmed,
    /// The listener can't be told from another one.
    Conflicted,
    /// The Gateway or the listener is served.
    #[serde(rename = "Programmed")]
    GatewayProgrammed,
    /// Another listener's TLS is for some of the same names; present only when true.
    #[serde(rename = "OverlappingTLSConfig")]
    OverlappingTlsConfig,
    /// Clients without a valid certificate are let through where one is asked for; present only when true.
    InsecureFrontendValidationMode,
}

/// A condition; its `observedGeneration` is that of the [`StatusUpdate`] around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// `True` or `False`.
    pub status: bool,
    /// One word, as the Gateway API defines it.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Condition {
    /// A condition. Of a message that is longer than the API takes, which would cost the object its whole status, the start is
    /// kept.
    pub fn new(kind: ConditionType, status: bool, reason: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE - CUT.len()));
            message.push_str(CUT);
        }
        Self { kind, status, reason: reason.into(), message }
    }

    /// The condition as the API has it. It keeps the `lastTransitionTime` it has among those of `before` unless its
    /// status is another; `now` is in RFC 3339.
    pub fn to_json(&self, generation: i64, before: &[Value], now: &str) -> Value {
        let status = if self.status { "True" } else { "False" };
        let is_same = |o: &&Value| o.get("type") == Some(&json!(self.kind)) && o.get("status") == Some(&json!(status));
        let since = before.iter().find(is_same).and_then(|o| o.get("lastTransitionTime")?.as_str());
        json!({
            "type": self.kind,
            "status": status,
            "observedGeneration": generation,
            "lastTransitionTime": since.unwrap_or(now),
            "reason": self.reason,
            "message": self.message,
        })
    }
}

/// What one parent of a route thinks of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The reference as the route has it.
    pub parent_ref: ParentReference,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// What became of one target of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The target; for a policy without one, the namespace (or, in the root namespace, the mesh).
    pub ancestor_ref: TargetRef,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// The part of an object's status that is ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObjectStatus {
    /// All `parents` entries of our controller name.
    Parents(Vec<RouteParentStatus>),
    /// All `ancestors` entries of our controller name.
    Ancestors(Vec<PolicyAncestorStatus>),
    /// All `ancestors` entries of our controller name, of a policy of the Gateway API: its ancestors are Gateways, or what it
    /// is for.
    GatewayAncestors(Vec<RouteParentStatus>),
    /// All of it, of a Gateway.
    Gateway(GatewayStatus),
    /// All of it, of a ListenerSet.
    ListenerSet(ListenerSetStatus),
}

/// A status that differs from the one reported before.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusUpdate {
    /// Whose.
    pub object: ObjectRef,
    /// `metadata.generation` that was looked at.
    pub generation: i64,
    /// The status.
    pub status: ObjectStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_never_longer_than_the_api_takes() {
        let message = |text: &str| Condition::new(ConditionType::Accepted, false, "Invalid", text).message;
        let longest = "x".repeat(MAX_MESSAGE);
        assert_eq!(message(&longest), longest);
        for text in ["x".repeat(MAX_MESSAGE + 1), "\u{e9}".repeat(MAX_MESSAGE)] {
            let cut = message(&text);
            let kept = cut.strip_suffix(CUT).unwrap();
            assert!(text.starts_with(kept) && cut.len() <= MAX_MESSAGE && cut.len() > MAX_MESSAGE - 8, "{}", cut.len());
        }
    }
}
