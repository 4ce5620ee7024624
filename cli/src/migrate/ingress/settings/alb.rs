//! Annotations of the AWS Load Balancer Controller: ports, and actions that stand in for Services.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;
use serde::Deserialize;
use serde_json::Value;

use super::redirect::Redirect;
use super::{Entry, Settings};
use crate::migrate::ingress::annotations::Annotations;
use crate::migrate::ingress::input::Inputs;
use crate::migrate::ingress::names::{BALANCER, BALANCER_REMEDY};

/// What is done with requests in place of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Redirect(Redirect),
    /// Services, their ports as text, and their weights.
    Forward(Vec<(String, String, u32)>),
    /// Said in the report; requests are refused.
    LeftOut,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    kind: String,
    redirect_config: Option<RedirectConfig>,
    forward_config: Option<ForwardConfig>,
}

/// The controller takes both spellings of a field.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedirectConfig {
    #[serde(alias = "Protocol")]
    protocol: Option<String>,
    #[serde(alias = "Host")]
    host: Option<String>,
    #[serde(alias = "Port")]
    port: Option<String>,
    #[serde(alias = "Path")]
    path: Option<String>,
    #[serde(alias = "Query")]
    query: Option<String>,
    #[serde(alias = "StatusCode")]
    status_code: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ForwardConfig {
    #[serde(default)]
    target_groups: Vec<TargetGroup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetGroup {
    service_name: Option<String>,
    service_port: Option<Value>,
    weight: Option<u32>,
}

const SCHEME: &str = "alb.ingress.kubernetes.io/scheme";
const GROUP: &str = "alb.ingress.kubernetes.io/group.name";
const PUBLIC: &str = "internet-facing";
const INSIDE: &str =
    "its load balancer is inside the network, and that of the Gateway's Service may be open to everybody";
const INSIDE_REMEDY: &str = "make the Gateway's load balancer internal, by spec.service.annotations of GatewayParameters in its own words, or its Service a \
                             ClusterIP; then use --allow-unprotected";

/// Who can reach the load balancer. Inside is what it is if nobody in its group says otherwise.
fn scheme(a: &mut Annotations<'_>, inputs: &Inputs) {
    match a.get("scheme").as_deref() {
        Some(PUBLIC) => a.left_out("scheme", BALANCER, BALANCER_REMEDY),
        Some(_) => a.unprotected("scheme", INSIDE, INSIDE_REMEDY),
        None => {
            let group = a.get("group.name");
            let says = |ingress: &Ingress| {
                let value = |key: &str| ingress.metadata.annotations.as_ref()?.get(key).map(|value| value.trim());
                group.is_some() && value(GROUP) == group.as_deref() && value(SCHEME) == Some(PUBLIC)
            };
            if !inputs.ingresses.iter().any(says) {
                let why = format!("is not set, so that {INSIDE}, unless IngressClassParams say {PUBLIC}");
                a.unprotected_unless_set(SCHEME, why, INSIDE_REMEDY);
            }
        }
    }
}

/// Reads all of them.
pub fn read(a: &mut Annotations<'_>, inputs: &Inputs, settings: &mut Settings) {
    settings.balancer_certificate = a.get("certificate-arn").is_some();
    scheme(a, inputs);
    ports(a, settings);
    for (name, text) in a.starting("actions.") {
        let full = format!("actions.{name}");
        let action = match action(&text) {
            Ok(action) => {
                a.became(&full, "a rule in place of the Service of that name");
                action
            }
            Err(why) => {
                a.left_out(&full, why, "write the rule by hand; requests for it get 500, by a rule without backends");
                Action::LeftOut
            }
        };
        settings.actions.insert(name, action);
    }
    match a.get("auth-type").as_deref() {
        None => {}
        Some("none") => a.unneeded("auth-type", "is the default"),
        Some(_) => a.unprotected(
            "auth-type",
            "single sign-on is a service's",
            "put it behind an ExternalAuth filter; or use --allow-unprotected",
        ),
    }
}

fn ports(a: &mut Annotations<'_>, settings: &mut Settings) {
    let Some(text) = a.get("listen-ports") else {
        // With a certificate and nothing said of ports the controller listens on 443 alone.
        if settings.balancer_certificate && !settings.tls_redirect.forced {
            settings.entry = Entry::Tls;
        }
        return;
    };
    let Ok(list) = serde_json::from_str::<Vec<BTreeMap<String, u16>>>(&text) else {
        a.left_out("listen-ports", "is not a list of ports", "correct it");
        return;
    };
    let all: Vec<(String, u16)> = list.into_iter().flatten().collect();
    let has = |protocol: &str, port: u16| all.iter().any(|(of, at)| of == protocol && *at == port);
    settings.entry = match (has("HTTP", 80), has("HTTPS", 443)) {
        (true, false) => Entry::Plain,
        (false, true) => Entry::Tls,
        _ => Entry::Both,
    };
    if all.iter().all(|(protocol, port)| [("HTTP", 80), ("HTTPS", 443)].contains(&(protocol.as_str(), *port))) {
        a.became("listen-ports", "the listeners that the routes are on");
    } else {
        a.left_out(
            "listen-ports",
            "only HTTP on port 80 and HTTPS on port 443 are translated",
            "give the Gateway listeners for the others",
        );
    }
}

fn action(text: &str) -> Result<Action, String> {
    let spec: Spec = serde_json::from_str(text).map_err(|why| format!("is not an action: {why}"))?;
    match (spec.kind.as_str(), spec.redirect_config, spec.forward_config) {
        ("redirect", Some(config), _) => redirect(config).map(Action::Redirect),
        ("forward", _, Some(config)) => {
            let targets = config.target_groups.into_iter().map(|group| {
                let (Some(name), Some(port)) = (group.service_name, group.service_port) else {
                    return Err("forwards to a target group that is no Service".to_owned());
                };
                let port = port.as_str().map_or_else(|| port.to_string(), str::to_owned);
                Ok((name, port, group.weight.unwrap_or(1)))
            });
            targets.collect::<Result<_, _>>().map(Action::Forward)
        }
        ("fixed-response", ..) => Err("a route can't answer by itself".to_owned()),
        ("forward", ..) => Err("forwards to a target group that is no Service".to_owned()),
        (kind, ..) => Err(format!("{kind:?} is not an action that is known")),
    }
}

/// `#{host}` and so on stand for what the request has.
fn redirect(config: RedirectConfig) -> Result<Redirect, String> {
    let own = |value: Option<String>, placeholder: &str| value.filter(|text| text != placeholder);
    let host = own(config.host, "#{host}");
    let path = own(config.path, "/#{path}");
    if own(config.query, "#{query}").is_some() {
        return Err("changes the query, which a redirect can't".to_owned());
    }
    if [&host, &path].into_iter().flatten().any(|text| text.contains("#{")) {
        return Err("puts parts of the request together, which a redirect can't".to_owned());
    }
    let port = match own(config.port, "#{port}") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| format!("{text:?} is not a port"))?),
    };
    let code = match config.status_code.as_deref() {
        Some("HTTP_301") => 301,
        Some("HTTP_302") | None => 302,
        Some(other) => return Err(format!("{other:?} is not a status of a redirect")),
    };
    let scheme = own(config.protocol, "#{protocol}").map(|scheme| scheme.to_ascii_lowercase());
    Ok(Redirect { scheme, hostname: host, port, path, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_redirects_or_shares_of_services() {
        let to_tls = r##"{"type":"redirect","redirectConfig":{"protocol":"HTTPS","port":"443","host":"#{host}","statusCode":"HTTP_301"}}"##;
        let expected = Redirect { scheme: Some("https".into()), port: Some(443), code: 301, ..Redirect::default() };
        assert_eq!(action(to_tls), Ok(Action::Redirect(expected)));
        let shares = r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"a","servicePort":80,"weight":9},
            {"serviceName":"b","servicePort":"http","weight":1}]}}"#;
        let expected = vec![("a".to_owned(), "80".to_owned(), 9), ("b".to_owned(), "http".to_owned(), 1)];
        assert_eq!(action(shares), Ok(Action::Forward(expected)));
        for other in [
            r#"{"type":"fixed-response","fixedResponseConfig":{"statusCode":"503"}}"#,
            r#"{"type":"forward","targetGroupARN":"arn:aws:x"}"#,
            r##"{"type":"redirect","redirectConfig":{"path":"/x/#{path}"}}"##,
            "x",
        ] {
            assert!(action(other).is_err(), "{other}");
        }
    }
}
