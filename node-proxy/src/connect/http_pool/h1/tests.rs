use http::{Method, Request};
use proptest::prelude::*;
use tokio::io::DuplexStream;
use weft_core::gateway::{BackendTls, BackendTrust};
use weft_core::ids::{Port, ServiceKey, ServicePortKey};
use weft_tls::{BackendClient, GatewayTls, Inside, KeyPair, TlsStream};

use super::head::Framing;
use super::*;
use crate::relay::encrypted::Encrypted;

fn read(text: &str, method: &Method) -> Result<Option<(u16, Framing, bool)>, bool> {
    let mut buf = Bytes::copy_from_slice(text.as_bytes());
    match head::read(&mut buf, method) {
        Ok(head) => Ok(head.map(|head| (head.response.status().as_u16(), head.framing, head.keeps))),
        Err(error) => Err(error.is_parse()),
    }
}

#[test]
fn the_length_of_a_body_has_one_reading() {
    let refused = Err(true);
    let ok = |framing, keeps| Ok(Some((200, framing, keeps)));
    for (headers, want) in [
        ("content-length: 5\r\n", ok(Framing::Length(5), true)),
        ("content-length: 5\r\ncontent-length: 5\r\n", ok(Framing::Length(5), true)),
        ("transfer-encoding: chunked\r\n", ok(Framing::Chunked, true)),
        ("Transfer-Encoding: CHUNKED\r\n", ok(Framing::Chunked, true)),
        ("content-length: 5\r\nconnection: x, Close\r\n", ok(Framing::Length(5), false)),
        ("", ok(Framing::Close, false)),
        ("content-length: 5\r\ncontent-length: 6\r\n", refused),
        ("content-length: 5, 5\r\n", refused),
        ("content-length: +5\r\n", refused),
        ("content-length: -1\r\n", refused),
        ("content-length:\r\n", refused),
        ("content-length: 18446744073709551616\r\n", refused),
        ("content-length: 5\r\ntransfer-encoding: chunked\r\n", refused),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", refused),
        ("transfer-encoding: gzip, chunked\r\n", refused),
        ("transfer-encoding: identity\r\n", refused),
        ("transfer-encoding : chunked\r\n", refused),
        ("a: b\r\n c\r\n", refused),
        ("a: b\rc\r\n", refused),
        ("a: b\0\r\n", refused),
    ] {
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"), &Method::GET), want, "{headers:?}");
    }
}

#[test]
fn some_answers_have_no_body_whatever_they_say() {
    let headers = "content-length: 5\r\n\r\n";
    for (start, method, want) in [
        ("HTTP/1.1 200 OK", Method::HEAD, (200, Framing::Length(0), true)),
        ("HTTP/1.1 204 No Content", Method::GET, (204, Framing::Length(0), true)),
        ("HTTP/1.1 304 Not Modified", Method::GET, (304, Framing::Length(0), true)),
        ("HTTP/1.1 200", Method::GET, (200, Framing::Length(5), true)),
        ("HTTP/1.0 200 OK", Method::GET, (200, Framing::Length(5), false)),
    ] {
        assert_eq!(read(&format!("{start}\r\n{headers}"), &method), Ok(Some(want)), "{start}");
    }
    for start in ["HTTP/2.0 200 OK", "HTTP/1.1 2000 OK", "ICY 200 OK", "HTTP/1.1 099 OK"] {
        assert_eq!(read(&format!("{start}\r\n{headers}"), &Method::GET), Err(true), "{start}");
    }
    assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-le", &Method::GET), Ok(None));
}

/// Decodes a body that comes in pieces: the data, the trailers, and what is left behind it.
fn decode(framing: Framing, pieces: &[&[u8]]) -> Option<(Vec<u8>, Option<http::HeaderMap>, Vec<u8>)> {
    let (mut decoder, mut data, mut trailers, mut buf) = (Decoder::new(framing), Vec::new(), None, Bytes::new());
    for piece in pieces {
        buf = [buf.as_ref(), piece].concat().into();
        while let Some(frame) = decoder.next(&mut buf).ok()? {
            match frame.into_data() {
                Ok(bytes) => data.extend_from_slice(&bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
    }
    (decoder == Decoder::Done).then(|| (data, trailers, buf.to_vec()))
}

#[test]
fn chunks_are_read_as_the_rfc_says_or_not_at_all() {
    let good = decode(Framing::Chunked, &[b"5\r\nhello\r\n1;x=\"y\"\r\n!\r\n0\r\nx-sum: 1\r\n\r\nHTTP"]).unwrap();
    assert_eq!((good.0.as_slice(), good.2.as_slice()), (&b"hello!"[..], &b"HTTP"[..]));
    assert_eq!(good.1.unwrap()["x-sum"], "1");
    for bad in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff0\r\nhello\r\n0\r\n\r\n",
        "0\r\nbad name: 1\r\n\r\n",
    ] {
        assert_eq!(decode(Framing::Chunked, &[bad.as_bytes()]), None, "{bad:?}");
    }
    assert_eq!(decode(Framing::Chunked, &["1".repeat(9000).as_bytes()]), None);
    assert_eq!(decode(Framing::Length(2), &[b"abc"]).unwrap().2, b"c");
}

proptest! {
    #[test]
    fn where_a_body_is_cut_makes_no_difference(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(0_usize..200, 0..6),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\na: b\r\n\r\nnext");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % wire.len()).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut rest = wire.as_slice();
        let mut at = 0;
        for cut in cuts {
            let (piece, after) = rest.split_at(cut - at);
            pieces.push(piece);
            (rest, at) = (after, cut);
        }
        pieces.push(rest);
        let (data, trailers, left) = decode(Framing::Chunked, &pieces).unwrap();
        prop_assert_eq!(data, chunks.concat());
        let trailers = trailers.unwrap();
        prop_assert_eq!(trailers["a"].as_bytes(), b"b");
        prop_assert_eq!(left, b"next");
    }
}

/// A connection and the endpoint's end of it.
fn pair() -> (H1, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    (H1::new(UpstreamStream::Pipe(ours), &PoolSettings::default()), theirs)
}

fn get() -> RequestHead {
    Request::get("/a?b").header("host", "h").body(()).unwrap().into_parts().0
}

async fn collect(mut body: AnswerBody) -> Result<Vec<u8>, ExchangeError> {
    let mut data = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        data.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(data)
}

/// Asks once, with this answer, byte by byte if so wished; the body, and whether the connection may be used again.
async fn ask(answer: &str, slowly: bool) -> (Result<(u16, Vec<u8>), ExchangeError>, bool) {
    let (mut conn, mut endpoint) = pair();
    let answer = answer.to_owned();
    let served = tokio::spawn(async move {
        let mut request = [0; 512];
        let n = endpoint.read(&mut request).await.unwrap();
        assert_eq!(&request[..n], b"GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n");
        for piece in answer.as_bytes().chunks(if slowly { 1 } else { 4096 }) {
            endpoint.write_all(piece).await.unwrap();
            if slowly {
                tokio::task::yield_now().await;
            }
        }
        endpoint
    });
    let answered = match conn.send(&mut Outgoing::new(get(), RequestBody::Empty), &|_| {}).await {
        Ok(response) => {
            let status = response.status().as_u16();
            collect(response.into_body()).await.map(|body| (status, body))
        }
        Err(SendError::Sent(error)) => Err(error),
        Err(SendError::Unsent) => panic!("it was sent"),
    };
    // The endpoint's end is held until here: what is closed is not asked.
    let _endpoint = served.await.unwrap();
    let reusable = conn.is_reusable() && !conn.is_closed();
    (answered, reusable)
}

#[tokio::test]
async fn a_connection_is_used_again_only_after_a_complete_answer() {
    for (answer, body, reusable) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi", true),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "hi",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", "hi", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n", "hi", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore", "", false),
    ] {
        for slowly in [false, true] {
            let (answered, again) = ask(answer, slowly).await;
            assert_eq!(answered.unwrap(), (200, body.as_bytes().to_vec()), "{answer:?}");
            assert_eq!(again, reusable, "{answer:?} {slowly}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_malformed_is_an_error() {
    for (answer, parse) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", true),
        ("HTTP/1.1 101 Switching\r\n\r\n", true),
        ("nonsense\r\n\r\n", true),
        ("HTTP/1.1 2", false),
    ] {
        let error = ask_to_the_end(answer).await;
        assert_eq!(error.is_parse(), parse, "{answer:?}: {error}");
    }
    let huge = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(70 * 1024));
    assert!(ask_to_the_end(Box::leak(huge.into_boxed_str())).await.is_parse());
}

/// As [`ask`], with the connection closed behind the answer; the error.
async fn ask_to_the_end(answer: &'static str) -> ExchangeError {
    let (mut conn, mut endpoint) = pair();
    let served = tokio::spawn(async move {
        let _ = endpoint.read(&mut [0; 512]).await;
        let _ = endpoint.write_all(answer.as_bytes()).await;
    });
    let error = match conn.send(&mut Outgoing::new(get(), RequestBody::Empty), &|_| {}).await {
        Ok(response) => collect(response.into_body()).await.unwrap_err(),
        Err(SendError::Sent(error)) => error,
        Err(SendError::Unsent) => panic!("it was sent"),
    };
    assert!(!conn.is_reusable());
    served.await.unwrap();
    error
}

/// A connection to an endpoint that speaks TLS, and its end of it.
async fn pair_in_tls() -> (H1, TlsStream<DuplexStream>) {
    let made = rcgen::generate_simple_self_signed(vec!["a.com".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = vec![KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()];
    let server = GatewayTls::new(server, Inside::Bytes, None).unwrap();
    let policy = BackendTls {
        port: ServicePortKey { service: ServiceKey::new("edge", "web"), port: Port::new(443).unwrap() },
        hostname: "a.com".into(),
        subject_alt_names: Vec::new(),
        trust: BackendTrust::Bundle(chain.into_bytes()),
    };
    let client = BackendClient::new(&policy, None, &[]).unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (client, server) = tokio::join!(client.connect(UpstreamStream::Pipe(ours)), server.accept(theirs));
    let stream = UpstreamStream::Tls(Box::new(Encrypted::new(client.unwrap())));
    (H1::new(stream, &PoolSettings::default()), server.unwrap())
}

#[tokio::test]
async fn a_body_without_a_length_that_tls_does_not_end_is_cut_off() {
    let (until_closed, lengthy) = ("HTTP/1.1 200 OK\r\n\r\nhi", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    for (answer, says_goodbye, whole) in
        [(until_closed, true, true), (until_closed, false, false), (lengthy, true, true), (lengthy, false, true)]
    {
        let (mut conn, mut endpoint) = pair_in_tls().await;
        let served = tokio::spawn(async move {
            assert!(endpoint.read(&mut [0; 512]).await.unwrap() > 0);
            endpoint.write_all(answer.as_bytes()).await.unwrap();
            endpoint.flush().await.unwrap();
            if says_goodbye {
                endpoint.shutdown().await.unwrap();
            }
        });
        let Ok(response) = conn.send(&mut Outgoing::new(get(), RequestBody::Empty), &|_| {}).await else {
            panic!("there is a head")
        };
        let body = collect(response.into_body()).await;
        served.await.unwrap();
        match body {
            Ok(body) => assert!(whole && body == b"hi", "{answer:?} {says_goodbye}"),
            Err(error) => assert!(!whole && !error.is_parse(), "{answer:?} {says_goodbye}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_or_spoken_on_is_of_no_use() {
    let (conn, endpoint) = pair();
    assert!(!conn.is_closed() && conn.is_reusable());
    drop(endpoint);
    assert!(conn.is_closed());
    let (conn, mut endpoint) = pair();
    endpoint.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    assert!(conn.is_closed());
}

#[test]
fn a_head_says_how_long_its_body_is() {
    let write = |method: Method, length: Option<u64>, header: Option<&'static str>| {
        let mut head = get();
        head.method = method;
        if let Some(length) = header {
            head.headers.insert("content-length", length.parse().unwrap());
        }
        let mut out = BytesMut::new();
        head::write(&mut out, &head, length);
        String::from_utf8(out.to_vec()).unwrap()
    };
    for (method, length, header, want) in [
        (Method::GET, Some(0), None, ""),
        (Method::POST, Some(0), None, "content-length: 0\r\n"),
        (Method::POST, Some(3), None, "content-length: 3\r\n"),
        (Method::POST, Some(3), Some("3"), "content-length: 3\r\n"),
        (Method::POST, None, None, "transfer-encoding: chunked\r\n"),
        (Method::POST, None, Some("3"), "transfer-encoding: chunked\r\n"),
        (Method::POST, Some(3), Some("4"), "content-length: 3\r\n"),
        (Method::GET, Some(0), Some("0"), "content-length: 0\r\n"),
    ] {
        let text = write(method.clone(), length, header);
        assert_eq!(text, format!("{method} /a?b HTTP/1.1\r\nhost: h\r\n{want}\r\n"));
    }
}
