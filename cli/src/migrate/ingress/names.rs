//! Names of annotations: the one that a setting goes by here, and those that no object has a place for.

mod tables;

use super::class::{CLASS_ANNOTATION, Controller};

/// What becomes of an annotation that is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Why nobody misses it.
    Unneeded(&'static str),
    /// Why it isn't translated, and what to do.
    LeftOut(&'static str, &'static str),
    /// The same, of something without which the application would be open.
    Protects(&'static str, &'static str),
}

use Fate::LeftOut;
use tables::{ALB, ALB_BALANCER, ALB_FAMILIES, COMMON, ERROR_PAGES, ERROR_REMEDY, HAPROXY, TRAEFIK};
pub use tables::{BALANCER, BALANCER_REMEDY};

/// What becomes of an annotation that nobody has translated; `None` if it isn't known.
pub fn untranslated(controller: Controller, name: &str) -> Option<Fate> {
    let find = |list: &[(&str, Fate)]| list.iter().find(|(it, _)| *it == name).map(|(_, fate)| *fate);
    match controller {
        Controller::Nginx | Controller::Other => find(COMMON),
        Controller::Traefik if name.starts_with("router.tls.domains.") => {
            Some(LeftOut("names of certificates are the Secret's", "give the Ingress spec.tls with a Secret"))
        }
        Controller::Traefik => find(TRAEFIK),
        Controller::HaproxyTech | Controller::HaproxyIngress if name.starts_with("http-response-") => {
            Some(LeftOut(ERROR_PAGES, ERROR_REMEDY))
        }
        Controller::HaproxyTech | Controller::HaproxyIngress => find(HAPROXY).or_else(|| find(COMMON)),
        Controller::Alb => {
            let balancer = ALB_BALANCER.contains(&name).then_some(LeftOut(BALANCER, BALANCER_REMEDY));
            let family = || ALB_FAMILIES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, fate)| *fate);
            balancer.or_else(|| find(ALB)).or_else(family)
        }
    }
}

/// Other names of what ingress-nginx has a name for.
const ALIASES: &[(Controller, &str, &str)] = &[
    (Controller::Nginx, "allowlist-source-range", "whitelist-source-range"),
    (Controller::HaproxyIngress, "allowlist-source-range", "whitelist-source-range"),
    (Controller::HaproxyIngress, "cors-enable", "enable-cors"),
    (Controller::HaproxyIngress, "timeout-server", "proxy-read-timeout"),
    (Controller::HaproxyIngress, "timeout-connect", "proxy-connect-timeout"),
    (Controller::HaproxyIngress, "balance-algorithm", "load-balance"),
    (Controller::HaproxyIngress, "redirect-to", "permanent-redirect"),
    (Controller::HaproxyIngress, "auth-headers-succeed", "auth-response-headers"),
    (Controller::HaproxyIngress, "session-cookie-same-site", "session-cookie-samesite"),
    (Controller::HaproxyIngress, "secure-verify-ca-secret", "proxy-ssl-secret"),
    (Controller::HaproxyIngress, "secure-verify-hostname", "proxy-ssl-name"),
    (Controller::HaproxyIngress, "headers", "request-set-header"),
    (Controller::HaproxyIngress, "request-set-headers", "request-set-header"),
    (Controller::HaproxyIngress, "response-set-headers", "response-set-header"),
    (Controller::HaproxyTech, "whitelist", "whitelist-source-range"),
    (Controller::HaproxyTech, "allow-list", "whitelist-source-range"),
    (Controller::HaproxyTech, "blacklist", "denylist-source-range"),
    (Controller::HaproxyTech, "deny-list", "denylist-source-range"),
    (Controller::HaproxyTech, "cors-enable", "enable-cors"),
    (Controller::HaproxyTech, "timeout-server", "proxy-read-timeout"),
    (Controller::HaproxyTech, "timeout-connect", "proxy-connect-timeout"),
    (Controller::HaproxyTech, "set-host", "upstream-vhost"),
    (Controller::HaproxyTech, "cookie-persistence", "session-cookie-name"),
    (Controller::Alb, "inbound-cidrs", "whitelist-source-range"),
];

/// The name and value by which a setting is read here.
pub fn shared(controller: Controller, own: &str, value: &str) -> (String, String) {
    let truthy = value.trim().eq_ignore_ascii_case("true");
    // What others say with a yes, ingress-nginx says with a name.
    let secure = || if truthy { "HTTPS" } else { "HTTP" };
    match (controller, own) {
        (Controller::HaproxyTech, "server-ssl") | (Controller::HaproxyIngress, "secure-backends") => {
            return ("backend-protocol".to_owned(), secure().to_owned());
        }
        _ => {}
    }
    let alias = ALIASES.iter().find(|(of, name, _)| *of == controller && *name == own);
    (alias.map_or(own, |(_, _, name)| name).to_owned(), value.to_owned())
}

/// The old prefix of several controllers, which HAProxy's still read.
pub const SHARED_PREFIX: &str = "ingress.kubernetes.io/";

/// Prefixes of programs that have nothing to do with requests.
const TOOLS: [&str; 17] = [
    "app.kubernetes.io/",
    "argocd.argoproj.io/",
    "backstage.io/",
    "checksum/",
    "config.kubernetes.io/",
    "field.cattle.io/",
    "forecastle.stakater.com/",
    "gethomepage.dev/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kapp.k14s.io/",
    "kubectl.kubernetes.io/",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "prometheus.io/",
    "pulumi.com/",
    "reloader.stakater.com/",
];
/// What names an object with sign-on and a firewall, on Services of Google's clusters.
pub const BACKEND_CONFIGS: [&str; 2] = ["cloud.google.com/backend-config", "beta.cloud.google.com/backend-config"];
/// Prefixes of controllers whose annotations are not known here; whatever else has `ingress` in it is one too.
const OTHER_CONTROLLERS: [&str; 10] = [
    "getambassador.io/",
    "higress.io/",
    "k8s.apisix.apache.org/",
    "k8s.ngrok.com/",
    "konghq.com/",
    "networking.gke.io/",
    "nginx.com/",
    "nginx.org/",
    "projectcontour.io/",
    "zalando.org/",
];

/// Who reads an annotation that the controller of an Ingress doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It names the class.
    Class,
    /// A controller whose annotations are known here.
    Known,
    /// A controller whose annotations are not.
    Unknown,
    /// A program that serves no requests.
    Tool,
    /// Nobody that is known.
    Nobody,
}

/// Who reads an annotation, by its prefix.
pub fn reader(key: &str) -> Reader {
    let starts = |prefix: &&str| key.starts_with(*prefix);
    if key == CLASS_ANNOTATION {
        Reader::Class
    } else if Controller::PREFIXES.iter().any(|(_, prefix)| key.starts_with(prefix)) || key.starts_with(SHARED_PREFIX) {
        Reader::Known
    } else if TOOLS.iter().any(starts) {
        Reader::Tool
    } else if BACKEND_CONFIGS.contains(&key) || OTHER_CONTROLLERS.iter().any(starts) || key.contains("ingress") {
        Reader::Unknown
    } else {
        Reader::Nobody
    }
}
