//! Talks to a Kubernetes API server: client set-up, watches, leases, token reviews, events. The only user of `kube`'s
//! client; who needs one takes it from here.

pub use kube;
