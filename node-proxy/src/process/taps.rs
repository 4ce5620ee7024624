//! Where requests may be looked at as they pass.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weft_core::identity::SpiffeId;
use weft_tls::{CertStore, NoCertificate, ServerTls};

use super::settings::{ControlSettings, TelemetrySettings};
use crate::tap::{Door, Taps, serve_socket};

/// The pause before an address that is taken is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The door for the controller, where the settings have one. `own` is an identity that the store keeps a certificate of.
pub(super) fn door(
    control: &ControlSettings,
    telemetry: &TelemetrySettings,
    (store, own): (&CertStore, &SpiffeId),
) -> Result<Option<(SocketAddr, Door)>, NoCertificate> {
    let Some(address) = telemetry.tap_listen else { return Ok(None) };
    let tls = ServerTls::for_identity(store, own)?;
    Ok(Some((address, Door { tls, controller: control.controller() })))
}

/// Serves taps until `stop` is cancelled: to the controller, and on the socket if there is to be one.
pub(super) fn serve(
    taps: &Taps,
    door: Option<(SocketAddr, Door)>,
    telemetry: &TelemetrySettings,
    stop: &CancellationToken,
) {
    if let Some((address, door)) = door {
        let (taps, stop) = (taps.clone(), stop.clone());
        tokio::spawn(async move {
            let Some(listener) = listener(address, &stop).await else { return };
            door.serve(taps, listener, stop).await;
        });
    }
    if let Some(path) = telemetry.tap_socket.clone() {
        let (taps, stop) = (taps.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_socket(taps, &path, stop).await {
                tracing::error!(socket = %path.display(), "requests can't be tapped: {error}");
            }
        });
    }
}

/// A predecessor may have the address for a while; `None` when it is time to stop.
async fn listener(address: SocketAddr, stop: &CancellationToken) -> Option<TcpListener> {
    let mut said = false;
    loop {
        match weft_control::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) if !std::mem::replace(&mut said, true) => {
                tracing::warn!(%address, "the tap server can't listen yet: {error}");
            }
            Err(_) => {}
        }
        tokio::select! { () = stop.cancelled() => return None, () = tokio::time::sleep(PAUSE) => {} }
    }
}
