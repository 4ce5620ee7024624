//! Who may come in: addresses of clients, a service that is asked, TLS that is passed through; and who gets a copy.

use super::Settings;
use super::text::{has_variable, network};
use crate::migrate::ingress::annotations::Annotations;
use crate::migrate::ingress::names::untranslated;

const ON_SERVICE: &str = "is read on Ingresses only";
const ON_SERVICE_REMEDY: &str = "set it on the Ingress in place of the Service, or use --allow-unprotected";

/// A port of a Service, by its address in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

/// The service that is asked about each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAuth {
    pub service: ServiceAddress,
    pub path: String,
    /// Headers of its answer that the backend gets.
    pub response_headers: Vec<String>,
}

/// Where an address points to.
struct Target {
    service: ServiceAddress,
    path: String,
    tls: bool,
}

/// `http://NAME.NAMESPACE[.svc[.cluster.local]][:PORT][/PATH]`; a name alone is a Service of the Ingress's namespace.
fn in_cluster(url: &str, namespace: &str) -> Result<Target, String> {
    if has_variable(url) {
        return Err("has variables of the proxy".to_owned());
    }
    let uri: http::Uri = url.parse().map_err(|_| "is not an address".to_owned())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("is not an address with http:// or https://".to_owned()),
    };
    let host = uri.host().unwrap_or_default();
    let labels: Vec<_> = host.trim_end_matches('.').split('.').collect();
    let (name, namespace) = match labels.as_slice() {
        [name] => (*name, namespace),
        [name, of, "svc", ..] | [name, of] => (*name, *of),
        _ => return Err(format!("{host:?} is not the name of a Service in the cluster")),
    };
    // Two labels are also a name of the Internet.
    if let [_, "com" | "org" | "net" | "io" | "dev" | "app"] = labels.as_slice() {
        return Err(format!("{host:?} is not the name of a Service in the cluster"));
    }
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let service = ServiceAddress { namespace: namespace.to_owned(), name: name.to_owned(), port };
    if uri.query().is_some() {
        return Err("has a query, which would not be asked".to_owned());
    }
    let path = if uri.path() == "/" { String::new() } else { uri.path().to_owned() };
    Ok(Target { service, path, tls })
}

/// Reads those of a Service: what protects it is said by Ingresses only.
pub fn read_service(a: &mut Annotations<'_>) {
    let controller = a.controller();
    let protecting = ["auth-type", "auth-url", "whitelist-source-range", "denylist-source-range"];
    if a.get("auth-type").is_some_and(|kind| kind == "none") {
        a.unneeded("auth-type", "is the default");
    } else {
        a.unprotected("auth-type", ON_SERVICE, ON_SERVICE_REMEDY);
    }
    for name in protecting.iter().filter(|name| **name != "auth-type") {
        a.unprotected(name, ON_SERVICE, ON_SERVICE_REMEDY);
    }
    for (name, _) in a.starting("").iter().filter(|(name, _)| !protecting.contains(&name.as_str())) {
        if untranslated(controller, name).is_none() {
            a.left_out(name, ON_SERVICE, "set it on the Ingress");
        }
    }
}

/// Reads all of them.
pub fn read(a: &mut Annotations<'_>, namespace: &str, settings: &mut Settings) {
    settings.allow =
        networks(a, "whitelist-source-range", "those of other addresses get 403, by an AuthorizationPolicy");
    settings.deny = networks(a, "denylist-source-range", "those of these addresses get 403, by an AuthorizationPolicy");
    settings.auth = auth(a, namespace);
    match a.flag("ssl-passthrough") {
        Some(true) => {
            a.became("ssl-passthrough", "a TLSRoute, and listeners with tls.mode: Passthrough");
            settings.passthrough = true;
        }
        _ => a.unneeded("ssl-passthrough", "TLS ends at the Gateway by default"),
    }
    if a.get("satisfy").is_some_and(|text| text == "all") {
        a.unneeded("satisfy", "all conditions have to hold");
    }
    for name in ["enable-global-auth", "enable-modsecurity", "enable-owasp-core-rules"] {
        if a.get(name).is_some_and(|text| text.eq_ignore_ascii_case("false")) {
            a.unneeded(name, "asks for nothing");
        }
    }
    mirror(a, namespace, settings);
}

fn networks(a: &mut Annotations<'_>, name: &str, what: &str) -> Vec<String> {
    let Some(list) = a.list(name) else { return Vec::new() };
    let mut made = Vec::new();
    for text in &list {
        // HAProxy's controller has what is to be left out of a range with an exclamation mark, and files of patterns.
        match network(text) {
            Some(range) => made.push(range.trunc().to_string()),
            None => {
                let why = format!("{text:?} is neither an address nor a range of them");
                a.unprotected(name, why, "write an AuthorizationPolicy, and use --allow-unprotected");
                return Vec::new();
            }
        }
    }
    if made.is_empty() {
        a.unneeded(name, "names no address");
    } else if ["0.0.0.0/0", "::/0"].iter().all(|all| made.iter().any(|range| range == all))
        && name == "whitelist-source-range"
    {
        a.unneeded(name, "lets all addresses in");
        return Vec::new();
    } else {
        let remedy = "if another load balancer is in front, say how clients' addresses are known in spec.clientAddress of GatewayParameters";
        a.differs(name, format!("{what}, by the address that the Gateway takes for the client's"), remedy);
    }
    made
}

fn auth(a: &mut Annotations<'_>, namespace: &str) -> Option<ExternalAuth> {
    const NONE: &str = "there is no auth-url";
    let parts = ["auth-method", "auth-response-headers"];
    let Some(url) = a.get("auth-url") else {
        a.ineffective(&parts, NONE);
        a.ineffective(&["auth-signin", "auth-snippet", "auth-proxy-set-headers", "auth-request-redirect"], NONE);
        return None;
    };
    let target = in_cluster(&url, namespace).and_then(|target| {
        let plain = !target.tls;
        plain.then_some(target).ok_or_else(|| "asks in TLS".to_owned())
    });
    let target = match target {
        Ok(target) => target,
        Err(why) => {
            let remedy = "put the authorization behind a Service of the cluster, in plaintext or in the mesh, and write a filter ExternalAuth; \
                          or use --allow-unprotected";
            a.unprotected("auth-url", why, remedy);
            a.ineffective(&parts, "auth-url isn't translated");
            return None;
        }
    };
    let how = "a filter ExternalAuth: the service is asked with the request's own method, and with its path behind that of the URL; \
               there it was asked with GET and the URL's path alone, and told the rest in X-Original-URL. Of the headers Host, Authorization and Cookie go, there all";
    let remedy =
        "let the service read method and path from the request it gets; add other headers to http.allowedHeaders";
    a.differs("auth-url", how, remedy);
    let response_headers = a.list("auth-response-headers").unwrap_or_default();
    a.became("auth-response-headers", "http.allowedResponseHeaders");
    a.left_out("auth-method", "the service is asked with the request's own method", "let it take any");
    Some(ExternalAuth { service: target.service, path: target.path, response_headers })
}

fn mirror(a: &mut Annotations<'_>, namespace: &str, settings: &mut Settings) {
    let parts = ["mirror-host", "mirror-request-body"];
    let Some(url) = a.get("mirror-target") else {
        a.ineffective(&parts, "there is no mirror-target");
        return;
    };
    let fixed = url.strip_suffix("$request_uri").unwrap_or(&url);
    match in_cluster(fixed, namespace) {
        Ok(target) if target.path.is_empty() => {
            a.became("mirror-target", "a filter RequestMirror");
            a.left_out("mirror-host", "the copy has the request's own host", "let the other backend take it");
            a.left_out(
                "mirror-request-body",
                "the copy has the request's body",
                "nothing, if the other backend reads it",
            );
            settings.mirror = Some(target.service);
        }
        Ok(_) => a.left_out("mirror-target", "has a path of its own", "write a filter RequestMirror"),
        Err(why) => a.left_out("mirror-target", why, "mirror to a Service of the cluster"),
    }
    a.ineffective(&parts, "mirror-target isn't translated");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_names_in_the_cluster() {
        let at =
            |namespace: &str, name: &str, port| ServiceAddress { namespace: namespace.into(), name: name.into(), port };
        for (url, service, path, tls) in [
            ("http://auth", at("shop", "auth", 80), "", false),
            ("http://auth:8080/check", at("shop", "auth", 8080), "/check", false),
            ("http://auth.iam/", at("iam", "auth", 80), "", false),
            ("https://auth.iam.svc.cluster.local/x", at("iam", "auth", 443), "/x", true),
        ] {
            let target = in_cluster(url, "shop").unwrap();
            assert_eq!((target.service, target.path.as_str(), target.tls), (service, path, tls), "{url}");
        }
        for url in [
            "http://auth/check?allowed_groups=admins",
            "https://auth.example.com/x",
            "https://example.com",
            "http://$host/x",
            "auth.iam",
            "https://10.0.0.1/",
        ] {
            assert!(in_cluster(url, "shop").is_err(), "{url}");
        }
    }
}
