//! A real OpenTelemetry Collector beside a cluster: what came to it, as its debug exporter tells it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use weft_testkit::Netns;
use weft_testkit::process::Process;
use weft_tests::cluster::{Cluster, TestNamespace};
use weft_tests::tool;

/// OTLP over gRPC, and over HTTP.
const GRPC: u16 = 4317;
const HTTP: u16 = 4318;

/// A running collector. Dropping it ends it.
pub struct Collector {
    process: Process,
    /// Its address, which pods reach.
    pub address: String,
}

/// A span or a line that came.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// `service.name` of its resource.
    pub service: String,
    fields: Vec<(String, String)>,
}

impl Told {
    /// A field (`Trace ID`, `Parent ID`, `ID`, `Kind`, `Body`, `SeverityText`) or an attribute; empty if it isn't there.
    pub fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }
}

impl Collector {
    /// The program, where `tests/tools/install.sh cluster` has built it.
    pub fn program() -> Option<PathBuf> {
        let program = tool("bin/otelcol");
        program.filter(|it| it.is_file())
    }

    /// One at the control plane's address, which every pod reaches.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let program = Self::program().context("no collector: run tests/tools/install.sh cluster")?;
        let slices =
            cluster.json(&["-n", "default", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes"])?;
        let address = slices["items"][0]["endpoints"][0]["addresses"][0].as_str().context("no API server")?.to_owned();
        let config = format!(
            "yaml:{{receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"{address}:{GRPC}\"}}, http: {{endpoint: \"{address}:{HTTP}\"}}}}}}}}, \
             exporters: {{debug: {{verbosity: detailed}}}}, service: {{telemetry: {{logs: {{sampling: {{enabled: false}}}}, metrics: {{level: none}}}}, pipelines: \
             {{traces: {{receivers: [otlp], exporters: [debug]}}, logs: {{receivers: [otlp], exporters: [debug]}}}}}}}}"
        );
        let program = program.display().to_string();
        let command = cluster.beside(&[&program, "--config", &config]).context("not a cluster of ours")?;
        let mut process = Process::start(&Netns::here(), command)?;
        let up = |log: &str| log.contains("Everything is ready");
        process.wait_until(std::time::Duration::from_secs(30), up)?;
        Ok(Self { process, address })
    }

    /// A Service `collector` in a namespace that leads to it.
    pub fn serve(&self, ns: &TestNamespace) -> Result<()> {
        ns.apply(&format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{ name: collector, namespace: "@NS@" }}
spec: {{ ports: [{{ name: otlp, port: {GRPC}, appProtocol: grpc }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: collector-1, namespace: "@NS@", labels: {{ kubernetes.io/service-name: collector }} }}
addressType: IPv4
ports: [{{ name: otlp, port: {GRPC}, protocol: TCP }}]
endpoints: [{{ addresses: ["{}"], conditions: {{ ready: true }} }}]
"#,
            self.address
        ))
    }

    /// Where applications send spans by HTTP.
    pub fn url(&self) -> String {
        format!("http://{}:{HTTP}", self.address)
    }

    /// All spans so far.
    pub fn spans(&self) -> Result<Vec<Told>> {
        Ok(told(&self.process.log()?, "Span #"))
    }

    /// All lines of access logs so far.
    pub fn lines(&self) -> Result<Vec<Told>> {
        Ok(told(&self.process.log()?, "LogRecord #"))
    }
}

/// Reads the debug exporter's text: a resource, then what is of it; attributes are `-> name: Str(value)`.
fn told(log: &str, begins: &str) -> Vec<Told> {
    let (mut all, mut service, mut is_inside) = (Vec::<Told>::new(), String::new(), false);
    for line in log.lines().map(str::trim) {
        if line.starts_with("Resource SchemaURL:")
            || line.starts_with("ResourceSpans #")
            || line.starts_with("ResourceLog #")
        {
            is_inside = false;
        } else if line.starts_with(begins) {
            is_inside = true;
            all.push(Told { service: service.clone(), ..Told::default() });
        } else if let Some((name, value)) = line.trim_start_matches("-> ").split_once(':') {
            let (name, value) = (name.trim().to_owned(), plain(value.trim()).to_owned());
            match all.last_mut().filter(|_| is_inside) {
                Some(last) => last.fields.push((name, value)),
                None if name == "service.name" => service = value,
                None => {}
            }
        }
    }
    all
}

/// A value without its type: `Str(x)` is `x`.
fn plain(value: &str) -> &str {
    let known = ["Str(", "Int(", "Double(", "Bool("];
    known.iter().find_map(|kind| value.strip_prefix(kind)?.strip_suffix(')')).unwrap_or(value)
}

#[test]
fn what_the_collector_says_is_read() {
    let log = "2026 info ResourceSpans #0\nResource SchemaURL: https://x\nResource attributes:\n     -> service.name: Str(web)\n\
               ScopeSpans #0\nInstrumentationScope weft 1\nSpan #0\n    Trace ID       : 4bf9\n    Parent ID      : \n    ID             : 00f0\n\
               Attributes:\n     -> url.path: Str(/a:b)\n     -> http.response.status_code: Int(502)\n\
               ResourceSpans #1\nResource SchemaURL: \nResource attributes:\n     -> service.name: Str(cart)\nSpan #0\n    ID             : 00f1\n";
    let spans = told(log, "Span #");
    assert_eq!(spans.len(), 2);
    assert_eq!((spans[0].service.as_str(), spans[1].service.as_str()), ("web", "cart"));
    assert_eq!((spans[0].get("Trace ID"), spans[0].get("Parent ID"), spans[1].get("ID")), ("4bf9", "", "00f1"));
    assert_eq!((spans[0].get("url.path"), spans[0].get("http.response.status_code")), ("/a:b", "502"));
}
