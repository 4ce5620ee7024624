//! The stages in their order, for each kind of connection.

mod client;
mod inbound;
mod outbound;
mod plaintext;
mod probe;
mod tunnel;

use std::rc::Rc;

use tokio::net::TcpStream;

use crate::identify::LocalWorkload;
use crate::inpod::ListenerRole;
use crate::worker::{Accepted, Worker};

pub(crate) use client::ClientStream;
pub use inbound::InboundHalf;
pub(crate) use outbound::{AtGateway, relay_at_gateway};

/// Carries one accepted connection to its end.
pub(crate) async fn serve(worker: &Rc<Worker>, workload: &Rc<LocalWorkload>, accepted: Accepted<TcpStream>) {
    let Accepted { role, stream, peer, slot, load, .. } = accepted;
    let _counted = (slot, load);
    // Fails only for a connection that is gone already, which the first read will tell.
    let _ = weft_sys::sock::set_nodelay(&stream);
    let peer = weft_sys::sock::canonical(peer);
    // Boxed, so that the small kinds don't pay for the biggest.
    match role {
        ListenerRole::Outbound => Box::pin(outbound::serve(worker, workload, stream, peer)).await,
        ListenerRole::InboundPlaintext => Box::pin(plaintext::serve(worker, workload, stream, peer)).await,
        ListenerRole::Hbone => Box::pin(tunnel::serve(worker, workload, stream, peer)).await,
    }
}

/// Closes with a reset: the client must not take a refusal for an empty answer.
fn reset(stream: &TcpStream) {
    let _ = weft_sys::sock::reset_on_close(stream);
}
