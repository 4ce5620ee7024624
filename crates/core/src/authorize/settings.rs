//! Which settings of several `MeshPolicy` objects win.

use crate::ids::Port;
use crate::policy::{MeshPolicy, Mode, Scope, WorkloadLimits};

/// The policies from the most to the least specific; among equals the older, then the name.
fn by_precedence<'a>(policies: impl Iterator<Item = &'a MeshPolicy>) -> Vec<&'a MeshPolicy> {
    let rank = |scope: &Scope| match scope {
        Scope::Selected => 0,
        Scope::Namespace(_) => 1,
        Scope::Mesh => 2,
    };
    let mut sorted: Vec<_> = policies.collect();
    sorted.sort_by(|a, b| {
        (rank(&a.scope), a.created_unix_seconds, &a.key).cmp(&(rank(&b.scope), b.created_unix_seconds, &b.key))
    });
    sorted
}

/// Whether plaintext is taken on a port: of the most specific policy that says so, its word for the port before
/// its word for all; `Permissive` if none does.
pub fn effective_mode<'a>(policies: impl Iterator<Item = &'a MeshPolicy>, port: Port) -> Mode {
    let said = |policy: &&MeshPolicy| {
        let of_port = policy.port_modes.iter().find(|(p, _)| *p == port).map(|(_, mode)| *mode);
        of_port.or(policy.mode)
    };
    by_precedence(policies).iter().find_map(said).unwrap_or_default()
}

/// Each budget from the most specific policy that gives it.
pub fn effective_limits<'a>(policies: impl Iterator<Item = &'a MeshPolicy>) -> WorkloadLimits {
    by_precedence(policies).iter().fold(WorkloadLimits::default(), |found, policy| WorkloadLimits {
        max_connections: found.max_connections.or(policy.limits.max_connections),
        max_handshakes: found.max_handshakes.or(policy.limits.max_handshakes),
        max_buffer_bytes: found.max_buffer_bytes.or(policy.limits.max_buffer_bytes),
    })
}
