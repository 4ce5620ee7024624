//! Authorizers that give no clear answer, or none in time.

use super::*;

/// Whatever goes wrong with the authorizer, and what the client hears.
#[test]
fn without_a_clear_yes_nothing_passes() {
    let never: fn() -> App = || Rc::new(|_, _| Box::pin(std::future::pending()));
    type Case = (&'static str, AuthProtocol, Box<dyn Fn(&World)>, u16, &'static str);
    let cases: [Case; 11] = [
        ("refused", over_grpc(), Box::new(|world| world.down(4, true)), 403, "auth_failed"),
        ("refused", over_http("", &[], &[]), Box::new(|world| world.down(4, true)), 403, "auth_failed"),
        ("no answer", over_grpc(), Box::new(move |world| world.app(4, never())), 403, "auth_failed"),
        ("no answer", over_http("", &[], &[]), Box::new(move |world| world.app(4, never())), 403, "auth_failed"),
        (
            "an answer without an end",
            over_grpc(),
            Box::new(|world| {
                world.app(
                    4,
                    Rc::new(|_, _| {
                        let body = StreamBody::new(futures::stream::pending()).boxed();
                        let answer = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
                        Box::pin(std::future::ready(answer))
                    }),
                );
            }),
            403,
            "auth_failed",
        ),
        (
            "an error of gRPC",
            over_grpc(),
            Box::new(|world| {
                world.app(4, Rc::new(|_, _| Box::pin(std::future::ready(grpc(&says(0, None), "13")))));
            }),
            403,
            "auth_failed",
        ),
        (
            "another message",
            over_grpc(),
            Box::new(|world| {
                let noise = Status { code: 0, message: "x".repeat(301), ..Status::default() };
                world.app(4, Rc::new(move |_, _| Box::pin(std::future::ready(grpc(&noise, "0")))));
            }),
            403,
            "auth_failed",
        ),
        ("no gRPC at all", over_grpc(), Box::new(|world| world.app(4, status(200))), 403, "auth_failed"),
        (
            "nothing",
            over_grpc(),
            Box::new(|world| world.app(4, decides(|_| CheckResponse::default()))),
            403,
            "auth_failed",
        ),
        (
            "no endpoint",
            over_http("", &[], &[]),
            Box::new(|world| world.apply(&service("auth", AppProtocol::Http, &[]))),
            403,
            "auth_failed",
        ),
        (
            "no Service",
            over_http("", &[], &[]),
            Box::new(|world| world.apply(&[Change::Remove(ResourceKey::Service(ServiceKey::new("shop", "auth")))])),
            500,
            "invalid_backend",
        ),
    ];
    for (what, protocol, breaks, code, reason) in cases {
        on_worker(async move {
            let world = world(guarded(filter(protocol.clone(), 0)));
            let (app, seen) = notes(plain(200));
            world.app(1, app);
            breaks(&world);
            let mut client = world.connect(Version::HTTP_11).await;
            let started = Instant::now();
            let (status, _, body) = client.get("/").await;
            assert_eq!((status, &body[..]), (code, reason.as_bytes()), "{what} {protocol:?}");
            assert!(started.elapsed() <= Duration::from_secs(11), "{what}");
            assert!(seen.borrow().is_empty(), "{what}");
        });
    }
}

#[test]
fn the_time_of_the_request_covers_the_authorizer() {
    on_worker(async {
        let timeouts = Timeouts { request: Some(Duration::from_secs(2)), ..Timeouts::default() };
        let world = world(HttpRule { timeouts, ..guarded(filter(over_grpc(), 0)) });
        world.app(4, Rc::new(|_, _| Box::pin(std::future::pending())));
        let mut client = world.connect(Version::HTTP_11).await;
        let started = Instant::now();
        let (status, _, body) = client.get("/").await;
        assert_eq!((status, &body[..]), (504, &b"request_timeout"[..]));
        assert!((2000..2500).contains(&started.elapsed().as_millis()));
    });
}
