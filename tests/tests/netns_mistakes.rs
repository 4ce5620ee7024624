//! Mistakes in the manifests of a Gateway, with real packets: the status of the object says what is wrong, where, and what to
//! do; what was not edited is served on meanwhile.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode, Version};
use serde_json::Value;
use tokio::sync::watch;
use weft_testkit::clients::{Connection, request};
use weft_testkit::servers::{Server, any, http};
use weft_testkit::{netns_tests, task::Task};
use weft_tests::edge::Certificate;
use weft_tests::{Machine, edge, eventually};

netns_tests! {
    mistakes_say_what_where_and_what_to_do_and_cost_no_neighbour,
    a_secret_that_turns_to_garbage_and_back_costs_its_listener_alone,
    a_port_that_is_taken_costs_its_listener_alone_until_it_is_free,
}

const OBJECTS: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gw, namespace: edge, creationTimestamp: '2026-01-01T00:00:00Z' }
spec:
  gatewayClassName: weft
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: a, port: 443, protocol: HTTPS, hostname: a.example.com, tls: { certificateRefs: [{ name: a }] } }
  - { name: b, port: 443, protocol: HTTPS, hostname: b.example.com, tls: { certificateRefs: [{ name: b }] } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: edge }
spec:
  parentRefs: [{ name: gw }]
  hostnames: [a.example.com, b.example.com]
  rules: [{ backendRefs: [{ name: web, port: 80 }] }]
";

/// A mistake: what is written, whose status tells of it, and what has to be in that.
struct Mistake {
    text: String,
    object: &'static str,
    says: &'static [&'static str],
    /// A host whose requests get this status at port 80 meanwhile.
    answers: Option<(&'static str, StatusCode)>,
}

fn route(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: {name}, namespace: edge }}\nspec: {{ {spec} }}\n"
    )
}

fn gateway(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: {name}, namespace: edge }}\n\
         spec: {{ gatewayClassName: weft, {spec} }}\n"
    )
}

fn mistakes() -> Vec<Mistake> {
    let bad =
        |spec: &str, says, answers| Mistake { text: route("bad", spec), object: "httproute.edge.bad", says, answers };
    let own = "parentRefs: [{ name: gw }], hostnames: [bad.example.com]";
    let to = |backend: &str| format!("{own}, rules: [{{ backendRefs: [{{ {backend} }}] }}]");
    let error = Some(("bad.example.com", StatusCode::INTERNAL_SERVER_ERROR));
    let many = vec!["{ filters: [{ type: Nonsense }] }"; 32 << 10].join(",\n");
    let large = format!("{own}, rules: [{many}]");
    assert!(large.len() > 1 << 20);
    let second = |spec: &str, says| Mistake {
        text: gateway("second", spec),
        object: "gateway.edge.second",
        says,
        answers: None,
    };
    vec![
        bad(
            &to("name: nobody, port: 80"),
            &["BackendNotFound", "rules[0].backendRefs[0].name", "nobody", "create it"],
            error,
        ),
        bad(&to("name: web, port: 81"), &["BackendNotFound", "no port 81", "use one of its ports: 80"], error),
        bad(
            &to("name: web, namespace: vault, port: 80"),
            &["RefNotPermitted", "ReferenceGrant in namespace vault"],
            error,
        ),
        bad(&to("name: web, port: 80, kind: Bucket"), &["InvalidKind", "Bucket"], error),
        bad(&large, &["UnsupportedValue", "spec.rules: 32768 rules", "split it into several"], error),
        bad(
            "parentRefs: [{ name: gw, sectionName: a }], hostnames: [c.example.com]",
            &["NoMatchingListenerHostname", "spec.hostnames", "a.example.com"],
            None,
        ),
        bad(
            "parentRefs: [{ name: gw, sectionName: nobody }]",
            &["NoMatchingParent", "sectionName", "http, a, b"],
            None,
        ),
        bad("parentRefs: [{ name: nowhere }]", &["NoMatchingParent", "Gateway edge/nowhere", "create it"], None),
        second(
            "listeners: [{ name: taken, port: 80, protocol: HTTP }]",
            &["PortUnavailable", "listeners[0].port", "Gateway edge/gw's", "use another port"],
        ),
        second(
            "addresses: [{ value: 172.31.0.1 }], listeners: [{ name: taken, port: 443, protocol: TCP }]",
            &["PortUnavailable", "listeners[0].port", "Gateway edge/gw's"],
        ),
        second(
            "listeners: [{ name: mail, port: 25, protocol: SMTP }, { name: two, port: 81, protocol: HTTP, hostname: 'a.*.b' }]",
            &["UnsupportedProtocol", "SMTP", "listeners[1].hostname"],
        ),
        second(
            "listeners: [{ name: tls, port: 444, protocol: HTTPS, tls: { certificateRefs: [{ name: none }] } }]",
            &["InvalidCertificateRef", "Secret edge/none does not exist", "create it"],
        ),
        second(
            "addresses: [{ type: Hostname, value: a.b }], listeners: [{ name: http, port: 82, protocol: HTTP }]",
            &["UnsupportedAddress", "addresses[0].type", "ask for an IPAddress"],
        ),
    ]
}

/// A machine with a Gateway that nobody makes a mistake in, and a client of it that asks on.
struct Edge {
    machine: Machine,
    certificates: [Certificate; 2],
    folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    neighbour: Task<Result<u64>>,
    _server: Server,
}

impl Edge {
    fn start() -> Result<Self> {
        let manifests = tempfile::tempdir()?;
        let certificates = [Certificate::of("a.example.com")?, Certificate::of("b.example.com")?];
        let [a, b] = &certificates;
        std::fs::write(manifests.path().join("objects.yaml"), OBJECTS.to_owned() + &edge::backend("web", 7001))?;
        std::fs::write(manifests.path().join("secrets.yaml"), a.secret("a") + &b.secret("b"))?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("roots.pem"), a.chain.clone() + &b.chain)?;
        let machine = Machine::start(manifests)?;
        let server = http(machine.outside(), "web", any(7001))?;
        machine.listens(&[80, 443])?;
        let (stop, stopped) = watch::channel(false);
        let at = machine.at(80);
        let neighbour = machine.outside().spawn(async move {
            let mut kept = Connection::open(at, Version::HTTP_11).await?;
            let mut asked = 0;
            while !*stopped.borrow() {
                let mut fresh = Connection::open(at, Version::HTTP_2).await?;
                for connection in [&mut kept, &mut fresh] {
                    let reply = connection.send(request(Method::GET, "/", &[("host", "a.example.com")], "")).await?;
                    ensure!(reply.status == StatusCode::OK, "after {asked} requests: {reply:?}");
                    asked += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(asked)
        });
        Ok(Self { machine, certificates, folder, stop, neighbour, _server: server })
    }

    /// The status of a request at port 80.
    fn ask(&self, host: &str) -> Result<StatusCode> {
        let at = self.machine.at(80);
        self.machine.outside().block_on(async move {
            let mut connection = Connection::open(at, Version::HTTP_11).await?;
            Ok(connection.send(request(Method::GET, "/", &[("host", host)], "")).await?.status)
        })
    }

    /// Whether a request by HTTPS is answered with 200.
    fn is_served(&self, host: &str) -> Result<bool> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "10", "--fail", "--cacert"]).arg(self.folder.path().join("roots.pem"));
        let to = format!("::{}", self.machine.at(443));
        let output = self.machine.outside().output(command.args(["--connect-to", &to, &format!("https://{host}/")]))?;
        Ok(output.status.success())
    }

    /// Waits until a status has all of this in it.
    fn says(&self, object: &str, what: &[&str]) -> Result<()> {
        let mut last = String::new();
        let said = eventually("the status says so", || {
            last = self.machine.status(object)?.map(|status| status.to_string()).unwrap_or_default();
            Ok(what.iter().all(|part| last.contains(part)))
        });
        said.with_context(|| format!("{object}: {what:?} are not all in {last}"))
    }

    /// Nobody's request failed.
    fn end(self) -> Result<()> {
        self.stop.send(true)?;
        let asked = self.neighbour.join()??;
        ensure!(asked > 100, "only {asked} requests");
        Ok(())
    }
}

fn mistakes_say_what_where_and_what_to_do_and_cost_no_neighbour() -> Result<()> {
    let edge = Edge::start()?;
    let file = edge.machine.manifests().join("mistake.yaml");
    for mistake in mistakes() {
        std::fs::write(&file, &mistake.text)?;
        edge.says(mistake.object, mistake.says)?;
        if let Some((host, status)) = mistake.answers {
            eventually("it is answered", || Ok(edge.ask(host)? == status)).with_context(|| mistake.text.clone())?;
        }
        ensure!(edge.is_served("a.example.com")? && edge.is_served("b.example.com")?, "{}", mistake.text);
        std::fs::remove_file(&file)?;
        eventually("its status is gone", || Ok(edge.machine.status(mistake.object)?.is_none()))?;
    }
    // What is no manifest at all changes nothing, and is in the log with its place.
    for (line, text) in [(2, "{{{ not: [yaml"), (1, "kind: HTTPRoute\nspec: 7\n")] {
        let name = format!("broken-{line}.yaml");
        std::fs::write(edge.machine.manifests().join(&name), text)?;
        eventually("the log says so", || Ok(edge.machine.log().contains(&format!("{name}:{line}: error"))))?;
        ensure!(edge.is_served("b.example.com")?, "{text}");
    }
    edge.end()
}

fn a_secret_that_turns_to_garbage_and_back_costs_its_listener_alone() -> Result<()> {
    let edge = Edge::start()?;
    let [a, b] = &edge.certificates;
    let write = |of_b: &Certificate| {
        std::fs::write(edge.machine.manifests().join("secrets.yaml"), a.secret("a") + &of_b.secret("b"))
    };
    ensure!(edge.is_served("a.example.com")? && edge.is_served("b.example.com")?);
    let garbage = Certificate { chain: "Hello world".to_owned(), key: "Hello world".to_owned() };
    let other_key = Certificate { key: a.key.clone(), ..b.clone() };
    for (wrong, why) in [(&garbage, "tls.crt has no certificate"), (&other_key, "tls.key is not the key")] {
        write(wrong)?;
        let field = "spec.listeners[2].tls.certificateRefs[0].name";
        edge.says(
            "gateway.edge.gw",
            &["InvalidCertificateRef", field, "Secret edge/b", why, "put a certificate chain"],
        )?;
        eventually("b is not served", || Ok(!edge.is_served("b.example.com")?))?;
        ensure!(edge.is_served("a.example.com")?, "its neighbour on the same port is");
        write(b)?;
        eventually("b is served again", || edge.is_served("b.example.com"))?;
        ensure!(edge.is_served("a.example.com")?);
    }
    eventually("nothing is wrong any more", || {
        let status = edge.machine.status("gateway.edge.gw")?.map(|status| status.to_string()).unwrap_or_default();
        Ok(!status.contains("InvalidCertificateRef") && status.contains("ResolvedRefs"))
    })?;
    edge.end()
}

/// `Programmed` of the Gateway, and of each of its listeners by name: the reason, and whether it is.
fn programmed(edge: &Edge) -> Result<Vec<(String, String, bool)>> {
    let file = edge.machine.status("gateway.edge.gw")?.context("no status")?;
    let status = &file["status"];
    let listeners = status["listeners"].as_array().context("no listeners")?;
    let of = |of: &Value| {
        let conditions = of["conditions"].as_array().context("no conditions")?;
        let found = conditions.iter().find(|it| it["type"] == "Programmed").context("not said")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&of["name"]), text(&found["reason"]), found["status"] == "True"))
    };
    [status].into_iter().chain(listeners).map(of).collect()
}

fn a_port_that_is_taken_costs_its_listener_alone_until_it_is_free() -> Result<()> {
    let edge = Edge::start()?;
    eventually("all of it is Programmed", || Ok(programmed(&edge)?.iter().all(|(_, _, is)| *is)))?;
    let other = edge.machine.inside().run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)))?;
    let file = edge.machine.manifests().join("objects.yaml");
    let http = "  - { name: http, port: 80, protocol: HTTP }\n";
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace(http, &format!("{http}  - {{ name: more, port: 8081, protocol: HTTP }}\n")))?;
    let why = "*:8081 can't be listened on: ";
    edge.says("gateway.edge.gw", &["RefusedByProxy", &format!("listener more: {why}"), "os error 98"])?;
    for (name, reason, is) in programmed(&edge)? {
        let wanted = if name == "more" { ("RefusedByProxy", false) } else { ("Programmed", true) };
        ensure!((reason.as_str(), is) == wanted, "{name:?}: {reason} {is}");
    }
    let state = |name: &str| -> Result<Value> {
        let shown = edge.machine.shown()?;
        let all = shown["listeners"].as_array().context("no listeners")?;
        let found = all.iter().find(|it| it["name"] == format!("edge/gw/{name}")).context("no such listener")?;
        Ok(found.clone())
    };
    let refused = state("more")?;
    ensure!(
        refused["state"] == "refused" && refused["why"].as_str().is_some_and(|it| it.starts_with(why)),
        "{refused}"
    );
    ensure!(state("http")?["state"] == "bound" && edge.is_served("a.example.com")?, "its neighbours are served");

    drop(other);
    eventually("it is Programmed when the port is free", || Ok(programmed(&edge)?.iter().all(|(_, _, is)| *is)))?;
    ensure!(state("more")?["state"] == "bound");
    edge.machine.listens(&[8081])?;
    edge.end()
}
