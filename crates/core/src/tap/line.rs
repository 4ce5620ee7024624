//! What is sent: records, and the lines that they come in.

use serde::{Deserialize, Serialize};

use super::{LONGEST_LINE, LONGEST_TEXT};

/// A request, or a connection that isn't HTTP (`protocol` is `tcp`), at its end. Texts are empty where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When it ended: RFC 3339, UTC.
    pub time: String,
    /// The proxy that tells: `node n1`, `gateway edge/web-weft-…`.
    pub proxy: String,
    /// `source`, `destination` or `gateway`: where on its way that proxy is.
    pub reporter: String,
    /// Its `x-request-id`.
    pub request_id: String,
    /// The trace that it is part of.
    pub trace_id: String,
    /// The caller's namespace.
    pub source_namespace: String,
    /// What owns the caller's pod.
    pub source_workload: String,
    /// The caller's pod, or the Gateway.
    pub source_pod: String,
    /// The identity it proved, or proves.
    pub source_identity: String,
    /// The address it came from.
    pub source_address: String,
    /// The namespace of who was to answer.
    pub destination_namespace: String,
    /// What owns that pod.
    pub destination_workload: String,
    /// The pod.
    pub destination_pod: String,
    /// Its identity.
    pub destination_identity: String,
    /// The endpoint's socket address.
    pub endpoint: String,
    /// The Service port that was dialled, namespace/name:port.
    pub service: String,
    /// The route: kind/namespace/name.
    pub route: String,
    /// The rule's place in it, from 0.
    pub rule: String,
    /// `http1`, `http2`, `http3`, `grpc` or `tcp`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// The host.
    pub authority: String,
    /// The path; with the query if that was asked for.
    pub path: String,
    /// The status; 0: there is none.
    pub status: u16,
    /// The gRPC status.
    pub grpc_status: String,
    /// The reason code.
    pub reason: String,
    /// `application`, `proxy` or `network`.
    pub made_by: String,
    /// More on the reason.
    pub detail: String,
    /// From its head to the end of its answer, in milliseconds.
    pub duration_ms: f64,
    /// Bytes of its body, or from the client.
    pub request_bytes: u64,
    /// Bytes of the answer's body, or to the client.
    pub response_bytes: u64,
    /// Attempts to have it answered.
    pub tries: u32,
    /// `mtls`, `local`, `plaintext`…: how it was protected on its way.
    pub connection_security: String,
}

impl Record {
    /// Cuts what a peer has the length of.
    pub fn cut(&mut self) {
        for text in [&mut self.method, &mut self.authority, &mut self.path, &mut self.detail, &mut self.request_id] {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        }
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A request.
    Seen(Box<Record>),
    /// How many were dropped until now, because they were too many for the rate or for the reader. Said when it grows.
    Dropped(u64),
    /// Proxies that are heard from now on.
    Joined(Vec<String>),
    /// One that can't be heard, and why.
    Left {
        /// The proxy.
        proxy: String,
        /// Why.
        why: String,
    },
    /// Nothing has happened for a while.
    Quiet,
    /// It is over, and why; the last line.
    End(String),
}

impl Line {
    /// As it is sent, with its line's end.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads one.
    ///
    /// # Errors
    /// If it is none that this version knows.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

/// Bytes, as they come, into lines.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

/// What is no answer to a tap.
#[derive(Debug, thiserror::Error)]
pub enum NoLine {
    /// It doesn't end.
    #[error("a line is longer than {LONGEST_LINE} bytes")]
    Long,
    /// It isn't one that this version knows.
    #[error("a line can't be read: {0}")]
    Odd(#[from] serde_json::Error),
}

impl Lines {
    /// The lines that end in these bytes, together with those before.
    ///
    /// # Errors
    /// If something else comes than lines of a tap: nothing after it can be read either.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Line>, NoLine> {
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
            return if self.begun.len() > LONGEST_LINE { Err(NoLine::Long) } else { Ok(Vec::new()) };
        };
        let rest = self.begun.split_off(end.saturating_add(1));
        let whole = std::mem::replace(&mut self.begun, rest);
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Ok(Line::parse(line)?)).collect()
    }
}
