use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::*;

fn admin() -> (Arc<Admin>, Arc<Mutex<Vec<&'static str>>>) {
    let missing = Arc::new(Mutex::new(vec!["config"]));
    let admin = Admin {
        registry: Arc::default(),
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
    let uri: http::Uri = target.parse().unwrap();
    let response = admin.route(&method, uri.path(), uri.query());
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
