//! Endpoints that are told of clients by the PROXY protocol, and the connections for it.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft_core::service::{ProxyVersion, Service};

use super::clients::{by, config, one_hop};
use super::*;

/// A Gateway whose one backend is told. The application says which header it got; and how many connections it has.
fn world(protocol: AppProtocol) -> (World, Rc<Cell<u32>>) {
    let mut changes = service("web", protocol, &[1]);
    let Change::Upsert(Resource::Service(service)) = &mut changes[0] else { unreachable!() };
    *service = Arc::new(Service { proxy_protocol: Some(ProxyVersion::V1), ..(**service).clone() });
    changes.extend([http("any"), at(&["any"], rule(0, "", vec![backend("web")])), config(one_hop(), false)]);
    let world = World::new(changes);
    let open = Rc::<Cell<u32>>::default();
    let counted = Rc::clone(&open);
    world.raw(
        1,
        Rc::new(move |stream, address| {
            let counted = Rc::clone(&counted);
            tokio::task::spawn_local(async move {
                use tokio::io::AsyncReadExt;
                let (mut stream, mut line) = (stream, Vec::new());
                while !line.ends_with(b"\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    line.push(byte);
                }
                counted.set(counted.get() + 1);
                let line = String::from_utf8(line).unwrap();
                let app: App = Rc::new(move |_, _| {
                    let line = line.clone();
                    Box::pin(async move { Response::new(full(line)) })
                });
                serve_app(stream, address, app).await;
                counted.set(counted.get() - 1);
            });
        }),
    );
    (world, open)
}

async fn ask(client: &mut Client, behind: &'static str) -> String {
    let (status, _, body) = client.ask(by(get("a.com", "/"), "x-forwarded-for", behind)).await;
    assert_eq!(status, 200);
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn connections_that_tell_of_a_client_carry_nobody_elses_requests() {
    on_worker(async {
        let (world, _) = world(AppProtocol::Http);
        let mut client = world.connect_gateway(Version::HTTP_11, None).await;
        for (behind, dials) in
            [("203.0.113.1", 1), ("203.0.113.1", 1), ("203.0.113.2", 2), ("203.0.113.1", 2), ("203.0.113.2", 2)]
        {
            let told = ask(&mut client, behind).await;
            assert_eq!((told, world.net.dials.get()), (format!("PROXY TCP4 {behind} 192.0.2.1 0 80\r\n"), dials));
        }
        let (_, _, body) = client.ask(get("a.com", "/")).await;
        assert_eq!(body, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n");
        // A pod's own requests are as they were.
        let mut pod = world.connect(Version::HTTP_11).await;
        world.app(1, echo());
        assert_eq!(pod.get("/").await.0, 200);
    });
}

#[test]
fn connections_that_tell_of_a_client_end_with_its_own() {
    for (protocol, pooled) in [(AppProtocol::Http, (1, 0)), (AppProtocol::H2c, (0, 1))] {
        on_worker(async move {
            let (world, open) = world(protocol);
            let mut client = world.connect_gateway(Version::HTTP_11, None).await;
            let mut other = world.connect_gateway(Version::HTTP_11, None).await;
            ask(&mut client, "203.0.113.1").await;
            assert_eq!((open.get(), world.engine.pooled()), (1, pooled), "counted with all others");
            ask(&mut other, "203.0.113.2").await;
            let since = Instant::now();
            drop(client);
            while open.get() > 1 {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
            assert_eq!(world.engine.pooled(), pooled);
            ask(&mut other, "203.0.113.2").await;
            assert_eq!(world.net.dials.get(), 2, "another client's is kept");
            // Not for longer than any other.
            sleep(Duration::from_secs(70)).await;
            assert_eq!((open.get(), world.engine.connections()), (0, 1));
        });
    }
}

#[test]
fn a_proxy_with_many_clients_behind_it_has_few_idle_connections() {
    for protocol in [AppProtocol::Http, AppProtocol::H2c] {
        on_worker(async move {
            let (world, open) = world(protocol);
            let mut client = world.connect_gateway(Version::HTTP_11, None).await;
            for last in 0..100 {
                ask(&mut client, format!("203.0.113.{last}").leak()).await;
                sleep(Duration::from_millis(1)).await;
            }
            let (idle, h2) = world.engine.pooled();
            assert_eq!((idle + h2, open.get()), (16, 16), "{protocol:?}");
            let dials = world.net.dials.get();
            for last in 84..100 {
                ask(&mut client, format!("203.0.113.{last}").leak()).await;
            }
            assert_eq!(world.net.dials.get(), dials, "those of the last are kept");
        });
    }
}
