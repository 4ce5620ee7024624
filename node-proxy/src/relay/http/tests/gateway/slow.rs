//! Clients that send nothing, or take nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::*;

fn world(app: App) -> World {
    let world = World::new(vec![http("any"), at(&["any"], rule(0, "", vec![backend("web")]))]);
    [1, 2].into_iter().for_each(|last| world.app(last, Rc::clone(&app)));
    world
}

#[test]
fn a_client_without_a_request_is_not_waited_for_long() {
    on_worker(async move {
        let world = world(echo());
        let mut silent = world.connect_gateway_raw(None);
        let _polite = world.connect_gateway(Version::HTTP_2, None).await;
        let mut known = world.connect(Version::HTTP_11).await;
        let mut busy = world.connect_gateway(Version::HTTP_11, None).await;
        assert_eq!(busy.ask(get("a.com", "/")).await.0, 200);
        sleep(Duration::from_secs(110)).await;
        assert_eq!(world.engine.connections(), 4);
        sleep(Duration::from_secs(15)).await;
        assert_eq!(world.engine.connections(), 2);
        silent.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(busy.ask(get("a.com", "/")).await.0, 200, "it has had a request");
        assert_eq!(known.get("/").await.0, 200, "a pod's own");
    });
}

#[test]
fn a_client_that_takes_nothing_is_not_waited_for_long() {
    on_worker(async {
        let world = world(Rc::new(|_, _| Box::pin(async { Response::new(full(vec![0; 1 << 20])) })));
        let mut stuck = world.connect_gateway_raw(None);
        let mut slow = world.connect_gateway_raw(None);
        for client in [&mut stuck, &mut slow] {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a.com\r\n\r\n").await.unwrap();
        }
        for _ in 0..10 {
            sleep(Duration::from_secs(10)).await;
            slow.read_exact(&mut [0; 1 << 10]).await.unwrap();
        }
        assert_eq!(world.engine.connections(), 1);
        stuck.read_to_end(&mut Vec::new()).await.unwrap();
        slow.read_exact(&mut vec![0; 512 << 10]).await.unwrap();
    });
}

#[test]
fn windows_of_clients_from_outside_are_small() {
    on_worker(async {
        let mut client = world(echo()).connect_gateway_raw(None);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[3], 4, "SETTINGS (RFC 9113, section 6.5)");
        let mut settings = vec![0; usize::from(head[2])];
        client.read_exact(&mut settings).await.unwrap();
        let window = settings.chunks(6).find(|setting| setting[..2] == [0, 4]).map(|setting| setting[2..].to_vec());
        let window = window.map_or(65_535, |bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
        assert!(window <= 64 << 10, "{window}");
    });
}

/// What both ends of a connection after a switch have is let go, too, if the client never hears of it.
#[test]
fn a_switch_that_cannot_be_told_keeps_nothing() {
    on_worker(async {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let world = world(Rc::new(|_, _| Box::pin(async { Response::new(full(vec![0; 100 << 10])) })));
        let mut client = world.connect_gateway_raw(None);
        let get = b"GET / HTTP/1.1\r\nhost: a.com\r\n\r\n";
        client.write_all(get).await.unwrap();
        let (mut head, body) = (Vec::new(), 100 << 10);
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        client.read_exact(&mut vec![0; body]).await.unwrap();
        // The same again, of which so much isn't taken that there is no room for a word more.
        client.write_all(get).await.unwrap();
        client.read_exact(&mut vec![0; head.len() + body - (64 << 10)]).await.unwrap();
        for last in [1, 2] {
            world.raw(
                last,
                Rc::new(move |mut stream, _| {
                    drop(tokio::task::spawn_local(async move {
                        stream.read_u8().await.unwrap();
                        stream.write_all(switch.as_bytes()).await.unwrap();
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }))
                }),
            );
        }
        sleep(Duration::from_secs(100)).await;
        let ask = b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        client.write_all(ask).await.unwrap();
        // Until the switch is to be said.
        sleep(Duration::from_secs(1)).await;
        drop(client);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(world.engine.connections(), 0);
    });
}
