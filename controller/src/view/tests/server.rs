//! Requests read, and answers to those that can't be had.

use weft_kube_fake::FakeApi;

use super::super::tap::tests::proxies;
use super::*;

async fn read(request: Request<Full<Bytes>>) -> (StatusCode, String) {
    // What hyper hands over can't be made otherwise than by a connection.
    let (client, server) = tokio::io::duplex(1 << 20);
    let api = FakeApi::new();
    let view = View::new(api.client(), proxies(&api, Vec::new()));
    let service = service_fn(move |request| {
        let view = Arc::clone(&view);
        async move { Ok::<_, Infallible>(view.answer(request).await) }
    });
    tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://view{path}")).body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn what_can_not_be_had_is_said_in_a_sentence() {
    let (status, text) = read(post("/v1/nothing", "")).await;
    assert_eq!((status.as_u16(), text.as_str()), (404, r#"{"error":"there is no POST /v1/nothing"}"#));
    let (status, text) = read(post("/v1/tap", "{")).await;
    assert!(status == 400 && text.contains("no tap"), "{text}");
    let (status, text) = read(post("/v1/tap", r#"{"seconds":601}"#)).await;
    assert!(status == 400 && text.contains("between 1 and 600"), "{text}");
    let (status, text) = read(post("/v1/tap", "{}")).await;
    assert!(status == 401 && text.contains("bearer token"), "{text}");
    let (status, text) = read(post("/v1/tap", vec![b' '; LARGEST + 1])).await;
    assert!(status == 413 && text.contains("64 KiB"), "{text}");
}

#[test]
fn parameters_are_found_by_name() {
    let asked = Asked {
        method: Method::GET,
        path: "/".into(),
        query: vec![("namespace".into(), "shop".into()), ("namespace".into(), "other".into())],
        token: None,
        body: Bytes::new(),
    };
    assert_eq!((asked.parameter("namespace"), asked.parameter("x"), asked.token()), (Some("shop"), None, None));
}
