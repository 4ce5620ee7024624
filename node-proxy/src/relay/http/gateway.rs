//! What is different where the client is from outside: its request is routed by a listener of a Gateway, and its version of
//! HTTP says nothing about the endpoint's.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Scheme, Uri};
use weft_core::authorize::HttpFacts;
use weft_core::filter::LocalReply;
use weft_core::gateway::{Bind, Listener, ListenerProtocol, PortLayer};
use weft_core::matching::{HttpTable, ListenerChoice};
use weft_core::reason::Reason;
use weft_core::snapshot::{GatewayListener, RouteSet, Snapshot};

use super::downstream::{Caller, Downstream};
use super::wire::Watched;
use super::{check, origin, reply};
use crate::authorize::gateway::{AtListener, Judged, judge};

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

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) caller: &'a Caller,
    /// The client, as far as it is known.
    pub(super) client: SocketAddr,
    /// The path has an encoded separator.
    pub(super) ambiguous_path: bool,
}

/// Why a request has no routes.
pub(super) enum Turned {
    /// It has an answer.
    Away(Box<LocalReply<'static>>),
    /// A policy of the listener isn't here (yet).
    Unsettled(Arc<Listener>),
}

/// The routes of the listener that a request is for, if its policies let it in. `connection` is as in [`listener`].
///
/// # Errors
/// [`Turned`].
pub(super) fn enter<'a>(
    snapshot: &'a Snapshot,
    conn: &Downstream,
    (bind, connection): (&Bind, Option<&Listener>),
    asker: Asker<'_>,
    (parts, host): (&Parts, &str),
) -> Result<&'a HttpTable, Turned> {
    let refuse = |refused: Refused| Turned::Away(Box::new(refused.reply(&conn.watched)));
    let found = listener(snapshot, bind, connection, host).map_err(refuse)?;
    let http = HttpFacts {
        method: &parts.method,
        host,
        path: parts.uri.path(),
        ambiguous_path: asker.ambiguous_path,
        headers: &parts.headers,
    };
    let at = AtListener {
        gateway: &asker.caller.workload,
        listener: &found.listener,
        client: asker.client.ip(),
        http: Some(http),
        told: Some(&*conn.engine.observer),
    };
    match judge(snapshot, &at) {
        Judged::Allowed => table(found).map_err(refuse),
        Judged::Unsettled => Err(Turned::Unsettled(Arc::clone(&found.listener))),
        denied @ Judged::Denied(_) => {
            let why = denied.why_not().unwrap_or_default();
            Err(Turned::Away(Box::new(reply::failure(Reason::PolicyDenied, why))))
        }
    }
}

/// The listener that has a host, of those at a place. `connection` is the listener that TLS was ended for, as
/// it was then: what was agreed in the handshake must be what the listener asks for now, or an open connection would get
/// around what was added since. A new certificate changes nothing for those who have taken the old one.
///
/// # Errors
/// No listener has the host, another one has it, or it asks for another handshake.
fn listener<'a>(
    snapshot: &'a Snapshot,
    bind: &Bind,
    connection: Option<&Listener>,
    host: &str,
) -> Result<&'a GatewayListener, Refused> {
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
    Ok(listener)
}

/// The routes of a listener.
///
/// # Errors
/// It has none.
fn table(listener: &GatewayListener) -> Result<&HttpTable, Refused> {
    match &listener.routes {
        RouteSet::Http(table) => Ok(&**table),
        RouteSet::None | RouteSet::Tls(_) | RouteSet::Tcp(_) | RouteSet::Udp(_) => {
            Err(Refused { reason: Reason::NoRoute, why: "the listener has no routes", ends: false })
        }
    }
}

/// Whether a handshake with a listener as it was `then` is one that it takes now.
fn is_agreed(then: &Listener, now: &Listener) -> bool {
    std::ptr::eq(then, now)
        || (matches!(now.protocol, ListenerProtocol::Https { .. }) && then.client_validation == now.client_validation)
}

/// Tells the endpoint which host was asked for, where a filter puts another one into its place. What a proxy in front has said
/// of that stays: what is left of such words is of one that is believed ([`origin`]).
pub(super) fn tell_host(parts: &mut Parts) {
    if let Ok(host) = HeaderValue::from_str(check::authority(parts)) {
        parts.headers.entry(origin::FORWARDED_HOST).or_insert(host);
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
    fn the_host_that_was_asked_for_is_told_unless_a_proxy_in_front_has_said_it() {
        let request = http::Request::get;
        for request in [request("/x").header("host", "a.com:81"), request("http://a.com:81/x")] {
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            tell_host(&mut parts);
            assert_eq!(parts.headers.get_all("x-forwarded-host").iter().collect::<Vec<_>>(), ["a.com:81"]);
        }
        let said = request("http://a.com:81/x").header("x-forwarded-host", "www.example.com");
        let (mut parts, ()) = said.body(()).unwrap().into_parts();
        tell_host(&mut parts);
        assert_eq!(parts.headers["x-forwarded-host"], "www.example.com");
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
