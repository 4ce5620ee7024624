//! TCP rules of a VirtualService -> TCPRoutes.

use serde_json::json;
use weft_core::service::AppProtocol;
use weft_k8s::translate::service::app_protocol;

use super::context::{Context, ports};
use super::fields::Fields;
use super::http::{self, Backend};
use super::input::Key;
use super::requests::Said;
use super::routes::{Work, route};

/// A rule: the ports that it is for, none for all, and where connections go.
pub struct Rule {
    ports: Vec<u16>,
    backends: Vec<Backend>,
}

/// Reads `tcp[]` for connections within the mesh.
pub fn rules(list: Vec<Fields>, (own, context): (&str, &Context<'_>), said: &mut Said) -> Vec<Rule> {
    let mut made = Vec::new();
    for mut fields in list {
        let (mut of, mut all, mut within) = (Vec::new(), false, false);
        let matches = fields.parts("match");
        let none = matches.is_empty();
        for mut it in matches {
            let gateways = it.texts("gateways");
            if !gateways.is_empty() && !gateways.iter().any(|it| it == "mesh") {
                continue;
            }
            within = true;
            match it.number("port").and_then(|it| u16::try_from(it).ok()) {
                Some(port) => of.push(port),
                None => all = true,
            }
            for lost in it.rest() {
                said.fatal(
                    lost.field,
                    lost.value,
                    "connections are not told apart by it here",
                    "write TCPRoutes by hand",
                );
            }
        }
        if !none && !within {
            continue;
        }
        let backends = http::backends(fields.parts("route"), (own, context), said);
        said.fatal.extend(fields.rest());
        made.push(Rule { ports: if all { Vec::new() } else { of }, backends });
    }
    made
}

/// The routes of a Service: of each of its ports that carries bytes the first rule that is for it.
pub fn routes(work: &mut Work<'_>, rules: &[Rule], (service, has_http): (&Key, bool), at: (&str, &str)) {
    let known = match work.context.known("spec.hosts", service) {
        Ok(known) => known,
        Err(lost) => return work.said.fatal.push(lost),
    };
    for port in ports(known) {
        let protocol = app_protocol("TCP", port.app_protocol.as_deref(), port.name.as_deref().unwrap_or_default());
        let carries = match protocol {
            AppProtocol::Tcp | AppProtocol::Tls => true,
            // Of a port that doesn't say, HTTP rules are taken to be meant where there are some.
            AppProtocol::Unspecified => !has_http,
            _ => false,
        };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let rule = rules.iter().find(|rule| rule.ports.is_empty() || rule.ports.contains(&number));
        let Some(rule) = rule.filter(|_| carries) else { continue };
        let (namespace, name) = at;
        let backends = work.backends(&rule.backends, Some(number), ("TCPRoute", namespace));
        let name = format!("{name}-tcp-{number}");
        let rules = json!([{ "backendRefs": backends }]);
        work.routes.push(route("TCPRoute", (namespace, &name), (service, Some(number)), &rules));
    }
}
