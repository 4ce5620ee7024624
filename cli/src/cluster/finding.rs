//! What checks find, and how a report of them looks.

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Works, but not as well or not for long.
    Warning,
    /// Couldn't be looked at.
    Unknown,
    /// Doesn't work.
    Error,
}

impl Severity {
    /// As reports spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Error => "error",
        }
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// Where: an object, a node.
    pub object: String,
    /// What is the matter with it.
    pub what: String,
    /// What to do; empty if nothing needs to be done.
    pub remedy: String,
}

impl Finding {
    /// A finding.
    pub fn new(severity: Severity, object: impl Into<String>, what: impl Into<String>) -> Self {
        Self { severity, object: object.into(), what: what.into(), remedy: String::new() }
    }

    /// With what to do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} {}: {}", self.severity.as_str(), self.object, self.what)?;
        self.remedy.lines().enumerate().try_for_each(|(i, line)| match i {
            0 => writeln!(f, "    to do: {line}"),
            _ => writeln!(f, "           {line}"),
        })
    }
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    /// What was looked at, in a few words.
    pub summary: String,
    pub findings: Vec<Finding>,
}

impl Check {
    /// A check with its result.
    pub fn new(name: &'static str, summary: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self { name, summary: summary.into(), findings }
    }

    /// One that couldn't be made.
    pub fn unknown(name: &'static str, why: &super::facts::Unread) -> Self {
        let finding = Finding::new(Severity::Unknown, why.what.clone(), why.why.clone());
        Self::new(name, "", vec![finding.remedy("let this account read it, or ask somebody who may")])
    }

    /// The worst that was found.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.severity).max()
    }
}

/// All that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
}

impl Report {
    /// Findings of all checks, the worst first.
    pub fn findings(&self) -> Vec<&Finding> {
        let mut all: Vec<_> = self.checks.iter().flat_map(|c| &c.findings).collect();
        all.sort_by_key(|f| std::cmp::Reverse(f.severity));
        all
    }

    /// 1 if something doesn't work, 2 if that can't be said, else 0.
    pub fn code(&self) -> u8 {
        match self.checks.iter().filter_map(Check::severity).max() {
            Some(Severity::Error) => 1,
            Some(Severity::Unknown) => 2,
            Some(Severity::Warning | Severity::Note) | None => 0,
        }
    }

    /// [`Self::code`] for the shell.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let severity = check.severity().map_or("ok", Severity::as_str);
            let line = format!("{severity:<8} {:<24} {}", check.name, check.summary);
            writeln!(f, "{}", line.trim_end())?;
            check.findings.iter().try_for_each(|finding| write!(f, "{finding}"))?;
        }
        let count = |severity| self.checks.iter().flat_map(|c| &c.findings).filter(|f| f.severity == severity).count();
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let mut counts = vec![plural(self.checks.len(), "check"), plural(count(Severity::Error), "error")];
        counts.push(plural(count(Severity::Warning), "warning"));
        counts.push(plural(count(Severity::Note), "note"));
        match count(Severity::Unknown) {
            0 => {}
            n => counts.push(format!("{n} not known")),
        }
        writeln!(f, "\n{}", counts.join(", "))
    }
}
