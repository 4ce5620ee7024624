use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::*;

fn admin() -> (Arc<Admin>, Arc<Mutex<Vec<&'static str>>>) {
    let missing = Arc::new(Mutex::new(vec!["config"]));
    let admin = Admin {
        registry: Arc::default(),
        records: Records::default(),
        istio_metrics: false,
        process_metrics: Box::new(|| "weft_process 1\n".into()),
        store: Arc::default(),
        missing: Box::new({
            let missing = Arc::clone(&missing);
            move || missing.lock().clone()
        }),
        connections: Box::new(|| serde_json::json!([])),
        set_log_filter: Box::new(|text| if text == "debug" { Ok(()) } else { Err("no such level".into()) }),
        quit: CancellationToken::new(),
    };
    (Arc::new(admin), missing)
}

async fn ask(admin: &Admin, method: Method, target: &str) -> (u16, String) {
    ask_for(admin, Pages::All, method, target).await
}

async fn ask_for(admin: &Admin, pages: Pages, method: Method, target: &str) -> (u16, String) {
    let uri: http::Uri = target.parse().unwrap();
    let response = admin.route(pages, &method, (uri.path(), uri.query()));
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn each_page_answers() {
    let (admin, missing) = admin();
    assert_eq!(ask(&admin, Method::GET, "/healthz").await.0, 200);
    assert_eq!(ask(&admin, Method::GET, "/readyz").await, (503, "waiting for: config\n".into()));
    missing.lock().clear();
    assert_eq!(ask(&admin, Method::GET, "/readyz").await.0, 200);
    assert!(ask(&admin, Method::GET, "/metrics").await.1.contains("weft_process 1"));
    let (status, dump) = ask(&admin, Method::GET, "/config_dump").await;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert_eq!((status, dump["mesh"]["cluster_domain"].as_str()), (200, Some("cluster.local")));
    assert_eq!(ask(&admin, Method::POST, "/logging?level=debug").await.0, 200);
    assert_eq!(ask(&admin, Method::POST, "/logging?level=loud").await.0, 400);
    assert_eq!(ask(&admin, Method::GET, "/nothing").await.0, 404);
}

#[tokio::test]
async fn requests_are_found_by_their_id() {
    let (admin, _) = admin();
    let ring = admin.records.ring();
    for id in ["a&b%", "c"] {
        let record =
            crate::records::Record { request_id: id.into(), reason: "no_endpoint".into(), ..Default::default() };
        ring.push(Box::new(record), crate::records::Kept::Failed);
    }
    let ids = async |target| {
        let (status, text) = ask(&admin, Method::GET, target).await;
        let found: Vec<crate::records::Record> = serde_json::from_str(&text).unwrap();
        (status, found.into_iter().map(|record| record.request_id).collect::<Vec<_>>())
    };
    assert_eq!(ids("/requests?id=a%26b%25").await, (200, vec!["a&b%".to_owned()]));
    assert_eq!(ids("/requests").await.1.len(), 2);
    assert_eq!(ids("/requests?last=1").await.1.len(), 1);
    assert!(ids("/requests?id=d").await.1.is_empty());
}

#[tokio::test]
async fn only_a_post_makes_the_process_leave() {
    let (admin, _) = admin();
    assert_eq!(ask(&admin, Method::GET, "/quitquitquit").await.0, 405);
    assert!(!admin.quit.is_cancelled());
    assert_eq!(ask(&admin, Method::POST, "/quitquitquit").await.0, 200);
    assert!(admin.quit.is_cancelled());
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    let (admin, _) = admin();
    let refused = admin.serve("0.0.0.0:0".parse().unwrap(), CancellationToken::new()).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_status_address_shows_three_pages_and_changes_nothing() {
    let (admin, missing) = admin();
    let status = async |method, target| ask_for(&admin, Pages::Status, method, target).await;
    assert_eq!(status(Method::GET, "/healthz").await.0, 200);
    assert_eq!(status(Method::GET, "/readyz").await, (503, "waiting for: config\n".into()));
    missing.lock().clear();
    assert_eq!(status(Method::GET, "/readyz").await.0, 200);
    assert!(status(Method::GET, "/metrics").await.1.contains("weft_process 1"));
    for path in ["/config_dump", "/connections", "/requests", "/logging?level=debug", "/quitquitquit", "/"] {
        for method in [Method::GET, Method::POST] {
            assert_eq!(status(method.clone(), path).await.0, 404, "{method} {path}");
        }
    }
    assert_eq!(status(Method::POST, "/metrics").await.0, 405);
    assert!(!admin.quit.is_cancelled());
}

#[tokio::test]
async fn the_status_address_is_anywhere_and_answers_beside_clients_that_say_nothing() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (admin, _) = admin();
    // Bound and let go, for a port that is free.
    let address = TcpListener::bind("0.0.0.0:0").await.unwrap().local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(admin.serve_status(address, stop.clone()));
    let near = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let mut silent = Vec::new();
    while silent.len() < STATUS_CONNECTIONS - 1 {
        match TcpStream::connect(near).await {
            Ok(stream) => silent.push(stream),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    let mut asks = TcpStream::connect(near).await.unwrap();
    asks.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_asks_for_openmetrics_gets_it() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (admin, _) = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(admin.accept(listener, stop.clone()));
    let get = async |accept: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let text = get("text/plain").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4") && !text.contains("# EOF"), "{text}");
    assert!(text.contains("\n# TYPE process_cpu_seconds_total counter\n"), "{text}");
    let metrics = get("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.4").await;
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.contains("\n# TYPE process_cpu_seconds counter\n") && metrics.ends_with("\n# EOF\n"), "{metrics}");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn istios_names_are_there_for_who_wants_them() {
    let (admin, _) = admin();
    assert!(!ask(&admin, Method::GET, "/metrics").await.1.contains("istio_"));
    let admin = Admin { istio_metrics: true, ..Arc::into_inner(admin).unwrap() };
    assert!(ask(&admin, Method::GET, "/metrics").await.1.contains("# TYPE istio_requests_total counter\n"));
}
