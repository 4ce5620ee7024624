//! External authorization between a client, an authorizer and a backend.

mod bodies;
mod by_grpc;
mod by_http;
mod failures;
mod upgrades;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::Instant;
use weft_api::envoy::config::core::v3::{HeaderValue as Pair, HeaderValueOption};
use weft_api::envoy::service::auth::v3::attribute_context::HttpRequest;
use weft_api::envoy::service::auth::v3::check_response::HttpResponse;
use weft_api::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use weft_api::google::rpc::Status;
use weft_core::change::{Change, ResourceKey};
use weft_core::ids::{RouteKind, ServiceKey};
use weft_core::route::*;
use weft_core::service::AppProtocol;

use super::gateway::{at, http, https, key_of};
use super::world::*;

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

fn names(list: &[&'static str]) -> Vec<HeaderName> {
    list.iter().map(|name| HeaderName::from_static(name)).collect()
}

/// Asks the Service `auth`, which has endpoint 4.
fn filter(protocol: AuthProtocol, max_body: u32) -> HttpFilter {
    let authorizer = BackendTarget::Service(key("auth"));
    HttpFilter::ExternalAuth(ExternalAuth { authorizer, protocol, max_body: NonZeroU32::new(max_body) })
}

fn over_http(path: &str, request: &[&'static str], response: &[&'static str]) -> AuthProtocol {
    AuthProtocol::Http { path: path.into(), request_headers: names(request), response_headers: names(response) }
}

fn over_grpc() -> AuthProtocol {
    AuthProtocol::Grpc { headers: Vec::new() }
}

fn guarded(filter: HttpFilter) -> HttpRule {
    HttpRule { filters: vec![filter], ..rule(0, "", vec![backend("web")]) }
}

fn world(rule: HttpRule) -> World {
    let mut changes = service("web", AppProtocol::Http, &[1]);
    changes.extend(service("auth", AppProtocol::Http, &[4]));
    changes.push(upsert(rule));
    World::new(changes)
}

/// What an application was asked, most recent last: its heads and bodies.
type Seen = Rc<RefCell<Vec<(http::request::Parts, bytes::Bytes)>>>;

/// An application that notes what it is asked before it answers.
fn notes(answer: impl Fn(&http::request::Parts) -> Response<Body> + 'static) -> (App, Seen) {
    let (seen, answer) = (Seen::default(), Rc::new(answer));
    let noted = Rc::clone(&seen);
    let app: App = Rc::new(move |request, _| {
        let (noted, answer) = (Rc::clone(&noted), Rc::clone(&answer));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let response = answer(&head);
            noted.borrow_mut().push((head, body));
            response
        })
    });
    (app, seen)
}

/// The host that a request was for.
fn host(head: &http::request::Parts) -> String {
    let named = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    head.uri.authority().map(ToString::to_string).or(named).unwrap()
}

fn plain(status: u16) -> impl Fn(&http::request::Parts) -> Response<Body> {
    move |_| Response::builder().status(status).body(empty()).unwrap()
}

/// An authorizer over gRPC.
fn decides(decide: impl Fn(HttpRequest) -> CheckResponse + 'static) -> App {
    let decide = Rc::new(decide);
    Rc::new(move |request, _| {
        let decide = Rc::clone(&decide);
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
            assert_eq!((request.version(), &request.headers()["te"]), (Version::HTTP_2, &"trailers".parse().unwrap()));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let asked = CheckRequest::decode(&body[5..]).unwrap();
            grpc(&decide(asked.attributes.unwrap().request.unwrap().http.unwrap()), "0")
        })
    })
}

/// The answer to a unary call.
fn grpc(message: &impl Message, status: &'static str) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap());
    framed.put_slice(&message.encode_to_vec());
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let frames = [Ok(http_body::Frame::data(framed.freeze())), Ok(http_body::Frame::trailers(trailers))];
    let body = StreamBody::new(futures::stream::iter(frames)).boxed();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn says(code: i32, response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse { status: Some(Status { code, ..Status::default() }), http_response: response }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    let header = Pair { key: name.into(), value: value.into(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}
