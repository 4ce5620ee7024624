//! Who clients are to a Gateway behind a load balancer, and which of them its policies let in: from the manifests of a primary
//! to real packets.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_testkit::clients::connect;
use weft_testkit::netns_tests;
use weft_testkit::servers::{any, http};
use weft_tests::{Machine, edge, eventually};

netns_tests! {
    a_client_is_who_the_load_balancer_says_and_policies_judge_that_client,
}

const OBJECTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: edge }
---
apiVersion: weftmesh.io/v1alpha1
kind: GatewayParameters
metadata: { name: edge, namespace: edge }
spec:
  clientAddress:
    proxyProtocol: { mode: Required, trustedCIDRs: [172.31.0.254] }
    trustedCIDRs: [198.51.100.0/24]
  requestId: { inResponses: true }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: edge }
spec:
  gatewayClassName: weft
  infrastructure: { parametersRef: { group: weftmesh.io, kind: GatewayParameters, name: edge } }
  listeners: [{ name: http, port: 80, protocol: HTTP }, { name: tcp, port: 90, protocol: TCP }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: edge }
spec:
  parentRefs: [{ name: gw, sectionName: http }]
  rules: [{ backendRefs: [{ name: web, port: 80 }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: { name: web, namespace: edge }
spec:
  parentRefs: [{ name: gw, sectionName: tcp }]
  rules: [{ backendRefs: [{ name: web, port: 80 }] }]
";

fn policy(denied: &str) -> String {
    format!(
        "apiVersion: weftmesh.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{ name: p, namespace: edge }}\nspec:\n  \
         targetRefs: [{{ group: gateway.networking.k8s.io, kind: Gateway, name: gw }}]\n  action: DENY\n  \
         rules: [{{ from: [{{ addresses: [{denied}] }}] }}]\n"
    )
}

/// Sends bytes from the wire and reads to the end; `None`: it was reset.
fn exchange(machine: &Machine, port: u16, bytes: &[u8]) -> Result<Option<String>> {
    let at = machine.at(port);
    machine.outside().block_on(async move {
        let mut stream = connect(at).await?;
        stream.write_all(bytes).await?;
        let mut got = Vec::new();
        let read = stream.read_to_end(&mut got).await;
        Ok(read.is_ok().then(|| String::from_utf8_lossy(&got).into_owned()))
    })
}

/// The status of the answer, and what the backend was told of the client.
fn ask(machine: &Machine, port: u16, from: &str, forwarded_for: &str) -> Result<(u16, String)> {
    let text = format!(
        "PROXY TCP4 {from} 192.0.2.1 4000 443\r\nGET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n{forwarded_for}\r\n"
    );
    let Some(answer) = exchange(machine, port, text.as_bytes())? else { return Ok((0, String::new())) };
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| answer.clone())?;
    if status == 200 && port == 80 {
        ensure!(answer.to_ascii_lowercase().contains("x-request-id: "), "{answer}");
    }
    let echo = answer.find('{').zip(answer.rfind('}')).and_then(|(start, end)| answer.get(start..=end));
    let echo: Value = echo.map_or(Ok(Value::Null), serde_json::from_str)?;
    Ok((status, echo["headers"]["x-forwarded-for"][0].as_str().unwrap_or_default().to_owned()))
}

fn a_client_is_who_the_load_balancer_says_and_policies_judge_that_client() -> Result<()> {
    let manifests = tempfile::tempdir()?;
    std::fs::write(manifests.path().join("objects.yaml"), OBJECTS.to_owned() + &edge::backend("web", 7001))?;
    std::fs::write(manifests.path().join("policy.yaml"), policy("203.0.113.0/24"))?;
    let machine = Machine::start(manifests)?;
    let _server = http(machine.outside(), "web", any(7001))?;
    machine.listens(&[80, 90])?;
    let behind = |address: &str| format!("x-forwarded-for: 6.6.6.6, {address}\r\n");
    let told = |status: u16, client: &str| (status, client.to_owned());
    for (from, forwarded_for, want) in [
        ("192.0.2.7", String::new(), told(200, "192.0.2.7")),
        ("192.0.2.7", behind("203.0.113.9"), told(200, "192.0.2.7")),
        ("198.51.100.1", behind("192.0.2.7"), told(200, "192.0.2.7, 198.51.100.1")),
        ("198.51.100.1", behind("203.0.113.9"), told(403, "")),
        ("203.0.113.9", String::new(), told(403, "")),
    ] {
        let got = ask(&machine, 80, from, &forwarded_for)?;
        ensure!(got == want, "{from} {forwarded_for:?}: {got:?}");
    }
    let bytes = ask(&machine, 90, "192.0.2.7", "")?;
    ensure!(bytes.0 == 200, "bytes of whom nothing denies: {bytes:?}");
    ensure!(ask(&machine, 90, "203.0.113.9", "")?.0 == 0, "bytes of whom the policy denies are reset");
    let bare = exchange(&machine, 80, b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n")?;
    ensure!(bare.is_none(), "without a header: {bare:?}");

    let status = machine.status("authorizationpolicy.edge.p")?.context("no status")?;
    let ancestor = &status["status"]["ancestors"][0];
    ensure!(ancestor["ancestorRef"]["name"] == "gw", "{status:#}");
    ensure!(
        ancestor["conditions"][0]["status"] == "True" && ancestor["conditions"][0]["type"] == "Accepted",
        "{status:#}"
    );

    std::fs::write(machine.manifests().join("policy.yaml"), policy("192.0.2.0/24"))?;
    eventually("the edit holds", || Ok(ask(&machine, 80, "192.0.2.7", "")?.0 == 403))?;
    ensure!(ask(&machine, 80, "203.0.113.9", "")? == told(200, "203.0.113.9"), "the other is denied no more");
    Ok(())
}
