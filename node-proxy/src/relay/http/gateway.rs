//! What is different where the client is from outside: its request is routed by a listener of a Gateway, its address and
//! scheme are told to the endpoint, and its version of HTTP says nothing about the endpoint's.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Scheme, Uri};
use weft_core::filter::LocalReply;
use weft_core::gateway::{Bind, Listener, ListenerProtocol, PortLayer};
use weft_core::matching::{HttpTable, ListenerChoice};
use weft_core::reason::Reason;
use weft_core::snapshot::{RouteSet, Snapshot};

use super::wire::Watched;
use super::{check, reply};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Why a request has no routes.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    /// In words.
    pub(super) why: &'static str,
    /// The connection is no good for other requests either.
    pub(super) ends: bool,
}

impl Refused {
    /// The answer. The connection ends after what is under way on it, if it is no good.
    pub(super) fn reply(self, conn: &Watched) -> LocalReply<'static> {
        let mut local = reply::failure(self.reason, self.why);
        if self.ends {
            conn.end_gracefully();
            local.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        local
    }
}

/// The routes of the listener that has a host, of those at a place. `connection` is the listener that TLS was ended for, as
/// it was then: what was agreed in the handshake must be what the listener asks for now, or an open connection would get
/// around what was added since. A new certificate changes nothing for those who have taken the old one.
///
/// # Errors
/// No listener has the host, another one has it, it has no routes, or it asks for another handshake.
pub(super) fn table<'a>(
    snapshot: &'a Snapshot,
    bind: &Bind,
    connection: Option<&Listener>,
    host: &str,
) -> Result<&'a HttpTable, Refused> {
    let refused = |reason, why| Refused { reason, why, ends: false };
    let outdated = Refused { reason: Reason::Misdirected, why: "the listener asks for a new connection", ends: true };
    let Some(port) = snapshot.gateway_port(bind) else {
        return Err(refused(Reason::NoListener, "the listener is gone"));
    };
    if port.layer != connection.map_or(PortLayer::Http, |_| PortLayer::Tls) {
        return Err(outdated);
    }
    let listener = match port.listeners.of_request(host, connection.map(|it| &it.key)) {
        ListenerChoice::Listener(listener) => listener,
        ListenerChoice::Misdirected => return Err(refused(Reason::Misdirected, "the host is another listener's")),
        ListenerChoice::None => return Err(refused(Reason::NoListener, "no listener has the host")),
    };
    if connection.is_some_and(|then| !is_agreed(then, &listener.listener)) {
        return Err(outdated);
    }
    match &listener.routes {
        RouteSet::Http(table) => Ok(&**table),
        RouteSet::None | RouteSet::Tls(_) | RouteSet::Tcp(_) | RouteSet::Udp(_) => {
            Err(refused(Reason::NoRoute, "the listener has no routes"))
        }
    }
}

/// Whether a handshake with a listener as it was `then` is one that it takes now.
fn is_agreed(then: &Listener, now: &Listener) -> bool {
    std::ptr::eq(then, now)
        || (matches!(now.protocol, ListenerProtocol::Https { .. }) && then.client_validation == now.client_validation)
}

/// Tells the endpoint who asked, and how: the address of this connection's client, and its scheme. What the client says of
/// itself in such words is taken away, because nobody vouches for it: endpoints believe what a proxy in front of them says.
pub(super) fn tell(headers: &mut HeaderMap, client: IpAddr, tls: bool) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    if let Ok(client) = HeaderValue::from_str(&client.to_canonical().to_string()) {
        headers.insert(FORWARDED_FOR, client);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if tls { "https" } else { "http" }));
}

/// Whether a header says on whose behalf a request comes, and how (RFC 7239, and what was used before it).
fn is_claim(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name == "x-real-ip" || name.as_str().starts_with("x-forwarded-")
}

/// Tells the endpoint which host was asked for, where a filter puts another one into its place.
pub(super) fn tell_host(parts: &mut Parts) {
    if let Ok(host) = HeaderValue::from_str(check::authority(parts)) {
        parts.headers.insert(FORWARDED_HOST, host);
    }
}

/// Says `https` in a request that goes in TLS, where it says a scheme at all (RFC 9113, section 8.3.1).
pub(super) fn secure_scheme(parts: &mut Parts) {
    if parts.uri.scheme().is_none() {
        return;
    }
    let mut uri = parts.uri.clone().into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

/// Brings a request of HTTP/2 into the form of HTTP/1: the authority becomes `Host`, and what was split of `Cookie` becomes
/// one (RFC 9113, section 8.2.3). What comes as HTTP/1 stays as it is.
pub(super) fn downgrade(parts: &mut Parts) -> Result<(), http::Error> {
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let host = HeaderValue::from_str(authority.as_str())?;
    parts.headers.insert(header::HOST, host);
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")).into();
    let mut cookies = parts.headers.get_all(header::COOKIE).iter();
    if let (Some(_), Some(_)) = (cookies.next(), cookies.next()) {
        let all: Vec<_> = parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let one = HeaderValue::from_bytes(&all.join(&b"; "[..]))?;
        parts.headers.insert(header::COOKIE, one);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_of_itself_is_replaced_by_what_is_known() {
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        for before in [
            &[][..],
            &[("x-forwarded-for", "10.0.0.1")],
            &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")],
            &[("x-forwarded-proto", "https"), ("x-forwarded-host", "made.up"), ("x-forwarded-port", "1")],
            &[("forwarded", "for=10.0.0.1;proto=https"), ("x-real-ip", "10.0.0.1")],
            &[("x-forwarded-client-cert", "By=me"), ("x-forwarded-prefix", "/x")],
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static("kept"));
            for (name, value) in before {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            tell(&mut headers, client, false);
            assert_eq!(headers.get_all(&FORWARDED_FOR).iter().collect::<Vec<_>>(), ["192.0.2.7"], "{before:?}");
            assert_eq!(headers.get_all(&FORWARDED_PROTO).iter().collect::<Vec<_>>(), ["http"]);
            assert_eq!(headers.len(), 3, "{headers:?}");
        }
        let mut headers = HeaderMap::new();
        tell(&mut headers, "2001:db8::1".parse().unwrap(), true);
        assert_eq!(
            (&headers[FORWARDED_FOR], &headers[FORWARDED_PROTO]),
            (&"2001:db8::1".parse().unwrap(), &"https".parse().unwrap())
        );
    }

    #[test]
    fn a_request_that_goes_in_tls_says_so_if_it_says_a_scheme() {
        for (before, after) in
            [("http://a.com/x?y=1", "https://a.com/x?y=1"), ("https://a.com/", "https://a.com/"), ("/x", "/x")]
        {
            let (mut parts, ()) = http::Request::get(before).body(()).unwrap().into_parts();
            secure_scheme(&mut parts);
            assert_eq!(parts.uri.to_string(), after);
        }
    }

    #[test]
    fn the_host_that_was_asked_for_is_told_whatever_the_client_says_it_was() {
        let request = |uri: &str| http::Request::get(uri).header("x-forwarded-host", "made.up");
        for request in [request("/x").header("host", "a.com:81"), request("http://a.com:81/x")] {
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            tell_host(&mut parts);
            assert_eq!(parts.headers.get_all("x-forwarded-host").iter().collect::<Vec<_>>(), ["a.com:81"]);
        }
    }

    #[test]
    fn a_request_of_http_2_becomes_one_of_http_1() {
        let request = http::Request::get("http://a.com:81/x?y=1").header("cookie", "a=1").header("cookie", "b=2");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        downgrade(&mut parts).unwrap();
        assert_eq!((parts.uri.to_string().as_str(), &parts.headers["host"]), ("/x?y=1", &"a.com:81".parse().unwrap()));
        assert_eq!(parts.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        let (before, ()) = http::Request::get("/x").header("host", "b.com").body(()).unwrap().into_parts();
        let mut after = before.clone();
        downgrade(&mut after).unwrap();
        assert_eq!((after.uri, after.headers), (before.uri, before.headers));
    }
}
