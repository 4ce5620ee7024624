//! Taps: requests and connections as they end, for whoever asks, for a while. What is asked for, what matches, and what is
//! sent, which is one JSON object a line ([`Line`]). docs/cli.md says what each field means.
//!
//! What is tapped is what the access log would say, without the query unless it is asked for; never headers or bodies.

mod line;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::line::{Line, Lines, NoLine, Record};

/// The port on which a proxy in a cluster serves taps, to the controller alone.
pub const PORT: u16 = 15022;
/// Where a proxy, and the controller, serves them: `POST`, with a [`Tap`].
pub const PATH: &str = "/v1/tap";
/// Taps of one proxy at the same time.
pub const AT_ONCE: usize = 8;
/// The longest a tap lasts, in seconds.
pub const LONGEST: u32 = 600;
/// Records of one proxy that a tap may have in a second, and how many it has unless it says so.
pub const MOST_PER_SECOND: u32 = 1000;
/// See [`MOST_PER_SECOND`].
pub const USUAL_PER_SECOND: u32 = 100;
/// The longest text of a client's that is sent, in bytes: paths, hosts, details.
pub const LONGEST_TEXT: usize = 1024;
/// The longest line, in bytes, that a reader has to take.
pub const LONGEST_LINE: usize = 64 << 10;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Tap {
    /// Which requests.
    pub filter: Filter,
    /// How many of one proxy in a second, 1 to [`MOST_PER_SECOND`]; what is more is dropped and counted.
    pub rate: u32,
    /// For how long, in seconds, 1 to [`LONGEST`].
    pub seconds: u32,
    /// How many in all; 0: as many as come in the time.
    pub count: u64,
    /// Whether paths have their query.
    pub query: bool,
}

impl Default for Tap {
    fn default() -> Self {
        Self { filter: Filter::default(), rate: USUAL_PER_SECOND, seconds: 60, count: 0, query: false }
    }
}

impl Tap {
    /// Looks for what can't be had.
    ///
    /// # Errors
    /// What it is, with the limits.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MOST_PER_SECOND).contains(&self.rate) {
            return Err(format!("the rate must be between 1 and {MOST_PER_SECOND} a second, not {}", self.rate));
        }
        if !(1..=LONGEST).contains(&self.seconds) {
            return Err(format!("a tap lasts between 1 and {LONGEST} seconds, not {}", self.seconds));
        }
        self.filter.check()
    }
}

/// Which requests; all that is left out fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// The namespace whose traffic it is, as caller or as what is called; empty: of all.
    pub namespace: String,
    /// What in the namespace.
    pub of: Of,
    /// Whether the namespace, or what is tapped in it, calls or is called; both if left out.
    pub direction: Option<Direction>,
    /// The caller: `NAMESPACE`, or `NAMESPACE/NAME` of a pod or of what owns it.
    pub from: String,
    /// Who is called, in the same form; the name may be a Service's too.
    pub to: String,
    /// The Service that was dialled: `NAMESPACE/NAME`.
    pub service: String,
    /// The route whose rule matched: `NAMESPACE/NAME`.
    pub route: String,
    /// The method, in upper case.
    pub method: String,
    /// What the path begins with.
    pub path: String,
    /// The status: `503`, `5xx`, or `failed` for everything that the access log takes for a failure.
    pub status: String,
    /// Who tells: `source`, `destination` or `gateway`.
    pub reporter: String,
}

/// What in a namespace is tapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Of {
    /// All of it.
    #[default]
    Namespace,
    /// The pod of this name.
    Pod(String),
    /// Pods that belong to a Deployment, StatefulSet or the like of this name.
    Workload(String),
    /// What is called by this Service.
    Service(String),
}

/// From where what is tapped is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// It is called.
    In,
    /// It calls.
    Out,
}

/// A request or connection, in terms of filters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The caller.
    pub source: End<'a>,
    /// Who was to answer.
    pub destination: End<'a>,
    /// `NAMESPACE/NAME` of the Service that was dialled; empty if none was.
    pub service: &'a str,
    /// `NAMESPACE/NAME` of the route; empty if none matched.
    pub route: &'a str,
    /// The method; empty for what isn't HTTP.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The status; 0 for what isn't HTTP.
    pub status: u16,
    /// Whether it failed.
    pub failed: bool,
    /// `source`, `destination` or `gateway`.
    pub reporter: &'a str,
}

/// One end of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct End<'a> {
    /// Its namespace; empty if it isn't known.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// What owns the pod.
    pub workload: &'a str,
}

impl End<'_> {
    /// Whether it is `NAMESPACE`, or `NAMESPACE/NAME`.
    fn is(&self, text: &str) -> bool {
        match text.split_once('/') {
            None => self.namespace == text,
            Some((namespace, name)) => self.namespace == namespace && (self.pod == name || self.workload == name),
        }
    }
}

impl Filter {
    /// Looks for what fits nothing.
    ///
    /// # Errors
    /// What it is.
    pub fn check(&self) -> Result<(), String> {
        let (named, namespaced) = (self.of != Of::Namespace, !self.namespace.is_empty());
        if named && !namespaced {
            return Err("a pod, a workload or a Service is in a namespace: say which".to_owned());
        }
        for (what, text) in [("service", &self.service), ("route", &self.route)] {
            if !text.is_empty() && text.split('/').filter(|part| !part.is_empty()).count() != 2 {
                return Err(format!("{what} {text:?}: expected NAMESPACE/NAME"));
            }
        }
        if !["", "source", "destination", "gateway"].contains(&self.reporter.as_str()) {
            return Err(format!("reporter {:?}: expected source, destination or gateway", self.reporter));
        }
        if !self.status.is_empty() && Status::parse(&self.status).is_none() {
            return Err(format!("status {:?}: expected one such as 503 or 5xx, or failed", self.status));
        }
        Ok(())
    }

    /// Whether a namespace's tap may show this at all: what it calls, and what it is called with.
    pub fn is_within(&self, source: &str, destination: &str) -> bool {
        self.namespace.is_empty() || self.namespace == source || self.namespace == destination
    }

    /// Whether this is asked for.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let is = |wanted: &str, text: &str| wanted.is_empty() || wanted == text;
        let called = || self.to.is_empty() || facts.destination.is(&self.to) || self.to == facts.service;
        self.is_within(facts.source.namespace, facts.destination.namespace)
            && self.concerns(facts)
            && is(&self.method, facts.method)
            && facts.path.starts_with(&self.path)
            && self.has_status(facts)
            && is(&self.service, facts.service)
            && is(&self.route, facts.route)
            && is(&self.reporter, facts.reporter)
            && (self.from.is_empty() || facts.source.is(&self.from))
            && called()
    }

    /// Whether what is tapped is at the end that it should be at.
    fn concerns(&self, facts: &Facts<'_>) -> bool {
        let subject = |end: &End<'_>| {
            let here = self.namespace.is_empty() || end.namespace == self.namespace;
            here && match &self.of {
                Of::Namespace => true,
                Of::Pod(name) => end.pod == name,
                Of::Workload(name) => end.workload == name,
                Of::Service(_) => false,
            }
        };
        let service = || match &self.of {
            Of::Service(name) => facts.service.split_once('/') == Some((self.namespace.as_str(), name)),
            _ => false,
        };
        match self.direction {
            Some(Direction::In) => subject(&facts.destination) || service(),
            Some(Direction::Out) => subject(&facts.source),
            None => subject(&facts.source) || subject(&facts.destination) || service(),
        }
    }

    fn has_status(&self, facts: &Facts<'_>) -> bool {
        match Status::parse(&self.status) {
            None => true,
            Some(Status::Failed) => facts.failed,
            Some(Status::Class(class)) => facts.status / 100 == class,
            Some(Status::Code(code)) => facts.status == code,
        }
    }
}

#[derive(Clone, Copy)]
enum Status {
    Code(u16),
    Class(u16),
    Failed,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "failed" => Some(Self::Failed),
            "1xx" => Some(Self::Class(1)),
            "2xx" => Some(Self::Class(2)),
            "3xx" => Some(Self::Class(3)),
            "4xx" => Some(Self::Class(4)),
            "5xx" => Some(Self::Class(5)),
            code => code.parse().ok().filter(|code| (100..600).contains(code)).map(Self::Code),
        }
    }
}
