//! Which listeners speak HTTP/3 as well: those of HTTPS, if the Gateway's parameters say so and the UDP port is free.

use std::collections::BTreeMap;

use weft_core::gateway::Transport;
use weft_core::ids::Port;

use super::ListenerView;
use super::conflict::{described, place};
use crate::object::{GatewayParametersSpec, GatewayProxyProtocolMode};

/// Whether HTTP/3 is spoken beside what a listener says (`spec.http3` of GatewayParameters).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Http3 {
    /// Nobody wants it, or the listener isn't one of HTTPS.
    #[default]
    Off,
    /// It is, on the UDP port of the listener's number.
    Spoken,
    /// It can't be, for instance because somebody else has that port; why, for people.
    Refused(String),
}

/// A client that comes by UDP would have the address of the load balancer, whatever is said of it on TCP.
const PROXIED: &str = "datagrams have no PROXY protocol, which clientAddress.proxyProtocol of the Gateway's parameters asks for; \
                       remove one of the two";

fn speaks_proxy_protocol(parameters: &GatewayParametersSpec) -> bool {
    let wanted = parameters.client_address.as_ref().and_then(|it| it.proxy_protocol.as_ref());
    wanted.is_some_and(|it| it.mode != GatewayProxyProtocolMode::Disabled)
}

/// Decides for the listeners of one Gateway. A listener of datagrams was asked for by name, so it has the port.
pub(super) fn decide(listeners: &mut [ListenerView], parameters: &GatewayParametersSpec) {
    if parameters.http3 != Some(true) {
        return;
    }
    let datagrams: BTreeMap<Port, String> = listeners
        .iter()
        .filter(|listener| listener.takes_routes())
        .filter_map(|listener| match place(listener)?.1 {
            (Transport::Udp, port) => Some((port, described(listener))),
            (Transport::Tcp, _) => None,
        })
        .collect();
    let behind_proxies = speaks_proxy_protocol(parameters);
    for listener in listeners {
        // Also one whose certificate is still to come, so that its port doesn't come and go with that.
        let Some(port) = listener.port.filter(|_| listener.protocol == "HTTPS" && listener.takes_routes()) else {
            continue;
        };
        listener.http3 = match datagrams.get(&port) {
            _ if behind_proxies => Http3::Refused(PROXIED.to_owned()),
            None => Http3::Spoken,
            Some(other) => Http3::Refused(format!("{other} has UDP port {port}; give one of the two another port")),
        };
    }
}
