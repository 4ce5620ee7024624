//! The requests of late that failed or took long, for whoever asks what became of one by its id (`weft why`).
//!
//! Each worker has a ring of its own, limited in number and in bytes: what is new pushes out what is old, and what failed
//! is kept apart from what was refused, which any client can bring about, and from what was only slow or picked at random.
//! Only the admin server, on loopback, shows them. A record has
//! what the access log has, and no more of a client's words: no query, no headers but the id and the host, no body.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weft_core::reason::Reason;

use crate::util::clip;

/// The longest path, host or detail that is kept, in bytes.
pub(crate) const LONGEST: usize = 512;
/// What a record takes beside its texts, in bytes, somewhat more than it is.
const BASE: usize = 640;
/// What an attempt takes beside its texts.
const ATTEMPT: usize = 128;
/// The gRPC statuses by which a server says that it failed: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE
/// and DATA_LOSS.
const FAILED_GRPC: [u8; 6] = [2, 4, 12, 13, 14, 15];
/// Attempts of one request that are kept: the first ones.
pub const MAX_ATTEMPTS: usize = 16;

/// One request; texts are empty where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its `x-request-id`, or the one it was given.
    pub request_id: String,
    /// The trace that it is part of, sampled or not; empty if nobody said.
    pub trace_id: String,
    /// When it ended: RFC 3339, UTC.
    pub time: String,
    /// `source`, `destination` or `gateway`: where on its way the proxy that tells this is.
    pub reporter: String,
    /// Who called: namespace/name; at a Gateway the Gateway's workload.
    pub source: String,
    /// The identity it proved, or proves.
    pub source_identity: String,
    /// The address it came from.
    pub source_address: String,
    /// Who was to answer: namespace/name.
    pub destination: String,
    /// Where: the endpoint's socket address.
    pub endpoint: String,
    /// The Service port that was dialled, namespace/name:port.
    pub service: String,
    /// The Service port that the rule sends it to.
    pub backend: String,
    /// The route whose rule matched: kind/namespace/name.
    pub route: String,
    /// The rule's place in it, from 0.
    pub rule: String,
    /// `http1`, `http2`, `http3` or `grpc`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// The host.
    pub authority: String,
    /// The path, without the query.
    pub path: String,
    /// The status of the answer, also where a gRPC client was told by another one; 0: there was none.
    pub status: u16,
    /// The gRPC status.
    pub grpc_status: String,
    /// Why: a reason code.
    pub reason: String,
    /// `application`, `proxy` or `network`: whose doing it is.
    pub made_by: String,
    /// The namespace and name of the workload whose proxy answered, where one did.
    pub answered_by: String,
    /// More on why, for people.
    pub detail: String,
    /// The object to look at first, such as `HTTPRoute shop/canary, rule 1`.
    pub object: String,
    /// The endpoints that it was sent to, in order.
    pub attempts: Vec<Attempt>,
    /// From its head to the end of its answer, in milliseconds.
    pub duration_ms: f64,
    /// `failed`, `refused`, `slow` or `sampled`: why it is kept.
    pub kept: String,
}

/// One try.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The endpoint's socket address.
    pub endpoint: String,
    /// The workload there, namespace/name.
    pub workload: String,
    /// A status, or a reason code.
    pub outcome: String,
    /// More on the reason.
    pub detail: String,
}

/// Which requests are kept, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// Requests that failed, of one worker.
    pub failed: usize,
    /// Requests that were refused or that the client gave up, of one worker.
    pub refused: usize,
    /// Others, of one worker.
    pub others: usize,
    /// Bytes of each of the three.
    pub bytes: usize,
    /// Those are kept whose answer took longer to begin; `None`: none.
    pub slower_than: Option<Duration>,
    /// The share of all others that is kept, 0 to 1.
    pub share: f64,
}

impl Default for Keep {
    fn default() -> Self {
        let slower_than = Some(Duration::from_secs(1));
        Self { failed: 512, refused: 256, others: 128, bytes: 512 << 10, slower_than, share: 0.0 }
    }
}

/// Why a request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It has a status of 500 and up or a gRPC status that is the server's failure, or its answer broke off.
    Failed,
    /// A proxy refused it with another status, or the client gave it up: a client alone can have as many as it likes.
    Refused,
    /// Its answer began late.
    Slow,
    /// By chance.
    Sampled,
}

impl Kept {
    /// As records name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Sampled => "sampled",
        }
    }
}

/// The records of a process.
#[derive(Clone, Debug, Default)]
pub struct Records {
    keep: Keep,
    rings: Arc<Mutex<Vec<Arc<Ring>>>>,
}

impl Records {
    /// None yet.
    pub fn new(keep: Keep) -> Self {
        Self { keep, rings: Arc::default() }
    }

    /// A ring for one more worker.
    pub fn ring(&self) -> Arc<Ring> {
        let (failed, refused, others) = (Mutex::default(), Mutex::default(), Mutex::default());
        let ring = Arc::new(Ring { keep: self.keep, failed, refused, others });
        self.rings.lock().push(Arc::clone(&ring));
        ring
    }

    /// Those with an id, or all for `None`: the newest first, `most` at most.
    pub fn find(&self, id: Option<&str>, most: usize) -> Vec<Record> {
        let rings = self.rings.lock().clone();
        let mut found: Vec<Record> = Vec::new();
        for ring in rings {
            for queue in [&ring.failed, &ring.refused, &ring.others] {
                let queue = queue.lock();
                let wanted = queue.records.iter().rev().filter(|record| id.is_none_or(|id| record.request_id == id));
                found.extend(wanted.take(most).map(|record| Record::clone(record)));
            }
        }
        // All times are of one form and in UTC, so their text sorts as they do.
        found.sort_by(|a, b| b.time.cmp(&a.time));
        found.truncate(most);
        found
    }
}

/// The records of one worker. Its locks are the worker's own but for the moments in which the admin server looks.
#[derive(Debug)]
pub struct Ring {
    keep: Keep,
    failed: Mutex<Queue>,
    refused: Mutex<Queue>,
    others: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Box<Record>>,
    bytes: usize,
}

impl Ring {
    /// Whether a request is kept, and why; with its gRPC status, if it has one. `head` is the time until its answer began.
    pub fn wants(&self, (status, grpc): (u16, Option<u8>), reason: Reason, head: Duration) -> Option<Kept> {
        let failed = status >= 500 || grpc.is_some_and(|status| FAILED_GRPC.contains(&status));
        let kept = match reason {
            _ if failed => Some(Kept::Failed),
            Reason::Ok | Reason::Redirect | Reason::CorsPreflight => None,
            Reason::DownstreamReset => Some(Kept::Refused),
            // An answer that began well.
            _ if (200..400).contains(&status) && grpc.is_none() => Some(Kept::Failed),
            _ => Some(Kept::Refused),
        };
        if kept.is_some() {
            return kept;
        }
        if self.keep.slower_than.is_some_and(|limit| head > limit) {
            return Some(Kept::Slow);
        }
        (self.keep.share > 0.0 && fastrand::f64() < self.keep.share).then_some(Kept::Sampled)
    }

    /// Keeps a record. Texts that are too long are cut.
    pub fn push(&self, mut record: Box<Record>, kept: Kept) {
        record.kept = kept.as_str().to_owned();
        record.attempts.truncate(MAX_ATTEMPTS);
        record.attempts.shrink_to_fit();
        record.cut();
        let (queue, most) = match kept {
            Kept::Failed => (&self.failed, self.keep.failed),
            Kept::Refused => (&self.refused, self.keep.refused),
            Kept::Slow | Kept::Sampled => (&self.others, self.keep.others),
        };
        queue.lock().push(record, most, self.keep.bytes);
    }
}

impl Queue {
    fn push(&mut self, record: Box<Record>, most: usize, bytes: usize) {
        self.bytes += record.size();
        self.records.push_back(record);
        while self.records.len() > most || self.bytes > bytes {
            let Some(oldest) = self.records.pop_front() else { return };
            self.bytes -= oldest.size();
        }
    }
}

impl Record {
    fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let own = [&mut self.authority, &mut self.path, &mut self.method, &mut self.detail, &mut self.object];
        own.into_iter().chain(self.attempts.iter_mut().map(|attempt| &mut attempt.detail))
    }

    /// Cuts what a peer has the length of; what was cut off takes no room either.
    fn cut(&mut self) {
        for text in self.texts() {
            text.truncate(clip(text, LONGEST).len());
            text.shrink_to_fit();
        }
    }

    /// The room that it takes, which isn't what its texts need.
    fn size(&self) -> usize {
        let Self { request_id, trace_id, time, reporter, source, source_identity, source_address, .. } = self;
        let Self { destination, endpoint, service, backend, route, rule, protocol, .. } = self;
        let Self { method, authority, path, grpc_status, reason, made_by, answered_by, detail, object, .. } = self;
        let first = [request_id, time, reporter, source, source_identity, source_address, destination, endpoint];
        let more = [service, backend, route, rule, protocol, method, authority, path, grpc_status, reason];
        let last = [made_by, answered_by, detail, object, trace_id, &self.kept];
        let own: usize = first.into_iter().chain(more).chain(last).map(String::capacity).sum();
        let attempt = |it: &Attempt| {
            let texts = [&it.endpoint, &it.workload, &it.outcome, &it.detail];
            ATTEMPT + texts.into_iter().map(String::capacity).sum::<usize>()
        };
        BASE + own + self.attempts.iter().map(attempt).sum::<usize>()
    }
}
