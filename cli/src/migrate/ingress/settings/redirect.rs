//! Redirects: to HTTPS, to another address, of `/`, and of the host with or without `www.`.

use serde_json::{Map, Value, json};

use super::Settings;
use super::text::{has_variable, is_host};
use crate::migrate::ingress::annotations::Annotations;
use crate::migrate::ingress::class::Controller;

/// Statuses that a redirect can have.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// Whether plaintext requests are sent to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsRedirect {
    /// `None`: as the controller does it by default, where there is a certificate.
    pub wanted: Option<bool>,
    /// Also where there is no certificate.
    pub forced: bool,
    pub code: u16,
}

impl Default for TlsRedirect {
    fn default() -> Self {
        Self { wanted: None, forced: false, code: 308 }
    }
}

/// `requestRedirect`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub port: Option<u16>,
    /// The whole path; `None`: that of the request.
    pub path: Option<String>,
    pub code: u16,
}

impl Redirect {
    /// As a filter.
    pub fn filter(&self) -> Value {
        let mut spec = Map::new();
        let mut set = |name: &str, value: Value| {
            spec.insert(name.to_owned(), value);
        };
        if let Some(scheme) = &self.scheme {
            set("scheme", json!(scheme));
        }
        if let Some(hostname) = &self.hostname {
            set("hostname", json!(hostname));
        }
        if let Some(port) = self.port {
            set("port", json!(port));
        }
        if let Some(path) = &self.path {
            set("path", json!({ "type": "ReplaceFullPath", "replaceFullPath": path }));
        }
        set("statusCode", json!(self.code));
        json!({ "type": "RequestRedirect", "requestRedirect": spec })
    }
}

/// Reads all of them.
pub fn read(a: &mut Annotations<'_>, settings: &mut Settings) {
    to_tls(a, settings);
    for (name, code_name, code) in [
        ("permanent-redirect", "permanent-redirect-code", 301),
        ("temporal-redirect", "temporal-redirect-code", 302),
        ("request-redirect", "request-redirect-code", 302),
    ] {
        let code = status(a, code_name, code);
        let Some(url) = a.get(name) else { continue };
        if a.controller() == Controller::HaproxyTech && name == "request-redirect" {
            host_only(a, &url, code, settings);
            continue;
        }
        match address(&url, code) {
            Ok(redirect) => {
                a.became(name, format!("RequestRedirect of all paths, status {code}; a query is kept"));
                settings.redirect.get_or_insert(redirect);
            }
            Err(why) => a.unprotected(name, why, "write an HTTPRoute that redirects, and use --allow-unprotected"),
        }
    }
    if let Some(path) = a.get("app-root") {
        if path.starts_with('/') && !has_variable(&path) {
            a.became("app-root", "RequestRedirect of /");
            settings.app_root = Some(path);
        } else {
            a.left_out("app-root", "is not a path", "write a rule for / that redirects");
        }
    }
    aliases(a, settings);
    if a.flag("from-to-www-redirect") == Some(true) {
        a.became("from-to-www-redirect", "an HTTPRoute of the other host that redirects to this one");
        settings.www = true;
    } else {
        a.unneeded("from-to-www-redirect", "nothing redirects by default");
    }
}

fn aliases(a: &mut Annotations<'_>, settings: &mut Settings) {
    let Some(all) = a.list("server-alias") else { return };
    let (good, bad): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|name| is_host(name.strip_prefix("*.").unwrap_or(name)));
    match bad.first() {
        None => a.became("server-alias", "hostnames of the routes, and listeners with the same certificate"),
        Some(name) => a.left_out(
            "server-alias",
            format!("{name:?} is not a hostname; the others are translated"),
            "list the names that it stands for",
        ),
    }
    settings.aliases = good;
}

fn status(a: &mut Annotations<'_>, name: &str, default: u16) -> u16 {
    let Some(text) = a.get(name) else { return default };
    match text.parse().ok().filter(|code| CODES.contains(code)) {
        Some(code) => {
            a.became(name, "statusCode of the redirect");
            code
        }
        None => {
            let message = format!("is not a status of a redirect here; it is {default}");
            a.left_out(name, message, "use 301, 302, 303, 307 or 308");
            default
        }
    }
}

fn to_tls(a: &mut Annotations<'_>, settings: &mut Settings) {
    if a.controller() == Controller::Alb {
        if let Some(port) = a.get("ssl-redirect") {
            if port == "443" {
                a.became("ssl-redirect", "an HTTPRoute of the listener without TLS that redirects, status 301");
            } else {
                a.differs("ssl-redirect", "redirects to port 443", "set requestRedirect.port");
            }
            settings.tls_redirect = TlsRedirect { wanted: Some(true), forced: true, code: 301 };
        }
        return;
    }
    let default = if a.controller() == Controller::HaproxyTech { 302 } else { 308 };
    let code = status(a, "ssl-redirect-code", default);
    let wanted = a.flag("ssl-redirect");
    match wanted {
        Some(true) => a.became("ssl-redirect", "an HTTPRoute of the listener without TLS that redirects"),
        Some(false) => a.became("ssl-redirect", "the routes are on the listener without TLS too"),
        None => {}
    }
    let forced = a.flag("force-ssl-redirect");
    match forced {
        Some(true) => a.differs(
            "force-ssl-redirect",
            "redirects plaintext requests; what ended TLS in front of ingress-nginx, and said so in X-Forwarded-Proto, is not believed",
            "if a load balancer ends TLS, take the redirect out and let the load balancer redirect",
        ),
        Some(false) => a.unneeded("force-ssl-redirect", "is the default"),
        None => {}
    }
    settings.tls_redirect = TlsRedirect { wanted, forced: forced == Some(true), code };
}

/// HAProxy's form: a host, perhaps with a port.
fn host_only(a: &mut Annotations<'_>, text: &str, code: u16, settings: &mut Settings) {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text, None),
    };
    if !is_host(host) || (text.contains(':') && port.is_none()) {
        let remedy = "write an HTTPRoute that redirects, and use --allow-unprotected";
        a.unprotected("request-redirect", "is neither a host nor a host and a port", remedy);
        return;
    }
    a.became("request-redirect", "RequestRedirect of all paths");
    settings.redirect = Some(Redirect { hostname: Some(host.to_owned()), port, code, ..Redirect::default() });
}

/// An address to redirect to. Its path is the whole of what clients are told, except that `$request_uri` keeps theirs.
fn address(url: &str, code: u16) -> Result<Redirect, String> {
    let (fixed, keeps) = match url.strip_suffix("$request_uri").or_else(|| url.strip_suffix("$uri$is_args$args")) {
        Some(fixed) => (fixed, true),
        None => (url, false),
    };
    if has_variable(fixed) {
        return Err("has variables of the proxy".to_owned());
    }
    if let Some(path) = fixed.strip_prefix('/') {
        let path = if keeps { None } else { Some(format!("/{path}")) };
        return Ok(Redirect { path, code, ..Redirect::default() });
    }
    let uri: http::Uri = fixed.parse().map_err(|_| "is not an address".to_owned())?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
    let (Some(scheme), Some(host)) = (scheme, uri.host().filter(|host| is_host(host))) else {
        return Err("is not an address with http:// or https:// and a hostname".to_owned());
    };
    if uri.query().is_some() {
        return Err("has a query of its own, which a redirect can't".to_owned());
    }
    if keeps && !matches!(uri.path(), "" | "/") {
        return Err("puts a path before that of the request".to_owned());
    }
    let path = (!keeps).then(|| if uri.path().is_empty() { "/".to_owned() } else { uri.path().to_owned() });
    Ok(Redirect { scheme: Some(scheme.to_owned()), hostname: Some(host.to_owned()), port: uri.port_u16(), path, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_clients_are_told() {
        let redirect = |scheme: &str, host: &str, port: Option<u16>, path: Option<&str>| Redirect {
            scheme: Some(scheme.into()),
            hostname: Some(host.into()),
            port,
            path: path.map(str::to_owned),
            code: 301,
        };
        for (url, expected) in [
            ("https://b.com", Some(redirect("https", "b.com", None, Some("/")))),
            ("https://b.com/x/y", Some(redirect("https", "b.com", None, Some("/x/y")))),
            ("http://b.com:8080$request_uri", Some(redirect("http", "b.com", Some(8080), None))),
            ("/new", Some(Redirect { path: Some("/new".into()), code: 301, ..Redirect::default() })),
            ("https://b.com/x$request_uri", None),
            ("https://$host/x", None),
            ("https://10.0.0.1/", None),
            ("ftp://b.com", None),
            ("https://b.com/?a=b", None),
            ("b.com", None),
        ] {
            assert_eq!(address(url, 301).ok(), expected, "{url}");
        }
    }
}
