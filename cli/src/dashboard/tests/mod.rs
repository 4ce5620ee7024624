//! The page's server and what it answers; in a browser: [`browser`].

mod browser;
mod data;
mod devtools;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::server::{Site, serve};
use super::source::{Refused, Source, View};

/// A moment, for data that doesn't change.
const MOMENT: f64 = 1_800_000_000.0;

fn shop(view: View, namespace: Option<&str>) -> Result<Value, Refused> {
    data::answer(&data::shop(MOMENT), view, namespace)
}

#[test]
fn what_the_page_gets() {
    for (name, view) in [
        ("namespaces", View::Namespaces),
        ("graph", View::Graph),
        ("routes", View::Routes),
        ("certificates", View::Certificates),
        ("problems", View::Problems),
    ] {
        insta::assert_json_snapshot!(name, shop(view, None).unwrap());
    }
}

#[test]
fn a_namespace_keeps_what_concerns_it() {
    let graph = shop(View::Graph, Some("bank")).unwrap();
    let edges = graph["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 1, "{graph}");
    assert_eq!((&edges[0]["from"], &edges[0]["to"]), (&"shop/payments".into(), &"bank/clearing".into()));
    let problems = shop(View::Problems, Some("reports")).unwrap();
    assert_eq!(problems["findings"].as_array().unwrap().len(), 1, "{problems}");
    assert_eq!(problems["findings"][0]["object"], "NetworkPolicy reports/nightly-only");
}

/// A request with a host and further lines of its head: the status and all that came.
async fn asked(port: u16, first: &str, host: &str, more: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
    let length = body.len();
    let head = format!(
        "{first} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

/// Runs work beside a page of fixed data; it gets the port and the site.
fn beside<T>(
    answer: fn(View, Option<&str>) -> Result<Value, Refused>,
    work: impl AsyncFnOnce(u16, Rc<Site>) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let site = Rc::new(Site::new(Source::Fixed(answer), port));
        let serving = tokio::task::spawn_local(serve::<()>(Rc::clone(&site), listener));
        let done = work(port, site).await;
        serving.abort();
        done
    }))
}

fn token(site: &Site) -> String {
    site.invitation().split_once("#token=").unwrap().1.to_owned()
}

async fn key(port: u16, site: &Site) -> String {
    let (status, text) = asked(port, "POST /api/session", &format!("127.0.0.1:{port}"), "", &token(site)).await;
    assert_eq!(status, 200, "{text}");
    let body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    format!("authorization: Bearer {}\r\n", body["key"].as_str().unwrap())
}

#[test]
fn nothing_is_told_without_the_key_which_a_token_gives_once() {
    beside(shop, async |port, site| {
        let own = format!("127.0.0.1:{port}");
        for more in ["", "authorization: Bearer \r\n", "authorization: Bearer x\r\n", "cookie: key=x\r\n"] {
            for path in ["namespaces", "graph", "routes", "certificates", "problems"] {
                let (status, text) = asked(port, &format!("GET /api/{path}"), &own, more, "").await;
                assert_eq!(status, 401, "{path} {more}: {text}");
                assert!(!text.contains("shop"), "{text}");
            }
        }
        let first = token(&site);
        let key = key(port, &site).await;
        assert_eq!(asked(port, "GET /api/graph", &own, &key, "").await.0, 200);
        let again = asked(port, "POST /api/session", &own, "", &first).await;
        assert_eq!(again.0, 401, "a token is good once: {}", again.1);
        assert_ne!(first, token(&site));
        assert_eq!(asked(port, "POST /api/session", &own, "", &"x".repeat(4000)).await.0, 401);
        assert_eq!(asked(port, "POST /api/session", &own, "", "").await.0, 401);
    });
}

#[test]
fn another_name_for_this_machine_and_another_page_get_nothing() {
    beside(shop, async |port, site| {
        let key = key(port, &site).await;
        let other = format!("127.0.0.1:{}", port ^ 1);
        for host in ["evil.example", "evil.example:80", "127.0.0.1", &other, "localhost", "127.0.0.1.evil.example"] {
            for path in ["/", "/main.js", "/api/graph"] {
                let (status, text) = asked(port, &format!("GET {path}"), host, &key, "").await;
                assert_eq!(status, 421, "{host} {path}: {text}");
            }
        }
        let own = format!("localhost:{port}");
        assert_eq!(asked(port, "GET /api/graph", &own, &key, "").await.0, 200);
        let twice = format!("host: evil.example\r\n{key}");
        assert_eq!(asked(port, "GET /api/graph", &own, &twice, "").await.0, 421);
        for origin in ["http://evil.example", &format!("http://{other}"), &format!("https://{own}"), "null"] {
            let more = format!("origin: {origin}\r\n{key}");
            assert_eq!(asked(port, "GET /api/graph", &own, &more, "").await.0, 403, "{origin}");
        }
        let more = format!("origin: http://{own}\r\n{key}");
        assert_eq!(asked(port, "GET /api/graph", &own, &more, "").await.0, 200);
    });
}

#[test]
fn every_answer_says_what_a_browser_may_do_with_it() {
    beside(shop, async |port, site| {
        let (own, key) = (format!("127.0.0.1:{port}"), key(port, &site).await);
        for first in [
            "GET /",
            "GET /style.css",
            "GET /main.js",
            "GET /icon.svg",
            "GET /api/graph",
            "GET /nothing",
            "PUT /",
            "POST /api/graph",
        ] {
            let (_, text) = asked(port, first, &own, &key, "").await;
            for header in [
                "content-security-policy: default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'\r\n",
                "x-content-type-options: nosniff",
                "cache-control: no-store",
                "referrer-policy: no-referrer",
            ] {
                assert!(text.contains(header), "{first}: no {header}: {text}");
            }
        }
        for (first, status) in [
            ("GET /nothing", 404),
            ("GET /api/nothing", 404),
            ("PUT /", 405),
            ("POST /api/graph", 405),
            ("GET /api/graph?namespace=Shop%20", 400),
            ("GET /api/graph?namespace=", 200),
            ("HEAD /", 200),
        ] {
            assert_eq!(asked(port, first, &own, &key, "").await.0, status, "{first}");
        }
    });
}

#[test]
fn a_refusal_is_handed_on_with_its_sentence() {
    beside(data::refused, async |port, site| {
        let (own, key) = (format!("127.0.0.1:{port}"), key(port, &site).await);
        let (status, text) = asked(port, "GET /api/graph", &own, &key, "").await;
        assert_eq!(status, 403);
        assert!(text.contains("jane may not get views.weftmesh.io in all namespaces"), "{text}");
        let (status, text) = asked(port, "GET /api/graph?namespace=bank", &own, &key, "").await;
        assert_eq!(status, 403);
        assert!(text.contains("in namespace bank"), "{text}");
        assert_eq!(asked(port, "GET /api/graph?namespace=shop", &own, &key, "").await.0, 200);
    });
}

/// What the browser runs is what is here: nothing is fetched from elsewhere, and nothing becomes markup.
#[test]
fn the_page_has_nothing_from_outside_and_makes_no_markup_of_texts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/page");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for word in [
            "http://",
            "https://",
            "//cdn",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "@import",
            "url(",
        ] {
            let allowed = word == "url(" && text.contains("url(#arrow-");
            assert!(allowed || !text.contains(word), "{}: {word}", path.display());
        }
        assert!(text.lines().count() <= 400, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 9, "only {seen} files");
}
