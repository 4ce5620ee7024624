//! What comes before HTTP: headers of the PROXY protocol, ClientHellos, tunnels, DNS.

use std::net::IpAddr;

use weft_hbone::baggage::Baggage;
use weft_node_proxy::fuzzing::{Read, addresses_in, proxy_header, server_name, write_proxy_header};

use crate::choice;

/// The longest `baggage` header, bytes (the W3C limit).
const MAX_BAGGAGE: usize = 8192;

/// The same whether it comes at once or in two parts: what is said of a part holds for the whole.
fn is_stable<T: PartialEq + std::fmt::Debug>(read: impl Fn(&[u8]) -> Read<T>, data: &[u8], at: usize) {
    let (part, _) = data.split_at(at.min(data.len()));
    let of_part = read(part);
    if of_part != Read::More {
        assert_eq!(of_part, read(data), "after {at} bytes");
    }
}

/// A header means one thing, ends where it says, and is written as it is read.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let (at, data) = choice(data);
    is_stable(proxy_header, data, at);
    let Read::Whole((length, ends)) = proxy_header(data) else { return };
    assert!(length <= data.len());
    is_stable(proxy_header, data.get(..length).unwrap_or_default(), at.min(length));
    assert_eq!(proxy_header(data.get(..length - 1).unwrap_or_default()), Read::More, "a byte less is less");
    let Some((source, destination)) = ends else { return };
    for two in [false, true] {
        let written = write_proxy_header(two, source, destination);
        let Read::Whole((whole, Some(again))) = proxy_header(&written) else { panic!("{written:?} is none") };
        assert_eq!(whole, written.len());
        assert_eq!(again, (source, destination));
    }
}

/// A server name is one that a certificate could have.
pub(crate) fn client_hello(data: &[u8]) {
    let (at, data) = choice(data);
    is_stable(server_name, data, at * data.len() / 256);
    if let Read::Whole(Some(name)) = server_name(data) {
        assert!(!name.is_empty() && !name.ends_with('.') && !name.contains('\0'), "{name:?}");
        assert_eq!(name, name.to_ascii_lowercase());
    }
}

/// A destination can be connected to, and is written as it is read.
pub(crate) fn authority(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(address) = weft_hbone::parse_authority(text) else { return };
    let ip = address.ip();
    assert!(address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && ip == ip.to_canonical(), "{address}");
    assert_eq!(weft_hbone::parse_authority(&address.to_string()), Ok(address));
}

/// What a peer says of its workload is bounded, and is written as it is read: from the first entry on, as many as there is room for.
pub(crate) fn baggage(data: &[u8]) {
    let read = Baggage::parse(data);
    let Some(written) = read.to_header_value() else { return };
    assert!(written.len() <= MAX_BAGGAGE, "{} bytes", written.len());
    let again = Baggage::parse(written.as_bytes());
    let mut left = read.iter();
    again.iter().for_each(|entry| assert_eq!(Some(entry), left.next()));
    if let Some((key, value)) = left.next() {
        // A comma and an equals sign; each byte of a value is three at most.
        let room = MAX_BAGGAGE - written.len();
        assert!(room < key.len() + 3 * value.len() + 2, "{key}={value} has room");
    }
}

/// Addresses of a host are those that were asked for, each once, and not too many.
pub(crate) fn dns_reply(data: &[u8]) {
    let Some(addresses) = addresses_in(data, "a.example.", 7) else { return };
    assert!(!addresses.is_empty() && addresses.len() <= 64 && addresses.iter().all(IpAddr::is_ipv4), "{addresses:?}");
    let unique: std::collections::BTreeSet<_> = addresses.iter().collect();
    assert_eq!(unique.len(), addresses.len());
}
