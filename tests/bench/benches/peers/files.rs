//! Lean configurations of everybody: one worker, no logs, connections to the backend kept.
//!
//! As one proxy, everybody speaks to the backend what the client speaks, except nginx, which knows only HTTP/1.1
//! there. Weft as one proxy is this very program (`weft_node_proxy::plain`: its HTTP engine as it is in the mesh,
//! with routes and metrics).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::json;
use tempfile::TempDir;
use weft_testkit::Netns;

use crate::programs::{Front, Program, Spec};

/// The port of the backend, wherever it runs: nginx with a body of 1 KiB at `/1k` and one of 1 MiB at `/1m`.
pub const BACKEND_PORT: u16 = 9000;
/// The same over HTTP/2 with prior knowledge.
const BACKEND_H2_PORT: u16 = 9001;
/// The backend on loopback.
pub const BACKEND: SocketAddr = local(BACKEND_PORT);
/// The same over HTTP/2.
pub const BACKEND_H2: SocketAddr = local(BACKEND_H2_PORT);
/// The namespace of client and server in the mesh.
pub const NAMESPACE: &str = "bench";
/// The pod that calls, and its ServiceAccount.
pub const CLIENT: &str = "client";
/// The pod that answers, and its ServiceAccount.
pub const SERVER: &str = "server";

/// A port on loopback.
pub const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The SPIFFE ID of a ServiceAccount of the benchmark.
pub fn identity(name: &str) -> String {
    format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{name}")
}

/// Configurations, certificates and bodies, in a folder that goes when this does.
#[derive(Debug)]
pub struct Files(TempDir);

impl Files {
    /// Writes certificates and bodies.
    ///
    /// # Errors
    /// When that fails.
    pub fn new() -> Result<Self> {
        let this = Self(tempfile::Builder::new().prefix("weft-bench").tempdir()?);
        this.write("1k", "x".repeat(1024))?;
        this.write("1m", "x".repeat(1 << 20))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?;
        this.write("ca.pem", root.pem())?;
        this.write("ca.der", root.der())?;
        this.write("ca.key", key.serialize_pem())?;
        let issuer = Issuer::new(params, key);
        for name in [CLIENT, SERVER] {
            let mut params = CertificateParams::default();
            // A subject like the issuer's would look self-signed.
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names.push(SanType::URI(identity(name).try_into()?));
            let key = KeyPair::generate()?;
            this.write(&format!("{name}.pem"), params.signed_by(&key, &issuer)?.pem())?;
            this.write(&format!("{name}.key"), key.serialize_pem())?;
        }
        Ok(this)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        std::fs::write(self.0.path().join(name), content)?;
        Ok(self.path(name))
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    pub(super) fn nginx_with(&self, name: &str, servers: &str) -> Result<Vec<String>> {
        let folder = self.path("");
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}{name}-{kind};\n"));
        let config = format!(
            "worker_processes 1; master_process off; daemon off; error_log stderr crit; pid {folder}{name}.pid;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n{}access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; sendfile on;\n{servers}\n}}\n",
            temp.concat(),
        );
        let path = self.write(&format!("{name}.conf"), config)?;
        // Errors before the configuration is read go to stderr too.
        Ok(["nginx", "-e", "stderr", "-c", &path].map(str::to_owned).to_vec())
    }

    /// A backend, in a namespace.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn backend(&self, netns: Netns, ip: IpAddr) -> Result<Spec> {
        let (h1, h2) = (SocketAddr::new(ip, BACKEND_PORT), SocketAddr::new(ip, BACKEND_H2_PORT));
        let (folder, body) = (self.path(""), "x".repeat(1024));
        let servers = format!(
            "server {{ listen {h1} backlog=4096; listen {h2} http2 backlog=4096; root {folder};\n\
             location = /1k {{ return 200 {body}; }} }}"
        );
        let words = self.nginx_with(&format!("backend-{ip}"), &servers)?;
        let h1 = Front { from: netns.clone(), addr: h1, authority: None };
        Ok(Spec { name: "backend", h1, h2: None, tcp: None, programs: vec![Program { netns, words }] })
    }

    /// nginx as a proxy.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn nginx(&self) -> Result<Spec> {
        let (h1, h2) = (local(9010), local(9011));
        let proxy =
            "location / { proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; }";
        let servers = format!(
            "upstream backend {{ server {BACKEND}; keepalive 256; keepalive_requests 1000000000; }}\n\
             server {{ listen {h1} backlog=4096; {proxy} }}\nserver {{ listen {h2} http2 backlog=4096; {proxy} }}"
        );
        Ok(one("nginx", h1, h2, self.nginx_with("nginx", &servers)?))
    }

    /// HAProxy.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn haproxy(&self) -> Result<Spec> {
        let (h1, h2) = (local(9020), local(9021));
        let config = format!(
            "global\n  nbthread 1\n  maxconn 8192\n\
             defaults\n  mode http\n  http-reuse always\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             frontend h1\n  bind {h1}\n  default_backend backend\n\
             frontend h2\n  bind {h2} proto h2\n  default_backend backend-h2\n\
             backend backend\n  server backend {BACKEND}\n\
             backend backend-h2\n  server backend {BACKEND_H2} proto h2\n"
        );
        let path = self.write("haproxy.cfg", config)?;
        Ok(one("haproxy", h1, h2, ["haproxy", "-db", "-f", &path].map(str::to_owned).to_vec()))
    }

    /// Weft as one proxy with so many routes before the one that is asked for.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn weft_with_routes(&self, count: u32) -> Result<Spec> {
        let h1 = local(9058);
        let route = |n: u32| json!({ "prefix": format!("/team-{}/app-{n}", n % 100), "backends": { "h1": 1 } });
        let routes: Vec<_> = (0..count).map(route).chain([json!({ "prefix": "/", "backends": { "h1": 1 } })]).collect();
        let services = json!({ "h1": { "listen": h1, "endpoints": [BACKEND], "routes": routes } });
        let config = json!({ "workers": 1, "accessLog": "off", "services": services });
        let path = self.write("weft-routes.json", config.to_string())?;
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let programs = vec![Program::here(vec![program, "--serve-plain".to_owned(), path])];
        Ok(Spec { name: "weft", h1: Front::here(h1), h2: None, tcp: None, programs })
    }

    /// Weft as one proxy.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn weft_plain(&self, name: &'static str, program: &Path) -> Result<Spec> {
        self.weft_counting(name, program, (if name == "weft" { 9050 } else { 9055 }, true))
    }

    /// The same at a port and the one behind it, with metrics or without.
    ///
    /// # Errors
    /// When its configuration can't be written.
    pub fn weft_counting(&self, name: &'static str, program: &Path, (place, metrics): (u16, bool)) -> Result<Spec> {
        let (h1, h2) = (local(place), local(place + 1));
        let service = |listen: SocketAddr, backend: u16, protocol, name: &str| {
            let route = json!({ "prefix": "/", "backends": { name: 1 } });
            json!({ "listen": listen, "endpoints": [local(backend)], "protocol": protocol, "routes": [route] })
        };
        let services = json!({
            "h1": service(h1, BACKEND_PORT, "http", "h1"),
            "h2": service(h2, BACKEND_H2_PORT, "h2c", "h2"),
        });
        let config = json!({ "workers": 1, "accessLog": "off", "metrics": metrics, "services": services });
        let path = self.write(&format!("weft-{place}.json"), config.to_string())?;
        let program = program.to_string_lossy().into_owned();
        Ok(one(name, h1, h2, vec![program, "--serve-plain".to_owned(), path]))
    }
}

/// One proxy on loopback.
pub fn one(name: &'static str, h1: SocketAddr, h2: SocketAddr, words: Vec<String>) -> Spec {
    let (h1, h2) = (Front::here(h1), Some(Front::here(h2)));
    Spec { name, h1, h2, tcp: None, programs: vec![Program::here(words)] }
}
