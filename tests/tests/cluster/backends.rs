//! What routes of Gateways send to besides Services: hosts outside of the cluster, by names that somebody else answers for, and
//! Services of several clusters, of a kind that a cluster may get and lose while it runs.

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use weft_testkit::Netns;
use weft_testkit::process::Process;
use weft_tests::cluster::{
    Answers, Cluster, Echo, PATIENCE, STRICT, SYSTEM, TestNamespace, echo_service, eventually, repository,
};

use crate::gateway::{LABEL, address, route};
use crate::provisioned::{OfCluster, gateway, http, parameters};

/// The zone of `tests/cluster/node/coredns.yaml`.
const ZONE: &str = "outside.test";
/// Where the server outside speaks HTTP, and where HTTPS.
const HTTP: u16 = 18080;
const HTTPS: u16 = 18443;

/// Gateway `edge` behind a Service with an address of the cluster.
fn edge(ns: &TestNamespace) -> Result<()> {
    parameters(ns, "own", &json!({ "service": { "type": "ClusterIP" } }))?;
    gateway(ns, "weft", Some("own"), &http())
}

/// A server in the control plane's network, as a host that isn't the cluster's. Dropping it ends it.
struct Outside {
    _process: Process,
    /// Who signed its certificate, as PEM.
    authority: String,
    _folder: tempfile::TempDir,
}

/// An authority, and a certificate of it for a host with its key, as PEM.
fn signed(host: &str) -> Result<(String, String, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &*authority)?;
    Ok((authority.pem(), leaf.pem(), key.serialize_pem()))
}

impl Outside {
    fn start(cluster: &Cluster) -> Result<Self> {
        let (authority, chain, key) = signed(&format!("tls.{ZONE}"))?;
        let folder = tempfile::tempdir()?;
        let (chain_file, key_file) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&chain_file, chain)?;
        std::fs::write(&key_file, key)?;
        let script = repository().join("tests/tests/cluster/outside.py");
        let [script, chain_file, key_file] = [script, chain_file, key_file].map(|path| path.display().to_string());
        let words = ["python3", &script, &HTTP.to_string(), &HTTPS.to_string(), &chain_file, &key_file];
        let command = cluster.beside(&words).context("not a cluster of ours")?;
        let mut process = Process::start(&Netns::here(), command)?;
        process.wait_until(PATIENCE, |log| log.contains("listening"))?;
        Ok(Self { _process: process, authority, _folder: folder })
    }
}

/// A backend that is a host of the zone; what it is called is also the path of its requests.
fn host(ns: &TestNamespace, name: &str, (host, port): (&str, u16), more: &Value) -> Result<()> {
    let mut spec = json!({ "type": "ExternalHostname", "externalHostname": { "hostname": format!("{host}.{ZONE}") },
        "port": { "port": port }, "protocol": "HTTP11" });
    if !more.is_null() {
        spec["tls"] = more.clone();
    }
    let metadata = json!({ "name": name, "namespace": "@NS@" });
    let object = json!({ "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend",
        "metadata": metadata, "spec": spec });
    ns.apply(&object.to_string())
}

/// TLS to whom the authorities of a ConfigMap vouch for.
fn tls(authorities: &str) -> Value {
    let reference = json!({ "group": "", "kind": "ConfigMap", "name": authorities });
    json!({ "mode": "ServerOnly", "validation": { "hostname": format!("tls.{ZONE}"), "caCertificateRefs": [reference] } })
}

fn authorities(ns: &TestNamespace, name: &str, pem: &str) -> Result<()> {
    let metadata = json!({ "name": name, "namespace": "@NS@" });
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "ca.crt": pem } });
    ns.apply(&object.to_string())
}

/// Backends at which nothing may be sent, by the part of an address that they have: all are hosts that would answer.
const WITHIN: [(&str, u16, &str); 3] = [
    // kube-proxy's health.
    ("node", 10256, "a node or an API server of the cluster"),
    // The API server.
    ("service", 443, "inside the cluster"),
    // kube-proxy's again, at the bridge of a node's pods.
    ("pod", 10256, "inside the cluster"),
];

/// One rule for each backend, by the first part of the path; the host that it is asked for is its own where it has TLS.
fn rules() -> String {
    let rule = |name: &str| {
        let path = json!({ "type": "PathPrefix", "value": format!("/{name}") });
        let backend = json!({ "group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": name });
        let host = json!({ "type": "URLRewrite", "urlRewrite": { "hostname": format!("tls.{ZONE}") } });
        let filters = if name == "tls" { json!([host]) } else { json!([]) };
        json!({ "matches": [{ "path": path }], "filters": filters, "backendRefs": [backend] })
    };
    let names = ["plain", "tls", "stranger", "nobody"].into_iter().chain(WITHIN.map(|(name, ..)| name));
    format!(r#""rules": {}"#, Value::from_iter(names.map(rule)))
}

#[test]
#[ignore = "needs a cluster"]
fn hosts_outside_are_found_by_name_and_trusted_by_certificate_and_no_name_leads_into_the_cluster() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() {
        eprintln!("LEFT OUT: nothing outside of this cluster has a name that a test could know");
        return Ok(());
    }
    let names = cluster.k(&["-n", "kube-system", "get", "configmap", "coredns", "-o", "jsonpath={.data.Corefile}"])?;
    ensure!(names.contains(ZONE), "this cluster was brought up before it had names in {ZONE}: bring it up again");
    let ns = cluster.namespace("t-outside", false)?;
    let outside = Outside::start(&cluster)?;
    edge(&ns)?;
    authorities(&ns, "theirs", &outside.authority)?;
    authorities(&ns, "another", &signed("another.example")?.0)?;
    host(&ns, "plain", ("plain", HTTP), &Value::Null)?;
    host(&ns, "tls", ("tls", HTTPS), &tls("theirs"))?;
    host(&ns, "stranger", ("tls", HTTPS), &tls("another"))?;
    host(&ns, "nobody", ("tls", HTTPS), &tls("missing"))?;
    for (name, port, _) in WITHIN {
        host(&ns, name, (name, port), &Value::Null)?;
    }
    ns.run(&[Echo::new("client")])?;
    route(&ns, "all", &rules())?;
    let to = address(&ns)?;
    let ask = |path: &str| ns.ask("client", &[&format!("http://{to}/{path}"), "--count=20", "--timeout=5s"]);
    let plain = format!("host {to} of nobody;");
    let encrypted = format!("host tls.{ZONE} of tls.{ZONE};");
    for (name, said) in [("plain", &plain), ("tls", &encrypted)] {
        cluster.wait_accepted(&ns.name, &format!("xbackend/{name}"))?;
        eventually(&format!("{name} to be served"), PATIENCE, || ask(name)?.all(20, 200))?;
        let answers = ask(name)?;
        answers.all(20, 200)?;
        ensure!(answers.from("outside") == 20, "{:?}", answers.list.first());
        ensure!(answers.list.iter().all(|it| it.said == *said), "{:?}", answers.list.first());
    }
    let (_, _, message) = cluster.condition(&ns.name, "xbackend/plain", "Accepted")?;
    ensure!(message.contains("not encrypted"), "{message}");
    // Somebody else's certificate is as good as none, and without anybody to believe nothing is sent.
    eventually("a stranger to be refused", PATIENCE, || ask("stranger")?.all(20, 503))?;
    eventually("what can't be had to be refused", PATIENCE, || ask("nobody")?.all(20, 500))?;
    let (status, _, message) = cluster.condition(&ns.name, "xbackend/nobody", "Accepted")?;
    ensure!(status == "False" && message.contains("caCertificateRefs"), "{status}: {message}");
    nothing_goes_into_the_cluster(&ns, &ask)
}

/// Whoever answers for a name may say the address of anything that only the Gateway could reach.
fn nothing_goes_into_the_cluster(ns: &TestNamespace, ask: &dyn Fn(&str) -> Result<Answers>) -> Result<()> {
    for (name, _, why) in WITHIN {
        eventually(&format!("{name}.{ZONE} to be resolved and passed by"), PATIENCE, || {
            let log = ns.cluster.k(&["-n", &ns.name, "logs", "-l", LABEL, "--tail=-1"])?;
            let host = format!("{name}.{ZONE}");
            ensure!(log.lines().any(|line| line.contains(&host) && line.contains(why)), "{log}");
            Ok(())
        })?;
        ask(name)?.all(20, 503).with_context(|| format!("what {name}.{ZONE} leads to"))?;
    }
    Ok(())
}

const IMPORTS: &str = "serviceimports.multicluster.x-k8s.io";

/// The kind, as far as the API server has to know it: what is in an object is the business of who imports.
const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: serviceimports.multicluster.x-k8s.io }
spec:
  group: multicluster.x-k8s.io
  scope: Namespaced
  names: { kind: ServiceImport, listKind: ServiceImportList, plural: serviceimports, singular: serviceimport }
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
";

const IMPORT: &str = r#"
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceImport
metadata: { name: store, namespace: "@NS@" }
spec: { type: ClusterSetIP, ips: [192.0.2.10], ports: [{ name: http, port: 80, protocol: TCP }] }
"#;

/// The endpoints of the import, as whoever imports writes them.
fn imported(ns: &TestNamespace, addresses: [&str; 2]) -> Result<()> {
    let endpoints = addresses.map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }));
    let labels = json!({ "multicluster.kubernetes.io/service-name": "store" });
    let metadata = json!({ "name": "imported-store", "namespace": "@NS@", "labels": labels });
    let family = if addresses.iter().all(|it| it.contains(':')) { "IPv6" } else { "IPv4" };
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }], "endpoints": endpoints });
    ns.apply(&slice.to_string())
}

/// The controllers' processes: pods, and how often their containers were started again.
fn controllers(cluster: &Cluster) -> Result<String> {
    let fields = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount};{end}";
    cluster.k(&["-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/name=weft-controller", "-o", fields])
}

#[test]
#[ignore = "needs a cluster"]
fn an_import_is_served_while_it_is_there_whenever_the_cluster_gets_and_loses_its_kind() -> Result<()> {
    let cluster = Cluster::open()?;
    if !cluster.has_nodes() && !cluster.k(&["get", "crd", IMPORTS, "--ignore-not-found", "-o", "name"])?.is_empty() {
        eprintln!("LEFT OUT: this cluster has ServiceImports of its own");
        return Ok(());
    }
    cluster.k(&["delete", "crd", IMPORTS, "--ignore-not-found", "--timeout=60s"])?;
    let _definition = OfCluster(&cluster, &["crd/serviceimports.multicluster.x-k8s.io"]);
    // One endpoint takes nothing in the clear, as pods of this mesh may; the other is of somebody else's cluster.
    let (ns, far) = (cluster.namespace("t-import", true)?, cluster.namespace("t-import-far", false)?);
    ns.apply(STRICT)?;
    ns.apply(&echo_service("near"))?;
    edge(&ns)?;
    ns.run(&[Echo::new("near")])?;
    far.run(&[Echo::new("far"), Echo::new("client")])?;
    let ((_, near_ip, _), (_, far_ip, _)) = (ns.pod("near")?, far.pod("far")?);
    imported(&ns, [&near_ip, &far_ip])?;
    let backend = json!({ "group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store", "port": 80 });
    route(&ns, "store", &format!(r#""rules": [{{"backendRefs": [{backend}]}}]"#))?;
    let url = format!("http://{}/", address(&ns)?);
    let before = controllers(&cluster)?;
    let ask = || far.ask("client", &[&url, "--count=40", "--timeout=5s"]);
    let missing = || {
        eventually("an import that isn't there to be missed", PATIENCE, || {
            let (status, reason, message) = cluster.condition(&ns.name, "httproute/store", "ResolvedRefs")?;
            let is_told = status == "False" && reason == "BackendNotFound" && message.contains("ServiceImport");
            ensure!(is_told, "{status} {reason}: {message}");
            ask()?.all(40, 500)
        })
    };
    let there = || {
        eventually("both endpoints to answer", PATIENCE, || {
            let answers = ask()?;
            answers.all(40, 200)?;
            let (near, far) = (answers.from("near"), answers.from("far"));
            ensure!(near > 0 && far > 0 && near + far == 40, "{near} from near, {far} from far");
            Ok(())
        })?;
        let (status, reason, message) = cluster.condition(&ns.name, "httproute/store", "ResolvedRefs")?;
        ensure!(status == "True", "{reason}: {message}");
        Ok(())
    };
    missing().context("before the cluster knows of the kind")?;
    cluster.apply(DEFINITION)?;
    cluster.k(&["wait", "--for=condition=Established", "--timeout=60s", "crd", IMPORTS])?;
    missing().context("without an import of that name")?;
    eventually("the kind to be served", PATIENCE, || ns.apply(IMPORT))?;
    there()?;
    cluster.k(&["-n", &ns.name, "delete", IMPORTS, "store"])?;
    missing().context("after it was deleted")?;
    ns.apply(IMPORT)?;
    there()?;
    cluster.k(&["delete", "crd", IMPORTS, "--timeout=60s"])?;
    missing().context("after its kind was deleted")?;
    ensure!(controllers(&cluster)? == before, "other controllers than before");
    Ok(())
}
