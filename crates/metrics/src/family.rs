//! What a metric says about itself.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A metric: what it is called, what it tells, and what tells its series apart. Two of one name are one.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// As the page has it: with the unit, and `_total` for a counter.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// The names of its labels, in groups, beside `le`.
    pub labels: &'static [&'static [&'static str]],
    /// What it tells: a sentence or more, on one line.
    pub help: &'static str,
    /// Who has it.
    pub components: &'static [Component],
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It only grows, until the process starts anew.
    Counter,
    /// What is now.
    Gauge,
    /// Counts below bounds, their number and their sum; none of them ever falls.
    Histogram,
}

impl Kind {
    /// As pages name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Things.
    None,
    /// Seconds; since 1970 where the name says `timestamp`.
    Seconds,
    /// Thousandths of a second: only where somebody else's names want it.
    Milliseconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The word in the name; empty without one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Bytes => "bytes",
        }
    }
}

/// A program that has a page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// `weft-node-proxy`: of a node, or of a Gateway.
    Proxy,
    /// `weft-controller`.
    Controller,
    /// `weft-ca`.
    Ca,
    /// `weft-agent`.
    Agent,
}

impl Component {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Proxy, Self::Controller, Self::Ca, Self::Agent];

    /// As the label `component` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Controller => "controller",
            Self::Ca => "ca",
            Self::Agent => "agent",
        }
    }
}

impl Family {
    /// The names of its labels, in the order in which they are written.
    pub fn label_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.labels.iter().flat_map(|group| group.iter().copied())
    }

    /// The two lines before its samples, in the text format.
    pub fn head(&self) -> String {
        let Self { name, help, kind, .. } = self;
        format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str())
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

impl Hash for Family {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for Family {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Family {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(other.name)
    }
}
