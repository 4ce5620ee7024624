//! Headers in every form that is one, and many that are none.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use weft_core::service::ProxyVersion;

use super::read::{Parsed, SIGNATURE, parse};
use super::*;

fn whole(length: usize, ends: Option<(&str, &str)>) -> Parsed {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    Parsed::Whole { length, ends: ends.map(|(s, d)| Ends { source: end(s), destination: end(d) }) }
}

/// A header of version 2 with this command and family, and a length that is that of its body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x0f, 0xa0, 0, 80];

fn v6() -> Vec<u8> {
    let mut body = vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    body.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    body.extend([0x0f, 0xa0, 1, 0xbb]);
    body
}

#[test]
fn lines_of_version_1() {
    let good = "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\n";
    for (text, want) in [
        (good.to_owned(), whole(good.len(), Some(("192.0.2.7:4000", "10.0.0.1:80")))),
        (format!("{good}GET / HTTP/1.1\r\n"), whole(good.len(), Some(("192.0.2.7:4000", "10.0.0.1:80")))),
        (
            "PROXY TCP6 2001:db8::7 fd00::1 4000 443\r\n".into(),
            whole(41, Some(("[2001:db8::7]:4000", "[fd00::1]:443"))),
        ),
        ("PROXY TCP6 ::ffff:192.0.2.7 fd00::1 0 65535\r\n".into(), whole(45, Some(("192.0.2.7:0", "[fd00::1]:65535")))),
        ("PROXY UNKNOWN\r\n".into(), whole(15, None)),
        ("PROXY UNKNOWN ffff::1 whatever 1 2\r\nx".into(), whole(36, None)),
    ] {
        assert_eq!(parse(text.as_bytes()), want, "{text:?}");
        let Parsed::Whole { length, .. } = want else { unreachable!() };
        for end in 0..length {
            assert_eq!(parse(&text.as_bytes()[..end]), Parsed::Incomplete, "{:?}", &text[..end]);
        }
    }
}

#[test]
fn lines_that_only_look_like_version_1() {
    for text in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4000\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80 1\r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY  TCP4 192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80 \r\n",
        "PROXY\tTCP4 192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY TCP4 192.0.2.7\t10.0.0.1 4000 80\r\n",
        "PROXY TCP4 192.0.2.256 10.0.0.1 4000 80\r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 4000 80\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 4000 80\r\n",
        "PROXY TCP4 2001:db8::7 fd00::1 4000 80\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY TCP6 [fd00::7] fd00::1 4000 80\r\n",
        "PROXY TCP6 fd00::7%eth0 fd00::1 4000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 04000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +4000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 -1 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\n\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4000 \r80\r\n",
        "PROXY TCP5 192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY tcp4 192.0.2.7 10.0.0.1 4000 80\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP4 \u{e9} 10.0.0.1 4000 80\r\n",
    ] {
        let parsed = parse(text.as_bytes());
        let is_none = matches!(parsed, Parsed::Malformed(_) | Parsed::Absent);
        assert!(is_none, "{text:?}: {parsed:?}");
        assert_eq!(matches!(parsed, Parsed::Absent), !text.starts_with("PROXY "), "{text:?}");
    }
    // The longest line there can be, and one byte more.
    let line = |fill: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(fill));
    assert_eq!(parse(line(91).as_bytes()), whole(107, None));
    assert!(matches!(parse(line(92).as_bytes()), Parsed::Malformed(_)));
    assert!(matches!(parse("PROXY UNKNOWN".repeat(20).as_bytes()), Parsed::Malformed(_)), "nothing is waited for");
}

#[test]
fn headers_of_version_2() {
    let ends = Some(("192.0.2.7:4000", "10.0.0.1:80"));
    let with = |more: &[u8]| [&V4[..], more].concat();
    for (bytes, want) in [
        (v2(0x21, 0x11, &V4), whole(28, ends)),
        (v2(0x21, 0x21, &v6()), whole(52, Some(("[2001:db8::7]:4000", "[fd00::1]:443")))),
        // Extensions: none of them is looked at.
        (v2(0x21, 0x11, &with(&[4, 0, 0])), whole(31, ends)),
        (v2(0x21, 0x11, &with(&[1, 0, 2, b'h', b'2', 4, 0, 1, 0])), whole(37, ends)),
        // Whose it looks like: the load balancer's own, whatever else is said, and what is no TCP.
        (v2(0x20, 0x00, &[]), whole(16, None)),
        (v2(0x20, 0x11, &V4), whole(28, None)),
        (v2(0x20, 0x11, &[1, 2]), whole(18, None)),
        (v2(0x20, 0xff, &[0; 5]), whole(21, None)),
        (v2(0x21, 0x00, &[1, 2, 3, 4]), whole(20, None)),
        (v2(0x21, 0x31, &[0; 216]), whole(232, None)),
    ] {
        assert_eq!(parse(&bytes), want, "{bytes:02x?}");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Incomplete, "{end} of {bytes:02x?}");
        }
        assert_eq!(parse(&[&bytes[..], b"\x16\x03\x01"].concat()), want);
    }
}

#[test]
fn bytes_that_only_look_like_version_2() {
    let with = |more: &[u8]| [&V4[..], more].concat();
    let long = vec![0; 4096 - 15];
    for bytes in [
        v2(0x11, 0x11, &V4),
        v2(0x01, 0x11, &V4),
        v2(0x22, 0x11, &V4),
        v2(0x2f, 0x11, &V4),
        // No connections, and unknown families.
        v2(0x21, 0x12, &V4),
        v2(0x21, 0x22, &v6()),
        v2(0x21, 0x32, &[0; 216]),
        v2(0x21, 0x10, &V4),
        v2(0x21, 0x01, &V4),
        v2(0x21, 0x41, &V4),
        // Addresses that are not whole.
        v2(0x21, 0x11, &V4[..11]),
        v2(0x21, 0x11, &[]),
        v2(0x21, 0x21, &V4),
        v2(0x21, 0x21, &v6()[..35]),
        v2(0x21, 0x31, &[0; 215]),
        // Extensions that are not.
        v2(0x21, 0x11, &with(&[4])),
        v2(0x21, 0x11, &with(&[4, 0])),
        v2(0x21, 0x11, &with(&[4, 0, 1])),
        v2(0x21, 0x11, &with(&[4, 0, 0, 4, 1, 0])),
        v2(0x21, 0x11, &with(&[4, 0xff, 0xff, 0])),
        // Longer than anybody needs.
        v2(0x20, 0x00, &long),
        v2(0x21, 0x00, &long),
    ] {
        assert!(matches!(parse(&bytes), Parsed::Malformed(_)), "{bytes:02x?}: {:?}", parse(&bytes));
    }
    // A length is judged before what it promises is waited for.
    let promise = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    assert!(matches!(parse(&promise), Parsed::Malformed(_)));
    assert!(matches!(parse(&[&SIGNATURE[..], &[0x31]].concat()), Parsed::Malformed(_)));
}

#[test]
fn everything_else_is_no_header() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"PROX\0", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01", b"\r\n\r\nGET", b"proxy TCP4"]
    {
        assert_eq!(parse(bytes), Parsed::Absent, "{bytes:?}");
    }
    // These may still become one.
    for bytes in [&b""[..], b"P", b"PROXY", b"PR", b"\r\n", b"\r\n\r\n\0\r\nQUIT"] {
        assert_eq!(parse(bytes), Parsed::Incomplete, "{bytes:?}");
    }
}

#[test]
fn what_is_written_reads_back() {
    for (source, destination) in [
        ("192.0.2.7:4000", "10.0.0.1:80"),
        ("[2001:db8::7]:0", "[fd00::1]:65535"),
        ("192.0.2.7:4000", "[fd00::1]:443"),
        ("[::ffff:192.0.2.7]:1", "10.0.0.1:80"),
    ] {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let end = |text: &str| text.parse::<SocketAddr>().unwrap();
            let ends = Ends { source: end(source), destination: end(destination) };
            let bytes = ProxyHeader { version, ends }.bytes();
            let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
            let want = Ends { source: canonical(ends.source), destination: canonical(ends.destination) };
            assert_eq!(parse(&bytes), Parsed::Whole { length: bytes.len(), ends: Some(want) }, "{bytes:02x?}");
        }
    }
    let ends = Ends { source: "192.0.2.7:4000".parse().unwrap(), destination: "10.0.0.1:80".parse().unwrap() };
    assert_eq!(ProxyHeader { version: ProxyVersion::V2, ends }.bytes(), v2(0x21, 0x11, &V4));
    let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\n";
    assert_eq!(ProxyHeader { version: ProxyVersion::V1, ends }.bytes(), line);
}

/// Nobody gets around a header that has to be there by waiting.
#[tokio::test]
async fn who_says_too_little_is_spoken_to_only_where_a_header_may_be_missing() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let slow = "a header of the PROXY protocol that isn't whole in time";
    for (required, said, want) in [
        (false, "", "whose it looks like, and "),
        (false, "GET", "whose it looks like, and GET"),
        (false, "PROXY ", slow),
        (true, "", slow),
        (true, "PROXY ", slow),
        (true, "GET", "no header of the PROXY protocol"),
    ] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let found = match read(&mut stream, required, Duration::from_millis(50)).await {
            Ok(Opening { ends: None, rest }) => {
                format!("whose it looks like, and {}", String::from_utf8(rest).unwrap())
            }
            Ok(other) => panic!("{other:?}"),
            Err(refused) => refused.to_string(),
        };
        assert_eq!(found, want, "{required} {said:?}");
    }
}
