//! Bytes -> header: a pure function of what has come so far.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, LONGEST};

/// What version 2 begins with.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const V1: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// Signature, command, family, length.
const HEAD: usize = 16;

/// What bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More is needed to say.
    Incomplete,
    /// They begin with something else.
    Absent,
    /// They begin as a header does, and it is none.
    Malformed(&'static str),
    /// They begin with a header of this length.
    Whole {
        /// In bytes.
        length: usize,
        /// What it says; `None`: that the connection is whose it looks like.
        ends: Option<Ends>,
    },
}

/// Reads the header that bytes begin with.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, &SIGNATURE) {
        return if bytes.len() < SIGNATURE.len() { Parsed::Incomplete } else { v2(bytes) };
    }
    if begins(bytes, V1) {
        return if bytes.len() < V1.len() { Parsed::Incomplete } else { v1(bytes) };
    }
    Parsed::Absent
}

/// Whether one of the two is the beginning of the other.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn v1(bytes: &[u8]) -> Parsed {
    let seen = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() {
            0..LONGEST_LINE => Parsed::Incomplete,
            _ => Parsed::Malformed("the line has no end"),
        };
    };
    let line = seen.get(V1.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line.filter(|line| line.bytes().all(|b| (b' '..=b'~').contains(&b))) else {
        return Parsed::Malformed("the line isn't text");
    };
    let length = end + 2;
    // What follows is no business of the receiver's.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Parsed::Whole { length, ends: None };
    }
    let mut words = line.split(' ');
    let (family, words) = (words.next(), [words.next(), words.next(), words.next(), words.next(), words.next()]);
    let [Some(source), Some(destination), Some(from), Some(to), None] = words else {
        return Parsed::Malformed("not a family, two addresses and two ports");
    };
    let address = |text: &str| match family {
        Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    let end = |ip: &str, number: &str| Some(SocketAddr::new(address(ip)?.to_canonical(), port(number)?));
    match (end(source, from), end(destination, to)) {
        (Some(source), Some(destination)) => Parsed::Whole { length, ends: Some(Ends { source, destination }) },
        _ => Parsed::Malformed("an address or a port is none of the family's"),
    }
}

/// In one form only: no sign, no leading zeros.
fn port(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn v2(bytes: &[u8]) -> Parsed {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return early(bytes);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if let Some(wrong) = wrong_head(command, family, length) {
        return Parsed::Malformed(wrong);
    }
    let Some(body) = rest.get(..length) else { return Parsed::Incomplete };
    let (ends, extensions) = match addresses(family, body) {
        Some((ends, extensions)) => (Some(ends).filter(|_| command == PROXY), extensions),
        None => (None, body.get(size_of(family)..).unwrap_or_default()),
    };
    // Of a connection of the load balancer's own, or of a family of its own, nothing behind the head has a known form.
    let known = command == PROXY && family != UNSPECIFIED;
    if known && !is_extensions(extensions) {
        return Parsed::Malformed("an extension has a wrong length");
    }
    Parsed::Whole { length: HEAD + length, ends }
}

/// Version 2, and the load balancer's own connection.
const LOCAL: u8 = 0x20;
/// Version 2, and somebody else's.
const PROXY: u8 = 0x21;
/// Neither a known family nor a transport.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Says what is wrong with a beginning of a head already, so that nothing is waited for in vain.
fn early(bytes: &[u8]) -> Parsed {
    match bytes.get(SIGNATURE.len()) {
        Some(command) if ![LOCAL, PROXY].contains(command) => Parsed::Malformed("an unknown version or command"),
        _ => Parsed::Incomplete,
    }
}

fn wrong_head(command: u8, family: u8, length: usize) -> Option<&'static str> {
    match (command, family) {
        _ if HEAD + length > LONGEST => Some("too long"),
        // Its family and what follows are to be ignored.
        (LOCAL, _) => None,
        (PROXY, UNSPECIFIED | TCP4 | TCP6 | UNIX_STREAM) if length < size_of(family) => {
            Some("too short for its addresses")
        }
        (PROXY, UNSPECIFIED | TCP4 | TCP6 | UNIX_STREAM) => None,
        (PROXY, _) => Some("not of a connection of TCP"),
        _ => Some("an unknown version or command"),
    }
}

/// The bytes of two addresses of a family.
const fn size_of(family: u8) -> usize {
    match family {
        TCP4 => 12,
        TCP6 => 36,
        UNIX_STREAM => 216,
        _ => 0,
    }
}

/// Both ends, and what is behind them.
fn addresses(family: u8, body: &[u8]) -> Option<(Ends, &[u8])> {
    match family {
        TCP4 => {
            let (source, rest) = body.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            ends(IpAddr::from(*source), IpAddr::from(*destination), rest)
        }
        TCP6 => {
            let (source, rest) = body.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            ends(IpAddr::from(*source), IpAddr::from(*destination), rest)
        }
        _ => None,
    }
}

fn ends(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Option<(Ends, &[u8])> {
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, rest) = rest.split_first_chunk::<2>()?;
    let end = |ip: IpAddr, port: &[u8; 2]| SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*port));
    Some((Ends { source: end(source, from), destination: end(destination, to) }, rest))
}

/// Whether bytes are extensions (type, length, value) one after the other. What they say is not looked at.
fn is_extensions(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some(([_, high, low], rest)) = bytes.split_first_chunk::<3>() else { return false };
        let Some(rest) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        bytes = rest;
    }
    true
}
