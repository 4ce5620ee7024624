//! The authority's.

use super::catalogue;
use crate::family::Component;

catalogue! { &[Component::Ca];
    ISSUED = Counter None "weft_ca_issued_total" [&["caller"]], "Certificates issued, by kind of caller (node, workload).";
    REFUSED = Counter None "weft_ca_refused_total" [&["reason"]], "Requests refused, by reason.";
    ROOT_EXPIRY = Gauge Seconds "weft_ca_root_expiry_timestamp_seconds" [], "When the root that leaves chain to ends, in seconds since 1970.";
    INTERMEDIATE_EXPIRY = Gauge Seconds "weft_ca_intermediate_expiry_timestamp_seconds" [], "When the intermediate that signs leaves ends, in seconds since 1970.";
    ROTATION_STAGE = Gauge None "weft_ca_rotation_stage" [&["stage"]], "1 for the stage of the root's rotation: stable, publishing, issuing.";
    BUNDLE_GENERATION = Gauge None "weft_ca_bundle_generation" [], "Generation of the trust bundle.";
    LEADER = Gauge None "weft_ca_leader" [], "1 on the replica that keeps the authority's Secret.";
    BOUND_PODS = Gauge None "weft_ca_bound_pods" [], "Pods bound to nodes whose identities those nodes may have.";
    BAD_SECRET = Gauge None "weft_ca_bad_secret" [&["secret"]], "1 while a Secret's content cannot be used and what was read before goes on.";
}
