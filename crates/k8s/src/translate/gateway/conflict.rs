//! Listeners that can't be told from each other (`GatewaySpec.listeners`, "Distinct Listeners"), and Gateways that want the
//! same place on one machine.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use weft_core::gateway::{PortLayer, Transport};
use weft_core::ids::{GatewayKey, Port};
use weft_core::route::HostnameMatch;

use super::{GatewayView, Http3, ListenerView};
use crate::translate::{Problem, Reason};

/// How listeners of a port are told apart, by the protocol as it is written: one whose certificate is missing counts, too.
fn layer(protocol: &str) -> Option<PortLayer> {
    match protocol {
        "HTTP" => Some(PortLayer::Http),
        "HTTPS" | "TLS" => Some(PortLayer::Tls),
        "TCP" => Some(PortLayer::Tcp),
        "UDP" => Some(PortLayer::Udp),
        _ => None,
    }
}

/// A port of a transport: that of UDP is a place of its own beside that of TCP.
pub(super) type Place = (Transport, Port);

/// Where a listener is, if it is whole: what is wrong by itself is in nobody's way.
pub(super) fn place(listener: &ListenerView) -> Option<(PortLayer, Place)> {
    let layer = layer(&listener.protocol).filter(|_| listener.refused.is_none())?;
    let transport = if layer == PortLayer::Udp { Transport::Udp } else { Transport::Tcp };
    Some((layer, (transport, listener.port?)))
}

/// Listeners by where they are; each by its place in the list.
#[derive(Default)]
struct Taken {
    /// One for each layer: there is more than one only where they are in each other's way.
    layers: HashMap<Place, BTreeMap<PortLayer, usize>>,
    names: HashMap<(Place, Option<HostnameMatch>), usize>,
}

impl Taken {
    fn add(&mut self, listener: &ListenerView, at: usize) {
        let Some((layer, place)) = place(listener) else { return };
        self.layers.entry(place).or_default().entry(layer).or_insert(at);
        self.names.entry((place, listener.hostname.clone())).or_insert(at);
    }

    /// What is in the way of a listener, of those that were added.
    fn in_the_way(&self, listener: &ListenerView) -> Option<usize> {
        let (own, place) = place(listener)?;
        let other_layer = self.layers.get(&place)?.iter().find(|(layer, _)| **layer != own).map(|(_, at)| *at);
        other_layer.or_else(|| self.names.get(&(place, listener.hostname.clone())).copied())
    }
}

/// Finds the listeners of one Gateway that are not distinct. They are in the order of precedence: the Gateway's own, then
/// those of each of its ListenerSets (GEP-1713).
///
/// Among the listeners of one object none wins: "ALL indistinct Listeners must not be accepted". What a ListenerSet adds
/// gives way to what was there before it, so that nobody can take a listener away from another team. The Gateway's own
/// keep what they ask for even where they are in each other's way.
pub(super) fn within(listeners: &mut [ListenerView]) {
    let mut taken = Taken::default();
    let mut start = 0;
    while let Some(first) = listeners.get(start) {
        let rest = listeners.get(start..).unwrap_or_default();
        let end = start + rest.iter().take_while(|it| it.set == first.set).count();
        for at in start..end {
            let found = listeners.get(at).and_then(|own| Some((own, listeners.get(taken.in_the_way(own)?)?)));
            let conflict = found.map(|(own, other)| conflict(own, other));
            if let Some(listener) = listeners.get_mut(at) {
                listener.conflict = conflict;
            }
        }
        if let Some(group) = listeners.get_mut(start..end) {
            among(group);
        }
        for (at, listener) in listeners.iter().enumerate().take(end).skip(start) {
            if listener.set.is_none() || listener.conflict.is_none() {
                taken.add(listener, at);
            }
        }
        start = end;
    }
}

/// Settles the listeners of one object among themselves. What has already lost is in nobody's way.
fn among(group: &mut [ListenerView]) {
    let others = |at: usize| group.iter().enumerate().filter(move |(other, _)| *other != at).map(|(_, it)| it);
    let in_the_way = |at: usize, own: &ListenerView| {
        let (layer, here) = place(own).filter(|_| own.conflict.is_none())?;
        let there = || others(at).filter(|it| it.conflict.is_none()).filter_map(|it| Some((it, place(it)?)));
        let of_place = || there().filter(|(_, (_, place))| *place == here);
        let found = of_place().find(|(_, (of, _))| *of != layer);
        let found = found.or_else(|| of_place().find(|(it, _)| it.hostname == own.hostname));
        found.map(|(other, _)| conflict(own, other))
    };
    let each = group.iter().enumerate();
    let found: Vec<_> = each.map(|(at, own)| (others(at).any(|it| it.name == own.name), in_the_way(at, own))).collect();
    for (listener, (same_name, conflict)) in group.iter_mut().zip(found) {
        if same_name {
            let message = format!("{:?} is the name of another listener, too", listener.name.as_str());
            let problem = Problem::value(format!("{}.name", listener.field), message, "give each a name of its own");
            listener.refused.get_or_insert(problem);
        }
        if listener.conflict.is_none() {
            listener.conflict = conflict;
        }
    }
}

fn conflict(own: &ListenerView, other: &ListenerView) -> Problem {
    let problem = |part: &str, reason, message: &str, remedy: &str| {
        let message = format!("{} has {message}, and the same port", described(other));
        Problem::new(format!("{}.{part}", own.field), reason, message, remedy)
    };
    if layer(&own.protocol) != layer(&other.protocol) {
        let (message, remedy) = (format!("protocol {}", other.protocol), "give one of the two another port");
        return problem("protocol", Reason::ProtocolConflict, &message, remedy);
    }
    if other.protocol != own.protocol {
        let message = format!("protocol {} and the same hostname", other.protocol);
        return problem("protocol", Reason::ProtocolConflict, &message, "give one another hostname or port");
    }
    let remedy = "give one another hostname or port, or make them one listener";
    problem("hostname", Reason::HostnameConflict, "the same hostname", remedy)
}

/// A listener as others are told of it.
pub(super) fn described(listener: &ListenerView) -> String {
    match &listener.set {
        None => format!("listener {:?}", listener.name.as_str()),
        Some(set) => format!("listener {:?} of ListenerSet {set}", listener.name.as_str()),
    }
}

/// Gives each port of the machine to one Gateway, the oldest that wants it: two would answer for each other's hosts.
/// `gateways` may be in any order.
pub fn claim_ports(gateways: &mut [GatewayView]) {
    gateways.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
    let mut taken = Claims::new();
    for gateway in gateways {
        if gateway.refused.is_some() {
            continue;
        }
        let (key, requested) = (&gateway.key, &gateway.requested);
        for listener in gateway.listeners.iter_mut().filter(|it| it.takes_routes()) {
            let Some((_, place)) = place(listener) else { continue };
            if let Some(holder) = claim(&mut taken, place, (key, requested)) {
                let (field, port) = (format!("{}.port", listener.field), place.1);
                let message = format!("port {port} of this machine is Gateway {holder}'s, which is older");
                let remedy = "use another port, make it a listener of that Gateway, or ask for addresses apart";
                listener.refused = Some(Problem::new(field, Reason::PortUnavailable, message, remedy));
            } else if listener.http3 == Http3::Spoken
                && let Some(holder) = claim(&mut taken, (Transport::Udp, place.1), (key, requested))
            {
                listener.http3 = Http3::Refused(format!("UDP port {} of this machine is Gateway {holder}'s", place.1));
            }
        }
    }
}

/// Gateways with the addresses that they ask for, by the places that they have.
type Claims = BTreeMap<Place, Vec<(GatewayKey, Vec<IpAddr>)>>;

/// Gives a place to a Gateway, unless another one has it at an address that both want: that one.
fn claim(taken: &mut Claims, place: Place, (key, requested): (&GatewayKey, &Vec<IpAddr>)) -> Option<GatewayKey> {
    let holders = taken.entry(place).or_default();
    let overlaps = |of: &[IpAddr]| of.is_empty() || requested.is_empty() || of.iter().any(|ip| requested.contains(ip));
    let other = holders.iter().find(|(holder, addresses)| holder != key && overlaps(addresses));
    let other = other.map(|(holder, _)| holder.clone());
    if other.is_none() && !holders.iter().any(|(holder, _)| holder == key) {
        holders.push((key.clone(), requested.clone()));
    }
    other
}
