//! An Ingress, host by host: what can be moved by itself.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};

use super::class::{Class, Controller};
use super::input::{Inputs, Key, key_of, label_of};
use super::path::PathType;
use super::report::{Level, Report};
use super::settings::{Entry, Settings, is_host};

/// A path of a host, and where it goes.
#[derive(Clone, Debug)]
pub struct PathItem {
    /// The field, as `spec.rules[0].http.paths[1]`.
    pub field: String,
    pub path: String,
    pub kind: PathType,
    pub backend: IngressBackend,
}

/// What an Ingress says of one host.
#[derive(Clone, Debug)]
pub struct Part {
    /// The Ingress as reports name it.
    pub label: String,
    pub namespace: String,
    /// The name of the Ingress.
    pub name: String,
    pub class: Class,
    /// The host; `None` is any that no other rule names.
    pub host: Option<String>,
    /// The host and its aliases; empty with any host.
    pub hostnames: Vec<String>,
    pub paths: Vec<PathItem>,
    /// The Secret of its certificate.
    pub certificate: Option<Key>,
    /// Whether the Ingress has several hosts.
    pub is_one_of_many: bool,
    /// Whether it isn't migrated, and only there so that nobody else serves its paths.
    pub withheld: bool,
    /// Whether requests were served with TLS only, with a certificate of the controller's own if it names none.
    pub wants_tls: bool,
    pub settings: Settings,
}

impl Part {
    /// Whether a certificate is missing without which requests would go in plaintext.
    pub fn lacks_certificate(&self) -> bool {
        self.wants_tls && !self.has_tls()
    }

    /// Listeners with TLS are there for it.
    pub fn has_tls(&self) -> bool {
        self.certificate.is_some() || self.settings.passthrough
    }

    /// Whether plaintext requests are redirected to HTTPS.
    pub fn redirects_to_tls(&self) -> bool {
        let redirect = self.settings.tls_redirect;
        let wanted = redirect.wanted.unwrap_or(self.class.controller.redirects_to_tls()) || redirect.forced;
        wanted && self.certificate.is_some() && self.settings.entry == Entry::Both
    }

    /// A name for an object of this part.
    pub fn object_name(&self, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.name);
        match &self.host {
            _ if !self.is_one_of_many => name,
            None => format!("{name}.any"),
            Some(host) => format!("{name}.{}", host.replace('*', "wildcard")),
        }
    }

    /// The host, for people and files.
    pub fn host_name(&self) -> String {
        self.host.as_ref().map_or_else(|| "any-host".to_owned(), |host| host.replace('*', "wildcard"))
    }
}

/// An Ingress with what its annotations ask for.
pub struct Read<'a> {
    pub ingress: &'a Ingress,
    pub class: Class,
    pub settings: Settings,
}

/// The parts of an Ingress.
pub fn parts(read: &Read<'_>, inputs: &Inputs, fallback: Option<&Key>, report: &mut Report) -> Vec<Part> {
    let label = label_of(read.ingress);
    let (namespace, name) = key_of(&read.ingress.metadata);
    let mut hosts = by_host(read.ingress);
    default_backend(read, &label, &mut hosts, report);
    hosts.retain(|host, _| {
        let Some(host) = host.as_ref().filter(|host| !is_host(host.strip_prefix("*.").unwrap_or(host))) else {
            return true;
        };
        let remedy = "use a DNS name, or one whose first label is *";
        report.say(Level::LeftOut, (&label, "spec.rules[].host", host), "is not a hostname", remedy);
        false
    });
    let many = hosts.len() > 1;
    let made = hosts.into_iter().map(|(host, paths)| {
        let aliases = || read.settings.aliases.iter().filter(|alias| Some(*alias) != host.as_ref()).cloned();
        let hostnames = host.iter().cloned().flat_map(|host| std::iter::once(host).chain(aliases())).collect();
        let wants_tls = wants_tls(read, host.as_deref());
        Part {
            label: label.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            class: read.class.clone(),
            certificate: certificate(read, host.as_deref(), inputs, fallback, report),
            host,
            hostnames,
            paths,
            is_one_of_many: many,
            withheld: false,
            wants_tls,
            settings: read.settings.clone(),
        }
    });
    made.collect()
}

/// Paths by host, hosts in the order of their names.
fn by_host(ingress: &Ingress) -> BTreeMap<Option<String>, Vec<PathItem>> {
    let mut hosts: BTreeMap<Option<String>, Vec<PathItem>> = BTreeMap::new();
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    for (i, rule) in rules.enumerate() {
        let host = rule.host.clone().filter(|host| !host.is_empty()).map(|host| host.to_ascii_lowercase());
        let items = hosts.entry(host).or_default();
        for (j, path) in rule.http.iter().flat_map(|http| http.paths.iter()).enumerate() {
            let field = format!("spec.rules[{i}].http.paths[{j}]");
            items.push(item(field, path));
        }
    }
    hosts
}

fn item(field: String, path: &HTTPIngressPath) -> PathItem {
    PathItem {
        field,
        path: path.path.clone().unwrap_or_default(),
        kind: PathType::of(&path.path_type),
        backend: path.backend.clone(),
    }
}

fn default_backend(
    read: &Read<'_>,
    label: &str,
    hosts: &mut BTreeMap<Option<String>, Vec<PathItem>>,
    report: &mut Report,
) {
    let Some(backend) = read.ingress.spec.as_ref().and_then(|spec| spec.default_backend.clone()) else { return };
    let field = "spec.defaultBackend";
    if hosts.is_empty() {
        report.say(Level::Translated, (label, field, ""), "a route of all hosts that no other has", "");
        hosts.insert(None, Vec::new());
    } else {
        let how = "a rule for / of each host; requests for other hosts get 404";
        report.say(
            Level::Differs,
            (label, field, ""),
            how,
            "write an HTTPRoute without hostnames if other hosts are asked for",
        );
    }
    for items in hosts.values_mut() {
        let has_root = items.iter().any(|item| item.kind != PathType::Exact && ["", "/"].contains(&item.path.as_str()));
        if !has_root {
            let (field, path, kind) = (field.to_owned(), "/".to_owned(), PathType::Prefix);
            items.push(PathItem { field, path, kind, backend: backend.clone() });
        }
    }
}

/// Whether a name of `spec.tls` covers a host.
fn covers(name: &str, host: &str) -> bool {
    let parent = |host: &str| host.split_once('.').map(|(_, parent)| parent.to_owned());
    name.eq_ignore_ascii_case(host)
        || name.strip_prefix("*.").is_some_and(|rest| parent(host).is_some_and(|of| of.eq_ignore_ascii_case(rest)))
}

/// Whether a host was served with TLS only: `spec.tls` has it, or the load balancer had a certificate.
fn wants_tls(read: &Read<'_>, host: Option<&str>) -> bool {
    let redirect = read.settings.tls_redirect;
    if read.class.controller == Controller::Alb && (redirect.forced || read.settings.balancer_certificate) {
        return true;
    }
    let mut all = read.ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
    let covered = all.any(|tls| {
        let names = tls.hosts.as_deref().unwrap_or_default();
        names.is_empty() || host.is_some_and(|host| names.iter().any(|name| covers(name, host)))
    });
    let plain = redirect.wanted == Some(false) && !redirect.forced;
    covered && !plain && read.settings.entry != Entry::Plain
}

/// The Secret of a host's certificate.
fn certificate(
    read: &Read<'_>,
    host: Option<&str>,
    inputs: &Inputs,
    fallback: Option<&Key>,
    report: &mut Report,
) -> Option<Key> {
    if read.settings.passthrough {
        return None;
    }
    let label = label_of(read.ingress);
    let (namespace, _) = key_of(&read.ingress.metadata);
    let all = || read.ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten()).enumerate();
    let exact = |names: &[String]| host.is_some_and(|host| names.iter().any(|name| name.eq_ignore_ascii_case(host)));
    let near =
        |names: &[String]| names.is_empty() || host.is_some_and(|host| names.iter().any(|name| covers(name, host)));
    let names = |tls: &k8s_openapi::api::networking::v1::IngressTLS| tls.hosts.clone().unwrap_or_default();
    let found = all().find(|(_, tls)| exact(&names(tls))).or_else(|| all().find(|(_, tls)| near(&names(tls))));
    let Some((i, tls)) = found else {
        return read.settings.default_certificate.then(|| fallback.cloned()).flatten();
    };
    let field = format!("spec.tls[{i}]");
    match tls.secret_name.clone().filter(|name| !name.is_empty()) {
        Some(name) => {
            if inputs.lacks_secret(&namespace, &name) {
                let why = format!("Secret {namespace}/{name} isn't there: the listener says so until it is");
                report.say(Level::Differs, (&label, &field, &name), why, "make it, or let cert-manager");
            } else {
                let how = "certificateRefs of a listener for each host";
                report.say(Level::Translated, (&label, &field, &name), how, "");
            }
            Some((namespace, name))
        }
        None if fallback.is_some() => {
            report.say(Level::Translated, (&label, &field, ""), "a listener with --default-certificate", "");
            fallback.cloned()
        }
        None => {
            let why = "names no Secret: the controller took a certificate of its own";
            report.say(Level::LeftOut, (&label, &field, ""), why, "name the Secret, or give --default-certificate");
            None
        }
    }
}

/// Names of `spec.tls` that no rule has: nothing is served there.
pub fn report_unused_tls(read: &Read<'_>, report: &mut Report) {
    let label = label_of(read.ingress);
    let hosts: Vec<_> = by_host(read.ingress).into_keys().collect();
    let of_any = hosts.contains(&None) || hosts.is_empty();
    for (i, tls) in read.ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten()).enumerate() {
        for (j, name) in tls.hosts.iter().flatten().enumerate() {
            let used = of_any || hosts.iter().flatten().any(|host| covers(name, host));
            if !used {
                let field = format!("spec.tls[{i}].hosts[{j}]");
                let why = "no rule is for it, so it gets no listener";
                report.say(Level::Unneeded, (&label, &field, name), why, "");
            }
        }
    }
}

/// Whether plain requests to a host without a certificate were to be redirected, and can't be.
pub fn report_missing_certificate(part: &Part, report: &mut Report) {
    if part.has_tls() {
        return;
    }
    let host = part.host_name();
    if part.settings.entry == Entry::Tls {
        let why = format!("{host} is served with TLS only, and has no certificate: it gets no route");
        report.say(
            Level::LeftOut,
            (&part.label, "spec.tls", ""),
            why,
            "name a Secret in spec.tls, or give --default-certificate",
        );
    } else if part.lacks_certificate() {
        let why = format!("{host} was served with TLS, and has no certificate here: it gets no route on port 80");
        let remedy = "name a Secret in spec.tls, or give --default-certificate";
        report.say(Level::LeftOut, (&part.label, "spec.tls", ""), why, remedy);
    } else if part.settings.tls_redirect.forced && part.class.controller != Controller::Alb {
        let why = format!("{host} has no certificate, so plaintext requests are not redirected to HTTPS");
        report.say(
            Level::LeftOut,
            (&part.label, "spec.tls", ""),
            why,
            "name a Secret in spec.tls, or redirect where TLS ends",
        );
    }
}
