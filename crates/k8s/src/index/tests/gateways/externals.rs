//! XBackends: hosts outside that routes of Gateways send to.

use weft_core::backend_kind::BackendKind;
use weft_core::gateway::BackendTrust;

use super::routes::NAMESPACES;
use super::*;
use crate::translate::gateway::trust::tests::AUTHORITY;

const LISTENER: &str = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";
const GW: &str = "{name: gw, namespace: edge}";

fn host(more: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend\nmetadata: {{name: api, namespace: shop, generation: 3}}\n\
         spec: {{type: ExternalHostname, port: {{port: 443}}, externalHostname: {{hostname: api.example.com}}{more}}}\n"
    )
}

const TLS: &str = ", tls: {mode: ServerOnly, validation: {hostname: api.example.com, wellKnownCACertificates: System}}";
const PRIVATE: &str = ", tls: {mode: ServerOnly, validation: {hostname: api.example.com, caCertificateRefs: \
                       [{group: '', kind: ConfigMap, name: ca}]}}";

fn route(parents: &str, backend: &str) -> String {
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
         spec: {{parentRefs: [{parents}], rules: [{{backendRefs: [{{group: gateway.networking.x-k8s.io, kind: XBackend, {backend}}}]}}]}}\n"
    )
}

fn key() -> ServiceKey {
    ServiceKey::of_kind(BackendKind::XBackend, "shop", "api")
}

/// What each rule sends to: the port, or why nothing is sent.
fn targets(index: &Index) -> Vec<Result<u16, InvalidBackend>> {
    let of = |rule: &RouteRule| match rule {
        RouteRule::Http(rule) => match &rule.action {
            HttpAction::Forward(backends) => match &backends[0].target {
                BackendTarget::Service(port) => Ok(port.port.get()),
                BackendTarget::Invalid { reason, .. } => Err(*reason),
            },
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let rules = index.resources().filter_map(|resource| match resource {
        Resource::Rule(rule) => Some(of(rule)),
        Resource::GatewayRule(it) => Some(of(&it.rule)),
        _ => None,
    });
    rules.collect()
}

fn trusts(index: &Index) -> Vec<BackendTrust> {
    let of = |resource: &Resource| match resource {
        Resource::BackendTls(it) => Some(it.trust.clone()),
        _ => None,
    };
    index.resources().filter_map(of).collect()
}

fn add(index: &mut Index, text: &str) -> Output {
    objects(text).into_iter().for_each(|o| index.apply(o));
    index.commit()
}

/// The Gateways that its status names, with what is wrong at each.
fn told(index: &Index) -> Option<Vec<(String, Vec<String>)>> {
    match index.status(&ObjectRef::new(Kind::XBackend, "shop", "api"))? {
        (3, ObjectStatus::Parents(all)) => {
            Some(all.iter().map(|it| (it.parent_ref.name.clone(), wrong(&it.conditions))).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn accepted() -> Option<Vec<(String, Vec<String>)>> {
    Some(vec![("gw".to_owned(), Vec::new())])
}

#[test]
fn a_route_of_a_gateway_sends_to_a_host_as_it_comes_and_goes() {
    let (mut index, _) = serve(&(gateway(LISTENER) + NAMESPACES + &route(GW, "name: api")));
    assert_eq!(targets(&index), [Err(InvalidBackend::NotFound)]);
    let out = add(&mut index, &host(TLS));
    assert_eq!(targets(&index), [Ok(443)], "its only port need not be said");
    assert_eq!((trusts(&index), told(&index)), (vec![BackendTrust::System], accepted()));
    let position = |wanted: &dyn Fn(&Change) -> bool| out.changes.iter().position(wanted).unwrap();
    let tls = position(&|it| matches!(it, Change::Upsert(Resource::BackendTls(_))));
    let rule = position(&|it| matches!(it, Change::Upsert(Resource::GatewayRule(_))));
    assert!(tls < rule, "nothing may go there in the clear meanwhile");
    let Some(Resource::Service(service)) = index.resource(&ResourceKey::Service(key())) else { panic!() };
    assert!(service.addresses.is_empty());

    for (backend, expected) in [
        ("name: api, port: 443", Ok(443)),
        ("name: api, port: 80", Err(InvalidBackend::UnsupportedPort)),
        ("name: other", Err(InvalidBackend::NotFound)),
        ("name: 'XBackend:api'", Err(InvalidBackend::NotFound)),
    ] {
        add(&mut index, &route(GW, backend));
        assert_eq!(targets(&index), [expected], "{backend}");
        let names = ["name: api, port: 443", "name: api, port: 80"].contains(&backend);
        assert_eq!(told(&index), Some(if names { accepted().unwrap() } else { Vec::new() }), "{backend}");
    }
    add(&mut index, &route(GW, "name: api"));
    index.delete(&ObjectRef::new(Kind::XBackend, "shop", "api"));
    index.commit();
    assert_eq!((targets(&index), trusts(&index).len(), told(&index)), (vec![Err(InvalidBackend::NotFound)], 0, None));
    assert!(index.resource(&ResourceKey::Service(key())).is_none());
}

#[test]
fn what_is_refused_is_sent_nothing_and_says_why() {
    let (mut index, _) = serve(&(gateway(LISTENER) + NAMESPACES + &route(GW, "name: api") + &host(TLS)));
    for odd in [", protocol: MCP", ", tls: {mode: Odd}", ", tls: {mode: ServerOnly}"] {
        add(&mut index, &host(odd));
        assert_eq!((targets(&index), trusts(&index).len()), (vec![Err(InvalidBackend::NotFound)], 0), "{odd}");
        assert_eq!(told(&index), Some(vec![("gw".to_owned(), vec!["Accepted/UnsupportedValue".to_owned()])]), "{odd}");
        let problems = index.problems(&ObjectRef::new(Kind::HttpRoute, "shop", "r"));
        assert!(
            problems.iter().any(|it| it.message.contains("XBackend shop/api can't be used: spec.")),
            "{problems:?}"
        );
    }
    add(&mut index, &host(""));
    assert_eq!((targets(&index), told(&index)), (vec![Ok(443)], accepted()));
}

#[test]
fn authorities_that_come_and_go_are_followed() {
    let ca = format!(
        "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata:\n  ca.crt: |\n    {}\n",
        AUTHORITY.replace('\n', "\n    ")
    );
    let (mut index, _) = serve(&(gateway(LISTENER) + NAMESPACES + &route(GW, "name: api") + &host(PRIVATE)));
    // The policy stands and can't be followed: 500, never in the clear.
    assert!(matches!(&trusts(&index)[..], [BackendTrust::Invalid(_)]));
    assert_ne!(told(&index), accepted());
    add(&mut index, &ca);
    assert!(matches!(&trusts(&index)[..], [BackendTrust::Bundle(_)]));
    assert_eq!(told(&index), accepted());
    index.delete(&ObjectRef::new(Kind::ConfigMap, "shop", "ca"));
    index.commit();
    assert!(matches!(&trusts(&index)[..], [BackendTrust::Invalid(_)]));
}

/// A node's proxy speaks no TLS to endpoints, and resolves no names.
#[test]
fn a_route_of_a_service_sends_to_no_host_outside() {
    let cart = "{group: '', kind: Service, name: cart}";
    for (parents, expected) in [(cart.to_owned(), 1), (format!("{GW}, {cart}"), 2)] {
        let (index, _) = serve(&(gateway(LISTENER) + NAMESPACES + &route(&parents, "name: api") + &host(TLS)));
        assert_eq!(targets(&index), vec![Err(InvalidBackend::InvalidKind); expected], "{parents}");
        let problems = index.problems(&ObjectRef::new(Kind::HttpRoute, "shop", "r"));
        assert!(problems.iter().any(|it| it.message.contains("from Gateways only")), "{problems:?}");
    }
}

#[test]
fn a_host_of_another_namespace_needs_a_grant_for_its_kind() {
    let far = host("").replace("namespace: shop", "namespace: far");
    let (mut index, _) = serve(&(gateway(LISTENER) + NAMESPACES + &route(GW, "name: api, namespace: far") + &far));
    let from = "group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop";
    assert_eq!(targets(&index), [Err(InvalidBackend::NotPermitted)]);
    add(&mut index, &grant("far", from, "group: '', kind: Service"));
    assert_eq!(targets(&index), [Err(InvalidBackend::NotPermitted)]);
    add(&mut index, &grant("far", from, "group: gateway.networking.x-k8s.io, kind: XBackend"));
    assert_eq!(targets(&index), [Ok(443)]);
}
