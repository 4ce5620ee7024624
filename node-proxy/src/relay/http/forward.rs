//! From a request and a backend to the head of its answer: endpoint, connection, tries.
//!
//! What may be tried again: a request of which nothing was sent, always, on another endpoint (or on a fresh connection,
//! when a kept one turned out to be closed); one that the destination's proxy turned away before an application saw a byte of
//! it, on another endpoint, if it has no body or its body is there from its start; an idempotent request without a body that a kept connection lost before a
//! byte of the answer, once, on a fresh connection (RFC 9110, section 9.2.2); and what the rule's `retry` says, as long
//! as the body can be sent from its start, and as the backend's budget of retries lasts. Only the last are the rule's
//! attempts, and paid from the budget.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, StatusCode};
use tokio::time::{Duration, Instant};
use weft_core::reason::Reason;
use weft_core::route::{Retry, Timeouts};
use weft_tls::BackendClient;

use super::attempt::{Tried, Tries, chain, outcome_of};
use super::body::{Progress, RequestBody};
use super::engine::{Engine, View};
use super::interim::Listener;
use super::replay::Replays;
use super::trail::Step;
use super::upstream::Told;
use crate::balance::{Ask, Balancer, Outcome, Picked, RetryBudget};
use crate::connect::http_pool::{Lease, Outgoing, Pool, Protocol, SendError};
use crate::connect::{ConnectError, Retry as Retryable, Target};
use crate::identify::LocalWorkload;

use super::attempt::MAX_UNSENT;
pub(super) use super::attempt::{Answer, Failed, Limit};

/// A request on its way to a backend.
pub(super) struct Forward<'a> {
    /// When the request came.
    pub(super) started: Instant,
    pub(super) engine: &'a Engine,
    pub(super) view: &'a View,
    pub(super) source: &'a Rc<LocalWorkload>,
    pub(super) client: IpAddr,
    /// What the endpoint is told of the client before everything else on the connection, which carries no other's requests then.
    pub(super) told: Option<Told>,
    pub(super) balancer: Rc<Balancer>,
    pub(super) hash: Option<u64>,
    /// The endpoint of the client's session.
    pub(super) session: Option<SocketAddr>,
    pub(super) protocol: Protocol,
    /// TLS that the endpoints speak themselves.
    pub(super) tls: Option<BackendClient>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<&'a Retry>,
    /// What retries are paid from; `None`: nobody counts them.
    pub(super) budget: Option<Arc<RetryBudget>>,
    /// When the whole request must be over.
    pub(super) deadline: Option<Instant>,
    /// The request asks for another protocol.
    pub(super) upgrade: bool,
    /// How the client's body does.
    pub(super) progress: Progress,
}

/// The message of a request: how it is made for each try.
pub(super) struct Message {
    pub(super) outgoing: Outgoing,
    /// Makes the body again.
    pub(super) replays: Option<Replays>,
    /// Takes interim answers, if somebody wants them.
    pub(super) listener: Option<Listener>,
}

impl Message {
    /// One whose body can't be made again.
    pub(super) fn new(head: Parts, body: RequestBody) -> Self {
        Self { outgoing: Outgoing::new(head, body), replays: None, listener: None }
    }

    /// The body for the next try; `false`: it can't be made again.
    fn remake_body(&mut self, bodyless: bool) -> bool {
        if self.outgoing.body.is_none() {
            self.outgoing.body = remake_body(bodyless, &self.replays);
        }
        self.outgoing.body.is_some()
    }
}

impl Forward<'_> {
    /// Tries until there is an answer to give.
    pub(super) async fn run(&self, message: &mut Message) -> Result<Box<Answer>, Failed> {
        let mut tries = Tries::default();
        match self.try_all(message, &mut tries).await {
            Ok(mut answer) => {
                answer.steps = tries.steps;
                Ok(answer)
            }
            Err(failed) => Err(Failed { steps: tries.steps, ..failed }),
        }
    }

    async fn try_all(&self, message: &mut Message, tries: &mut Tries) -> Result<Box<Answer>, Failed> {
        let Outgoing { head, body, keep } = &mut message.outgoing;
        let bodyless = body.as_ref().is_some_and(RequestBody::is_empty);
        let again = bodyless && !self.upgrade;
        let idempotent = again && head.as_ref().is_some_and(|head| is_idempotent(&head.method));
        let may_retry = self.retry.is_some_and(|retry| retry.attempts > 0) && (again || message.replays.is_some());
        *keep = again || may_retry;
        if let Some(budget) = &self.budget {
            budget.request(self.started);
        }
        let mut stale_retry = idempotent;
        loop {
            if !message.remake_body(bodyless) {
                return Err(Failed::new(Reason::UpstreamReset, "the body cannot be sent again", None, tries.count()));
            }
            let fresh = tries.fresh.is_some();
            let tried = self.attempt(message, tries).await;
            tries.note(&tried);
            match tried {
                Tried::Answered(answer) => {
                    let can_remake = || can_remake(bodyless, &message.replays, may_retry);
                    if (again || can_remake()) && tries.turned_away(&answer) {
                        continue;
                    }
                    if !self.wants_retry(answer.response.status(), tries) || !can_remake() {
                        if let Some(replays) = &message.replays {
                            replays.settle();
                        }
                        return Ok(answer);
                    }
                    let target = Rc::clone(&answer.target);
                    tries.tried.push(target.address);
                    tries.steps.push(Step::answered(&target, answer.response.status().as_u16()));
                    drop(answer);
                    Box::pin(self.try_again(tries, target)).await?;
                }
                Tried::Unsent(failed, reused) => match reused {
                    Some(picked) if !fresh => tries.fresh = Some(picked),
                    _ => {
                        tries.has_not_reached(failed.target.as_deref());
                        match failed.target.clone() {
                            _ if tries.unreached < MAX_UNSENT => {}
                            // Nothing of the body was sent: it needs no second copy.
                            Some(target) if self.has_retry(tries) && !self.is_late() => {
                                Box::pin(self.try_again(tries, target)).await?;
                            }
                            _ => return Err(Failed { tries: tries.count(), ..failed }),
                        }
                    }
                },
                Tried::Lost(failed, reused) => {
                    message.outgoing.body = None;
                    if let Some(picked) = reused.filter(|_| std::mem::take(&mut stale_retry)) {
                        tries.fresh = Some(picked);
                        continue;
                    }
                    let more = self.has_retry(tries) && can_remake(bodyless, &message.replays, may_retry);
                    let Some(target) = failed.target.clone().filter(|_| more && !self.is_late()) else {
                        return Err(failed);
                    };
                    tries.tried.push(target.address);
                    Box::pin(self.try_again(tries, target)).await?;
                }
                Tried::Hopeless(failed) => return Err(failed),
            }
        }
    }

    /// When the answer to what is sent now must be there, to its end: one try has its own time, all of them together the
    /// request's.
    fn limit(&self) -> Option<Limit> {
        let whole = self.deadline.map(|at| Limit { at, reason: Reason::RequestTimeout });
        let one = self
            .timeouts
            .backend_request
            .map(|time| Limit { at: Instant::now() + time, reason: Reason::BackendTimeout });
        // Of two that end at once the first: the request's.
        [whole, one].into_iter().flatten().min_by_key(|limit| limit.at)
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }

    /// Whether the rule's `retry` has attempts left.
    fn has_retry(&self, tries: &Tries) -> bool {
        self.retry.is_some_and(|retry| tries.retries < retry.attempts)
    }

    fn wants_retry(&self, status: StatusCode, tries: &Tries) -> bool {
        self.has_retry(tries) && self.retry.is_some_and(|retry| retry.codes.contains(&status))
    }

    /// Pays for one more try from the budget, and waits before it: the rule's backoff, doubled each time, with up to a
    /// quarter more so that clients don't come back together. `target` is where the last one failed.
    async fn try_again(&self, tries: &mut Tries, target: Rc<Target>) -> Result<(), Failed> {
        let Some(retry) = self.retry else { return Ok(()) };
        if self.budget.as_ref().is_some_and(|budget| !budget.try_retry(Instant::now())) {
            return Err(Failed::new(Reason::RetryBudget, "too many retries lately", Some(target), tries.count()));
        }
        let base = retry.backoff.saturating_mul(1 << tries.retries.min(6));
        let wait = base + base.mul_f64(fastrand::f64() * 0.25);
        let until = Instant::now() + wait;
        match self.deadline {
            Some(deadline) if deadline <= until => {
                tokio::time::sleep_until(deadline).await;
                Err(Failed::new(Reason::RequestTimeout, "between two tries", Some(target), tries.count()))
            }
            _ => {
                tokio::time::sleep_until(until).await;
                tries.retries += 1;
                tries.unreached = 0;
                Ok(())
            }
        }
    }

    async fn attempt(&self, message: &mut Message, tries: &mut Tries) -> Tried {
        let fresh = tries.fresh.is_some();
        let picked = tries.fresh.take().or_else(|| {
            // A clock costs more than a random number: the first try begins when the request does.
            let now = if tries.is_first() { self.started } else { Instant::now() };
            let random = fastrand::u64(..);
            let ask = Ask { client: self.client, hash: self.hash, tried: &tries.tried, now, random };
            let kept = self.session.and_then(|endpoint| self.balancer.pick_of_session(endpoint, &ask));
            kept.or_else(|| self.balancer.pick(&ask))
        });
        let Some(picked) = picked else {
            let detail = "the Service has no endpoint that is ready";
            return Tried::Hopeless(Failed::new(Reason::NoEndpoint, detail, None, tries.count()));
        };
        let target = self.engine.target(self.view, &picked.entry, self.source, self.tls.as_ref());
        let (target, pool) = match &self.told {
            None => (target, &self.engine.pool),
            Some(told) => (told.target(&target), told.pool()),
        };
        self.progress.goes_to(&target);
        let kept = if fresh { None } else { pool.kept(self.source, &target, self.protocol) };
        let lease = match kept {
            Some(lease) => lease,
            // Boxed: most requests find a connection, and a future is moved as big as its rarest way.
            None => match Box::pin(self.acquire(pool, &target, fresh)).await {
                Some(Ok(lease)) => lease,
                Some(Err(error)) => {
                    return self.unreached(&picked, &error, Failed::of(&error, target, tries.count()));
                }
                None => {
                    return Tried::Hopeless(Failed::new(Reason::RequestTimeout, "", Some(target), tries.count()));
                }
            },
        };
        self.send(message, (lease, picked, target), tries).await
    }

    async fn acquire(&self, pool: &Rc<Pool>, target: &Rc<Target>, fresh: bool) -> Option<Result<Lease, ConnectError>> {
        until(self.deadline, pin!(pool.acquire(self.source, target, self.protocol, fresh))).await
    }

    fn learn(&self, picked: &Picked, outcome: Outcome, now: Instant) {
        if picked.flight.learn(outcome, now, fastrand::u64(..)) {
            self.engine.observer.ejected(&self.balancer.frontend().key);
        }
    }

    /// Nothing was sent, because there is no connection.
    fn unreached(&self, picked: &Picked, error: &ConnectError, failed: Failed) -> Tried {
        if error.retryable() != Retryable::NeverSent {
            return Tried::Hopeless(failed);
        }
        self.learn(picked, Outcome::Failed, Instant::now());
        Tried::Unsent(failed, None)
    }

    async fn send(
        &self,
        message: &mut Message,
        (mut lease, picked, target): (Lease, Picked, Rc<Target>),
        tries: &mut Tries,
    ) -> Tried {
        if self.upgrade {
            lease.expect_upgrade();
        }
        let limit = self.limit();
        let Message { outgoing, listener, .. } = message;
        let told = |answer: &_| listener.iter().for_each(|listener| listener.told(answer));
        let result = until(limit.map(|limit| limit.at), pin!(lease.send(outgoing, &told))).await;
        let now = Instant::now();
        let learn = |outcome| self.learn(&picked, outcome, now);
        match result {
            Some(Ok(response)) => {
                tries.sent += 1;
                learn(outcome_of(&response));
                let (tries, steps) = (tries.count(), Vec::new());
                let answer = Answer { response, at: now, lease, flight: picked.flight, target, tries, limit, steps };
                Tried::Answered(Box::new(answer))
            }
            Some(Err(SendError::Unsent)) => {
                let reused = lease.is_reused();
                if !reused {
                    learn(Outcome::Failed);
                }
                let failed =
                    Failed::new(Reason::UpstreamReset, "closed before the request", Some(target), tries.count());
                Tried::Unsent(failed, reused.then_some(picked))
            }
            Some(Err(SendError::Sent(error))) => {
                tries.sent += 1;
                if let Some(reason) = self.progress.fault() {
                    // The endpoint is not to blame for its client.
                    learn(Outcome::Unknown);
                    return Tried::Hopeless(Failed::new(reason, "", Some(target), tries.count()));
                }
                // A kept connection that was closed meanwhile says nothing about the endpoint.
                let stale = lease.is_reused() && outgoing.keep && !error.is_parse();
                if !stale {
                    learn(Outcome::Failed);
                }
                let reason = if error.is_parse() { Reason::UpstreamProtocol } else { Reason::UpstreamReset };
                Tried::Lost(Failed::new(reason, chain(&error), Some(target), tries.count()), stale.then_some(picked))
            }
            None => {
                tries.sent += 1;
                learn(Outcome::Failed);
                let whole = self.deadline.is_some_and(|at| now >= at);
                let reason = if whole { Reason::RequestTimeout } else { Reason::BackendTimeout };
                let failed = Failed::new(reason, "", Some(target), tries.count());
                if whole { Tried::Hopeless(failed) } else { Tried::Lost(failed, None) }
            }
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

fn can_remake(bodyless: bool, replays: &Option<Replays>, may_retry: bool) -> bool {
    may_retry && (bodyless || replays.as_ref().is_some_and(Replays::can_replay))
}

fn remake_body(bodyless: bool, replays: &Option<Replays>) -> Option<RequestBody> {
    if bodyless {
        return Some(RequestBody::Empty);
    }
    let replays = replays.as_ref().filter(|replays| replays.can_replay())?;
    Some(RequestBody::Replay(replays.next()))
}

/// The result, unless the time comes first. Without a limit there is no timer.
async fn until<T>(limit: Option<Instant>, work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match limit {
        None => Some(work.await),
        // Boxed: most requests have no limit.
        Some(at) => Box::pin(tokio::time::timeout_at(at, work)).await.ok(),
    }
}

/// The moment a limit runs out.
pub(super) fn deadline(started: Instant, limit: Option<Duration>) -> Option<Instant> {
    limit.filter(|limit| !limit.is_zero()).map(|limit| started + limit)
}
