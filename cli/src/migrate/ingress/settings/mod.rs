//! What the annotations of an Ingress ask for, whichever controller they are for.

mod access;
mod alb;
mod backend;
mod canary;
mod cors;
mod headers;
mod redirect;
mod text;
mod traefik;

use std::collections::BTreeMap;

use serde_json::Value;

pub use self::access::{ExternalAuth, ServiceAddress};
pub use self::alb::Action;
pub use self::backend::Protocol;
pub use self::canary::{Canary, HeaderRule};
pub use self::headers::Headers;
pub use self::redirect::{Redirect, TlsRedirect};
pub use self::text::is_host;
use super::annotations::Annotations;
use super::class::Controller;
use super::input::{Inputs, Key};
use super::path::Rewrite;

/// Which listeners requests come in by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// All that there are for the host.
    #[default]
    Both,
    /// Those without TLS.
    Plain,
    /// Those with TLS.
    Tls,
}

/// What the annotations of an Ingress ask for.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub entry: Entry,
    /// Whether there is TLS although `spec.tls` doesn't say so, with the certificate of all hosts.
    pub default_certificate: bool,
    /// Whether the load balancer has a certificate that no Secret holds.
    pub balancer_certificate: bool,
    pub passthrough: bool,
    pub tls_redirect: TlsRedirect,
    /// Where all requests are sent to.
    pub redirect: Option<Redirect>,
    /// Where requests for `/` are sent to.
    pub app_root: Option<String>,
    /// More hostnames.
    pub aliases: Vec<String>,
    /// Whether the host with, or without, `www.` is redirected.
    pub www: bool,
    pub use_regex: bool,
    pub rewrite: Option<Rewrite>,
    pub protocol: Protocol,
    /// The Secret that has the authorities of the backends.
    pub authorities: Option<Key>,
    /// The name in the backends' certificates.
    pub server_name: Option<String>,
    /// The Host that backends are told.
    pub upstream_host: Option<String>,
    pub cors: Option<Value>,
    pub request_headers: Headers,
    pub response_headers: Headers,
    /// `timeouts.backendRequest`
    pub backend_timeout: Option<String>,
    /// `retry`
    pub retry: Option<Value>,
    /// `sessionPersistence`
    pub session: Option<Value>,
    pub mirror: Option<ServiceAddress>,
    pub auth: Option<ExternalAuth>,
    /// Addresses from which requests are taken; empty: all.
    pub allow: Vec<String>,
    /// Addresses from which none are.
    pub deny: Vec<String>,
    pub canary: Option<Canary>,
    /// Actions of the AWS Load Balancer Controller that stand in for Services.
    pub actions: BTreeMap<String, Action>,
    /// Whether something that protects what is behind was left out.
    pub unprotected: bool,
    /// Annotations for cert-manager and external-dns.
    pub carried: BTreeMap<String, String>,
}

/// Reads the annotations of an Ingress; each is reported.
pub fn read(mut annotations: Annotations<'_>, namespace: &str, inputs: &Inputs) -> Settings {
    let a = &mut annotations;
    let canary = canary::canary(a);
    let mut settings = Settings { canary, ..Settings::default() };
    if settings.canary.is_some() {
        // ingress-nginx takes everything else from the main Ingress.
        settings.session = backend::session(a);
        settings.carried = std::mem::take(&mut a.carried);
        canary::rest(a);
        settings.unprotected = false;
        annotations.finish();
        return settings;
    }
    redirect::read(a, &mut settings);
    settings.use_regex = a.flag("use-regex").unwrap_or_default();
    if settings.use_regex {
        a.became("use-regex", "paths are read as expressions: RegularExpression where a prefix can't say it");
    } else if a.get("use-regex").is_some() {
        a.unneeded("use-regex", "paths are none by default");
    }
    rewrite(a, &mut settings);
    backend::read(a, namespace, &mut settings);
    settings.cors = cors::cors(a);
    headers::read(a, namespace, inputs, &mut settings);
    access::read(a, namespace, &mut settings);
    match a.controller() {
        Controller::Traefik => traefik::read(a, &mut settings),
        Controller::Alb => alb::read(a, inputs, &mut settings),
        _ => {}
    }
    settings.carried = std::mem::take(&mut a.carried);
    settings.unprotected |= annotations.finish();
    settings
}

/// Reads what Services say: to Traefik how they are to be reached, to others what an Ingress says too.
pub fn read_service(mut annotations: Annotations<'_>) -> Settings {
    let mut settings = Settings::default();
    match annotations.controller() {
        Controller::Traefik => traefik::read_service(&mut annotations, &mut settings),
        _ => access::read_service(&mut annotations),
    }
    settings.unprotected = annotations.finish();
    settings
}

fn rewrite(a: &mut Annotations<'_>, settings: &mut Settings) {
    if let Some(target) = a.get("rewrite-target") {
        a.became("rewrite-target", "URLRewrite of each path that it can be said for");
        settings.rewrite = Some(Rewrite { pattern: None, target });
    }
    let Some(text) = a.get("path-rewrite") else { return };
    if text.lines().filter(|line| !line.trim().is_empty()).count() > 1 {
        let remedy = "write a rule with URLRewrite for each; the paths of this Ingress are left out";
        a.left_out("path-rewrite", "several rewrites one after the other are not one of a rule", remedy);
        // A rewrite that fits no path: a rule without it would send other paths than the backends expect.
        settings.rewrite = Some(Rewrite { pattern: None, target: "$".to_owned() });
        return;
    }
    let mut words = text.split_whitespace().map(str::to_owned);
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    a.became("path-rewrite", "URLRewrite of each path that it can be said for");
    settings.rewrite = Some(match second {
        None => Rewrite { pattern: None, target: first },
        Some(target) => Rewrite { pattern: Some(first), target: target.replace('\\', "$") },
    });
}
