//! The CNI plugin and the node agent that sets redirection in pods' network namespaces.
//!
//! ```text
//!   runtime --stdin/env--> weft-cni (plugin) --unix socket, netns fd--> agent --unix socket, netns fd--> node proxy
//!                                                                         |
//!                                                                       rules, in the pod's namespace
//! ```

#![forbid(unsafe_code)]

pub mod agent;
pub mod cni;
pub mod discovery;
pub mod install;
pub mod kubernetes;
pub mod plugin;
pub mod rules;
