//! Ingresses in, Gateways and routes out. Pure: what was read is given, what is to be written comes back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::annotations::{Annotations, of_services_too};
use super::backends::{Backend, Destination, OfServices, destination};
use super::canaries::Canaries;
use super::class::{Class, Classes, Controller};
use super::input::{Inputs, Key, key_of, label_of};
use super::parts::{self, Part, PathItem, Read};
use super::policies::{self, BackendTls, Grants};
use super::report::{Level, Report};
use super::routes::{self, Context};
use super::settings::{self, Action, Settings};
use super::sites::{Site, sites};
use super::withheld;
use super::write::{Document, unique};

/// What the user wants.
#[derive(Clone, Debug)]
pub struct Options {
    /// The class of the Gateways.
    pub gateway_class: String,
    /// One namespace for all Gateways; `None`: those of the Ingresses.
    pub gateway_namespace: Option<String>,
    /// Only these hosts; empty: all.
    pub hosts: Vec<String>,
    /// Only Ingresses of these classes; empty: all.
    pub classes: Vec<String>,
    /// The Secret for hosts with TLS that name none.
    pub default_certificate: Option<Key>,
    /// Whether Ingresses whose protection can't be translated are migrated all the same.
    pub allow_unprotected: bool,
}

/// Everything for Gateways, in an order in which it can be applied.
const GATEWAYS: &str = "00-gateways.yaml";
/// Everything that has to be there before routes are.
const POLICIES: &str = "10-policies.yaml";

/// Translates; what was found on the way is in the report already.
pub fn translate(inputs: &Inputs, options: &Options, report: &mut Report) -> Vec<Document> {
    let (mut mains, canaries, services) = all_parts(inputs, options, report);
    let canaries = Canaries::of(&canaries);
    let context = Context { inputs, services: &services, canaries: &canaries, parts: &mains };
    let unsayable = withheld::unsayable(&context, report);
    withheld::settle(&mut mains, &unsayable, report);
    canaries.report_lonely(&mains, report);
    let (mut sites, of_part) = sites(&mains, options.gateway_namespace.as_deref());
    carry(&mains, &mut sites, &of_part, report);
    let context = Context { inputs, services: &services, canaries: &canaries, parts: &mains };
    let (mut tls, mut grants) = (BackendTls::default(), Grants::default());
    let mut beside: Vec<Value> = Vec::new();
    let mut routes: Vec<Document> = Vec::new();
    for (part, at) in mains.iter().zip(&of_part) {
        let Some(site) = sites.get(*at) else { continue };
        if !part.withheld {
            parts::report_missing_certificate(part, report);
        }
        if context.sections(part, site).is_empty() {
            continue;
        }
        let backends = backends_of(part, &context);
        let kind = if context.is_grpc_route(part) { "GRPCRoute" } else { "HTTPRoute" };
        permits((kind, part), &backends, &mut grants);
        tls.add(part, &backends, &services, report);
        beside.extend(authorization(part, site, &context, report));
        let file = format!("20-{}.yaml", part.host_name());
        let made = routes::routes(part, site, &context, report);
        routes.extend(made.into_iter().map(|object| Document { file: file.clone(), object }));
    }
    let used = sites.iter().filter(|site| !site.listeners.is_empty());
    for site in used.clone() {
        for (namespace, names) in site.foreign_secrets() {
            names.iter().for_each(|name| grants.permit(("Gateway", &site.namespace), "Secret", (&namespace, name)));
        }
    }
    let gateways = used.map(|site| site.gateway(&options.gateway_class)).chain(grants.documents());
    let beside = tls.documents().chain(beside);
    let first = gateways.map(|object| Document { file: GATEWAYS.to_owned(), object });
    let second = beside.map(|object| Document { file: POLICIES.to_owned(), object });
    routes.sort_by(|a, b| a.file.cmp(&b.file));
    let mut all: Vec<_> = first.chain(second).chain(routes).collect();
    unique(&mut all);
    report.made = all.iter().map(Document::label).collect();
    all
}

/// A certificate is a host's: Ingresses that name none for a host are served with that of another that does.
fn share_certificates(parts: &mut [Part], report: &mut Report) {
    let mut known: BTreeMap<(Class, Option<String>), (Key, String)> = BTreeMap::new();
    for part in parts.iter() {
        if let Some(key) = &part.certificate {
            let of = (key.clone(), part.label.clone());
            known.entry((part.class.clone(), part.host.clone())).or_insert(of);
        }
    }
    let alone = |part: &&mut Part| {
        // A router of Traefik's has TLS for itself.
        part.certificate.is_none() && !part.settings.passthrough && part.class.controller != Controller::Traefik
    };
    let asks = parts.iter().filter(|part| part.wants_tls);
    let asked: BTreeSet<_> = asks.map(|part| (part.class.clone(), part.host.clone())).collect();
    for part in parts.iter_mut().filter(alone) {
        let plain = part.settings.tls_redirect.wanted == Some(false);
        part.wants_tls |= !plain && asked.contains(&(part.class.clone(), part.host.clone()));
        if let Some((key, label)) = known.get(&(part.class.clone(), part.host.clone())) {
            let how = format!("{} has a certificate by {label}", part.host_name());
            if !part.withheld {
                report.say(Level::Translated, (&part.label, "TLS of the host", ""), how, "");
            }
            part.certificate = Some(key.clone());
        }
    }
}

/// The parts of Ingresses, those of canaries, and what Services say.
fn all_parts(inputs: &Inputs, options: &Options, report: &mut Report) -> (Vec<Part>, Vec<Part>, OfServices) {
    let (mut mains, mut canaries, mut services) = (Vec::new(), Vec::new(), OfServices::new());
    let classes = Classes::of(inputs);
    for ingress in &inputs.ingresses {
        let class = classes.of_ingress(ingress);
        if !options.classes.is_empty() && !options.classes.contains(&class.name) {
            continue;
        }
        let label = label_of(ingress);
        let (namespace, _) = key_of(&ingress.metadata);
        let wanted = |part: &Part| {
            options.hosts.is_empty() || part.host.as_ref().is_some_and(|host| options.hosts.contains(host))
        };
        // What is said of hosts that nobody asked for would only hide the rest.
        let mut said = Report::default();
        let annotations = Annotations::new(&label, &class, ingress.metadata.annotations.as_ref(), &mut said);
        let settings = settings::read(annotations, &namespace, inputs);
        let read = Read { ingress, class, settings };
        let all = parts::parts(&read, inputs, options.default_certificate.as_ref(), &mut said);
        parts::report_unused_tls(&read, &mut said);
        let chosen: Vec<Part> = all.into_iter().filter(wanted).collect();
        if chosen.is_empty() && !options.hosts.is_empty() {
            continue;
        }
        report.entries.extend(said.entries);
        let unprotected = of_services(&chosen, inputs, &mut services, report) || read.settings.unprotected;
        if unprotected && !options.allow_unprotected {
            let why = "not migrated, because what protects it is not translated";
            let remedy = "do what stands beside those settings, then use --allow-unprotected";
            report.say(Level::LeftOut, (&label, "the Ingress", ""), why, remedy);
            if read.settings.canary.is_none() {
                mains.extend(chosen.into_iter().map(Part::into_withheld));
            }
            continue;
        }
        if chosen.is_empty() {
            report.say(Level::Unneeded, (&label, "the Ingress", ""), "has neither rules nor a default backend", "");
        }
        if read.settings.canary.is_some() { &mut canaries } else { &mut mains }.extend(chosen);
    }
    share_certificates(&mut mains, report);
    (mains, canaries, services)
}

/// The Services that a path names, itself or by an action.
fn service_names<'a>(part: &'a Part, item: &'a PathItem) -> Vec<&'a str> {
    let Some(service) = &item.backend.service else { return Vec::new() };
    match part.settings.actions.get(&service.name) {
        Some(Action::Forward(targets)) => targets.iter().map(|(name, _, _)| name.as_str()).collect(),
        _ => vec![service.name.as_str()],
    }
}

/// Reads annotations of the Services behind an Ingress; whether something of theirs that protects was left out.
fn of_services(parts: &[Part], inputs: &Inputs, services: &mut OfServices, report: &mut Report) -> bool {
    let mut unprotected = false;
    for part in parts {
        for name in part.paths.iter().flat_map(|item| service_names(part, item)) {
            let key = (part.namespace.clone(), name.to_owned());
            let Some(object) = inputs.service(&key.0, &key.1) else { continue };
            let label = format!("Service {}/{}", key.0, key.1);
            let all = object.metadata.annotations.iter().flatten();
            let own = all.filter(|(name, _)| of_services_too(part.class.controller, name));
            let own: BTreeMap<_, _> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
            let annotations = Annotations::new(&label, &part.class, Some(&own), report);
            let settings: Settings = settings::read_service(annotations);
            unprotected |= settings.unprotected;
            if part.class.controller == Controller::Traefik {
                services.insert(key, settings);
            }
        }
    }
    unprotected
}

/// The backends of a part and of its canaries.
fn backends_of(part: &Part, context: &Context<'_>) -> BTreeSet<Backend> {
    let of = |part: &Part| {
        let found = part.paths.iter().filter_map(|item| destination(part, item, context.inputs).ok());
        let lists = found.map(|found| match found {
            Destination::Backends(backends) => backends,
            _ => Vec::new(),
        });
        lists.flatten().map(|backend| Backend { weight: None, ..backend }).collect::<BTreeSet<_>>()
    };
    let canaries = context.canaries.of_host(part);
    if part.settings.redirect.is_some() || part.settings.passthrough || part.withheld {
        return BTreeSet::new();
    }
    std::iter::once(part).chain(canaries).flat_map(of).collect()
}

fn permits((kind, part): (&str, &Part), backends: &BTreeSet<Backend>, grants: &mut Grants) {
    let from = (kind, part.namespace.as_str());
    for backend in backends {
        grants.permit(from, "Service", (&backend.namespace, &backend.name));
    }
    let asked = part.settings.auth.as_ref().map(|auth| &auth.service);
    for service in asked.into_iter().chain(&part.settings.mirror) {
        grants.permit(from, "Service", (&service.namespace, &service.name));
    }
}

fn authorization(part: &Part, site: &Site, context: &Context<'_>, report: &mut Report) -> Option<Value> {
    let plans: Vec<_> = context.plans(part, &mut Report::default()).into_iter().map(|(_, plan)| plan).collect();
    let shared = context.is_shared(part);
    let policy = policies::authorization(part, (&plans, shared), (site, context.parts))?;
    if part.settings.passthrough {
        let why = "hosts can't be seen in TLS that is passed through: the policy would hold for all of the Gateway";
        report.say(
            Level::LeftOut,
            (&part.label, "addresses of clients", ""),
            why,
            "filter in the application's network policy",
        );
        return None;
    }
    if shared {
        let how = "the policy is for the paths of this Ingress, also where another one of the host has longer ones below them";
        report.say(Level::Differs, (&part.label, "addresses of clients", ""), how, "add notPaths to its rules");
    }
    Some(policy)
}

/// Puts annotations for cert-manager on Gateways, and says what became of those and of external-dns's.
fn carry(parts: &[Part], sites: &mut [Site], of_part: &[usize], report: &mut Report) {
    for (part, at) in parts.iter().zip(of_part) {
        let Some(site) = sites.get_mut(*at) else { continue };
        let (own, same) = (site.namespace == part.namespace, site.has_certificate_of(part));
        if !same {
            let why =
                format!("the listener for {} has the certificate that another Ingress names for it", part.host_name());
            report.say(Level::Differs, (&part.label, "spec.tls", ""), why, "");
        }
        for (key, value) in &part.settings.carried {
            let at = (part.label.as_str(), key.as_str(), value.as_str());
            if key.starts_with("external-dns.") {
                let remedy = "external-dns makes a record for it as soon as its sources have gateway-httproute";
                report.say(Level::Kept, at, "on the routes", remedy);
                continue;
            }
            let is_issued = part.certificate.is_some();
            let taken = site.annotations.get(key).is_some_and(|other| other != value);
            match (own, is_issued, taken) {
                (true, true, false) => {
                    site.annotations.insert(key.clone(), value.clone());
                    let remedy = "cert-manager has to watch Gateways (config.enableGatewayAPI)";
                    report.say(Level::Kept, at, format!("on Gateway {}/{}", site.namespace, site.name), remedy);
                }
                (_, false, _) => {
                    let elsewhere = parts.iter().any(|it| it.label == part.label && it.certificate.is_some());
                    if !elsewhere {
                        report.say(Level::Unneeded, at, "there is no TLS here that it asks a certificate for", "");
                    }
                }
                (own, true, _) => {
                    let why = if own {
                        "another Ingress of the Gateway asks for something else"
                    } else {
                        "cert-manager makes certificates for Secrets of the Gateway's own namespace"
                    };
                    let (namespace, name) = part.certificate.clone().unwrap_or_default();
                    let remedy = format!("write a Certificate for Secret {namespace}/{name}");
                    report.say(Level::LeftOut, at, why, remedy);
                }
            }
        }
    }
}
