//! Headers that concern one connection only (RFC 9110, section 7.6.1): they end here.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes them. What `Upgrade` said is returned if `Connection` named it.
pub(crate) fn strip(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // One walk over the names is cheaper than a lookup for each name that is mostly absent.
    let (mut any, mut te, mut connection) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => (any, connection) = (true, true),
            "te" => (any, te) = (true, true),
            "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => any = true,
            _ => {}
        }
    }
    if !any {
        return None;
    }
    let upgrade = if connection { strip_named(headers) } else { None };
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION] {
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
    let upgrade = named.contains(&header::UPGRADE).then(|| headers.get(header::UPGRADE).cloned()).flatten();
    for name in named {
        // A client must not make us drop what the message stands on.
        let vital = [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::AUTHORIZATION, header::COOKIE];
        if name != header::TE && !vital.contains(&name) {
            headers.remove(name);
        }
    }
    upgrade
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
}
