//! Authorizers that are asked over HTTP, and what their clients hear.

use super::*;

#[test]
fn an_authorizer_over_http_gets_the_head_and_its_200_passes_it() {
    for version in BOTH {
        on_worker(async move {
            let world = world(guarded(filter(over_http("/check", &["x-a"], &["x-user"]), 0)));
            let (authorizer, asked) = notes(|_| {
                let answer = Response::builder().header("x-user", "ann").header("x-other", "1");
                answer.body(full("welcome")).unwrap()
            });
            let (app, seen) = notes(plain(200));
            world.app(4, authorizer);
            world.app(1, app);
            let mut client = world.connect(version).await;
            let request = Request::put("/x?y=1")
                .header("authorization", "Bearer t")
                .header("x-a", "1")
                .header("x-b", "2")
                .header("x-user", "root")
                .body(full("payload"))
                .unwrap();
            assert_eq!(client.ask(request).await.0, 200);
            let (head, body) = asked.borrow_mut().pop().unwrap();
            assert_eq!(
                (head.method.as_str(), head.uri.to_string().as_str(), head.version),
                ("PUT", "/check/x?y=1", Version::HTTP_11)
            );
            let mut headers: Vec<_> =
                head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            headers.sort();
            assert_eq!(headers, ["authorization: Bearer t", "content-length: 0", "host: web.shop", "x-a: 1"]);
            assert_eq!((body.len(), asked.borrow().len()), (0, 0), "asked once, and not shown the body");
            let (head, body) = seen.borrow_mut().pop().unwrap();
            assert_eq!((&body[..], head.uri.path()), (&b"payload"[..], "/x"));
            let users: Vec<_> = head.headers.get_all("x-user").iter().map(|user| user.to_str().unwrap()).collect();
            assert_eq!((users, head.headers.get("x-other")), (vec!["ann"], None), "the client can't say who it is");
            assert_eq!(world.metric("weft_external_auth_checks_total", &["result=\"allowed\""]), Some(1.0));
        });
    }
}

#[test]
fn every_authorizer_of_a_rule_has_to_say_yes_and_hears_what_those_before_it_say() {
    on_worker(async {
        let both = [over_http("/one", &[], &["x-user"]), over_http("/two", &["x-user"], &[])];
        let filters = both.into_iter().map(|protocol| filter(protocol, 0)).collect();
        let world = world(HttpRule { filters, ..rule(0, "", vec![backend("web")]) });
        let (authorizer, asked) = notes(|head| {
            let code = if head.uri.path() == "/two/no" { 403 } else { 200 };
            Response::builder().status(code).header("x-user", "ann").body(empty()).unwrap()
        });
        world.app(4, authorizer);
        let (app, seen) = notes(plain(200));
        world.app(1, app);
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.get("/yes").await.0, 200);
        assert_eq!(client.get("/no").await.0, 403);
        assert_eq!(seen.borrow().len(), 1);
        let asked = asked.borrow();
        let paths: Vec<_> = asked.iter().map(|(head, _)| head.uri.path()).collect();
        assert_eq!(paths, ["/one/yes", "/two/yes", "/one/no", "/two/no"]);
        assert_eq!(asked[1].0.headers["x-user"], "ann");
        assert_eq!(world.metric("weft_external_auth_checks_total", &["result=\"denied\""]), Some(1.0));
    });
}

#[test]
fn the_connection_of_a_yes_is_used_again() {
    on_worker(async {
        let world = world(guarded(filter(over_http("", &[], &[]), 0)));
        world.app(4, notes(|_| Response::new(full("yes, with some words"))).0);
        world.app(1, status(200));
        let mut client = world.connect(Version::HTTP_11).await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.0, 200);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.net.dials.get(), 2, "one to each");
    });
}

#[test]
fn what_is_not_200_is_the_clients_answer() {
    for version in BOTH {
        for code in [201, 204, 302, 401, 403, 429, 500, 503] {
            on_worker(async move {
                let world = world(guarded(filter(over_http("", &[], &[]), 0)));
                world.app(
                    4,
                    notes(move |_| {
                        let answer = Response::builder().status(code).header("www-authenticate", "Basic");
                        let answer = answer.header("set-cookie", "a=1").header("set-cookie", "b=2");
                        answer.body(if code == 204 { empty() } else { full("who are you?") }).unwrap()
                    })
                    .0,
                );
                let (app, seen) = notes(plain(200));
                world.app(1, app);
                let mut client = world.connect(version).await;
                let (status, headers, body) = client.get("/").await;
                assert_eq!((status, &headers["www-authenticate"]), (code, &"Basic".parse::<HeaderValue>().unwrap()));
                assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
                assert_eq!(&body[..], if code == 204 { &b""[..] } else { b"who are you?" });
                assert!(seen.borrow().is_empty(), "{code}");
                assert_eq!(world.logged()[0]["reason"], "auth_denied");
                assert_eq!(world.metric("weft_external_auth_checks_total", &["result=\"denied\""]), Some(1.0));
            });
        }
    }
}

#[test]
fn an_authorizer_of_a_gateway_is_asked_in_its_own_version_and_told_the_scheme() {
    on_worker(async {
        let mut made = guarded(filter(over_http("/check", &["x-forwarded-for"], &[]), 0));
        let mut changes = service("auth", AppProtocol::H2c, &[4]);
        changes.extend([https("any"), at(&["any"], made.clone())]);
        let world = World::new(changes);
        let (authorizer, asked) = notes(plain(200));
        world.app(4, authorizer);
        [1, 2].into_iter().for_each(|last| world.app(last, status(200)));
        let mut client = world.connect_gateway(Version::HTTP_11, Some(key_of("any"))).await;
        let request = || Request::get("/x?y=1").header("host", "a.com").header("x-forwarded-for", "10.9.9.9");
        assert_eq!(client.ask(request().body(empty()).unwrap()).await.0, 200);
        let (head, _) = asked.borrow_mut().pop().unwrap();
        assert_eq!((head.version, head.uri.path_and_query().unwrap().as_str()), (Version::HTTP_2, "/check/x?y=1"));
        assert_eq!((host(&head), &head.headers["x-forwarded-for"]), ("a.com".into(), &"192.0.2.7".parse().unwrap()));
        made.filters = vec![filter(over_grpc(), 0)];
        world.apply(&[at(&["any"], made)]);
        let told = Rc::new(RefCell::new(None));
        let noted = Rc::clone(&told);
        world.app(
            4,
            decides(move |http| {
                *noted.borrow_mut() = Some((http.scheme, http.host));
                says(0, None)
            }),
        );
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(client.ask(request().body(empty()).unwrap()).await.0, 200);
        assert_eq!(told.take(), Some(("https".to_owned(), "a.com".to_owned())));
    });
}

#[test]
fn a_page_can_read_the_no_and_a_preflight_asks_nobody() {
    on_worker(async {
        let cors = Cors {
            allow_origins: vec![OriginMatch::new("https://a.com").unwrap()],
            allow_methods: vec!["PUT".into()],
            ..Cors::default()
        };
        let mut rule = guarded(filter(over_http("", &[], &[]), 0));
        rule.filters.push(HttpFilter::Cors(cors));
        let world = world(rule);
        let (authorizer, asked) = notes(plain(401));
        world.app(4, authorizer);
        let mut client = world.connect(Version::HTTP_11).await;
        let preflight = Request::options("/")
            .header("origin", "https://a.com")
            .header("access-control-request-method", "PUT")
            .body(empty())
            .unwrap();
        let (status, headers, _) = client.ask(preflight).await;
        assert!((200..300).contains(&status) && headers.contains_key("access-control-allow-origin"), "{status}");
        assert!(asked.borrow().is_empty());
        let (status, headers, _) =
            client.ask(Request::put("/").header("origin", "https://a.com").body(empty()).unwrap()).await;
        assert_eq!(
            (status, &headers["access-control-allow-origin"]),
            (401, &"https://a.com".parse::<HeaderValue>().unwrap())
        );
        world.down(4, true);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let (status, headers, _) =
            client.ask(Request::put("/").header("origin", "https://a.com").body(empty()).unwrap()).await;
        assert_eq!((status, headers.contains_key("access-control-allow-origin")), (403, true));
    });
}

/// A kept connection that the authorizer closes at the wrong moment is no reason to turn a client away.
#[test]
fn a_question_that_a_connection_lost_is_asked_again_once() {
    on_worker(async {
        let world = world(guarded(filter(over_http("", &[], &[]), 0)));
        let heard = Rc::new(Cell::new(0));
        let counted = Rc::clone(&heard);
        world.raw(
            4,
            Rc::new(move |mut stream, _| {
                let counted = Rc::clone(&counted);
                spawn_local(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    counted.set(counted.get() + 1);
                    // Every other one is lost.
                    if counted.get() % 2 == 0 {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                            .await;
                    }
                });
            }),
        );
        world.app(1, status(200));
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.ask(Request::post("/").body(empty()).unwrap()).await.0, 200);
        assert_eq!(heard.get(), 2);
    });
}
