//! Routes beside those of an Ingress's paths: redirects between listeners and between hosts, and TLS that is passed through.

use serde_json::Value;

use super::backends::{Destination, destination};
use super::parts::Part;
use super::report::{Level, Report};
use super::routes::{Context, Rule, document, path_match};
use super::settings::{Entry, Redirect};
use super::sites::{HTTP, Site, tls_section};

/// Matches of one rule, by the Gateway API.
const MOST_MATCHES: usize = 64;

/// The route of the listener without TLS that redirects to the one with it.
pub fn to_tls(part: &Part, site: &Site, context: &Context<'_>) -> Option<Value> {
    if !part.redirects_to_tls() {
        return None;
    }
    let code = part.settings.tls_redirect.code;
    let redirect = Redirect { scheme: Some("https".to_owned()), code, ..Redirect::default() };
    // Where another Ingress has the host too, only the paths of this one.
    let shared = context.is_shared(part) && part.paths.len() <= MOST_MATCHES;
    let plans = if shared { context.plans(part, &mut Report::default()) } else { Vec::new() };
    let matches = plans.iter().map(|(_, plan)| path_match(&plan.matched)).collect();
    let rule = Rule { matches, filters: vec![redirect.filter()], ..Rule::default() };
    let sections = [HTTP.to_owned()];
    let rules = vec![rule.value(&part.namespace)];
    Some(document(part, ("HTTPRoute", "-redirect"), (&sections, &part.hostnames), (rules, site)))
}

/// The route of the host with, or without, `www.`.
pub fn www(part: &Part, site: &Site, context: &Context<'_>, report: &mut Report) -> Option<Value> {
    let other = part.www_host()?;
    if context.parts.iter().any(|it| it.class == part.class && it.hostnames.contains(&other)) {
        let why = format!("{other} has an Ingress of its own");
        report.say(Level::Unneeded, (&part.label, "from-to-www-redirect", &other), why, "");
        return None;
    }
    let redirect = Redirect { hostname: part.host.clone(), code: 308, ..Redirect::default() };
    let rule = Rule { filters: vec![redirect.filter()], ..Rule::default() };
    let plain = (part.settings.entry != Entry::Tls && !part.lacks_certificate()).then(|| HTTP.to_owned());
    let tls = (part.certificate.is_some() && part.settings.entry != Entry::Plain).then(|| tls_section(Some(&other)));
    let sections: Vec<_> = plain.into_iter().chain(tls).collect();
    let rules = vec![rule.value(&part.namespace)];
    Some(document(part, ("HTTPRoute", "-www"), (&sections, &[other]), (rules, site)))
}

/// The route of TLS that is passed through, by the name in the handshake alone.
pub fn passthrough(part: &Part, site: &Site, context: &Context<'_>, report: &mut Report) -> Option<Value> {
    let at = (part.label.as_str(), "ssl-passthrough", "");
    if part.hostnames.is_empty() {
        let why = "TLS is passed through by the name in the handshake, and the rule has no host";
        report.say(Level::LeftOut, at, why, "give the rule a host");
        return None;
    }
    let root = part.paths.iter().find(|item| ["", "/"].contains(&item.path.as_str()));
    for item in part.paths.iter().filter(|item| !["", "/"].contains(&item.path.as_str())) {
        let why = "paths can't be seen in TLS that is passed through";
        report.say(Level::Unneeded, (&part.label, &item.field, &item.path), why, "");
    }
    let item = root.or_else(|| part.paths.first())?;
    match destination(part, item, context.inputs) {
        Ok(Destination::Backends(backends)) => {
            let rule = Rule { backends, ..Rule::default() };
            let rules = vec![rule.value(&part.namespace)];
            Some(document(part, ("TLSRoute", ""), (&part.sections(), &part.hostnames), (rules, site)))
        }
        Ok(_) => None,
        Err((why, remedy)) => {
            report.say(Level::LeftOut, (&part.label, &item.field, &item.path), why, remedy);
            None
        }
    }
}
