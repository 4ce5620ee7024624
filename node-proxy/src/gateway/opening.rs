//! What stands before everything else on a connection: whose it is, as a load balancer in front tells it.

use tokio::net::TcpStream;
use weft_core::gateway::ProxyHeader;
use weft_core::reason::Reason;

use crate::proxy_protocol::{self, Refused};
use crate::relay::front::GatewayConnection;
use crate::worker::Worker;

/// Why a connection is not served.
pub(super) enum NotServed {
    /// Nobody is there any more.
    Gone,
    /// It is refused, and why in words.
    Refused(Reason, String),
}

/// Reads the header of the PROXY protocol, if there may be one, and notes in `connection` what it says. What was read behind
/// it is returned.
pub(super) async fn read(
    worker: &Worker,
    connection: &mut GatewayConnection,
    stream: &mut TcpStream,
) -> Result<Vec<u8>, NotServed> {
    let refused = |why: String| NotServed::Refused(Reason::ProxyProtocol, why);
    let required = match expected(worker, connection) {
        ProxyHeader::Ignored => return Ok(Vec::new()),
        ProxyHeader::Refused => {
            return Err(refused(
                "not an address that may connect, clientAddress.proxyProtocol of the Gateway says".into(),
            ));
        }
        ProxyHeader::Possible => false,
        ProxyHeader::Expected => true,
    };
    // Boxed: most connections have no such header.
    match Box::pin(proxy_protocol::read(stream, required, worker.node.limits.client_hello)).await {
        Ok(opening) => {
            if let Some(ends) = opening.ends {
                connection.client = ends.source;
                connection.local = ends.destination;
            }
            Ok(opening.rest)
        }
        Err(Refused::Io(_)) => Err(NotServed::Gone),
        Err(wrong @ (Refused::Missing | Refused::Malformed(_) | Refused::Slow)) => Err(refused(wrong.to_string())),
    }
}

fn expected(worker: &Worker, connection: &GatewayConnection) -> ProxyHeader {
    let snapshot = worker.node.store.load();
    let config = snapshot.gateway_port(&connection.bind).and_then(|port| snapshot.gateway_config(&port.gateway));
    config.map_or(ProxyHeader::Ignored, |config| config.client_address.proxy_protocol.of(connection.client.ip()))
}
