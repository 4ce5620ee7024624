//! The last step inbound: from inside the pod's namespace to the application, from the client's address.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use weft_core::reason::Reason;

use crate::authorize::{Permit, Registration};

/// A connection to an application, and what keeps it permitted.
#[derive(Debug)]
pub struct Application {
    /// The connection.
    pub stream: TcpStream,
    /// Its permission: the connection must end when it does.
    pub permission: Rc<Registration>,
    /// Whether the application sees the client's own address.
    pub source_kept: bool,
}

/// Connects to the application that a permit names.
///
/// # Errors
/// The reason, when the application doesn't take the connection in time.
pub async fn connect(permit: Permit, limit: Duration) -> Result<Application, Reason> {
    let inbound = permit.inbound();
    let (pod, to) = (&inbound.workload.pod, inbound.destination);
    let client = inbound.peer.address.ip().to_canonical();
    let source = borrowed(client, to.ip(), pod.has_address(client));
    let outgoing = pod.net.outgoing(source, to).map_err(|error| {
        tracing::warn!(workload = %pod.uid, %to, "no socket to the application: {error}");
        if is_pressure(&error) { Reason::NodeExhausted } else { Reason::ConnectFailed }
    })?;
    let stream = match tokio::time::timeout(limit, outgoing.socket.connect(outgoing.to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(workload = %pod.uid, %to, %client, "the application refused: {error}");
            return Err(Reason::ConnectFailed);
        }
        Err(_) => return Err(Reason::ConnectTimeout),
    };
    let source_kept = source.is_some() || pod.has_address(client);
    Ok(Application { stream, permission: permit.into_registration(), source_kept })
}

/// The address to connect from: the client's, unless it is of another family. A pod that calls itself needs none.
fn borrowed(client: IpAddr, to: IpAddr, own: bool) -> Option<IpAddr> {
    (client.is_ipv4() == to.is_ipv4() && !own).then_some(client)
}

/// Whether an error says that this process or the node is out of something.
pub(crate) fn is_pressure(error: &io::Error) -> bool {
    matches!(
        weft_sys::os_error(error).map(nix::errno::Errno::from_raw),
        Some(
            nix::errno::Errno::EMFILE
                | nix::errno::Errno::ENFILE
                | nix::errno::Errno::ENOMEM
                | nix::errno::Errno::ENOBUFS
        )
    )
}
