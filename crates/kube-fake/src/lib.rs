//! An API server in memory, for tests: objects of any kind with list, watch, get, create, replace, merge patch and
//! delete; server-side apply with force, which makes what isn't there and merges like a merge patch otherwise; resource
//! versions, conflicts, `status` as a subresource, uids, generations, label and field selectors. No schemas, no admission, no
//! other patches, no owners of fields, no garbage collection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "for tests")]

mod key;
mod select;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Request as HttpRequest, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use key::{Key, parse};
use select::{merge, selected};

type Answer = dyn Fn(&Request) -> Option<Reply> + Send + Sync;
type Pages = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query; empty if there is none.
    pub query: String,
    /// The body; null if there is none.
    pub body: Value,
}

impl Request {
    /// Whether it opens a watch.
    pub fn is_watch(&self) -> bool {
        self.parameter("watch").is_some_and(|v| v == "true" || v == "1")
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let pair = self.query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))?;
        Some(pair.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%21", "!"))
    }
}

/// What a test wants to be answered instead.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status code and a body.
    Json(u16, Value),
    /// Nothing, for ever.
    Hang,
}

impl Reply {
    /// An error as the API server puts it.
    pub fn error(code: u16, reason: &str) -> Self {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code });
        Self::Json(code, status)
    }
}

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    answer: Arc<Mutex<Option<Arc<Answer>>>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Watches from before this version are told 410 Gone.
    floor: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, &'static str, Key, Value)>,
    watchers: Vec<Watcher>,
    requests: Vec<Request>,
    absent: Vec<(String, String)>,
}

/// What a server had.
#[derive(Debug)]
pub struct Backup {
    version: u64,
    objects: BTreeMap<Key, Value>,
}

struct Watcher {
    of: Key,
    /// It is told of later versions only.
    since: u64,
    labels: Option<String>,
    fields: Option<String>,
    lines: mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>,
}

impl fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeApi")
    }
}

impl FakeApi {
    /// An empty server that knows every kind.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client of it.
    pub fn client(&self) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: HttpRequest<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.handle(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Asks `answer` about every request from now on; `None` goes on as usual. It may change objects meanwhile.
    pub fn answer(&self, answer: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) {
        *self.answer.lock() = Some(Arc::new(answer));
    }

    /// Makes or replaces an object as its author would, status included; `collection` is a path such as
    /// `/api/v1/namespaces/shop/pods`.
    pub fn put(&self, collection: &str, object: Value) -> Value {
        let (mut key, _) = parse(collection).expect("a collection");
        key.name = object["metadata"]["name"].as_str().expect("metadata.name").to_owned();
        self.state.lock().store(&key, object)
    }

    /// Deletes an object by its path, if it is there.
    pub fn remove(&self, path: &str) {
        let (key, _) = parse(path).expect("an object's path");
        self.state.lock().delete(&key);
    }

    /// An object by its path.
    pub fn get(&self, path: &str) -> Option<Value> {
        let (key, _) = parse(path).expect("an object's path");
        self.state.lock().objects.get(&key).cloned()
    }

    /// All objects of a collection.
    pub fn list(&self, collection: &str) -> Vec<Value> {
        let (of, _) = parse(collection).expect("a collection");
        self.state.lock().matching(&of, None, None)
    }

    /// Whether a kind is served; all are at first. `resource` is as `/apis/gateway.networking.k8s.io/v1/httproutes`.
    pub fn serve(&self, resource: &str, served: bool) {
        let (key, _) = parse(resource).expect("a resource");
        let mut state = self.state.lock();
        let absent = (key.group, key.plural);
        state.absent.retain(|a| *a != absent);
        if !served {
            state.watchers.retain(|w| (&w.of.group, &w.of.plural) != (&absent.0, &absent.1));
            state.absent.push(absent);
        }
    }

    /// Forgets all history.
    pub fn compact(&self) {
        let mut state = self.state.lock();
        state.floor = state.version;
        state.history.clear();
    }

    /// What there is now, for [`Self::restore()`].
    pub fn backup(&self) -> Backup {
        let state = self.state.lock();
        Backup { version: state.version, objects: state.objects.clone() }
    }

    /// Has what there was again, and counts versions on from there. All watches break.
    pub fn restore(&self, backup: Backup) {
        let mut state = self.state.lock();
        state.history.retain(|(version, ..)| *version <= backup.version);
        (state.version, state.objects) = (backup.version, backup.objects);
        drop(state);
        self.disconnect(true);
    }

    /// Ends all watches, with an error or without.
    pub fn disconnect(&self, broken: bool) {
        for watcher in self.state.lock().watchers.drain(..) {
            if broken {
                let _ = watcher.lines.unbounded_send(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
            }
        }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    async fn handle(&self, request: HttpRequest<Body>) -> Response<Pages> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let request = Request {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        };
        self.state.lock().requests.push(request.clone());
        let answer = self.answer.lock().clone();
        match answer.and_then(|answer| answer(&request)) {
            Some(Reply::Json(code, value)) => page(code, &value),
            Some(Reply::Hang) => std::future::pending().await,
            None => self.state.lock().execute(&request),
        }
    }
}

impl State {
    fn execute(&mut self, request: &Request) -> Response<Pages> {
        let Some((mut key, subresource)) = parse(&request.path) else { return failure(404, "NotFound") };
        if self.absent.iter().any(|(group, plural)| *group == key.group && *plural == key.plural) {
            return failure(404, "NotFound");
        }
        match (request.method.as_str(), key.name.is_empty()) {
            ("GET", true) if request.is_watch() => self.watch(key, request),
            ("GET", true) => {
                let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
                let items = self.matching(&key, labels.as_deref(), fields.as_deref());
                let metadata = json!({ "resourceVersion": self.version.to_string() });
                page(200, &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }))
            }
            ("GET", false) => match self.objects.get(&key) {
                Some(object) => page(200, object),
                None => failure(404, "NotFound"),
            },
            ("POST", true) => {
                key.name = request.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                match self.objects.contains_key(&key) {
                    true => failure(409, "AlreadyExists"),
                    false => page(201, &self.store(&key, request.body.clone())),
                }
            }
            ("PUT" | "PATCH", false) => self.change(&key, subresource.as_deref(), request),
            ("DELETE", false) => match self.delete(&key) {
                Some(object) => page(200, &object),
                None => failure(404, "NotFound"),
            },
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn change(&mut self, key: &Key, subresource: Option<&str>, request: &Request) -> Response<Pages> {
        let is_apply = request.method == "PATCH" && request.parameter("force").as_deref() == Some("true");
        let Some(before) = self.objects.get(key).cloned() else {
            return if is_apply { page(201, &self.store(key, request.body.clone())) } else { failure(404, "NotFound") };
        };
        let given = &request.body["metadata"]["resourceVersion"];
        if given.is_string() && *given != before["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        let mut after = before.clone();
        match request.method.as_str() {
            "PATCH" => merge(&mut after, &request.body),
            _ => after = request.body.clone(),
        }
        match subresource {
            Some("status") => {
                let (status, labels) = (after["status"].take(), after["metadata"]["labels"].take());
                after = before.clone();
                after["status"] = status;
                // With the status of a pod, labels are set, too.
                if key.plural == "pods" {
                    after["metadata"]["labels"] = labels;
                }
            }
            _ if !before["status"].is_null() => after["status"] = before["status"].clone(),
            _ => {}
        }
        page(200, &self.store(key, after))
    }

    fn store(&mut self, key: &Key, mut object: Value) -> Value {
        let before = self.objects.get(key).cloned();
        let content = |o: &Value| {
            let mut content = o.clone();
            content["metadata"]["resourceVersion"].take();
            content
        };
        if let Some(before) = &before {
            for kept in ["uid", "creationTimestamp", "generation"] {
                object["metadata"][kept] = before["metadata"][kept].clone();
            }
            if content(before) == content(&object) {
                return before.clone();
            }
            if before["spec"] != object["spec"] {
                object["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
            }
        } else {
            let meta = &mut object["metadata"];
            for (field, value) in [
                ("uid", json!(format!("uid-{}", self.version + 1))),
                ("creationTimestamp", json!("2026-01-01T00:00:00Z")),
                ("generation", json!(1)),
            ] {
                if meta[field].is_null() {
                    meta[field] = value;
                }
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        self.objects.insert(key.clone(), object.clone());
        self.tell(if before.is_some() { "MODIFIED" } else { "ADDED" }, key, &object);
        object
    }

    fn delete(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell("DELETED", key, &object);
        Some(object)
    }

    fn tell(&mut self, what: &'static str, key: &Key, object: &Value) {
        self.history.push((self.version, what, key.clone(), object.clone()));
        let version = self.version;
        let told = |w: &Watcher| version > w.since && w.sees(key, object);
        self.watchers.retain(|w| !told(w) || w.lines.unbounded_send(Ok(line(what, object))).is_ok());
    }

    fn matching(&self, of: &Key, labels: Option<&str>, fields: Option<&str>) -> Vec<Value> {
        let wanted = |k: &Key, o: &Value| of.holds(k) && selected(o, labels, fields);
        self.objects.iter().filter(|(k, o)| wanted(k, o)).map(|(_, o)| o.clone()).collect()
    }

    fn watch(&mut self, of: Key, request: &Request) -> Response<Pages> {
        let since = request.parameter("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (lines, stream) = mpsc::unbounded();
        if since < self.floor {
            let gone = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "too old resource version", "reason": "Expired", "code": 410 });
            let _ = lines.unbounded_send(Ok(line("ERROR", &gone)));
        } else {
            let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
            let watcher = Watcher { of, since, labels, fields, lines };
            for (_, what, key, object) in self.history.iter().filter(|(version, ..)| *version > since) {
                if watcher.sees(key, object) {
                    let _ = watcher.lines.unbounded_send(Ok(line(what, object)));
                }
            }
            self.watchers.push(watcher);
        }
        Response::new(StreamBody::new(stream.boxed()).boxed_unsync())
    }
}

impl Watcher {
    fn sees(&self, key: &Key, object: &Value) -> bool {
        self.of.holds(key) && selected(object, self.labels.as_deref(), self.fields.as_deref())
    }
}

fn line(what: &str, object: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(json!({ "type": what, "object": object }).to_string() + "\n"))
}

fn page(code: u16, value: &Value) -> Response<Pages> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never: Infallible| match never {});
    Response::builder().status(code).body(body.boxed_unsync()).expect("a response")
}

fn failure(code: u16, reason: &str) -> Response<Pages> {
    match Reply::error(code, reason) {
        Reply::Json(code, value) => page(code, &value),
        Reply::Hang => unreachable!(),
    }
}
