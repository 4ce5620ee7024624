//! What the authority tells about itself in Prometheus' terms. Without a recorder in the process nothing is kept.

use std::time::SystemTime;

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::auth::Caller;
use crate::authority::AuthorityStatus;
use crate::rotate::Stage;

const ISSUED: &str = "weft_ca_issued_total";
const REFUSED: &str = "weft_ca_refused_total";
const ROOT: &str = "weft_ca_root_expiry_timestamp_seconds";
const INTERMEDIATE: &str = "weft_ca_intermediate_expiry_timestamp_seconds";
const STAGE: &str = "weft_ca_rotation_stage";
const GENERATION: &str = "weft_ca_bundle_generation";
const LEADER: &str = "weft_ca_leader";
const BOUND: &str = "weft_ca_bound_pods";
const BAD: &str = "weft_ca_bad_secret";

/// Explains the metrics to the process's recorder.
pub fn describe() {
    describe_counter!(ISSUED, "Certificates issued, by kind of caller (node, workload)");
    describe_counter!(REFUSED, "Requests refused, by reason");
    describe_gauge!(ROOT, "When the root that leaves chain to ends, in seconds since 1970");
    describe_gauge!(INTERMEDIATE, "When the intermediate that signs leaves ends, in seconds since 1970");
    describe_gauge!(STAGE, "1 for the stage of the root's rotation: stable, publishing, issuing");
    describe_gauge!(GENERATION, "Generation of the trust bundle");
    describe_gauge!(LEADER, "1 on the replica that keeps the authority's Secret");
    describe_gauge!(BOUND, "Pods bound to nodes whose identities those nodes may have");
    describe_gauge!(BAD, "1 while a Secret's content cannot be used and what was read before goes on");
}

pub(crate) fn issued(caller: &Caller) {
    let kind = match caller {
        Caller::Node(_) => "node",
        Caller::Workload(_) => "workload",
    };
    counter!(ISSUED, "caller" => kind).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn status(status: &AuthorityStatus) {
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!(ROOT).set(seconds(status.root_not_after));
    gauge!(INTERMEDIATE).set(seconds(status.intermediate_not_after));
    let since = SystemTime::UNIX_EPOCH;
    for stage in [Stage::Stable, Stage::Publishing { since }, Stage::Issuing { since }] {
        gauge!(STAGE, "stage" => stage.name()).set(if stage.name() == status.stage.name() { 1.0 } else { 0.0 });
    }
    gauge!(GENERATION).set(approximate(status.generation));
}

pub(crate) fn leader(is_leader: bool) {
    gauge!(LEADER).set(if is_leader { 1.0 } else { 0.0 });
}

pub(crate) fn bound_pods(pods: usize) {
    gauge!(BOUND).set(approximate(u64::try_from(pods).unwrap_or(u64::MAX)));
}

pub(crate) fn bad_secret(name: &str, is_bad: bool) {
    gauge!(BAD, "secret" => name.to_owned()).set(if is_bad { 1.0 } else { 0.0 });
}

/// Exact below 2^32, which nothing counted here reaches.
fn approximate(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
