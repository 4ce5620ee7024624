//! targetRefs of our policies: what they apply to.
//!
//! - None: the policy's namespace; in the root namespace, the mesh.
//! - `Namespace`: the policy's own; in the root namespace, any.
//! - `Service`: the pods its selector selects, in the policy's namespace.
//! - `Pod` with a selector: those pods of the policy's namespace; in the root namespace, of the one that the target names, or of
//!   all namespaces.
//!
//! Those of Gateways are in `gateway_target`.
//!
//! A target that can't be understood makes the whole policy invalid: what it was meant to guard is not known.

use std::hash::{Hash, Hasher};

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use weft_core::ids::{Namespace, ServiceKey};
use weft_core::policy::Scope;

use super::gateway_target::GatewayTarget;
use super::labels::{self, Labels};
use super::{Problem, Reason, suggestion};
use crate::object::policy::TargetRef;

/// Some workloads of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// The namespace; all of them for a Pod selector in the root namespace that names none.
    pub namespace: Option<Namespace>,
    /// Which pods there.
    pub pods: Pods,
}

/// Which pods of a namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Pods {
    /// Every one.
    All,
    /// Those a label selector matches.
    Matching(LabelSelector),
    /// Those of a Service.
    OfService(ServiceKey, Labels),
}

// A selector is text; its type says neither that it equals itself nor how it is hashed.
impl Eq for Pods {}

impl Hash for Pods {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::All => {}
            Self::Matching(selector) => {
                selector.match_labels.hash(state);
                for it in selector.match_expressions.iter().flatten() {
                    (&it.key, &it.operator, &it.values).hash(state);
                }
            }
            Self::OfService(service, _) => service.hash(state),
        }
    }
}

impl Selection {
    /// Whether a pod is among them.
    pub fn selects(&self, namespace: &Namespace, pod: &Labels) -> bool {
        self.namespace.as_ref().is_none_or(|ns| ns == namespace)
            && match &self.pods {
                Pods::All => true,
                Pods::Matching(selector) => labels::matches(selector, pod),
                Pods::OfService(_, selector) => labels::has_all(selector, pod),
            }
    }
}

/// What a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Applies {
    /// Every workload.
    Mesh,
    /// Every workload of a namespace.
    Namespace(Namespace),
    /// The workloads of any of these.
    Selected(Vec<Selection>),
}

impl Applies {
    /// The scope that travels; selected workloads list the policy themselves.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Mesh => Scope::Mesh,
            Self::Namespace(ns) => Scope::Namespace(ns.clone()),
            Self::Selected(_) => Scope::Selected,
        }
    }

    /// The selections, none for the mesh or a namespace.
    pub fn selections(&self) -> &[Selection] {
        match self {
            Self::Selected(list) => list,
            _ => &[],
        }
    }
}

/// One target with what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedTarget {
    /// As in the status.
    pub target: TargetRef,
    /// Why it is not in force.
    pub problem: Option<Problem>,
}

/// What a policy needs to know of other objects.
pub trait TargetLookup {
    /// A Service as it is in the cluster.
    fn raw_service(&self, key: &ServiceKey) -> Option<&k8s::Service>;
    /// Whether a namespace is known.
    fn has_namespace(&self, namespace: &Namespace) -> bool;
    /// The namespace whose policies may apply to the whole mesh.
    fn root_namespace(&self) -> &Namespace;
    /// Why a policy isn't in force at a Gateway, as far as that is understood already.
    fn missing_at(&self, target: &GatewayTarget, field: &str) -> Option<Problem>;
}

/// What targets are made of.
pub(super) struct Targets {
    pub applies: Applies,
    /// Listeners of Gateways.
    pub gateways: Vec<GatewayTarget>,
    pub each: Vec<ResolvedTarget>,
    /// Set if a target can't be understood: the policy is invalid.
    pub invalid: bool,
}

/// Where a policy without usable targets applies: its namespace, or the mesh.
fn everything(namespace: &Namespace, lookup: &dyn TargetLookup) -> Applies {
    if namespace == lookup.root_namespace() { Applies::Mesh } else { Applies::Namespace(namespace.clone()) }
}

/// Resolves the targets of a policy.
pub(super) fn resolve(
    namespace: &Namespace,
    refs: Option<&[TargetRef]>,
    kinds: &[&str],
    lookup: &dyn TargetLookup,
) -> Targets {
    let all = everything(namespace, lookup);
    let Some(refs) = refs else {
        let target = TargetRef { kind: "Namespace".into(), name: Some(namespace.to_string()), ..TargetRef::default() };
        let each = vec![ResolvedTarget { target, problem: None }];
        return Targets { applies: all, gateways: Vec::new(), each, invalid: false };
    };
    let (mut each, mut selections, mut invalid) = (Vec::new(), Vec::new(), refs.is_empty());
    let mut gateways = Vec::new();
    if refs.is_empty() {
        let message = "is empty: that would apply to nothing";
        let problem = Problem::new("spec.targetRefs", Reason::Invalid, message, "remove it to apply to the namespace");
        let target = TargetRef { kind: "Namespace".into(), name: Some(namespace.to_string()), ..TargetRef::default() };
        each.push(ResolvedTarget { target, problem: Some(problem) });
    }
    for (i, target) in refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{i}]");
        let problem = if kinds.contains(&target.kind.as_str()) && GatewayTarget::is_kind(&target.kind) {
            GatewayTarget::read(namespace, target, &field).map_or_else(Some, |read| {
                let problem = lookup.missing_at(&read, &field);
                gateways.push(read);
                problem
            })
        } else {
            one(namespace, target, &field, kinds, lookup).map_or_else(Some, |selection| {
                // A namespace that is not there yet is guarded all the same, from its first pod on.
                let problem = missing_namespace(namespace, &selection, i, lookup);
                selections.push(selection);
                problem
            })
        };
        if problem.as_ref().is_some_and(|problem| problem.reason == Reason::Invalid) {
            invalid = true;
            // It denies everything until it is corrected, at listeners that it was meant for, too.
            gateways.extend(GatewayTarget::meant(namespace, target));
        }
        each.push(ResolvedTarget { target: target.clone(), problem });
    }
    let applies = match selections.as_slice() {
        _ if invalid => all,
        [Selection { namespace: Some(ns), pods: Pods::All }] => Applies::Namespace(ns.clone()),
        _ => Applies::Selected(selections),
    };
    Targets { applies, gateways, each, invalid }
}

fn one(
    namespace: &Namespace,
    target: &TargetRef,
    field: &str,
    kinds: &[&str],
    lookup: &dyn TargetLookup,
) -> Result<Selection, Problem> {
    let invalid = |part: &str, message: String, remedy: &str| {
        Err(Problem::new(format!("{field}{part}"), Reason::Invalid, message, remedy))
    };
    let root = namespace == lookup.root_namespace();
    if !target.group.is_empty() {
        return invalid(".group", format!("{:?} has no targets of this policy", target.group), "leave the group empty");
    }
    if !kinds.contains(&target.kind.as_str()) {
        let remedy = suggestion(&target.kind, kinds);
        return invalid(".kind", format!("{:?} is not a target of this policy", target.kind), &remedy);
    }
    if target.section_name.is_some() {
        return invalid(".sectionName", format!("is set for kind {}", target.kind), "remove it");
    }
    if target.namespace.is_some() && target.kind != "Pod" {
        let remedy = match target.kind.as_str() {
            "Namespace" => "remove it, and name the namespace in name",
            _ => "remove it, or select pods of that namespace by their labels (kind Pod)",
        };
        return invalid(".namespace", format!("is set for kind {}", target.kind), remedy);
    }
    match (target.kind.as_str(), &target.name, &target.selector) {
        ("Pod", None, Some(selector)) => {
            if let Some(problem) = labels::check(&format!("{field}.selector"), selector) {
                return Err(Problem { reason: Reason::Invalid, ..problem });
            }
            let namespace = whose_pods(namespace, target.namespace.as_deref(), field, root)?;
            Ok(Selection { namespace, pods: Pods::Matching(selector.clone()) })
        }
        ("Pod", _, None) => invalid(".selector", "is missing for kind Pod".into(), "select pods by their labels"),
        ("Pod", Some(_), _) => invalid(".name", "is set for kind Pod".into(), "select pods by their labels"),
        (_, _, Some(_)) => invalid(".selector", "is set for another kind than Pod".into(), "remove it"),
        (_, None, _) => invalid(".name", "is missing".into(), "name the target"),
        ("Namespace", Some(name), None) => {
            let wanted = Namespace::new(name);
            if wanted != *namespace && !root {
                let message = format!("namespace {name} is not the policy's own");
                return invalid(".name", message, "put the policy into that namespace, or into the root namespace");
            }
            Ok(Selection { namespace: Some(wanted), pods: Pods::All })
        }
        (_, Some(name), None) => service(namespace, name, field, lookup),
    }
}

/// The namespace whose pods a selector is for; `None`: of all of them.
fn whose_pods(own: &Namespace, said: Option<&str>, field: &str, root: bool) -> Result<Option<Namespace>, Problem> {
    let Some(wanted) = said.map(Namespace::new) else { return Ok((!root).then(|| own.clone())) };
    let invalid =
        |message: String, remedy: &str| Problem::new(format!("{field}.namespace"), Reason::Invalid, message, remedy);
    if wanted.as_str().is_empty() {
        return Err(invalid("is empty".into(), "name the namespace of the pods"));
    }
    if wanted != *own && !root {
        let message = format!("namespace {wanted} is not the policy's own");
        return Err(invalid(message, "put the policy into that namespace, or into the root namespace"));
    }
    Ok(Some(wanted))
}

fn missing_namespace(own: &Namespace, selection: &Selection, i: usize, lookup: &dyn TargetLookup) -> Option<Problem> {
    let wanted = selection.namespace.as_ref().filter(|ns| *ns != own)?;
    let message = format!("namespace {wanted} does not exist");
    let problem = || {
        let part = if selection.pods == Pods::All { "name" } else { "namespace" };
        let field = format!("spec.targetRefs[{i}].{part}");
        Problem::new(field, Reason::TargetNotFound, message, "create it, or correct the name")
    };
    (!lookup.has_namespace(wanted)).then(problem)
}

fn service(namespace: &Namespace, name: &str, field: &str, lookup: &dyn TargetLookup) -> Result<Selection, Problem> {
    let key = ServiceKey::new(namespace.clone(), name);
    let missing = |message: String, remedy: &str| {
        Err(Problem::new(format!("{field}.name"), Reason::TargetNotFound, message, remedy))
    };
    let Some(service) = lookup.raw_service(&key) else {
        return missing(format!("Service {key} does not exist"), "create it, or correct the name");
    };
    match service.spec.as_ref().and_then(|s| s.selector.clone()).filter(|s| !s.is_empty()) {
        Some(selector) => Ok(Selection { namespace: Some(namespace.clone()), pods: Pods::OfService(key, selector) }),
        None => missing(
            format!("Service {key} has no selector, so its pods are not known"),
            "target the pods by their labels",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

    use super::*;

    /// Targets are looked up in a map: with the same hash, each of thousands would be compared with all others.
    #[test]
    fn what_is_selected_is_hashed_as_it_is_told_apart() {
        let matching = |n: usize, by_label: bool| {
            let spec = match by_label {
                true => format!(r#"{{"matchLabels": {{"app": "a{n}"}}}}"#),
                false => {
                    format!(r#"{{"matchExpressions": [{{"key": "app", "operator": "In", "values": ["a{n}"]}}]}}"#)
                }
            };
            Pods::Matching(serde_json::from_str(&spec).unwrap())
        };
        let of_service = |n: usize| Pods::OfService(ServiceKey::new("shop", format!("s{n}")), Labels::new());
        let of = |pods| Selection { namespace: Some("shop".into()), pods };
        let all = || (0..100).flat_map(|n| [matching(n, true), matching(n, false), of_service(n)]).map(of);
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let hashes: HashSet<_> = all().map(|it| hasher.hash_one(it)).collect();
        assert_eq!(hashes.len(), 300);
        let distinct: HashSet<_> = all().chain(all()).collect();
        assert_eq!(distinct.len(), 300, "what is equal has one hash");
    }
}
