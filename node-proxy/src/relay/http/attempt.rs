//! What comes of the tries of one request.

use std::net::SocketAddr;
use std::rc::Rc;

use http::Response;
use smallvec::SmallVec;
use tokio::time::Instant;
use weft_core::reason::Reason;

use super::finish::grpc_status;
use super::mark;
use super::trail::Step;
use crate::balance::{InFlight, Outcome, Picked};
use crate::connect::http_pool::{Lease, UpstreamBody};
use crate::connect::{ConnectError, Target};

/// Endpoints that are tried when none could be reached.
pub(super) const MAX_UNSENT: usize = 3;

/// The head of an answer, and what must be held while its body passes.
pub(super) struct Answer {
    pub(super) response: Response<UpstreamBody>,
    /// When it came.
    pub(super) at: Instant,
    pub(super) lease: Lease,
    pub(super) flight: InFlight,
    pub(super) target: Rc<Target>,
    pub(super) tries: u32,
    /// When its body must be there.
    pub(super) limit: Option<Limit>,
    /// Tries before it.
    pub(super) steps: Vec<Step>,
}

/// When something must be over, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) at: Instant,
    pub(super) reason: Reason,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) target: Option<Rc<Target>>,
    pub(super) tries: u32,
    /// All tries.
    pub(super) steps: Vec<Step>,
}

/// What all tries of a request have come to.
#[derive(Default)]
pub(super) struct Tries {
    /// Endpoints that it has been to.
    pub(super) tried: SmallVec<[SocketAddr; 4]>,
    /// Sent requests.
    pub(super) sent: u32,
    /// Tries that the rule's `retry` asked for.
    pub(super) retries: u32,
    /// Endpoints that could not be reached since the last of those.
    pub(super) unreached: usize,
    /// A kept connection lost the request: the next one is fresh, at the same endpoint.
    pub(super) fresh: Option<Picked>,
    /// What those came to that gave no answer to pass on.
    pub(super) steps: Vec<Step>,
}

impl Tries {
    /// Notes a try that came to nothing. A kept connection that was closed meanwhile is no try.
    pub(super) fn note(&mut self, tried: &Tried) {
        let (Tried::Unsent(failed, None) | Tried::Lost(failed, None) | Tried::Hopeless(failed)) = tried else {
            return;
        };
        if let Some(target) = &failed.target {
            self.steps.push(Step::failed(target, failed.reason, &failed.detail));
        }
    }

    /// An endpoint could not be reached. One that nobody knows is passed by.
    pub(super) fn has_not_reached(&mut self, target: Option<&Target>) {
        let Some(target) = target else {
            self.unreached += 1;
            return;
        };
        self.unreached += usize::from(!target.is_skipped(&self.tried));
        self.tried.push(target.address);
    }

    /// Whether the answer is only the destination's proxy's word that the request reached no application, and another endpoint
    /// may be asked: then it is noted as one that could not be reached.
    pub(super) fn turned_away(&mut self, answer: &Answer) -> bool {
        let Some(reason) = mark::never_reached(answer.response.headers(), &answer.target) else { return false };
        if self.unreached + 1 >= MAX_UNSENT {
            return false;
        }
        self.has_not_reached(Some(&answer.target));
        self.steps.push(Step::failed(&answer.target, reason, "its proxy turned the request away"));
        true
    }

    /// Whether nothing was tried yet.
    pub(super) fn is_first(&self) -> bool {
        self.sent == 0 && self.unreached == 0 && self.tried.is_empty()
    }

    /// As logs and metrics count them.
    pub(super) fn count(&self) -> u32 {
        if self.retries == 0 { self.sent } else { self.sent.max(self.retries + 1) }
    }
}

/// What came of one try.
pub(super) enum Tried {
    Answered(Box<Answer>),
    /// Nothing was sent.
    Unsent(Failed, Option<Picked>),
    /// It was sent, and there is no answer.
    Lost(Failed, Option<Picked>),
    /// There will be no answer, whoever is asked.
    Hopeless(Failed),
}

impl Failed {
    pub(super) fn of(error: &ConnectError, target: Rc<Target>, tries: u32) -> Self {
        Self::new(error.reason(), error.to_string(), Some(target), tries)
    }

    pub(super) fn new(reason: Reason, detail: impl Into<String>, target: Option<Rc<Target>>, tries: u32) -> Self {
        Self { reason, detail: detail.into(), target, tries, steps: Vec::new() }
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What an answer says of its endpoint.
pub(super) fn outcome_of(response: &Response<UpstreamBody>) -> Outcome {
    // RESOURCE_EXHAUSTED and UNAVAILABLE of an answer without a body.
    match (response.status().as_u16(), grpc_status(response.headers())) {
        (429, _) | (200, Some(8)) => Outcome::Overloaded,
        (500.., _) | (200, Some(14)) => Outcome::Failed,
        _ => Outcome::Answered,
    }
}
