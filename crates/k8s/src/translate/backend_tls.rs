//! BackendTLSPolicy -> [`BackendTls`](weft_core::gateway::BackendTls) (GEP-1897).
//!
//! A policy that can't be used keeps its Services: what was to be encrypted is not sent at all.

use gateway_api::backendtlspolicies::{
    BackendTlsPolicy, BackendTlsPolicyValidationCaCertificateRefs, BackendTlsPolicyValidationSubjectAltNames,
    BackendTlsPolicyValidationSubjectAltNamesType as SanType,
};
use k8s_openapi::api::core::v1::ConfigMap;
use weft_core::gateway::{BackendTls, BackendTrust, SubjectAltName};
use weft_core::ids::{Namespace, SectionName, ServiceKey, ServicePortKey};
use weft_core::service::{AppProtocol, Service};

use super::gateway::trust;
use super::route::hostname;
use super::{Problem, Reason, summary};
use crate::object::{Condition, ConditionType};

/// The well-known authorities that the API has a word for.
const SYSTEM: &str = "System";

/// A policy, understood by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyView {
    /// What it is for, in its order.
    pub targets: Vec<PolicyTarget>,
    hostname: String,
    subject_alt_names: Vec<SubjectAltName>,
    trust: BackendTrust,
    /// Why it can't be used.
    refused: Option<Problem>,
    /// References that don't hold.
    unresolved: Vec<Problem>,
    /// What has no effect.
    notes: Vec<Problem>,
}

/// `targetRefs[]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTarget {
    /// `spec.targetRefs[n]`
    pub field: String,
    /// The Service.
    pub service: ServiceKey,
    /// A port of it, by name; `None`: those that no other policy names.
    pub section: Option<SectionName>,
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The policy is in force there.
    InForce,
    /// Another one is, or there is no such target.
    Lost(Problem),
}

/// Understands a policy.
pub fn view<'a>(
    policy: &BackendTlsPolicy,
    config_map: impl Fn(&Namespace, &str) -> Option<&'a ConfigMap>,
) -> PolicyView {
    let namespace = Namespace::new(policy.metadata.namespace.as_deref().unwrap_or("default"));
    let (mut notes, mut unresolved, mut refused) = (Vec::new(), Vec::new(), None);
    let targets = targets(policy, &namespace, &mut notes);
    let validation = &policy.spec.validation;
    let references = validation.ca_certificate_refs.as_deref().unwrap_or_default();
    let well_known = validation.well_known_ca_certificates.as_deref().filter(|text| !text.is_empty());
    let trust = match (references, well_known) {
        ([], Some(SYSTEM)) => BackendTrust::System,
        ([], Some(other)) => {
            let message = format!("{other:?} is not a set of authorities that is known");
            let remedy = "use System, or caCertificateRefs";
            refuse(&mut refused, "spec.validation.wellKnownCACertificates", Reason::Invalid, message, remedy)
        }
        ([], None) => {
            let message = "neither caCertificateRefs nor wellKnownCACertificates says whom to trust".to_owned();
            refuse(&mut refused, "spec.validation", Reason::Invalid, message, "give one of the two")
        }
        (_, Some(_)) => {
            let message = "both caCertificateRefs and wellKnownCACertificates say whom to trust".to_owned();
            refuse(&mut refused, "spec.validation", Reason::Invalid, message, "give one of the two")
        }
        (references, None) => {
            let mut bundle = Vec::new();
            for (i, reference) in references.iter().enumerate() {
                let field = format!("spec.validation.caCertificateRefs[{i}]");
                match authorities(&namespace, &field, reference, &config_map) {
                    Ok(found) => {
                        bundle.extend(found);
                        bundle.push(b'\n');
                    }
                    Err(problem) => unresolved.push(problem),
                }
            }
            if bundle.is_empty() {
                let message = "none of the authorities can be had".to_owned();
                let remedy = "refer to a ConfigMap with certificates in its key ca.crt";
                let field = "spec.validation.caCertificateRefs";
                refuse(&mut refused, field, Reason::NoValidCaCertificate, message, remedy)
            } else {
                BackendTrust::Bundle(bundle)
            }
        }
    };
    let subject_alt_names = subject_alt_names(validation.subject_alt_names.as_deref(), &mut refused);
    if hostname(&validation.hostname).is_none() || validation.hostname.starts_with("*.") {
        let message = format!("{:?} is not a hostname", validation.hostname);
        refuse(&mut refused, "spec.validation.hostname", Reason::Invalid, message, "use a lower-case DNS name");
    }
    for key in policy.spec.options.iter().flatten().map(|(key, _)| key) {
        let message = format!("{key:?} is not an option that is known: it has no effect");
        notes.push(Problem::new("spec.options", Reason::Note, message, "remove it"));
    }
    let hostname = validation.hostname.clone();
    PolicyView { targets, hostname, subject_alt_names, trust, refused, unresolved, notes }
}

fn refuse(refused: &mut Option<Problem>, field: &str, reason: Reason, message: String, remedy: &str) -> BackendTrust {
    let problem = refused.get_or_insert_with(|| Problem::new(field, reason, message, remedy));
    BackendTrust::Invalid(problem.to_string())
}

fn targets(policy: &BackendTlsPolicy, namespace: &Namespace, notes: &mut Vec<Problem>) -> Vec<PolicyTarget> {
    let mut targets = Vec::new();
    for (i, target) in policy.spec.target_refs.iter().enumerate() {
        let field = format!("spec.targetRefs[{i}]");
        let is_service = target.group.is_empty() && target.kind == "Service" && !target.name.contains(':');
        if !is_service {
            let message = format!("a policy can't be for kind {:?} in group {:?}", target.kind, target.group);
            let remedy = "name a Service of the core group";
            notes.push(Problem::new(format!("{field}.kind"), Reason::InvalidKind, message, remedy));
            continue;
        }
        let section = target.section_name.as_deref().filter(|text| !text.is_empty()).map(SectionName::new);
        let service = ServiceKey::new(namespace.clone(), target.name.as_str());
        targets.push(PolicyTarget { field, service, section });
    }
    targets
}

fn authorities<'a>(
    namespace: &Namespace,
    field: &str,
    wanted: &BackendTlsPolicyValidationCaCertificateRefs,
    config_map: &impl Fn(&Namespace, &str) -> Option<&'a ConfigMap>,
) -> Result<Vec<u8>, Problem> {
    if !wanted.group.is_empty() || wanted.kind != "ConfigMap" {
        let message =
            format!("certificates of authorities can't be of kind {:?} in group {:?}", wanted.kind, wanted.group);
        let remedy = "refer to a ConfigMap of the core group";
        return Err(Problem::new(format!("{field}.kind"), Reason::InvalidKind, message, remedy));
    }
    let name = format!("ConfigMap {namespace}/{}", wanted.name);
    let invalid = |message: String, remedy: &str| {
        Problem::new(format!("{field}.name"), Reason::InvalidCaCertificateRef, message, remedy)
    };
    let Some(found) = config_map(namespace, &wanted.name) else {
        return Err(invalid(format!("{name} does not exist"), "create it, or correct the name"));
    };
    let remedy = "put one or more certificates, as PEM, into its key ca.crt";
    trust::authorities(found).map_err(|why| invalid(format!("{name}: {why}"), remedy))
}

/// One that can't be read must not be left out: with none left, the hostname would count instead.
fn subject_alt_names(
    wanted: Option<&[BackendTlsPolicyValidationSubjectAltNames]>,
    refused: &mut Option<Problem>,
) -> Vec<SubjectAltName> {
    let mut names = Vec::new();
    for (i, name) in wanted.unwrap_or_default().iter().enumerate() {
        let field = format!("spec.validation.subjectAltNames[{i}]");
        let text = match name.r#type {
            SanType::Hostname => name.hostname.as_deref().unwrap_or_default(),
            SanType::Uri => name.uri.as_deref().unwrap_or_default(),
        };
        match name.r#type {
            SanType::Hostname if hostname(text).is_some() => names.push(SubjectAltName::Hostname(text.to_owned())),
            SanType::Hostname => {
                let message = format!("{text:?} is not a hostname");
                refuse(refused, &format!("{field}.hostname"), Reason::Invalid, message, "use a lower-case DNS name");
            }
            SanType::Uri if is_absolute_uri(text) => names.push(SubjectAltName::Uri(text.to_owned())),
            SanType::Uri => {
                let message = format!("{text:?} is not a whole URI");
                let remedy = "write scheme and the rest, as in spiffe://cluster.local/ns/shop/sa/cart";
                refuse(refused, &format!("{field}.uri"), Reason::Invalid, message, remedy);
            }
        }
    }
    names
}

/// A scheme and something behind it (RFC 3986, section 3).
fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let of_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(of_scheme)
        && !rest.trim_start_matches('/').is_empty()
        && !text.contains(char::is_whitespace)
}

impl PolicyView {
    /// TLS towards a Service port as the policy wants it.
    pub fn towards(&self, port: ServicePortKey) -> BackendTls {
        let trust = match &self.refused {
            Some(problem) => BackendTrust::Invalid(problem.to_string()),
            None => self.trust.clone(),
        };
        let (hostname, subject_alt_names) = (self.hostname.clone(), self.subject_alt_names.clone());
        BackendTls { port, hostname, subject_alt_names, trust }
    }

    /// All that is wrong with it, apart from its targets.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.refused.iter().chain(&self.unresolved).chain(&self.notes)
    }

    /// What is to be said of it at a Gateway; `outcomes` are those of the targets that the Gateway sends to.
    pub fn conditions(&self, outcomes: &[&Outcome]) -> Vec<Condition> {
        let lost: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Lost(problem) => Some(problem),
                Outcome::InForce => None,
            })
            .collect();
        let refused = |problem: &Problem, text: String| {
            Condition::new(ConditionType::Accepted, false, problem.reason.as_str(), text)
        };
        let accepted = match (lost.first(), &self.refused) {
            (Some(first), _) if lost.len() == outcomes.len() => refused(first, summary(lost.iter().copied())),
            (_, Some(problem)) => refused(problem, format!("{problem}. Nothing is sent to its targets")),
            _ => {
                let mut text = String::from("The policy is in force");
                for problem in lost.iter().copied().chain(&self.notes) {
                    text.push_str("; ");
                    text.push_str(&problem.to_string());
                }
                Condition::new(ConditionType::Accepted, true, "Accepted", text)
            }
        };
        let kind = ConditionType::ResolvedRefs;
        let resolved = match self.unresolved.first() {
            None => Condition::new(kind, true, "ResolvedRefs", "All references are resolved"),
            Some(first) => Condition::new(kind, false, first.reason.as_str(), summary(&self.unresolved)),
        };
        vec![accepted, resolved]
    }
}

/// The ports of a Service that a target means: those that connections go to.
pub fn ports<'a>(target: &'a PolicyTarget, service: &'a Service) -> impl Iterator<Item = ServicePortKey> + 'a {
    let carried = service.ports.iter().filter(|port| port.protocol != AppProtocol::Udp);
    let named = carried.filter(|port| target.section.as_ref().is_none_or(|section| port.name == *section));
    named.map(|port| ServicePortKey { service: target.service.clone(), port: port.port })
}
