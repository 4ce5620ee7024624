//! The framing of gRPC-Web.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::text::{NotBase64, TextDecoder, encode};
use super::{Form, GrpcWeb, frame};

fn of(method: &Method, kind: &'static str, accept: &[&'static str]) -> Option<GrpcWeb> {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
    accept.iter().for_each(|value| {
        headers.append(ACCEPT, HeaderValue::from_static(value));
    });
    GrpcWeb::of(method, &headers)
}

#[test]
fn a_call_is_known_by_its_content_type() {
    use Form::{Binary, Text};
    type Call = (Form, Form, &'static str);
    let cases: &[(&str, &[&str], Option<Call>)] = &[
        ("application/grpc-web", &[], Some((Binary, Binary, ""))),
        ("application/grpc-web+proto", &[], Some((Binary, Binary, "+proto"))),
        ("Application/gRPC-Web+Proto; charset=utf-8", &[], Some((Binary, Binary, "+proto"))),
        ("application/grpc-web-text", &[], Some((Text, Text, ""))),
        ("application/grpc-web-text+proto", &["*/*"], Some((Text, Text, "+proto"))),
        ("application/grpc-web+json", &[], Some((Binary, Binary, "+json"))),
        ("application/grpc-web+proto", &["application/grpc-web-text"], Some((Binary, Text, "+proto"))),
        ("application/grpc-web-text", &["application/grpc-web+proto"], Some((Text, Binary, ""))),
        ("application/grpc-web-text", &["application/grpc-web, application/grpc-web-text"], Some((Text, Text, ""))),
        ("application/grpc-web-text", &["application/grpc-web", "application/grpc-web-text"], Some((Text, Text, ""))),
        ("application/grpc", &[], None),
        ("application/grpc+proto", &[], None),
        ("application/grpc-webby", &[], None),
        ("application/grpc-web-texts", &[], None),
        ("text/plain", &["application/grpc-web"], None),
    ];
    for (kind, accept, expected) in cases {
        let found = of(&Method::POST, kind, accept);
        let found = found.as_ref().map(|it| (it.request, it.answer, &*it.encoding));
        assert_eq!(found, *expected, "{kind} {accept:?}");
        assert_eq!(of(&Method::OPTIONS, kind, accept), None, "{kind}");
    }
}

#[test]
fn what_is_not_base64_is_refused() {
    for (pieces, expected) in [
        (&["AAAA"][..], Ok((3, true))),
        (&["AAA=", "AAAA"][..], Ok((5, true))),
        (&["AA==AA==AAAA"][..], Ok((5, true))),
        (&["A", "A", "A", "A"][..], Ok((3, true))),
        (&["AAAAA"][..], Ok((3, false))),
        (&["AAA"][..], Ok((0, false))),
        (&["A=AA"][..], Err(NotBase64)),
        (&["===="][..], Err(NotBase64)),
        (&["AA\nA"][..], Err(NotBase64)),
        (&["AA_-"][..], Err(NotBase64)),
        // Bits that no byte has.
        (&["AB=="][..], Err(NotBase64)),
    ] {
        let mut decoder = TextDecoder::default();
        let read = pieces.iter().try_fold(0, |read, piece| Ok(read + decoder.feed(piece.as_bytes())?.len()));
        assert_eq!(read.map(|read| (read, decoder.is_whole())), expected, "{pieces:?}");
    }
}

proptest! {
    /// Whatever parts the text is made of, and wherever it is cut.
    #[test]
    fn text_is_read_as_it_was_written(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
        cuts in proptest::collection::vec(1..9_usize, 1..40),
    ) {
        let text: Vec<u8> = parts.iter().flat_map(|part| encode(part)).collect();
        let (mut decoder, mut read, mut rest) = (TextDecoder::default(), Vec::new(), text.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            read.extend_from_slice(&decoder.feed(piece).unwrap());
            rest = tail;
        }
        prop_assert_eq!(read, parts.concat());
        prop_assert!(decoder.is_whole());
    }
}

#[test]
fn trailers_are_lines_in_a_frame_of_their_own() {
    let mut trailers = HeaderMap::new();
    assert_eq!(&frame::of_trailers(&trailers)[..], b"\x80\0\0\0\0");
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.append("x-a", HeaderValue::from_static("1"));
    trailers.append("x-a", HeaderValue::from_static("2"));
    assert_eq!(&frame::of_trailers(&trailers)[..], b"\x80\0\0\0\x1dgrpc-status:0\r\nx-a:1\r\nx-a:2\r\n");
}
