//! HTTP of every version, and what is in its headers.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_core::matching::is_grpc;
use weft_core::normalize;
use weft_core::traffic::{CookieName, SessionCarrier, SessionKey};
use weft_node_proxy::balance::{Seal, is_seal};
use weft_node_proxy::fuzzing::{self, H3Stream};

use crate::choice;

/// More than what is gathered of any head at once.
const MOST: usize = 8 << 10;

/// Bytes of a stream of one direction that are held at most: the payload of a frame, or what stands before it.
const MOST_HELD: usize = 4096;

/// Codes of HTTP/3 (RFC 9114, section 8.1).
const FRAME_UNEXPECTED: u32 = 0x105;
const ID_ERROR: u32 = 0x108;
const MISSING_SETTINGS: u32 = 0x10a;

/// Headers of one connection, which never pass.
pub(crate) const OF_ONE_CONNECTION: [&str; 7] =
    ["connection", "http2-settings", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Headers out of lines.
pub(crate) fn headers(data: &[u8]) -> HeaderMap {
    let lines = data.split(|byte| *byte == b'\n').take(100);
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(name).ok()?, value))
    });
    fields.fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(name, value);
        map
    })
}

/// A path and a host have one form, which is their own form, and out of which nobody reads another one.
pub(crate) fn normalize(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(path) = normalize::path(text) {
        assert_eq!(normalize::path(&path.text).as_ref(), Ok(&path));
        let segments = || path.text.split('/').skip(1);
        let last = segments().count().saturating_sub(1);
        let is_odd = |(at, segment): (usize, &str)| {
            let bare = segment.split(';').next().unwrap_or_default();
            (segment.is_empty() && at != last) || (matches!(bare, "." | "..") && path.text != "*")
        };
        assert!(!segments().enumerate().any(is_odd), "{:?}", path.text);
        let upper = path.text.to_ascii_uppercase();
        assert!(path.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{:?}", path.text);
        assert!(!upper.contains("%2E") && !upper.contains("%00"), "{:?}", path.text);
        assert_eq!(path.ambiguous, upper.contains("%2F") || upper.contains("%5C"), "{:?}", path.text);
    }
    if let Ok(host) = normalize::host(text) {
        assert_eq!(normalize::host(&host).as_deref(), Ok(&*host));
        assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase() || b"/@?#, ".contains(&byte)), "{host}");
    }
}

/// The request that lines are: method, target, headers.
fn request_of(data: &[u8], version: Version) -> Option<http::request::Parts> {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (method, target) = (lines.next()?, lines.next()?);
    let mut request = Request::builder().method(method).uri(target).version(version).body(()).ok()?;
    *request.headers_mut() = headers(lines.next().unwrap_or_default());
    Some(request.into_parts().0)
}

/// A request that passes its check has one host and one form: checked again, as by the next proxy, nothing changes.
pub(crate) fn request(data: &[u8]) {
    let (choice, data) = choice(data);
    let version = if choice % 2 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
    let Some(mut parts) = request_of(data, version) else { return };
    let Some(ambiguous) = fuzzing::checked(&mut parts) else { return };
    let hosts = parts.headers.get_all(header::HOST).iter().count() + usize::from(parts.uri.authority().is_some());
    assert!(hosts == 1, "{parts:?}");
    assert!(
        parts.headers.get_all(header::CONTENT_LENGTH).iter().count() <= 1 || version == Version::HTTP_2,
        "{parts:?}"
    );
    let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
    assert_eq!(fuzzing::checked(&mut parts), Some(ambiguous), "{uri} {headers:?}");
    assert_eq!((parts.uri, parts.headers), (uri, headers));
}

/// What concerns one connection ends there, and a connection is never switched to another form of HTTP.
pub(crate) fn hop(data: &[u8]) {
    let mut map = headers(data);
    let trailers = map.clone();
    let switched = fuzzing::hop(&mut map);
    let is_left =
        |name: &&str| map.contains_key(*name) && (**name != *"te" || map.get("te").is_none_or(|it| it != "trailers"));
    assert!(!OF_ONE_CONNECTION.iter().any(is_left), "{map:?}");
    let switched = switched.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    let carries = |protocol: &str| ["h2", "h3", "http", "tls"].iter().any(|it| protocol.trim().starts_with(it));
    assert!(!switched.iter().flat_map(|it| it.split(',')).any(carries), "{switched:?}");
    let before = map.clone();
    assert_eq!((fuzzing::hop(&mut map), &map), (None, &before));

    let mut left = trailers;
    fuzzing::trailers(&mut left);
    let framing = ["content-length", "host", "authorization", "cookie", "x-forwarded-for", "forwarded"];
    let misplaced = OF_ONE_CONNECTION.iter().chain(&framing).any(|name| left.contains_key(*name));
    assert!(!misplaced, "{left:?}");
}

/// The requests that a codec hands out of bytes, the last of them the one that is refused.
async fn handed_out(data: &[u8], refused: Option<u64>) -> u64 {
    let (mut near, far) = tokio::io::duplex(2 * MOST);
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let is_refused = refused == Some(counted.get());
        counted.set(counted.get() + 1);
        async move {
            // As the proxy does: with a request that is refused, or whose body breaks off, the connection ends.
            let whole = !is_refused && request.into_body().collect().await.is_ok();
            let answer = Response::builder().header(header::CONNECTION, if whole { "keep-alive" } else { "close" });
            Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap_or_default())
        }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    let client = async {
        // Nobody is there any more if it ended the connection.
        let _ = near.write_all(data).await;
        let _ = near.shutdown().await;
        let _ = near.read_to_end(&mut Vec::new()).await;
    };
    let _ = tokio::join!(serving, client);
    count.get()
}

/// What follows the requests of a connection sees as many as the codec hands out, or that one is ambiguous: it is refused then.
/// And it doesn't matter in which pieces they come.
pub(crate) fn h1_framing(data: &[u8]) {
    let (piece, data) = choice(data);
    if data.len() > MOST {
        return;
    }
    let (found, heads) = fuzzing::h1_ambiguous(data, data.len());
    assert_eq!(fuzzing::h1_ambiguous(data, piece), (found, heads), "in pieces of {piece}");
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let handed_out = runtime.block_on(handed_out(data, found));
    let most = found.map_or(heads, |number| number + 1);
    assert!(handed_out <= most, "{handed_out} requests were handed out, {heads} seen, ambiguous {found:?}");
}

/// Whether a header block is under way doesn't depend on the pieces.
pub(crate) fn h2_framing(data: &[u8]) {
    let (piece, data) = choice(data);
    assert_eq!(fuzzing::h2_in_block(data, piece), fuzzing::h2_in_block(data, data.len()));
}

/// An answer means the same in whatever pieces it comes, and what is behind it isn't part of it.
pub(crate) fn h1_answer(data: &[u8]) {
    let (piece, data) = choice(data);
    if data.len() > MOST {
        return;
    }
    for method in [Method::GET, Method::HEAD] {
        let whole = fuzzing::answer(data, data.len(), &method);
        assert_eq!(fuzzing::answer(data, piece, &method), whole, "{method} in pieces of {piece}");
        if let Some((status, body, left)) = whole {
            assert!((100..1000).contains(&status) && body.len() + left <= data.len());
            assert!(body.is_empty() || method == Method::GET);
        }
    }
}

/// Frames are the same in whatever pieces they come.
pub(crate) fn h3_frames(data: &[u8]) {
    let (piece, data) = choice(data);
    let whole = fuzzing::h3_frames(data, data.len());
    assert_eq!(fuzzing::h3_frames(data, piece), whole, "in pieces of {piece}");
    let gathered: usize = whole.iter().flatten().map(|(_, payload)| payload.len()).sum();
    assert!(gathered <= data.len());
}

/// A stream of one direction is read the same in whatever pieces it comes, little of it is held, and what is wrong on it stays
/// wrong. Settings come first and once, nothing that was said is taken back, and what isn't known means nothing.
pub(crate) fn h3_control(data: &[u8]) {
    let (piece, data) = choice(data);
    let read = |bytes: &[u8]| {
        let (whole, held) = fuzzing::h3_stream(bytes, bytes.len());
        let (in_pieces, held_in_pieces) = fuzzing::h3_stream(bytes, piece);
        assert_eq!(in_pieces, whole, "in pieces of {piece}");
        assert!(held.max(held_in_pieces) <= MOST_HELD, "{held} or {held_in_pieces} bytes are held");
        whole
    };
    let found = read(data);
    let then = |more: &[u8]| read(&[data, more].concat());
    match &found {
        H3Stream::Open { between: true, .. } => {}
        H3Stream::Open { .. } => return,
        H3Stream::Unknown | H3Stream::Refused(_) => return assert_eq!(then(b"\x04\0"), found),
    }
    assert_eq!(then(b"\x21\x06grease"), found, "a frame of a reserved type means nothing");
    let is_refused = |more: &[u8], codes: [u32; 2]| {
        let stream = then(more);
        assert!(codes.iter().any(|code| stream == H3Stream::Refused(*code)), "{more:x?}: {stream:?}");
    };
    is_refused(b"\x04\0\x04\0", [FRAME_UNEXPECTED; 2]);
    for kind in [0x0, 0x1, 0x2, 0x5, 0x6, 0x8, 0x9] {
        is_refused(&[kind, 0], [FRAME_UNEXPECTED, MISSING_SETTINGS]);
    }
    for taken_back in [b"\x07\x01\x04\x07\x01\x08", b"\x0d\x01\x08\x0d\x01\x04"] {
        is_refused(taken_back, [ID_ERROR, MISSING_SETTINGS]);
    }
}

/// A text is as long as it may be at most.
pub(crate) fn h3_huffman(data: &[u8]) {
    let (most, data) = choice(data);
    if let Some(text) = fuzzing::h3_huffman(data, most) {
        assert!(text.len() <= most);
        assert_eq!(fuzzing::h3_huffman(data, usize::MAX), Some(text));
    }
}

/// A field section is within its limits, is written as it is read, and its request has nothing of HTTP/1's framing.
pub(crate) fn h3_section(data: &[u8]) {
    let Some(section) = fuzzing::h3_section(data) else { return };
    let size: usize = section.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    assert!(size <= 16 << 10, "{size}");
    if section.fields.iter().all(|(name, _)| name.is_ascii() && !name.is_empty()) {
        let again = fuzzing::h3_section(&section.again).map(|again| again.fields);
        assert_eq!(again.as_ref(), Some(&section.fields));
    }
    let Some((request, length)) = section.request else { return };
    let framing = |name: &&str| **name != *"te" && request.headers().contains_key(*name);
    assert!(!OF_ONE_CONNECTION.iter().filter(|name| **name != "http2-settings").any(framing), "{request:?}");
    assert_eq!(length.is_some(), request.headers().contains_key(header::CONTENT_LENGTH));
}

/// Each element is a hop, an address or not; what can't be read is refused.
pub(crate) fn forwarded(data: &[u8]) {
    let map = headers(data);
    for header in fuzzing::FORWARDED {
        let Some(hops) = fuzzing::forwarded(&map, header) else { continue };
        assert!(hops.iter().flatten().all(|ip| *ip == ip.to_canonical()), "{hops:?}");
        let lines = map.get_all("x-forwarded-for").iter();
        let elements: usize = lines.map(|line| line.as_bytes().split(|byte| *byte == b',').count()).sum();
        assert!(header == fuzzing::FORWARDED[0] || hops.len() == elements, "{hops:?}");
    }
}

/// Who has no say in it isn't recorded, whichever form its word has.
pub(crate) fn trace(data: &[u8]) {
    let map = headers(data);
    let said = fuzzing::said(&map);
    assert!(said.is_none_or(|(trace, span, _)| trace != 0 && span != 0), "{said:?}");
    let without = fuzzing::unsampled(map);
    let still = fuzzing::said(&without);
    assert!(still.is_none_or(|(_, _, sampled)| sampled != Some(true)), "{without:?}");
    assert_eq!(fuzzing::unsampled(without.clone()), without);
}

/// What is presented has the form of a seal, there are few, and one that opens was made with its key.
pub(crate) fn session(data: &[u8]) {
    let map = headers(data);
    let key = SessionKey::new(*b"0123456789abcdef");
    let mut carriers = vec![SessionCarrier::Header(HeaderName::from_static("x-session"))];
    carriers.extend(CookieName::new("s").map(|name| SessionCarrier::Cookie { name, permanent: false }));
    for carrier in carriers {
        let seals = fuzzing::presented(&carrier, &map);
        assert!(seals.len() <= 16 && seals.iter().all(|text| is_seal(text)), "{seals:?}");
        for text in seals {
            let opened = Seal::open(&key, &text, 0);
            assert!(opened.is_none_or(|seal| seal.to_text(&key) == text), "{text}");
        }
    }
}

/// The text form is base64, in whatever pieces it comes.
pub(crate) fn grpc_web(data: &[u8]) {
    let (piece, data) = choice(data);
    let whole = fuzzing::web_text(data, data.len());
    assert_eq!(fuzzing::web_text(data, piece), whole, "in pieces of {piece}");
    if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(data) {
        assert_eq!(whole, Some(bytes));
    }
}

/// A call becomes gRPC's with nothing of its old form; the answer is the browser's form of what the backend sent, with all that
/// ends it in one frame, and nothing else in that.
pub(crate) fn grpc_web_call(data: &[u8]) {
    let (piece, data) = choice(data);
    let mut parts = data.splitn(4, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (request, answer, trailers, body) = (next(), headers(next()), headers(next()), next());
    let Some(request) = request_of(request, Version::HTTP_11) else { return };
    let trailers = (!trailers.is_empty()).then_some(trailers);
    let Some(call) = fuzzing::web_call(request, answer.clone(), (body, piece), trailers.clone()) else { return };

    let sent = &call.request.headers;
    assert!(call.request.version == Version::HTTP_2 && is_grpc(sent), "{:?}", call.request);
    assert!(sent.get_all(header::TE).iter().eq(["trailers"]) && sent.get_all(header::CONTENT_TYPE).iter().count() == 1);
    let old = ["accept", "content-length", "expect", "host"];
    assert!(!old.iter().any(|name| sent.contains_key(*name)), "{sent:?}");

    let Some((head, written)) = call.answer else { return assert!(!is_grpc(&answer)) };
    assert!(
        is_grpc(&answer) && !["content-length", "grpc-status", "trailer"].iter().any(|name| head.contains_key(*name))
    );
    let form: &[u8] = if call.text { b"application/grpc-web-text" } else { b"application/grpc-web" };
    assert!(head.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(form)), "{head:?}");
    let read = if call.text { fuzzing::web_text(&written, piece) } else { Some(written) };
    let Some(last) = read.as_ref().and_then(|read| read.strip_prefix(body)) else { panic!("{read:?} isn't {body:?}") };
    let said = trailers.or_else(|| {
        let value = |name| Some((HeaderName::from_static(name), answer.get(name)?.clone()));
        let names = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
        answer.contains_key("grpc-status").then(|| names.into_iter().filter_map(value).collect::<HeaderMap>())
    });
    let ended = ended_with(last);
    match said {
        Some(said) => assert!(said.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).eq(ended)),
        None => assert_eq!(ended.first(), Some(&(&b"grpc-status"[..], &b"2"[..])), "nobody said that it went well"),
    }
}

/// The names and values in a frame of trailers, which is whole, and has lines of HTTP/1 alone.
fn ended_with(frame: &[u8]) -> Vec<(&[u8], &[u8])> {
    let Some(([0x80, length @ ..], mut lines)) = frame.split_first_chunk::<5>() else { panic!("{frame:?} is none") };
    assert_eq!(u32::from_be_bytes(*length) as usize, lines.len());
    let mut found = Vec::new();
    while !lines.is_empty() {
        let Some(end) = lines.windows(2).position(|at| at == b"\r\n") else { panic!("{lines:?} has no end") };
        let (line, rest) = lines.split_at(end);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { panic!("{line:?} is no header") };
        let (name, value) = line.split_at(colon);
        found.push((name, value.get(1..).unwrap_or_default()));
        lines = rest.get(2..).unwrap_or_default();
    }
    found
}
