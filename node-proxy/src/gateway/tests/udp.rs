//! Datagrams.

use tokio::net::UdpSocket;
use tokio::time::timeout;
use weft_core::ids::PolicyKey;
use weft_core::policy::{MeshPolicy, Mode, Scope, WorkloadLimits};

use super::*;

/// Answers with its name and what it was sent.
pub(super) async fn echo(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..length]);
            socket.send_to(format!("{name} {text}").as_bytes(), client).await.unwrap();
        }
    });
    address
}

pub(super) async fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(at(port)).await.unwrap();
    socket
}

/// Waits until that many sockets take the datagrams of a port: one for each worker.
async fn until_sockets(port: u16, count: usize) {
    let (port, end) = (format!(":{port:04X}"), Instant::now() + Duration::from_secs(10));
    loop {
        let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
        let local = table.lines().filter_map(|line| line.split_whitespace().nth(1));
        let found = local.filter(|local| local.ends_with(&port)).count();
        if found == count {
            return;
        }
        assert!(Instant::now() < end, "{found} sockets instead of {count}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The answer to a datagram; none in time, or that nobody listens.
pub(super) async fn ask(client: &UdpSocket, text: &str) -> Option<String> {
    client.send(text.as_bytes()).await.ok()?;
    let mut buffer = [0; 2048];
    let length = timeout(Duration::from_millis(500), client.recv(&mut buffer)).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Asks until it is answered so: a change reaches the workers after a moment.
pub(super) async fn until_answered(client: &UdpSocket, want: Option<&str>) {
    let end = Instant::now() + Duration::from_secs(10);
    while ask(client, "x").await.as_deref() != want {
        assert!(Instant::now() < end, "never {want:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn route(to: &[(&str, u32)]) -> Change {
    let backend = |(name, weight): &(&str, u32)| L4Backend {
        target: BackendTarget::Service(service_port(name)),
        weight: *weight,
    };
    of_gateway(RouteRule::L4(L4Rule {
        key: rule_key(RouteKind::Udp, "r"),
        name: None,
        created: Created::default(),
        parents: vec![parent("udp")],
        hostnames: Vec::new(),
        backends: to.iter().map(backend).collect(),
    }))
}

#[test]
fn a_client_keeps_its_endpoint_and_clients_are_shared_by_weight() {
    let port = free();
    on_sockets(async {
        let (one, two, never) = (echo("one").await, echo("two").await, echo("never").await);
        let mut changes = vec![
            listener("udp", port, None, ListenerProtocol::Udp),
            // The same port of TCP is another place.
            listener("tcp", port, None, ListenerProtocol::Http),
            route(&[("one", 1), ("two", 1), ("never", 0)]),
        ];
        changes.extend([("one", one), ("two", two), ("never", never)].into_iter().flat_map(|(n, at)| backend(n, at)));
        let front = Front::start(&changes);
        // Clients are shared anew when one more worker listens.
        until_sockets(port, 2).await;
        let mut answered = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..40 {
            let client = client(port).await;
            let first = ask(&client, "x").await.unwrap();
            for _ in 0..3 {
                assert_eq!(ask(&client, "x").await, Some(first.clone()));
            }
            *answered.entry(first).or_default() += 1;
        }
        // Forty throws of a coin: all on one side once in 10^11 runs.
        assert_eq!(answered.keys().map(String::as_str).collect::<Vec<_>>(), ["one x", "two x"]);
        // An endpoint that is gone from its Service loses its clients.
        let stays = client(port).await;
        let (first, other) = match ask(&stays, "x").await.as_deref() {
            Some("one x") => ("one", ("two x", two)),
            _ => ("two", ("one x", one)),
        };
        front.store.apply(&backend(first, other.1));
        until_answered(&stays, Some(other.0)).await;
        // Without a route there is no answer, and no new session.
        front.store.apply(&[route(&[])]);
        let late = client(port).await;
        until_answered(&late, None).await;
    });
}

#[test]
fn an_endpoint_that_does_not_listen_is_replaced_when_it_says_so() {
    let port = free();
    on_sockets(async {
        let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let one = echo("one").await;
        let mut changes = vec![listener("udp", port, None, ListenerProtocol::Udp), route(&[("gone", 1)])];
        changes.extend([("one", one), ("gone", gone)].into_iter().flat_map(|(name, at)| backend(name, at)));
        let front = Front::start(&changes);
        let client = client(port).await;
        until_answered(&client, None).await;
        // The client's session ended with the endpoint's refusal: the next one goes by the route of now.
        front.store.apply(&[route(&[("one", 1)])]);
        until_answered(&client, Some("one x")).await;
    });
}

#[test]
fn a_workload_of_the_mesh_gets_datagrams_unless_it_takes_nothing_in_the_clear() {
    let port = free();
    on_sockets(async {
        let one = echo("one").await;
        let workload = Workload {
            uid: "Kubernetes//Pod/edge/one".into(),
            namespace: "edge".into(),
            name: "one".into(),
            identity: SpiffeId::new(TrustDomain::default(), "edge", "one"),
            addresses: vec![one.ip()],
            node: "elsewhere".into(),
            zone: None,
            enrolment: Enrolment::Enrolled,
            owner: Owner { kind: "Pod".into(), name: "one".into(), app: "one".into(), version: String::new() },
            policies: Vec::new(),
            probes: Vec::new(),
            network_policy: false,
            telemetry: Vec::new(),
        };
        let mode = |mode| {
            Change::Upsert(Resource::MeshPolicy(Arc::new(MeshPolicy {
                key: PolicyKey::new("edge", "MeshPolicy:mode"),
                scope: Scope::Mesh,
                created_unix_seconds: 0,
                mode: Some(mode),
                port_modes: Vec::new(),
                enforced: false,
                limits: WorkloadLimits::default(),
            })))
        };
        let mut changes = vec![
            listener("udp", port, None, ListenerProtocol::Udp),
            route(&[("one", 1)]),
            Change::Upsert(Resource::Workload(Arc::new(workload))),
            mode(Mode::Permissive),
        ];
        changes.extend(backend("one", one));
        let front = Front::start(&changes);
        until_answered(&client(port).await, Some("one x")).await;
        front.store.apply(&[mode(Mode::Strict)]);
        until_answered(&client(port).await, None).await;
        let refused = client(port).await;
        assert_eq!(ask(&refused, "x").await, None, "also the next client");
    });
}

#[test]
fn new_clients_take_the_place_of_quiet_ones() {
    let port = free();
    on_sockets(async {
        let one = echo("one").await;
        let mut changes = vec![listener("udp", port, None, ListenerProtocol::Udp), route(&[("one", 1)])];
        changes.extend(backend("one", one));
        let _front = Front::start(&changes);
        let first = client(port).await;
        until_answered(&first, Some("one x")).await;
        // More than the quarter of its connections that a proxy has for datagrams.
        let mut others = Vec::new();
        for number in 0..300 {
            let other = client(port).await;
            assert_eq!(ask(&other, "y").await.as_deref(), Some("one y"), "client {number}");
            others.push(other);
        }
    });
}
