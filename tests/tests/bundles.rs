//! The controller with every release of the Gateway API's CRDs that is supported, in both channels, on a real API server.
//! `make cluster-build` makes what it needs: `cargo test -p weft-tests --test bundles -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weft_testkit::process::Process;
use weft_tests::Programs;
use weft_tests::apiserver::ApiServer;
use weft_tests::cluster::eventually;

/// The controller's ServiceAccount, with the rights that the chart gives it.
const CONTROLLER: &str = "weft-system:weft-controller";
const PATIENCE: Duration = Duration::from_secs(30);
const HEALTH: u16 = 15014;

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weftmesh.io/mesh: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  selector: {app: cart}
  ports:
  - {name: http, port: 80, appProtocol: http}
  - {name: grpc, port: 50051, appProtocol: kubernetes.io/h2c}
  - {name: tcp, port: 9000}
  - {name: tls, port: 9443}
  - {name: udp, port: 53, protocol: UDP}
"#;

/// Kinds of routes, their port of the Service, and whether the mesh takes them.
const ROUTES: [(&str, u16, bool); 5] = [
    ("HTTPRoute", 80, true),
    ("GRPCRoute", 50051, true),
    ("TCPRoute", 9000, true),
    ("TLSRoute", 9443, true),
    ("UDPRoute", 53, false),
];

/// One release of the CRDs, in one channel.
struct Bundle {
    version: String,
    channel: &'static str,
    folder: PathBuf,
}

impl Bundle {
    /// All that are supported.
    fn all(server: &ApiServer) -> Result<Vec<Self>> {
        let folder = server.build().join("bundles");
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("{}: run make cluster-build", folder.display()))?;
        let mut versions: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        versions.sort();
        let minors: Vec<_> = versions.iter().map(|v| v.rsplit_once('.').map_or("", |(minor, _)| minor)).collect();
        assert_eq!(minors, ["1.2", "1.3", "1.4", "1.5", "1.6"], "releases that are promised");
        let of = |version: String| {
            let bundle = |channel| Self { version: version.clone(), channel, folder: folder.join(&version) };
            ["standard", "experimental"].map(bundle)
        };
        Ok(versions.into_iter().flat_map(of).collect())
    }

    fn name(&self) -> String {
        format!("{} {}", self.version, self.channel)
    }

    /// kubectl with all files of a folder of the release.
    fn kubectl(&self, server: &ApiServer, folder: &str, words: &[&str]) -> Result<String> {
        let files = yaml_files(&self.folder.join(folder));
        let files = files.iter().flat_map(|file| ["-f", file.to_str().unwrap()]);
        server.k(&words.iter().copied().chain(files).collect::<Vec<_>>())
    }

    fn install(&self, server: &ApiServer) -> Result<()> {
        self.kubectl(server, self.channel, &["apply", "--server-side"])?;
        server.k(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
        Ok(())
    }

    fn remove(&self, server: &ApiServer) -> Result<()> {
        self.kubectl(server, self.channel, &["delete", "--wait", "--timeout=60s"]).map(drop)
    }

    /// Every kind of route in every version that this bundle serves it in, with its port and whether the mesh takes it.
    fn routes(server: &ApiServer) -> Result<Vec<(&'static str, String, u16, bool)>> {
        let crds = server.json(&["crd"])?;
        let mut found = Vec::new();
        for (kind, port, taken) in ROUTES {
            let crds = crds["items"].as_array().into_iter().flatten();
            let versions = crds.filter(|crd| crd["spec"]["names"]["kind"] == kind);
            let versions = versions.filter_map(|crd| crd["spec"]["versions"].as_array()).flatten();
            let served = versions.filter(|version| version["served"] == true).filter_map(|v| v["name"].as_str());
            found.extend(served.map(|version| (kind, version.to_owned(), port, taken)));
        }
        Ok(found)
    }
}

/// All YAML files below a folder but kustomizations.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { yaml_files(&path) } else { vec![path] }).collect();
    found.retain(|path| {
        path.extension().is_some_and(|e| e == "yaml")
            && path.file_name().is_some_and(|name| name != "kustomization.yaml")
    });
    found.sort();
    found
}

/// An API server with the rights of the chart and a shop in it; no CRDs at all.
fn server() -> Result<ApiServer> {
    let server = ApiServer::start(&[CONTROLLER])?;
    server.apply_template("templates/controller.yaml")?;
    server.apply(SHOP)?;
    Ok(server)
}

/// Starts the controller and waits until it has heard of every kind, there or not.
fn controller(server: &ApiServer) -> Result<Process> {
    let mut command = Command::new(Programs::find()?.directory().join("weft-controller"));
    // Nothing follows its configuration here: it goes without a certificate.
    command.args(["--pod-name=bundles", "--lease-seconds=3", "--trust-bundle=/nonexistent"]);
    let mut process = server.run(command, CONTROLLER)?;
    process.wait_until(PATIENCE, |_| {
        server.page(HEALTH, "/readyz").is_ok_and(|page| page.contains("roots") && !page.contains("list of all"))
    })?;
    Ok(process)
}

fn route(kind: &str, version: &str, name: &str, port: u16, more: &str) -> String {
    // In v1 a TLSRoute can't be without.
    let hostnames = if kind == "TLSRoute" { "  hostnames: [cart.example.com]\n" } else { "" };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: cart, port: {port}}}]\n{hostnames}  \
         rules:\n  - backendRefs: [{{name: cart, port: {port}}}]\n{more}"
    )
}

/// The condition `Accepted` that the controller wrote: status, reason and message.
fn accepted(object: &Value) -> Result<[String; 3]> {
    let entries = object["status"]["parents"].as_array().context("no entries")?;
    let [entry] = entries.as_slice() else { bail!("{} entries", entries.len()) };
    ensure!(entry["controllerName"] == "weftmesh.io/gateway-controller", "{entry}");
    let condition = entry["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Accepted");
    let condition = condition.with_context(|| format!("not in {entry}"))?;
    ensure!(condition["observedGeneration"] == object["metadata"]["generation"], "an old {condition}");
    Ok(["status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned()))
}

/// What is to be said of a route.
struct Expected {
    kind: &'static str,
    name: String,
    status: &'static str,
    /// A part of the message.
    part: &'static str,
}

/// Waits until the controller says of all these routes what it should.
fn says(server: &ApiServer, all: &[Expected]) -> Result<()> {
    let mut kinds: Vec<_> =
        all.iter().map(|it| format!("{}s.gateway.networking.k8s.io", it.kind.to_lowercase())).collect();
    kinds.sort();
    kinds.dedup();
    eventually("routes to have their status", PATIENCE, || {
        let objects = server.json(&["-n", "shop", &kinds.join(",")])?;
        for Expected { kind, name, status, part } in all {
            let mut objects = objects["items"].as_array().into_iter().flatten();
            let object = objects.find(|o| o["kind"] == *kind && o["metadata"]["name"] == **name);
            let object = object.with_context(|| format!("no {kind} {name}"))?;
            let [is, reason, message] = accepted(object).with_context(|| format!("{kind} {name}"))?;
            ensure!(is == *status && message.contains(part), "{kind} {name}: {is}, {reason}: {message}");
        }
        Ok(())
    })
}

/// Makes routes of every kind, in every version that is served, and gives what is to be said of them.
fn make_routes(server: &ApiServer, name: &str) -> Result<Vec<Expected>> {
    let (mut manifests, mut expected) = (String::new(), Vec::new());
    for (kind, version, port, taken) in Bundle::routes(server)? {
        let name = format!("{name}-{version}");
        manifests += &(route(kind, &version, &name, port, "") + "\n---\n");
        let (status, part) = if taken { ("True", "in force") } else { ("False", "UDP is not carried") };
        expected.push(Expected { kind, name, status, part });
    }
    server.apply(&manifests)?;
    Ok(expected)
}

/// What the API server takes and we don't do is named in the status.
fn unsupported_fields_are_named(server: &ApiServer, bundle: &Bundle) -> Result<()> {
    let said = |name: &str, status, part| Expected { kind: "HTTPRoute", name: name.to_owned(), status, part };
    let extension = "    filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Thing, name: x}}]\n";
    server.apply(&route("HTTPRoute", "v1", "extension", 80, extension))?;
    let mut expected = vec![said("extension", "False", "spec.rules[0].filters[0]")];
    if bundle.channel == "experimental" {
        let sticky = "    sessionPersistence: {sessionName: sticky}\n";
        server.apply(&route("HTTPRoute", "v1", "sticky", 80, sticky))?;
        expected.push(said("sticky", "True", "in force"));
    }
    // A field that this version has never heard of, as a later release will have them.
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/novelty";
    let patch = format!(r#"[{{"op": "add", "path": "{at}", "value": {{"type": "string"}}}}]"#);
    server.k(&["patch", "crd", "httproutes.gateway.networking.k8s.io", "--type=json", "-p", &patch])?;
    // The new schema is in force a moment later; until then the field is refused or dropped.
    eventually("a route with a new field", PATIENCE, || {
        server.apply(&route("HTTPRoute", "v1", "novel", 80, "  novelty: much\n"))?;
        let novel = server.json(&["-n", "shop", "httproutes", "novel"])?;
        ensure!(novel["spec"]["novelty"] == "much", "{novel}");
        Ok(())
    })?;
    expected.push(said("novel", "True", "spec.novelty"));
    says(server, &expected)
}

/// The class, and in the channel that has the kind the mesh, are ours.
fn classes_are_accepted(server: &ApiServer) -> Result<()> {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
        spec: {controllerName: weftmesh.io/gateway-controller}";
    server.apply(class)?;
    let mut kinds = vec!["gatewayclasses.gateway.networking.k8s.io"];
    if server.k(&["get", "crd", "xmeshes.gateway.networking.x-k8s.io"]).is_ok() {
        let mesh = "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XMesh\nmetadata: {name: weft}\n\
            spec: {controllerName: weftmesh.io/mesh-controller}";
        server.apply(mesh)?;
        kinds.push("xmeshes.gateway.networking.x-k8s.io");
    }
    for kind in kinds {
        eventually(&format!("{kind} to be accepted"), PATIENCE, || {
            let object = server.json(&[kind, "weft"])?;
            let condition = |c: &&Value| c["type"] == "Accepted" && c["status"] == "True";
            let found = object["status"]["conditions"].as_array().into_iter().flatten().find(condition);
            found.map(drop).with_context(|| object["status"].to_string())
        })?;
    }
    Ok(())
}

/// The release's own examples are read, whatever they are for; how many objects they are.
fn examples_can_be_read(server: &ApiServer, bundle: &Bundle) -> usize {
    // Some are for the other channel.
    let said =
        bundle.kubectl(server, "examples", &["apply", "--server-side"]).unwrap_or_else(|error| error.to_string());
    said.matches("serverside-applied").count()
}

#[test]
#[ignore = "needs make cluster-build"]
fn every_release_and_channel_is_picked_up_when_it_comes_and_read_when_it_is_there() {
    let server = server().unwrap();
    for bundle in Bundle::all(&server).unwrap() {
        let check = || -> Result<[usize; 2]> {
            // With none at all; then the kinds come.
            let mut early = controller(&server)?;
            bundle.install(&server)?;
            let routes = make_routes(&server, "early")?;
            says(&server, &routes)?;
            classes_are_accepted(&server)?;
            early.stop()?;
            // With all of them; then they go.
            let mut late = controller(&server)?;
            says(&server, &make_routes(&server, "late")?)?;
            let examples = examples_can_be_read(&server, &bundle);
            unsupported_fields_are_named(&server, &bundle)?;
            bundle.remove(&server)?;
            eventually("the controller to see the kinds go", PATIENCE, || {
                let log = late.log()?;
                let gone = |kind: &str| {
                    log.contains(&format!(r#""definition":"{kind}.gateway.networking.k8s.io","version":"none""#))
                };
                ensure!(gone("httproutes") && gone("grpcroutes") && gone("gatewayclasses"), "{log}");
                Ok(())
            })?;
            ensure!(server.page(HEALTH, "/healthz")?.contains("ok"), "it is alive");
            late.stop()?;
            let log = early.log()? + &late.log()?;
            for bad in ["can't be read", "no version of this kind", "Forbidden", "forbidden", "panicked"] {
                let line = log.lines().find(|line| line.contains(bad));
                ensure!(line.is_none(), "the controller said: {}", line.unwrap_or_default());
            }
            Ok([routes.len(), examples])
        };
        let [routes, examples] = check().unwrap_or_else(|error| panic!("Gateway API {}: {error:#}", bundle.name()));
        let least = if bundle.channel == "standard" { 2 } else { 5 };
        assert!(
            routes >= least && examples >= 30,
            "Gateway API {}: {routes} kinds, {examples} examples",
            bundle.name()
        );
        println!("Gateway API {}: {routes} kinds and versions of routes, {examples} examples", bundle.name());
    }
}

/// Takes all entries out of a route's status.
fn rob(server: &ApiServer, kind: &str, name: &str) -> Result<()> {
    let resource = format!("{}s.gateway.networking.k8s.io", kind.to_lowercase());
    let nothing = r#"{"status": {"parents": []}}"#;
    let patch = ["--subresource=status", "--type=merge", "-p", nothing];
    server.k(&[&["-n", "shop", "patch", &resource, name], &patch[..]].concat()).map(drop)
}

/// A cluster is upgraded while the controller runs and routes are in force: nothing is lost on the way.
#[test]
#[ignore = "needs make cluster-build"]
fn an_upgrade_from_release_to_release_keeps_every_route() {
    let server = server().unwrap();
    let mut controller = controller(&server).unwrap();
    let mut made: Vec<Expected> = Vec::new();
    for bundle in Bundle::all(&server).unwrap().into_iter().filter(|bundle| bundle.channel == "experimental") {
        let step = |made: &mut Vec<Expected>| -> Result<()> {
            bundle.install(&server)?;
            made.extend(make_routes(&server, &format!("since-{}", bundle.version.replace('.', "-")))?);
            says(&server, made)?;
            // Old ones are looked after still: what is taken away from them comes back.
            for (kind, ..) in ROUTES {
                let oldest = made.iter().find(|route| route.kind == kind).context("no such route")?;
                rob(&server, kind, &oldest.name)?;
            }
            says(&server, made)
        };
        step(&mut made)
            .unwrap_or_else(|error| panic!("upgrade to {}: {error:#}\n{}", bundle.name(), controller.log().unwrap()));
    }
    controller.stop().unwrap();
    let log = controller.log().unwrap();
    assert!(!log.contains("can't be read") && !log.contains("forbidden"), "{log}");
}
