//! Which Gateways there are.
//!
//! A host is moved by its DNS record, so everything about a host has to be behind one address: a Gateway has all namespaces
//! that share a host. Beyond that a Gateway stays in the namespace of its Ingresses, where its certificates are, as
//! cert-manager wants it and as no ReferenceGrant is needed for. Who wants one address for all names a namespace for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::input::Key;
use super::parts::Part;
use super::settings::Entry;

/// Listeners of one Gateway, by the Gateway API.
const MOST_LISTENERS: usize = 64;
/// Its listener without TLS.
pub const HTTP: &str = "http";

/// A Gateway to be.
#[derive(Clone, Debug, Default)]
pub struct Site {
    pub namespace: String,
    pub name: String,
    pub listeners: BTreeMap<String, Listener>,
    /// Namespaces of the routes.
    pub namespaces: BTreeSet<String>,
    pub annotations: BTreeMap<String, String>,
}

/// A listener to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub hostname: Option<String>,
    pub kind: ListenerKind,
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    Http,
    /// With the certificate of a Secret.
    Https(Key),
    Passthrough,
}

/// The name of the listener with TLS for a host.
pub fn tls_section(hostname: Option<&str>) -> String {
    match hostname {
        None => "https".to_owned(),
        Some(host) => format!("https-{}", host.replace('*', "wildcard")),
    }
}

/// The namespaces that share hosts, class by class: the number of its group for each part.
fn groups(parts: &[Part], together: bool) -> Vec<usize> {
    let mut group: Vec<usize> = (0..parts.len()).collect();
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (i, part) in parts.iter().enumerate() {
        let class = &part.class.name;
        let host = |host: &str| (class.clone(), format!("host {host}"));
        // What is refused has to be so where others would serve it.
        let others = parts.iter().filter(|other| part.withheld && other.stands_in_for(part));
        let mut keys = Vec::new();
        for of in others.chain([part]) {
            keys.extend(of.hostnames.iter().map(|name| host(name)));
            if of.hostnames.is_empty() {
                keys.push(host(""));
            }
        }
        keys.push((class.clone(), if together { "all".to_owned() } else { format!("namespace {}", part.namespace) }));
        for key in keys {
            let Some(other) = seen.get(&key).and_then(|j| group.get(*j)).copied() else {
                seen.insert(key, i);
                continue;
            };
            let own = group.get(i).copied().unwrap_or(i);
            let (low, high) = (own.min(other), own.max(other));
            group.iter_mut().filter(|it| **it == high).for_each(|it| *it = low);
        }
    }
    group
}

/// The Gateways, and for each part which one it is at.
pub fn sites(parts: &[Part], namespace: Option<&str>) -> (Vec<Site>, Vec<usize>) {
    let groups = groups(parts, namespace.is_some());
    let mut sites: Vec<Site> = Vec::new();
    let mut of_part = Vec::with_capacity(parts.len());
    // Of a group the Gateways, of which a host is at one.
    let mut of_group: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut of_host: BTreeMap<(usize, String), usize> = BTreeMap::new();
    for (part, group) in parts.iter().zip(&groups) {
        let members = || parts.iter().zip(&groups).filter(|(_, of)| *of == group).map(|(part, _)| part);
        let mut hosts: Vec<String> = part.hostnames.clone();
        if hosts.is_empty() {
            hosts.push(String::new());
        }
        let placed = hosts.iter().find_map(|host| of_host.get(&(*group, host.clone())).copied());
        let room = |site: &Site| site.listeners.len() + 2 * hosts.len() < MOST_LISTENERS;
        let last = of_group.get(group).and_then(|all| all.last()).copied();
        let with_room = last.filter(|last| sites.get(*last).is_some_and(room));
        let at = placed.or(with_room).unwrap_or_else(|| {
            let number = of_group.get(group).map_or(0, Vec::len);
            let base = dns_label(&part.class.name);
            let name = if number == 0 { base } else { format!("{base}-{}", number + 1) };
            // Where a certificate is, if there is one.
            let of_tls = members().find_map(|part| part.certificate.as_ref().map(|(of, _)| of.clone()));
            let first = || members().map(|part| part.namespace.clone()).min().unwrap_or_default();
            let namespace = namespace.map(str::to_owned).or(of_tls).unwrap_or_else(first);
            sites.push(Site { namespace, name, ..Site::default() });
            of_group.entry(*group).or_default().push(sites.len() - 1);
            sites.len() - 1
        });
        hosts.into_iter().for_each(|host| {
            of_host.insert((*group, host), at);
        });
        if let Some(site) = sites.get_mut(at) {
            site.add(part);
        }
        of_part.push(at);
    }
    (sites, of_part)
}

/// A class's name as one of an object may be.
fn dns_label(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().map(legal).take(40).collect();
    let text = text.trim_matches('-');
    if text.is_empty() { "ingress".to_owned() } else { text.to_owned() }
}

impl Site {
    fn add(&mut self, part: &Part) {
        self.namespaces.insert(part.namespace.clone());
        if part.doors().0 {
            self.listeners.insert(HTTP.to_owned(), Listener { hostname: None, kind: ListenerKind::Http });
        }
        for hostname in part.tls_hostnames() {
            let kind = match &part.certificate {
                _ if part.settings.passthrough => ListenerKind::Passthrough,
                Some(secret) => ListenerKind::Https(secret.clone()),
                None => continue,
            };
            self.listeners.entry(tls_section(hostname.as_deref())).or_insert(Listener { hostname, kind });
        }
    }

    /// As a Gateway of a class.
    pub fn gateway(&self, class: &str) -> Value {
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(self.name));
        metadata.insert("namespace".to_owned(), json!(self.namespace));
        if !self.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), json!(self.annotations));
        }
        let listeners: Vec<_> = self.listeners.iter().map(|(name, listener)| self.listener(name, listener)).collect();
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": metadata,
            "spec": { "gatewayClassName": class, "listeners": listeners },
        })
    }

    fn listener(&self, name: &str, listener: &Listener) -> Value {
        let mut made = Map::new();
        let mut set = |field: &str, value: Value| {
            made.insert(field.to_owned(), value);
        };
        set("name", json!(name));
        set("port", json!(if listener.kind == ListenerKind::Http { 80 } else { 443 }));
        set(
            "protocol",
            json!(match listener.kind {
                ListenerKind::Http => "HTTP",
                ListenerKind::Https(_) => "HTTPS",
                ListenerKind::Passthrough => "TLS",
            }),
        );
        if let Some(hostname) = &listener.hostname {
            set("hostname", json!(hostname));
        }
        match &listener.kind {
            ListenerKind::Http => {}
            ListenerKind::Passthrough => set("tls", json!({ "mode": "Passthrough" })),
            ListenerKind::Https((of, name)) if *of == self.namespace => {
                set("tls", json!({ "certificateRefs": [{ "name": name }] }));
            }
            ListenerKind::Https((of, name)) => {
                set("tls", json!({ "certificateRefs": [{ "name": name, "namespace": of }] }));
            }
        }
        if self.namespaces.iter().any(|namespace| *namespace != self.namespace) {
            let among = json!([{ "key": "kubernetes.io/metadata.name", "operator": "In", "values": self.namespaces }]);
            set(
                "allowedRoutes",
                json!({ "namespaces": { "from": "Selector", "selector": { "matchExpressions": among } } }),
            );
        }
        Value::Object(made)
    }

    /// Secrets of other namespaces, by namespace.
    pub fn foreign_secrets(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut foreign: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for listener in self.listeners.values() {
            if let ListenerKind::Https((of, name)) = &listener.kind
                && *of != self.namespace
            {
                foreign.entry(of.clone()).or_default().insert(name.clone());
            }
        }
        foreign
    }

    /// Whether a part's listener has the certificate that the part asks for.
    pub fn has_certificate_of(&self, part: &Part) -> bool {
        let Some(secret) = &part.certificate else { return true };
        part.tls_hostnames().iter().all(|hostname| {
            let listener = self.listeners.get(&tls_section(hostname.as_deref()));
            listener.is_some_and(|listener| listener.kind == ListenerKind::Https(secret.clone()))
        })
    }
}

impl Part {
    /// The other host of a redirect from or to `www.`.
    pub fn www_host(&self) -> Option<String> {
        let host = self.host.as_ref().filter(|host| self.settings.www && !host.starts_with('*'))?;
        Some(host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned))
    }

    /// Hostnames of its listeners with TLS; `None` is any.
    pub fn tls_hostnames(&self) -> Vec<Option<String>> {
        if !self.has_tls() || self.settings.entry == Entry::Plain {
            return Vec::new();
        }
        if self.hostnames.is_empty() {
            return vec![None];
        }
        self.hostnames.iter().cloned().chain(self.www_host()).map(Some).collect()
    }

    /// Whether requests for its hosts come in without TLS, and whether with it.
    pub fn doors(&self) -> (bool, bool) {
        let settings = &self.settings;
        let closed = settings.entry == Entry::Tls || settings.passthrough || self.lacks_certificate();
        (!closed, !self.tls_hostnames().is_empty())
    }

    /// The listeners that its routes are on.
    pub fn sections(&self) -> Vec<String> {
        let plain = self.doors().0 && !self.redirects_to_tls();
        let hostnames = self.tls_hostnames();
        let www = self.www_host();
        let own = hostnames.iter().filter(|name| name.is_none() || **name != www);
        let tls = own.map(|hostname| tls_section(hostname.as_deref()));
        plain.then(|| HTTP.to_owned()).into_iter().chain(tls).collect()
    }
}
