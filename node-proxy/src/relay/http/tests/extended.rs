//! WebSockets over HTTP/2.

use std::cell::RefCell;
use std::rc::Rc;

use http::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use weft_core::service::AppProtocol;

use super::world::*;

/// Opens one, as far as the status.
async fn open(world: &World, protocol: &'static str) -> (http::Response<hyper::body::Incoming>, Client) {
    let mut client = world.connect(http::Version::HTTP_2).await;
    let Client::H2(sender) = &mut client else { unreachable!() };
    // Until nobody has anything to do: the server's settings are here.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mut request = Request::builder().method(Method::CONNECT).uri("http://web.shop/chat?x=1").body(empty()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    (answer, client)
}

/// An application that answers whatever it is asked with `says`, and then says what it hears.
fn world(says: &'static str) -> (World, Rc<RefCell<String>>) {
    let world = World::new(service("web", AppProtocol::Http, &[1]));
    let heads = Rc::<RefCell<String>>::default();
    let seen = Rc::clone(&heads);
    world.raw(
        1,
        Rc::new(move |mut stream, _| {
            let seen = Rc::clone(&seen);
            spawn_local(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                *seen.borrow_mut() = String::from_utf8(head).unwrap();
                stream.write_all(says.as_bytes()).await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }),
    );
    (world, heads)
}

#[test]
fn a_websocket_of_an_http_2_client_reaches_an_http_1_endpoint() {
    on_worker(async {
        let (world, heads) = world(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: x\r\nsec-websocket-protocol: chat\r\n\r\nearly",
        );
        let (answer, _client) = open(&world, "websocket").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        let head = heads.borrow().to_lowercase();
        assert!(head.starts_with("get /chat?x=1 http/1.1\r\n"), "{head}");
        for line in ["host: web.shop\r\n", "upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: "] {
            assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
        }
        let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let mut got = [0; 9];
        socket.write_all(b"ping").await.unwrap();
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"earlyping");
        socket.shutdown().await.unwrap();
        assert_eq!(socket.read_to_end(&mut Vec::new()).await.unwrap(), 0, "the end is passed on");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let log = world.logged();
        let entry = log.iter().find(|entry| entry["path"] == "/chat").expect("logged when it is over");
        assert_eq!((entry["status"].as_u64(), entry["response_bytes"].as_u64()), (Some(101), Some(9)));
    });
}

#[test]
fn an_endpoint_that_refuses_is_heard_and_one_that_does_not_switch_is_no_tunnel() {
    for (says, status) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 502),
    ] {
        on_worker(async {
            let (world, _) = world(says);
            assert_eq!(open(&world, "websocket").await.0.status(), status);
        });
    }
    on_worker(async {
        let (world, heads) = world("");
        assert_eq!(open(&world, "connect-udp").await.0.status(), 400);
        assert_eq!(&*heads.borrow(), "", "nothing was sent");
    });
}
