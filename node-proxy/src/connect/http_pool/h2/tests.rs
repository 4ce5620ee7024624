//! Against an endpoint that speaks through the same library, over memory.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};

use ::h2::server::{self, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use futures::FutureExt as _;
use futures::future::join;
use http_body_util::BodyExt as _;
use tokio::io::DuplexStream;
use tokio::task::LocalSet;

use super::*;

type Endpoint = Connection<DuplexStream, Bytes>;

/// A connection's requests, and its other end.
async fn connected(endpoint: &server::Builder) -> (Shared, Endpoint) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    let settings = PoolSettings::default();
    let (conn, endpoint) = join(open(UpstreamStream::Pipe(ours), &settings, to), endpoint.handshake(theirs)).await;
    let (shared, mut endpoint) = (Shared::default(), endpoint.unwrap());
    shared.add(&conn.unwrap());
    // What each end asks for is known to the other after one exchange.
    let (answer, ()) = join(send(&shared, RequestBody::Empty), async {
        let (_, mut answers) = accepted(&mut endpoint).await;
        answers.send_response(Response::new(()), true).unwrap();
        flushed(&mut endpoint).await;
    })
    .await;
    assert!(answer.ok().unwrap().into_body().frame().await.is_none());
    (shared, endpoint)
}

fn request(body: RequestBody) -> Outgoing {
    let (head, body) = Request::post("http://web.example/").body(body).unwrap().into_parts();
    Outgoing::new(head, body)
}

async fn send(shared: &Shared, body: RequestBody) -> Result<Response<H2Body>, Lost> {
    shared.usable(100).expect("it has room").send(&mut request(body)).await
}

async fn accepted(endpoint: &mut Endpoint) -> (Request<RecvStream>, SendResponse<Bytes>) {
    endpoint.accept().await.unwrap().unwrap()
}

/// Lets what was said go out.
async fn flushed(endpoint: &mut Endpoint) {
    for _ in 0..10 {
        assert!(endpoint.accept().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_not_sent_comes_back() {
    let test = async {
        let (shared, mut endpoint) = connected(server::Builder::new().max_concurrent_streams(1)).await;
        let (first, second) = (send(&shared, RequestBody::Empty), send(&shared, RequestBody::Empty));
        let leaves = async {
            let _first = accepted(&mut endpoint).await;
            flushed(&mut endpoint).await;
            drop(endpoint);
        };
        let ((first, second), ()) = join(join(first, second), leaves).await;
        assert!(matches!(first, Err(Lost::Sent(_))), "it reached the endpoint");
        assert!(matches!(second, Err(Lost::Unsent)), "it waited for its turn");
        assert!(shared.usable(100).is_none(), "nobody tries that connection again");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn the_next_request_goes_when_one_is_over() {
    let test = async {
        let (shared, mut endpoint) = connected(server::Builder::new().max_concurrent_streams(1)).await;
        let (first, second) = (send(&shared, RequestBody::Empty), send(&shared, RequestBody::Empty));
        let answers = async {
            for _ in 0..2 {
                let (_, mut answers) = accepted(&mut endpoint).await;
                answers.send_response(Response::new(()), true).unwrap();
            }
            flushed(&mut endpoint).await;
        };
        let ((first, second), ()) = join(join(first, second), answers).await;
        assert!(first.is_ok() && second.is_ok());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_request_after_goodbye_was_never_sent() {
    let test = async {
        let (shared, mut endpoint) = connected(&server::Builder::new()).await;
        let conn = shared.usable(100).unwrap();
        endpoint.graceful_shutdown();
        while !conn.sender.link.closed.get() {
            let _ = endpoint.accept().now_or_never();
            tokio::task::yield_now().await;
        }
        let mut conn = conn;
        let mut request = request(RequestBody::Empty);
        assert!(matches!(conn.send(&mut request).await, Err(Lost::Unsent)));
        assert!(request.head.is_some() && request.body.is_some(), "it is there for another connection");
        assert!(shared.usable(100).is_none());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_silent_is_asked_and_one_that_does_not_answer_is_gone() {
    let test = async {
        let (shared, mut endpoint) = connected(&server::Builder::new()).await;
        let began = Instant::now();
        let mut waits = Box::pin(send(&shared, RequestBody::Empty));
        // As long as it answers pings, it may take its time.
        let thinks = async {
            let accepted = accepted(&mut endpoint).await;
            let other = tokio::time::timeout(Duration::from_secs(601), endpoint.accept()).await;
            assert!(other.is_err(), "no other request, and no end");
            accepted
        };
        let _accepted = tokio::select! {
            _ = &mut waits => panic!("lost after {:?}", began.elapsed()),
            accepted = thinks => accepted,
        };
        // It answered a second ago: it is asked 30 s after that, and has 20 s.
        let silent_since = Instant::now();
        let lost = tokio::time::timeout(Duration::from_secs(600), waits).await.expect("it is noticed");
        assert!(matches!(lost, Err(Lost::Sent(_))));
        assert!(silent_since.elapsed() <= Duration::from_secs(50), "{:?}", silent_since.elapsed());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_request_that_is_given_up_is_reset_with_its_body() {
    let test = async {
        let (shared, mut endpoint) = connected(&server::Builder::new()).await;
        // More than the endpoint's windows let through.
        let body = Bytes::from(vec![7; 1 << 20]);
        let mut waits = Box::pin(send(&shared, RequestBody::Whole(body)));
        let (_request, mut answers) = tokio::select! {
            _ = &mut waits => panic!("nobody answered"),
            accepted = accepted(&mut endpoint) => accepted,
        };
        drop(waits);
        let reset = tokio::select! {
            reset = poll_fn(|cx| answers.poll_reset(cx)) => reset.unwrap(),
            _ = endpoint.accept() => panic!("no other request"),
        };
        assert_eq!(reset, Reason::CANCEL);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_body_goes_on_beside_its_answer() {
    const SIZE: usize = 1 << 20;
    let test = async {
        let (shared, mut endpoint) = connected(&server::Builder::new()).await;
        let reads = async {
            let (request, mut answers) = accepted(&mut endpoint).await;
            assert_eq!(request.headers()[CONTENT_LENGTH], SIZE.to_string());
            let mut out = answers.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            let read = async {
                let mut size = 0;
                while let Some(data) = body.data().await {
                    size += data.as_ref().unwrap().len();
                    body.flow_control().release_capacity(data.unwrap().len()).unwrap();
                }
                out.send_data(size.to_string().into(), true).unwrap();
            };
            // The connection is served meanwhile, and until the client has had all of it.
            let mut read = std::pin::pin!(read.fuse());
            loop {
                tokio::select! {
                    () = &mut read => {}
                    _ = endpoint.accept() => return,
                }
            }
        };
        let asks = async {
            let answer = send(&shared, RequestBody::Whole(vec![7; SIZE].into())).await.ok().unwrap();
            assert!(!http_body::Body::is_end_stream(answer.body()), "the endpoint reads on");
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let answer = tokio::select! {
            () = reads => panic!("the connection ended"),
            answer = asks => answer,
        };
        assert_eq!(answer, SIZE.to_string());
    };
    LocalSet::new().run_until(test).await;
}
