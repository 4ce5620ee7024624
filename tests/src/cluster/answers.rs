//! What the echo client prints, as values.

use std::collections::BTreeMap;
use std::process::Output;

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The pod that answered.
    pub hostname: String,
    /// The client's address as that pod saw it.
    pub client: String,
    /// The response's headers, as `Name:value`.
    pub response: Vec<String>,
    /// The request's headers as that pod got them.
    pub request: Vec<String>,
}

/// The answers of one run of the client.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// In the order of the requests; those that got none are missing.
    pub list: Vec<Answer>,
    /// Why the client was not content; empty if all requests were answered.
    pub error: String,
}

impl Answers {
    /// Reads the client's output.
    pub fn parse(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let mut answers = BTreeMap::<u32, Answer>::new();
        for line in text.lines() {
            let Some((number, field)) = line.strip_prefix('[').and_then(|l| l.split_once("] ")) else { continue };
            let Ok(number) = number.trim_end_matches(" body").parse() else { continue };
            let Some((name, value)) = field.split_once('=') else { continue };
            let answer = answers.entry(number).or_default();
            match name {
                "StatusCode" => answer.status = value.parse().unwrap_or_default(),
                "Hostname" => value.clone_into(&mut answer.hostname),
                "IP" => value.clone_into(&mut answer.client),
                "ResponseHeader" => answer.response.push(value.to_owned()),
                "RequestHeader" => answer.request.push(value.to_owned()),
                _ => {}
            }
        }
        let error = if output.status.success() {
            String::new()
        } else {
            let failed = text.lines().filter(|l| l.contains("rror")).collect::<Vec<_>>().join("; ");
            format!("{failed}{}", String::from_utf8_lossy(&output.stderr))
        };
        Self { list: answers.into_values().filter(|a| a.status > 0).collect(), error }
    }

    /// How many came from pods whose name begins so.
    pub fn from(&self, pod: &str) -> usize {
        self.list.iter().filter(|a| a.hostname.starts_with(pod)).count()
    }

    /// How many have this status.
    pub fn with_status(&self, status: u16) -> usize {
        self.list.iter().filter(|a| a.status == status).count()
    }
}
