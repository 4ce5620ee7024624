//! Annotations of Traefik, on Ingresses and on Services.

use super::backend::{Protocol, session_of};
use super::text::duration;
use super::{Entry, Settings};
use crate::migrate::ingress::annotations::Annotations;

/// Reads those of an Ingress.
pub fn read(a: &mut Annotations<'_>, settings: &mut Settings) {
    if let Some(points) = a.list("router.entrypoints") {
        settings.entry = match (points.iter().any(|it| it == "web"), points.iter().any(|it| it == "websecure")) {
            (true, false) => Entry::Plain,
            (false, true) => Entry::Tls,
            _ => Entry::Both,
        };
        if points.iter().all(|point| ["web", "websecure"].contains(&point.as_str())) {
            a.became("router.entrypoints", "the listeners that the routes are on: web is port 80, websecure port 443");
        } else {
            a.left_out(
                "router.entrypoints",
                "only web and websecure are known, ports 80 and 443",
                "give the Gateway listeners for the others",
            );
        }
    }
    match a.flag("router.tls") {
        Some(true) => {
            a.became("router.tls", "a listener with TLS, with the certificate of spec.tls or --default-certificate");
            settings.default_certificate = true;
            if settings.entry == Entry::Both {
                settings.entry = Entry::Tls;
            }
        }
        _ => a.unneeded("router.tls", "there is TLS where spec.tls says so"),
    }
    if let Some(matcher) = a.get("router.pathmatcher") {
        if matcher == "PathPrefix" {
            a.unneeded("router.pathmatcher", "is the default");
        } else {
            a.left_out("router.pathmatcher", "types of paths are those of the Ingress itself", "set pathType");
        }
    }
}

/// Reads those of a Service.
pub fn read_service(a: &mut Annotations<'_>, settings: &mut Settings) {
    match a.get("service.serversscheme").as_deref() {
        Some("https") => {
            a.became("service.serversscheme", "a BackendTLSPolicy");
            settings.protocol = Protocol::Https;
        }
        Some("h2c") => a.differs(
            "service.serversscheme",
            "HTTP/2 is spoken to ports that say so",
            "set appProtocol: kubernetes.io/h2c on the Service's port",
        ),
        Some("http") => a.unneeded("service.serversscheme", "is the default"),
        _ => a.left_out("service.serversscheme", "is not a scheme that is known", "correct it"),
    }
    match a.flag("service.passhostheader") {
        Some(false) => a.left_out(
            "service.passhostheader",
            "backends are told the client's host, or that of a filter",
            "add URLRewrite.hostname",
        ),
        _ => a.unneeded("service.passhostheader", "is the default"),
    }
    let parts = ["name", "maxage", "secure", "httponly", "samesite", "domain", "path"]
        .map(|part| format!("service.sticky.cookie.{part}"));
    if a.flag("service.sticky.cookie") != Some(true) {
        a.unneeded("service.sticky.cookie", "there are no sessions by default");
        a.ineffective(&parts.each_ref().map(String::as_str), "service.sticky.cookie isn't true");
        return;
    }
    a.became("service.sticky.cookie", "sessionPersistence by a cookie");
    let [name, max_age, others @ ..] = &parts;
    let cookie = a.get(name).unwrap_or_else(|| "session".to_owned());
    a.became(name, "sessionPersistence.sessionName");
    let life = a.number(max_age).filter(|seconds| *seconds > 0).and_then(|seconds| duration(&seconds.to_string()));
    a.became(max_age, "sessionPersistence.absoluteTimeout");
    for other in others {
        a.differs(
            other,
            "the cookie is HttpOnly, SameSite=Lax, of the rule's path, and Secure where the client speaks TLS",
            "",
        );
    }
    settings.session = Some(session_of(&cookie, life.as_deref()));
}
