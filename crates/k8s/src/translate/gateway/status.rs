//! What a Gateway's status says.

use std::net::IpAddr;

use weft_core::ids::SectionName;

use super::{GatewaySettings, GatewayView, ListenerView};
use crate::object::{Condition, ConditionType, GatewayStatus, ListenerStatus};
use crate::translate::{Reason, summary};

/// The status of a Gateway; `attached` says how many routes each listener has.
pub fn status(
    view: &GatewayView,
    settings: &GatewaySettings,
    attached: impl Fn(&SectionName) -> usize,
) -> GatewayStatus {
    let whole = view.refused.is_none();
    let listeners = view.listeners.iter().map(|it| ListenerStatus {
        name: it.name.to_string(),
        supported_kinds: it.kinds.clone(),
        attached_routes: if whole { attached(&it.name) } else { 0 },
        conditions: listener_conditions(it, whole),
    });
    let listeners = listeners.collect();
    let (accepted, programmed) = (accepted(view), programmed(view));
    let addresses: &[IpAddr] = if view.requested.is_empty() { &settings.addresses } else { &view.requested };
    let addresses = if programmed.status { addresses.to_vec() } else { Vec::new() };
    GatewayStatus { addresses, conditions: vec![accepted, programmed], listeners }
}

fn names<'a>(listeners: impl Iterator<Item = &'a ListenerView>) -> String {
    listeners.map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn accepted(view: &GatewayView) -> Condition {
    if let Some(problem) = &view.refused {
        // The API has no word for a value of a Gateway's that isn't supported.
        let reason = match problem.reason {
            Reason::UnsupportedValue => "Invalid",
            other => other.as_str(),
        };
        return Condition::new(ConditionType::Accepted, false, reason, problem.to_string());
    }
    let invalid: Vec<_> = view.listeners.iter().filter(|it| !it.takes_routes()).collect();
    if invalid.is_empty() {
        return Condition::new(ConditionType::Accepted, true, "Accepted", "The Gateway is understood");
    }
    let problems = invalid.iter().flat_map(|it| it.refused.iter().chain(&it.conflict));
    let wrong = format!("Not accepted: listeners {}. {}", names(invalid.iter().copied()), summary(problems));
    let others = names(view.listeners.iter().filter(|it| it.takes_routes()));
    let any = !others.is_empty();
    let text = if any { format!("{wrong}. Accepted: listeners {others}") } else { wrong };
    Condition::new(ConditionType::Accepted, any, "ListenersNotValid", text)
}

fn programmed(view: &GatewayView) -> Condition {
    let (kind, any) = (ConditionType::GatewayProgrammed, view.listeners.iter().any(ListenerView::is_programmed));
    if view.refused.is_none() && any {
        return Condition::new(kind, true, "Programmed", "The proxy of this machine has been told to listen");
    }
    Condition::new(kind, false, "Invalid", "No listener can be served; the other conditions say why")
}

fn listener_conditions(listener: &ListenerView, whole: bool) -> Vec<Condition> {
    let accepted = match listener.refused.as_ref().or(listener.conflict.as_ref()) {
        None => Condition::new(ConditionType::Accepted, true, "Accepted", "The listener is understood"),
        Some(problem) => Condition::new(ConditionType::Accepted, false, problem.reason.as_str(), problem.to_string()),
    };
    let conflicted = match &listener.conflict {
        None => Condition::new(ConditionType::Conflicted, false, "NoConflicts", "No other listener is in its way"),
        Some(problem) => Condition::new(ConditionType::Conflicted, true, problem.reason.as_str(), problem.to_string()),
    };
    let resolved = match listener.unresolved.first() {
        None => Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", "All references are resolved"),
        Some(first) => {
            let text = summary(&listener.unresolved);
            Condition::new(ConditionType::ResolvedRefs, false, first.reason.as_str(), text)
        }
    };
    let kind = ConditionType::GatewayProgrammed;
    let programmed = if whole && listener.is_programmed() {
        Condition::new(kind, true, "Programmed", "The proxy of this machine has been told to listen")
    } else {
        Condition::new(kind, false, "Invalid", "It is not served; the other conditions say why")
    };
    vec![accepted, conflicted, programmed, resolved]
}
