//! One way to connect, and the token that goes along.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Uri};
use weft_tls::ControlClient;

use crate::dial::dial;

/// The longest a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is checked, and how long the check may take.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Reads the token that proves who the caller is, each time anew: projected tokens are replaced while we run.
pub type TokenSource = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

/// The token in a file.
pub fn token_file(file: impl Into<std::path::PathBuf>) -> TokenSource {
    let file = file.into();
    Arc::new(move || std::fs::read_to_string(&file))
}

/// A channel to `address` (`host:port`), whose server `tls` knows beforehand. Connects when first used, and again
/// after each failure.
pub fn channel(address: String, tls: ControlClient) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            let tcp = dial(&address).await?;
            tcp.set_nodelay(true)?;
            let stream = tls.connect(tcp).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The name is for the :authority header only; the server is known by its certificate.
    Endpoint::from_static("http://weft-control")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// Metadata of a stream: when the process that opens it was started, nanoseconds since its machine was. Of two processes of a
/// machine the one with more is the newer one.
pub const PROCESS_SINCE: &str = "weft-process-since";

/// Puts the caller's token on a request.
///
/// # Errors
/// `UNAVAILABLE` if the token can't be read now or is not one line of text.
pub fn authorize(token: &TokenSource, request: &mut MetadataMap) -> Result<(), Status> {
    let token = token().map_err(|e| Status::unavailable(format!("the token cannot be read: {e}")))?;
    let header = format!("Bearer {}", token.trim());
    let header = header.parse().map_err(|_| Status::unavailable("the token is not one line of text"))?;
    request.insert("authorization", header);
    Ok(())
}
