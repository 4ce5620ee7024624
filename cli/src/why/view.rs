//! What is said of a request.

use std::fmt;

use serde::Serialize;
use weft_core::reason::Reason;
use weft_node_proxy::records::Record;

use crate::reason::{Page, wrapped};
use crate::table;

/// What it may mean that nobody knows a request.
pub const NOT_KEPT: &str = "kept are the last ones that failed or were slow, as long as their proxy runs; \
    --keep-share of a proxy keeps others too";

/// A request's whole story.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    pub request_id: String,
    /// What the client heard: status, reason and whose doing it was.
    pub status: u16,
    pub reason: String,
    pub made_by: String,
    /// The object to look at first.
    pub object: String,
    /// What the reason's page says.
    pub cause: String,
    pub where_to_look: String,
    pub remedy: String,
    /// What each proxy on the way knows, in the order of the way.
    pub way: Vec<Station>,
}

/// A proxy on the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Station {
    /// As [`crate::ask`] names it.
    pub proxy: String,
    #[serde(flatten)]
    pub record: Record,
}

impl Station {
    /// Its place on the way.
    fn place(&self) -> u8 {
        match self.record.reporter.as_str() {
            "gateway" => 0,
            "source" => 1,
            _ => 2,
        }
    }

    /// Whether a pod was asked here, at any try.
    fn asked(&self, pod: &str) -> bool {
        let tried = self.record.attempts.iter().map(|attempt| attempt.workload.as_str());
        !pod.is_empty() && tried.chain([self.record.destination.as_str()]).any(|asked| asked == pod)
    }

    fn has_failed(&self) -> bool {
        matches!(self.record.kept.as_str(), "failed" | "refused")
    }
}

/// Puts what proxies know of a request in the order of its way. An application that passes the id on with what it asks others
/// is called first and calls then: its own calls come after those to it, whatever the clocks of their nodes say.
fn in_order(way: &mut Vec<Station>) {
    let is_above = |upper: &Station, lower: &Station| match (upper.place(), lower.place()) {
        (2, 0 | 1) => !upper.record.destination.is_empty() && upper.record.destination == lower.record.source,
        (0 | 1, 2) => upper.asked(&lower.record.destination),
        _ => false,
    };
    let mut depths = vec![0_usize; way.len()];
    // As many rounds as a way can have hops: what calls itself in a circle comes to an end, too.
    for _ in 0..way.len() {
        let deeper = |lower: &Station| {
            let above = way.iter().zip(&depths).filter(|(upper, _)| is_above(upper, lower));
            above.map(|(_, depth)| depth + 1).max().unwrap_or(0)
        };
        depths = way.iter().map(deeper).collect();
    }
    let mut placed: Vec<_> = depths.into_iter().zip(way.drain(..)).collect();
    placed.sort_by(|(depth, a), (other, b)| {
        (*depth, a.place(), &a.record.time).cmp(&(*other, b.place(), &b.record.time))
    });
    way.extend(placed.into_iter().map(|(_, station)| station));
}

impl Story {
    /// Of what proxies know of one request; `None`: nothing.
    pub fn of(id: &str, known: Vec<(String, Record)>) -> Option<Self> {
        let mut way: Vec<_> = known.into_iter().map(|(proxy, record)| Station { proxy, record }).collect();
        in_order(&mut way);
        let first = way.first()?;
        // Who is farthest along the way and saw it fail was nearest to the cause.
        let nearest = way.iter().rev().find(|station| station.has_failed()).unwrap_or(first);
        // One that was only slow has nobody who failed.
        let page = Reason::of_code(&nearest.record.reason).filter(|_| nearest.has_failed()).map(Page::of);
        let (cause, where_to_look, remedy) =
            page.map_or_else(Default::default, |page| (page.cause, page.look, page.remedy));
        Some(Self {
            request_id: id.to_owned(),
            status: first.record.status,
            reason: nearest.record.reason.clone(),
            made_by: nearest.record.made_by.clone(),
            object: nearest.record.object.clone(),
            cause,
            where_to_look,
            remedy,
            way,
        })
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.way.first().map(|station| &station.record) else { return Ok(()) };
        writeln!(f, "request   {}", self.request_id)?;
        writeln!(f, "asked     {} {}{} ({})", first.method, first.authority, first.path, first.protocol)?;
        writeln!(f, "answer    {}, {}, made by the {}", status(first), self.reason, self.made_by)?;
        if let Some(station) = self.way.iter().find(|station| !station.record.trace_id.is_empty()) {
            writeln!(f, "trace     {}", station.record.trace_id)?;
        }
        if !self.object.is_empty() {
            writeln!(f, "look at   {}", self.object)?;
        }
        for station in &self.way {
            write!(f, "\n{station}")?;
        }
        for (title, text) in [("cause", &self.cause), ("where to look", &self.where_to_look), ("remedy", &self.remedy)]
        {
            if !text.is_empty() {
                write!(f, "\n{title}\n{}", wrapped(text, "  "))?;
            }
        }
        Ok(())
    }
}

fn status(record: &Record) -> String {
    match (record.status, record.grpc_status.as_str()) {
        (0, "") => "none".to_owned(),
        (status, "") => status.to_string(),
        (status, grpc) => format!("{status} (gRPC {grpc})"),
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.record;
        writeln!(f, "at the {}, {}: {} after {:.1} ms", r.reporter, self.proxy, r.time, r.duration_ms)?;
        let mut line = |name: &str, text: &str| match text.is_empty() {
            true => Ok(()),
            false => writeln!(f, "  {name:<9} {text}"),
        };
        let identity = if r.source_identity.is_empty() { String::new() } else { format!(" as {}", r.source_identity) };
        line("from", &format!("{} {}{identity}", or_unknown(&r.source), r.source_address))?;
        line("to", &named("Service", &r.service))?;
        if !r.route.is_empty() {
            line("rule", &format!("{}, rule {}", r.route.replacen('/', " ", 1), r.rule))?;
        }
        line("backend", &named("Service", if r.backend == r.service { "" } else { &r.backend }))?;
        for (n, attempt) in r.attempts.iter().enumerate() {
            let detail = if attempt.detail.is_empty() { String::new() } else { format!(": {}", attempt.detail) };
            let workload = or_unknown(&attempt.workload);
            line("tried", &format!("{}. {} {workload}, {}{detail}", n + 1, attempt.endpoint, attempt.outcome))?;
        }
        if r.attempts.is_empty() && !r.endpoint.is_empty() {
            line("endpoint", &format!("{} {}", r.endpoint, or_unknown(&r.destination)))?;
        }
        line("answer", &format!("{}, {}", status(r), r.reason))?;
        if !r.answered_by.is_empty() {
            line("by", &format!("the proxy of {}", r.answered_by))?;
        }
        line("detail", &r.detail)
    }
}

fn or_unknown(name: &str) -> &str {
    if name.is_empty() { "unknown" } else { name }
}

fn named(kind: &str, name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{kind} {name}") }
}

/// The last requests that are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Latest(Vec<Station>);

impl Latest {
    /// The newest first.
    pub fn of(known: Vec<(String, Record)>, most: usize) -> Self {
        let mut all: Vec<_> = known.into_iter().map(|(proxy, record)| Station { proxy, record }).collect();
        all.sort_by(|a, b| b.record.time.cmp(&a.record.time));
        all.truncate(most);
        Self(all)
    }
}

impl fmt::Display for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "no proxy has kept a request: {NOT_KEPT}");
        }
        let rows = self.0.iter().map(|station| {
            let r = &station.record;
            let to = if r.service.is_empty() { &r.destination } else { &r.service };
            vec![
                r.time.clone(),
                r.reporter.clone(),
                or_unknown(&r.source).to_owned(),
                or_unknown(to).to_owned(),
                format!("{} {}", r.method, r.path),
                status(r),
                r.reason.clone(),
                r.object.clone(),
                r.request_id.clone(),
            ]
        });
        let header = ["TIME", "AT", "FROM", "TO", "REQUEST", "STATUS", "REASON", "LOOK AT", "ID"];
        write!(f, "{}", table(&header, rows))
    }
}
