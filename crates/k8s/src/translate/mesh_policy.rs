//! MeshPolicy -> [`core::MeshPolicy`](weft_core::policy::MeshPolicy).
//!
//! An invalid MeshPolicy fails closed: where a mode can't be read the mode is `Strict`.

use weft_core::ids::{PolicyKey, Port};
use weft_core::policy::{MeshPolicy, Mode, WorkloadLimits};

use super::authz::{Translated, UNREADABLE, ancestors};
use super::policy_target::{self, TargetLookup};
use super::{Problem, Reason};
use crate::object::created_seconds;
use crate::object::policy::{MeshPolicy as Spec, TrafficMode};

/// The key of a MeshPolicy in the data plane.
///
/// Workloads list both kinds of policies by key, so the name is marked: an AuthorizationPolicy and a MeshPolicy of
/// one name must not select each other's workloads. `:` can't be in a Kubernetes name, and `/` separates the parts of a
/// key.
pub fn key(object: &Spec) -> PolicyKey {
    let meta = &object.metadata;
    let name = format!("MeshPolicy:{}", meta.name.as_deref().unwrap_or_default());
    PolicyKey::new(meta.namespace.as_deref().unwrap_or("default"), name)
}

/// Translates a policy.
pub fn translate(object: &Spec, lookup: &dyn TargetLookup) -> Translated<MeshPolicy> {
    let key = key(object);
    let kinds = ["Namespace", "Pod"];
    let targets = policy_target::resolve(&key.namespace, object.spec.target_refs.as_deref(), &kinds, lookup);
    let mut problems = Vec::new();
    if let Some(why) = object.metadata.annotations.as_ref().and_then(|a| a.get(UNREADABLE)) {
        problems.push(Problem::new("", Reason::Invalid, why.as_str(), ""));
    }
    let mut port_modes: Vec<(Port, Mode)> = Vec::new();
    for (i, entry) in object.spec.port_modes.iter().flatten().enumerate() {
        let field = format!("spec.portModes[{i}].port");
        match u16::try_from(entry.port).ok().and_then(Port::new) {
            None => {
                let message = format!("{} is not a port", entry.port);
                problems.push(Problem::new(field, Reason::Invalid, message, "use 1 to 65535"));
            }
            Some(port) if port_modes.iter().any(|(p, _)| *p == port) => {
                problems.push(Problem::new(
                    field,
                    Reason::Invalid,
                    format!("{port} is there twice"),
                    "keep one of them",
                ));
            }
            Some(port) => port_modes.push((port, mode(entry.mode))),
        }
    }
    let (enforced, root) = (object.spec.enforced == Some(true), lookup.root_namespace());
    let own = key.namespace != *root;
    if enforced && own {
        let message = "is for policies of the root namespace, which hold for the others";
        let remedy = format!("remove it, or put the policy into namespace {root}");
        problems.push(Problem::new("spec.enforced", Reason::Invalid, message, remedy));
    }
    let limits = limits(object, &mut problems);
    let broken = !problems.is_empty() || targets.invalid;
    let consequence = if broken { "Plaintext is refused in its scope until it is corrected" } else { "" };
    let ancestors = ancestors(&targets.each, &problems, targets.invalid, consequence);
    problems.extend(targets.each.into_iter().filter_map(|t| t.problem));
    let policy = MeshPolicy {
        key,
        scope: targets.applies.scope(),
        created_unix_seconds: created_seconds(&object.metadata),
        mode: if broken { Some(Mode::Strict) } else { object.spec.mode.map(mode) },
        port_modes: if broken { Vec::new() } else { port_modes },
        enforced: enforced && !own,
        limits,
    };
    Translated { policy, applies: targets.applies, gateways: Vec::new(), ancestors, problems }
}

fn mode(mode: TrafficMode) -> Mode {
    match mode {
        TrafficMode::Permissive => Mode::Permissive,
        TrafficMode::Strict => Mode::Strict,
        TrafficMode::StrictAudit => Mode::StrictAudit,
    }
}

fn limits(object: &Spec, problems: &mut Vec<Problem>) -> WorkloadLimits {
    let Some(spec) = &object.spec.limits else { return WorkloadLimits::default() };
    let mut wrong = |name: &str, value: i64| {
        let message = format!("{value} is not a limit");
        let remedy = "use a number of at least 1, or remove it for the node's default";
        problems.push(Problem::new(format!("spec.limits.{name}"), Reason::Invalid, message, remedy));
    };
    let mut count = |name: &str, value: Option<i64>| {
        let read = u32::try_from(value?).ok().filter(|n| *n > 0);
        if let (None, Some(value)) = (read, value) {
            wrong(name, value);
        }
        read
    };
    let max_connections = count("maxConnections", spec.max_connections);
    let max_handshakes = count("maxHandshakes", spec.max_handshakes);
    let max_buffer_bytes = spec.max_buffer_bytes.and_then(|value| {
        let read = u64::try_from(value).ok().filter(|n| *n > 0);
        if read.is_none() {
            wrong("maxBufferBytes", value);
        }
        read
    });
    WorkloadLimits { max_connections, max_handshakes, max_buffer_bytes }
}
