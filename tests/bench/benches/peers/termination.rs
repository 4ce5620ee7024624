//! TLS that ends at the proxy: everybody's lean configuration for it, and the measurements.
//!
//! One certificate of ECDSA P-256, TLS 1.2 and 1.3, session tickets as they come. Weft is the process of a Gateway as it runs
//! in a cluster, with one worker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use serde_json::json;
use weft_bench::{Goal, Metric, Report};

use crate::Args;
use crate::files::{BACKEND, BACKEND_H2, Files, local, one};
use crate::gateway::GatewayFile;
use crate::handshakes::{Sessions, connections};
use crate::http3;
use crate::load::{BUSY, MANY, h2load, wrk};
use crate::programs::{Front, Peer, Spec};
use crate::rounds::{PER_CORE, measured, micros, requests, start};

/// The name in the certificate.
pub const HOST: &str = "bench.example";
/// The certificate's chain, its private key, and both together.
pub const CHAIN: &str = "edge.pem";
/// Its private key.
pub const KEY: &str = "edge.key";
const BOTH: &str = "edge.both";
/// How the report calls the requests of a kept connection.
const TLS_H1: &str = "tls h1";
const TLS_H2: &str = "tls h2";
const TLS_H2_MANY: &str = "tls h2 x64";
const TLS_H3: &str = "tls h3";
/// And connections with one request each.
const NEW: &str = "tls new";
const WHOLE: [&str; 2] = ["connections, whole handshake", "whole handshakes per core"];
const RESUMED: [&str; 2] = ["connections, resumed", "resumed per core"];

impl Files {
    /// Writes the certificate that everybody presents.
    fn certificate(&self) -> Result<()> {
        let authority = KeyPair::from_pem(&std::fs::read_to_string(self.path("ca.key"))?)?;
        let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(self.path("ca.pem"))?, authority)?;
        let mut params = CertificateParams::new(vec![HOST.to_owned()])?;
        // A subject like the issuer's would look self-signed.
        params.distinguished_name.push(DnType::CommonName, HOST);
        let key = KeyPair::generate()?;
        let (chain, key) = (params.signed_by(&key, &issuer)?.pem(), key.serialize_pem());
        self.write(CHAIN, &chain)?;
        self.write(KEY, &key)?;
        self.write(BOTH, chain + &key)?;
        Ok(())
    }

    /// A proxy on loopback that ends TLS with that certificate.
    pub fn over_tls(&self, name: &'static str, h1: SocketAddr, h2: SocketAddr, words: Vec<String>) -> Spec {
        let mut spec = one(name, h1, h2, words);
        let fronts = [Some(&mut spec.h1), spec.h2.as_mut()];
        fronts.into_iter().flatten().for_each(|front| front.authority = Some(self.folder().join("ca.pem")));
        spec
    }

    fn nginx_tls(&self) -> Result<Spec> {
        let (h1, h2) = (local(9110), local(9111));
        let (chain, key) = (self.path(CHAIN), self.path(KEY));
        let rest = format!(
            "ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n\
             location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}"
        );
        let servers = format!(
            "upstream backend {{ server {BACKEND}; keepalive 256; keepalive_requests 1000000000; }}\n\
             server {{ listen {h1} ssl backlog=4096; {rest} }}\nserver {{ listen {h2} ssl http2 backlog=4096; {rest} }}"
        );
        Ok(self.over_tls("nginx", h1, h2, self.nginx_with("nginx-tls", &servers)?))
    }

    fn haproxy_tls(&self) -> Result<Spec> {
        let (h1, h2, both) = (local(9120), local(9121), self.path(BOTH));
        let config = format!(
            "global\n  nbthread 1\n  maxconn 8192\n\
             defaults\n  mode http\n  http-reuse always\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n\
             frontend h1\n  bind {h1} ssl crt {both} alpn http/1.1\n  default_backend backend\n\
             frontend h2\n  bind {h2} ssl crt {both} alpn h2\n  default_backend backend-h2\n\
             backend backend\n  server backend {BACKEND}\n\
             backend backend-h2\n  server backend {BACKEND_H2} proto h2\n"
        );
        let path = self.write("haproxy-tls.cfg", config)?;
        Ok(self.over_tls("haproxy", h1, h2, ["haproxy", "-db", "-f", &path].map(str::to_owned).to_vec()))
    }

    fn weft_tls(&self, name: &'static str, program: &Path) -> Result<Spec> {
        let place = if name == "weft" { 9150 } else { 9155 };
        let (h1, h2) = (local(place), local(place + 1));
        let config = GatewayFile {
            listeners: [("h1".to_owned(), h1), ("h2".to_owned(), h2)].into(),
            http3: vec!["h1".to_owned()],
            services: json!({
                "h1": { "endpoints": [BACKEND], "protocol": "http", "routes": [{ "prefix": "/", "backends": { "h1": 1 } }] },
                "h2": { "endpoints": [BACKEND_H2], "protocol": "h2c", "routes": [{ "prefix": "/", "backends": { "h2": 1 } }] },
            }),
            chain: PathBuf::from(self.path(CHAIN)),
            key: PathBuf::from(self.path(KEY)),
        };
        let path = self.write(&format!("{name}-gateway.json"), serde_json::to_vec(&config)?)?;
        let words = vec![program.to_string_lossy().into_owned(), "--serve-gateway".to_owned(), path];
        Ok(self.over_tls(name, h1, h2, words))
    }
}

/// TLS ends at one proxy between client and backend.
///
/// # Errors
/// When the backend or an installed peer doesn't start, or a load generator fails.
pub fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let files = Files::new()?;
    files.certificate()?;
    let _backend = Peer::start(files.backend(weft_testkit::Netns::here(), BACKEND.ip())?, args.load_core)?;
    let mut specs = vec![files.envoy_tls()?, files.nginx_tls()?, files.haproxy_tls()?];
    for (name, program) in args.wefts()? {
        specs.push(files.weft_tls(name, &program)?);
    }
    let peers = start(specs, args, report)?;
    for scenario in [TLS_H1, TLS_H2, TLS_H2_MANY] {
        report.demand(Goal { scenario, metric: PER_CORE, peer: "weft" });
    }
    for round in 1..=args.rounds {
        eprintln!("tls: round {round} of {}", args.rounds);
        if args.measures("requests") {
            for peer in &peers {
                measured(peer, TLS_H1, report, || wrk(&requests(&peer.h1), args.load_core, args.time()))?;
            }
            for (scenario, clients) in [(TLS_H2, BUSY), (TLS_H2_MANY, MANY)] {
                for (peer, front) in peers.iter().filter_map(|peer| Some((peer, peer.h2.as_ref()?))) {
                    measured(peer, scenario, report, || h2load(front, clients, args.load_core, args.time()))?;
                }
            }
        }
        if args.measures("HTTP/3") {
            let authority = std::fs::read(files.path("ca.der"))?;
            for (peer, front) in peers.iter().filter_map(|peer| Some((peer, http3_of(peer)?))) {
                measured(peer, TLS_H3, report, || http3::load(&front, &authority, args.load_core, args.time()))?;
            }
        }
        for (names, sessions) in [(WHOLE, Sessions::Forgotten), (RESUMED, Sessions::Resumed)] {
            for peer in peers.iter().filter(|_| args.measures(names[0])) {
                new_connections(peer, (names, sessions), args, report)?;
            }
        }
    }
    Ok(())
}

/// Where a peer speaks HTTP/3: on UDP, on the port of its HTTP/1.1.
fn http3_of(peer: &Peer) -> Option<Front> {
    ["weft", "weft-before", "envoy"].contains(&peer.name).then(|| peer.h1.clone())
}

/// As many connections as can be had. The client does as much work as the proxy, so that what a core is good for tells more than
/// their rate.
fn new_connections(
    peer: &Peer,
    (names, sessions): ([&str; 2], Sessions),
    args: &Args,
    report: &mut Report,
) -> Result<()> {
    let before = peer.usage()?;
    let rate = connections(&peer.h1, sessions, args.load_core, args.time())?;
    let core = peer.usage()?.cpu - before.cpu;
    let mut note = |name: &str, unit, value| {
        report.add(Metric { scenario: NEW, name, unit }, peer.name, value, rate.failures);
    };
    let [name, per_core] = names;
    note(name, "1/s", rate.per_second);
    note(per_core, "1/s", rate.requests as f64 / core.as_secs_f64());
    note(&format!("CPU of one: {name}"), "us", micros(core) / rate.requests as f64);
    Ok(())
}
