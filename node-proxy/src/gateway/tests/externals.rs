//! Hosts outside: resolved, and spoken to as they ask for.

use weft_core::backend_kind::BackendKind;
use weft_core::gateway::{BackendTls, BackendTrust};

use super::*;
use crate::external::tests::resolve_to;

const HOST: &str = "api.example.com";

/// How the backend on a port is spoken to.
fn spoken(port: u16, hostname: &str, trust: BackendTrust) -> Change {
    let service = ServiceKey::of_kind(BackendKind::XBackend, "edge", "api");
    let port = ServicePortKey { service, port: Port::new(port).unwrap() };
    let tls = BackendTls { port, hostname: hostname.to_owned(), subject_alt_names: Vec::new(), trust };
    Change::Upsert(Resource::BackendTls(Arc::new(tls)))
}

/// A backend that is a host, on a port of its own, with a route to it.
fn external(port: u16) -> [Change; 2] {
    let port = Port::new(port).unwrap();
    let key = ServiceKey::of_kind(BackendKind::XBackend, "edge", "api");
    let [Change::Upsert(Resource::Service(service)), _] = backend("api", at(1)) else { panic!() };
    let service = Service {
        key: key.clone(),
        kind: ServiceKind::ExternalName(HOST.to_owned()),
        ports: vec![ServicePort { name: "".into(), port, protocol: AppProtocol::Http }],
        ..(*service).clone()
    };
    let Change::Upsert(Resource::GatewayRule(mut rule)) = http_route(&["a"], "a.com", "api") else { panic!() };
    let target = BackendTarget::Service(ServicePortKey { service: key, port });
    let RouteRule::Http(http) = Arc::make_mut(&mut Arc::make_mut(&mut rule).rule) else { panic!() };
    http.action = HttpAction::Forward(vec![HttpBackend { target, weight: 1, filters: Vec::new() }]);
    [Change::Upsert(Resource::Service(Arc::new(service))), Change::Upsert(Resource::GatewayRule(rule))]
}

async fn until_status(connection: &mut Connection, status: u16) -> Reply {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let reply = ask(connection, "a.com").await;
        if reply.status == status {
            return reply;
        }
        assert!(Instant::now() < end, "{} instead of {status}", reply.status);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the backend was resolved, whatever came of it.
async fn until_resolved(store: &Store) {
    let end = Instant::now() + Duration::from_secs(10);
    let of_host = |resource: &Resource| match resource {
        Resource::EndpointSlice(slice) => slice.key.name.as_str().starts_with("XBackend:"),
        _ => false,
    };
    while !store.load().resources().iter().any(of_host) {
        assert!(Instant::now() < end, "it isn't resolved");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn requests_go_to_a_host_once_it_is_resolved() {
    let (host, port) = (web("host"), free());
    let mut changes = vec![listener("a", port, None, ListenerProtocol::Http)];
    changes.extend(external(host.addr().port()));
    changes.push(spoken(host.addr().port(), HOST, BackendTrust::Plain));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let mut client = Connection::open(at(port), Version::HTTP_11).await.unwrap();
        assert_eq!(ask(&mut client, "a.com").await.status, 503, "it isn't resolved");
        resolve_to(&front.store, &["127.0.0.1"], &["127.0.0.0/8"]).await;
        let reply = until_status(&mut client, 200).await;
        assert_eq!(reply.echo().unwrap().pod, "host");
    });
}

/// Whoever answers for a name may say anything.
#[test]
fn nothing_goes_to_this_machine_by_a_name_of_somebody_else() {
    let (host, port) = (web("host"), free());
    let mut changes = vec![listener("a", port, None, ListenerProtocol::Http)];
    changes.extend(external(host.addr().port()));
    changes.push(spoken(host.addr().port(), HOST, BackendTrust::Plain));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let mut client = Connection::open(at(port), Version::HTTP_11).await.unwrap();
        resolve_to(&front.store, &["127.0.0.1", "::1"], &[]).await;
        until_resolved(&front.store).await;
        for _ in 0..20 {
            assert_eq!(ask(&mut client, "a.com").await.status, 503);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Where TLS is asked for and can't be had, nothing is sent.
#[test]
fn a_host_that_is_to_be_spoken_to_by_tls_is_never_spoken_to_in_the_clear() {
    let (host, port) = (web("host"), free());
    let mut changes = vec![listener("a", port, None, ListenerProtocol::Http)];
    changes.extend(external(host.addr().port()));
    let tls = |trust| spoken(host.addr().port(), HOST, trust);
    changes.push(tls(BackendTrust::Invalid("there is no ConfigMap".to_owned())));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let mut client = Connection::open(at(port), Version::HTTP_11).await.unwrap();
        let sink = resolve_to(&front.store, &["127.0.0.1"], &["127.0.0.0/8"]).await;
        until_resolved(&front.store).await;
        until_status(&mut client, 500).await;
        // With authorities that can be had: the host speaks no TLS, so that nothing comes of it.
        sink.apply(vec![tls(BackendTrust::System)]).await.unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let status = ask(&mut client, "a.com").await.status.as_u16();
            assert!(status >= 500, "{status}");
            if [502, 503].contains(&status) || Instant::now() > end {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Resources come in any order, and a port that is new has nothing of the old one's.
#[test]
fn a_host_is_sent_nothing_before_it_is_known_how_it_is_spoken_to() {
    let (host, port) = (web("host"), free());
    let mut changes = vec![listener("a", port, None, ListenerProtocol::Http)];
    changes.extend(external(host.addr().port()));
    let front = Front::start(&changes);
    on_sockets(async {
        until(port, true).await;
        let mut client = Connection::open(at(port), Version::HTTP_11).await.unwrap();
        let sink = resolve_to(&front.store, &["127.0.0.1"], &["127.0.0.0/8"]).await;
        until_resolved(&front.store).await;
        until_status(&mut client, 500).await;
        let plain = |hostname: &str| spoken(host.addr().port(), hostname, BackendTrust::Plain);
        for (told, status) in [(plain("old.example.com"), 500), (plain(HOST), 200)] {
            sink.apply(vec![told]).await.unwrap();
            until_status(&mut client, status).await;
        }
        // Gone again, as when its port changes, or by a reordering.
        let service = ServiceKey::of_kind(BackendKind::XBackend, "edge", "api");
        let at = ServicePortKey { service, port: Port::new(host.addr().port()).unwrap() };
        sink.apply(vec![Change::Remove(ResourceKey::BackendTls(at))]).await.unwrap();
        until_status(&mut client, 500).await;
    });
}
