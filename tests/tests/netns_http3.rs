//! HTTP/3 at a Gateway of a primary, with a client that isn't ours: aioquic, which `tests/tools/install.sh test` installs.
//! Without it the test is left out, and says so.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_testkit::clients::Echo;
use weft_testkit::netns_tests;
use weft_testkit::servers::{any, http};
use weft_tests::edge::Certificate;
use weft_tests::{Machine, edge, eventually, installed};

netns_tests! {
    a_client_of_another_make_speaks_http_3_where_the_parameters_say_so,
}

const OBJECTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: edge }
---
apiVersion: weftmesh.io/v1alpha1
kind: GatewayParameters
metadata: { name: edge, namespace: edge }
spec: { http3: true }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: edge }
spec:
  parentRefs: [{ name: gw, sectionName: a }, { name: gw, sectionName: b }]
  rules: [{ backendRefs: [{ name: web, port: 80 }] }]
";

const GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: edge }
spec:
  gatewayClassName: weft
  infrastructure: { parametersRef: { group: weftmesh.io, kind: GatewayParameters, name: edge } }
  listeners:
  - { name: a, port: 443, protocol: HTTPS, hostname: a.example.com, tls: { certificateRefs: [{ name: a }] } }
  - { name: b, port: 443, protocol: HTTPS, hostname: b.example.com, tls: { certificateRefs: [{ name: b }] } }
  - { name: other, port: 8443, protocol: HTTPS, hostname: a.example.com, tls: { certificateRefs: [{ name: a }] } }
  - { name: datagrams, port: 8443, protocol: UDP }
";

fn write(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    files.iter().try_for_each(|(file, text)| Ok(std::fs::write(folder.join(file), text)?))
}

fn a_client_of_another_make_speaks_http_3_where_the_parameters_say_so() -> Result<()> {
    // The client's.
    let Some(python) = installed("aioquic/bin/python3") else { return Ok(()) };
    let manifests = tempfile::tempdir()?;
    let (a, b) = (Certificate::of("a.example.com")?, Certificate::of("b.example.com")?);
    let (secrets, roots) = (a.secret("a") + &b.secret("b"), a.chain + &b.chain);
    let objects = OBJECTS.to_owned() + &edge::backend("web", 7001);
    let files =
        [("objects.yaml", &*objects), ("gateway.yaml", GATEWAY), ("secrets.yaml", &secrets), ("roots.pem", &roots)];
    write(manifests.path(), &files)?;
    let machine = Machine::start(manifests)?;
    let _server = http(machine.outside(), "web", any(7001))?;
    machine.listens(&[443])?;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http3/client.py");
    let mut seen = Value::Null;
    eventually("HTTP/3 is listened for", || {
        let mut command = Command::new(&python);
        command.arg(&script).args([machine.address().to_string(), "443".to_owned()]);
        command.arg(machine.manifests().join("roots.pem"));
        let output = machine.outside().output(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        seen = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(seen["alt-svc"].as_array().is_some_and(|all| !all.is_empty()))
    })?;
    judge(&seen)?;

    // A listener of datagrams has the port, and the other one is served without.
    let status = machine.status("gateway.edge.gw")?.context("no status")?;
    let accepted = |name: &str| -> Result<(bool, String)> {
        let listeners = status["status"]["listeners"].as_array().context("no listeners")?;
        let listener = listeners.iter().find(|it| it["name"] == name).context("no such listener")?;
        let condition =
            listener["conditions"].as_array().and_then(|all| all.iter().find(|it| it["type"] == "Accepted"));
        let condition = condition.context("not Accepted")?;
        Ok((condition["status"] == "True", condition["message"].as_str().unwrap_or_default().to_owned()))
    };
    let (is_accepted, why) = accepted("other")?;
    ensure!(is_accepted && why.contains("\"datagrams\" has UDP port 8443"), "{why}");
    ensure!(accepted("a")?.1.contains("HTTP/3 is spoken"), "{status:#}");
    Ok(())
}

fn judge(seen: &Value) -> Result<()> {
    ensure!(seen["alt-svc"][0] == "h3=\":443\"; ma=86400", "{seen:#}");
    let echo: Echo = serde_json::from_str(seen["get"]["body"].as_str().unwrap_or_default())?;
    ensure!((echo.path.as_str(), echo.query.as_deref()) == ("/x", Some("y=1")), "{echo:?}");
    ensure!(
        echo.host.as_deref() == Some("a.example.com") && echo.header("x-forwarded-proto") == Some("https"),
        "{echo:?}"
    );
    ensure!(echo.header("x-forwarded-for").is_some_and(|text| text.parse::<IpAddr>().is_ok()), "{echo:?}");
    let echo: Echo = serde_json::from_str(seen["large"]["body"].as_str().unwrap_or_default())?;
    ensure!(echo.body_bytes == 2 << 20, "{echo:?}");
    let together: Vec<_> = (0..20).map(|n| format!("/{n}")).collect();
    ensure!(seen["together"] == serde_json::json!(together), "{seen:#}");
    ensure!(seen["empty"] == 0 && seen["other"] == "421", "{seen:#}");
    ensure!(seen["grpc"]["body"] == "\0\0\0\0\u{5}hello" && seen["grpc"]["trailers"]["grpc-status"] == "0", "{seen:#}");
    ensure!(seen["connect"]["reset"] == 0x10e && seen["after"] == "200", "{seen:#}");
    ensure!(seen["named"] == "200" && seen["unknown"].as_str().is_some_and(|why| why.contains("Error")), "{seen:#}");
    Ok(())
}
