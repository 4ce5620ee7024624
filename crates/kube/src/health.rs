//! What every component serves to probes and to Prometheus: `/healthz`, `/readyz`, `/metrics`. Plain HTTP.
//!
//! Metrics are in Prometheus' text format, or in OpenMetrics for who asks for that; those of the process are among them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use weft_metrics::{Component, openmetrics, process};

/// Connections served at once; more wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to send a request, and how long a connection may live.
const HEADERS: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(120);
/// How often recorded values are put into their histograms, so that memory doesn't grow between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves at `addr` for ever. `/healthz` answers while the process runs; `/readyz` with 503 and one line for each thing
/// that `missing` names, or 200 if there is none; `/metrics` with those of the component and its process.
///
/// # Errors
/// If it can't listen there.
pub async fn serve(
    addr: SocketAddr,
    missing: impl Fn() -> Vec<String> + Send + Sync + 'static,
    metrics: (Component, PrometheusHandle),
) -> io::Result<()> {
    let listener = TcpListener::bind(addr)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("health and metrics can't listen on {addr}: {e}")))?;
    serve_on(listener, missing, metrics).await
}

/// As [`serve`], on a listener that is there already.
///
/// # Errors
/// None in practice: what goes wrong with one connection is that one's end.
pub async fn serve_on(
    listener: TcpListener,
    missing: impl Fn() -> Vec<String> + Send + Sync + 'static,
    (component, metrics): (Component, PrometheusHandle),
) -> io::Result<()> {
    let page = Arc::new(Page { missing, component, metrics: metrics.clone() });
    let _upkeep = AbortOnDrop(tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            metrics.run_upkeep();
        }
    }));
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let turn = Arc::clone(&turns).acquire_owned().await.map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: not at once again.
                tracing::debug!(%error, "health: accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let answer = page.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
            // What a client does wrong is its own affair.
            let _ = tokio::time::timeout(LIFE, http.serve_connection(TokioIo::new(stream), answer)).await;
            drop(turn);
        });
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Page<F> {
    missing: F,
    component: Component,
    metrics: PrometheusHandle,
}

impl<F: Fn() -> Vec<String>> Page<F> {
    fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        let (method, path) = (request.method(), request.uri().path());
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match (self.missing)() {
                missing if missing.is_empty() => text(StatusCode::OK, "ok\n".to_owned()),
                missing => text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
            },
            "/metrics" => self.metrics(request.headers()),
            _ => text(StatusCode::NOT_FOUND, "/healthz /readyz /metrics\n".to_owned()),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<String> {
        let page = self.metrics.render() + &process::render(self.component, env!("CARGO_PKG_VERSION"));
        let mut accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if accepts.any(openmetrics::is_wanted) {
            return reply(StatusCode::OK, openmetrics::from_text(&page), openmetrics::CONTENT_TYPE);
        }
        text(StatusCode::OK, page)
    }
}

fn text(status: StatusCode, body: String) -> Response<String> {
    reply(status, body, openmetrics::TEXT)
}

fn reply(status: StatusCode, body: String, kind: &'static str) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(addr: SocketAddr, what: &str) -> String {
        get_with(addr, what, "").await
    }

    async fn get_with(addr: SocketAddr, what: &str, header: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("{what} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || metrics::counter!("weft_agent_adopted_pods_total").increment(3));
        let missing = Arc::new(Mutex::new(vec!["no certificate".to_owned(), "not synced".to_owned()]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let lines = Arc::clone(&missing);
        tokio::spawn(serve_on(listener, move || lines.lock().clone(), (Component::Agent, handle)));
        let not_ready = get(addr, "GET /readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.ends_with("no certificate\nnot synced\n"));
        assert!(get(addr, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        missing.lock().clear();
        assert!(get(addr, "GET /readyz").await.starts_with("HTTP/1.1 200"));
        let page = get(addr, "GET /metrics").await;
        assert!(page.contains("weft_agent_adopted_pods_total 3") && page.contains("component=\"agent\""), "{page}");
        assert_eq!(weft_metrics::check(page.split_once("\r\n\r\n").unwrap().1, Component::Agent), [""; 0]);
        let page = get_with(addr, "GET /metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").await;
        assert!(page.contains("content-type: application/openmetrics-text") && page.ends_with("\n# EOF\n"), "{page}");
        assert!(page.contains("# TYPE weft_agent_adopted_pods counter\nweft_agent_adopted_pods_total 3\n"), "{page}");
        assert!(get(addr, "GET /other").await.starts_with("HTTP/1.1 404"));
        assert!(get(addr, "POST /readyz").await.starts_with("HTTP/1.1 405"));
    }
}
