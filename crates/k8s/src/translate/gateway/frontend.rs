//! `spec.tls.frontend`: what is asked of clients' certificates (GEP-91).
//!
//! It is the Gateway's word for all HTTPS listeners of a port, those of ListenerSets too. What can't be had costs these
//! listeners only, and lets nobody in.

use gateway_api::experimental::gateways::{
    GatewayTlsFrontendDefaultValidation, GatewayTlsFrontendDefaultValidationMode as Mode,
    GatewayTlsFrontendPerPortTlsValidation, GatewayTlsFrontendPerPortTlsValidationMode as PortMode,
};
use weft_core::gateway::{ClientValidation, ClientValidationMode};
use weft_core::ids::{GatewayKey, Namespace, Port};

use super::certificate::Holder;
use super::{ListenerView, Lookup, trust};
use crate::object::Gateway;
use crate::translate::{Problem, Reason};

/// What a Gateway asks of its clients.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    default: Asked,
    per_port: Vec<(Port, Asked)>,
}

/// What is asked on one port.
#[derive(Debug, Default)]
struct Asked {
    validation: Option<ClientValidation>,
    unresolved: Vec<Problem>,
    refused: Option<Problem>,
}

/// A reference to a ConfigMap (`ObjectReference`).
struct Reference<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl Frontend {
    /// Reads what a Gateway asks.
    pub(super) fn of(gateway: &Gateway, key: &GatewayKey, lookup: &dyn Lookup) -> Self {
        let Some(spec) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else {
            return Self::default();
        };
        let field = "spec.tls.frontend.default.validation";
        let default = spec.default.validation.as_ref().map(|it| of_default(it, field, key, lookup));
        let per_port = spec.per_port.iter().flatten().enumerate().filter_map(|(i, it)| {
            let field = format!("spec.tls.frontend.perPort[{i}].tls.validation");
            let port = u16::try_from(it.port).ok().and_then(Port::new)?;
            // A port with an entry is not under the default, whatever is in the entry.
            let asked = it.tls.validation.as_ref().map(|it| of_port(it, &field, key, lookup));
            Some((port, asked.unwrap_or_default()))
        });
        Self { default: default.unwrap_or_default(), per_port: per_port.collect() }
    }

    /// Whether clients without a valid certificate are let through on some port.
    pub(super) fn is_insecure(&self) -> bool {
        let insecure = |asked: &Asked| {
            asked.validation.as_ref().is_some_and(|it| it.mode == ClientValidationMode::AllowInsecureFallback)
        };
        insecure(&self.default) || self.per_port.iter().any(|(_, asked)| insecure(asked))
    }

    /// Asks it of the clients of a listener, if that is one for HTTPS.
    pub(super) fn apply(&self, gateway: &GatewayKey, listener: &mut ListenerView) {
        if listener.protocol != "HTTPS" {
            return;
        }
        let of_port = self.per_port.iter().find(|(port, _)| Some(*port) == listener.port);
        let asked = of_port.map_or(&self.default, |(_, asked)| asked);
        let at_gateway = |problem: &Problem| {
            let mut problem = problem.clone();
            if listener.set.is_some() {
                // The field is not one of the ListenerSet's.
                problem.field = format!("Gateway {gateway}: {}", problem.field);
            }
            problem
        };
        listener.client_validation.clone_from(&asked.validation);
        listener.unresolved.extend(asked.unresolved.iter().map(at_gateway));
        if listener.refused.is_none() {
            listener.refused = asked.refused.as_ref().map(at_gateway);
        }
    }
}

fn of_default(it: &GatewayTlsFrontendDefaultValidation, field: &str, key: &GatewayKey, lookup: &dyn Lookup) -> Asked {
    let references = it.ca_certificate_refs.iter().map(|it| Reference {
        group: &it.group,
        kind: &it.kind,
        namespace: it.namespace.as_deref(),
        name: &it.name,
    });
    let mode = match it.mode {
        Some(Mode::AllowInsecureFallback) => ClientValidationMode::AllowInsecureFallback,
        Some(Mode::AllowValidOnly) | None => ClientValidationMode::AllowValidOnly,
    };
    asked(references, mode, field, key, lookup)
}

fn of_port(it: &GatewayTlsFrontendPerPortTlsValidation, field: &str, key: &GatewayKey, lookup: &dyn Lookup) -> Asked {
    let references = it.ca_certificate_refs.iter().map(|it| Reference {
        group: &it.group,
        kind: &it.kind,
        namespace: it.namespace.as_deref(),
        name: &it.name,
    });
    let mode = match it.mode {
        Some(PortMode::AllowInsecureFallback) => ClientValidationMode::AllowInsecureFallback,
        Some(PortMode::AllowValidOnly) | None => ClientValidationMode::AllowValidOnly,
    };
    asked(references, mode, field, key, lookup)
}

fn asked<'a>(
    references: impl Iterator<Item = Reference<'a>>,
    mode: ClientValidationMode,
    field: &str,
    key: &GatewayKey,
    lookup: &dyn Lookup,
) -> Asked {
    let (mut ca, mut unresolved) = (Vec::new(), Vec::new());
    for (i, reference) in references.enumerate() {
        match bundle(&reference, &format!("{field}.caCertificateRefs[{i}]"), key, lookup) {
            Ok(found) => {
                ca.extend(found);
                ca.push(b'\n');
            }
            Err(problem) => unresolved.push(problem),
        }
    }
    if ca.is_empty() {
        let message = "no authority that clients' certificates could come from can be had, so nobody may be let in";
        let remedy = "refer to a ConfigMap with certificates in its key ca.crt";
        let refused = Problem::new(format!("{field}.caCertificateRefs"), Reason::NoValidCaCertificate, message, remedy);
        return Asked { validation: None, unresolved, refused: Some(refused) };
    }
    Asked { validation: Some(ClientValidation { ca, mode }), unresolved, refused: None }
}

fn bundle(wanted: &Reference<'_>, field: &str, key: &GatewayKey, lookup: &dyn Lookup) -> Result<Vec<u8>, Problem> {
    if !wanted.group.is_empty() || wanted.kind != "ConfigMap" {
        let message =
            format!("certificates of authorities can't be of kind {:?} in group {:?}", wanted.kind, wanted.group);
        let remedy = "refer to a ConfigMap of the core group";
        return Err(Problem::new(format!("{field}.kind"), Reason::InvalidCaCertificateKind, message, remedy));
    }
    let namespace = wanted.namespace.map_or_else(|| key.namespace.clone(), Namespace::from);
    Holder::gateway(key).may_refer(field, ("ConfigMap", &namespace, wanted.name), lookup)?;
    let invalid = |message: String, remedy: &str| {
        Problem::new(format!("{field}.name"), Reason::InvalidCaCertificateRef, message, remedy)
    };
    let name = format!("ConfigMap {namespace}/{}", wanted.name);
    let Some(config_map) = lookup.config_map(&namespace, wanted.name) else {
        return Err(invalid(format!("{name} does not exist"), "create it, or correct the name"));
    };
    let remedy = "put one or more certificates, as PEM, into its key ca.crt";
    trust::authorities(config_map).map_err(|why| invalid(format!("{name}: {why}"), remedy))
}
