//! Headers that concern one connection only (RFC 9110, section 7.6.1): they end here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::origin::{REQUEST_ID, is_claim};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes them. What `Upgrade` said is returned if `Connection` named it, without other forms of HTTP and without TLS: requests
/// inside of those would pass routes and policies by ("h2c smuggling"). Whoever asks for them only is answered in HTTP/1, as by a
/// server that doesn't know them (RFC 9110, section 7.8).
pub(crate) fn strip(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // One walk over the names is cheaper than a lookup for each name that is mostly absent.
    let (mut any, mut te, mut connection) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => (any, connection) = (true, true),
            "te" => (any, te) = (true, true),
            "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" | "http2-settings" => any = true,
            _ => {}
        }
    }
    if !any {
        return None;
    }
    let upgrade = if connection { strip_named(headers) } else { None };
    let names = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    for name in names.into_iter().chain([KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS]) {
        headers.remove(name);
    }
    if te {
        keep_trailers_only(headers);
    }
    upgrade
}

/// Removes what `Connection` names, and says whether that is an upgrade.
fn strip_named(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    let upgrade = named.contains(&header::UPGRADE).then(|| switch(headers)).flatten();
    for name in named {
        // A client must not make us drop what the message stands on.
        let vital = [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::AUTHORIZATION, header::COOKIE];
        if name != header::TE && !vital.contains(&name) {
            headers.remove(name);
        }
    }
    upgrade
}

/// The protocols that a connection may be switched to.
fn switch(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let protocols = asked.flat_map(|value| value.split(',')).map(str::trim);
    let passed: Vec<&str> = protocols.filter(|protocol| !protocol.is_empty() && !carries_requests(protocol)).collect();
    (!passed.is_empty()).then(|| HeaderValue::from_str(&passed.join(", ")).ok()).flatten()
}

/// Whether a protocol is another form of HTTP, or TLS, in which there is one.
fn carries_requests(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default().to_ascii_lowercase();
    ["h2", "h3", "http", "tls"].iter().any(|start| name.starts_with(start))
}

/// Removes from what follows the body of a request the fields that have no place there (RFC 9110, section 6.5.1), and those that
/// say on whose behalf it comes: to a server that puts trailers among the headers they would frame, route or authenticate it.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    let misplaced: Vec<HeaderName> = trailers.keys().filter(|name| is_misplaced(name)).cloned().collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

fn is_misplaced(name: &HeaderName) -> bool {
    let framing = matches!(
        name.as_str(),
        "connection"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    );
    let asking = matches!(
        name.as_str(),
        "authorization"
            | "cache-control"
            | "cookie"
            | "expect"
            | "host"
            | "max-forwards"
            | "proxy-authorization"
            | "range"
    );
    framing || asking || name.as_str().starts_with("if-") || *name == REQUEST_ID || is_claim(name)
}

/// `TE: trailers` is end to end in practice: gRPC asks for it.
fn keep_trailers_only(headers: &mut HeaderMap) {
    let says = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
    };
    if headers.get_all(header::TE).iter().any(says) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn connection_headers_go_and_the_rest_stays() {
        for (before, after, upgrade) in [
            (vec![("x-a", "1")], vec![("x-a", "1")], None),
            (vec![("connection", "close, x-secret"), ("x-secret", "1"), ("x-a", "1")], vec![("x-a", "1")], None),
            (vec![("connection", "Upgrade"), ("upgrade", "websocket")], vec![], Some("websocket")),
            (vec![("upgrade", "h2c")], vec![], None),
            (
                vec![("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "A")],
                vec![],
                None,
            ),
            (vec![("connection", "upgrade"), ("upgrade", "H2C"), ("http2-settings", "A")], vec![], None),
            (vec![("connection", "upgrade"), ("upgrade", "HTTP/2.0, TLS/1.2,h2c-14")], vec![], None),
            (vec![("connection", "upgrade"), ("upgrade", "h2c, websocket")], vec![], Some("websocket")),
            (vec![("connection", "upgrade"), ("upgrade", "h2c"), ("upgrade", "SPDY/3.1")], vec![], Some("SPDY/3.1")),
            (vec![("te", "trailers, deflate")], vec![("te", "trailers")], None),
            (vec![("te", "deflate"), ("keep-alive", "5"), ("transfer-encoding", "chunked")], vec![], None),
            (vec![("connection", "host"), ("host", "a"), ("proxy-connection", "x")], vec![("host", "a")], None),
        ] {
            let mut headers = map(&before);
            let found = strip(&mut headers);
            assert_eq!(headers, map(&after), "{before:?}");
            assert_eq!(found.as_ref().map(|v| v.to_str().unwrap()), upgrade, "{before:?}");
        }
    }

    #[test]
    fn trailers_that_frame_route_or_authenticate_a_request_go_and_others_stay() {
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("x-checksum", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "1"),
            ("host", "a"),
            ("authorization", "Basic"),
            ("cookie", "a"),
            ("if-match", "a"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x_real_ip", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("x-request-id", "a"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-status", "0"), ("x-checksum", "1")]));
    }
}
