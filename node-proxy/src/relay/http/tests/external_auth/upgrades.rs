//! WebSockets, which are opened if they are permitted.

use super::*;

#[test]
fn a_websocket_is_opened_when_it_is_permitted() {
    for (code, answer) in [(200, "HTTP/1.1 101"), (403, "HTTP/1.1 403")] {
        on_worker(async move {
            let world = world(guarded(filter(over_http("", &[], &[]), 100)));
            world.app(4, notes(plain(code)).0);
            world.raw(
                1,
                Rc::new(|mut stream, _| {
                    spawn_local(async move {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            head.push(stream.read_u8().await.unwrap());
                        }
                        let says =
                            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi";
                        stream.write_all(says).await.unwrap();
                        let _ = stream.read_u8().await;
                    });
                }),
            );
            let mut client = world.connect_raw();
            let head = "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            client.write_all(head.as_bytes()).await.unwrap();
            let mut said = [0; 12];
            client.read_exact(&mut said).await.unwrap();
            assert_eq!(&said[..], answer.as_bytes());
        });
    }
}

/// To a client of HTTP/2 every success means that its WebSocket is open.
#[test]
fn a_no_is_never_a_success_to_who_opens_a_websocket_over_http_2() {
    for (said, heard) in [(200, 403), (204, 403), (302, 302), (401, 401)] {
        on_worker(async move {
            let world = world(guarded(filter(over_grpc(), 0)));
            world.app(
                4,
                decides(move |_| {
                    let status = Some(weft_api::envoy::r#type::v3::HttpStatus { code: said });
                    let denied = DeniedHttpResponse { status, ..DeniedHttpResponse::default() };
                    says(7, Some(HttpResponse::DeniedResponse(denied)))
                }),
            );
            let mut client = world.connect(Version::HTTP_2).await;
            // Until the server's settings are here.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Client::H2(sender) = &mut client else { unreachable!() };
            let mut request = Request::connect("http://web.shop/chat").body(empty()).unwrap();
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), heard, "{said}");
        });
    }
}
