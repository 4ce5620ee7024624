//! Talks to a Kubernetes API server: client set-up, watches, leases, token reviews, events. The only user of `kube`'s
//! client; who needs one takes it from here.
//!
//! - [`client()`]: a client with timeouts. [`watch()`]: list and watch for ever.
//! - [`Leadership`]: one leader among replicas. [`Reviewer`]: whose token this is, of pods; [`OfflineReview`] while nobody can be
//!   asked. [`People`]: of anybody, and what they
//!   may. [`bearer_token`]: the token that a kubeconfig has. [`Events`]: what `kubectl describe` shows.
//! - [`health`]: the page that every component serves to probes and Prometheus.
//!
//! Nothing here ends because the API server is away: it is said in logs and metrics, and tried again.

mod client;
mod events;
pub mod health;
mod keys;
mod known;
mod lease;
mod memory;
mod offline;
mod people;
mod review;
mod token;
mod watch;

pub use client::{Choice, ConnectError, client, client_of};
pub use events::{Events, Severity};
pub use known::{KnownPods, Seat};
pub use kube;
pub use lease::{Leadership, LeaseSettings};
pub use offline::OfflineReview;
pub use people::{People, Right, User};
pub use review::{ReviewError, Reviewed, Reviewer};
pub use token::{TokenError, bearer_token};
pub use watch::{Watched, watch, watch_as};

/// The label, and its value, of all that is the mesh's own, so that it is found when the mesh goes.
pub const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "weft");
