//! What no client of good will sends: frames written by hand, and what becomes of their streams and connections.

use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream};

use super::*;

/// A frame (RFC 9114, section 7.1).
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = 0x8000_0000 | u32::try_from(payload.len()).unwrap();
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// A field section without tables (RFC 9204, section 4.5.6).
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, flags: u8, bits: u32, text: &str| {
        let mask = (1 << bits) - 1;
        if text.len() < mask {
            out.push(flags | text.len() as u8);
        } else {
            out.push(flags | mask as u8);
            let mut rest = text.len() - mask;
            while rest >= 128 {
                out.push(0x80 | (rest & 127) as u8);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text.as_bytes());
    };
    let mut out = vec![0, 0];
    for (name, value) in fields {
        text(&mut out, 0x20, 3, name);
        text(&mut out, 0, 7, value);
    }
    out
}

pub(super) fn get(path: &str) -> Vec<u8> {
    frame(1, &section(&[(":method", "GET"), (":scheme", "https"), (":authority", "a.com"), (":path", path)]))
}

fn headers(more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "POST"), (":scheme", "https"), (":authority", "a.com"), (":path", "/x")];
    frame(1, &section(&[&usual[..], more].concat()))
}

pub(super) async fn connection(world: &World) -> Connection {
    // Whoever listens is waited for.
    world.client().await;
    let (endpoint, connection) = connect_quic(at(world.port), "a.com", &world.trust, b"h3").await.unwrap();
    // It goes on as long as the connection does.
    drop(endpoint);
    connection
}

/// One that takes little of an answer before it is read.
pub(super) async fn slow_connection(world: &World) -> Connection {
    world.client().await;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(1000_u32.into());
    let connected = client::connect_with(at(world.port), "a.com", &world.trust, b"h3", transport).await;
    connected.unwrap().1
}

pub(super) async fn say(connection: &Connection, bytes: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    (send, receive)
}

/// Reads an answer to its end: its frames, without those of other kinds.
pub(super) async fn answer(receive: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    while let Some(read) = receive.read(&mut part).await? {
        all.extend_from_slice(&part[..read]);
    }
    Ok(all)
}

/// Whether there is a field section that begins with a status, as we write it: by its index in the static table, or by the name
/// that has one.
pub(super) fn has_status(answer: &[u8], status: &str) -> bool {
    let field = match status {
        "200" => vec![0xd9],
        "100" => vec![0xff, 0],
        "400" => vec![0xff, 4],
        other => [&[0x5f, 9, 3][..], other.as_bytes()].concat(),
    };
    let section = [&[0, 0][..], &field].concat();
    answer.windows(section.len()).any(|it| it == section)
}

#[test]
fn a_malformed_request_ends_its_stream_and_nothing_else() {
    let world = world();
    on_sockets(async {
        let connection = connection(&world).await;
        let get = [(":method", "GET"), (":scheme", "https"), (":authority", "a.com"), (":path", "/")];
        let with = |more: &[(&str, &str)]| frame(1, &section(&[&get[..], more].concat()));
        for (what, bytes) in [
            ("twice the path", with(&[(":path", "/y")])),
            ("connection", with(&[("connection", "close")])),
            ("chunked", with(&[("transfer-encoding", "chunked")])),
            ("upper case", with(&[("X-A", "1")])),
            ("extended CONNECT, which isn't offered", with(&[(":protocol", "websocket")])),
            ("no path", frame(1, &section(&get[..3]))),
            ("userinfo", frame(1, &section(&[get[0], get[1], (":authority", "x@a.com"), get[3]]))),
            ("more than it says", [headers(&[("content-length", "2")]), frame(0, b"abc")].concat()),
            ("less than it says", [headers(&[("content-length", "4")]), frame(0, b"abc")].concat()),
            ("nothing of what it says", headers(&[("content-length", "4")])),
            (
                "a trailer that is none",
                [headers(&[]), frame(0, b"abc"), frame(1, &section(&[(":path", "/")]))].concat(),
            ),
        ] {
            let (mut send, mut receive) = say(&connection, &bytes).await;
            let _ = send.finish();
            let error = answer(&mut receive).await.unwrap_err();
            assert!(matches!(error, ReadError::Reset(code) if u64::from(code) == 0x10e), "{what}: {error}");
        }
        // A stream without a request.
        let (mut send, mut receive) = say(&connection, &[]).await;
        send.finish().unwrap();
        let error = answer(&mut receive).await.unwrap_err();
        assert!(matches!(error, ReadError::Reset(code) if u64::from(code) == 0x10d), "{error}");
        let (mut send, mut receive) = say(&connection, &[frame(0x21, b"grease"), with(&[])].concat()).await;
        send.finish().unwrap();
        assert!(has_status(&answer(&mut receive).await.unwrap(), "200"), "the connection is as good as before");
        // Well-formed, and not served.
        let connect = frame(1, &section(&[(":method", "CONNECT"), (":authority", "a.com:80")]));
        let (_send, mut receive) = say(&connection, &connect).await;
        assert!(has_status(&answer(&mut receive).await.unwrap(), "400"));
    });
}

#[test]
fn a_client_that_breaks_the_protocol_is_let_go() {
    let world = world();
    on_sockets(async {
        // Frames of a request, and the first bytes of a stream of one direction.
        for (what, request, bytes, code) in [
            ("a body first", true, frame(0, b"x"), 0x105),
            ("settings on a request", true, frame(4, b""), 0x105),
            ("a promise", true, frame(5, b"x"), 0x105),
            ("a frame of HTTP/2", true, frame(6, b"x"), 0x105),
            ("cut short", true, frame(1, &section(&[(":method", "GET")]))[..8].to_vec(), 0x106),
            ("a section that refers to a table", true, frame(1, &[2, 0, 0x80]), 0x200),
            ("no settings", false, [&[0][..], &frame(7, &[0])].concat(), 0x10a),
            ("settings of HTTP/2", false, [&[0][..], &frame(4, &[2, 0])].concat(), 0x109),
            ("a push of a client", false, vec![1, 0], 0x103),
            ("an encoder that fills a table", false, vec![2, 0x3f, 0xe1, 0x1f], 0x201),
        ] {
            let connection = connection(&world).await;
            if request {
                let (mut send, _receive) = say(&connection, &bytes).await;
                let _ = send.finish();
                closed(&connection, what, code).await;
            } else {
                let mut send = connection.open_uni().await.unwrap();
                send.write_all(&bytes).await.unwrap();
                closed(&connection, what, code).await;
            }
        }
        // The control stream ends with the connection, never before, and there is one.
        let connection = connection(&world).await;
        let control = [&[0][..], &frame(4, &[])].concat();
        let mut first = connection.open_uni().await.unwrap();
        first.write_all(&control).await.unwrap();
        first.finish().unwrap();
        closed(&connection, "an end of the control stream", 0x104).await;
        let connection = super::raw::connection(&world).await;
        for _ in 0..2 {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&control).await.unwrap();
        }
        // Not finished by hand: a stream that is dropped is reset.
        let error = connection.closed().await;
        let code = |error: &ConnectionError| match error {
            ConnectionError::ApplicationClosed(close) => u64::from(close.error_code),
            _ => 0,
        };
        assert!([0x103, 0x104].contains(&code(&error)), "two control streams: {error}");
    });
}

pub(super) async fn closed(connection: &Connection, what: &str, code: u64) {
    let error = tokio::time::timeout(Duration::from_secs(10), connection.closed()).await;
    let error = error.unwrap_or_else(|_| panic!("{what}: the connection goes on"));
    let is_it = matches!(&error, ConnectionError::ApplicationClosed(close) if u64::from(close.error_code) == code);
    assert!(is_it, "{what}: {error}, not {code:x}");
}

#[test]
fn a_head_has_its_limits_and_a_body_is_waited_for_if_it_is_wanted() {
    let world = world();
    on_sockets(async {
        let connection = connection(&world).await;
        let large = "x".repeat(61 * 1024);
        let many: Vec<_> = (0..101).map(|_| ("x-a", "1")).collect();
        for (what, bytes) in [
            ("by its frame", headers(&[("x-large", &large)])),
            ("by its length alone", vec![1, 0xbf, 0xff, 0xff, 0xff]),
            ("by the number of fields", headers(&many)),
        ] {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            // It may be refused before all of it is written.
            let _ = send.write_all(&bytes).await;
            assert!(has_status(&answer(&mut receive).await.unwrap(), "431"), "{what}");
        }
        // Browsers send each in a field of its own.
        let cookies: Vec<_> = (0..120).map(|_| ("cookie", "a=1")).collect();
        let (mut send, mut receive) = say(&connection, &headers(&cookies)).await;
        send.finish().unwrap();
        assert!(has_status(&answer(&mut receive).await.unwrap(), "200"), "cookies aren't counted");
        // RFC 9110, section 10.1.1: nothing is sent before the 100.
        let head = headers(&[("expect", "100-continue"), ("content-length", "3")]);
        let (mut send, mut receive) = say(&connection, &head).await;
        let mut first = [0; 6];
        receive.read_exact(&mut first).await.unwrap();
        assert!(has_status(&first, "100"), "{first:x?}");
        send.write_all(&frame(0, b"abc")).await.unwrap();
        send.finish().unwrap();
        assert!(has_status(&answer(&mut receive).await.unwrap(), "200"));
    });
}

#[test]
fn who_begins_requests_and_gives_them_up_is_let_go() {
    let world = world();
    on_sockets(async {
        let head = headers(&[("expect", "100-continue"), ("content-length", "3")]);
        for (what, stops, resets) in [("all of it", true, true), ("its answer", true, false), ("its body", false, true)]
        {
            let connection = connection(&world).await;
            let (mut given_up, mut streams) = (0, Vec::new());
            while let Ok((mut send, mut receive)) = connection.open_bi().await {
                // Somebody is at work when the body is asked for: one that never came would count for nothing.
                let mut wanted = [0; 6];
                if send.write_all(&head).await.is_err() || receive.read_exact(&mut wanted).await.is_err() {
                    break;
                }
                if stops {
                    let _ = receive.stop(0x10c_u32.into());
                }
                if resets {
                    let _ = send.reset(0x10c_u32.into());
                } else {
                    // Nobody wants the body any more.
                    let _ = send.stopped().await;
                }
                // One that is dropped is stopped.
                streams.push(receive);
                given_up += 1;
                assert!(given_up < 300, "nobody minds {what}");
            }
            closed(&connection, what, 0x107).await;
            assert!(given_up >= 100, "{what}: {given_up}");
        }
    });
}

#[test]
fn who_has_us_reset_requests_is_let_go() {
    let world = world();
    on_sockets(async {
        let connection = connection(&world).await;
        let bytes = [headers(&[("content-length", "2")]), frame(0, b"abc")].concat();
        let mut reset = 0;
        while let Ok((mut send, mut receive)) = connection.open_bi().await {
            let _ = send.write_all(&bytes).await;
            assert!(answer(&mut receive).await.is_err());
            reset += 1;
            assert!(reset < 1000, "nobody minds");
        }
        closed(&connection, "resets", 0x107).await;
        assert!(reset >= 100, "{reset}");
    });
}

#[test]
fn a_drain_waits_until_an_answer_has_arrived() {
    let world = world();
    on_sockets(async {
        let connection = slow_connection(&world).await;
        let (mut send, mut receive) = say(&connection, &get("/bytes?n=4000")).await;
        send.finish().unwrap();
        let mut first = [0; 5];
        receive.read_exact(&mut first).await.unwrap();
        world.drain();
        // For longer than a connection without requests is waited for.
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(answer(&mut receive).await.unwrap().len() >= 4000);
        closed(&connection, "its last answer has arrived", 0x100).await;
    });
}
