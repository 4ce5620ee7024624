//! Commands of pages, as somebody types them. `tests/src/manual.rs` says how pages name what is run here.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weft_tests::Programs;
use weft_tests::apiserver::ApiServer;
use weft_tests::guide::{desk, follow};

const FILE: &str = "tests/tests/manual/commands.rs";
/// How long it may take until a command says what the page says.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody's folder, and a cluster without nodes that has Weft's objects.
struct Desk {
    server: ApiServer,
    folder: tempfile::TempDir,
}

impl Desk {
    fn open() -> Result<Self> {
        let server = ApiServer::start(&[])?;
        server.install("standard")?;
        Ok(Self { server, folder: desk()? })
    }

    /// A line of the shell in the folder, with the `weft` that was built with this test.
    fn sh(&self, line: &str) -> Result<Output> {
        let (programs, folder) = (Programs::find()?.directory().display().to_string(), self.folder.path().display());
        self.server.sh(&format!("cd {folder}; PATH={programs}:$PATH; set -euo pipefail; {line}"))
    }

    /// Types what a function of this file is to run of a page. After each command that went well `look` gets it and what it printed.
    fn follow(&self, page: &str, function: &str, look: impl Fn(&str, &str) -> Result<()>) -> Result<()> {
        let run = |line: &str| {
            let output = self.sh(line)?;
            if output.status.success() {
                look(line, &String::from_utf8_lossy(&output.stdout))?;
            }
            Ok(output)
        };
        follow((page, FILE, function), |_| false, PATIENCE, run).map(drop)
    }
}

#[test]
#[ignore = "needs make cluster-build"]
fn commands_that_only_read_and_write_objects() -> Result<()> {
    let desk = Desk::open()?;
    what_would_be_installed(&desk)?;
    a_collector_for_all(&desk)?;
    the_evaluation_bundle(&desk)?;
    from_istio(&desk)
}

fn what_would_be_installed(desk: &Desk) -> Result<()> {
    std::fs::write(desk.folder.path().join("my-values.yaml"), "dashboards: {labels: {example.com/desk: mine}}\n")?;
    let agent = ["-n", "weft-system", "daemonset/weft-agent"];
    let before = desk.server.json(&agent)?;
    desk.follow("docs/cli.md", "what_would_be_installed", |_, printed| {
        for part in ["path: /home/kubernetes/bin", "example.com/desk: mine"] {
            ensure!(printed.contains(part), "{part} isn't in {printed}");
        }
        Ok(())
    })?;
    ensure!(desk.server.json(&agent)? == before, "something was made");
    Ok(())
}

fn a_collector_for_all(desk: &Desk) -> Result<()> {
    desk.follow("docs/telemetry.md", "a_collector_for_all", |_, _| Ok(()))?;
    let proxy = desk.server.json(&["-n", "weft-system", "daemonset/weft-node-proxy"])?;
    let pod = &proxy["spec"]["template"]["spec"];
    ensure!(pod.to_string().contains("\"--otlp-endpoint=http://collector.monitoring:4317\""), "{pod}");
    Ok(())
}

/// It comes whole, with the port that the page forwards, and nothing of it stays.
fn the_evaluation_bundle(desk: &Desk) -> Result<()> {
    let there = || {
        let kinds = "deployments,services,configmaps,serviceaccounts,clusterroles,clusterrolebindings";
        let labelled = "app.kubernetes.io/part-of=weft-evaluation";
        desk.server.k(&["get", kinds, "--all-namespaces", "--selector", labelled, "-o", "name"])
    };
    desk.follow("docs/observability.md", "the_evaluation_bundle", |line, _| {
        let there = there()?;
        if line.starts_with("kubectl delete") {
            ensure!(there.trim().is_empty(), "this stays: {there}");
            return Ok(());
        }
        for name in ["deployment.apps/weft-evaluation-prometheus", "configmap/weft-evaluation-rules"] {
            ensure!(there.lines().any(|line| line == name), "{name} isn't among {there}");
        }
        let grafana = desk.server.json(&["-n", "weft-system", "service/weft-evaluation-grafana"])?;
        ensure!(grafana["spec"]["ports"][0]["port"] == 3000, "{grafana}");
        Ok(())
    })
}

/// Kinds of Istio's: group, kind, plural.
const ISTIO: [(&str, &str, &str); 4] = [
    ("networking.istio.io", "DestinationRule", "destinationrules"),
    ("networking.istio.io", "VirtualService", "virtualservices"),
    ("security.istio.io", "AuthorizationPolicy", "authorizationpolicies"),
    ("security.istio.io", "PeerAuthentication", "peerauthentications"),
];

/// A namespace of Istio's in which everything can be translated.
const BOOKINFO: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: bookinfo, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: bookinfo}
spec: {selector: {app: reviews}, ports: [{port: 9080, name: http}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/bookinfo/sa/productpage]}}]
    to: [{operation: {methods: [GET]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
";

/// What Istio defines a kind by, as far as reading its objects needs it.
fn definition((group, kind, plural): (&str, &str, &str)) -> String {
    let (singular, schema) = (kind.to_lowercase(), "{type: object, x-kubernetes-preserve-unknown-fields: true}");
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\nspec:\n  \
         group: {group}\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}\n  \
         versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {schema}}}}}]\n"
    )
}

/// Each kind is read from the cluster, and an API server takes what is made of it.
fn from_istio(desk: &Desk) -> Result<()> {
    desk.server.apply(&ISTIO.map(definition).join("---\n"))?;
    desk.server.knows_its_kinds()?;
    desk.server.apply(BOOKINFO)?;
    desk.follow("docs/from-istio.md", "from_istio", |_, _| Ok(()))?;
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(desk.folder.path().join("moved"))? {
        files.insert(entry?.file_name().into_string().ok().context("a file's name")?);
    }
    let expected = [
        "bookinfo.10-policies.yaml",
        "bookinfo.20-services.yaml",
        "bookinfo.30-routes.yaml",
        "bookinfo.40-namespace.yaml",
        "weft-system.10-policies.yaml",
    ];
    ensure!(files.iter().eq(&expected), "{files:?}");
    let taken = desk.sh("kubectl apply --dry-run=server --validate=strict -f moved")?;
    ensure!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    Ok(())
}
