//! What becomes of bodies: shown to the authorizer, sent again, copied.

use super::*;

#[test]
fn a_body_is_shown_whole_or_the_request_is_refused() {
    for version in BOTH {
        on_worker(async move {
            for (length, chunked, code) in
                [(0, false, 200), (10, false, 200), (10, true, 200), (11, false, 413), (11, true, 413)]
            {
                for protocol in [over_grpc(), over_http("", &[], &[])] {
                    let world = world(guarded(filter(protocol.clone(), 10)));
                    let text = "0123456789+".get(..length).unwrap();
                    let shown = Rc::new(RefCell::new(None));
                    if protocol == over_grpc() {
                        let noted = Rc::clone(&shown);
                        let decide = move |http: HttpRequest| {
                            *noted.borrow_mut() = Some((http.body, http.size));
                            says(0, None)
                        };
                        world.app(4, decides(decide));
                    } else {
                        let noted = Rc::clone(&shown);
                        world.app(
                            4,
                            Rc::new(move |request, _| {
                                let noted = Rc::clone(&noted);
                                Box::pin(async move {
                                    let length = request.headers()["content-length"].to_str().unwrap().parse().unwrap();
                                    let body = request.into_body().collect().await.unwrap().to_bytes();
                                    *noted.borrow_mut() = Some((String::from_utf8(body.to_vec()).unwrap(), length));
                                    Response::new(empty())
                                })
                            }),
                        );
                    }
                    let (app, seen) = notes(plain(200));
                    world.app(1, app);
                    let mut client = world.connect(version).await;
                    let pieces: Vec<_> =
                        text.bytes().map(|byte| Ok(http_body::Frame::data(vec![byte].into()))).collect();
                    let body =
                        if chunked { StreamBody::new(futures::stream::iter(pieces)).boxed() } else { full(text) };
                    let (status, ..) = client.ask(Request::post("/").body(body).unwrap()).await;
                    let what = format!("{version:?} {length} {chunked} {protocol:?}");
                    assert_eq!(status, code, "{what}");
                    let passed = (code == 200).then(|| text.to_owned());
                    assert_eq!(shown.take(), passed.clone().map(|text| (text, length as i64)), "{what}");
                    let got = seen.borrow_mut().pop().map(|(_, body)| String::from_utf8(body.to_vec()).unwrap());
                    assert_eq!(got, passed, "{what}");
                }
            }
        });
    }
}

#[test]
fn a_client_that_waits_to_be_told_to_send_its_body_is_told() {
    on_worker(async {
        let world = world(guarded(filter(over_http("", &[], &[]), 10)));
        world.app(4, notes(plain(200)).0);
        let (app, seen) = notes(plain(200));
        world.app(1, app);
        let mut client = world.connect_raw();
        let head = "POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let mut said = [0; 25];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hi").await.unwrap();
        let mut said = [0; 12];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 200");
        let (head, body) = seen.borrow_mut().pop().unwrap();
        assert_eq!((head.headers.get("expect"), &body[..]), (None, &b"hi"[..]));
    });
}

#[test]
fn a_grpc_stream_whose_body_is_to_be_shown_does_not_wait_for_ever() {
    on_worker(async {
        let world = world(guarded(filter(over_grpc(), 1000)));
        world.app(4, decides(|_| says(0, None)));
        let mut client = world.connect(Version::HTTP_2).await;
        let body = StreamBody::new(futures::stream::pending()).boxed();
        let request = Request::post("/a/B").header("content-type", "application/grpc").body(body).unwrap();
        let (status, headers, _) = client.ask(request).await;
        assert_eq!((status, headers.contains_key("grpc-status")), (200, true));
        assert_eq!(world.logged()[0]["reason"], "body_timeout");
    });
}

#[test]
fn it_is_asked_once_however_often_the_backend_is_tried() {
    on_worker(async {
        let retry =
            Retry { attempts: 3, backoff: Duration::from_millis(10), codes: vec![StatusCode::SERVICE_UNAVAILABLE] };
        let world = world(HttpRule { retry: Some(retry), ..guarded(filter(over_http("", &[], &["x-user"]), 100)) });
        let (authorizer, asked) = notes(|_| Response::builder().header("x-user", "ann").body(empty()).unwrap());
        world.app(4, authorizer);
        let tries = Rc::new(Cell::new(0));
        let tried = Rc::clone(&tries);
        let (app, seen) = notes(move |_| {
            tried.set(tried.get() + 1);
            Response::builder().status(if tried.get() < 3 { 503 } else { 200 }).body(empty()).unwrap()
        });
        world.app(1, app);
        let mut client = world.connect(Version::HTTP_11).await;
        assert_eq!(client.ask(Request::post("/").body(full("again")).unwrap()).await.0, 200);
        assert_eq!((asked.borrow().len(), tries.get()), (1, 3));
        for (head, body) in seen.borrow().iter() {
            assert_eq!((&head.headers["x-user"], &body[..]), (&"ann".parse::<HeaderValue>().unwrap(), &b"again"[..]));
        }
    });
}

#[test]
fn a_mirror_gets_what_was_permitted_and_nothing_else() {
    on_worker(async {
        let mirror = Mirror {
            backend: BackendTarget::Service(key("other")),
            fraction: Fraction { numerator: 1, denominator: NonZeroU32::MIN },
        };
        let mut rule = guarded(filter(over_http("", &[], &["x-user"]), 100));
        rule.filters.insert(0, HttpFilter::Mirror(mirror));
        let world = world(rule);
        world.app(
            4,
            notes(|head| {
                let code = if head.uri.path() == "/no" { 403 } else { 200 };
                Response::builder().status(code).header("x-user", "ann").body(empty()).unwrap()
            })
            .0,
        );
        let (copied, copies) = notes(plain(200));
        world.app(3, copied);
        world.app(1, status(200));
        let mut client = world.connect(Version::HTTP_11).await;
        let ask = |path: &str| Request::post(path).header("x-user", "root").body(full("copy me")).unwrap();
        assert_eq!(client.ask(ask("/no")).await.0, 403);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(copies.borrow().is_empty());
        assert_eq!(client.ask(ask("/yes")).await.0, 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let copies = copies.borrow();
        assert_eq!((copies.len(), &copies[0].0.headers["x-user"]), (1, &"ann".parse::<HeaderValue>().unwrap()));
        assert_eq!(&copies[0].1[..], b"copy me");
    });
}
