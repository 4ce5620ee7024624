//! A shop on a cluster, behind a Gateway: what breaks in it is found by an alert, by a dashboard and by `weft why`; one request
//! is one trace; and where nothing is broken, nothing alarms.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_observability::rules::{Scope, hurried, rules};
use weft_observability::with_all_chosen;
use weft_tests::Observatory;
use weft_tests::cluster::{Cluster, Echo, PATIENCE, STRICT, TestNamespace, eventually, repository};

use crate::collector::{Collector, Told};
use crate::prometheus::Prometheus;

/// How many times faster than in the chart the rules of the failure's test look: windows of 5 minutes become 10 seconds.
const HURRY: u64 = 30;
/// How long nothing may alarm, in seconds, unless this variable says another time.
const HEALTHY: (&str, u64) = ("WEFT_HEALTHY_SECONDS", 60);
/// Requests from outside in a second.
const RATE: usize = 20;

/// The shop, and the clients outside.
struct Shop {
    ns: TestNamespace,
    outside: TestNamespace,
    /// The Gateway's way in.
    url: String,
}

/// An application of the shop, on a node, with its Service.
fn application(name: &str, node: &str, arguments: &[String]) -> String {
    let arguments = serde_json::to_string(&[&[format!("-name={name}")][..], arguments].concat()).unwrap();
    format!(
        r#"
---
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name}, namespace: "@NS@" }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: "@NS@" }}
spec:
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      serviceAccountName: {name}
      terminationGracePeriodSeconds: 0
      nodeSelector: {{"kubernetes.io/hostname": "{node}"}}
      containers:
      - name: app
        image: localhost/shop:1
        args: {arguments}
        readinessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: "@NS@" }}
spec: {{ selector: {{ app: {name} }}, ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}] }}
"#
    )
}

/// What routes traffic, from outside to `web`, and from there to both versions of the catalog; and a policy that looks at
/// requests, so that both ends parse them.
const ROUTES: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: catalog, namespace: "@NS@" }
spec: { ports: [{ name: http, port: 80, appProtocol: http }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: catalog, namespace: "@NS@" }
spec:
  parentRefs: [{ group: "", kind: Service, name: catalog }]
  rules: [{ backendRefs: [{ name: catalog-v1, port: 80, weight: 1 }, { name: catalog-v2, port: 80, weight: 1 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: edge, namespace: "@NS@" }
spec: { gatewayClassName: weft, listeners: [{ name: http, port: 80, protocol: HTTP }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: public, namespace: "@NS@" }
spec: { parentRefs: [{ name: edge }], rules: [{ backendRefs: [{ name: web, port: 80 }] }] }
---
apiVersion: weftmesh.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: read-only, namespace: "@NS@" }
spec: { action: ALLOW, rules: [{ to: [{ methods: [GET] }] }] }
"#;

/// All of its requests are traced and logged, to the Service `collector`.
const TOLD: &str = r#"
apiVersion: weftmesh.io/v1alpha1
kind: TelemetryPolicy
metadata: { name: told, namespace: "@NS@" }
spec:
  accessLog: { mode: All, provider: { backendRef: { name: collector } } }
  tracing: { provider: { backendRef: { name: collector } }, samplingRate: { numerator: 100 } }
"#;

impl Shop {
    /// One that answers; its applications send their spans to `collector`, if there is one.
    fn open(name: &str, collector: Option<&Collector>) -> Result<Self> {
        let ns = Cluster::open()?.namespace(name, true)?;
        ns.apply(STRICT)?;
        let spans: Vec<_> = collector.map(|it| format!("-collector={}", it.url())).into_iter().collect();
        let web = [&["-next=http://catalog/".to_owned()][..], spans.as_slice()].concat();
        ns.apply(&application("web", "node1", &web))?;
        for version in ["catalog-v1", "catalog-v2"] {
            ns.apply(&application(version, "node2", &spans))?;
        }
        ns.apply(ROUTES)?;
        if let Some(collector) = collector {
            collector.serve(&ns)?;
            ns.apply(TOLD)?;
        }
        let outside = ns.cluster.namespace(&format!("{name}-out"), false)?;
        outside.run(&[Echo::new("client")])?;
        for app in ["web", "catalog-v1", "catalog-v2"] {
            ns.cluster.wait_rollout(&ns.name, &format!("deploy/{app}"))?;
        }
        let address = eventually("the Gateway to have an address", 2 * PATIENCE, || {
            let gateway = ns.cluster.json(&["-n", &ns.name, "gateway/edge"])?;
            gateway["status"]["addresses"][0]["value"].as_str().map(str::to_owned).context("no address")
        })?;
        let url = format!("http://{address}/");
        eventually("the shop to answer", PATIENCE, || outside.served("client", &url, 20))?;
        Ok(Self { ns, outside, url })
    }

    /// The id of a request that fails now: its answer has it.
    fn failed(&self) -> Result<String> {
        let answers = self.outside.ask("client", &[&self.url, "--count=10", "--timeout=5s"])?;
        let failed = answers.list.iter().find(|answer| answer.status >= 500).context("all are answered well")?;
        let mut headers = failed.response.iter().filter_map(|header| header.split_once(':'));
        let id = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
        id.map(|(_, id)| id.to_owned()).with_context(|| format!("no id: {failed:?}"))
    }
}

/// Whether the parts of the test are here: a cluster of ours, a Prometheus.
fn here() -> Result<Option<Cluster>> {
    let cluster = Cluster::open()?;
    if cluster.has_nodes() && Observatory::program().is_some() {
        return Ok(Some(cluster));
    }
    eprintln!("LEFT OUT: pods of this cluster can't be reached from here, or there is no Prometheus");
    Ok(None)
}

/// The first query of a panel, as the chart's file has it.
fn panel(dashboard: &str, title: &str) -> Result<String> {
    let file: PathBuf = repository().join("charts/weft/files/dashboards").join(format!("{dashboard}.json"));
    let board: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let panels = board["panels"].as_array().context("no panels")?;
    let panel = panels.iter().find(|panel| panel["title"] == title).with_context(|| format!("no panel {title:?}"))?;
    panel["targets"][0]["expr"].as_str().map(str::to_owned).context("no query")
}

#[test]
#[ignore = "needs a cluster"]
fn a_version_without_endpoints_is_found_by_an_alert_a_dashboard_and_its_request_id() -> Result<()> {
    let Some(cluster) = here()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, serde_norway::to_string(&hurried(&rules(Scope::Cluster), HURRY))?)?;
    let shop = Shop::open("seen", None)?;
    let (name, route) = (shop.ns.name.as_str(), format!("HTTPRoute/{}/catalog", shop.ns.name));
    let prometheus = Prometheus::with_rules(&cluster, &file)?;
    let _load = shop.outside.load(&shop.url, RATE * 600, RATE, None)?;
    let is_ours =
        |labels: &Value| labels["destination_service_namespace"] == name || labels["source_namespace"] == name;
    let requests = format!(r#"weft:route_requests:rate5m{{route="{route}"}} > 1"#);
    eventually("traffic to be seen", PATIENCE, || {
        ensure!(!prometheus.query(&requests)?.is_empty(), "no traffic along {route}");
        Ok(())
    })?;
    let before = prometheus.firing()?;
    ensure!(!before.iter().any(is_ours), "it isn't broken yet: {before:?}");

    cluster.k(&["-n", name, "scale", "deploy/catalog-v2", "--replicas=0"])?;

    // By an alert.
    let alert = eventually("an alert", 2 * PATIENCE, || {
        let firing = prometheus.firing()?;
        let found = firing.iter().find(|it| it["alertname"] == "WeftNoEndpoint" && it["route"] == route.as_str());
        found.cloned().with_context(|| format!("{firing:?}"))
    })?;
    ensure!(alert["destination_service"] == "catalog" && alert["severity"] == "critical", "{alert}");
    eventually("the alert on what clients outside get", 2 * PATIENCE, || {
        let firing = prometheus.firing()?;
        let public = format!("HTTPRoute/{name}/public");
        ensure!(firing.iter().any(|it| it["alertname"] == "WeftGatewayFailing" && it["route"] == public.as_str()));
        Ok(())
    })?;

    // By a dashboard: the route, the rule and the reason.
    let query = with_all_chosen(&panel("weft-route", "Failed requests by rule and reason")?);
    let shown = prometheus.query(&query)?;
    // While the pod went, some were told that it isn't known any more.
    let share = |it: &Value| it["value"][1].as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let of_route = shown.iter().filter(|it| it["metric"]["route"] == route.as_str());
    let why = of_route.max_by(|a, b| share(a).total_cmp(&share(b))).map(|it| &it["metric"]);
    let why = why.with_context(|| format!("{route} isn't among {shown:?}"))?;
    ensure!(why["reason"] == "no_endpoint" && why["rule"] == "0", "{why}");
    let query = with_all_chosen(&panel("weft-service", "Requests that a proxy ended, by reason")?);
    let shown = prometheus.query(&query.replace(r#"destination_service=~".*""#, r#"destination_service="catalog""#))?;
    ensure!(shown.iter().any(|it| it["metric"]["reason"] == "no_endpoint"), "{shown:?}");

    // By the id that a client outside has of its answer.
    let object = format!("Service {name}/catalog-v2:80");
    let story: Value = eventually("the id of a request to lead to the Service", PATIENCE, || {
        let id = shop.failed()?;
        let said = cluster.weft(&["why", &id, "-o", "json"])?;
        let story: Value = serde_json::from_slice(&said.stdout)
            .with_context(|| format!("weft why {id}: {}", String::from_utf8_lossy(&said.stderr)))?;
        ensure!(story["object"] == object.as_str(), "{story:#}");
        Ok(story)
    })?;
    ensure!(story["reason"] == "no_endpoint" && story["remedy"].as_str().is_some_and(|it| !it.is_empty()), "{story:#}");
    ensure!(story["way"][0]["reporter"] == "gateway", "{story:#}");
    Ok(())
}

/// The span whose parent another one is, of a kind and a name in its `service.name`.
fn child<'a>(spans: &'a [Told], parent: &Told, (service, kind): (&str, &str)) -> Result<&'a Told> {
    let (trace, id) = (parent.get("Trace ID"), parent.get("ID"));
    let found = spans.iter().find(|it| {
        it.get("Trace ID") == trace
            && it.get("Parent ID") == id
            && it.get("Kind") == kind
            && it.service.starts_with(service)
    });
    found.with_context(|| {
        let of_trace = spans.iter().filter(|it| it.get("Trace ID") == trace);
        let all: Vec<_> = of_trace.map(|it| (&it.service, it.get("Kind"), it.get("ID"), it.get("Parent ID"))).collect();
        format!("no {kind} span of {service} below {id}: {all:?}")
    })
}

#[test]
#[ignore = "needs a cluster"]
fn one_request_is_one_trace_of_the_gateway_both_nodes_and_the_applications() -> Result<()> {
    let Some(cluster) = here()? else { return Ok(()) };
    if Collector::program().is_none() {
        eprintln!("LEFT OUT: no OpenTelemetry Collector; `tests/tools/install.sh cluster` builds it");
        return Ok(());
    }
    let collector = Collector::start(&cluster)?;
    let shop = Shop::open("traced", Some(&collector))?;
    let trace = eventually("a whole trace", PATIENCE, || {
        shop.outside.served("client", &shop.url, 5)?;
        let spans = collector.spans()?;
        let mut why = anyhow::anyhow!("no span of a Gateway among {}", spans.len());
        for gateway in spans.iter().filter(|it| it.get("weft.direction") == "gateway") {
            match way(&spans, gateway) {
                Ok(()) => return Ok(gateway.get("Trace ID").to_owned()),
                Err(missing) => why = missing,
            }
        }
        Err(why)
    })?;
    // The lines of the access log went the same way, and say which trace they are of.
    eventually("the lines of its hops", PATIENCE, || {
        let lines = collector.lines()?;
        let of_trace: Vec<_> = lines.iter().filter(|it| it.get("Trace ID") == trace).collect();
        let mut directions: Vec<_> = of_trace.iter().map(|it| it.get("weft.direction")).collect();
        directions.sort_unstable();
        ensure!(directions == ["gateway", "inbound", "inbound", "outbound"], "{directions:?}");
        ensure!(
            of_trace.iter().all(|it| it.get("SeverityText") == "INFO" && it.get("http.response.status_code") == "200")
        );
        Ok(())
    })
}

/// Gateway, the proxy at `web`, `web` itself, its node's proxy on the way out, the proxy at the catalog, the catalog.
fn way(spans: &[Told], gateway: &Told) -> Result<()> {
    ensure!(gateway.get("Kind") == "Server" && gateway.get("Parent ID").is_empty(), "{gateway:?}");
    let arrived = child(spans, gateway, ("web", "Server"))?;
    let web = child(spans, arrived, ("web-app", "Server"))?;
    let calls = child(spans, web, ("web", "Client"))?;
    let called = child(spans, calls, ("catalog-v", "Server"))?;
    child(spans, called, ("catalog-v", "Server"))?;
    ensure!(calls.get("weft.route").ends_with("/catalog") && calls.get("weft.connection_security") == "mutual_tls");
    ensure!(called.get("weft.source.identity").ends_with("/sa/web"), "{called:?}");
    Ok(())
}

/// With the chart's own rules, as they are.
#[test]
#[ignore = "needs a cluster"]
fn a_healthy_busy_mesh_alarms_nobody() -> Result<()> {
    let Some(cluster) = here()? else { return Ok(()) };
    let seconds = match std::env::var(HEALTHY.0) {
        Ok(text) => text.parse().with_context(|| format!("{}={text}", HEALTHY.0))?,
        Err(_) => HEALTHY.1,
    };
    let shop = Shop::open("healthy", None)?;
    let prometheus = Prometheus::start(&cluster)?;
    let count = RATE * usize::try_from(seconds)? * 3 / 2;
    let _load = shop.outside.load(&shop.url, count, RATE, None)?;
    let (until, mut looked) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < until {
        let firing = prometheus.firing()?;
        ensure!(firing.is_empty(), "after {looked} looks: {firing:#?}");
        looked += 1;
        // It is time itself that this test waits for.
        std::thread::sleep(Duration::from_secs(1));
    }
    // What came and went between two looks.
    let fired = prometheus
        .query(&format!(r#"count by (alertname) (last_over_time(ALERTS{{alertstate="firing"}}[{seconds}s]))"#))?;
    ensure!(fired.is_empty(), "{fired:#?}");
    let requests =
        prometheus.query(r#"sum(weft:service_requests:rate5m{destination_service_namespace="healthy"}) > 1"#)?;
    ensure!(!requests.is_empty(), "the mesh was idle");
    let pages = prometheus.query(r#"count(up{job=~"weft-.*"} == 1)"#)?;
    ensure!(
        pages.first().is_some_and(|it| it["value"][1].as_str().is_some_and(|n| n.parse().unwrap_or(0) >= 7)),
        "{pages:?}"
    );
    Ok(())
}
