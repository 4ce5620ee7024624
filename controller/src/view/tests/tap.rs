//! Taps of proxies in this process, through the table of endpoints.

use std::convert::Infallible;
use std::io;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use parking_lot::Mutex;
use serde_json::{Value, json};
use weft_kube_fake::{FakeApi, Reply};

use super::super::auth::tests::people;
use super::super::proxies::{Io, Places};
use super::*;

/// A proxy in this process: what it was asked, and what it says.
#[derive(Clone)]
pub(in crate::view) struct Said {
    name: &'static str,
    asked: Arc<Mutex<Vec<Value>>>,
    lines: Arc<dyn Fn() -> mpsc::Receiver<Line> + Send + Sync>,
}

impl Said {
    /// Says this and no more, and stays.
    fn lines(name: &'static str, lines: Vec<Line>) -> Self {
        let lines = move || {
            let (sender, receiver) = mpsc::channel(64);
            lines.iter().for_each(|line| sender.try_send(line.clone()).unwrap());
            if lines.last().is_none_or(|line| !matches!(line, Line::End(_))) {
                tokio::spawn(async move { sender.closed().await });
            }
            receiver
        };
        Self { name, asked: Arc::default(), lines: Arc::new(lines) }
    }

    fn serve(&self, io: tokio::io::DuplexStream) {
        let said = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let said = said.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                said.asked.lock().push(serde_json::from_slice(&body).unwrap());
                let frames = ReceiverStream::new((said.lines)());
                let frames = frames.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line.text()))));
                Ok::<_, Infallible>(http::Response::new(StreamBody::new(frames)))
            }
        });
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service));
    }
}

/// These proxies, as pods of this API server; one without a name can't be reached.
pub(in crate::view) fn proxies(api: &FakeApi, said: Vec<Said>) -> Proxies {
    for (n, said) in said.iter().enumerate() {
        let labels = json!({ "app.kubernetes.io/name": "weft-node-proxy" });
        let spec = json!({ "serviceAccountName": "weft-node-proxy", "nodeName": said.name, "containers": [] });
        let status = json!({ "phase": "Running", "podIP": format!("10.0.0.{n}") });
        let pod = json!({ "metadata": { "name": said.name, "labels": labels }, "spec": spec, "status": status });
        api.put("/api/v1/namespaces/weft-system/pods", pod);
    }
    let places = Places {
        client: api.client(),
        account: ("weft-system".into(), "weft-node-proxy".into()),
        trust_domain: Default::default(),
        of_gateway: Arc::new(|_, _| None),
    };
    let dial = move |proxy: Proxy| -> futures::future::BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let found =
            said.iter().find(|said| *proxy.name == format!("node {}", said.name) && said.name != "down").cloned();
        Box::pin(async move {
            let said = found.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            said.serve(theirs);
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    };
    Proxies::new(places, Arc::new(dial))
}

fn world(said: Vec<Said>) -> (FakeApi, Arc<View>) {
    let api = FakeApi::new();
    api.answer(people);
    let view = View::new(api.client(), proxies(&api, said));
    (api, view)
}

/// The answer to Jane's tap, line by line.
struct Reading {
    body: Answer,
    lines: Lines,
    ready: std::collections::VecDeque<Line>,
}

impl Reading {
    async fn of(view: &Arc<View>, token: &str, tap: Value) -> Result<Self, Refused> {
        let asked = Asked {
            method: Method::POST,
            path: PATH.into(),
            query: Vec::new(),
            token: Some(token.into()),
            body: tap.to_string().into(),
        };
        let body = view.route(&asked).await?;
        assert_eq!(body.headers()["content-type"], "application/x-ndjson");
        Ok(Self { body, lines: Lines::default(), ready: Default::default() })
    }

    async fn next(&mut self) -> Option<Line> {
        while self.ready.is_empty() {
            let frame = self.body.body_mut().frame().await?.unwrap();
            self.ready.extend(self.lines.push(frame.data_ref().unwrap()).unwrap());
        }
        self.ready.pop_front()
    }

    /// All to the end, without those that say that nothing happens.
    async fn rest(mut self) -> Vec<Line> {
        let mut all = Vec::new();
        while let Some(line) = self.next().await {
            all.extend(Some(line).filter(|line| *line != Line::Quiet));
        }
        all
    }
}

fn seen(source: &str, destination: &str, path: &str) -> Line {
    Line::Seen(Box::new(Record {
        source_namespace: source.into(),
        destination_namespace: destination.into(),
        path: path.into(),
        proxy: "forged".into(),
        ..Record::default()
    }))
}

#[tokio::test(start_paused = true)]
async fn what_all_proxies_see_comes_together_and_names_who_saw_it() {
    let (a, b) = (
        Said::lines("a", vec![seen("shop", "shop", "/1"), Line::Dropped(3)]),
        Said::lines("b", vec![seen("edge", "shop", "/2"), Line::Dropped(4)]),
    );
    let (_api, view) = world(vec![a.clone(), b]);
    let tap = json!({ "filter": { "namespace": "shop", "method": "GET" }, "seconds": 5, "rate": 7 });
    let lines = Reading::of(&view, "jane", tap).await.unwrap().rest().await;
    let mut told: Vec<_> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Seen(record) => Some(format!("{} {}", record.proxy, record.path)),
            Line::Joined(who) => Some(format!("joined {}", who.join(", "))),
            _ => None,
        })
        .collect();
    told.sort();
    assert_eq!(told, ["joined node a", "joined node b", "node a /1", "node b /2"]);
    let dropped: Vec<_> =
        lines.iter().filter_map(|line| if let Line::Dropped(n) = line { Some(*n) } else { None }).collect();
    assert_eq!(dropped.last(), Some(&7), "of both together: {lines:?}");
    assert_eq!(lines.last(), Some(&Line::End("5 s are over".into())));
    let asked = a.asked.lock().clone();
    assert_eq!((asked.len(), &asked[0]["filter"]["namespace"], &asked[0]["rate"]), (1, &json!("shop"), &json!(7)));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_cannot_show_more_than_was_allowed() {
    let (_api, view) = world(vec![Said::lines(
        "a",
        vec![seen("bank", "bank", "/secret"), seen("", "", "/x"), seen("bank", "shop", "/1")],
    )]);
    let lines = Reading::of(&view, "jane", json!({ "filter": { "namespace": "shop" }, "count": 1 }))
        .await
        .unwrap()
        .rest()
        .await;
    let paths: Vec<_> =
        lines.iter().filter_map(|line| if let Line::Seen(it) = line { Some(it.path.as_str()) } else { None }).collect();
    assert_eq!(paths, ["/1"]);
    assert_eq!(lines.last(), Some(&Line::End("1 are seen".into())));
}

#[tokio::test(start_paused = true)]
async fn another_namespace_is_refused_before_any_proxy_hears_of_it() {
    let a = Said::lines("a", Vec::new());
    let (_api, view) = world(vec![a.clone()]);
    for (token, namespace, status) in
        [("jane", "bank", 403), ("jane", "", 403), ("expired", "shop", 401), ("down", "shop", 503)]
    {
        let refused = Reading::of(&view, token, json!({ "filter": { "namespace": namespace } })).await.err().unwrap();
        assert_eq!(refused.status.as_u16(), status, "{refused}");
    }
    assert!(a.asked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_taken_away_ends_the_tap() {
    let (api, view) = world(vec![Said::lines("a", Vec::new())]);
    let reading =
        Reading::of(&view, "jane", json!({ "filter": { "namespace": "shop" }, "seconds": 600 })).await.unwrap();
    api.answer(|request| match request.path.ends_with("/subjectaccessreviews") {
        true => Some(Reply::Json(201, json!({ "metadata": {}, "spec": {}, "status": { "allowed": false } }))),
        false => people(request),
    });
    let lines = reading.rest().await;
    assert!(matches!(lines.last(), Some(Line::End(why)) if why.contains("jane may not get taps")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_cannot_be_heard_is_named_once_and_costs_only_itself() {
    let ends = Said::lines("ends", vec![Line::End("8 taps run already".into())]);
    let (_api, view) =
        world(vec![Said::lines("down", Vec::new()), ends.clone(), Said::lines("a", vec![seen("shop", "shop", "/1")])]);
    let lines = Reading::of(&view, "jane", json!({ "filter": { "namespace": "shop" }, "seconds": 40 }))
        .await
        .unwrap()
        .rest()
        .await;
    let mut left: Vec<_> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Left { proxy, why } => Some(format!("{proxy}: {why}")),
            _ => None,
        })
        .collect();
    left.sort();
    assert!(left[0].starts_with("node down: ") && left[0].contains("refused"), "{left:?}");
    assert_eq!(left.iter().filter(|it| it.starts_with("node down")).count(), 1, "{left:?}");
    assert!(left.iter().any(|it| it == "node ends: 8 taps run already"), "{left:?}");
    assert!(ends.asked.lock().len() > 1, "it is asked again");
    assert!(lines.iter().any(|line| matches!(line, Line::Seen(_))));
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_and_one_whose_reader_is_gone_makes_room() {
    let (_api, view) = world(vec![Said::lines("a", Vec::new())]);
    let tap = || json!({ "filter": { "namespace": "shop" }, "seconds": 600 });
    let mut readings = Vec::new();
    for _ in 0..AT_ONCE {
        readings.push(Reading::of(&view, "jane", tap()).await.unwrap());
    }
    let refused = Reading::of(&view, "jane", tap()).await.err().unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    readings.pop();
    let turn = Arc::clone(&view.taps).acquire_owned().await.unwrap();
    drop(turn);
    assert!(Reading::of(&view, "jane", tap()).await.is_ok());
}
