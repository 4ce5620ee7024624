//! The end of an exchange: told once, whatever way it ends.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use weft_core::reason::Reason;
use weft_core::telemetry::Telemetry;

use super::body::Progress;
use super::downstream::{Downstream, Labelled};
use super::forward::Limit;
use super::grpc_web::GrpcWeb;
use super::origin::{REQUEST_ID, is_id, new_id};
use super::span;
use super::trail::{self, Trail};
use super::wire::Watched;
use crate::balance::InFlight;
use crate::connect::http_pool::Lease;
use crate::records::Kept;
use crate::tap::Seen;
use crate::telemetry::{Entry, RequestMeasure, RequestOutcome, TraceId, is_failure, milliseconds};
use crate::trace::Trace;
use crate::util::{LONGEST_TOLD, clip};
use crate::worker::coalesce;

/// What is known of a request from its start.
pub(super) struct Asked {
    pub(super) conn: Rc<Downstream>,
    pub(super) started: Instant,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) authority: Option<http::HeaderValue>,
    pub(super) request_id: Option<http::HeaderValue>,
    /// The client, where it isn't who connected.
    pub(super) client: Option<std::net::SocketAddr>,
    pub(super) grpc: bool,
    /// The form of gRPC that browsers speak.
    pub(super) web: Option<Box<GrpcWeb>>,
    pub(super) progress: Progress,
    /// What is told of it.
    pub(super) told: Rc<Telemetry>,
    /// Its trace, if that is sampled: an example of what its series counted.
    pub(super) trace: Option<TraceId>,
    /// The trace that it is part of, sampled or not, as far as somebody may want to know.
    pub(super) trace_id: Option<u128>,
    /// What is noted of it while it is under way, if it is sampled.
    pub(super) span: Option<Box<Trace>>,
    under_way: Option<UnderWay>,
}

/// A request that its connection counts as under way, until this is dropped: also when nobody is left to answer, because the
/// client gave the request up.
struct UnderWay(Rc<Watched>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// How it was answered.
pub(super) struct Answered {
    pub(super) labelled: Rc<Labelled>,
    pub(super) status: u16,
    pub(super) reason: Reason,
    pub(super) detail: String,
    pub(super) grpc_status: Option<u8>,
    pub(super) tries: u32,
    pub(super) upstream: Duration,
    /// The way it took, where that wasn't plain.
    pub(super) trail: Option<Box<Trail>>,
}

/// Reports an exchange when it is over. Boxed once, so that bodies stay small.
pub(crate) struct Finish(Box<Inner>);

struct Inner {
    asked: Box<Asked>,
    answered: Answered,
    sent: u64,
    flight: Option<InFlight>,
    lease: Option<Lease>,
    deadline: Option<(Pin<Box<Sleep>>, Reason)>,
    timed_out: Option<Reason>,
    done: bool,
}

impl Finish {
    pub(super) fn new(asked: Box<Asked>, answered: Answered) -> Self {
        let (flight, lease, deadline) = (None, None, None);
        Self(Box::new(Inner { asked, answered, sent: 0, flight, lease, deadline, timed_out: None, done: false }))
    }

    /// Takes along what must be given back when the answer has passed.
    pub(super) fn holding(mut self, flight: InFlight, lease: Option<Lease>, limit: Option<Limit>) -> Self {
        self.0.flight = Some(flight);
        self.0.lease = lease;
        self.0.deadline = limit.map(|limit| (Box::pin(tokio::time::sleep_until(limit.at)), limit.reason));
        self
    }

    /// Takes the connection along, to give it back when the answer has passed.
    pub(super) fn with_lease(mut self, lease: Lease) -> Self {
        self.0.lease = Some(lease);
        self
    }

    /// The connection that it is on.
    pub(super) fn watched(&self) -> &Rc<Watched> {
        &self.0.asked.conn.watched
    }

    /// Whether the time of the answer is up.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((sleep, reason)) = &mut self.0.deadline else { return false };
        let up = sleep.as_mut().poll(cx).is_ready();
        if up {
            self.0.timed_out = Some(*reason);
        }
        up
    }

    /// Looks at a frame of the answer.
    pub(super) fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.0.sent += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.0.answered.grpc_status = grpc_status(trailers).or(self.0.answered.grpc_status);
        }
    }

    /// The gRPC status, if it came in a form that no frame shows.
    pub(super) fn told(&mut self, status: Option<u8>) {
        self.0.answered.grpc_status = status.or(self.0.answered.grpc_status);
    }

    /// Bytes that passed outside of frames.
    pub(super) fn add_sent(&mut self, bytes: u64) {
        self.0.sent += bytes;
    }

    /// The answer is over; not whole when the endpoint broke it off or its time was up.
    pub(super) fn complete(&mut self, whole: bool) {
        let broken = self.0.timed_out.unwrap_or(Reason::UpstreamReset);
        self.0.end((!whole).then_some(broken));
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        // Nobody took the answer to its end: the client went away.
        self.0.end(Some(Reason::DownstreamReset));
    }
}

impl Inner {
    fn end(&mut self, broken: Option<Reason>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if let Some(flight) = self.flight.take() {
            flight.finish();
        }
        match (self.lease.take(), broken) {
            (Some(lease), None) => lease.release(),
            (lease, _) => drop(lease),
        }
        if let Some(reason) = broken.filter(|_| self.answered.reason == Reason::Ok) {
            self.answered.reason = reason;
        }
        report(&mut self.asked, &self.answered, self.sent);
    }
}

/// Tells of a request that is over, once. `sent`: bytes of the answer's body.
pub(super) fn report(asked: &mut Asked, answered: &Answered, sent: u64) {
    asked.under_way = None;
    let (status, grpc) = (answered.status, answered.grpc_status.filter(|_| asked.grpc));
    let kept = asked.conn.engine.ring.wants((status, grpc), answered.reason, answered.upstream);
    if kept.is_some() && asked.request_id.is_none() {
        // It is told to nobody but the log, where it is found by other means.
        asked.id();
    }
    Told { asked, answered }.record(sent, kept);
}

/// A request that is over.
struct Told<'a> {
    asked: &'a Asked,
    answered: &'a Answered,
}

impl Told<'_> {
    fn record(&self, sent: u64, kept: Option<Kept>) {
        let Self { asked, answered } = self;
        let took = asked.started.elapsed();
        if answered.tries > 0 {
            coalesce::answered(took, asked.conn.watched.busy.get() + 1);
        }
        let measure = RequestMeasure {
            took,
            request_bytes: asked.progress.get(),
            response_bytes: sent,
            retries: answered.tries.saturating_sub(1),
            trace: asked.trace,
        };
        // What an application makes up is no class.
        let class = match answered.status / 100 {
            class @ 1..=5 => u8::try_from(class).unwrap_or(0),
            _ => 0,
        };
        let grpc_status = answered.grpc_status.filter(|_| asked.grpc);
        let outcome = RequestOutcome { class, reason: answered.reason, grpc_status };
        match answered.labelled.series.is_retired() {
            false => answered.labelled.series.record(outcome, &measure),
            // It took longer than one of its ends was there.
            true => asked.conn.engine.recorder.requests(&answered.labelled.labels).record(outcome, &measure),
        }
        if let Some(kept) = kept {
            asked.conn.engine.ring.push(Box::new(trail::record(asked, answered, took)), kept);
        }
        if let Some(trace) = &asked.span {
            asked.conn.engine.log.spans().send(Box::new(span::finished((asked, &**trace), answered, &measure)));
        }
        if asked.conn.engine.log.taps().is_on() {
            self.offer(&measure);
        }
        let terms = &asked.told.access_log;
        if terms.wants(is_failure(answered.status, answered.reason), fastrand::u64(..)) {
            asked.conn.engine.log.write(terms, Box::new(self.entry(&measure)), || span::owner(asked, answered));
        }
    }

    /// Shows the request to whoever taps.
    #[cold]
    fn offer(&self, measure: &RequestMeasure) {
        let Self { asked, answered } = self;
        let labels = &answered.labelled.labels;
        asked.conn.engine.log.taps().offer(&Seen {
            entry: &self.entry(measure),
            ends: (&labels.source, &labels.destination),
            query: asked.uri.query(),
            failed: is_failure(answered.status, answered.reason),
        });
    }

    fn entry(&self, measure: &RequestMeasure) -> Entry {
        let Self { asked, answered } = self;
        let labels = &answered.labelled.labels;
        let ends = asked.conn.log_ends(answered.labelled.target.as_deref());
        let text = |value: &Option<http::HeaderValue>| {
            value.as_ref().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
        };
        Entry {
            direction: asked.conn.side.direction(),
            reporter: labels.reporter,
            source: ends.source,
            source_identity: ends.source_identity,
            source_address: asked.client.map_or(ends.source_address, |client| client.to_string()),
            destination: ends.destination,
            destination_identity: ends.destination_identity,
            endpoint: ends.endpoint,
            service: labels.service.as_ref().map(ToString::to_string).unwrap_or_default(),
            route: labels.rule.as_ref().map(|rule| rule.route.to_string()).unwrap_or_default(),
            rule: labels.rule.as_ref().map(|rule| rule.index.to_string()).unwrap_or_default(),
            protocol: labels.protocol,
            method: clip(asked.method.as_str(), LONGEST_TOLD).to_owned(),
            authority: asked.host(LONGEST_TOLD),
            path: clip(asked.uri.path(), LONGEST_TOLD).to_owned(),
            status: answered.status,
            grpc_status: answered.grpc_status.map(|code| code.to_string()).unwrap_or_default(),
            reason: answered.reason.as_str(),
            made_by: answered.reason.made_by().as_str(),
            detail: clip(&answered.detail, LONGEST_TOLD).to_owned(),
            request_bytes: measure.request_bytes,
            response_bytes: measure.response_bytes,
            duration_ms: milliseconds(measure.took),
            upstream_ms: milliseconds(answered.upstream),
            tries: answered.tries,
            connection_security: labels.security.as_str(),
            client_tls: asked.conn.side.has_client_tls(),
            request_id: text(&asked.request_id),
            trace_id: asked.trace_id.map(|id| format!("{id:032x}")).unwrap_or_default(),
            span_id: asked.span.as_ref().map(|trace| trace.span),
            ..Entry::default()
        }
    }
}

/// The gRPC status in headers or trailers.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What to keep of a request for its end.
impl Asked {
    /// Of a request that was counted ([`Watched::request_began`]).
    pub(super) fn new(conn: &Rc<Downstream>, parts: &http::request::Parts, started: Instant) -> Self {
        let web = GrpcWeb::of(&parts.method, &parts.headers).map(Box::new);
        let grpc = web.is_some() || weft_core::matching::is_grpc(&parts.headers);
        // A stream of messages may pause for as long as it likes.
        let patience = conn.engine.settings.body_timeout.filter(|_| !grpc);
        Self {
            told: conn.engine.told(conn.side.pod()),
            conn: Rc::clone(conn),
            started,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            authority: parts.headers.get(http::header::HOST).cloned(),
            request_id: parts.headers.get(REQUEST_ID).filter(|id| is_id(id)).cloned(),
            client: None,
            grpc,
            web,
            progress: Progress::new(patience),
            trace: None,
            trace_id: None,
            span: None,
            under_way: Some(UnderWay(Rc::clone(&conn.watched))),
        }
    }

    /// The host that was asked for, so many bytes of it at most; empty if none was.
    pub(super) fn host(&self, most: usize) -> String {
        if let Some(authority) = self.uri.authority() {
            return clip(authority.as_str(), most).to_owned();
        }
        let bytes = self.authority.as_ref().map(http::HeaderValue::as_bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes));
        clip(&text, most).to_owned()
    }

    /// The request's id; one that has none gets one.
    pub(super) fn id(&mut self) -> http::HeaderValue {
        self.request_id.get_or_insert_with(new_id).clone()
    }
}
