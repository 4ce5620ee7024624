//! WebSockets that a client of HTTP/2 opens (RFC 8441), brought into the form that their endpoints know.
//!
//! The extended CONNECT becomes the `GET` with `Upgrade: websocket` of RFC 6455 before anything is matched, so that a
//! route and a policy mean the same whichever way a client comes; the endpoint's 101 becomes a 200, and from then on
//! bytes pass. An endpoint that speaks HTTP/2 only gets no WebSockets this way.

use std::rc::Rc;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::body::ResponseBody;
use super::downstream::Downstream;
use super::finish::Finish;
use crate::connect::http_pool::Lease;
use crate::worker::coalesce::Relaying;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// The client's end of a WebSocket, once it is granted.
pub(super) struct Extended(OnUpgrade);

/// Another protocol than WebSocket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only WebSocket is served by extended CONNECT")]
pub(super) struct Unsupported;

impl Extended {
    /// Takes an extended CONNECT out of a checked request, whose form changes; `None` if it is none.
    pub(super) fn take(parts: &mut Parts) -> Result<Option<Self>, Unsupported> {
        let Some(protocol) = parts.extensions.remove::<hyper::ext::Protocol>() else { return Ok(None) };
        let client = parts.extensions.remove::<OnUpgrade>().ok_or(Unsupported)?;
        if !protocol.as_str().eq_ignore_ascii_case("websocket") {
            return Err(Unsupported);
        }
        parts.method = Method::GET;
        parts.version = Version::HTTP_11;
        let uri = std::mem::take(&mut parts.uri).into_parts();
        let host = uri.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        parts.headers.insert(header::HOST, host.ok_or(Unsupported)?);
        parts.uri = Uri::from(uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")));
        // A client of HTTP/2 sends none; its endpoint wants one, and proves with the answer only that it read it.
        parts.headers.insert(KEY, key());
        Ok(Some(Self(client)))
    }

    /// What is asked for, as `Upgrade` says it.
    pub(super) fn protocol() -> HeaderValue {
        WEBSOCKET
    }

    /// The endpoint has switched: says so to the client, and passes bytes until one end closes.
    pub(super) fn switched(
        self,
        mut parts: http::response::Parts,
        conn: &Rc<Downstream>,
        (lease, finish): (Lease, Finish),
    ) -> Response<ResponseBody> {
        parts.status = StatusCode::OK;
        parts.version = Version::HTTP_2;
        parts.headers.remove(ACCEPT);
        let conn = Rc::clone(conn);
        tokio::task::spawn_local(async move {
            // As long as the connection is the client's, it is served.
            let _conn = conn;
            pass(self.0, lease, finish).await;
        });
        Response::from_parts(parts, ResponseBody::local(bytes::Bytes::new(), None))
    }
}

async fn pass(client: OnUpgrade, lease: Lease, mut finish: Finish) {
    let (Ok(client), Some(upstream)) = (client.await, lease.upgraded()) else {
        return finish.complete(false);
    };
    let _relaying = Relaying::begin();
    let (mut client, mut stream) = (TokioIo::new(client), upstream.stream);
    let relay = async {
        client.write_all(&upstream.read).await?;
        client.flush().await?;
        tokio::io::copy_bidirectional(&mut client, &mut stream).await
    };
    let ended = relay.await;
    if let Ok((_, sent)) = ended {
        finish.add_sent(sent + upstream.read.len() as u64);
    }
    finish.complete(ended.is_ok());
}

/// 16 random bytes in base64 (RFC 6455, section 4.1). Not a secret: it only tells one handshake from another.
fn key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u128, place: u32| DIGITS.get((bits >> place & 63) as usize).copied().unwrap_or(b'A');
    let bits = fastrand::u128(..);
    // 128 bits are 21 digits and two bits more.
    let mut text: Vec<u8> = (0..21).map(|n| digit(bits, 122 - 6 * n)).collect();
    text.push(digit(bits << 4, 0));
    text.extend_from_slice(b"==");
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64_and_another_each_time() {
        let (one, other) = (key(), key());
        assert_ne!(one, other);
        let text = one.to_str().unwrap();
        assert_eq!(text.len(), 24);
        // The last digit before the padding carries two bits only.
        assert!(text.ends_with("==") && "AQgw".contains(&text[21..22]), "{text}");
    }
}
