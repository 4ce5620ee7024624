//! What whoever talks to a Kubernetes API server tells of that.

use super::catalogue;
use crate::family::Component;

catalogue! { &[Component::Controller, Component::Ca, Component::Agent];
    WATCH_LISTS = Counter None "weft_kube_watch_lists_total" [&["resource"]], "How often all objects of a resource were listed: once at the start, and again after a watch could not go on.";
    WATCH_ERRORS = Counter None "weft_kube_watch_errors_total" [&["resource"]], "Watches and lists that failed; they are tried again.";
    LEADER = Gauge None "weft_kube_leader" [&["lease"]], "1 on the replica that holds the Lease.";
    LEASE_ERRORS = Counter None "weft_kube_lease_errors_total" [&["lease"]], "Calls about a Lease that failed.";
    TOKEN_REVIEWS = Counter None "weft_kube_token_reviews_total" [&["result"]], "Tokens shown by proxies, by what the API server said of them; `offline` where its keys did, since it was away.";
    EVENTS_DROPPED = Counter None "weft_kube_events_dropped_total" [&["reason"]], "Kubernetes Events that were not written, by why.";
}
