//! The task of one copy: it goes its own way, and nobody waits for it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Version};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;
use weft_core::filter::ForwardPlan;
use weft_core::route::Timeouts;
use weft_core::snapshot::Frontend;
use weft_tls::BackendClient;

use super::body::{Progress, RequestBody};
use super::client::ClientBody;
use super::downstream::{Caller, Downstream};
use super::engine::{Engine, View};
use super::forward::{Forward, Message};
use super::mirror::{self, Tee};
use super::upstream::{self, Told};
use crate::connect::http_pool::Protocol;
use crate::identify::LocalWorkload;
use crate::telemetry::{DESTINATION_SERVICE, EventLabels, WorkloadLabel, families};

/// The longest a copy may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Who mirrors, and where to.
pub(super) struct Order {
    engine: Rc<Engine>,
    source: Rc<LocalWorkload>,
    workload: WorkloadLabel,
    client: std::net::IpAddr,
    told: Option<Told>,
    backend: Arc<Frontend>,
    protocol: Protocol,
    tls: Option<BackendClient>,
}

impl Order {
    /// # Errors
    /// A policy says how TLS is to be spoken to the backend, and it can't be followed.
    pub(super) fn new(
        conn: &Downstream,
        (caller, client): (&Caller, SocketAddr),
        view: &View,
        backend: &Arc<Frontend>,
        parts: &Parts,
    ) -> Result<Self, String> {
        let protocol = caller.front.upstream_protocol(backend.protocol, parts);
        Ok(Self {
            tls: caller.front.upstream_tls(&conn.engine.backends, view, &backend.key, protocol)?,
            engine: Rc::clone(&conn.engine),
            source: Rc::clone(&caller.source),
            workload: WorkloadLabel::of(&caller.workload),
            client: client.ip(),
            told: conn.tells(caller, client, backend),
            backend: Arc::clone(backend),
            protocol,
        })
    }

    fn count(&self, result: &'static str) {
        let more = vec![(DESTINATION_SERVICE, self.backend.key.to_string().into()), ("result", result.into())];
        self.engine.recorder.event(
            &EventLabels { family: &families::MIRRORED_REQUESTS, workload: Some(self.workload.clone()), more },
            1,
        );
    }
}

/// Starts a copy; the tee, if there is a body to copy.
pub(super) fn start(order: Order, plan: &ForwardPlan<'_>, parts: &Parts, body: &ClientBody) -> Option<Tee> {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = parts.method.clone();
    head.uri = parts.uri.clone();
    head.headers = parts.headers.clone();
    head.version = parts.version;
    plan.apply_mirror_request(&mut head.headers);
    let protocol = order.protocol;
    match protocol {
        Protocol::H2 if parts.version != Version::HTTP_2 => upstream::h2_form(&mut head, None, None).ok()?,
        Protocol::H1 => upstream::h1_form(&mut head, None, None).ok()?,
        Protocol::H2 => {}
    }
    let (tee, body) = if body.is_end_stream() {
        (None, RequestBody::Empty)
    } else {
        let (tee, copy) = mirror::tee(body.size_hint());
        (Some(tee), RequestBody::Copy(copy))
    };
    tokio::task::spawn_local(run(order, Message::new(head, body), protocol));
    tee
}

async fn run(order: Order, mut message: Message, protocol: Protocol) {
    let view = order.engine.view();
    let now = Instant::now();
    let forward = Forward {
        started: now,
        engine: &order.engine,
        view: &view,
        source: &order.source,
        client: order.client,
        told: order.told.clone(),
        balancer: order.engine.balancers.get(&order.backend, now),
        hash: None,
        session: None,
        protocol,
        tls: order.tls.clone(),
        timeouts: Timeouts::default(),
        retry: None,
        budget: None,
        deadline: Some(now + LIMIT),
        upgrade: false,
        progress: Progress::default(),
    };
    let Ok(answer) = forward.run(&mut message).await else {
        order.count("failed");
        return;
    };
    let mut body = answer.response.into_body();
    let drain = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    if tokio::time::timeout_at(now + LIMIT, drain).await == Ok(true) {
        answer.lease.release();
        order.count("answered");
    } else {
        order.count("failed");
    }
    answer.flight.finish();
}
