//! Ingresses that are not migrated although others of their hosts are: what they match is refused, because else those others
//! would serve it, without what protected it.

use super::parts::{Part, PathItem};
use super::path::PathType;
use super::report::{Level, Report};
use super::routes::{Context, REFUSED};
use super::settings::{Settings, TlsRedirect};

impl Part {
    /// Makes of it what refuses its paths.
    pub fn withhold(&mut self) {
        let old = std::mem::take(&mut self.settings);
        self.settings = Settings {
            entry: old.entry,
            tls_redirect: TlsRedirect { wanted: Some(false), ..TlsRedirect::default() },
            use_regex: old.use_regex,
            rewrite: old.rewrite,
            protocol: old.protocol,
            carried: old.carried,
            ..Settings::default()
        };
        self.withheld = true;
    }

    /// The same, withheld.
    pub fn into_withheld(mut self) -> Self {
        self.withhold();
        self
    }

    /// Whether it would serve hosts of another, were that not there.
    pub fn stands_in_for(&self, other: &Self) -> bool {
        let covers =
            |own: &str, name: &str| own == name || own.strip_prefix('*').is_some_and(|end| name.ends_with(end));
        let has = |name: &String| self.hostnames.iter().any(|own| covers(own, name));
        let hosts = self.hostnames.is_empty() || other.hostnames.iter().any(has);
        self.class == other.class && !self.withheld && hosts
    }

    /// Whether all paths of its host that nobody else has are its own.
    pub fn has_root(&self) -> bool {
        self.paths.iter().any(|item| item.kind != PathType::Exact && ["", "/"].contains(&item.path.as_str()))
    }

    /// Whether something tells its clients apart, or keeps all of them out.
    pub fn is_protected(&self) -> bool {
        let settings = &self.settings;
        self.withheld || settings.auth.is_some() || !settings.allow.is_empty() || !settings.deny.is_empty()
    }
}

/// Parts with a path that is protected, that no match can say, and that another Ingress would serve: none of their hosts is
/// migrated.
pub fn unsayable(context: &Context<'_>, report: &mut Report) -> Vec<Part> {
    let mut made = Vec::new();
    for part in context.parts.iter().filter(|part| part.is_protected()) {
        let own = |other: &Part| (&other.namespace, &other.name) == (&part.namespace, &part.name);
        let Some(other) = context.parts.iter().find(|it| !own(it) && it.stands_in_for(part)) else { continue };
        for (item, read) in context.read(part) {
            let Err(why) = read else { continue };
            let host = part.host_name();
            let why = format!(
                "{host} is not migrated: no match can say this path, and {} would serve it: {why}",
                other.label
            );
            let remedy = "write the routes of the host by hand";
            report.say(Level::LeftOut, (&part.label, &item.field, &item.path), why, remedy);
            made.push(part.clone());
        }
    }
    made
}

/// Withholds the hosts of parts with paths that can't be said, and parts without a listener that others would serve; then
/// takes those out that nobody would.
pub fn settle(parts: &mut Vec<Part>, unsayable: &[Part], report: &mut Report) {
    for part in parts.iter_mut() {
        let same = |name: &String| part.hostnames.contains(name);
        let shares = |it: &Part| it.class == part.class && (it.host == part.host || it.hostnames.iter().any(same));
        if unsayable.iter().any(shares) {
            let first = part.paths.first().cloned();
            part.paths = first.map(|item| root(part, item)).into_iter().collect();
            part.withhold();
        }
    }
    let open: Vec<Part> = parts.iter().filter(|part| !part.withheld && !part.sections().is_empty()).cloned().collect();
    let instead = |part: &Part| open.iter().find(|it| it.stands_in_for(part)).map(|it| it.label.clone());
    for part in parts.iter_mut().filter(|part| !part.withheld && part.sections().is_empty()) {
        if instead(part).is_some() {
            super::parts::report_missing_certificate(part, report);
            part.withhold();
        }
    }
    parts.retain(|part| {
        let Some(other) = instead(part).filter(|_| part.withheld) else { return !part.withheld };
        for item in &part.paths {
            let why = format!("{REFUSED}: {other} would serve it, without what protects it");
            let remedy = "write the rule by hand, with what protects it";
            report.say(Level::LeftOut, (&part.label, &item.field, &item.path), why, remedy);
        }
        true
    });
}

/// All paths, in place of one.
fn root(part: &Part, item: PathItem) -> PathItem {
    PathItem {
        field: format!("all paths of {}", part.host_name()),
        path: "/".to_owned(),
        kind: PathType::Prefix,
        ..item
    }
}
