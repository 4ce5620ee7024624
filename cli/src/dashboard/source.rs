//! Where the page's numbers come from.

use std::path::PathBuf;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};
use weft_core::reason::Reason;

use super::local::Local;
use super::remote::Remote;
use crate::ask::Whom;
use crate::cluster::{Finding, Target, ViewArgs};
use crate::reason::Page;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Which namespaces there are, and which mesh it is.
    Namespaces,
    /// Who calls whom.
    Graph,
    /// Rules with the split of their requests.
    Routes,
    /// What ends when.
    Certificates,
    /// What is wrong, and what to do.
    Problems,
}

impl View {
    /// By its name in a path.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "namespaces" => Self::Namespaces,
            "graph" => Self::Graph,
            "routes" => Self::Routes,
            "certificates" => Self::Certificates,
            "problems" => Self::Problems,
            _ => return None,
        })
    }
}

/// Why there is no answer, in a sentence for who reads the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As HTTP has it.
    pub status: StatusCode,
    /// The sentence.
    pub why: String,
}

impl Refused {
    /// With a status and a sentence.
    pub fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, format!("{error:#}"))
    }
}

/// Who is asked.
pub enum Source {
    /// Proxies of nodes without Kubernetes.
    Local(Box<Local>),
    /// A cluster's controller.
    Remote(Box<Remote>),
    /// Answers that are there already.
    #[cfg(test)]
    Fixed(fn(View, Option<&str>) -> Result<Value, Refused>),
}

impl Source {
    /// As `weft stat` and `weft status` choose: what is named, else this node if it is one of a mesh without Kubernetes, else the
    /// cluster.
    ///
    /// # Errors
    /// It can't be asked.
    pub async fn choose(
        run: Option<PathBuf>,
        proxies: &Whom,
        (target, view): (&Target, ViewArgs),
    ) -> anyhow::Result<Self> {
        let here = run.clone().unwrap_or_else(|| PathBuf::from("/run/weft"));
        let is_named = run.is_some() || !proxies.admin.is_empty();
        if is_named || (!target.is_given() && here.join("status.sock").exists()) {
            return Ok(Self::Local(Box::new(Local::new(here, proxies).await?)));
        }
        Ok(Self::Remote(Box::new(Remote::connect(target.clone(), view).await?)))
    }

    /// The JSON of a view, of one namespace or of all.
    ///
    /// # Errors
    /// What is not to be had, or may not be viewed.
    pub async fn answer(&self, view: View, namespace: Option<&str>) -> Result<Bytes, Refused> {
        match self {
            Self::Local(local) => local.answer(view, namespace).await,
            Self::Remote(remote) => remote.answer(view, namespace).await,
            #[cfg(test)]
            Self::Fixed(answer) => answer(view, namespace).and_then(|value| json_of(&value)),
        }
    }
}

/// A value as the page gets it.
///
/// # Errors
/// None in practice.
pub fn json_of(value: &impl Serialize) -> Result<Bytes, Refused> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Refused::from(anyhow::Error::from(error)))
}

/// What is wrong: what checks have found, what fails now with the page of each reason, and who couldn't be asked.
pub fn problems(findings: &[Finding], failures: &Value, unread: &[String]) -> Value {
    let failing = failures.get("failures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let codes = failing.iter().filter_map(|it| it.get("reason")?.as_str());
    let page = |code: &str| match Reason::of_code(code) {
        Some(reason) => serde_json::to_value(Page::of(reason)).unwrap_or_default(),
        None => json!({
            "cause": "The application answered that it failed: a status of 500 and up, or a gRPC status that says so.",
            "look": "Its own log. `weft why` lists the last requests that failed, with their ids and traces.",
            "remedy": "Mend the application, or send its requests elsewhere: a route's weights, or the version before.",
        }),
    };
    let reasons: Map<String, Value> = codes.map(|code| (code.to_owned(), page(code))).collect();
    json!({
        "seconds": failures.get("seconds"), "findings": findings, "failures": failures, "reasons": reasons, "unread": unread,
    })
}

/// Findings about a namespace, and those about none.
pub fn concerning(findings: &[Finding], namespace: Option<&str>) -> Vec<Finding> {
    let is_of = |object: &str, namespace: &str| {
        // `Kind namespace/name`, or an identity.
        let of_identity = object.split_once("/ns/").and_then(|(_, rest)| rest.split('/').next());
        let mut named = object.split_whitespace().filter_map(|word| word.split_once('/')).map(|(place, _)| place);
        of_identity.or_else(|| named.next()).is_none_or(|place| place == namespace)
    };
    let of = findings.iter().filter(|it| namespace.is_none_or(|namespace| is_of(&it.object, namespace)));
    of.cloned().collect()
}
