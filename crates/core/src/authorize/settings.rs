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
/// its word for all; `Permissive` if none does. Enforced policies are asked a second time, by themselves: the stricter of
/// the two answers holds, so that whoever may write a more specific policy can't open what is enforced.
pub fn effective_mode<'a>(policies: impl Iterator<Item = &'a MeshPolicy>, port: Port) -> Mode {
    let said = |policy: &&MeshPolicy| {
        let of_port = policy.port_modes.iter().find(|(p, _)| *p == port).map(|(_, mode)| *mode);
        of_port.or(policy.mode)
    };
    let sorted = by_precedence(policies);
    let least = sorted.iter().filter(|policy| policy.enforced).find_map(said).unwrap_or_default();
    let most_specific = sorted.iter().find_map(said).unwrap_or_default();
    if strictness(most_specific) < strictness(least) { least } else { most_specific }
}

/// Whether plaintext is refused on whichever port.
pub fn is_strict_somewhere(policies: &[&MeshPolicy]) -> bool {
    let named = policies.iter().flat_map(|policy| &policy.port_modes).map(|(port, _)| *port);
    // A port that nobody names stands for all of these.
    let unnamed = (1..=u16::MAX).rev().filter_map(Port::new).find(|port| named.clone().all(|it| it != *port));
    named.clone().chain(unnamed).any(|port| effective_mode(policies.iter().copied(), port) == Mode::Strict)
}

fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Permissive => 0,
        Mode::StrictAudit => 1,
        Mode::Strict => 2,
    }
}

/// Each budget from the most specific policy that gives it, and no more than the most specific enforced one has.
pub fn effective_limits<'a>(policies: impl Iterator<Item = &'a MeshPolicy>) -> WorkloadLimits {
    let sorted = by_precedence(policies);
    let found = first_limits(sorted.iter().copied());
    let most = first_limits(sorted.iter().copied().filter(|policy| policy.enforced));
    WorkloadLimits {
        max_connections: smaller(found.max_connections, most.max_connections),
        max_handshakes: smaller(found.max_handshakes, most.max_handshakes),
        max_buffer_bytes: smaller(found.max_buffer_bytes, most.max_buffer_bytes),
    }
}

fn first_limits<'a>(sorted: impl Iterator<Item = &'a MeshPolicy>) -> WorkloadLimits {
    sorted.fold(WorkloadLimits::default(), |found, policy| WorkloadLimits {
        max_connections: found.max_connections.or(policy.limits.max_connections),
        max_handshakes: found.max_handshakes.or(policy.limits.max_handshakes),
        max_buffer_bytes: found.max_buffer_bytes.or(policy.limits.max_buffer_bytes),
    })
}

/// The smaller of the budgets that are given.
fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}
