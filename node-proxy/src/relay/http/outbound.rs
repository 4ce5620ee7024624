//! A request of a local pod to a Service: check, route, filter, forward.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use weft_core::filter::{ForwardPlan, FrontFacts, HttpPlan, LocalReply, plan_http_kept};
use weft_core::gateway::Listener;
use weft_core::ids::{RuleKey, ServicePortKey};
use weft_core::matching::RequestFacts;
use weft_core::normalize;
use weft_core::reason::Reason;
use weft_core::route::{RedirectScheme, Timeouts};
use weft_core::service::HashKey;
use weft_core::snapshot::{Frontend, RouteSet, Snapshot};

use super::admit::is_held;
use super::begin::{Begun, begin};
use super::body::{RequestBody, ResponseBody};
use super::client::ClientBody;
use super::downstream::{Caller, Downstream, Front};
use super::engine::View;
use super::extended::Extended;
use super::finish::{Answered, Asked, Finish, grpc_status};
use super::forward::{Answer, Failed, Forward, Message, deadline};
use super::gateway::{Asker, Turned};
use super::grpc_web::GrpcWeb;
use super::mirror;
use super::mirrored;
use super::replay::{Replays, Source};
use super::session::{self, Session};
use super::trail::Trail;
use super::upstream::{Unwritable, prepare};
use super::waiting::Waiting;
use super::{check, gateway, hop, interim, mark, origin, reply};
use crate::authorize::gateway::{Judged, settle};
use crate::balance::{Balancer, hash_bytes, hash_ip};

/// Serves one request; every failure is an answer.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep what it is given twice")]
pub(super) fn serve(
    conn: &Rc<Downstream>,
    caller: &Caller,
    (mut parts, body): (Parts, ClientBody),
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    async move {
        let Begun { checked, mut asked, protocol } = begin(conn, &mut parts);
        let ambiguous_path = match checked {
            Ok(checked) => checked.ambiguous_path,
            Err(bad) => {
                let refused = reply::failure(Reason::BadRequest, bad.to_string());
                return Ok(close(reply::respond(refused, asked, conn.labelled(None, None, protocol), 0)));
            }
        };
        let upgrade = hop::strip(&mut parts.headers).filter(|_| parts.version == Version::HTTP_11);
        let (first, second) = (conn.engine.view(), OnceCell::new());
        let extended = Extended::take(&mut parts).map_err(|unsupported| unsupported.to_string());
        let origin = origin::settle(&first, caller, &mut parts).map_err(ToString::to_string);
        let (extended, origin) = match extended.and_then(|extended| Ok((extended, origin?))) {
            Ok(known) => known,
            Err(why) => {
                let refused = reply::failure(Reason::BadRequest, why);
                return Ok(reply::respond(refused, asked, conn.labelled(None, None, protocol), 0));
            }
        };
        let upgrade = if extended.is_some() { Some(Extended::protocol()) } else { upgrade };
        if let Some(origin) = &origin {
            (asked.client, asked.request_id) = (Some(origin.client), Some(origin.id.clone()));
        }
        let client = origin.as_ref().map_or(caller.client, |origin| origin.client);
        let asker = Asker { caller, client, ambiguous_path };
        let (view, routed) = match route(&first, conn, asker, &parts) {
            Routed::Unsettled(listener) => {
                Box::pin(settle(&conn.engine.store, &listener)).await;
                let view = second.get_or_init(|| conn.engine.view());
                (view, route(view, conn, asker, &parts))
            }
            routed => (&first, routed),
        };
        let exchange = Exchange { conn, caller, client, view, protocol, upgrade, extended, session: None, web: None };
        let mut response = match routed {
            Routed::Unsettled(_) => {
                let local = reply::failure(Reason::PolicyDenied, Judged::Unsettled.why_not().unwrap_or_default());
                reply::respond(local, asked, conn.labelled(None, None, protocol), 0)
            }
            Routed::Reply(local, rule) => reply::respond(local, asked, conn.labelled(rule, None, protocol), 0),
            Routed::Forward { backend, plan, session } => {
                let exchange = Exchange { session, ..exchange };
                // Boxed, or the futures around them would be moved with their kilobytes inside.
                match is_held(&asked, plan.as_ref()) {
                    true => Box::pin(exchange.admit(asked, (parts, body), backend, plan)).await,
                    false => Box::pin(exchange.forward(asked, (parts, body), backend, plan)).await,
                }
            }
        };
        if let Some(origin) = origin.filter(|origin| origin.answers_id) {
            response.headers_mut().insert(origin::REQUEST_ID, origin.id);
        }
        Ok(response)
    }
}

/// After a request that could be read in two ways nothing more is read from its connection.
pub(super) fn close(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Where a request goes.
enum Routed<'a> {
    /// A policy of the listener isn't here (yet).
    Unsettled(Arc<Listener>),
    Reply(LocalReply<'a>, Option<&'a RuleKey>),
    Forward {
        backend: &'a Arc<Frontend>,
        plan: Option<ForwardPlan<'a>>,
        session: Option<Box<Session<'a>>>,
    },
}

fn route<'a>(snapshot: &'a Snapshot, conn: &Downstream, asker: Asker<'_>, parts: &Parts) -> Routed<'a> {
    let caller = asker.caller;
    let host = normalize::host(check::authority(parts)).unwrap_or_default();
    let (table, front) = match &caller.front {
        Front::Service(key) => {
            let Some(frontend) = snapshot.frontend(key) else {
                return Routed::Reply(reply::failure(Reason::NoEndpoint, "the Service is gone"), None);
            };
            let RouteSet::Http(table) = frontend.routes_for(&caller.workload.namespace) else {
                let session = Session::of_service(&conn.engine, frontend, &parts.headers);
                return Routed::Forward { backend: frontend, plan: None, session };
            };
            (&**table, FrontFacts { scheme: RedirectScheme::Http, port: key.port })
        }
        Front::Gateway { bind, listener } => {
            let scheme = if listener.is_some() { RedirectScheme::Https } else { RedirectScheme::Http };
            match gateway::enter(snapshot, conn, (bind, listener.as_deref()), asker, (parts, &host)) {
                Ok(table) => (table, FrontFacts { scheme, port: bind.port }),
                Err(Turned::Away(local)) => return Routed::Reply(*local, None),
                Err(Turned::Unsettled(listener)) => return Routed::Unsettled(listener),
            }
        }
    };
    let facts = RequestFacts {
        method: &parts.method,
        host: &host,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    let matched = table.find(&facts);
    let rule = matched.map(|matched| &matched.rule.key);
    let resumed = session::resume(&conn.engine, snapshot, matched.as_ref(), &parts.headers);
    match plan_http_kept(matched, &facts, &front, fastrand::u64(..), resumed.map(|it| it.backend)) {
        HttpPlan::Reply(local) => Routed::Reply(local, rule),
        HttpPlan::Forward(plan) => match snapshot.frontend(plan.target) {
            Some(backend) => {
                let place = (&plan, matched.map_or(0, |matched| matched.match_index));
                let session = Session::of_plan(&conn.engine, place, backend, resumed, &parts.headers);
                Routed::Forward { backend, plan: Some(plan), session }
            }
            None => Routed::Reply(reply::failure(Reason::InvalidBackend, format!("no Service {}", plan.target)), rule),
        },
    }
}

/// One request on its way.
pub(super) struct Exchange<'a> {
    pub(super) conn: &'a Rc<Downstream>,
    pub(super) caller: &'a Caller,
    /// The client, as far as it is known.
    pub(super) client: SocketAddr,
    pub(super) view: &'a View,
    pub(super) protocol: &'static str,
    upgrade: Option<HeaderValue>,
    /// The upgrade came as an extended CONNECT.
    pub(super) extended: Option<Extended>,
    /// The client is to come back to the endpoint that answers.
    session: Option<Box<Session<'a>>>,
    /// The client speaks gRPC-Web, and its backend hears gRPC.
    pub(super) web: Option<Box<GrpcWeb>>,
}

impl Exchange<'_> {
    #[expect(clippy::manual_async_fn, reason = "an async fn would keep what it is given twice")]
    pub(super) fn forward(
        self,
        mut asked: Box<Asked>,
        (mut parts, body): (Parts, ClientBody),
        backend: &Arc<Frontend>,
        plan: Option<ForwardPlan<'_>>,
    ) -> impl Future<Output = Response<ResponseBody>> {
        async move {
            let rule = plan.as_ref().map(|plan| &plan.rule.key);
            if self.conn.side.is_gateway() && plan.as_ref().is_some_and(|plan| plan.authority.is_some()) {
                gateway::tell_host(&mut parts);
            }
            let mirrored = plan.as_ref().filter(|plan| !plan.mirrors.is_empty());
            let tees = mirrored.map(|plan| self.mirror(plan, &parts, &body)).unwrap_or_default();
            let upstream = self.caller.front.upstream_protocol(backend.protocol, &parts);
            let tls =
                match self.caller.front.upstream_tls(&self.conn.engine.backends, self.view, &backend.key, upstream) {
                    Ok(tls) => tls,
                    Err(why) => {
                        let failed = reply::failure(Reason::InvalidBackend, why);
                        return reply::respond(failed, asked, self.conn.labelled(rule, None, self.protocol), 0);
                    }
                };
            if let Err(Unwritable) = prepare(&mut parts, plan.as_ref(), upstream, self.upgrade.as_ref()) {
                let failed = reply::failure(Reason::BadRequest, "the target cannot be written");
                return reply::respond(failed, asked, self.conn.labelled(rule, None, self.protocol), 0);
            }
            if tls.is_some() {
                gateway::secure_scheme(&mut parts);
            }
            let engine = &self.conn.engine;
            let balancer = engine.balancers.get(backend, asked.started);
            let timeouts = plan.as_ref().map_or(Timeouts::default(), |plan| plan.timeouts);
            let retry = plan.as_ref().and_then(|plan| plan.retry);
            let client = self.client.ip();
            let forward = Forward {
                started: asked.started,
                told: self.conn.tells(self.caller, self.client, backend),
                engine,
                view: self.view,
                source: &self.caller.source,
                client,
                hash: hash_of(&balancer, &parts, client),
                session: self.session.as_deref().and_then(Session::endpoint),
                budget: balancer.retry_budget(),
                balancer,
                protocol: upstream,
                tls,
                timeouts,
                retry,
                deadline: deadline(asked.started, timeouts.request),
                upgrade: self.upgrade.is_some(),
                progress: asked.progress.clone(),
            };
            let mut message = message(parts, body, &asked, retry.is_some(), tees);
            let waiting = Waiting::new(&mut asked, (rule, Some(&backend.key)), self.protocol);
            let ran = forward.run(&mut message).await;
            waiting.over();
            match ran {
                Ok(answer) => self.answer(asked, *answer, &backend.key, plan.as_ref()),
                Err(failed) => self.fail(asked, failed, &backend.key, plan.as_ref()),
            }
        }
    }

    fn mirror(&self, plan: &ForwardPlan<'_>, parts: &Parts, body: &ClientBody) -> Vec<mirror::Tee> {
        let mut tees = Vec::new();
        for key in &plan.mirrors {
            let Some(backend) = self.view.frontend(key) else { continue };
            match mirrored::Order::new(self.conn, (self.caller, self.client), self.view, backend, parts) {
                Ok(order) => tees.extend(mirrored::start(order, plan, parts, body)),
                Err(why) => tracing::debug!(backend = %backend.key, "not mirrored: {why}"),
            }
        }
        tees
    }

    fn answer(
        self,
        mut asked: Box<Asked>,
        answer: Answer,
        backend: &ServicePortKey,
        plan: Option<&ForwardPlan<'_>>,
    ) -> Response<ResponseBody> {
        let Answer { response, at, lease, flight, target, tries, limit, steps } = answer;
        asked.progress.answered();
        let (mut parts, body) = response.into_parts();
        let upgrade = hop::strip(&mut parts.headers);
        let told = mark::passed(&mut parts.headers, self.conn, Some(&target));
        mark::name_failure(&mut parts.headers, &mut asked, parts.status);
        let outside = told.filter(|_| self.conn.side.is_outside());
        let instead = outside.and_then(|reason| mark::hide(&mut parts, &mut asked, reason));
        let grpc = if asked.grpc { grpc_status(&parts.headers) } else { None };
        let web = self.web.as_ref().and_then(|web| web.answer(&mut parts));
        if let Some(plan) = plan {
            plan.apply_response(&mut parts.headers);
        }
        if let Some(session) = &self.session {
            session.tell(&self.conn.engine, &mut parts.headers, target.address, self.caller.front.is_secure());
        }
        let labelled = self.conn.labelled(plan.map(|plan| &plan.rule.key), Some(&target), self.protocol);
        let upstream = at.saturating_duration_since(asked.started);
        self.conn.last.set(Reason::Ok);
        let status = parts.status.as_u16();
        let by_destination = told.is_some();
        let is_plain = !by_destination && steps.is_empty() && status < 500;
        let trail = || Trail { steps, backend: Some(backend.clone()), answered: true, by_destination };
        let answered = Answered {
            labelled,
            status,
            reason: told.unwrap_or(Reason::Ok),
            detail: String::new(),
            grpc_status: grpc,
            tries,
            upstream,
            trail: (!is_plain).then(|| Box::new(trail())),
        };
        let finish = Finish::new(asked, answered);
        if let Some(text) = instead {
            // What the endpoint said isn't read: its connection is of no more use.
            return Response::from_parts(parts, reply::body(text, finish.holding(flight, None, None)));
        }
        if self.extended.is_some() && parts.status.is_success() {
            // To this client any success would mean that it may speak WebSocket.
            parts.status = StatusCode::BAD_GATEWAY;
        }
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(parts, upgrade, finish.holding(flight, None, None), lease);
        }
        let finish = finish.holding(flight, Some(lease), limit);
        let body = match web {
            Some(web) => ResponseBody::web(web.body(body), finish),
            None => ResponseBody::upstream(body, finish),
        };
        Response::from_parts(parts, body)
    }

    /// The endpoint switched protocols: after the head of the answer only bytes pass.
    fn switch(
        self,
        mut parts: http::response::Parts,
        upgrade: Option<HeaderValue>,
        finish: Finish,
        lease: crate::connect::http_pool::Lease,
    ) -> Response<ResponseBody> {
        if let Some(extended) = self.extended {
            return extended.switched(parts, self.conn, (lease, finish));
        }
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = upgrade.or(self.upgrade) {
            parts.headers.insert(header::UPGRADE, protocol);
        }
        *self.conn.upgrade.borrow_mut() = Some((lease, finish));
        Response::from_parts(parts, ResponseBody::local(bytes::Bytes::new(), None))
    }

    fn fail(
        self,
        asked: Box<Asked>,
        failed: Failed,
        backend: &ServicePortKey,
        plan: Option<&ForwardPlan<'_>>,
    ) -> Response<ResponseBody> {
        let Failed { reason, detail, target, tries, steps } = failed;
        let labelled = self.conn.labelled(plan.map(|plan| &plan.rule.key), target.as_ref(), self.protocol);
        let trail = Box::new(Trail { steps, backend: Some(backend.clone()), ..Trail::default() });
        let mut response = reply::respond_after(reply::failure(reason, detail), asked, labelled, (tries, Some(trail)));
        if let Some(plan) = plan {
            plan.cors.apply(response.headers_mut());
        }
        if reason == Reason::BodyTimeout { close(response) } else { response }
    }
}

/// What a consistent hash is taken of; a request without it is balanced as others.
fn hash_of(balancer: &Balancer, parts: &Parts, client: std::net::IpAddr) -> Option<u64> {
    match balancer.hash_key()? {
        HashKey::ClientIp => Some(hash_ip(client)),
        HashKey::Header(name) => parts.headers.get(name.as_str()).map(|value| hash_bytes(value.as_bytes())),
        HashKey::Cookie(name) => parts
            .headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .find_map(|pair| pair.trim().split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| hash_bytes(value.as_bytes())),
    }
}

pub(super) fn message(parts: Parts, body: ClientBody, asked: &Asked, keep: bool, tees: Vec<mirror::Tee>) -> Message {
    use http_body::Body;
    let (listener, gate) = interim::listen(&parts, asked.conn.watched.interim());
    let listener = Some(listener);
    if body.is_end_stream() {
        tees.into_iter().for_each(mirror::Tee::end);
        return Message { listener, ..Message::new(parts, RequestBody::Empty) };
    }
    asked.progress.comes_on(&asked.conn.watched);
    let source = Source::new(body, &asked.progress, tees, gate);
    if keep {
        let replays = Replays::new(source);
        let body = RequestBody::Replay(replays.next());
        return Message { replays: Some(replays), listener, ..Message::new(parts, body) };
    }
    Message { listener, ..Message::new(parts, RequestBody::Stream(source)) }
}
