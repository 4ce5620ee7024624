//! XBackend -> a [`Service`](weft_core::service::Service) whose endpoints a Gateway's proxy resolves, and
//! [`BackendTls`](weft_core::gateway::BackendTls) (GEP-4152).
//!
//! What can't be done as it is asked for is not done at all: least of all is anything sent in the clear where TLS is wanted.

use gateway_api::backendtlspolicies::{BackendTlsPolicy, BackendTlsPolicySpec};
use k8s_openapi::api::core::v1::ConfigMap;
use weft_core::backend_kind::BackendKind;
use weft_core::gateway::{BackendTls, BackendTrust};
use weft_core::ids::{Namespace, Port, SectionName, ServiceKey, ServicePortKey};
use weft_core::service::{AppProtocol, Service, ServiceKind, ServicePort};

use super::route::hostname;
use super::{Problem, Reason, backend_tls, service};
use crate::object::{Condition, ConditionType, XBackend, XBackendTls};

/// An XBackend, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalView {
    /// What routes send to, unless it is refused.
    pub service: Option<Service>,
    /// How Gateways speak to it: TLS, or in the clear, which is said as well. Nothing is sent without.
    pub tls: Option<BackendTls>,
    /// Why nothing is sent to it.
    pub refused: Option<Problem>,
    /// What is worth knowing.
    pub notes: Vec<Problem>,
}

/// Understands an XBackend; `cluster_domain` is the DNS suffix of Services, whose names are none of it.
pub fn view<'a>(
    object: &XBackend,
    cluster_domain: &str,
    config_map: impl Fn(&Namespace, &str) -> Option<&'a ConfigMap>,
) -> ExternalView {
    let mut notes = Vec::new();
    match understand(object, cluster_domain, config_map, &mut notes) {
        Ok((service, tls, refused)) => ExternalView { service: Some(service), tls, refused, notes },
        Err(problem) => ExternalView { service: None, tls: None, refused: Some(problem), notes },
    }
}

type Understood = (Service, Option<BackendTls>, Option<Problem>);

fn understand<'a>(
    object: &XBackend,
    cluster_domain: &str,
    config_map: impl Fn(&Namespace, &str) -> Option<&'a ConfigMap>,
    notes: &mut Vec<Problem>,
) -> Result<Understood, Problem> {
    let spec = &object.spec;
    if spec.kind != "ExternalHostname" {
        let message = format!("{:?} is not a type that is known", spec.kind);
        return Err(Problem::value("spec.type", message, "use ExternalHostname"));
    }
    let host = spec.external_hostname.as_ref().map(|it| it.hostname.as_str()).unwrap_or_default();
    check_host(host, cluster_domain)?;
    let Some(port) = u16::try_from(spec.port.port).ok().and_then(Port::new) else {
        let message = format!("{} is not a port", spec.port.port);
        return Err(Problem::value("spec.port.port", message, "use 1 to 65535"));
    };
    // Endpoints are those of this very host and port: the ones of before are no one's.
    let name = SectionName::new(format!("{host}:{port}"));
    let protocol = protocol(spec.protocol.as_deref())?;
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let key =
        ServiceKey::of_kind(BackendKind::XBackend, namespace, object.metadata.name.as_deref().unwrap_or_default());
    let at = ServicePortKey { service: key.clone(), port };
    let (tls, refused) = match &spec.tls {
        Some(wanted) if wanted.mode != "None" => {
            let (tls, refused) = tls(object, wanted, at, config_map)?;
            (tls, refused)
        }
        _ => {
            let message = format!("what is sent to {host} is not encrypted");
            notes.push(Problem::new("spec.tls", Reason::Note, message, "give mode ServerOnly and validation"));
            let hostname = host.to_owned();
            (BackendTls { port: at, hostname, subject_alt_names: Vec::new(), trust: BackendTrust::Plain }, None)
        }
    };
    let tls = Some(tls);
    let bare = service::service(&k8s_openapi::api::core::v1::Service::default()).0;
    let (kind, ports) = (ServiceKind::ExternalName(host.to_owned()), vec![ServicePort { name, port, protocol }]);
    Ok((Service { key, kind, ports, ..bare }, tls, refused))
}

fn check_host(host: &str, cluster_domain: &str) -> Result<(), Problem> {
    let wrong = |message: String| {
        Err(Problem::value(
            "spec.externalHostname.hostname",
            message,
            "write the whole lower-case DNS name of a host outside",
        ))
    };
    let labels: Vec<_> = host.split('.').collect();
    let is_number = labels.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if hostname(host).is_none() || host.starts_with("*.") || is_number || labels.len() < 2 {
        return wrong(format!("{host:?} is not the DNS name of a host"));
    }
    let of_cluster = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    if ["cluster.local", "localhost", cluster_domain].into_iter().any(of_cluster) {
        return wrong(format!("{host:?} is not outside of the cluster"));
    }
    Ok(())
}

fn protocol(wanted: Option<&str>) -> Result<AppProtocol, Problem> {
    Ok(match wanted {
        None | Some("HTTP") => AppProtocol::Http,
        // What the data plane calls HTTP/1.1 to the endpoint, whatever the client speaks.
        Some("HTTP11") => AppProtocol::WebSocket,
        Some("HTTP2" | "H2C") => AppProtocol::H2c,
        Some("GRPC") => AppProtocol::Grpc,
        Some("TCP") => AppProtocol::Tcp,
        Some(other) => {
            let message = format!("{other:?} is not a protocol that is supported");
            return Err(Problem::value("spec.protocol", message, "use HTTP, HTTP11, HTTP2, H2C, GRPC or TCP"));
        }
    })
}

/// The validation is that of a BackendTLSPolicy, and is understood as one.
fn tls<'a>(
    object: &XBackend,
    wanted: &XBackendTls,
    at: ServicePortKey,
    config_map: impl Fn(&Namespace, &str) -> Option<&'a ConfigMap>,
) -> Result<(BackendTls, Option<Problem>), Problem> {
    if wanted.mode != "ServerOnly" || wanted.client_certificate_ref.is_some() {
        let message = format!("{:?} is not a mode that is supported", wanted.mode);
        let remedy =
            "use None, or ServerOnly without clientCertificateRef: what a Gateway presents is its spec.tls.backend";
        return Err(Problem::value("spec.tls.mode", message, remedy));
    }
    let validation = wanted.validation.clone().unwrap_or_default();
    let validation = serde_json::from_value(validation).map_err(|wrong| {
        Problem::value(
            "spec.tls.validation",
            format!("can't be read: {wrong}"),
            "give hostname, and whose certificates are taken",
        )
    })?;
    let spec = BackendTlsPolicySpec { options: None, target_refs: Vec::new(), validation };
    let policy = BackendTlsPolicy { metadata: object.metadata.clone(), spec, status: None };
    let view = backend_tls::view(&policy, config_map);
    let refused = view.problems().find(|it| it.reason != Reason::Note).cloned();
    let refused = refused.map(|it| Problem { field: it.field.replacen("spec.", "spec.tls.", 1), ..it });
    Ok((view.towards(at), refused))
}

impl ExternalView {
    /// What is said of it at a Gateway.
    pub fn conditions(&self) -> Vec<Condition> {
        let condition = match &self.refused {
            Some(problem) => {
                let text = format!("{problem}. Nothing is sent to it");
                Condition::new(ConditionType::Accepted, false, problem.reason.as_str(), text)
            }
            None => {
                let notes = self.notes.iter().map(|note| format!("; {note}")).collect::<String>();
                Condition::new(ConditionType::Accepted, true, "Accepted", format!("The backend is understood{notes}"))
            }
        };
        vec![condition]
    }

    /// All that is to be said of it.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.refused.iter().chain(&self.notes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(spec: Value) -> ExternalView {
        let object = json!({ "metadata": { "name": "api", "namespace": "shop" }, "spec": spec });
        view(&serde_json::from_value(object).unwrap(), "mesh.example", |_, _| None)
    }

    fn host(name: &str, more: Value) -> Value {
        let mut spec =
            json!({ "type": "ExternalHostname", "port": { "port": 443 }, "externalHostname": { "hostname": name } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    #[test]
    fn a_host_is_a_service_that_is_resolved_elsewhere() {
        let tls = json!({ "tls": { "mode": "ServerOnly",
            "validation": { "hostname": "sni.example.com", "wellKnownCACertificates": "System" } } });
        let found = made(host("api.example.com", tls));
        let service = found.service.clone().unwrap();
        assert_eq!(service.kind, ServiceKind::ExternalName("api.example.com".to_owned()));
        assert_eq!((service.key.described().as_str(), service.ports[0].port.get()), ("XBackend shop/api", 443));
        // Else endpoints of another port, or another host, would count for a moment.
        assert_eq!(service.ports[0].name.as_str(), "api.example.com:443");
        let tls = found.tls.clone().unwrap();
        assert_eq!(
            (tls.hostname.as_str(), tls.trust, tls.port.service),
            ("sni.example.com", BackendTrust::System, service.key)
        );
        assert!(found.refused.is_none() && found.notes.is_empty());
        let plain = made(host("api.example.com", json!({})));
        let tls = plain.tls.as_ref().unwrap();
        assert_eq!((tls.hostname.as_str(), &tls.trust), ("api.example.com", &BackendTrust::Plain));
        assert!(plain.notes[0].message.contains("not encrypted"), "{plain:?}");
        assert!(plain.conditions()[0].status && plain.conditions()[0].message.contains("not encrypted"));
    }

    #[test]
    fn protocols_are_what_they_are_to_endpoints() {
        for (protocol, expected) in [
            ("HTTP", AppProtocol::Http),
            ("HTTP11", AppProtocol::WebSocket),
            ("HTTP2", AppProtocol::H2c),
            ("H2C", AppProtocol::H2c),
            ("GRPC", AppProtocol::Grpc),
            ("TCP", AppProtocol::Tcp),
        ] {
            let found = made(host("api.example.com", json!({ "protocol": protocol })));
            assert_eq!(found.service.unwrap().ports[0].protocol, expected, "{protocol}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_field_and_sends_nothing() {
        for (spec, field) in [
            (host("api", json!({})), "spec.externalHostname.hostname"),
            (host("192.0.2.1", json!({})), "spec.externalHostname.hostname"),
            (host("*.example.com", json!({})), "spec.externalHostname.hostname"),
            (host("cart.shop.svc.cluster.local", json!({})), "spec.externalHostname.hostname"),
            (host("cart.shop.svc.mesh.example", json!({})), "spec.externalHostname.hostname"),
            (host("a.localhost", json!({})), "spec.externalHostname.hostname"),
            (host("cluster.local", json!({})), "spec.externalHostname.hostname"),
            (host("mesh.example", json!({})), "spec.externalHostname.hostname"),
            (host("a.com", json!({ "type": "Other" })), "spec.type"),
            (host("a.com", json!({ "port": { "port": 0 } })), "spec.port.port"),
            (host("a.com", json!({ "protocol": "MCP" })), "spec.protocol"),
            (
                host("a.com", json!({ "tls": { "mode": "ClientAndServer", "clientCertificateRef": { "name": "c" } } })),
                "spec.tls.mode",
            ),
            (host("a.com", json!({ "tls": { "mode": "Odd" } })), "spec.tls.mode"),
            (host("a.com", json!({ "tls": { "mode": "ServerOnly" } })), "spec.tls.validation"),
            (json!({ "type": "ExternalHostname", "port": { "port": 1 } }), "spec.externalHostname.hostname"),
        ] {
            let found = made(spec.clone());
            assert_eq!(found.refused.as_ref().map(|it| it.field.as_str()), Some(field), "{spec}");
            assert!(found.service.is_none() && found.tls.is_none() && !found.conditions()[0].status, "{spec}");
        }
    }

    /// Whom to trust can't be had: the policy stands, and answers 500.
    #[test]
    fn tls_that_cannot_be_had_is_not_left_out() {
        let reference = json!([{ "group": "", "kind": "ConfigMap", "name": "none" }]);
        let tls = json!({ "tls": { "mode": "ServerOnly", "validation": { "hostname": "a.com", "caCertificateRefs": reference } } });
        let found = made(host("a.com", tls));
        assert!(matches!(found.tls.unwrap().trust, BackendTrust::Invalid(_)));
        assert!(found.refused.unwrap().field.starts_with("spec.tls.validation.caCertificateRefs"));
    }
}
