//! What a CONNECT says: the destination and a few headers.

use std::net::SocketAddr;

use http::header::HeaderName;
use http::{HeaderMap, Method, Request, Uri, Version};

use crate::baggage::Baggage;

/// The header that describes the peer's workload.
pub(crate) const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// A stream to open.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    authority: SocketAddr,
    headers: HeaderMap,
}

impl OpenRequest {
    /// A stream to a destination address.
    pub fn new(authority: SocketAddr) -> Self {
        Self { authority, headers: HeaderMap::new() }
    }

    /// Describes the client's workload. Baggage that is empty or has no valid form is left out.
    #[must_use]
    pub fn with_baggage(mut self, baggage: &Baggage) -> Self {
        if let Some(value) = baggage.to_header_value() {
            self.headers.insert(BAGGAGE, value);
        }
        self
    }

    /// Where the stream leads.
    pub fn authority(&self) -> SocketAddr {
        self.authority
    }

    /// The headers, to add some.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The request for the codec. `None` can't happen for an address; it spares a panic path.
    pub(crate) fn to_http(&self) -> Option<Request<()>> {
        let uri = Uri::builder().authority(self.authority.to_string()).build().ok()?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }
}

/// A stream that a peer asks for, validated.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// The destination.
    pub authority: SocketAddr,
    /// What else the peer sent. Nothing in it is proven: `forwarded`, `x-forwarded-*` and `baggage` are for logs at most.
    pub headers: HeaderMap,
}

impl ConnectRequest {
    /// The peer's own words about its workload, bounded and parsed leniently.
    pub fn baggage(&self) -> Baggage {
        self.headers.get(BAGGAGE).map(|value| Baggage::parse(value.as_bytes())).unwrap_or_default()
    }

    /// Takes a request of the codec apart, or says what is wrong with it.
    pub(crate) fn from_parts(parts: http::request::Parts) -> Result<Self, AuthorityError> {
        let authority = parts.uri.authority().ok_or(AuthorityError::Missing)?;
        Ok(Self { authority: parse_authority(authority.as_str())?, headers: parts.headers })
    }
}

/// Why an `:authority` is not a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// There is none.
    #[error("no :authority")]
    Missing,
    /// It is not `ip:port` (IPv6 in brackets); names are resolved by the client.
    #[error(":authority is not ip:port")]
    NotAnAddress,
    /// The port is 0, or the address has a zone, or is the unspecified address or a multicast address.
    #[error(":authority is not an address one can connect to")]
    NotConnectable,
}

/// Parses `ip:port` or `[ipv6]:port`, and nothing else.
///
/// # Errors
/// See [`AuthorityError`].
pub fn parse_authority(text: &str) -> Result<SocketAddr, AuthorityError> {
    let address: SocketAddr = text.parse().map_err(|_| AuthorityError::NotAnAddress)?;
    let zoned = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    // An IPv4-mapped address is the IPv4 address, for policy too.
    let ip = address.ip().to_canonical();
    if zoned || address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(AuthorityError::NotConnectable);
    }
    Ok(SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_an_address_and_a_port() {
        for good in ["10.0.0.1:80", "[2001:db8::1]:65535"] {
            assert_eq!(parse_authority(good).unwrap().to_string(), good);
        }
        assert_eq!(parse_authority("[::ffff:10.0.0.1]:80").unwrap().to_string(), "10.0.0.1:80");
    }

    #[test]
    fn anything_else_is_refused() {
        use AuthorityError::{NotAnAddress, NotConnectable};
        for (text, want) in [
            ("", NotAnAddress),
            ("10.0.0.1", NotAnAddress),
            ("10.0.0.1:", NotAnAddress),
            ("10.0.0.1:65536", NotAnAddress),
            ("10.0.0.01:80", NotAnAddress),
            ("user@10.0.0.1:80", NotAnAddress),
            ("10.0.0.1:80 ", NotAnAddress),
            ("svc.ns.svc.cluster.local:80", NotAnAddress),
            ("2001:db8::1:80", NotAnAddress),
            ("10.0.0.1:0", NotConnectable),
            ("0.0.0.0:80", NotConnectable),
            ("224.0.0.1:80", NotConnectable),
            ("[::ffff:0.0.0.0]:80", NotConnectable),
            ("[::ffff:224.0.0.1]:80", NotConnectable),
            ("[fe80::1%2]:80", NotConnectable),
        ] {
            assert_eq!(parse_authority(text), Err(want), "{text:?}");
        }
    }

    #[test]
    fn a_request_carries_its_destination_in_brackets_if_ipv6() {
        let request = OpenRequest::new("[2001:db8::1]:80".parse().unwrap()).to_http().unwrap();
        assert_eq!(request.uri().authority().unwrap().as_str(), "[2001:db8::1]:80");
        assert_eq!(request.method(), Method::CONNECT);
    }
}
