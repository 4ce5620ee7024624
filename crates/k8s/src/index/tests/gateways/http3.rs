//! HTTP/3: which listeners speak it, which ports that takes, and who has them.

use weft_core::gateway::Transport;

use super::*;

const HTTPS: &str = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}";

fn with_parameters(name: &str, listeners: &str, http3: &str) -> String {
    let reference = format!("{{parametersRef: {{group: weftmesh.io, kind: GatewayParameters, name: {name}}}}}");
    gateway_of(name, &format!("listeners: [{listeners}], infrastructure: {reference}"))
        + &secret("edge", "c", "chain 1", "key 1")
        + &format!(
            "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: GatewayParameters\n\
             metadata: {{name: {name}, namespace: edge}}\nspec: {{{http3}}}\n"
        )
}

/// The listeners that are served and speak it.
fn speaking(index: &Index) -> Vec<String> {
    served(index).iter().filter(|it| it.speaks_http3()).map(|it| it.key.name.to_string()).collect()
}

/// What a listener's condition `Accepted` says.
fn accepted(index: &Index, gateway: &str, listener: &str) -> String {
    let status = status_of(index, gateway);
    let listener = status.listeners.iter().find(|it| it.name == listener).unwrap();
    let condition = listener.conditions.iter().find(|it| it.kind == ConditionType::Accepted).unwrap();
    assert!(condition.status, "{condition:?}");
    condition.message.clone()
}

#[test]
fn listeners_of_https_speak_it_if_the_parameters_say_so() {
    let listeners = format!(
        "{HTTPS}, {{name: http, port: 80, protocol: HTTP}}, \
         {{name: tls, port: 9443, protocol: TLS, tls: {{mode: Terminate, certificateRefs: [{{name: c}}]}}}}"
    );
    for (parameters, want) in [("http3: true", &["https"][..]), ("http3: false", &[]), ("replicas: 1", &[])] {
        let (index, _) = serve(&with_parameters("gw", &listeners, parameters));
        assert_eq!(speaking(&index), want, "{parameters}");
        let ports = index.gateway_plans().next().unwrap().ports;
        let udp: Vec<_> = ports.iter().filter(|(_, it)| *it == Transport::Udp).map(|(port, _)| port.get()).collect();
        let expected: &[u16] = if want.is_empty() { &[] } else { &[443] };
        assert_eq!(udp, expected, "{parameters}");
        assert_eq!(accepted(&index, "gw", "https").contains("HTTP/3"), !want.is_empty());
        assert!(!accepted(&index, "gw", "http").contains("HTTP/3"));
    }
    // A certificate that is still to come takes no port away.
    let missing = with_parameters("gw", &listeners, "http3: true").replace("name: c}]", "name: other}]");
    let (index, _) = serve(&missing);
    assert!(speaking(&index).is_empty());
    let ports = index.gateway_plans().next().unwrap().ports;
    assert!(ports.iter().any(|(port, transport)| (port.get(), *transport) == (443, Transport::Udp)), "{ports:?}");
}

#[test]
fn parameters_that_cant_be_had_any_more_take_it_from_nobody() {
    let (mut index, _) = serve(&with_parameters("gw", HTTPS, "http3: true"));
    index.delete(&ObjectRef::new(Kind::GatewayParameters, "edge", "gw"));
    index.commit();
    assert_eq!(speaking(&index), ["https"]);
    objects(&with_parameters("gw", HTTPS, "replicas: 1")).into_iter().for_each(|object| index.apply(object));
    index.commit();
    assert!(speaking(&index).is_empty());
}

#[test]
fn a_listener_of_datagrams_has_its_port_and_the_other_is_served_without() {
    let listeners = format!("{HTTPS}, {{name: dns, port: 443, protocol: UDP}}");
    let (mut index, _) = serve(&with_parameters("gw", &listeners, "http3: true"));
    assert!(speaking(&index).is_empty());
    assert_eq!(served(&index).len(), 2, "both are served");
    let why = accepted(&index, "gw", "https");
    assert!(why.contains("not spoken") && why.contains("listener \"dns\" has UDP port 443"), "{why}");
    objects(&with_parameters(
        "gw",
        &listeners.replace("port: 443, protocol: UDP", "port: 53, protocol: UDP"),
        "http3: true",
    ))
    .into_iter()
    .for_each(|o| index.apply(o));
    index.commit();
    assert_eq!(speaking(&index), ["https"]);
}

#[test]
fn behind_the_proxy_protocol_nobody_would_know_who_a_client_is() {
    let proxied = |mode| {
        let trusted = if mode == "Disabled" { "" } else { ", trustedCIDRs: [10.0.0.0/8]" };
        with_parameters(
            "gw",
            HTTPS,
            &format!("http3: true, clientAddress: {{proxyProtocol: {{mode: {mode}{trusted}}}}}"),
        )
    };
    for mode in ["Optional", "Required"] {
        let (index, _) = serve(&proxied(mode));
        assert!(speaking(&index).is_empty(), "{mode}");
        let why = accepted(&index, "gw", "https");
        assert!(why.contains("clientAddress.proxyProtocol"), "{why}");
    }
    assert_eq!(speaking(&serve(&proxied("Disabled")).0), ["https"]);
}

#[test]
fn of_two_gateways_on_a_machine_one_has_the_port() {
    let dns = "{name: dns, port: 443, protocol: UDP}";
    // By age, and then by name.
    for (first, second, speaks, refused) in [
        (with_parameters("a", HTTPS, "http3: true"), with_parameters("b", dns, ""), true, Some("b")),
        (with_parameters("a", dns, ""), with_parameters("b", HTTPS, "http3: true"), false, None),
    ] {
        let (index, _) = serve(&(first + &second));
        assert_eq!(!speaking(&index).is_empty(), speaks);
        match refused {
            Some(name) => {
                let listener = &status_of(&index, name).listeners[0];
                assert!(wrong(&listener.conditions).iter().any(|it| it == "Accepted/PortUnavailable"), "{listener:?}");
            }
            None => {
                let why = accepted(&index, "b", "https");
                assert!(why.contains("UDP port 443 of this machine is Gateway edge/a's"), "{why}");
            }
        }
    }
    let (index, _) = serve(&with_parameters("b", HTTPS, "http3: true"));
    assert_eq!(speaking(&index), ["https"], "by itself it has it");
}
