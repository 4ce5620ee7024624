//! Listeners that can't be told from each other (`GatewaySpec.listeners`, "Distinct Listeners"), and Gateways that want the
//! same place on one machine.

use std::collections::BTreeMap;

use weft_core::gateway::PortLayer;
use weft_core::ids::{GatewayKey, Port};

use super::{GatewayView, ListenerView};
use crate::translate::{Problem, Reason};

/// How listeners of a port are told apart, by the protocol as it is written: one whose certificate is missing counts, too.
fn layer(protocol: &str) -> Option<PortLayer> {
    match protocol {
        "HTTP" => Some(PortLayer::Http),
        "HTTPS" | "TLS" => Some(PortLayer::Tls),
        "TCP" => Some(PortLayer::Tcp),
        _ => None,
    }
}

/// Finds the listeners of one Gateway that are not distinct. None of them wins: "ALL indistinct Listeners must not be
/// accepted".
pub(super) fn within(listeners: &mut [ListenerView]) {
    let found: Vec<_> = (0..listeners.len()).map(|at| conflict(listeners, at)).collect();
    for (listener, (same_name, conflict)) in listeners.iter_mut().zip(found) {
        if same_name {
            let message = format!("{:?} is the name of another listener, too", listener.name.as_str());
            let problem = Problem::value(format!("{}.name", listener.field), message, "give each a name of its own");
            listener.refused.get_or_insert(problem);
        }
        listener.conflict = conflict;
    }
}

fn conflict(listeners: &[ListenerView], at: usize) -> (bool, Option<Problem>) {
    let Some(own) = listeners.get(at) else { return (false, None) };
    let others = || listeners.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, it)| it);
    let same_name = others().any(|other| other.name == own.name);
    // What is wrong by itself is in nobody's way.
    let is_whole = |it: &ListenerView| it.refused.is_none() && it.port.is_some();
    let Some(own_layer) = layer(&own.protocol).filter(|_| is_whole(own)) else { return (same_name, None) };
    let on_port = || others().filter(|other| is_whole(other) && other.port == own.port);
    let problem = |part: &str, reason, other: &ListenerView, message: &str, remedy: &str| {
        let message = format!("listener {:?} has {message}, and the same port", other.name.as_str());
        Problem::new(format!("{}.{part}", own.field), reason, message, remedy)
    };
    if let Some(other) = on_port().find(|other| layer(&other.protocol).is_some_and(|layer| layer != own_layer)) {
        let message = format!("protocol {}", other.protocol);
        let remedy = "give one of the two another port";
        return (same_name, Some(problem("protocol", Reason::ProtocolConflict, other, &message, remedy)));
    }
    let twin = on_port().find(|other| layer(&other.protocol).is_some() && other.hostname == own.hostname);
    let conflict = twin.map(|other| {
        if other.protocol != own.protocol {
            let message = format!("protocol {} and the same hostname", other.protocol);
            return problem("protocol", Reason::ProtocolConflict, other, &message, "give one another hostname or port");
        }
        let remedy = "give one another hostname or port, or make them one listener";
        problem("hostname", Reason::HostnameConflict, other, "the same hostname", remedy)
    });
    (same_name, conflict)
}

/// Gives each port of the machine to one Gateway, the oldest that wants it: two would answer for each other's hosts.
/// `gateways` may be in any order.
pub fn claim_ports(gateways: &mut [GatewayView]) {
    gateways.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut taken: BTreeMap<Port, Vec<(GatewayKey, Vec<std::net::IpAddr>)>> = BTreeMap::new();
    for gateway in gateways {
        if gateway.refused.is_some() {
            continue;
        }
        let (key, requested) = (&gateway.key, &gateway.requested);
        for listener in gateway.listeners.iter_mut().filter(|it| it.takes_routes()) {
            let Some(port) = listener.port else { continue };
            let holders = taken.entry(port).or_default();
            let overlaps = |of: &[std::net::IpAddr]| {
                of.is_empty() || requested.is_empty() || of.iter().any(|ip| requested.contains(ip))
            };
            match holders.iter().find(|(holder, addresses)| holder != key && overlaps(addresses)) {
                Some((holder, _)) => {
                    let field = format!("{}.port", listener.field);
                    let message = format!("port {port} of this machine is Gateway {holder}'s, which is older");
                    let remedy = "use another port, make it a listener of that Gateway, or ask for addresses apart";
                    listener.refused = Some(Problem::new(field, Reason::PortUnavailable, message, remedy));
                }
                None if holders.iter().any(|(holder, _)| holder == key) => {}
                None => holders.push((key.clone(), requested.clone())),
            }
        }
    }
}
