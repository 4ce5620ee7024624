//! The span of a request: begun with it if it is sampled, and told at its end. Names and attributes follow OpenTelemetry's
//! conventions for HTTP, with `weft.` before what is the mesh's own.

use http::HeaderMap;
use weft_api::opentelemetry::proto::common::v1::KeyValue;
use weft_api::opentelemetry::proto::trace::v1::span::{Event, SpanKind};
use weft_api::opentelemetry::proto::trace::v1::status::StatusCode;
use weft_api::opentelemetry::proto::trace::v1::{Span, Status};
use weft_core::reason::Reason;
use weft_core::telemetry::{Collector, LogMode, ParentSampling};

use super::downstream::Side;
use super::finish::{Answered, Asked};
use crate::otlp::{Owner, nanoseconds, number, text};
use crate::telemetry::{METHODS, RequestMeasure, TraceId, is_failure};
use crate::trace::{self, Finished, Place, Trace};
use crate::util::{LONGEST_TOLD, clip};

/// gRPC statuses that are the server's failure: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const FAILED_GRPC: [u8; 6] = [2, 4, 12, 13, 14, 15];
/// The caller is in another process, and that is known (OTLP, `SpanFlags`); the lowest bit: it is sampled.
const FLAGS: u32 = 0x301;

impl Side {
    fn place(&self) -> Place {
        match self {
            Self::Outbound(_) if self.is_gateway() => Place::Gateway,
            Self::Outbound(_) => Place::Outbound,
            Self::Inbound(called) => {
                Place::Inbound { decided: called.permit.inbound().peer.identity.spiffe().is_some() }
            }
        }
    }
}

impl Asked {
    /// Begins the request's span, if it is to have one; then its headers say so.
    pub(super) fn open_span(&mut self, headers: &mut HeaderMap) {
        if self.told.tracing.is_some() || self.told.parent == ParentSampling::Ignored {
            self.span = trace::begin(&self.told, headers, self.conn.side.place());
        }
        self.trace = match &self.span {
            Some(span) => TraceId::new(span.id),
            None => TraceId::sampled(headers),
        };
        self.trace_id = match &self.span {
            Some(span) => Some(span.id),
            None if self.told.access_log.mode == LogMode::Disabled => None,
            None => trace::trace_of(headers),
        };
    }
}

/// The span of a request that is over.
pub(super) fn finished((asked, trace): (&Asked, &Trace), answered: &Answered, measure: &RequestMeasure) -> Finished {
    let (end, kind) = (trace.started + measure.took, kind(trace.place));
    let grpc = answered.grpc_status.filter(|_| asked.grpc);
    let failed = match kind {
        // An error of the client's is one to whoever calls (semantic conventions for HTTP spans, "Status").
        SpanKind::Client => answered.status >= 400,
        _ => false,
    } || is_failure(answered.status, answered.reason)
        || grpc.is_some_and(|status| FAILED_GRPC.contains(&status));
    let status = failed
        .then(|| Status { message: clip(&answered.detail, LONGEST_TOLD).to_owned(), code: StatusCode::Error.into() });
    let span = Span {
        trace_id: trace.id.to_be_bytes().to_vec(),
        span_id: trace.span.to_be_bytes().to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id: trace.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: FLAGS,
        name: name(asked, answered),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(trace.started),
        end_time_unix_nano: nanoseconds(end),
        attributes: attributes((asked, trace), answered, (measure, failed)),
        events: events((asked, trace), answered),
        status,
    };
    let tracing = trace.told.tracing.as_ref();
    let collector = tracing.map_or(Collector::Default, |tracing| tracing.collector.clone());
    let own_name = tracing.and_then(|tracing| tracing.service_name.clone());
    Finished { collector, owner: owner_named(asked, answered, own_name), span }
}

fn kind(place: Place) -> SpanKind {
    match place {
        Place::Outbound => SpanKind::Client,
        Place::Gateway | Place::Inbound { .. } => SpanKind::Server,
    }
}

/// The method and what was dialled or matched: few names, whatever clients send.
fn name(asked: &Asked, answered: &Answered) -> String {
    let labels = &answered.labelled.labels;
    let target = match (&labels.rule, &labels.service) {
        (Some(rule), _) => rule.route.to_string(),
        (None, Some(service)) => service.to_string(),
        (None, None) => String::new(),
    };
    format!("{} {target}", method(asked)).trim_end().to_owned()
}

fn method(asked: &Asked) -> &'static str {
    METHODS.into_iter().find(|known| *known == asked.method.as_str()).unwrap_or("HTTP")
}

/// Whose a request is, by the name that its policy gives.
pub(super) fn owner(asked: &Asked, answered: &Answered) -> Owner {
    let tracing = asked.told.tracing.as_ref();
    owner_named(asked, answered, tracing.and_then(|tracing| tracing.service_name.clone()))
}

fn owner_named(asked: &Asked, answered: &Answered, name: Option<String>) -> Owner {
    let labels = &answered.labelled.labels;
    let whose = match asked.conn.side {
        Side::Outbound(_) => &labels.source,
        Side::Inbound(_) => &labels.destination,
    };
    let served = asked.conn.served().1;
    let pod = served.split_once('/').map_or(served.as_str(), |(_, pod)| pod);
    Owner {
        service: name.unwrap_or_else(|| whose.workload.to_string()),
        namespace: whose.namespace.to_string(),
        pod: pod.to_owned(),
    }
}

fn attributes(
    (asked, trace): (&Asked, &Trace),
    answered: &Answered,
    (measure, failed): (&RequestMeasure, bool),
) -> Vec<KeyValue> {
    let labels = &answered.labelled.labels;
    let ends = asked.conn.log_ends(answered.labelled.target.as_deref());
    let mut all = Vec::with_capacity(32);
    let mut say = |key: &str, value: String| {
        if !value.is_empty() {
            all.push(text(key, value));
        }
    };
    let header = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let known = method(asked);
    say("http.request.method", if known == "HTTP" { "_OTHER".into() } else { known.into() });
    say("url.path", clip(asked.uri.path(), LONGEST_TOLD).to_owned());
    say("server.address", asked.host(LONGEST_TOLD));
    say("network.protocol.name", "http".into());
    say("rpc.system", if asked.grpc { "grpc".into() } else { String::new() });
    match trace.place {
        Place::Outbound => say("network.peer.address", ends.endpoint.clone()),
        Place::Gateway | Place::Inbound { .. } => {
            say("client.address", asked.client.map_or(ends.source_address, |client| client.to_string()));
        }
    }
    say("weft.direction", asked.conn.side.direction().into());
    say("weft.source.workload", ends.source);
    say("weft.source.identity", ends.source_identity);
    say("weft.destination.workload", ends.destination);
    say("weft.destination.identity", ends.destination_identity);
    say("weft.endpoint", ends.endpoint);
    say("weft.service", labels.service.as_ref().map(ToString::to_string).unwrap_or_default());
    say("weft.route", labels.rule.as_ref().map(|rule| rule.route.to_string()).unwrap_or_default());
    say("weft.rule", labels.rule.as_ref().map(|rule| rule.index.to_string()).unwrap_or_default());
    say("weft.protocol", labels.protocol.into());
    say("weft.connection_security", labels.security.as_str().into());
    say("weft.reason", answered.reason.as_str().into());
    say("weft.made_by", answered.reason.made_by().as_str().into());
    say("weft.request_id", asked.request_id.as_ref().map(header).unwrap_or_default());
    say("error.type", if failed { error_type(answered) } else { String::new() });
    trace.attributes.iter().for_each(|(name, value)| say(name, value.clone()));
    all.push(number("http.response.status_code", answered.status));
    all.push(number("http.request.body.size", measure.request_bytes));
    all.push(number("http.response.body.size", measure.response_bytes));
    if measure.retries > 0 {
        all.push(number("http.request.resend_count", measure.retries));
    }
    all.extend(answered.grpc_status.filter(|_| asked.grpc).map(|code| number("rpc.grpc.status_code", code)));
    all
}

/// The reason of ours, else the status.
fn error_type(answered: &Answered) -> String {
    match answered.reason {
        Reason::Ok => answered.status.to_string(),
        reason => reason.as_str().to_owned(),
    }
}

/// Each try that came to nothing, when it was over.
fn events((asked, trace): (&Asked, &Trace), answered: &Answered) -> Vec<Event> {
    let steps = answered.trail.iter().flat_map(|trail| &trail.steps);
    let event = |step: &super::trail::Step| {
        let attempt = step.attempt();
        let mut attributes = vec![text("weft.endpoint", attempt.endpoint), text("weft.outcome", attempt.outcome)];
        let more = [("weft.destination.workload", attempt.workload), ("weft.detail", attempt.detail)];
        attributes.extend(more.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| text(key, value)));
        let at = trace.started + step.at.saturating_duration_since(asked.started);
        Event { time_unix_nano: nanoseconds(at), name: "weft.try_failed".into(), attributes }
    };
    steps.map(event).collect()
}
