//! Any resource that the controller could make.

mod gateway;
mod telemetry;
mod traffic;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::change::{MeshConfig, Resource};
use crate::filter::validate_rule;
use crate::identity::{SpiffeId, TrustDomain, TrustDomains};
use crate::ids::*;
use crate::policy::*;
use crate::route::*;
use crate::service::*;
use crate::workload::*;

/// Small lists: what matters is the shape, and none, one and several are all of it.
const FEW: std::ops::Range<usize> = 0..3;

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9.-]{1,8}"
}

fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,8}"
}

fn port() -> impl Strategy<Value = Port> {
    (1..=u16::MAX).prop_map(|it| Port::new(it).unwrap())
}

fn section() -> impl Strategy<Value = SectionName> {
    "[a-z-]{0,5}".prop_map(SectionName::from)
}

fn net() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<IpAddr>(), 0..=32_u8).prop_map(|(address, prefix)| ipnet::IpNet::new(address, prefix).unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn policy_key() -> impl Strategy<Value = PolicyKey> {
    (text(), text()).prop_map(|(ns, name)| PolicyKey::new(ns, name))
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    (text(), text()).prop_map(|(ns, name)| ServiceKey::new(ns, name))
}

fn service_port_key() -> impl Strategy<Value = ServicePortKey> {
    (service_key(), port()).prop_map(|(service, port)| ServicePortKey { service, port })
}

fn probe() -> impl Strategy<Value = Probe> {
    let call = prop_oneof![
        any_text().prop_map(|target| ProbeCall::Http { target }),
        Just(ProbeCall::Https),
        Just(ProbeCall::Tcp),
        any_text().prop_map(|service| ProbeCall::Grpc { service }),
    ];
    (port(), call).prop_map(|(port, call)| Probe { port, call })
}

fn workload() -> impl Strategy<Value = Workload> {
    let identity = ("[a-z.]{1,9}", "[a-z-]{1,9}", "[a-z-]{1,9}");
    let place = (text(), of(text()), select(&[Enrolment::Enrolled, Enrolment::Outside, Enrolment::HostNetwork][..]));
    let owner = (any_text(), text(), any_text(), any_text());
    let names = (any_text(), text(), text());
    let lists = (vec(policy_key(), FEW), vec(probe(), FEW), any::<bool>(), vec(policy_key(), FEW));
    (names, identity, vec(any::<IpAddr>(), FEW), place, owner, lists).prop_map(
        |((uid, namespace, name), (domain, ns, sa), addresses, (node, zone, enrolment), owner, lists)| {
            let (policies, probes, network_policy, telemetry) = lists;
            Workload {
                uid: format!("u{uid}").into(),
                namespace: namespace.into(),
                name: name.into(),
                identity: SpiffeId::new(domain.parse().unwrap(), ns, sa),
                addresses,
                node: node.into(),
                zone: zone.map(Zone::from),
                enrolment,
                owner: Owner { kind: owner.0, name: owner.1.into(), app: owner.2, version: owner.3 },
                policies,
                probes,
                network_policy,
                telemetry,
            }
        },
    )
}

fn mesh() -> impl Strategy<Value = MeshConfig> {
    let domain = || "[a-z.]{1,9}".prop_map(|text| text.parse::<TrustDomain>().unwrap());
    let domains = (domain(), vec(domain(), FEW)).prop_map(|(own, aliases)| TrustDomains::new(own, aliases));
    (domains, any_text(), vec(net(), FEW), any::<bool>(), vec(net(), FEW)).prop_map(
        |(trust_domains, cluster_domain, cluster_ranges, force_wire, node_addresses)| MeshConfig {
            trust_domains,
            cluster_domain,
            cluster_ranges,
            force_wire,
            node_addresses,
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    use AppProtocol::{Grpc, H2c, Http, Tcp, Tls, Udp, Unspecified, WebSocket};
    let protocol = select(&[Http, H2c, Grpc, WebSocket, Tls, Tcp, Unspecified, Udp][..]);
    let port = (section(), port(), protocol).prop_map(|(name, port, protocol)| ServicePort { name, port, protocol });
    let kind = prop_oneof![
        Just(ServiceKind::ClusterIp),
        Just(ServiceKind::Headless),
        any_text().prop_map(ServiceKind::ExternalName),
    ];
    use TrafficDistribution::{Any, PreferSameNode, PreferSameZone};
    let distribution = select(&[Any, PreferSameZone, PreferSameNode][..]);
    let balancing = prop_oneof![
        Just(Balancing::PeakEwma),
        Just(Balancing::RoundRobin),
        Just(Balancing::ConsistentHash(HashKey::ClientIp)),
        any_text().prop_map(|it| Balancing::ConsistentHash(HashKey::Header(it))),
        any_text().prop_map(|it| Balancing::ConsistentHash(HashKey::Cookie(it))),
    ];
    let proxy = of(select(&[ProxyVersion::V1, ProxyVersion::V2][..]));
    let rest = (of(duration()), distribution, any::<bool>(), (balancing, of(traffic::backend_traffic()), proxy));
    (service_key(), vec(any::<IpAddr>(), FEW), vec(port, FEW), kind, rest).prop_map(
        |(key, addresses, ports, kind, rest)| {
            let (client_ip_affinity, distribution, node_local_only, (balancing, traffic, proxy_protocol)) = rest;
            let traffic = traffic.map(Box::new);
            Service {
                key,
                addresses,
                ports,
                kind,
                client_ip_affinity,
                distribution,
                node_local_only,
                proxy_protocol,
                balancing,
                traffic,
            }
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let ports = (section(), port()).prop_map(|(name, port)| SlicePort { name, port });
    let health = select(&[EndpointHealth::Ready, EndpointHealth::Draining, EndpointHealth::NotReady][..]);
    let endpoint = (any::<IpAddr>(), of(text()), health, of(text()), of(text())).prop_map(
        |(address, workload, health, node, zone)| Endpoint {
            address,
            workload: workload.map(WorkloadUid::from),
            health,
            node: node.map(NodeName::from),
            zone: zone.map(Zone::from),
        },
    );
    (text(), text(), service_key(), vec(ports, FEW), vec(endpoint, FEW)).prop_map(
        |(namespace, name, service, ports, endpoints)| EndpointSlice {
            key: SliceKey { namespace: namespace.into(), name: name.into() },
            service,
            ports,
            endpoints,
        },
    )
}

fn pattern() -> impl Strategy<Value = Pattern> {
    select(&["", "a|b", "/v[0-9]+", "(?i)x", ".*"][..]).prop_map(|it| Pattern::new(it).unwrap())
}

fn text_match() -> impl Strategy<Value = TextMatch> {
    prop_oneof![any_text().prop_map(TextMatch::Exact), pattern().prop_map(TextMatch::Regex)]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z0-9]{1,6}".prop_map(|it| it.parse().unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    vec(0x20..0x7f_u8, 0..6).prop_map(|it| HeaderValue::from_bytes(&it).unwrap())
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        "/[a-z/%]{0,6}".prop_map(PathMatch::Exact),
        "(/[a-z]{1,3}){0,3}".prop_map(PathMatch::Prefix),
        pattern().prop_map(PathMatch::Regex),
        (of(text_match()), of(text_match())).prop_map(|(service, method)| PathMatch::Grpc { service, method }),
    ];
    let method = of(select(vec![Method::GET, Method::PATCH, Method::from_bytes(b"PURGE").unwrap()]));
    let header = (header_name(), text_match()).prop_map(|(name, value)| HeaderMatch { name, value });
    let query = (any_text(), text_match()).prop_map(|(name, value)| QueryMatch { name, value });
    (path, method, vec(header, FEW), vec(query, FEW)).prop_map(|(path, method, headers, query)| HttpMatch {
        path,
        method,
        headers,
        query,
    })
}

fn target() -> impl Strategy<Value = BackendTarget> {
    use InvalidBackend::{InvalidKind, NotFound, NotPermitted, UnsupportedPort};
    let reason = select(&[NotFound, NotPermitted, InvalidKind, UnsupportedPort][..]);
    prop_oneof![
        3 => service_port_key().prop_map(BackendTarget::Service),
        1 => (any_text(), reason).prop_map(|(reference, reason)| BackendTarget::Invalid { reference, reason }),
    ]
}

fn path_modifier() -> impl Strategy<Value = PathModifier> {
    prop_oneof![
        "(/[a-z]{1,3}){0,3}/?".prop_map(PathModifier::Full),
        "(/[a-z]{1,3}){0,3}/?".prop_map(PathModifier::Prefix),
    ]
}

fn modifier() -> impl Strategy<Value = HeaderModifier> {
    let pair = || (header_name(), header_value());
    (vec(pair(), FEW), vec(pair(), FEW), vec(header_name(), FEW)).prop_map(|(set, add, remove)| HeaderModifier {
        set,
        add,
        remove,
    })
}

fn filter() -> impl Strategy<Value = HttpFilter> {
    let mirror = (target(), any::<u32>(), any::<u32>()).prop_map(|(backend, a, b)| Mirror {
        backend,
        fraction: Fraction { numerator: a.min(b), denominator: NonZeroU32::new(a.max(b)).unwrap_or(NonZeroU32::MIN) },
    });
    let origin = prop_oneof![
        Just(OriginMatch::Any),
        any_text().prop_map(OriginMatch::Exact),
        (any_text(), any_text()).prop_map(|(scheme, suffix)| OriginMatch::Wildcard { scheme, suffix }),
    ];
    let texts = || vec(any_text(), FEW);
    let cors = (vec(origin, FEW), any::<bool>(), texts(), texts(), texts(), any::<u32>()).prop_map(
        |(allow_origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age_seconds)| Cors {
            allow_origins,
            allow_credentials,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age_seconds,
        },
    );
    prop_oneof![
        modifier().prop_map(HttpFilter::RequestHeaders),
        modifier().prop_map(HttpFilter::ResponseHeaders),
        (of(header_value()), of(path_modifier()))
            .prop_map(|(hostname, path)| HttpFilter::Rewrite(Rewrite { hostname, path })),
        mirror.prop_map(HttpFilter::Mirror),
        cors.prop_map(HttpFilter::Cors),
        external_auth().prop_map(HttpFilter::ExternalAuth),
    ]
}

fn external_auth() -> impl Strategy<Value = ExternalAuth> {
    let names = || vec(header_name(), FEW);
    let protocol = prop_oneof![
        names().prop_map(|headers| AuthProtocol::Grpc { headers }),
        ("(/[a-z]{1,3}){0,3}", names(), names()).prop_map(|(path, request_headers, response_headers)| {
            AuthProtocol::Http { path, request_headers, response_headers }
        }),
    ];
    (target(), protocol, 0..=MAX_SHOWN_BODY).prop_map(|(authorizer, protocol, max)| ExternalAuth {
        authorizer,
        protocol,
        max_body: NonZeroU32::new(max),
    })
}

fn action() -> impl Strategy<Value = HttpAction> {
    let backend = (target(), any::<u32>(), vec(filter(), FEW)).prop_map(|(target, weight, filters)| HttpBackend {
        target,
        weight,
        filters,
    });
    let status = select(&[301_u16, 302, 303, 307, 308][..]).prop_map(|it| StatusCode::from_u16(it).unwrap());
    let scheme = of(select(&[RedirectScheme::Http, RedirectScheme::Https][..]));
    let redirect = (scheme, of(any_text()), of(path_modifier()), of(port()), status)
        .prop_map(|(scheme, hostname, path, port, status)| Redirect { scheme, hostname, path, port, status });
    prop_oneof![
        3 => vec(backend, FEW).prop_map(HttpAction::Forward),
        1 => redirect.prop_map(HttpAction::Redirect),
        1 => any_text().prop_map(HttpAction::Invalid),
    ]
}

type Common = ((String, String, u16, Option<SectionName>, i64), Vec<Parent>, Vec<HostnameMatch>);

fn common() -> impl Strategy<Value = Common> {
    let parent = prop_oneof![
        (service_port_key(), of(text()))
            .prop_map(|(port, consumer)| Parent::Service { port, consumer: consumer.map(Namespace::from) }),
        gateway::listener_key().prop_map(Parent::Listener),
    ];
    let names = (text(), text(), any::<u16>(), of(section()), any::<i64>());
    (names, vec(parent, FEW), vec(hostname(), FEW))
}

fn hostname() -> impl Strategy<Value = HostnameMatch> {
    "([*][.])?[a-z]{1,4}([.][a-z]{1,4}){0,2}".prop_map(|it| HostnameMatch::new(&it))
}

fn key(kind: RouteKind, namespace: String, name: String, index: u16) -> RuleKey {
    RuleKey { route: RouteKey { kind, namespace: namespace.into(), name: name.into() }, index }
}

fn http_rule() -> impl Strategy<Value = RouteRule> {
    let kind = select(&[RouteKind::Http, RouteKind::Grpc][..]);
    let retry = (any::<u32>(), duration(), vec((100..1000_u16).prop_map(|it| StatusCode::from_u16(it).unwrap()), FEW))
        .prop_map(|(attempts, backoff, codes)| Retry { attempts, backoff, codes });
    let timeouts =
        (of(duration()), of(duration())).prop_map(|(request, backend_request)| Timeouts { request, backend_request });
    let rest = (vec(http_match(), 1..3), vec(filter(), FEW), action(), timeouts, (of(retry), traffic::sessions()));
    (kind, common(), rest)
        .prop_map(|(kind, ((namespace, name, index, section, created), parents, hostnames), rest)| HttpRule {
            key: key(kind, namespace, name, index),
            name: section,
            created: Created { unix_seconds: created },
            parents,
            hostnames,
            matches: rest.0,
            filters: rest.1,
            action: rest.2,
            timeouts: rest.3,
            retry: rest.4.0,
            sessions: rest.4.1,
        })
        .prop_filter("the controller makes only valid rules", |rule| validate_rule(rule).is_ok())
        .prop_map(RouteRule::Http)
}

fn l4_rule() -> impl Strategy<Value = RouteRule> {
    let kind = select(&[RouteKind::Tls, RouteKind::Tcp, RouteKind::Udp][..]);
    let backend = (target(), any::<u32>()).prop_map(|(target, weight)| L4Backend { target, weight });
    (kind, common(), vec(backend, FEW)).prop_map(
        |(kind, ((namespace, name, index, section, created), parents, hostnames), backends)| {
            RouteRule::L4(L4Rule {
                key: key(kind, namespace, name, index),
                name: section,
                created: Created { unix_seconds: created },
                parents,
                hostnames,
                backends,
            })
        },
    )
}

fn glob() -> impl Strategy<Value = GlobMatch> {
    prop_oneof![
        Just(GlobMatch::Any),
        any_text().prop_map(GlobMatch::Exact),
        any_text().prop_map(GlobMatch::Prefix),
        any_text().prop_map(GlobMatch::Suffix),
    ]
}

fn globs() -> impl Strategy<Value = Vec<GlobMatch>> {
    vec(glob(), FEW)
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::Mesh), text().prop_map(|it| Scope::Namespace(it.into())), Just(Scope::Selected)]
}

fn authorization() -> impl Strategy<Value = AuthorizationPolicy> {
    let nets = || vec(net(), FEW);
    let source = (globs(), globs(), globs(), globs(), nets(), nets()).prop_map(
        |(identities, not_identities, namespaces, not_namespaces, addresses, not_addresses)| Source {
            identities,
            not_identities,
            namespaces,
            not_namespaces,
            addresses,
            not_addresses,
        },
    );
    let header = ("[a-z-]{1,6}", globs(), globs()).prop_map(|(name, values, not_values)| HeaderCondition {
        name,
        values,
        not_values,
    });
    let ports = || vec(port(), FEW);
    let texts = (globs(), globs(), globs(), globs(), globs(), globs());
    let operation = (ports(), ports(), texts, vec(header, FEW)).prop_map(|(ports, not_ports, globs, headers)| {
        let (methods, not_methods, paths, not_paths, hosts, not_hosts) = globs;
        Operation { ports, not_ports, methods, not_methods, paths, not_paths, hosts, not_hosts, headers }
    });
    let rule = (vec(source, FEW), vec(operation, FEW)).prop_map(|(from, to)| AuthorizationRule { from, to });
    let action = select(&[Action::Allow, Action::Deny, Action::Audit][..]);
    (policy_key(), scope(), action, any::<bool>(), vec(rule, FEW))
        .prop_map(|(key, scope, action, dry_run, rules)| AuthorizationPolicy { key, scope, action, dry_run, rules })
}

fn mesh_policy() -> impl Strategy<Value = MeshPolicy> {
    let mode = || select(&[Mode::Permissive, Mode::Strict, Mode::StrictAudit][..]);
    let limits = (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<u64>>()).prop_map(
        |(max_connections, max_handshakes, max_buffer_bytes)| WorkloadLimits {
            max_connections,
            max_handshakes,
            max_buffer_bytes,
        },
    );
    (policy_key(), scope(), any::<i64>(), of(mode()), vec((port(), mode()), FEW), any::<bool>(), limits).prop_map(
        |(key, scope, created_unix_seconds, mode, port_modes, enforced, limits)| MeshPolicy {
            key,
            scope,
            created_unix_seconds,
            mode,
            port_modes,
            enforced,
            limits,
        },
    )
}

/// Any resource.
pub(super) fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        2 => workload().prop_map(|it| Resource::Workload(Arc::new(it))),
        2 => service().prop_map(|it| Resource::Service(Arc::new(it))),
        2 => slice().prop_map(|it| Resource::EndpointSlice(Arc::new(it))),
        4 => http_rule().prop_map(|it| Resource::Rule(Arc::new(it))),
        1 => l4_rule().prop_map(|it| Resource::Rule(Arc::new(it))),
        2 => authorization().prop_map(|it| Resource::Authorization(Arc::new(it))),
        1 => mesh_policy().prop_map(|it| Resource::MeshPolicy(Arc::new(it))),
        1 => telemetry::policy().prop_map(|it| Resource::Telemetry(Arc::new(it))),
        2 => gateway::listener().prop_map(|it| Resource::Listener(Arc::new(it))),
        1 => gateway::certificate().prop_map(|it| Resource::Certificate(Arc::new(it))),
        1 => l4_rule().prop_flat_map(gateway::rule).prop_map(|it| Resource::GatewayRule(Arc::new(it))),
        1 => gateway::config().prop_map(|it| Resource::GatewayConfig(Arc::new(it))),
        1 => gateway::backend_tls().prop_map(|it| Resource::BackendTls(Arc::new(it))),
        1 => mesh().prop_map(|it| Resource::Mesh(Arc::new(it))),
    ]
}
