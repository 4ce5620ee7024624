//! Bytes both ways, until both directions have ended, one fails, or the permission ends.

use std::pin::pin;
use std::time::Duration;

use weft_core::reason::Reason;
use weft_hbone::relay::{End, Options, Report, Side, Stop, Which, between};

use crate::authorize::Registration;
use crate::observe::Ended;

/// Relays between a client and an endpoint. A half-close is passed on; a reset resets.
pub async fn relay<A: Side, B: Side>(
    client: &mut A,
    endpoint: &mut B,
    idle: Option<Duration>,
    permission: Option<&Registration>,
) -> Ended {
    let Some(permission) = permission else {
        return ended(between(client, endpoint, Options { idle, stop: None }).await, Reason::Ok);
    };
    let stop = Stop::new();
    let mut relay = pin!(between(client, endpoint, Options { idle, stop: Some(stop.signal()) }));
    let mut why = Reason::Ok;
    let report = tokio::select! {
        biased;
        report = &mut relay => report,
        reason = permission.revoked() => {
            why = reason;
            stop.stop(reason.as_str());
            relay.await
        }
    };
    ended(report, why)
}

fn ended(report: Report, stopped: Reason) -> Ended {
    let reason = match report.end {
        End::Closed(_) => Reason::Ok,
        End::Failed(Which::First, _) => Reason::DownstreamReset,
        End::Failed(Which::Second, _) => Reason::UpstreamReset,
        End::Idle => Reason::IdleTimeout,
        End::Stopped(_) => stopped,
    };
    Ended { received: report.to_second, sent: report.to_first, reason }
}
