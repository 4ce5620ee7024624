use super::*;

/// Else whoever wants an address that isn't given doesn't know whom to ask for it.
#[test]
fn who_has_an_address_that_is_asked_for_is_named() {
    let asks = |name: &str| gateway_of(name, &format!("listeners: [{HTTP}], addresses: [{{value: 192.0.2.1}}]"));
    let other = |ingress: &str| service("other-weft", "other", "type: LoadBalancer, ports: [{port: 80}]", ingress);
    let told = |index: &Index| {
        let status = status_of(index, "gw");
        let programmed = status.conditions.into_iter().find(|c| c.kind == ConditionType::GatewayProgrammed).unwrap();
        programmed.message
    };
    let mut index =
        in_cluster(&(CLASS.to_owned() + &asks("gw") + &asks("other") + &balanced("gw-weft", "") + &other("")));
    assert!(told(&index).contains("the cluster has not given 192.0.2.1;"), "{}", told(&index));
    add(&mut index, &other("{ip: 192.0.2.1}"));
    let named = "the cluster has not given 192.0.2.1, which Gateway edge/other has;";
    assert!(told(&index).contains(named), "{}", told(&index));
    add(&mut index, &other("{ip: 192.0.2.9}"));
    assert!(!told(&index).contains("edge/other"), "it has another one by now: {}", told(&index));
    add(&mut index, &other("{ip: 192.0.2.1}"));
    assert!(told(&index).contains(named), "{}", told(&index));
    index.delete(&ObjectRef::new(Kind::Service, "edge", "other-weft"));
    index.commit();
    assert!(!told(&index).contains("edge/other"), "{}", told(&index));
    // Somebody else's Service that is called like the other Gateway's.
    let theirs = service("other-weft", "not-other", "type: LoadBalancer, ports: [{port: 80}]", "{ip: 192.0.2.1}");
    add(&mut index, &theirs);
    assert!(!told(&index).contains("edge/other"), "{}", told(&index));
}

/// A cluster has no machine that a Gateway would listen on.
#[test]
fn a_type_of_address_that_is_not_known_is_told_with_what_a_cluster_has() {
    let text = CLASS.to_owned()
        + &gateway_of("gw", &format!("listeners: [{HTTP}], addresses: [{{type: Hostname, value: a.com}}]"));
    let status = status_of(&in_cluster(&text), "gw");
    let message = &status.conditions[0].message;
    assert!(message.contains("load balancers") && !message.contains("machine"), "{message}");
}

#[test]
fn the_addresses_that_are_asked_for_are_compared_with_those_that_are_given() {
    let asks = |list: &str| CLASS.to_owned() + &gateway_of("gw", &format!("listeners: [{HTTP}], addresses: [{list}]"));
    let mut index = in_cluster(&asks("{type: example.com/other, value: x}, {value: 192.0.2.1}"));
    assert_eq!(wrong(&status_of(&index, "gw").conditions), ["Accepted/UnsupportedAddress", "Programmed/Invalid"]);
    assert!(!plan_of(&index).accepted);

    add(&mut index, &asks("{value: 192.0.2.1}, {value: 192.0.2.2}"));
    add(&mut index, &(balanced("gw-weft", "") + &balanced("gw-weft-2", "{ip: 192.0.2.2}")));
    bind(&mut index, &["gw"]);
    assert_eq!(wrong(&status_of(&index, "gw").conditions), ["Programmed/AddressNotUsable"]);
    assert_eq!(status_of(&index, "gw").addresses, ips(&["192.0.2.2"]));

    add(&mut index, &asks("{value: 192.0.2.2}"));
    add(&mut index, &balanced("gw-weft", "{ip: 192.0.2.9}"));
    assert_eq!(standing(&index), Err("AddressNotUsable".to_owned()), "another one is not what was asked for");
    add(&mut index, &balanced("gw-weft", "{ip: 192.0.2.2}"));
    assert_eq!(standing(&index), Ok(ips(&["192.0.2.2"])));

    // An entry without a value leaves the choice to the cluster.
    add(&mut index, &asks("{type: IPAddress}"));
    add(&mut index, &balanced("gw-weft", "{ip: 192.0.2.9}"));
    assert_eq!(standing(&index), Ok(ips(&["192.0.2.9"])));
}

/// Several ask at once, for addresses that several have.
#[test]
fn of_each_address_the_first_that_has_it_is_named() {
    let spec = |addresses: &str| format!("listeners: [{HTTP}], addresses: [{addresses}]");
    let asks = gateway_of("gw", &spec("{value: 192.0.2.1}, {value: 192.0.2.2}, {value: 192.0.2.3}"))
        + &gateway_of("late", &spec("{value: 192.0.2.2}"));
    let has = |name: &str, ingress: &str| {
        let balanced = "type: LoadBalancer, ports: [{port: 80}]";
        gateway_of(name, &format!("listeners: [{HTTP}]")) + &service(&format!("{name}-weft"), name, balanced, ingress)
    };
    let text = CLASS.to_owned()
        + &asks
        + &has("b", "{ip: 192.0.2.1}, {ip: 192.0.2.2}, {hostname: lb.example.com}")
        + &has("a", "{ip: 192.0.2.1}");
    let index = in_cluster(&text);
    for (name, told) in [
        ("gw", "not given 192.0.2.1, which Gateway edge/a has, 192.0.2.2, which Gateway edge/b has, 192.0.2.3;"),
        ("late", "not given 192.0.2.2, which Gateway edge/b has;"),
    ] {
        let status = status_of(&index, name);
        let programmed = status.conditions.into_iter().find(|c| c.kind == ConditionType::GatewayProgrammed).unwrap();
        assert!(programmed.message.contains(told), "{}", programmed.message);
    }
}
