//! Two servers in this process, and what is said of them.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use clap::Parser;
use http::{Request as HttpRequest, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertificateParams, DnType, KeyPair};
use tokio::net::TcpListener;
use weft_tls::{GatewayTls, Inside};

use super::{Args, ask, requests};

/// What a server does differently from another.
#[derive(Clone, Copy, Default)]
struct Way {
    /// What `/status` is answered with; 0 is 200.
    status: u16,
    header: &'static str,
    body: &'static str,
    /// Whether `/hang` is never answered.
    hangs: bool,
}

async fn answer(way: Way, request: HttpRequest<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/hang" && way.hangs {
        std::future::pending::<()>().await;
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let host = head.uri.authority().map(ToString::to_string);
    let host = host.or_else(|| head.headers.get("host").and_then(|host| host.to_str().ok()).map(str::to_owned));
    let mut response = Response::new(Full::new(Bytes::from(format!("{path}{}", way.body))));
    if path == "/status" && way.status != 0 {
        *response.status_mut() = way.status.try_into().unwrap();
    }
    let headers = response.headers_mut();
    headers.insert("x-way", way.header.try_into().unwrap());
    headers.insert("x-host", host.unwrap_or_default().try_into().unwrap());
    headers.insert("x-sent", format!("{} {} {:?}", head.method, body.len(), head.version).try_into().unwrap());
    headers.insert("x-request-id", format!("{:p}", &head).try_into().unwrap());
    Ok(response)
}

/// A server, with TLS for these names of an issuer if there are any.
async fn server(way: Way, tls: Option<(&str, &[&str])>) -> SocketAddr {
    let tls = tls.map(|(issuer, names)| {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, issuer);
        let certificate = params.self_signed(&key).unwrap();
        let pair = weft_tls::KeyPair::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        GatewayTls::new(vec![pair], Inside::Http, None).unwrap()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(way, request));
                let server = auto::Builder::new(TokioExecutor::new());
                let served = match tls {
                    None => server.serve_connection(TokioIo::new(stream), service).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        server.serve_connection(TokioIo::new(stream), service).await
                    }
                };
                drop(served);
            });
        }
    });
    address
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// What is said of two servers that are asked these requests.
async fn said(old: SocketAddr, new: SocketAddr, text: &str, more: &[&str]) -> super::Report {
    let (old, new) = (old.to_string(), new.to_string());
    let line = ["diff", "--old", &old, "--new", &new, "--requests", "-"].into_iter().chain(more.iter().copied());
    let args = Line::try_parse_from(line).unwrap().args;
    let all = requests::parse(text, args.base.as_ref()).unwrap();
    ask(&args, all).await.unwrap()
}

#[tokio::test]
async fn doors_that_answer_alike_do_not_differ_in_either_version_of_http() {
    let (old, new) = (server(Way::default(), None).await, server(Way::default(), None).await);
    let text = "http://shop.example.com/\nhttp://shop.example.com/a HTTP/2\nPOST http://shop.example.com/b\n  > x";
    let report = said(old, new, text, &["--bodies", "--compare-header", "x-host"]).await;
    assert_eq!((report.requests, report.left_out, report.differs()), (2, 1, false), "{report}");
    let report = said(old, new, text, &["--all-methods", "--http", "2"]).await;
    assert_eq!((report.requests, report.left_out, report.differs()), (3, 0, false), "{report}");
    // Ids of requests differ, and are only compared where somebody asks for it.
    assert!(said(old, new, text, &["--compare-header", "x-request-id"]).await.differs());
}

#[tokio::test]
async fn what_differs_is_said_request_by_request() {
    let old = server(Way { header: "old", body: "1", ..Way::default() }, None).await;
    let new = server(Way { header: "new", body: "2", status: 404, hangs: true }, None).await;
    let text = "http://a.com/status\nhttp://a.com/hang\nhttp://a.com/x";
    let report = said(old, new, text, &["--bodies", "--timeout", "2s", "--ignore-header", "x-way"]).await;
    let what: Vec<(&str, Vec<&str>)> = report
        .differing
        .iter()
        .map(|pair| (pair.request.as_str(), pair.differences.iter().map(|it| it.what.as_str()).collect()))
        .collect();
    let expected = [
        ("GET http://a.com/status", vec!["status", "body"]),
        ("GET http://a.com/hang", vec!["answer"]),
        ("GET http://a.com/x", vec!["body"]),
    ];
    assert_eq!(what, expected);
    let difference = &report.differing[1].differences[0];
    assert_eq!(difference.old.as_deref(), Some("200 OK"));
    assert_eq!(difference.new.as_deref(), Some("none: no whole answer within 2s"));
    assert_eq!(said(old, new, "http://a.com/x", &[]).await.differing[0].differences[0].what, "header x-way");
}

#[tokio::test]
async fn certificates_are_compared_once_for_each_host() {
    let old = server(Way::default(), Some(("old", &["a.com", "b.com"]))).await;
    let new = server(Way::default(), Some(("new", &["a.com"]))).await;
    let text = "https://a.com/1\nhttps://a.com/2 HTTP/2\nhttps://b.com/";
    let report = said(old, new, text, &[]).await;
    assert!(report.differing.is_empty(), "{report}");
    let hosts: Vec<_> = report.certificates.iter().map(|it| it.host.as_str()).collect();
    assert_eq!(hosts, ["a.com", "b.com"]);
    let what: Vec<_> = report.certificates[0].differences.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(what, ["subject", "names", "issuer"]);
    assert_eq!(report.certificates[0].differences[1].old.as_deref(), Some("a.com, b.com"));
    assert!(!said(old, new, text, &["--no-certificates"]).await.differs());
    assert!(!said(old, old, text, &[]).await.differs(), "the same door twice");
}

#[tokio::test]
async fn a_door_that_nobody_stands_at_differs() {
    let open = server(Way::default(), None).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let report = said(open, closed, "http://a.com/", &[]).await;
    assert_eq!(report.differing[0].differences[0].what, "answer");
    // Plain HTTP where TLS is spoken.
    let report = said(open, open, "https://a.com/", &[]).await;
    assert!(report.differs(), "neither has answered: {report}");
}
