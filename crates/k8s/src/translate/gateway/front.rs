//! What a Gateway's listeners go by of its parameters: who clients are, ids of requests, HTTP/3.
//!
//! While its parameters can't be had a Gateway is served on, and what is in front of it stays the same: it goes by what it said when
//! they last were in force, over what its class says now. What the class doesn't let Gateways say is the class's from the moment on
//! that it says so. Who doesn't know what it said believes nobody but whom the class believes.

use serde::{Deserialize, Serialize};
use weft_core::gateway::ClientAddress;

use super::client_address;
use super::limits::allows;
use crate::object::{GatewayLimits, GatewayParametersSpec};
use crate::translate::Problem;

/// The annotation of a Gateway's ServiceAccount that has the [`WentBy`] as JSON, so that a controller that starts while parameters
/// can't be had knows it, too. It counts on an object that is the Gateway's own, as far as the class lets the Gateway say it.
pub const WENT_BY: &str = "weftmesh.io/parameters-in-force";

/// What a Gateway's listeners went by while its parameters were in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WentBy {
    /// What the Gateway said by itself.
    own: GatewayParametersSpec,
    /// The same over what its class said.
    all: GatewayParametersSpec,
}

impl WentBy {
    /// From a Gateway's own parameters and the same over those of its class.
    pub(super) fn new(own: &GatewayParametersSpec, all: &GatewayParametersSpec) -> Self {
        Self { own: part(own), all: part(all) }
    }

    /// Reads what [`Self::to_json`] wrote; `None` of anything else.
    pub fn from_json(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        Some(Self::new(&read.own, &read.all))
    }

    /// It as JSON; `None` if there is nothing that anybody would have to know.
    pub fn to_json(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).ok())?
    }
}

/// What listeners go by.
pub(super) struct Front {
    /// Parameters; of no others are they made.
    pub(super) parameters: GatewayParametersSpec,
    /// Whose word counts for who clients are.
    pub(super) client_address: ClientAddress,
    /// What is wrong with the parameters.
    pub(super) wrong: Option<Problem>,
    /// What to remember for when they can't be had.
    pub(super) went_by: Option<WentBy>,
}

/// What of parameters listeners go by.
fn part(parameters: &GatewayParametersSpec) -> GatewayParametersSpec {
    GatewayParametersSpec {
        client_address: parameters.client_address.clone(),
        request_id: parameters.request_id,
        http3: parameters.http3,
        ..GatewayParametersSpec::default()
    }
}

/// Decides what listeners go by. `now`: what the parameters come to, or what is wrong with them; `before`: what is remembered;
/// `class`: what the Gateway's class says, if that can be had.
pub(super) fn decide(
    now: Result<WentBy, Problem>,
    before: Option<WentBy>,
    class: Option<&GatewayParametersSpec>,
) -> Front {
    let wrong = match now {
        Ok(now) => match client_address::of(&now.all) {
            (client_address, None) => {
                return Front { parameters: now.all.clone(), client_address, wrong: None, went_by: Some(now) };
            }
            (_, Some(problem)) => problem,
        },
        Err(problem) => problem,
    };
    let went_by = before.map(|before| kept(before, class));
    let parameters = went_by.as_ref().map_or_else(|| class.map(part).unwrap_or_default(), |it| it.all.clone());
    // Of what can't be read nobody is believed.
    let (client_address, _) = client_address::of(&parameters);
    Front { parameters, client_address, wrong: Some(wrong), went_by }
}

/// What a Gateway goes by from now on that went by `before`.
fn kept(before: WentBy, class: Option<&GatewayParametersSpec>) -> WentBy {
    let Some(class) = class else { return before };
    let own = permitted(&before.own, class.limits.as_ref());
    let all = part(&own.over(class));
    // Wrong is then what the class says: as before, unless something was taken away since.
    let is_wrong = client_address::of(&all).1.is_some();
    if is_wrong && own == before.own { before } else { WentBy { own, all } }
}

/// What of a Gateway's own parameters its class lets it say.
fn permitted(own: &GatewayParametersSpec, limits: Option<&GatewayLimits>) -> GatewayParametersSpec {
    let may = |field| limits.is_none_or(|limits| allows(limits, field));
    GatewayParametersSpec {
        client_address: own.client_address.clone().filter(|_| may("clientAddress")),
        request_id: own.request_id.filter(|_| may("requestId")),
        http3: own.http3.filter(|_| may("http3")),
        ..GatewayParametersSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::translate::Reason;

    fn spec(value: Value) -> GatewayParametersSpec {
        serde_json::from_value(value).unwrap()
    }

    fn hops(hops: i32) -> Value {
        json!({ "clientAddress": { "trustedHops": hops }, "requestId": { "inResponses": true } })
    }

    /// Who is believed while parameters are wrong: how many proxies, and whether answers carry ids.
    fn believed(before: Option<(Value, Value)>, class: Option<Value>) -> (Option<u8>, bool) {
        let before = before.map(|(own, all)| WentBy::new(&spec(own), &spec(all)));
        let wrong = Problem::new("f", Reason::InvalidParameters, "m", "r");
        let class = class.map(spec);
        let front = decide(Err(wrong), before.clone(), class.as_ref());
        assert_eq!((front.wrong.is_some(), front.went_by.is_some()), (true, before.is_some()));
        let in_answers = front.parameters.request_id.and_then(|it| it.in_responses).unwrap_or_default();
        (front.client_address.trusted_hops, in_answers)
    }

    #[test]
    fn a_gateway_goes_by_what_it_said_as_far_as_its_class_lets_it() {
        let said = || Some((hops(2), hops(2)));
        let of_class = |value: Value| Some(value);
        for (before, class, expected) in [
            (said(), of_class(json!({})), (Some(2), true)),
            (said(), None, (Some(2), true)),
            (said(), of_class(json!({ "clientAddress": { "trustedHops": 5 } })), (Some(2), true)),
            // Limits that came since.
            (said(), of_class(json!({ "limits": { "fields": ["replicas"] } })), (None, false)),
            (said(), of_class(json!({ "limits": { "fields": ["requestId"] } })), (None, true)),
            (said(), of_class(json!({ "limits": { "fields": ["clientAddress"] } })), (Some(2), false)),
            (
                said(),
                of_class(json!({ "limits": { "fields": [] }, "clientAddress": { "trustedHops": 5 } })),
                (Some(5), false),
            ),
            (
                said(),
                of_class(json!({ "limits": { "fields": [] }, "clientAddress": { "trustedHops": 500 } })),
                (None, false),
            ),
            // What the class said is the class's to change, unless that can't be read.
            (Some((json!({}), hops(3))), of_class(json!({})), (None, false)),
            (Some((json!({}), hops(3))), of_class(json!({ "clientAddress": { "trustedHops": 500 } })), (Some(3), true)),
            // Nobody knows what it said.
            (None, of_class(json!({})), (None, false)),
            (None, of_class(json!({ "clientAddress": { "trustedHops": 5 } })), (Some(5), false)),
            (None, None, (None, false)),
        ] {
            assert_eq!(believed(before.clone(), class.clone()), expected, "{before:?} {class:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_read_as_it_was_written() {
        let went_by = WentBy::new(&spec(json!({ "replicas": 3, "http3": true })), &spec(hops(1)));
        let text = went_by.to_json().unwrap();
        assert!(!text.contains("replicas"), "{text}");
        assert_eq!(WentBy::from_json(&text), Some(went_by));
        assert_eq!(WentBy::default().to_json(), None);
        for odd in ["", "[]", "{\"own\": 1}", "lan"] {
            assert_eq!(WentBy::from_json(odd), None, "{odd}");
        }
    }
}
