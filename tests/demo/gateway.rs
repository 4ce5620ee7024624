//! A Gateway among the manifests: clients from outside of the mesh, by HTTPS.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use weft_testkit::clients::Echo;
use weft_tests::{Mesh, NODES, eventually};

use crate::show::Board;

const NAME: &str = "shop.example.com";
const GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: public, namespace: shop }
spec:
  gatewayClassName: weft
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: https, port: 443, protocol: HTTPS, hostname: shop.example.com, tls: { certificateRefs: [{ name: public }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: to-https, namespace: shop }
spec:
  parentRefs: [{ name: public, sectionName: http }]
  rules:
  - filters: [{ type: RequestRedirect, requestRedirect: { scheme: https, statusCode: 301 } }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: public, namespace: shop }
spec:
  parentRefs: [{ name: public, sectionName: https }]
  rules:
  - backendRefs: [{ name: catalog-v1, port: 80 }]
";

/// What curl got: `VERSION STATUS LOCATION`, and the body.
type Got = (String, String);

/// A client at that address of the wire: HTTP leads to HTTPS, which reaches a pod of the other node through a tunnel, where policy holds.
pub fn show(mesh: &Mesh, client: IpAddr, board: &mut Board) -> Result<()> {
    let folder = tempfile::tempdir()?;
    board.step("a Gateway on the first node", || {
        let secret = certificate(folder.path())?;
        std::fs::write(mesh.manifests().join("91-certificate.yaml"), secret)?;
        std::fs::write(mesh.manifests().join("90-gateway.yaml"), GATEWAY)?;
        eventually(
            "the Gateway answers",
            || Ok(curl(mesh, folder.path(), &[], "https").is_ok_and(|it| it.0 == "2 200")),
        )
    })?;
    let (said, _) = curl(mesh, folder.path(), &[], "http")?;
    let wanted = format!("1.1 301 https://{NAME}/");
    board.note("by HTTP", format!("a client outside of the mesh is sent on: {said}"), said == wanted);
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let (said, body) = curl(mesh, folder.path(), &[option], "https")?;
        let echo: Echo = serde_json::from_str(&body).with_context(|| body.clone())?;
        let address = echo.header("x-forwarded-for").unwrap_or("nobody").to_owned();
        let well = said == format!("{version} 200") && address == client.to_string();
        board.note(
            format!("by HTTPS, {option}"),
            format!("{said} by {}, which is told of client {address}", echo.pod),
            well,
        );
    }
    let (said, _) = curl(mesh, folder.path(), &["--request", "DELETE"], "https")?;
    board.note("denied: DELETE from outside", said.clone(), said == "2 403");
    Ok(())
}

/// Makes a certificate and trusts it; gives the Secret.
fn certificate(folder: &Path) -> Result<String> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=shop"]);
    command.args(["-addext", &format!("subjectAltName=DNS:{NAME}"), "-keyout", "key.pem", "-out", "cert.pem"]);
    let made = command.current_dir(folder).output().context("openssl")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let indented = |file: &str| -> Result<String> {
        let text = std::fs::read_to_string(folder.join(file))?;
        Ok(text.lines().map(|line| format!("\n    {line}")).collect())
    };
    Ok(format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ name: public, namespace: shop }}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |{}\n  tls.key: |{}\n",
        indented("cert.pem")?,
        indented("key.pem")?
    ))
}

/// Asks from outside; curl looks at the certificate.
fn curl(mesh: &Mesh, folder: &Path, options: &[&str], scheme: &str) -> Result<Got> {
    let mut command = Command::new("curl");
    let shown = "\n%{http_version} %{http_code} %{redirect_url}";
    command.args(["--silent", "--show-error", "--max-time", "10", "--write-out", shown, "--cacert"]);
    command.arg(folder.join("cert.pem")).args(options);
    let to = format!("::{}:", mesh.world.node(NODES[0]).ipv4());
    let output = mesh.world.wire().output(command.args(["--connect-to", &to, &format!("{scheme}://{NAME}/")]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (body, said) = text.rsplit_once('\n').context("nothing is said")?;
    Ok((said.trim_end().to_owned(), body.to_owned()))
}
