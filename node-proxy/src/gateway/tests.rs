//! Listeners on real sockets: workers of a proxy, and clients and applications beside them.

mod clients;
mod externals;
mod http3;
mod tls;
mod udp;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::gateway::{Certificate, GatewayRule, Listener, ListenerProtocol, PrivateKey};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::{
    CertificateKey, GatewayKey, ListenerKey, Port, RouteKey, RouteKind, RuleKey, SecretKey, ServiceKey, ServicePortKey,
};
use weft_core::route::{
    BackendTarget, Created, HostnameMatch, HttpAction, HttpBackend, HttpMatch, HttpRule, L4Backend, L4Rule, Parent,
    PathMatch, RouteRule, Timeouts,
};
use weft_core::service::*;
use weft_core::workload::{Enrolment, Owner, Workload};
use weft_testkit::Netns;
use weft_testkit::clients::{Connection, Reply, banner, connect, request};
use weft_testkit::servers::{self, Behaviour, Server};
use weft_tls::{CertStore, Clock, TlsSettings, TrustBundle, TrustStore};

use crate::balance::NodeZone;
use crate::budget::{Defaults, NodeBudget};
use crate::relay::http::{HttpSettings, Telemetered};
use crate::store::Store;
use crate::telemetry::{AccessLog, LogFormat, LogPolicy, Registry};
use crate::worker::{Command, Engine, Limits, Node, Workers};

/// Workers that follow a store, as those of a proxy do.
struct Front {
    store: Arc<Store>,
    registry: Arc<Registry>,
    workers: Option<Workers>,
}

impl Front {
    fn start(changes: &[Change]) -> Self {
        Self::with(changes, HttpSettings::default(), Limits::default(), 1000)
    }

    /// With limits of its own, and so many connections at once.
    fn with(changes: &[Change], settings: HttpSettings, limits: Limits, connections: u32) -> Self {
        let trust = TrustStore::new(TrustBundle::default());
        let store = Arc::new(Store::default());
        store.apply(changes);
        let most = Defaults { connections, handshakes: 8, buffer_bytes: 1 << 30 };
        let node = Arc::new(Node {
            name: "n1".into(),
            store: Arc::clone(&store),
            certificates: CertStore::new(trust, Clock::system(), TlsSettings::default()),
            budget: NodeBudget::new(connections, most),
            addresses: Vec::new(),
            gateways: Default::default(),
            limits,
        });
        let (log, _queue) = AccessLog::new(LogPolicy::Off, LogFormat::Json);
        let (zone, records, registry) = (NodeZone::default(), Default::default(), Arc::<Registry>::default());
        let engine =
            Telemetered { registry: Arc::clone(&registry), log, records, shared: Arc::default(), zone, settings };
        let engine: Arc<dyn Engine> = Arc::new(engine);
        Self { store, registry, workers: Some(Workers::start(&node, &engine, 2).unwrap()) }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.stop();
        }
    }
}

/// A port that nobody listens on.
fn free() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn key(name: &str) -> ListenerKey {
    ListenerKey::new(GatewayKey::new("edge", "gw"), name)
}

fn listener(name: &str, port: u16, hostname: Option<&str>, protocol: ListenerProtocol) -> Change {
    Change::Upsert(Resource::Listener(Arc::new(Listener {
        key: key(name),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        port: Port::new(port).unwrap(),
        hostname: hostname.map(HostnameMatch::new),
        protocol,
        kinds: vec![RouteKind::Http, RouteKind::Tls, RouteKind::Tcp, RouteKind::Udp],
        client_validation: None,
        policies: Vec::new(),
        http3: false,
    })))
}

fn service_port(name: &str) -> ServicePortKey {
    ServicePortKey { service: ServiceKey::new("edge", name), port: Port::new(80).unwrap() }
}

fn backend(name: &str, address: SocketAddr) -> [Change; 2] {
    let service = Service {
        key: ServiceKey::new("edge", name),
        addresses: Vec::new(),
        ports: vec![ServicePort {
            name: "main".into(),
            port: Port::new(80).unwrap(),
            protocol: AppProtocol::Unspecified,
        }],
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::RoundRobin,
        traffic: None,
    };
    let endpoint =
        Endpoint { address: address.ip(), workload: None, health: EndpointHealth::Ready, node: None, zone: None };
    let slice = EndpointSlice {
        key: SliceKey { namespace: "edge".into(), name: name.into() },
        service: service.key.clone(),
        ports: vec![SlicePort { name: "main".into(), port: Port::new(address.port()).unwrap() }],
        endpoints: vec![endpoint],
    };
    [Change::Upsert(Resource::Service(Arc::new(service))), Change::Upsert(Resource::EndpointSlice(Arc::new(slice)))]
}

fn parent(listener: &str) -> Parent {
    Parent::Listener(key(listener))
}

fn rule_key(kind: RouteKind, name: &str) -> RuleKey {
    RuleKey { route: RouteKey { kind, namespace: "edge".into(), name: name.into() }, index: 0 }
}

fn of_gateway(rule: RouteRule) -> Change {
    let rule = GatewayRule { gateway: GatewayKey::new("edge", "gw"), rule: Arc::new(rule) };
    Change::Upsert(Resource::GatewayRule(Arc::new(rule)))
}

/// An HTTPRoute of the name of its backend.
fn http_route(listeners: &[&str], hostname: &str, to: &str) -> Change {
    let everything = HttpMatch { path: PathMatch::Prefix(String::new()), method: None, headers: vec![], query: vec![] };
    let target = BackendTarget::Service(service_port(to));
    of_gateway(RouteRule::Http(HttpRule {
        key: rule_key(RouteKind::Http, &format!("{to}-{hostname}")),
        name: None,
        created: Created::default(),
        parents: listeners.iter().map(|listener| parent(listener)).collect(),
        hostnames: vec![HostnameMatch::new(hostname)],
        matches: vec![everything],
        filters: Vec::new(),
        action: HttpAction::Forward(vec![HttpBackend { target, weight: 1, filters: Vec::new() }]),
        timeouts: Timeouts::default(),
        retry: None,
        sessions: Default::default(),
    }))
}

fn l4_route(kind: RouteKind, listener: &str, hostnames: &[&str], to: &str) -> Change {
    of_gateway(RouteRule::L4(L4Rule {
        key: rule_key(kind, to),
        name: None,
        created: Created::default(),
        parents: vec![parent(listener)],
        hostnames: hostnames.iter().map(|name| HostnameMatch::new(name)).collect(),
        backends: vec![L4Backend { target: BackendTarget::Service(service_port(to)), weight: 1 }],
    }))
}

fn web(name: &str) -> Server {
    servers::http(&Netns::here(), name, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

async fn ask(connection: &mut Connection, host: &str) -> Reply {
    connection.send(request(Method::GET, "/", &[("host", host)], "")).await.unwrap()
}

/// Waits until a port takes connections, or does not.
async fn until(port: u16, listens: bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while connect(at(port)).await.is_ok() != listens {
        assert!(Instant::now() < end, "port {port} listens: {}", !listens);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn on_sockets(test: impl Future<Output = ()> + Send) {
    Netns::here().block_on(test);
}

#[test]
fn listeners_come_and_go_and_open_connections_stay() {
    let (one, two) = (web("one"), web("two"));
    let (first, second, moved) = (free(), free(), free());
    let mut changes = vec![
        listener("a", first, None, ListenerProtocol::Http),
        listener("b", second, Some("*.b.com"), ListenerProtocol::Http),
        http_route(&["a", "b"], "x.b.com", "two"),
        http_route(&["a"], "a.com", "one"),
    ];
    changes.extend(backend("one", one.addr()));
    changes.extend(backend("two", two.addr()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(first, true).await;
        until(second, true).await;
        let mut kept = Connection::open(at(first), Version::HTTP_11).await.unwrap();
        let mut h2 = Connection::open(at(second), Version::HTTP_2).await.unwrap();
        for (host, name) in [("a.com", "one"), ("x.b.com", "two")] {
            assert_eq!(ask(&mut kept, host).await.echo().unwrap().pod, name);
        }
        let echo = ask(&mut h2, "x.b.com").await.echo().unwrap();
        assert_eq!((echo.pod.as_str(), echo.version.as_str()), ("two", "HTTP/1.1"));
        assert_eq!(echo.header("x-forwarded-for"), Some("127.0.0.1"));
        for host in ["y.b.com", "a.com"] {
            assert_eq!(ask(&mut h2, host).await.status, 404, "{host}");
        }
        front.store.apply(&[listener("b", moved, Some("*.b.com"), ListenerProtocol::Http)]);
        until(second, false).await;
        until(moved, true).await;
        assert_eq!(ask(&mut kept, "a.com").await.status, 200, "the same connection");
        assert_eq!(ask(&mut h2, "x.b.com").await.status, 404, "its listener is gone, it is not");
        front.store.apply(&[Change::Remove(ResourceKey::Listener(key("a")))]);
        until(first, false).await;
        assert_eq!(ask(&mut kept, "a.com").await.status, 404);
        until(moved, true).await;
        // Drained: nobody listens, and nothing is closed by force.
        for worker in front.workers.as_ref().unwrap().handles().iter() {
            worker.tell(Command::Drain);
        }
        until(moved, false).await;
    });
}

#[test]
fn what_is_in_the_mesh_is_not_reached_in_the_clear() {
    let server = web("meshed");
    let port = free();
    let meshed = Workload {
        uid: "Kubernetes//Pod/edge/meshed".into(),
        namespace: "edge".into(),
        name: "meshed".into(),
        identity: SpiffeId::new(TrustDomain::default(), "edge", "meshed"),
        addresses: vec![server.addr().ip()],
        node: "elsewhere".into(),
        zone: None,
        enrolment: Enrolment::Enrolled,
        owner: Owner { kind: "Pod".into(), name: "meshed".into(), app: "meshed".into(), version: String::new() },
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    };
    let mut changes = vec![listener("a", port, None, ListenerProtocol::Http), http_route(&["a"], "a.com", "meshed")];
    changes.extend(backend("meshed", server.addr()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let mut client = Connection::open(at(port), Version::HTTP_11).await.unwrap();
        assert_eq!(ask(&mut client, "a.com").await.status, 200, "outside it is reached");
        let refused = |times: u32| {
            let text = front.registry.render();
            let of_reason = |line: &&str| {
                line.contains("reason=\"no_certificate\"") && line.starts_with("weft_http_requests_total{")
            };
            let count = text.lines().filter(of_reason).filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
            assert_eq!(count.sum::<u32>(), times, "{text}");
        };
        // On another node, and on this one.
        for (node, times) in [("elsewhere", 1), ("n1", 2)] {
            let workload = Workload { node: node.into(), ..meshed.clone() };
            front.store.apply(&[Change::Upsert(Resource::Workload(Arc::new(workload)))]);
            let mut client = Connection::open(at(port), Version::HTTP_11).await.unwrap();
            let reply = ask(&mut client, "a.com").await;
            assert_eq!(reply.status.as_u16(), 503, "{node}");
            assert!(reply.body.starts_with(b"request "), "clients aren't told why: {reply:?}");
            refused(times);
        }
    });
}

#[test]
fn a_port_that_is_taken_costs_no_other_and_is_had_when_it_is_free() {
    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (taken, other) = (squatter.local_addr().unwrap().port(), free());
    let front = Front::start(&[
        listener("a", taken, None, ListenerProtocol::Http),
        listener("b", other, None, ListenerProtocol::Http),
    ]);
    on_sockets(async {
        until(other, true).await;
        drop(squatter);
        // Tried again with the next edit at the latest.
        front.store.apply(&[listener("c", free(), None, ListenerProtocol::Http)]);
        until(taken, true).await;
        let mut client = Connection::open(at(taken), Version::HTTP_11).await.unwrap();
        assert_eq!(ask(&mut client, "a.com").await.status, 404);
    });
}

#[test]
fn bytes_pass_by_tcp_and_by_the_name_in_a_client_hello() {
    let server = servers::tcp(&Netns::here(), "db", (Ipv4Addr::LOCALHOST, 0).into(), Behaviour::Banner).unwrap();
    let (tcp, tls) = (free(), free());
    let mut changes = vec![
        listener("tcp", tcp, None, ListenerProtocol::Tcp),
        listener("tls", tls, Some("*.a.com"), ListenerProtocol::TlsPassthrough),
        l4_route(RouteKind::Tcp, "tcp", &[], "db"),
        l4_route(RouteKind::Tls, "tls", &["db.a.com"], "db"),
    ];
    changes.extend(backend("db", server.addr()));
    let _front = Front::start(&changes);
    on_sockets(async {
        until(tcp, true).await;
        until(tls, true).await;
        assert_eq!(banner(at(tcp)).await.unwrap(), "220 db");
        let mut client = connect(at(tls)).await.unwrap();
        client.write_all(&client_hello("db.a.com")).await.unwrap();
        let mut got = [0; 6];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"220 db");
        // A name that no listener has, and one of the listener's that no route has: reset, as where nobody listens.
        for name in ["b.com", "other.a.com"] {
            let mut client = connect(at(tls)).await.unwrap();
            client.write_all(&client_hello(name)).await.unwrap();
            assert!(client.read_u8().await.is_err(), "{name}");
        }
    });
}

#[test]
fn a_listener_whose_certificate_has_not_come_refuses_and_serves_when_it_has() {
    let port = free();
    let certificate = CertificateKey::new(GatewayKey::new("edge", "gw"), SecretKey::new("edge", "c"));
    let https = ListenerProtocol::Https { certificates: vec![certificate.clone()] };
    let front = Front::start(&[listener("a", port, Some("a.com"), https)]);
    let made = rcgen::generate_simple_self_signed(vec!["a.com".to_owned()]).unwrap();
    on_sockets(async {
        until(port, true).await;
        let first = async || {
            let mut client = connect(at(port)).await.unwrap();
            client.write_all(&client_hello("a.com")).await.unwrap();
            client.read_u8().await
        };
        assert!(first().await.is_err(), "reset");
        front.store.apply(&[Change::Upsert(Resource::Certificate(Arc::new(Certificate {
            key: certificate,
            chain: made.cert.pem().into_bytes(),
            private_key: PrivateKey::new(made.signing_key.serialize_pem()),
        })))]);
        // An alert: this hello offers nothing that TLS could be spoken with. But now somebody answers.
        assert_eq!(first().await.unwrap(), 21);
        // A name that none of the listeners has, which all end TLS: said in TLS (RFC 6066, section 3).
        let mut client = connect(at(port)).await.unwrap();
        client.write_all(&client_hello("b.com")).await.unwrap();
        let mut alert = [0; 7];
        client.read_exact(&mut alert).await.unwrap();
        assert_eq!(alert, [21, 3, 3, 0, 2, 2, 112]);
    });
}

/// A ClientHello with a server name and nothing else (RFC 8446, section 4.1.2; RFC 6066, section 3).
fn client_hello(name: &str) -> Vec<u8> {
    let vector = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let name = [&[0][..], &vector(name.as_bytes())].concat();
    let extension = [&[0, 0][..], &vector(&vector(&name))].concat();
    let hello = [&[3, 3][..], &[7; 32], &[0], &vector(&[0x13, 0x01]), &[1, 0], &vector(&extension)].concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &hello].concat();
    [&[22, 3, 1][..], &vector(&message)].concat()
}
