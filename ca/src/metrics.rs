//! What the authority tells about itself in Prometheus' terms. Without a recorder in the process nothing is kept.

use std::time::SystemTime;

use metrics::{counter, gauge};

use crate::auth::Caller;
use crate::authority::AuthorityStatus;
use crate::rotate::Stage;

pub(crate) fn issued(caller: &Caller) {
    let kind = match caller {
        Caller::Node(_) => "node",
        Caller::Workload(_) => "workload",
    };
    counter!("weft_ca_issued_total", "caller" => kind).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!("weft_ca_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn status(status: &AuthorityStatus) {
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!("weft_ca_root_expiry_timestamp_seconds").set(seconds(status.root_not_after));
    gauge!("weft_ca_intermediate_expiry_timestamp_seconds").set(seconds(status.intermediate_not_after));
    let since = SystemTime::UNIX_EPOCH;
    for stage in [Stage::Stable, Stage::Publishing { since }, Stage::Issuing { since }] {
        let is_now = stage.name() == status.stage.name();
        gauge!("weft_ca_rotation_stage", "stage" => stage.name()).set(if is_now { 1.0 } else { 0.0 });
    }
    gauge!("weft_ca_bundle_generation").set(approximate(status.generation));
}

pub(crate) fn leader(is_leader: bool) {
    gauge!("weft_ca_leader").set(if is_leader { 1.0 } else { 0.0 });
}

pub(crate) fn bound_pods(pods: usize) {
    gauge!("weft_ca_bound_pods").set(approximate(u64::try_from(pods).unwrap_or(u64::MAX)));
}

pub(crate) fn bad_secret(name: &str, is_bad: bool) {
    gauge!("weft_ca_bad_secret", "secret" => name.to_owned()).set(if is_bad { 1.0 } else { 0.0 });
}

/// Exact below 2^32, which nothing counted here reaches.
fn approximate(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
