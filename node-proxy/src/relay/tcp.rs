//! Bytes both ways, until both directions have ended, one fails, or the permission ends.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use weft_core::reason::Reason;
use weft_hbone::relay::{End, Options, Report, Side, Stop, Which, between};

use crate::authorize::Registration;
use crate::authorize::gateway::Admitted;
use crate::budget::Budget;
use crate::observe::Ended;
use crate::worker::coalesce::Relaying;

/// What bounds a relay.
pub struct Terms<'a> {
    /// Ends it after so long without a byte.
    pub idle: Option<Duration>,
    /// Ends it when the permission does.
    pub permission: Option<&'a Registration>,
    /// Ends it when the policies of the Gateway that it came to deny it.
    pub admitted: Option<&'a Admitted>,
    /// The local pod's, which pays for what is held while one end is slower.
    pub budget: &'a Arc<Budget>,
}

/// Relays between a client and an endpoint. A half-close is passed on; a reset resets.
pub async fn relay<A: Side, B: Side>(client: &mut A, endpoint: &mut B, terms: Terms<'_>) -> Ended {
    let _relaying = Relaying::begin();
    let Terms { idle, permission, admitted, budget } = terms;
    let mut buffers = budget.buffers();
    if permission.is_none() && admitted.is_none() {
        let options = Options { idle, stop: None, account: Some(&mut buffers) };
        return ended(between(client, endpoint, options).await, Reason::Ok);
    }
    let stop = Stop::new();
    let options = Options { idle, stop: Some(stop.signal()), account: Some(&mut buffers) };
    let mut relay = pin!(between(client, endpoint, options));
    let registered = async {
        match permission {
            Some(permission) => permission.revoked().await,
            None => pending().await,
        }
    };
    let revoked = async {
        match admitted {
            None => registered.await,
            // Boxed: most connections are those of pods.
            Some(admitted) => tokio::select! {
                reason = registered => reason,
                reason = Box::pin(admitted.revoked()) => reason,
            },
        }
    };
    let mut why = Reason::Ok;
    let report = tokio::select! {
        biased;
        report = &mut relay => report,
        reason = revoked => {
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
        End::OverBudget => Reason::LimitBuffers,
        End::Stopped(_) => stopped,
    };
    Ended { received: report.to_second, sent: report.to_first, reason }
}
