use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use weft_testkit::clients::{self, Connection};
use weft_testkit::{Netns, servers};

use super::*;

/// A port that nobody listens on.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn server(name: &str) -> servers::Server {
    servers::http(&Netns::here(), name, (Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

#[test]
fn requests_are_routed_counted_and_kept_in_their_version() {
    let (here, there) = (server("here"), server("there"));
    let (h1, h2) = (free(), free());
    let config = serde_json::json!({
        "accessLog": "off",
        "services": {
            "front": {
                "listen": h1,
                "endpoints": [],
                "routes": [
                    { "prefix": "/there", "backends": { "there": 1 }, "setRequestHeaders": { "x-way": "there" } },
                    { "prefix": "/", "backends": { "here": 1 } },
                ],
            },
            "here": { "endpoints": [here.addr()] },
            "there": { "listen": h2, "protocol": "h2c", "endpoints": [there.addr()] },
        },
    });
    let plain = Plain::start(&serde_json::from_value(config).unwrap()).unwrap();
    Netns::here().block_on(async {
        let mut client = Connection::open(h1, http::Version::HTTP_11).await.unwrap();
        for (path, server) in [("/a", "here"), ("/there/b", "there"), ("/there", "there")] {
            let echo = client.get(path).await.unwrap().echo().unwrap();
            assert_eq!((echo.pod.as_str(), echo.path.as_str()), (server, path));
            assert_eq!(echo.header("x-way"), (server == "there").then_some("there"));
        }
        let mut client = Connection::open(h2, http::Version::HTTP_2).await.unwrap();
        assert_eq!(client.get("/c").await.unwrap().echo().unwrap().version, "HTTP/2.0");
    });
    let metrics = plain.registry.render();
    for (rule, count) in [("0", 2), ("1", 1)] {
        let counted =
            |line: &&str| line.starts_with("weft_http_requests_total") && line.contains(&format!("rule=\"{rule}\""));
        let lines: Vec<_> = metrics.lines().filter(counted).collect();
        assert!(lines.len() == 1 && lines[0].ends_with(&format!(" {count}")), "{rule}: {lines:#?}");
    }
    plain.stop();
    assert!(Netns::here().block_on(clients::get(h1, "/a")).is_err(), "it still listens");
}

#[test]
fn a_mistake_is_told_and_nothing_starts() {
    let parse = |text: serde_json::Value| serde_json::from_value::<PlainConfig>(text);
    assert!(parse(serde_json::json!({ "services": {}, "admin": "127.0.0.1:1" })).is_err(), "an unknown setting");
    let service = |endpoint: &str, header: &str| {
        let route = serde_json::json!({ "prefix": "/", "backends": { "s": 1 }, "setRequestHeaders": { header: "1" } });
        let services = serde_json::json!({ "s": { "endpoints": [endpoint], "routes": [route] } });
        parse(serde_json::json!({ "services": services })).unwrap().changes()
    };
    assert!(service("127.0.0.1:80", "x-a").is_ok());
    assert_eq!(service("127.0.0.1:0", "x-a"), Err(InvalidPlain::Port("s".into())));
    assert_eq!(service("127.0.0.1:80", "x a"), Err(InvalidPlain::Header("s".into(), "x a".into())));
}
