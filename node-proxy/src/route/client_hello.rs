//! The server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3), for TLSRoutes.
//!
//! The bytes that were read are kept and go to the endpoint unchanged.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The most a ClientHello may take, records included. Post-quantum key shares make it some 2 KiB.
const MAX_HELLO: usize = 16 << 10;

/// What the first bytes of a connection were.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The bytes that were read.
    pub(crate) bytes: Vec<u8>,
    /// The server name, lower case, without a trailing dot.
    pub(crate) server_name: Option<String>,
}

/// Reads a connection's ClientHello. What is no ClientHello, or not whole in time, has no server name.
pub(crate) async fn read_client_hello(io: &mut (impl AsyncRead + Unpin), limit: Duration) -> std::io::Result<Hello> {
    let mut bytes = Vec::with_capacity(2048);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let server_name = match parse(&bytes) {
            Parsed::Incomplete if bytes.len() < MAX_HELLO => {
                let mut chunk = (&mut *io).take((MAX_HELLO - bytes.len()) as u64);
                match tokio::time::timeout_at(deadline, chunk.read_buf(&mut bytes)).await {
                    Ok(Ok(0)) | Err(_) => None,
                    Ok(Ok(_)) => continue,
                    Ok(Err(error)) => return Err(error),
                }
            }
            Parsed::Incomplete | Parsed::Other => None,
            Parsed::Name(name) => name,
        };
        return Ok(Hello { bytes, server_name });
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More bytes may make it one.
    Incomplete,
    /// Not a ClientHello, or a malformed one.
    Other,
    /// A ClientHello, with its server name if it has one.
    Name(Option<String>),
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let hello = match handshake(bytes) {
        Ok(hello) => hello,
        Err(other) => return other,
    };
    match server_name(&hello) {
        Some(name) => Parsed::Name(name),
        None => Parsed::Other,
    }
}

/// The ClientHello's body, put together from as many records as it takes.
fn handshake(mut bytes: &[u8]) -> Result<Vec<u8>, Parsed> {
    let mut message = Vec::new();
    loop {
        if let Some((head, body)) = message.split_first_chunk::<4>() {
            let [kind, high, middle, low] = *head;
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            // client_hello(1)
            if kind != 1 || length > MAX_HELLO {
                return Err(Parsed::Other);
            }
            if let Some(whole) = body.get(..length) {
                return Ok(whole.to_vec());
            }
        }
        // handshake(22), version 3.x
        match bytes {
            [] | [22] | [22, 3] => return Err(Parsed::Incomplete),
            [22, 3, ..] => {}
            _ => return Err(Parsed::Other),
        }
        let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() else {
            return Err(Parsed::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            return Err(Parsed::Other);
        }
        let part = rest.get(..length.min(rest.len())).unwrap_or_default();
        message.extend_from_slice(part);
        // The first byte is the kind; what can't become a ClientHello isn't waited for, however short its records are.
        if message.first().is_some_and(|kind| *kind != 1) {
            return Err(Parsed::Other);
        }
        if part.len() < length {
            return Err(Parsed::Incomplete);
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
}

/// Reads vectors of TLS presentation language.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn vector(&mut self, length_bytes: usize) -> Option<Reader<'a>> {
        let length = self.number(length_bytes)?;
        self.take(length).map(Reader)
    }
}

/// The server name in the message of a ClientHello, lower case, without a trailing dot; also `None` if it is malformed.
pub(crate) fn server_name_in(hello: &[u8]) -> Option<String> {
    server_name(hello).flatten()
}

/// `None`: malformed. `Some(None)`: no name.
fn server_name(hello: &[u8]) -> Option<Option<String>> {
    let mut hello = Reader(hello);
    // legacy_version, random, legacy_session_id, cipher_suites, legacy_compression_methods
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    if hello.0.is_empty() {
        return Some(None);
    }
    let mut extensions = hello.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut extension = extensions.vector(2)?;
        // server_name(0)
        if kind != 0 {
            continue;
        }
        let mut names = extension.vector(2)?;
        // host_name(0)
        if names.number(1)? != 0 {
            return Some(None);
        }
        let name = std::str::from_utf8(names.vector(2)?.0).ok()?;
        let name = name.strip_suffix('.').unwrap_or(name);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let has_labels = name.split('.').all(|label| !label.is_empty());
        return (has_labels && name.bytes().all(legal)).then(|| Some(name.to_ascii_lowercase()));
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    fn hello(name: Option<&str>) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
        if let Some(name) = name {
            let n = name.len() as u16;
            for part in
                [&0u16.to_be_bytes()[..], &(n + 5).to_be_bytes(), &(n + 3).to_be_bytes(), &[0], &n.to_be_bytes()]
            {
                extensions.extend(part);
            }
            extensions.extend(name.as_bytes());
        }
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1, 0, (body.len() >> 8) as u8, body.len() as u8];
        message.extend(body);
        message
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn the_server_name_is_found_whatever_the_records() {
        let message = hello(Some("Shop.Example.COM."));
        for size in [1, 5, 40, 4096] {
            let parsed = parse(&records(&message, size));
            assert_eq!(parsed, Parsed::Name(Some("shop.example.com".into())), "records of {size}");
        }
        assert_eq!(parse(&records(&hello(None), 4096)), Parsed::Name(None));
    }

    #[test]
    fn every_prefix_of_a_hello_asks_for_more() {
        let whole = records(&hello(Some("a.example")), 30);
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), Parsed::Incomplete, "{cut} bytes");
        }
    }

    #[test]
    fn what_is_no_hello_is_not_waited_for() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x02", b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x00\x08\x02", b"\x80"]
        {
            assert_eq!(parse(bytes), Parsed::Other, "{bytes:?}");
        }
        for bad in ["a b", "nul\0", "ümlaut", "", "a..b", "a..", ".a"] {
            assert_eq!(parse(&records(&hello(Some(bad)), 4096)), Parsed::Other, "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_come_in_pieces_are_all_kept() {
        let (mut client, mut server) = tokio::io::duplex(16);
        let whole = records(&hello(Some("a.example")), 4096);
        let reading = tokio::spawn(async move { read_client_hello(&mut server, Duration::from_secs(5)).await });
        client.write_all(&whole).await.unwrap();
        let hello = reading.await.unwrap().unwrap();
        assert_eq!((hello.bytes, hello.server_name.as_deref()), (whole, Some("a.example")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_has_no_name_when_time_is_up() {
        let (_client, mut server) = tokio::io::duplex(16);
        let hello = read_client_hello(&mut server, Duration::from_secs(5)).await.unwrap();
        assert_eq!(hello, Hello { bytes: Vec::new(), server_name: None });
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_more_bytes_never_undo_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut near = records(&hello(Some("a.example")), 4096);
            for (at, byte) in bytes.chunks(2).filter_map(|c| Some((c[0], *c.get(1)?))) {
                let len = near.len();
                near[usize::from(at) % len] = byte;
            }
            let verdict = parse(&near);
            if verdict != Parsed::Incomplete {
                near.extend(&bytes);
                prop_assert_eq!(parse(&near), verdict);
            }
        }
    }
}
