//! From a request and a backend to the head of its answer: endpoint, connection, tries.
//!
//! What may be tried again: a request of which nothing was sent, always, on another endpoint (or on a fresh connection,
//! when a kept one turned out to be closed); an idempotent request without a body that a kept connection lost before a
//! byte of the answer, once, on a fresh connection (RFC 9110, section 9.2.2); and what the rule's `retry` says, as long
//! as the body can be sent from its start.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use smallvec::SmallVec;
use tokio::time::{Duration, Instant};
use weft_core::reason::Reason;
use weft_core::route::{Retry, Timeouts};
use weft_tls::BackendClient;

use super::body::{Progress, RequestBody};
use super::engine::{Engine, View};
use super::finish::grpc_status;
use super::interim::Listener;
use super::replay::Replays;
use crate::balance::{Ask, Balancer, InFlight, Outcome, Picked};
use crate::connect::http_pool::{Lease, Protocol, SendError, UpstreamBody};
use crate::connect::{ConnectError, Retry as Retryable, Target};
use crate::identify::LocalWorkload;

/// Endpoints that are tried when none could be reached.
const MAX_UNSENT: usize = 3;

/// A request on its way to a backend.
pub(super) struct Forward<'a> {
    pub(super) engine: &'a Engine,
    pub(super) view: &'a View,
    pub(super) source: &'a Rc<LocalWorkload>,
    pub(super) client: IpAddr,
    pub(super) balancer: Rc<Balancer>,
    pub(super) hash: Option<u64>,
    pub(super) protocol: Protocol,
    /// TLS that the endpoints speak themselves.
    pub(super) tls: Option<BackendClient>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<&'a Retry>,
    /// When the whole request must be over.
    pub(super) deadline: Option<Instant>,
    /// The request asks for another protocol.
    pub(super) upgrade: bool,
    /// How the client's body does.
    pub(super) progress: Progress,
}

/// The head of an answer, and what must be held while its body passes.
pub(super) struct Answer {
    pub(super) response: Response<UpstreamBody>,
    pub(super) lease: Lease,
    pub(super) flight: InFlight,
    pub(super) target: Rc<Target>,
    pub(super) tries: u32,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) target: Option<Rc<Target>>,
    pub(super) tries: u32,
}

/// The message of a request: how it is made for each try.
pub(super) struct Message {
    pub(super) head: Parts,
    pub(super) body: RequestBody,
    /// Makes the body again.
    pub(super) replays: Option<Replays>,
    /// Takes interim answers, if somebody wants them.
    pub(super) listener: Option<Listener>,
}

/// A message that is sent, as far as all tries share it.
struct Outgoing {
    head: Option<Parts>,
    /// The head is needed whole for another try.
    keep: bool,
    listener: Option<Listener>,
}

struct Tries {
    tried: SmallVec<[SocketAddr; 4]>,
    /// Sent requests.
    sent: u32,
    /// Endpoints that could not be reached.
    unreached: usize,
    /// A kept connection lost the request: the next one is fresh, at the same endpoint.
    fresh: Option<Picked>,
}

/// What came of one try.
enum Tried {
    Answered(Box<Answer>),
    /// Nothing was sent; the request's body again.
    Unsent(RequestBody, Failed, Option<Picked>),
    /// It was sent, and there is no answer.
    Lost(Failed, Option<Picked>),
    /// There will be no answer, whoever is asked.
    Hopeless(Failed),
}

impl Forward<'_> {
    /// Tries until there is an answer to give.
    pub(super) async fn run(&self, message: Message) -> Result<Box<Answer>, Failed> {
        let Message { head, body, replays, listener } = message;
        let bodyless = body.is_empty();
        let again = bodyless && !self.upgrade;
        let idempotent = again && is_idempotent(&head.method);
        let may_retry = self.retry.is_some_and(|retry| retry.attempts > 0) && (again || replays.is_some());
        let keep = idempotent || may_retry;
        let (mut outgoing, mut next) = (Outgoing { head: Some(head), keep, listener }, Some(body));
        let mut tries = Tries { tried: SmallVec::new(), sent: 0, unreached: 0, fresh: None };
        let mut stale_retry = idempotent;
        loop {
            let Some(body) = next.take().or_else(|| remake_body(bodyless, &replays)) else {
                return Err(Failed::new(Reason::UpstreamReset, "the body cannot be sent again", None, tries.sent));
            };
            let fresh = tries.fresh.is_some();
            match self.attempt(&mut outgoing, body, &mut tries).await {
                Tried::Answered(answer) => {
                    if !self.wants_retry(answer.response.status(), &tries) || !can_remake(bodyless, &replays, may_retry)
                    {
                        if let Some(replays) = &replays {
                            replays.settle();
                        }
                        return Ok(answer);
                    }
                    tries.tried.push(answer.target.address);
                    drop(answer);
                    Box::pin(self.back_off(tries.sent)).await?;
                }
                Tried::Unsent(body, failed, reused) => {
                    match reused {
                        Some(picked) if !fresh => tries.fresh = Some(picked),
                        _ => {
                            tries.unreached += 1;
                            tries.tried.extend(failed.target.as_ref().map(|target| target.address));
                            if tries.unreached >= MAX_UNSENT {
                                return Err(failed);
                            }
                        }
                    }
                    next = Some(body);
                }
                Tried::Lost(failed, reused) => {
                    if let Some(picked) = reused.filter(|_| std::mem::take(&mut stale_retry)) {
                        tries.fresh = Some(picked);
                        continue;
                    }
                    let more = self.retry.is_some_and(|retry| tries.sent <= retry.attempts);
                    if !more || !can_remake(bodyless, &replays, may_retry) || self.is_late() {
                        return Err(failed);
                    }
                    tries.tried.extend(failed.target.as_ref().map(|target| target.address));
                    Box::pin(self.back_off(tries.sent)).await?;
                }
                Tried::Hopeless(failed) => return Err(failed),
            }
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }

    fn wants_retry(&self, status: StatusCode, tries: &Tries) -> bool {
        self.retry.is_some_and(|retry| tries.sent <= retry.attempts && retry.codes.contains(&status))
    }

    /// Waits before the next try: the rule's backoff, doubled each time, with up to a quarter more so that clients
    /// don't come back together.
    async fn back_off(&self, sent: u32) -> Result<(), Failed> {
        let Some(retry) = self.retry else { return Ok(()) };
        let base = retry.backoff.saturating_mul(1 << sent.saturating_sub(1).min(6));
        let wait = base + base.mul_f64(fastrand::f64() * 0.25);
        let until = Instant::now() + wait;
        match self.deadline {
            Some(deadline) if deadline <= until => {
                tokio::time::sleep_until(deadline).await;
                Err(Failed::new(Reason::RequestTimeout, "between two tries", None, sent))
            }
            _ => {
                tokio::time::sleep_until(until).await;
                Ok(())
            }
        }
    }

    async fn attempt(&self, outgoing: &mut Outgoing, body: RequestBody, tries: &mut Tries) -> Tried {
        let fresh = tries.fresh.is_some();
        let picked = tries.fresh.take().or_else(|| {
            let (now, random) = (Instant::now(), fastrand::u64(..));
            self.balancer.pick(&Ask { client: self.client, hash: self.hash, tried: &tries.tried, now, random })
        });
        let Some(picked) = picked else {
            let detail = "the Service has no endpoint that is ready";
            return Tried::Hopeless(Failed::new(Reason::NoEndpoint, detail, None, tries.sent));
        };
        let target = self.engine.target(self.view, &picked.entry, self.source, self.tls.as_ref());
        let pool = &self.engine.pool;
        let kept = if fresh { None } else { pool.kept(self.source, &target, self.protocol) };
        let lease = match kept {
            Some(lease) => lease,
            // Boxed: most requests find a connection, and a future is moved as big as its rarest way.
            None => {
                match Box::pin(until(self.deadline, pool.acquire(self.source, &target, self.protocol, fresh))).await {
                    Some(Ok(lease)) => lease,
                    Some(Err(error)) => {
                        return self.unreached(body, &picked, &error, Failed::of(&error, target, tries.sent));
                    }
                    None => return Tried::Hopeless(Failed::new(Reason::RequestTimeout, "", Some(target), tries.sent)),
                }
            }
        };
        self.send((outgoing, body), (lease, picked, target), tries).await
    }

    fn learn(&self, picked: &Picked, outcome: Outcome, now: Instant) {
        if picked.flight.learn(outcome, now, fastrand::u64(..)) {
            self.engine.observer.ejected(&self.balancer.frontend().key);
        }
    }

    /// Nothing was sent, because there is no connection.
    fn unreached(&self, body: RequestBody, picked: &Picked, error: &ConnectError, failed: Failed) -> Tried {
        if error.retryable() != Retryable::NeverSent {
            return Tried::Hopeless(failed);
        }
        self.learn(picked, Outcome::Failed, Instant::now());
        Tried::Unsent(body, failed, None)
    }

    async fn send(
        &self,
        (outgoing, body): (&mut Outgoing, RequestBody),
        (mut lease, picked, target): (Lease, Picked, Rc<Target>),
        tries: &mut Tries,
    ) -> Tried {
        if self.upgrade {
            lease.expect_upgrade();
        }
        let own_limit = self.timeouts.backend_request.map(|limit| Instant::now() + limit);
        let limit = earlier(own_limit, self.deadline);
        let Outgoing { head, keep, listener } = outgoing;
        let (keep, told) = (*keep, |answer: &_| listener.iter().for_each(|listener| listener.told(answer)));
        let result = until(limit, lease.send(head, body, keep, &told)).await;
        let now = Instant::now();
        let learn = |outcome| self.learn(&picked, outcome, now);
        match result {
            Some(Ok(response)) => {
                tries.sent += 1;
                learn(outcome_of(&response));
                let answer = Answer { response, lease, flight: picked.flight, target, tries: tries.sent };
                Tried::Answered(Box::new(answer))
            }
            Some(Err(SendError::Unsent(body))) => {
                let reused = lease.is_reused();
                if !reused {
                    learn(Outcome::Failed);
                }
                let failed = Failed::new(Reason::UpstreamReset, "closed before the request", Some(target), tries.sent);
                Tried::Unsent(body, failed, reused.then_some(picked))
            }
            Some(Err(SendError::Sent(error))) => {
                tries.sent += 1;
                if let Some(reason) = self.progress.fault() {
                    // The endpoint is not to blame for its client.
                    learn(Outcome::Unknown);
                    return Tried::Hopeless(Failed::new(reason, "", Some(target), tries.sent));
                }
                // A kept connection that was closed meanwhile says nothing about the endpoint.
                let stale = lease.is_reused() && keep && !error.is_parse();
                if !stale {
                    learn(Outcome::Failed);
                }
                let reason = if error.is_parse() { Reason::UpstreamProtocol } else { Reason::UpstreamReset };
                Tried::Lost(Failed::new(reason, chain(&error), Some(target), tries.sent), stale.then_some(picked))
            }
            None => {
                tries.sent += 1;
                learn(Outcome::Failed);
                let whole = self.deadline.is_some_and(|at| now >= at);
                let reason = if whole { Reason::RequestTimeout } else { Reason::BackendTimeout };
                let failed = Failed::new(reason, "", Some(target), tries.sent);
                if whole { Tried::Hopeless(failed) } else { Tried::Lost(failed, None) }
            }
        }
    }
}

impl Failed {
    fn of(error: &ConnectError, target: Rc<Target>, tries: u32) -> Self {
        Self::new(error.reason(), error.to_string(), Some(target), tries)
    }

    fn new(reason: Reason, detail: impl Into<String>, target: Option<Rc<Target>>, tries: u32) -> Self {
        Self { reason, detail: detail.into(), target, tries }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn outcome_of(response: &Response<UpstreamBody>) -> Outcome {
    // RESOURCE_EXHAUSTED and UNAVAILABLE of an answer without a body.
    match (response.status().as_u16(), grpc_status(response.headers())) {
        (429, _) | (200, Some(8)) => Outcome::Overloaded,
        (500.., _) | (200, Some(14)) => Outcome::Failed,
        _ => Outcome::Answered,
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

/// The earlier of two moments.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The result, unless the time comes first. Without a limit there is no timer.
async fn until<T>(limit: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    let work = std::pin::pin!(work);
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
