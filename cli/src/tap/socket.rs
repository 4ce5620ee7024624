//! The socket of this machine's proxy.

use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use weft_core::tap::PATH;

/// Of what it says against a tap, so many bytes are read.
const EXCUSE: usize = 4096;

/// The answer to a tap.
///
/// # Errors
/// It can't be reached, or refuses.
pub(super) async fn ask(path: &Path, tap: Vec<u8>) -> anyhow::Result<Incoming> {
    let what = || format!("{}: is the proxy running, and are you its user?", path.display());
    let stream = UnixStream::connect(path).await.with_context(what)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the process.
    tokio::spawn(connection);
    let request = http::Request::post(PATH).header("host", "localhost").body(Full::new(Bytes::from(tap)))?;
    let answer = sender.send_request(request).await.context("the proxy doesn't answer")?;
    let status = answer.status();
    if !status.is_success() {
        let said = Limited::new(answer.into_body(), EXCUSE).collect().await.map_err(anyhow::Error::from_boxed)?;
        bail!("the proxy answers {}: {}", status.as_u16(), String::from_utf8_lossy(&said.to_bytes()).trim());
    }
    Ok(answer.into_body())
}
