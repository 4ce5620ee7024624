mod arbitrary;

use proptest::prelude::*;
use prost::Message;
use weft_api::weft::config::v1 as proto;

use super::*;
use crate::ids::{
    CertificateKey, GatewayKey, GatewayRuleKey, ListenerKey, ListenerSetKey, PolicyKey, Port, RouteKey, RouteKind,
    RuleKey, SecretKey, ServiceKey, ServicePortKey,
};
use crate::service::SliceKey;

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same(resource in arbitrary::resource()) {
        let key = resource.key();
        let decoded = decode(type_url(&key), &name(&key), &encode(&resource));
        prop_assert_eq!(decoded.as_ref(), Ok(&resource));
        prop_assert_eq!(encode(&resource), encode(&decoded.unwrap()));
    }

    #[test]
    fn bytes_of_a_peer_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        flipped in (arbitrary::resource(), any::<prop::sample::Index>(), any::<u8>()),
    ) {
        for type_url in TYPE_URLS {
            _ = decode(type_url, "HTTPRoute/a/b/0", &bytes);
        }
        let (resource, index, byte) = flipped;
        let mut body = encode(&resource);
        if !body.is_empty() {
            let index = index.index(body.len());
            body[index] = byte;
        }
        let key = resource.key();
        _ = decode(type_url(&key), &name(&key), &body);
    }
}

fn gateway() -> GatewayKey {
    GatewayKey::new("ns", "gw")
}

fn listener_key(name: &str) -> ListenerKey {
    ListenerKey::new(gateway(), name)
}

fn rule_key(name: &str) -> RuleKey {
    RuleKey { route: RouteKey { kind: RouteKind::Http, namespace: "ns".into(), name: name.into() }, index: 12 }
}

#[test]
fn a_name_reads_back_to_its_key() {
    let of_set = ListenerKey::of_set(gateway(), ListenerSetKey::new("team", "set"), "http");
    let rule = GatewayRuleKey { gateway: gateway(), rule: rule_key("r") };
    let port = ServicePortKey { service: ServiceKey::new("shop", "cart"), port: Port::new(443).unwrap() };
    for (key, text) in [
        (ResourceKey::Workload("Kubernetes//Pod/shop/cart-1".into()), "Kubernetes//Pod/shop/cart-1"),
        (ResourceKey::Service(ServiceKey::new("shop", "cart")), "shop/cart"),
        (ResourceKey::EndpointSlice(SliceKey { namespace: "shop".into(), name: "cart-x".into() }), "shop/cart-x"),
        (ResourceKey::Rule(rule_key("r")), "HTTPRoute/ns/r/12"),
        (ResourceKey::Authorization(PolicyKey::new("ns", "p")), "ns/p"),
        (ResourceKey::MeshPolicy(PolicyKey::new("ns", "p")), "ns/p"),
        (ResourceKey::Telemetry(PolicyKey::new("ns", "p")), "ns/p"),
        (ResourceKey::Listener(listener_key("http")), "ns/gw/http"),
        (ResourceKey::Listener(of_set), "ns/gw/team/set/http"),
        (ResourceKey::Certificate(CertificateKey::new(gateway(), SecretKey::new("other", "c"))), "ns/gw/other/c"),
        (ResourceKey::GatewayRule(rule), "ns/gw/HTTPRoute/ns/r/12"),
        (ResourceKey::GatewayConfig(gateway()), "ns/gw"),
        (ResourceKey::BackendTls(port), "shop/cart/443"),
        (ResourceKey::Mesh, "mesh"),
    ] {
        assert_eq!(name(&key), text);
        assert_eq!(parse_name(type_url(&key), text), Ok(key));
    }
    let types: std::collections::HashSet<_> = TYPE_URLS.into_iter().collect();
    assert_eq!(types.len(), TYPE_URLS.len());
    for some in [&NODE_TYPE_URLS[..], &GATEWAY_CLIENT_TYPE_URLS, &GATEWAY_TYPE_URLS] {
        assert!(some.iter().all(|it| types.contains(it)));
    }
}

#[test]
fn a_gateway_sees_its_own_and_a_node_nothing_of_gateways() {
    let url = |name: &str| TYPE_URLS.into_iter().find(|it| it.ends_with(&format!(".{name}"))).unwrap();
    let (own, other) = (gateway(), GatewayKey::new("ns", "other"));
    for (kind, name, own_sees, other_sees, node_sees) in [
        ("Listener", "ns/gw/http", true, false, false),
        ("Listener", "ns/gw/team/set/http", true, false, false),
        ("Certificate", "ns/gw/ns/c", true, false, false),
        ("GatewayRule", "ns/gw/HTTPRoute/ns/r/0", true, false, false),
        ("GatewayConfig", "ns/gw", true, false, false),
        ("BackendTls", "ns/s/443", true, true, false),
        ("Rule", "HTTPRoute/ns/r/0", false, false, true),
        ("Workload", "u", true, true, true),
        ("TelemetryPolicy", "ns/t", true, true, true),
        ("Certificate", "ns/gw", false, false, false),
        ("GatewayConfig", "ns/gw/x", false, false, false),
    ] {
        let sees = [Some(&own), Some(&other), None].map(|who| may_see(who, url(kind), name));
        assert_eq!(sees, [own_sees, other_sees, node_sees], "{kind} {name}");
        let open = [Some(&own), Some(&other), None].map(|who| !is_restricted(who, url(kind)));
        assert!(open.iter().zip(sees).all(|(is_open, sees)| !is_open || sees), "{kind} {name}");
    }
    assert_eq!(owner(url("Certificate"), "ns/gw/ns/c"), Some(own));
    assert_eq!(owner(url("BackendTls"), "ns/gw/80"), None);
    assert!(NODE_TYPE_URLS.iter().all(|it| !GATEWAY_TYPE_URLS.contains(it)));
    assert!(GATEWAY_TYPE_URLS.iter().all(|it| GATEWAY_CLIENT_TYPE_URLS.contains(it)));
}

#[test]
fn other_names_are_refused() {
    let service = type_url(&ResourceKey::Service(ServiceKey::new("a", "b")));
    let rule = type_url(&ResourceKey::Rule(rule_key("r")));
    let listener = type_url(&ResourceKey::Listener(listener_key("http")));
    let certificate = type_url(&ResourceKey::Certificate(CertificateKey::new(gateway(), SecretKey::new("ns", "c"))));
    let gateway_rule = type_url(&ResourceKey::GatewayRule(GatewayRuleKey { gateway: gateway(), rule: rule_key("r") }));
    let port = ServicePortKey { service: ServiceKey::new("ns", "s"), port: Port::new(1).unwrap() };
    let backend = type_url(&ResourceKey::BackendTls(port));
    for (type_url, name) in [
        (service, ""),
        (service, "a"),
        (service, "/b"),
        (service, "a/"),
        (service, "a/b/c"),
        (rule, "HTTPRoute/ns/r"),
        (rule, "HttpRoute/ns/r/0"),
        (rule, "HTTPRoute/ns/r/01"),
        (rule, "HTTPRoute/ns/r/+1"),
        (rule, "HTTPRoute/ns/r/65536"),
        (rule, "HTTPRoute/ns//0"),
        (listener, "ns/gw"),
        (listener, "ns/gw/"),
        (listener, "ns/gw/http/0"),
        (listener, "ns/gw/team/set/"),
        (certificate, "ns/c"),
        (certificate, "ns/gw//c"),
        (gateway_rule, "HTTPRoute/ns/r/0"),
        (gateway_rule, "/gw/HTTPRoute/ns/r/0"),
        (backend, "ns/s"),
        (backend, "ns/s/0"),
        (backend, "ns/s/+1"),
        (type_url(&ResourceKey::Mesh), "other"),
        (type_url(&ResourceKey::Workload("x".into())), ""),
    ] {
        assert_eq!(parse_name(type_url, name), Err(InvalidName::Form(name.into())), "{type_url} {name}");
    }
    assert_eq!(parse_name("x", "a/b"), Err(InvalidName::UnknownType("x".into())));
}

fn wire_workload() -> proto::Workload {
    proto::Workload {
        uid: "u".into(),
        namespace: "ns".into(),
        name: "n".into(),
        identity: "spiffe://td/ns/ns/sa/sa".into(),
        addresses: vec![vec![10, 0, 0, 1]],
        node: "node".into(),
        zone: None,
        enrolment: 1,
        owner: Some(proto::Owner { kind: "Pod".into(), name: "n".into(), app: "n".into(), version: String::new() }),
        policies: vec![proto::ObjectKey { namespace: "ns".into(), name: "p".into() }],
        probes: vec![proto::Probe { port: 80, call: Some(proto::probe::Call::HttpTarget("/".into())) }],
        network_policy: false,
        telemetry: Vec::new(),
    }
}

/// The field that makes a workload invalid after an edit.
fn wrong_workload(edit: impl FnOnce(&mut proto::Workload)) -> String {
    let mut workload = wire_workload();
    edit(&mut workload);
    let key = ResourceKey::Workload("u".into());
    match decode(type_url(&key), "u", &workload.encode_to_vec()) {
        Err(InvalidResource::Field(it)) => it.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_names_the_field() {
    assert_eq!(wrong_workload(|it| it.namespace = "a/b".into()), "namespace: expected a name");
    assert_eq!(wrong_workload(|it| it.addresses.push(vec![1])), "addresses[1]: expected an address of 4 or 16 bytes");
    assert_eq!(wrong_workload(|it| it.enrolment = 0), "enrolment: unknown value 0");
    assert_eq!(wrong_workload(|it| it.enrolment = 99), "enrolment: unknown value 99");
    assert_eq!(wrong_workload(|it| it.owner = None), "owner: missing");
    assert_eq!(wrong_workload(|it| it.probes[0].call = None), "probes[0].call: missing");
    assert!(wrong_workload(|it| it.probes[0].port = 0).starts_with("probes[0].port: "));
    assert_eq!(wrong_workload(|it| it.policies[0].name.clear()), "policies[0].name: expected a name");
    assert!(wrong_workload(|it| it.identity = "x".into()).starts_with("identity: not a SPIFFE ID"));
}

fn wire_rule() -> proto::Rule {
    let path = proto::http_match::Path::Prefix(String::new());
    let backend = proto::HttpBackend {
        target: Some(proto::BackendTarget {
            target: Some(proto::backend_target::Target::Service(proto::ServicePortKey {
                service: Some(proto::ObjectKey { namespace: "ns".into(), name: "s".into() }),
                port: 80,
            })),
        }),
        weight: 1,
        filters: vec![],
    };
    let http = proto::HttpRule {
        matches: vec![proto::HttpMatch { path: Some(path), ..Default::default() }],
        action: Some(proto::http_rule::Action::Forward(proto::HttpBackends { backends: vec![backend] })),
        ..Default::default()
    };
    let key =
        proto::RuleKey { kind: proto::RouteKind::Http.into(), namespace: "ns".into(), name: "r".into(), index: 12 };
    proto::Rule { key: Some(key), layer: Some(proto::rule::Layer::Http(http)), ..Default::default() }
}

/// The field that makes a rule invalid after an edit.
fn wrong_rule(edit: impl FnOnce(&mut proto::Rule, &mut proto::HttpRule)) -> String {
    let mut rule = wire_rule();
    let Some(proto::rule::Layer::Http(mut http)) = rule.layer.take() else { panic!("not HTTP") };
    edit(&mut rule, &mut http);
    rule.layer.get_or_insert(proto::rule::Layer::Http(http));
    let key = ResourceKey::Rule(rule_key("r"));
    match decode(type_url(&key), &name(&key), &rule.encode_to_vec()) {
        Err(InvalidResource::Field(it)) => it.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_in_a_rule_names_the_field() {
    use proto::http_match::Path;
    let l4 = || proto::rule::Layer::L4(proto::L4Rule::default());
    assert_eq!(wrong_rule(|rule, _| rule.layer = Some(l4())), "layer: expected the layer of the route's kind");
    assert_eq!(
        wrong_rule(|rule, _| rule.hostnames.push("A.com".into())),
        "hostnames[0]: expected a hostname in lower case, perhaps after '*.'"
    );
    assert_eq!(wrong_rule(|_, http| http.matches.clear()), "http: matches: a rule needs a match");
    assert_eq!(wrong_rule(|_, http| http.matches[0].path = None), "http.matches[0].path: missing");
    let path = |path: Path| wrong_rule(|_, http| http.matches[0].path = Some(path));
    assert_eq!(path(Path::Exact("a".into())), "http.matches[0].path: expected a path that starts with '/'");
    assert!(path(Path::Prefix("/a/".into())).starts_with("http.matches[0].path: expected a prefix"));
    assert!(path(Path::Regex("(".into())).starts_with("http.matches[0].path.regex: regex parse error"));
    assert!(path(Path::Regex("a)|(?:b".into())).starts_with("http.matches[0].path.regex: regex parse error"));
    let mirror = proto::Mirror { backend: None, numerator: 1, denominator: 0 };
    let filter = proto::HttpFilter { filter: Some(proto::http_filter::Filter::Mirror(mirror)) };
    assert_eq!(wrong_rule(|_, http| http.filters.push(filter)), "http.filters[0].mirror.denominator: expected not 0");
    let header = proto::Header { name: "content-length".into(), value: b"1".to_vec() };
    let modifier = proto::HeaderModifier { set: vec![header], ..Default::default() };
    let filter = proto::HttpFilter { filter: Some(proto::http_filter::Filter::RequestHeaders(modifier)) };
    let wrong = wrong_rule(|_, http| http.filters.push(filter));
    assert!(wrong.starts_with("http: filters[0].requestHeaderModifier.set[content-length]"), "{wrong}");
}

#[test]
fn a_resource_under_the_name_of_another_is_refused() {
    let url = type_url(&ResourceKey::Workload("u".into()));
    let refused = decode(url, "v", &wire_workload().encode_to_vec());
    assert_eq!(refused, Err(InvalidResource::OtherName { actual: "u".into() }));
    assert!(decode(url, "u", &wire_workload().encode_to_vec()).is_ok());
    assert!(matches!(decode(url, "u", &[0xff]), Err(InvalidResource::Protobuf(_))));
}

#[test]
fn an_error_in_a_listener_names_the_field() {
    use proto::listener::Protocol;
    let wrong = |edit: &dyn Fn(&mut proto::Listener)| {
        let mut listener = proto::Listener {
            gateway: Some(proto::ObjectKey { namespace: "ns".into(), name: "gw".into() }),
            name: "http".into(),
            port: 80,
            protocol: Some(Protocol::Http(proto::Empty {})),
            ..Default::default()
        };
        edit(&mut listener);
        let key = ResourceKey::Listener(listener_key("http"));
        match decode(type_url(&key), &name(&key), &listener.encode_to_vec()) {
            Err(InvalidResource::Field(it)) => it.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wrong(&|it| it.name = "a/b".into()), "name: expected the name of a listener");
    assert_eq!(wrong(&|it| it.port = 0), "port: expected a port from 1 to 65535");
    assert_eq!(wrong(&|it| it.protocol = None), "protocol: missing");
    assert!(wrong(&|it| it.hostname = Some("A.b".into())).starts_with("hostname: expected a hostname in lower case"));
    let no_keys = |it: &mut proto::Listener| it.protocol = Some(Protocol::Https(proto::Certificates::default()));
    assert_eq!(wrong(&no_keys), "protocol.https.secrets: missing");
    let validation = proto::ClientValidation { ca: Vec::new(), mode: 1 };
    let edit = |it: &mut proto::Listener| it.client_validation = Some(validation.clone());
    assert_eq!(wrong(&edit), "client_validation.ca: missing");
}

#[test]
fn a_rule_of_a_gateway_is_attached_to_nothing_else() {
    let key = ResourceKey::GatewayRule(GatewayRuleKey { gateway: gateway(), rule: rule_key("r") });
    let read = |parent: proto::parent::Parent| {
        let parents = vec![proto::Parent { parent: Some(parent) }];
        let rule = Some(proto::Rule { parents, ..wire_rule() });
        let message = proto::GatewayRule { gateway: Some(gateway().to_wire()), rule };
        decode(type_url(&key), &name(&key), &message.encode_to_vec()).map_err(|wrong| wrong.to_string())
    };
    let listener = |of: GatewayKey| proto::parent::Parent::Listener(ListenerKey::new(of, "l").to_wire());
    assert!(read(listener(gateway())).is_ok());
    let port = ServicePortKey { service: ServiceKey::new("ns", "s"), port: Port::new(80).unwrap() };
    let service = proto::parent::Parent::Service(proto::ServiceParent { port: Some(port.to_wire()), consumer: None });
    for other in [listener(GatewayKey::new("ns", "x")), service] {
        assert_eq!(read(other).unwrap_err(), "rule.parents: expected listeners of the Gateway");
    }
}
