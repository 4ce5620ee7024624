//! On whose behalf a request comes to a Gateway: what proxies in front say of that as far as they are believed, what endpoints
//! are told, and the request's id.
//!
//! Nobody vouches for what a client says of itself in such words, so it is taken away. Of a proxy that is believed the names of
//! hops beyond the client's are taken away too: an endpoint that reads the first of them reads the client.

use std::cell::OnceCell;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use smallvec::SmallVec;
use weft_core::gateway::{ClientAddress, ForwardedHeader, GatewayConfig, Hops};
use weft_core::normalize;
use weft_core::snapshot::Snapshot;

use super::check;
use super::downstream::{Caller, Front};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The longest id of a request that is kept, in bytes.
const LONGEST_ID: usize = 128;

/// On whose behalf a request comes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin {
    /// The client. Its port is 0 where only a header names it.
    pub(super) client: SocketAddr,
    /// The request's id.
    pub(super) id: HeaderValue,
    /// Whether the answer carries it, too.
    pub(super) answers_id: bool,
}

/// What is known of a connection to a Gateway.
struct Arrival<'a> {
    settings: &'a ClientAddress,
    client: SocketAddr,
    /// `X-Forwarded-For` of a way that has nobody but the client, once a request of the connection had it.
    way: &'a OnceCell<HeaderValue>,
    tls: bool,
    /// The port that was dialled.
    port: u16,
    /// The host that is asked for.
    host: &'a str,
}

/// Finds out, and tells the endpoint; `None`: no Gateway is asked, and nobody in between has anything to say.
///
/// # Errors
/// Whose request it is can't be read from what has to say it, and what.
pub(super) fn settle(snapshot: &Snapshot, caller: &Caller, parts: &mut Parts) -> Result<Option<Origin>, &'static str> {
    let Front::Gateway { bind, listener, .. } = &caller.front else { return Ok(None) };
    let config = snapshot.gateway_port(bind).and_then(|port| snapshot.gateway_config(&port.gateway));
    let config: Option<&GatewayConfig> = config.map(|config| &**config);
    let nobody = ClientAddress::default();
    let settings = config.map_or(&nobody, |config| &config.client_address);
    // The other header doesn't say it.
    let host = match settings.header {
        ForwardedHeader::Forwarded => check::authority(parts).to_owned(),
        ForwardedHeader::XForwardedFor => String::new(),
    };
    let headers = &mut parts.headers;
    let arrival = Arrival {
        settings,
        client: caller.client,
        way: &caller.way,
        tls: listener.is_some(),
        port: caller.dialled.port(),
        host: &host,
    };
    let (client, vouched) = arrival.tell(headers).ok_or("Forwarded can't be read")?;
    let kept = headers.get(&REQUEST_ID).filter(|id| vouched && is_id(id)).cloned();
    let mut id = kept.unwrap_or_else(new_id);
    // There is no other like it: the codec of HTTP/2 would keep each in its table (RFC 7541, section 2.3.2), and look through all
    // that it keeps for the next.
    id.set_sensitive(true);
    headers.insert(REQUEST_ID, id.clone());
    Ok(Some(Origin { client, id, answers_id: config.is_some_and(|config| config.answers_request_id) }))
}

impl Arrival<'_> {
    /// Puts what is known in place of what is said. The client, and whether a proxy in front vouches for what it says; `None`: a
    /// proxy that is believed passes something on in which its own words can't be told from the client's.
    fn tell(&self, headers: &mut HeaderMap) -> Option<(SocketAddr, bool)> {
        let peer = self.client.ip().to_canonical();
        let believed = self.settings.is_believed(peer);
        let said = if believed { Said::of(headers, self.settings)? } else { Said::default() };
        let hops = if believed { self.settings.hops(peer, said.hops.iter().copied()) } else { Hops::from_iter([peer]) };
        let vouched = hops.len() > 1 || (believed && self.settings.trusted_hops.is_none());
        let said = if vouched { said.by(hops.len()) } else { ByProxy::default() };
        let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
        let scheme = said.proto.unwrap_or(if self.tls { "https" } else { "http" });
        let port = said.port.unwrap_or(self.port);
        match &hops[..] {
            [alone] if *alone == peer => {
                // An address is always a header's value; `unknown` is what one without an address is called (RFC 7239, section 6.2).
                let written = || HeaderValue::from_bytes(&way(&hops).0).unwrap_or(HeaderValue::from_static("unknown"));
                headers.insert(FORWARDED_FOR, self.way.get_or_init(written).clone());
            }
            hops => set(headers, FORWARDED_FOR, &way(hops)),
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        headers.insert(FORWARDED_PORT, HeaderValue::from(port));
        if let Some(host) = &said.host {
            headers.insert(FORWARDED_HOST, host.clone());
        }
        if self.settings.header == ForwardedHeader::Forwarded {
            let host = said.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(self.host);
            set(headers, header::FORWARDED, &forwarded(&hops, (scheme, host)));
        }
        let client = hops.last().copied().unwrap_or(peer);
        let port = if client == peer { self.client.port() } else { 0 };
        Some((SocketAddr::new(client, port), vouched))
    }
}

/// The value of a header while it is written, without an allocation if it is short.
#[derive(Default)]
struct Text(SmallVec<[u8; 64]>);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &Text) {
    if let Ok(value) = HeaderValue::from_bytes(&value.0) {
        headers.insert(name, value);
    }
}

/// Writes the addresses of a way, the client's first, each in its form.
fn list(hops: &[IpAddr], mut each: impl FnMut(&mut Text, usize, &IpAddr) -> fmt::Result) -> Text {
    let mut text = Text::default();
    for (at, ip) in hops.iter().rev().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        // Nothing that is written to it fails.
        let _ = text.write_str(comma).and_then(|()| each(&mut text, at, ip));
    }
    text
}

/// `X-Forwarded-For` of a way.
fn way(hops: &[IpAddr]) -> Text {
    list(hops, |text, _, ip| write!(text, "{ip}"))
}

/// Whether a header says on whose behalf a request comes, and how (RFC 7239, and what was used before it). Endpoints that make
/// variables of headers can't tell an underscore from a dash (RFC 3875, section 4.1.18).
pub(super) fn is_claim(name: &HeaderName) -> bool {
    let is_it = |name: &str| name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-");
    let name = name.as_str();
    // Few names begin like one.
    name.starts_with(['f', 'x']) && (is_it(name) || (name.contains('_') && is_it(&name.replace('_', "-"))))
}

/// What proxies in front say.
#[derive(Debug, Default)]
struct Said {
    /// Whom each got the request from, the nearest one first; `None`: what is no address.
    hops: Vec<Option<IpAddr>>,
    /// What each says besides, in the same order; for `X-Forwarded-*` only the nearest one is known to have seen it.
    by: Vec<ByProxy>,
}

/// What a proxy says of the request that it got.
#[derive(Clone, Debug, Default, PartialEq)]
struct ByProxy {
    proto: Option<&'static str>,
    host: Option<HeaderValue>,
    port: Option<u16>,
}

impl Said {
    /// `None`: a line can't be read. A client that opens a quotation hides what is appended to it, and to take the proxy for the
    /// client then would let anybody be it.
    fn of(headers: &HeaderMap, settings: &ClientAddress) -> Option<Self> {
        Some(match settings.header {
            ForwardedHeader::XForwardedFor => Self {
                hops: lines(headers, &FORWARDED_FOR).rev().map(|text| address(text.trim())).collect(),
                by: vec![ByProxy {
                    proto: only(headers, &FORWARDED_PROTO).and_then(|value| scheme(value.to_str().ok()?)),
                    host: only(headers, &FORWARDED_HOST).filter(|value| is_host(value)).cloned(),
                    port: only(headers, &FORWARDED_PORT).and_then(|value| value.to_str().ok()?.parse().ok()),
                }],
            },
            ForwardedHeader::Forwarded => {
                let (mut hops, mut by) = (Vec::new(), Vec::new());
                for line in headers.get_all(header::FORWARDED).iter().rev() {
                    for (node, said) in elements(line.to_str().ok()?)?.into_iter().rev() {
                        hops.push(node);
                        by.push(said);
                    }
                }
                Self { hops, by }
            }
        })
    }

    /// What the proxy says that spoke with the client, if the way has this many addresses.
    fn by(self, addresses: usize) -> ByProxy {
        let last = self.by.len().saturating_sub(1);
        self.by.into_iter().nth(addresses.saturating_sub(2).min(last)).unwrap_or_default()
    }
}

/// Whom proxies say that they got a request from, the nearest proxy first; `None`: a line can't be read.
pub(super) fn hops_said(headers: &HeaderMap, header: ForwardedHeader) -> Option<Vec<Option<IpAddr>>> {
    Said::of(headers, &ClientAddress { header, ..ClientAddress::default() }).map(|said| said.hops)
}

/// The elements of all lines of a header.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a str> {
    // What is no text is no address, and has to count as one; what a proxy appended to it is as good as ever.
    let elements = headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(|element| std::str::from_utf8(element).unwrap_or("?"))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

fn is_host(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| !text.is_empty() && normalize::host(text).is_ok())
}

/// An address, with or without a port: `192.0.2.7`, `192.0.2.7:4000`, `2001:db8::7`, `[2001:db8::7]:4000`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&ip))
}

/// The elements of a line of `Forwarded` (RFC 7239, section 4); `None`: they can't be read.
fn elements(text: &str) -> Option<Vec<(Option<IpAddr>, ByProxy)>> {
    let (mut all, mut rest) = (Vec::new(), text);
    let (mut node, mut said, mut first) = (None, ByProxy::default(), true);
    loop {
        if std::mem::take(&mut first) {
            // Empty elements mean nothing (RFC 9110, section 5.6.1.2).
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if rest.is_empty() {
                return Some(all);
            }
        }
        rest = rest.trim_start();
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        match name.to_ascii_lowercase().as_str() {
            "for" => node = address(&value),
            "proto" => said.proto = scheme(&value),
            "host" => said.host = HeaderValue::from_str(&value).ok().filter(is_host),
            "by" => {}
            // Extensions are passed over; a name is a token.
            other if other.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) => {}
            _ => return None,
        }
        let after = after.trim_start();
        let separator = after.chars().next();
        rest = after.get(1..).unwrap_or_default();
        if separator == Some(';') {
            continue;
        }
        all.push((node.take(), std::mem::take(&mut said)));
        match separator {
            Some(',') => first = true,
            None => return Some(all),
            Some(_) => return None,
        }
    }
}

/// A token or a quoted string, and what is behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t', '"']).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return (!token.is_empty()).then(|| (token.to_owned(), rest));
    };
    let (mut made, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                made.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((made, quoted.get(at + 1..)?)),
            _ => made.push(c),
        }
    }
    None
}

/// `Forwarded` of a way: the client's proxy says what it was asked, the others only whom they got it from.
fn forwarded(hops: &[IpAddr], (scheme, host): (&str, &str)) -> Text {
    list(hops, |text, at, ip| {
        match ip {
            IpAddr::V4(ip) => write!(text, "for={ip}")?,
            IpAddr::V6(ip) => write!(text, "for=\"[{ip}]\"")?,
        }
        match at {
            // A host has no character that ends a quoted string.
            0 if host.is_empty() => write!(text, ";proto={scheme}"),
            0 => write!(text, ";proto={scheme};host=\"{host}\""),
            _ => Ok(()),
        }
    })
}

/// Whether an id can be kept: visible ASCII, and not too long.
pub(super) fn is_id(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= LONGEST_ID && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// A UUID of random bits (RFC 9562, section 5.4).
pub(super) fn new_id() -> HeaderValue {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
    let mut text = [b'-'; 36];
    for (from, to) in [(0..8, 0..8), (8..12, 9..13), (12..16, 14..18), (16..20, 19..23), (20..32, 24..36)] {
        if let (Some(to), Some(from)) = (text.get_mut(to), digits.get(from)) {
            to.copy_from_slice(from);
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
#[path = "tests/origin.rs"]
mod tests;
