//! Plaintext from the node's own address where plaintext isn't taken from everybody: it may show that it is a probe.
//!
//! Nothing of the application is reached before that: a connection without a byte, which is what the kubelet's TCP probes
//! are, begins and ends here.

use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::Instant;
use weft_core::reason::Reason;

use super::{plaintext, reset};
use crate::authorize::ProbePermit;
use crate::identify::LocalWorkload;
use crate::observe::{Connection, Ended};
use crate::worker::Worker;

/// The first byte of a TLS connection: a record of the handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Serves a connection to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    workload: &Rc<LocalWorkload>,
    stream: TcpStream,
    (permit, record): (ProbePermit, Connection),
) {
    let since = Instant::now();
    match first_byte(worker, &stream, &permit).await {
        Ok(Some(TLS_HANDSHAKE)) => match tls(worker, permit, &record).await {
            Ok(application) => plaintext::carry(worker, workload, stream, (application, record)).await,
            Err(reason) => {
                plaintext::refused(worker, &record, reason);
                reset(&stream);
            }
        },
        Ok(Some(_)) => match permit.requests(&worker.node.store) {
            Ok(permit) => worker.inbound.http(Box::new(stream), permit).await,
            Err(reason) => {
                plaintext::refused(worker, &record, reason);
                reset(&stream);
            }
        },
        Ok(None) => {
            worker.observer.opened(&record);
            worker.observer.closed(&record, &Ended::refused(Reason::Ok), since.elapsed());
        }
        Err(reason) => {
            plaintext::refused(worker, &record, reason);
            reset(&stream);
        }
    }
}

/// Waits for the client to say something, which stays where it is; `None` if it leaves without.
async fn first_byte(worker: &Worker, stream: &TcpStream, permit: &ProbePermit) -> Result<Option<u8>, Reason> {
    let mut first = [0];
    let peeked = tokio::time::timeout(worker.node.limits.client_hello, stream.peek(&mut first));
    tokio::select! {
        biased;
        peeked = peeked => match peeked {
            Ok(Ok(0)) => Ok(None),
            Ok(Ok(_)) => Ok(first.first().copied()),
            // Who makes a connection to see whether it is taken may also reset it.
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(Reason::NotAProbe),
        },
        reason = permit.registration().revoked() => Err(reason),
    }
}

async fn tls(worker: &Worker, permit: ProbePermit, record: &Connection) -> Result<crate::connect::Application, Reason> {
    let permit = permit.tls(&worker.node.store)?;
    worker.inbound.connect(permit, record).await
}
