//! Recording rules and alerts, the tests that `promtool` runs of them, and a page for each alert.

mod authority;
mod cluster;
mod pages;
mod proof;
mod proxies;
mod recording;
mod security;
mod traffic;
mod yaml;

pub use pages::{index, page};
pub use recording::groups as recordings;
pub use yaml::{hurried, rules, tests};

use crate::Needs;

/// Where the pages are that alerts lead to.
pub const RUNBOOKS: &str = "https://github.com/weftmesh/weft/blob/main/docs/runbooks";

/// Rules that are judged one after the other.
#[derive(Clone, Debug)]
pub struct Group<T> {
    /// Its name.
    pub name: &'static str,
    /// Its rules.
    pub rules: Vec<T>,
}

/// A series that Prometheus makes of others.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The series.
    pub name: &'static str,
    /// What it is made of.
    pub expr: String,
    /// When it has data.
    pub needs: Needs,
}

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody gets up at night.
    Critical,
    /// Somebody looks today.
    Warning,
    /// Somebody may want to know.
    Info,
}

impl Severity {
    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Where an alert makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Wherever there is a mesh.
    Mesh,
    /// Where the components of a cluster are scraped.
    Cluster,
}

/// An alert.
#[derive(Clone, Debug)]
pub struct Alert {
    /// `Weft` and what is wrong.
    pub name: &'static str,
    /// How urgent.
    pub severity: Severity,
    /// Where it makes sense.
    pub scope: Scope,
    /// What is wrong while this has values.
    pub expr: String,
    /// For how long it has to be so.
    pub lasts: &'static str,
    /// One line, with `{{ $labels.name }}`.
    pub summary: &'static str,
    /// What it means for whom.
    pub description: &'static str,
    /// The page.
    pub page: Page,
    /// What proves it.
    pub proof: Proof,
}

/// What somebody needs who was woken up.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// What may be behind it, the likeliest first.
    pub causes: &'static [&'static str],
    /// Where to look, in order.
    pub look: &'static [&'static str],
    /// What to do about each cause.
    pub remedy: &'static [&'static str],
}

/// Series under which an alert fires, and the labels it then has besides its severity.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    /// Series and values, as `promtool` takes them, a value each minute. They stand in for those of a healthy mesh with the
    /// same names.
    pub series: &'static [(&'static str, &'static str)],
    /// When it is looked at.
    pub at: &'static str,
    /// Labels of what fires.
    pub labels: &'static [(&'static str, &'static str)],
}

/// All alerts.
pub fn alerts() -> Vec<Group<Alert>> {
    vec![
        Group { name: "weft-traffic", rules: traffic::alerts() },
        Group { name: "weft-security", rules: security::alerts() },
        Group { name: "weft-proxies", rules: proxies::alerts() },
        Group { name: "weft-control-plane", rules: cluster::alerts() },
        Group { name: "weft-authority", rules: authority::alerts() },
    ]
}

/// The labels of an alert on a node.
const ON_NODE: &[(&str, &str)] = &[("node", "node-a")];

#[cfg(test)]
mod tests;
