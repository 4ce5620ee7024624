//! A dashboard as a value: what it asks, how it shows the answers, and where a click leads. [`json`] is Grafana's form.

mod json;
mod options;

pub use json::json;

use crate::Needs;

/// Every dashboard there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Board {
    /// The whole mesh; where one begins.
    Overview,
    /// A team's namespace.
    Namespace,
    /// A Service, by whoever answers.
    Service,
    /// A workload as server and client.
    Workload,
    /// A route, its backends side by side.
    Route,
    /// A Gateway and its clients from outside.
    Gateway,
    /// A node's proxy.
    NodeProxy,
    /// Controller, authority and agents.
    ControlPlane,
    /// Who may what, and what is encrypted.
    Security,
}

impl Board {
    /// All, in the order of menus.
    pub const ALL: [Self; 9] = [
        Self::Overview,
        Self::Namespace,
        Self::Service,
        Self::Workload,
        Self::Route,
        Self::Gateway,
        Self::NodeProxy,
        Self::ControlPlane,
        Self::Security,
    ];

    /// Grafana's key of it, which links have; it never changes.
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Overview => "weft-overview",
            Self::Namespace => "weft-namespace",
            Self::Service => "weft-service",
            Self::Workload => "weft-workload",
            Self::Route => "weft-route",
            Self::Gateway => "weft-gateway",
            Self::NodeProxy => "weft-node-proxy",
            Self::ControlPlane => "weft-control-plane",
            Self::Security => "weft-security",
        }
    }

    /// What people read.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Weft / Mesh overview",
            Self::Namespace => "Weft / Namespace",
            Self::Service => "Weft / Service",
            Self::Workload => "Weft / Workload",
            Self::Route => "Weft / Route",
            Self::Gateway => "Weft / Gateway",
            Self::NodeProxy => "Weft / Node proxy",
            Self::ControlPlane => "Weft / Control plane and CA",
            Self::Security => "Weft / Security",
        }
    }
}

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Which one.
    pub board: Board,
    /// The questions of somebody on call that it answers.
    pub questions: Vec<&'static str>,
    /// What can be chosen, besides `$datasource`, `$cluster` and `$namespace`, which all have.
    pub variables: Vec<Variable>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

impl Dashboard {
    /// All panels.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }
}

/// A variable whose values are those of a label.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Without the `$`.
    pub name: &'static str,
    /// What people read.
    pub label: &'static str,
    /// The series that have the label.
    pub of: String,
    /// The label.
    pub values: &'static str,
}

/// Panels under one heading.
#[derive(Clone, Debug)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// From left to right.
    pub panels: Vec<Panel>,
}

/// A panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What people read.
    pub title: &'static str,
    /// The question it answers, for the panel's description.
    pub answers: &'static str,
    /// How it looks.
    pub view: View,
    /// Of its numbers; in a table each query's own is.
    pub unit: Unit,
    /// Of 24.
    pub width: u8,
    /// In rows of Grafana's grid.
    pub height: u8,
    /// What it asks.
    pub queries: Vec<Query>,
    /// Where a click leads.
    pub links: Vec<Link>,
}

/// How a panel looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Lines over time.
    Lines,
    /// Areas over time, one on top of the other.
    Stack,
    /// One number, red below the first and green above the second bound, or without colours.
    Number(Option<Bounds>),
    /// A row for each combination of these labels (label, heading), a column for each query.
    Table(Vec<(&'static str, &'static str)>),
    /// Nodes and edges; see [`crate::dashboards::graph`].
    Graph,
}

/// From where on a number is bad and good, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Below this it is red; with [`Bounds::more_is_worse`] from this on.
    pub red: &'static str,
    /// Between the two it is yellow.
    pub green: &'static str,
}

impl Bounds {
    /// Whether large numbers are the bad ones.
    pub fn more_is_worse(&self) -> bool {
        let number = |text: &str| text.parse::<f64>().unwrap_or_default();
        number(self.red) > number(self.green)
    }
}

/// What numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Just a number.
    Count,
    /// Requests in a second.
    Requests,
    /// Something else in a second.
    PerSecond,
    /// A share of 1.
    Share,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
}

impl Unit {
    /// Grafana's name of it.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Requests => "reqps",
            Self::PerSecond => "cps",
            Self::Share => "percentunit",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
        }
    }
}

/// One query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// PromQL with variables of the dashboard.
    pub expr: String,
    /// The legend, with `{{label}}`; in a table the heading of the column.
    pub legend: &'static str,
    /// Of its numbers, in a table.
    pub unit: Unit,
    /// When it returns data.
    pub needs: Needs,
    /// Whether it is a histogram's, whose exemplars lead to traces.
    pub exemplars: bool,
}

/// Where a click on a point or a row leads. Data source, cluster, namespace and time are kept.
#[derive(Clone, Debug)]
pub struct Link {
    /// The dashboard.
    pub to: Board,
    /// What people read.
    pub title: &'static str,
    /// In a table, the heading of the column that has the link.
    pub on: &'static str,
    /// Variables that are set, and the label that each is set to.
    pub sets: Vec<(&'static str, &'static str)>,
}

impl Panel {
    /// A panel of a third of the width.
    pub fn new(title: &'static str, answers: &'static str, view: View, unit: Unit) -> Self {
        let (queries, links) = Default::default();
        Self { title, answers, view, unit, width: 8, height: 8, queries, links }
    }

    /// And its size.
    #[must_use]
    pub fn sized(self, width: u8, height: u8) -> Self {
        Self { width, height, ..self }
    }

    /// And one more query.
    #[must_use]
    pub fn ask(self, legend: &'static str, expr: impl Into<String>) -> Self {
        let unit = self.unit;
        self.column(legend, unit, expr)
    }

    /// And one more query, of numbers of another unit.
    #[must_use]
    pub fn column(mut self, legend: &'static str, unit: Unit, expr: impl Into<String>) -> Self {
        let expr = expr.into();
        let exemplars = expr.contains("_bucket{") && matches!(self.view, View::Lines);
        self.queries.push(Query { expr, legend, unit, needs: Needs::Traffic, exemplars });
        self
    }

    /// And what the last query needs to return data.
    #[must_use]
    pub fn when(mut self, needs: Needs) -> Self {
        if let Some(query) = self.queries.last_mut() {
            query.needs = needs;
        }
        self
    }

    /// And what all queries so far need.
    #[must_use]
    pub fn all_when(mut self, needs: Needs) -> Self {
        self.queries.iter_mut().for_each(|query| query.needs = needs);
        self
    }

    /// And a link.
    #[must_use]
    pub fn link(
        mut self,
        to: Board,
        title: &'static str,
        on: &'static str,
        sets: &[(&'static str, &'static str)],
    ) -> Self {
        self.links.push(Link { to, title, on, sets: sets.to_vec() });
        self
    }
}
