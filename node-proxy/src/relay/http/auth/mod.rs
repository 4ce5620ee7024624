//! External authorization (GEP-1494): somebody else is asked whether a request may pass, once for each request.
//!
//! ```text
//!  request -> [its body, if the authorizer wants to see it] -> authorizer -> yes: its changes, then on to the backend
//!                                                                         -> no: its answer is the client's
//! ```
//!
//! Invariant: nothing of a request reaches a backend or a mirror before every authorizer has said yes. Whoever can't be
//! asked, doesn't answer in time, or says what can't be understood, has said no.

mod check;
mod envoy;
pub mod fuzzing;
mod refuse;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use tokio::time::{Duration, Instant};
use weft_core::filter::{ForwardPlan, Grant};
use weft_core::reason::Reason;
use weft_core::route::{BackendTarget, ExternalAuth};

use super::body::Progress;
use super::client::{ClientBody, WholeBody};
use super::downstream::{Caller, Downstream};
use super::engine::View;
use super::finish::Asked;
use super::forward::{Answer, deadline};
use super::replay::Source;
use crate::telemetry::{DESTINATION_SERVICE, EventLabels, WorkloadLabel, families};

/// The longest that one authorizer may take, its connection included; the rule's own `timeouts.request` may be shorter.
pub(crate) const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// Who asks, and about what.
pub(super) struct Asking<'a> {
    pub(super) conn: &'a Rc<Downstream>,
    pub(super) caller: &'a Caller,
    pub(super) view: &'a View,
    pub(super) asked: &'a Asked,
}

/// What an authorizer is told.
struct Question<'a> {
    parts: &'a Parts,
    /// The request's, as the filters in front of the authorizer make them.
    headers: HeaderMap,
    /// All of it, if the authorizer wants to see it.
    body: Option<Bytes>,
    /// When there must be an answer.
    until: Instant,
}

/// Why a request doesn't pass.
pub(super) enum Refusal {
    /// Nobody said yes or no: why, and more for the log.
    Failed(Reason, String),
    /// The authorizer's no, by its name.
    Denied(String, Box<Denial>),
}

/// What the client is answered.
pub(super) enum Denial {
    /// The authorizer's answer, as it comes.
    Http(Box<Answer>),
    /// What it told us to answer.
    Told { status: StatusCode, headers: HeaderMap, body: Bytes },
}

impl Refusal {
    fn failed(who: &str, why: impl std::fmt::Display) -> Self {
        Self::Failed(Reason::AuthFailed, format!("authorizer {who}: {why}"))
    }
}

impl Asking<'_> {
    /// Asks every authorizer of a plan in turn, which takes their changes; the body again.
    ///
    /// # Errors
    /// One of them doesn't say yes, or the body is too long to be shown.
    pub(super) async fn permit(
        &self,
        parts: &Parts,
        mut body: ClientBody,
        plan: &mut ForwardPlan<'_>,
    ) -> Result<ClientBody, Refusal> {
        let limit = deadline(self.asked.started, plan.timeouts.request);
        if let Some(most) = plan.shown_body().filter(|_| !body.is_end_stream()) {
            body = ClientBody::Whole(Box::new(self.whole(body, most as usize, limit).await?));
        }
        let shown = match &body {
            ClientBody::Whole(body) => body.data.clone(),
            _ => Bytes::new(),
        };
        while let Some(auth) = plan.next_authorizer() {
            let mut headers = parts.headers.clone();
            plan.apply_request(&mut headers);
            let own = Instant::now() + CHECK_LIMIT;
            let question = Question {
                parts,
                headers,
                body: auth.max_body.map(|_| shown.clone()),
                until: limit.map_or(own, |limit| limit.min(own)),
            };
            let said = self.check(auth, &question).await.map_err(|refusal| in_time(refusal, limit));
            self.count(auth, &said);
            plan.grant(said?);
        }
        Ok(body)
    }

    /// Reads a body of at most so many bytes to its end.
    async fn whole(&self, body: ClientBody, most: usize, limit: Option<Instant>) -> Result<WholeBody, Refusal> {
        let too_large = || Refusal::Failed(Reason::BodyTooLarge, format!("more than {most} bytes for the authorizer"));
        if body.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        // A gRPC client may wait with its next message for an answer that can't come before the decision.
        let patience = self.asked.progress.patience();
        let own = patience.is_none().then(|| Instant::now() + CHECK_LIMIT);
        let progress = Progress::new(patience);
        let read = async {
            let mut source = Source::new(body, &progress, Vec::new(), None);
            let (mut data, mut trailers) = (BytesMut::new(), None);
            while let Some(frame) = poll_fn(|cx| source.poll_frame(cx)).await {
                let fault = || progress.fault().unwrap_or(Reason::DownstreamReset);
                match frame.map_err(|_| Refusal::Failed(fault(), "reading the body".into()))?.into_data() {
                    Ok(piece) if data.len() + piece.len() > most => return Err(too_large()),
                    Ok(piece) => data.extend_from_slice(&piece),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            Ok(WholeBody { data: data.freeze(), trailers })
        };
        let Some(until) = [own, limit].into_iter().flatten().min() else { return read.await };
        tokio::time::timeout_at(until, read).await.unwrap_or_else(|_| {
            let reason = if limit == Some(until) { Reason::RequestTimeout } else { Reason::BodyTimeout };
            Err(Refusal::Failed(reason, "reading the body".into()))
        })
    }

    fn count(&self, auth: &ExternalAuth, said: &Result<Grant, Refusal>) {
        let result = match said {
            Ok(_) => "allowed",
            Err(Refusal::Denied(..)) => "denied",
            Err(Refusal::Failed(..)) => "failed",
        };
        let BackendTarget::Service(key) = &auth.authorizer else { return };
        let more = vec![(DESTINATION_SERVICE, key.to_string().into()), ("result", result.into())];
        let workload = Some(WorkloadLabel::of(&self.caller.workload));
        self.conn.engine.recorder.event(&EventLabels { family: &families::AUTH_CHECKS, workload, more }, 1);
    }
}

/// A check that failed because the whole request's time is up says that.
fn in_time(refusal: Refusal, limit: Option<Instant>) -> Refusal {
    match refusal {
        Refusal::Failed(Reason::AuthFailed, why) if limit.is_some_and(|limit| Instant::now() >= limit) => {
            Refusal::Failed(Reason::RequestTimeout, why)
        }
        other => other,
    }
}
