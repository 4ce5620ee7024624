//! Authorizers that are asked over gRPC, and clients that speak it.

use super::*;

#[test]
fn an_authorizer_over_grpc_changes_what_it_permits_and_says_what_it_denies() {
    for version in BOTH {
        on_worker(async move {
            let world = world(guarded(filter(over_grpc(), 0)));
            let asked = Rc::new(RefCell::new(Vec::new()));
            let noted = Rc::clone(&asked);
            world.app(
                4,
                decides(move |http| {
                    let path = http.path.clone();
                    noted.borrow_mut().push(http);
                    if path == "/no" {
                        let denied = DeniedHttpResponse {
                            status: Some(weft_api::envoy::r#type::v3::HttpStatus { code: 418 }),
                            headers: vec![header("x-why", "tea")],
                            body: "a pot".into(),
                        };
                        return says(7, Some(HttpResponse::DeniedResponse(denied)));
                    }
                    let ok = OkHttpResponse {
                        headers: vec![header("x-user", "ann"), header("host", "evil"), header("content-length", "9")],
                        headers_to_remove: vec!["authorization".into()],
                        response_headers_to_add: vec![header("x-seen", "1")],
                        ..OkHttpResponse::default()
                    };
                    says(0, Some(HttpResponse::OkResponse(ok)))
                }),
            );
            let (app, seen) = notes(plain(200));
            world.app(1, app);
            let mut client = world.connect(version).await;
            let request = |path: &str| {
                let request = Request::post(path).header("authorization", "Bearer t").header("x-user", "root");
                request.body(full("abc")).unwrap()
            };
            let (status, headers, _) = client.ask(request("/yes?a=b")).await;
            assert_eq!((status, headers.get("x-seen")), (200, Some(&"1".parse().unwrap())));
            let (head, body) = seen.borrow_mut().pop().unwrap();
            assert_eq!(
                (&head.headers["x-user"], head.headers.get("authorization")),
                (&"ann".parse::<HeaderValue>().unwrap(), None)
            );
            assert_eq!((host(&head), &body[..]), ("web.shop".to_owned(), &b"abc"[..]));
            let (status, headers, body) = client.ask(request("/no")).await;
            assert_eq!((status, &headers["x-why"], &body[..]), (418, &"tea".parse().unwrap(), &b"a pot"[..]));
            assert!(seen.borrow().is_empty());
            let asked = asked.borrow();
            assert_eq!(
                (asked.len(), &*asked[0].path, &*asked[0].host, &*asked[0].body),
                (2, "/yes?a=b", "web.shop", "")
            );
            assert_eq!((&*asked[0].headers["authorization"], &*asked[0].headers[":method"]), ("Bearer t", "POST"));
            assert_eq!(asked[0].protocol, if version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" });
        });
    }
}

#[test]
fn a_grpc_client_hears_a_grpc_status() {
    for (code, status) in [(401, "16"), (403, "7"), (404, "12"), (503, "14"), (200, "2")] {
        on_worker(async move {
            let mut rule = guarded(filter(over_grpc(), 0));
            rule.key.route.kind = RouteKind::Grpc;
            let world = world(rule);
            world.app(
                4,
                decides(move |_| {
                    let denied = DeniedHttpResponse {
                        status: Some(weft_api::envoy::r#type::v3::HttpStatus { code }),
                        headers: vec![header("x-why", "so"), header("grpc-status", "0"), header("content-type", "a/b")],
                        body: "page".into(),
                    };
                    says(7, Some(HttpResponse::DeniedResponse(denied)))
                }),
            );
            let mut client = world.connect(Version::HTTP_2).await;
            let request = Request::post("/a/B").header("content-type", "application/grpc").body(empty()).unwrap();
            let (http, headers, body) = client.ask(request).await;
            assert_eq!((http, headers["grpc-status"].to_str().unwrap(), body.len()), (200, status, 0));
            assert_eq!(headers["content-type"], "application/grpc");
            assert_eq!((headers["x-why"].to_str().unwrap(), headers.get_all("grpc-status").iter().count()), ("so", 1));
        });
    }
}

/// A browser looks for the status in the head first, and takes an answer for whole that has it there.
#[test]
fn a_call_of_grpc_web_that_is_denied_stays_so_whatever_headers_the_authorizer_adds() {
    for at_gateway in [false, true] {
        on_worker(async move {
            let mut rule = guarded(filter(over_grpc(), 0));
            rule.key.route.kind = RouteKind::Grpc;
            let mut changes = service("web", AppProtocol::Http, &[1]);
            changes.extend(service("auth", AppProtocol::Http, &[4]));
            changes.extend(if at_gateway { vec![http("any"), at(&["any"], rule)] } else { vec![upsert(rule)] });
            let world = World::new(changes);
            world.app(
                4,
                decides(|_| {
                    let headers = [("grpc-status", "0"), ("grpc-message", "fine"), ("x-why", "so")];
                    let marks = [("x-weft-reason", "no_route"), ("x-weft-by", "destination shop/web-1")];
                    let headers = headers.iter().chain(&marks).map(|(name, value)| header(name, value)).collect();
                    let denied = DeniedHttpResponse { headers, ..DeniedHttpResponse::default() };
                    says(7, Some(HttpResponse::DeniedResponse(denied)))
                }),
            );
            let mut client = match at_gateway {
                true => world.connect_gateway(Version::HTTP_11, None).await,
                false => world.connect(Version::HTTP_11).await,
            };
            let request = Request::post("/a/B").header("host", "a.com").header("content-type", "application/grpc-web");
            let (status, headers, body) = client.ask(request.body(empty()).unwrap()).await;
            assert_eq!((status, headers["x-why"].to_str().unwrap()), (200, "so"));
            assert!(!headers.contains_key("grpc-status") && !headers.contains_key("grpc-message"), "{headers:?}");
            let said = String::from_utf8_lossy(&body[5..]);
            assert!(body[0] == 0x80 && said.starts_with("grpc-status:7\r\ngrpc-message:"), "{said}");
            let reasons: Vec<_> = headers.get_all("x-weft-reason").iter().map(|it| it.to_str().unwrap()).collect();
            assert_eq!(reasons, if at_gateway { vec![] } else { vec!["auth_denied"] });
            assert_eq!(headers.contains_key("x-weft-by"), !at_gateway);
        });
    }
}
