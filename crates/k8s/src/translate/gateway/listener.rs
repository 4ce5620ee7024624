//! `listeners[]`, one by one.

use std::collections::BTreeMap;

use gateway_api::experimental::gateways::{
    GatewayListeners, GatewayListenersAllowedRoutesNamespaces, GatewayListenersAllowedRoutesNamespacesFrom as From,
    GatewayListenersTls, GatewayListenersTlsMode as Mode,
};
use weft_core::gateway::{Certificate, ListenerProtocol};
use weft_core::ids::{CertificateKey, Port, RouteKind, SectionName};
use weft_core::route::HostnameMatch;

use super::certificate::{Holder, certificate};
use super::{AllowedNamespaces, Http3, ListenerView, Lookup, Place, spec};
use crate::object::GATEWAY_GROUP;
use crate::translate::labels;
use crate::translate::route::hostname;
use crate::translate::{Problem, Reason, suggestion};

/// Protocols of the API that are served.
const PROTOCOLS: [&str; 5] = ["HTTP", "HTTPS", "TLS", "TCP", "UDP"];

/// Ports of the process itself in the pods of a Gateway: administration, probes and metrics, and taps.
pub const RESERVED_PORTS: [u16; 3] = [15000, 15021, weft_core::tap::PORT];

/// The kinds of route that a protocol can carry.
fn carried(protocol: &str) -> &'static [RouteKind] {
    match protocol {
        "HTTP" | "HTTPS" => &[RouteKind::Http, RouteKind::Grpc],
        "TLS" => &[RouteKind::Tls],
        "TCP" => &[RouteKind::Tcp],
        "UDP" => &[RouteKind::Udp],
        _ => &[],
    }
}

/// Understands a listener by itself. The certificates that it presents are added to `certificates`.
pub(super) fn listener(
    holder: Holder<'_>,
    index: usize,
    spec: &GatewayListeners,
    lookup: &dyn Lookup,
    certificates: &mut BTreeMap<CertificateKey, Certificate>,
) -> ListenerView {
    let field = format!("spec.listeners[{index}]");
    let (mut unresolved, mut wrong) = (Vec::new(), Vec::new());
    let port = u16::try_from(spec.port).ok().and_then(Port::new);
    if port.is_none() {
        let message = format!("{} is not a port", spec.port);
        wrong.push(Problem::value(format!("{field}.port"), message, "use 1 to 65535"));
    }
    if let Some(port) = port.filter(|port| is_reserved(*port, lookup)) {
        let message = format!("port {port} is that of the process that serves the Gateway");
        let problem = Problem::new(format!("{field}.port"), Reason::PortUnavailable, message, "use another port");
        wrong.push(problem);
    }
    let known = carried(&spec.protocol);
    if known.is_empty() {
        let message = format!("{:?} is not a protocol that is served", spec.protocol);
        let remedy = suggestion(&spec.protocol, &PROTOCOLS);
        wrong.insert(0, Problem::new(format!("{field}.protocol"), Reason::UnsupportedProtocol, message, remedy));
    }
    let hostname = listener_hostname(&field, spec, &mut wrong);
    let kinds = kinds(&field, spec, known, &mut unresolved);
    let allowed = spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let namespaces = namespaces(&format!("{field}.allowedRoutes.namespaces"), allowed, &mut wrong);
    let mut reading = Reading { holder, field: &field, lookup, certificates, wrong, unresolved };
    let serves = reading.protocol(spec);
    let Reading { wrong, unresolved, .. } = reading;
    ListenerView {
        set: holder.set.cloned(),
        namespace: holder.namespace().clone(),
        name: SectionName::new(&spec.name),
        port,
        protocol: spec.protocol.clone(),
        hostname,
        kinds,
        namespaces,
        serves,
        client_validation: None,
        http3: Http3::Off,
        policies: Vec::new(),
        overlaps: None,
        refused: wrong.into_iter().next(),
        conflict: None,
        unresolved,
        field,
    }
}

/// Whether the process that serves a Gateway has the port itself.
fn is_reserved(port: Port, lookup: &dyn Lookup) -> bool {
    lookup.settings().place == Place::Cluster && RESERVED_PORTS.contains(&port.get())
}

fn listener_hostname(field: &str, spec: &GatewayListeners, wrong: &mut Vec<Problem>) -> Option<HostnameMatch> {
    let text = spec.hostname.as_deref().filter(|text| !text.is_empty())?;
    if matches!(spec.protocol.as_str(), "TCP" | "UDP") {
        let message = format!("has no meaning with protocol {}, which has no names", spec.protocol);
        wrong.push(Problem::value(format!("{field}.hostname"), message, "remove it, or use protocol TLS"));
        return None;
    }
    let found = hostname(text);
    if found.is_none() {
        let message = format!("{text:?} is not a hostname");
        let remedy = "use a lower-case DNS name, or one whose first label is *; no port, no address";
        wrong.push(Problem::value(format!("{field}.hostname"), message, remedy));
    }
    found
}

/// What is left of `allowedRoutes.kinds`: all that the protocol can carry if it says nothing.
fn kinds(
    field: &str,
    spec: &GatewayListeners,
    known: &'static [RouteKind],
    unresolved: &mut Vec<Problem>,
) -> Vec<RouteKind> {
    let listed = spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    if listed.is_empty() {
        return known.to_vec();
    }
    let mut kinds = Vec::new();
    for (i, wanted) in listed.iter().enumerate() {
        let ours = wanted.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP);
        match known.iter().find(|kind| ours && kind.as_str() == wanted.kind) {
            Some(kind) if !kinds.contains(kind) => kinds.push(*kind),
            Some(_) => {}
            None => {
                let field = format!("{field}.allowedRoutes.kinds[{i}]");
                let message = format!("{:?} is not a kind of route that {} can carry", wanted.kind, spec.protocol);
                let names: Vec<_> = known.iter().map(|kind| kind.as_str()).collect();
                let remedy = format!("kinds that it can: {}", names.join(", "));
                unresolved.push(Problem::new(field, Reason::InvalidRouteKinds, message, remedy));
            }
        }
    }
    kinds
}

fn namespaces(
    field: &str,
    wanted: Option<&GatewayListenersAllowedRoutesNamespaces>,
    wrong: &mut Vec<Problem>,
) -> AllowedNamespaces {
    let Some(wanted) = wanted else { return AllowedNamespaces::Same };
    match wanted.from.as_ref().unwrap_or(&From::Same) {
        From::Same => AllowedNamespaces::Same,
        From::All => AllowedNamespaces::All,
        From::Selector => {
            let Some(selector) = &wanted.selector else {
                let message = "is missing, with from: Selector";
                wrong.push(Problem::value(format!("{field}.selector"), message, "add it, or use from: All"));
                return AllowedNamespaces::None;
            };
            let selector = spec::selector_of_routes(selector);
            match labels::check(&format!("{field}.selector"), &selector) {
                None => AllowedNamespaces::Selector(Box::new(selector)),
                Some(problem) => {
                    wrong.push(problem);
                    AllowedNamespaces::None
                }
            }
        }
    }
}

/// The state of understanding what a listener serves.
struct Reading<'a> {
    holder: Holder<'a>,
    field: &'a str,
    lookup: &'a dyn Lookup,
    certificates: &'a mut BTreeMap<CertificateKey, Certificate>,
    wrong: Vec<Problem>,
    unresolved: Vec<Problem>,
}

impl Reading<'_> {
    /// What is served, if it can be.
    fn protocol(&mut self, spec: &GatewayListeners) -> Option<ListenerProtocol> {
        let mode = spec.tls.as_ref().and_then(|tls| tls.mode.as_ref());
        match (spec.protocol.as_str(), &spec.tls) {
            ("HTTP" | "TCP" | "UDP", Some(_)) => {
                // To leave it out would be to send in the clear what was to be encrypted.
                let message = format!("has no meaning with protocol {}", spec.protocol);
                self.refuse(".tls", message, "use protocol HTTPS or TLS, or remove it")
            }
            ("HTTP", None) => Some(ListenerProtocol::Http),
            ("TCP", None) => Some(ListenerProtocol::Tcp),
            ("UDP", None) => Some(ListenerProtocol::Udp),
            ("HTTPS", _) if mode == Some(&Mode::Passthrough) => {
                let message = "Passthrough can't be with protocol HTTPS: requests could not be seen".to_owned();
                self.refuse(".tls.mode", message, "use protocol TLS, or mode Terminate")
            }
            ("HTTPS", tls) => {
                let certificates = self.present(tls.as_ref())?;
                Some(ListenerProtocol::Https { certificates })
            }
            ("TLS", tls) => match mode {
                Some(Mode::Passthrough) => Some(ListenerProtocol::TlsPassthrough),
                Some(Mode::Terminate) => {
                    let certificates = self.present(tls.as_ref())?;
                    Some(ListenerProtocol::TlsTerminate { certificates })
                }
                None => self.refuse(".tls.mode", "is missing".to_owned(), "use Terminate or Passthrough"),
            },
            _ => None,
        }
    }

    fn refuse(&mut self, part: &str, message: String, remedy: &str) -> Option<ListenerProtocol> {
        self.wrong.push(Problem::value(format!("{}{part}", self.field), message, remedy));
        None
    }

    /// The certificates that can be presented: those that are there, so that one that isn't costs only its own hosts.
    fn present(&mut self, tls: Option<&GatewayListenersTls>) -> Option<Vec<CertificateKey>> {
        let wanted = tls.and_then(|tls| tls.certificate_refs.as_deref()).unwrap_or_default();
        let field = format!("{}.tls.certificateRefs", self.field);
        if wanted.is_empty() {
            let message = "a listener that ends TLS needs a certificate";
            let remedy = "refer to a Secret of type kubernetes.io/tls";
            self.unresolved.push(Problem::new(field, Reason::InvalidCertificateRef, message, remedy));
            return None;
        }
        let mut keys = Vec::new();
        for (i, reference) in wanted.iter().enumerate() {
            let (field, invalid) = (format!("{field}[{i}]"), Reason::InvalidCertificateRef);
            match certificate(self.holder, &field, reference.into(), invalid, self.lookup) {
                Ok(found) => {
                    keys.push(found.key.clone());
                    self.certificates.insert(found.key.clone(), found);
                }
                Err(problem) => self.unresolved.push(problem),
            }
        }
        (!keys.is_empty()).then_some(keys)
    }
}
