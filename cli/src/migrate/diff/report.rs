//! What differs, for people and programs.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::certificates;
use super::client::Outcome;
use super::compare::Difference;
use super::requests::Request;

/// A request whose answers differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Method and URL.
    pub request: String,
    pub differences: Vec<Difference>,
}

/// A host whose certificates differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificates {
    pub host: String,
    pub differences: Vec<Difference>,
}

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Requests that were sent.
    pub requests: usize,
    /// Requests that weren't, because they may change something.
    pub left_out: usize,
    pub differing: Vec<Pair>,
    pub certificates: Vec<Certificates>,
    /// Hosts whose certificates have been compared.
    #[serde(skip)]
    seen: BTreeSet<String>,
}

impl Report {
    /// Of so many requests, and so many that are not sent.
    pub fn new(requests: usize, left_out: usize) -> Self {
        Self { requests, left_out, ..Self::default() }
    }

    /// Compares the certificates of a request's host, once for each host: with the first answers that show some.
    pub fn certificate(&mut self, request: &Request, (old, new): (&Outcome, &Outcome)) {
        let host = request.host();
        if old.chain.is_empty() || new.chain.is_empty() || !self.seen.insert(host.to_owned()) {
            return;
        }
        let differences = certificates::compare(&old.chain, &new.chain);
        if !differences.is_empty() {
            self.certificates.push(Certificates { host: host.to_owned(), differences });
        }
    }

    /// Whether anything does.
    pub fn differs(&self) -> bool {
        !self.differing.is_empty() || !self.certificates.is_empty()
    }
}

fn rows(f: &mut fmt::Formatter<'_>, differences: &[Difference]) -> fmt::Result {
    for difference in differences {
        let text = |side: &Option<String>| side.clone().unwrap_or_else(|| "(not there)".to_owned());
        writeln!(f, "  {}", difference.what)?;
        writeln!(f, "    old: {}", text(&difference.old))?;
        writeln!(f, "    new: {}", text(&difference.new))?;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pair in &self.differing {
            writeln!(f, "{}", pair.request)?;
            rows(f, &pair.differences)?;
        }
        for certificate in &self.certificates {
            writeln!(f, "certificate of {}", certificate.host)?;
            rows(f, &certificate.differences)?;
        }
        let (sent, differ, hosts) = (self.requests, self.differing.len(), self.certificates.len());
        writeln!(f, "{sent} requests, {differ} answers differ, certificates of {hosts} hosts differ")?;
        if self.left_out > 0 {
            let left = self.left_out;
            writeln!(f, "{left} requests were not sent because they may change something; --all-methods sends them")?;
        }
        Ok(())
    }
}
