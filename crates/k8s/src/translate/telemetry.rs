//! TelemetryPolicy -> [`core::TelemetryPolicy`](weft_core::telemetry::TelemetryPolicy).
//!
//! An invalid policy isn't in force: less specific ones are, and nothing is sent to where nobody meant it to go. A collector
//! that can't be had, or may not, costs the policy's traces and nothing else; lines of the access log go to the standard output
//! then.

use http::HeaderName;
use weft_core::ids::{Namespace, PolicyKey, ServiceKey};
use weft_core::telemetry::{
    AccessLogPolicy, AttributeSource, LOG_FIELDS, LogFields, LogFormat, LogMode, LogOutput, ParentSampling, Share,
    SpanAttribute, TelemetryPolicy, TracingPolicy,
};

use super::authz::UNREADABLE;
use super::gateway_target::{GatewayTarget, ListenerHolder};
use super::policy_target::{self, Applies, Selection, TargetLookup};
use super::{Problem, Reason, suggestion, summary};
use crate::object::policy::TargetRef;
use crate::object::{
    AccessLogFormat, AccessLogMode, AccessLogSpec, Condition, ConditionType, FractionSpec, ParentBasedSampling,
    PolicyAncestorStatus, TelemetryPolicy as Spec, TelemetryProvider, TracingAttribute, TracingAttributeType,
    TracingMode, TracingSpec, created_seconds,
};

mod provider;

/// The kinds that may be a target.
const KINDS: [&str; 4] = ["Namespace", "Service", "Pod", "Gateway"];
/// What comes of a collector of spans that can't be had.
const UNTRACED: &str = "Nothing that it would take is traced until then";
/// The same of one of lines.
const STANDARD_OUTPUT: &str = "Lines of the access log go to the standard output until then";

/// What a translation needs to know of other objects.
pub trait Lookup: TargetLookup {
    /// Whether a policy of a namespace may refer to a Service of another one.
    fn permitted(&self, from: &Namespace, to: &ServiceKey) -> bool;
}

/// What one target of a policy stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// These workloads.
    Workloads(Applies),
    /// A Gateway, by its target.
    Gateway(GatewayTarget),
}

/// One target, with what is wrong with it.
#[derive(Clone, Debug)]
pub struct Place {
    /// As in the status.
    pub target: TargetRef,
    /// What it stands for, if that is understood.
    pub meant: Option<Target>,
    /// Why the policy isn't in force there.
    pub problem: Option<Problem>,
}

/// What became of a policy.
#[derive(Clone, Debug)]
pub struct Translated {
    /// What is said, without where.
    policy: TelemetryPolicy,
    /// Where.
    pub places: Vec<Place>,
    /// What makes the policy invalid.
    problems: Vec<Problem>,
    /// Collectors that can't be had, and what comes of it.
    unresolved: Vec<(Problem, &'static str)>,
}

/// Translates a policy.
pub fn translate(object: &Spec, lookup: &dyn Lookup) -> Translated {
    let meta = &object.metadata;
    let key = PolicyKey::new(meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default());
    let mut problems = Vec::new();
    if let Some(why) = meta.annotations.as_ref().and_then(|a| a.get(UNREADABLE)) {
        problems.push(Problem::new("", Reason::Invalid, why.as_str(), ""));
    }
    let (places, invalid) = places(&key.namespace, object.spec.target_refs.as_deref(), lookup);
    problems.extend(invalid);
    let mut access_log = object.spec.access_log.as_ref().map(|it| access_log(it, &mut problems)).unwrap_or_default();
    let mut tracing = object.spec.tracing.as_ref().map(|it| tracing(it, &mut problems)).unwrap_or_default();
    let mut unresolved = Vec::new();
    // Nothing goes to another collector than the one that was meant.
    let mut found =
        |part: &str, provider: Option<&TelemetryProvider>, otherwise: &'static str| match provider::collector(
            part,
            &provider?.backend_ref,
            &key.namespace,
            lookup,
        ) {
            Ok(port) => Some(Some(port)),
            Err(problem) if problem.reason == Reason::Invalid => {
                problems.push(problem);
                None
            }
            Err(problem) => {
                unresolved.push((problem, otherwise));
                Some(None)
            }
        };
    let of_log = object.spec.access_log.as_ref().and_then(|it| it.provider.as_ref());
    access_log.output =
        found("accessLog", of_log, STANDARD_OUTPUT).map(|port| port.map_or(LogOutput::Standard, LogOutput::Collector));
    match found("tracing", object.spec.tracing.as_ref().and_then(|it| it.provider.as_ref()), UNTRACED) {
        Some(Some(port)) => tracing.provider = Some(port),
        Some(None) => tracing.withheld = true,
        None => {}
    }
    let policy = TelemetryPolicy {
        key,
        scope: weft_core::policy::Scope::Selected,
        gateways: Vec::new(),
        created_unix_seconds: created_seconds(meta),
        access_log,
        tracing,
    };
    Translated { policy, places, problems, unresolved }
}

impl Translated {
    /// Whether it can be understood.
    pub fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    /// The resource, at the places where it is in force, and which workloads list it; `None`: nowhere.
    pub fn resource(&self) -> Option<(TelemetryPolicy, Vec<Selection>)> {
        if !self.is_valid() {
            return None;
        }
        let mut policy = self.policy.clone();
        let mut scopes = Vec::new();
        let in_force = self.places.iter().filter(|place| !place.problem.as_ref().is_some_and(is_conflict));
        for meant in in_force.filter_map(|place| place.meant.as_ref()) {
            match meant {
                Target::Workloads(applies) => scopes.push(applies.clone()),
                Target::Gateway(target) => policy.gateways.extend(gateway(target)),
            }
        }
        if scopes.is_empty() && policy.gateways.is_empty() {
            return None;
        }
        // A namespace or the mesh is a target by itself.
        if let [one] = scopes.as_slice() {
            policy.scope = one.scope();
        }
        Some((policy, scopes.iter().flat_map(|applies| applies.selections().to_vec()).collect()))
    }

    /// The status: one entry for each target.
    pub fn ancestors(&self) -> Vec<PolicyAncestorStatus> {
        let entry = |place: &Place| {
            let accepted = match (&place.problem, self.is_valid()) {
                (_, false) => {
                    let reason = self.problems.first().map_or(Reason::Invalid, |problem| problem.reason);
                    let text = format!("{}. The policy is not in force until it is corrected", summary(&self.problems));
                    Condition::new(ConditionType::Accepted, false, reason.as_str(), text)
                }
                (Some(problem), true) => {
                    Condition::new(ConditionType::Accepted, false, problem.reason.as_str(), problem.to_string())
                }
                (None, true) => Condition::new(ConditionType::Accepted, true, "Accepted", "The policy is in force"),
            };
            let mut conditions = vec![accepted];
            conditions.extend(self.resolved_refs().filter(|_| self.is_valid()));
            PolicyAncestorStatus { ancestor_ref: place.target.clone(), conditions }
        };
        self.places.iter().map(entry).collect()
    }

    /// Whether its collectors are there, if it names any.
    fn resolved_refs(&self) -> Option<Condition> {
        if let Some((first, _)) = self.unresolved.first() {
            let told: Vec<_> =
                self.unresolved.iter().map(|(problem, otherwise)| format!("{problem}. {otherwise}")).collect();
            return Some(Condition::new(ConditionType::ResolvedRefs, false, first.reason.as_str(), told.join(". ")));
        }
        let collects = matches!(self.policy.access_log.output, Some(LogOutput::Collector(_)));
        let text = "The collector was found";
        (collects || self.policy.tracing.provider.is_some())
            .then(|| Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", text))
    }

    /// All that is wrong with it.
    pub fn all_problems(&self) -> Vec<Problem> {
        let of_places = self.places.iter().filter_map(|place| place.problem.clone());
        let unresolved = self.unresolved.iter().map(|(problem, _)| problem.clone());
        self.problems.iter().cloned().chain(unresolved).chain(of_places).collect()
    }
}

fn is_conflict(problem: &Problem) -> bool {
    problem.reason == Reason::Conflicted
}

fn gateway(target: &GatewayTarget) -> Option<weft_core::ids::GatewayKey> {
    match &target.holder {
        ListenerHolder::Gateway(key) => Some(key.clone()),
        ListenerHolder::Set(_) => None,
    }
}

/// Each target by itself, and what makes the policy invalid.
fn places(namespace: &Namespace, refs: Option<&[TargetRef]>, lookup: &dyn Lookup) -> (Vec<Place>, Vec<Problem>) {
    let one = |refs: Option<&[TargetRef]>| policy_target::resolve(namespace, refs, &KINDS, lookup as &dyn TargetLookup);
    let Some(refs) = refs.filter(|refs| !refs.is_empty()) else {
        let whole = one(refs);
        let (applies, mut problems) = (whole.applies, Vec::new());
        let place = |it: policy_target::ResolvedTarget| {
            problems.extend(it.problem);
            Place { target: it.target, meant: Some(Target::Workloads(applies.clone())), problem: None }
        };
        let places = whole.each.into_iter().map(place).collect();
        return (places, problems);
    };
    let (mut places, mut problems) = (Vec::new(), Vec::new());
    for (i, target) in refs.iter().enumerate() {
        if target.kind == "Namespace" && refs.len() > 1 {
            let message = "is a namespace beside other targets, which would have another precedence";
            let remedy = "make a policy of its own for it";
            problems.push(Problem::new(format!("spec.targetRefs[{i}]"), Reason::Invalid, message, remedy));
        }
        let found = one(Some(std::slice::from_ref(target)));
        let at = |problem: Problem| Problem {
            field: problem.field.replacen("spec.targetRefs[0]", &format!("spec.targetRefs[{i}]"), 1),
            ..problem
        };
        let mut problem = found.each.into_iter().find_map(|it| it.problem).map(at);
        // Also of one that isn't there yet.
        if target.kind == "Gateway" && target.section_name.is_some() {
            let field = format!("spec.targetRefs[{i}].sectionName");
            let message = "is set, but telemetry is a whole Gateway's";
            problem = Some(Problem::new(field, Reason::Invalid, message, "remove it"));
        }
        let invalid = found.invalid || problem.as_ref().is_some_and(|it| it.reason == Reason::Invalid);
        let meant = match (invalid, found.gateways.into_iter().next()) {
            (true, _) => None,
            (false, Some(gateway)) => Some(Target::Gateway(gateway)),
            // Of a Service that isn't there nothing is selected.
            (false, None) => {
                Some(found.applies).filter(|it| *it != Applies::Selected(Vec::new())).map(Target::Workloads)
            }
        };
        if invalid {
            problems.extend(problem.take());
        }
        places.push(Place { target: target.clone(), meant, problem });
    }
    (places, problems)
}

fn fraction(spec: Option<&FractionSpec>, field: &str, problems: &mut Vec<Problem>) -> Option<Share> {
    let spec = spec?;
    let (numerator, denominator) = (spec.numerator, spec.denominator.unwrap_or(100));
    let share = u32::try_from(numerator).ok().zip(u32::try_from(denominator).ok()).and_then(|(n, d)| Share::new(n, d));
    if share.is_none() {
        let message = format!("{numerator} of {denominator} is no share");
        let remedy = "use a numerator from 0 to the denominator, which is 100 if it is left out";
        problems.push(Problem::new(field, Reason::Invalid, message, remedy));
    }
    share
}

fn access_log(spec: &AccessLogSpec, problems: &mut Vec<Problem>) -> AccessLogPolicy {
    let sampling = fraction(spec.sampling_rate.as_ref(), "spec.accessLog.samplingRate", problems);
    if spec.sampling_rate.is_some() && spec.mode.is_some_and(|mode| mode != AccessLogMode::All) {
        let message = "is for mode All: failures are always logged unless the mode is Disabled";
        let remedy = "set mode: All, or remove it";
        problems.push(Problem::new("spec.accessLog.samplingRate", Reason::Invalid, message, remedy));
    }
    if spec.provider.is_some() && spec.mode == Some(AccessLogMode::Disabled) {
        let message = "is set although the mode is Disabled";
        problems.push(Problem::new("spec.accessLog.provider", Reason::Invalid, message, "remove one of the two"));
    }
    if spec.fields.as_ref().is_some_and(Vec::is_empty) {
        let message = "is empty: a line would have nothing in it";
        problems.push(Problem::new("spec.accessLog.fields", Reason::Invalid, message, "remove it to have all of them"));
    }
    for (i, name) in spec.fields.iter().flatten().enumerate() {
        if !LOG_FIELDS.contains(&name.as_str()) {
            let message = format!("{name:?} is not a field of the access log");
            let remedy = suggestion(name, &LOG_FIELDS);
            problems.push(Problem::new(format!("spec.accessLog.fields[{i}]"), Reason::Invalid, message, remedy));
        }
    }
    AccessLogPolicy {
        mode: spec.mode.map(|mode| match mode {
            AccessLogMode::Disabled => LogMode::Disabled,
            AccessLogMode::Errors => LogMode::Errors,
            AccessLogMode::All => LogMode::All,
        }),
        sampling,
        format: spec.format.map(|format| match format {
            AccessLogFormat::Json => LogFormat::Json,
            AccessLogFormat::Text => LogFormat::Text,
        }),
        fields: spec.fields.as_ref().map(LogFields::named),
        output: None,
    }
}

fn tracing(spec: &TracingSpec, problems: &mut Vec<Problem>) -> TracingPolicy {
    if spec.mode == Some(TracingMode::Disabled) && spec.provider.is_some() {
        let message = "is set although the mode is Disabled";
        problems.push(Problem::new("spec.tracing.provider", Reason::Invalid, message, "remove one of the two"));
    }
    let mut attributes = Vec::new();
    for (i, attribute) in spec.attributes.iter().flatten().enumerate() {
        let field = format!("spec.tracing.attributes[{i}]");
        if spec.attributes.iter().flatten().take(i).any(|other| other.name == attribute.name) {
            let message = format!("{:?} is there twice", attribute.name);
            problems.push(Problem::new(format!("{field}.name"), Reason::Invalid, message, "keep one of them"));
        }
        match self::attribute(attribute) {
            Ok(made) => attributes.push(made),
            Err((part, message, remedy)) => {
                problems.push(Problem::new(format!("{field}{part}"), Reason::Invalid, message, remedy));
            }
        }
    }
    TracingPolicy {
        enabled: match spec.mode {
            Some(TracingMode::Enabled) => Some(true),
            Some(TracingMode::Disabled) => Some(false),
            Some(TracingMode::ImplementationDefault) | None => None,
        },
        provider: None,
        withheld: false,
        sampling: fraction(spec.sampling_rate.as_ref(), "spec.tracing.samplingRate", problems),
        parent: spec.parent_based_sampling.as_ref().and_then(|it| parent(it, problems)),
        service_name: spec.service_name.clone().filter(|name| !name.is_empty()),
        attributes,
    }
}

fn parent(spec: &ParentBasedSampling, problems: &mut Vec<Problem>) -> Option<ParentSampling> {
    let field = "spec.tracing.parentBasedSampling.samplingRate";
    let share = fraction(spec.sampling_rate.as_ref(), field, problems);
    match spec.mode {
        Some(TracingMode::Enabled) => Some(ParentSampling::Respected(share.unwrap_or(Share::ALL))),
        Some(TracingMode::Disabled) => Some(ParentSampling::Ignored),
        Some(TracingMode::ImplementationDefault) | None => None,
    }
}

type Wrong = (&'static str, String, &'static str);

fn attribute(spec: &TracingAttribute) -> Result<SpanAttribute, Wrong> {
    if spec.name.is_empty() {
        return Err((".name", "is empty".into(), "name the attribute"));
    }
    let value = match (spec.kind, &spec.literal_value, &spec.header_name) {
        (TracingAttributeType::Literal, Some(text), None) => AttributeSource::Literal(text.clone()),
        (TracingAttributeType::Header, None, Some(name)) => {
            let read = HeaderName::from_bytes(name.as_bytes());
            let name = read.map_err(|_| {
                (
                    ".headerName",
                    format!("{name:?} is not the name of a header"),
                    "write it as in requests, X-Request-Id say",
                )
            })?;
            AttributeSource::Header(name.as_str().to_owned())
        }
        (TracingAttributeType::Literal, ..) => {
            return Err((
                ".literalValue",
                "has to be there, and nothing else, for type Literal".into(),
                "give literalValue alone",
            ));
        }
        (TracingAttributeType::Header, ..) => {
            return Err((
                ".headerName",
                "has to be there, and nothing else, for type Header".into(),
                "give headerName alone",
            ));
        }
    };
    Ok(SpanAttribute { name: spec.name.clone(), value })
}
