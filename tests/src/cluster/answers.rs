//! What the echo client prints, as values.

use std::collections::BTreeMap;
use std::process::Output;

use anyhow::{Result, ensure};

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
    /// What else its body says: a proxy's reason, if it was one that answered.
    pub said: String,
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
            let answer = answers.entry(number).or_default();
            let Some((name, value)) = field.split_once('=') else {
                answer.said.push_str(field);
                continue;
            };
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

    /// Whether `count` requests were made, and all answered with this status.
    ///
    /// # Errors
    /// With how many were answered otherwise, how, and what the client says.
    pub fn all(&self, count: usize, status: u16) -> Result<()> {
        let mut others = BTreeMap::<_, usize>::new();
        for answer in self.list.iter().filter(|answer| answer.status != status) {
            *others.entry((answer.status, answer.hostname.as_str(), answer.said.as_str())).or_default() += 1;
        }
        ensure!(
            self.list.len() == count && others.is_empty() && self.error.is_empty(),
            "{} of {count} answered, other than {status}: {others:?}; the client says {:?}",
            self.list.len(),
            self.error
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_is_named() {
        let output = |text: &str| Output {
            status: ExitStatus::from_raw(0),
            stdout: text.as_bytes().to_vec(),
            stderr: Vec::new(),
        };
        let good = "[0] StatusCode=200\n[0 body] Hostname=a-1\n";
        let bad = "[1] StatusCode=503\n[1 body] no_endpoint\n[2] StatusCode=503\n[2 body] no_endpoint\n";
        assert!(Answers::parse(&output(good)).all(1, 200).is_ok());
        let said = Answers::parse(&output(&format!("{good}{bad}"))).all(4, 200).unwrap_err().to_string();
        assert!(said.contains("3 of 4") && said.contains("(503, \"\", \"no_endpoint\"): 2"), "{said}");
        assert!(Answers::parse(&output(good)).all(2, 200).is_err(), "one is missing");
    }
}
