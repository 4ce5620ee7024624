//! An hour of everything that changes in a cluster, and processes that are none the larger for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weft_tests::cluster::{
    Cluster, Mix, Outcome, PATIENCE, Process, Quantity, SYSTEM, Samples, eventually, failures, served,
};

use crate::gateway::{self, Edge};
use crate::meshed::Meshed;

/// Between two looks at all processes; longer where the soak is longer, so that there are some hundreds.
const BETWEEN: Duration = Duration::from_secs(15);

/// How long the load of each kind goes on before its outcomes are looked at.
const PART: usize = 120;

/// Which share of the time is left to what fills up at first: pools, caches, allocators.
const WARM: f64 = 0.2;

/// Parts of the mesh and the ports at which they count.
const PARTS: [(&str, u16); 4] =
    [("weft-node-proxy", 15021), ("weft-agent", 15024), ("weft-controller", 15014), ("weft-ca", 15014)];

/// What goes on all the time: its name, the pause after each turn, and a turn.
type Kind = (&'static str, Duration, fn(&Soak, usize) -> Result<()>);

const KINDS: [Kind; 5] = [
    ("of load", Duration::ZERO, Soak::requests),
    ("of load through the Gateway", Duration::ZERO, Soak::through_the_gateway),
    ("of pods", Duration::from_secs(2), Soak::pods),
    ("of routes", Duration::from_secs(2), Soak::routes),
    ("of certificates", Duration::from_secs(20), Soak::certificates),
];

/// As `WEFT_SOAK_SECONDS` says; a day are 86400.
fn lasts() -> Duration {
    let seconds = std::env::var("WEFT_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3600))
}

/// What soaks: until when, and whether something went wrong, with which everything ends.
struct Soak {
    meshed: Meshed,
    edge: Edge,
    begin: Instant,
    failed: AtomicBool,
}

impl Soak {
    fn goes_on(&self) -> bool {
        self.begin.elapsed() < lasts() && !self.failed.load(Ordering::Relaxed)
    }

    /// Does something again and again until the end; how often.
    fn turns(&self, pause: Duration, work: impl Fn(usize) -> Result<()>) -> Result<usize> {
        let mut turn = 0;
        while self.goes_on() {
            work(turn).inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            turn += 1;
            std::thread::sleep(pause);
        }
        Ok(turn)
    }

    /// Requests, each second time on connections that are kept, to pods that come and go.
    fn requests(&self, turn: usize) -> Result<()> {
        let name = if turn.is_multiple_of(2) { "fresh" } else { "kept" };
        let mix = Mix { name, seconds: PART, keep: name == "kept", ..self.meshed.requests() };
        answered(&self.meshed.ns.mix("server", &mix)?.outcomes()?)
    }

    /// Requests from outside through the Gateway.
    fn through_the_gateway(&self, _: usize) -> Result<()> {
        let url = format!("http://{}/", self.edge.address);
        answered(&self.edge.outside.load(&url, PART * 20, 20, None)?.outcomes()?)
    }

    /// Pods: a rollout of the server, a crowd that grows and shrinks, and somebody whom nobody has seen before.
    fn pods(&self, turn: usize) -> Result<()> {
        let ns = &self.meshed.ns;
        let in_ns = ["-n", &ns.name];
        if turn.is_multiple_of(4) {
            ns.cluster.k(&[&in_ns[..], &["rollout", "restart", "deploy/server"]].concat())?;
            ns.cluster.wait_rollout(&ns.name, "deploy/server")?;
        }
        let replicas = format!("--replicas={}", 1 + turn % 3 * 2);
        ns.cluster.k(&[&in_ns[..], &["scale", "deploy/crowd", &replicas]].concat())?;
        ns.cluster.wait_rollout(&ns.name, "deploy/crowd")?;
        let account = format!("visitor-{turn}");
        ns.cluster.k(&[&in_ns[..], &["create", "serviceaccount", &account]].concat())?;
        let visit = Mix { name: &account, account: &account, seconds: 5, per_second: 4, ..Mix::default() };
        let outcomes = ns.mix("server", &visit)?.outcomes();
        ns.cluster.k(&[&in_ns[..], &["delete", "serviceaccount", &account]].concat())?;
        answered(&outcomes?)
    }

    /// Routes and policies: one that is edited, one that comes and goes.
    fn routes(&self, turn: usize) -> Result<()> {
        let ns = &self.meshed.ns;
        let route = |name: &str, path: &str| {
            format!(
                r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: "@NS@" }}
spec:
  parentRefs: [{{ group: "", kind: Service, name: server, port: 80 }}]
  rules:
  - matches: [{{ path: {{ type: PathPrefix, value: "{path}" }} }}]
    filters: [{{ type: ResponseHeaderModifier, responseHeaderModifier: {{ set: [{{ name: x-turn, value: "{turn}" }}] }} }}]
    backendRefs: [{{ name: server, port: 80, weight: {} }}, {{ name: crowd, port: 80, weight: 1 }}]
"#,
                1 + turn % 5
            )
        };
        ns.apply(&route("edited", "/"))?;
        let passing = format!("passing-{}", turn % 7);
        if turn.is_multiple_of(2) {
            ns.apply(&route(&passing, &format!("/{passing}")))?;
            // Not for those whose connections are held open: connections of bytes begin anew when paths are to be looked at.
            ns.apply(&format!(
                r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {{"name": "{passing}", "namespace": "@NS@"}},
                "spec": {{"targetRefs": [{{"kind": "Pod", "selector": {{"matchLabels": {{"app": "server"}}}}}}], "action": "DENY", "rules": [{{"to": [{{"paths": ["/forbidden-{turn}"]}}]}}]}}}}"#
            ))
        } else {
            let all = ["httproutes,authorizationpolicies", "--field-selector=metadata.name!=edited"];
            ns.cluster.k(&[&["-n", &ns.name, "delete"], &all[..]].concat()).map(drop)
        }
    }

    /// The Gateway's certificate, and a listener that comes and goes.
    fn certificates(&self, turn: usize) -> Result<()> {
        let inside = &self.edge.inside;
        let pair = rcgen::generate_simple_self_signed(vec!["site.example".to_owned()])?;
        inside.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {{"name": "site", "namespace": "@NS@"}},
            "stringData": {{"tls.crt": {}, "tls.key": {}}}}}"#,
            serde_json::Value::from(pair.cert.pem()),
            serde_json::Value::from(pair.signing_key.serialize_pem()),
        ))?;
        let https = r#", {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "site.example", "tls": {"certificateRefs": [{"name": "site"}]}}"#;
        let more = r#", {"name": "more", "port": 8080, "protocol": "HTTP"}"#;
        let listeners = if turn.is_multiple_of(2) { format!("{https}{more}") } else { https.to_owned() };
        inside.apply(&gateway::gateway(&listeners))?;
        gateway::address(inside)?;
        let url = format!("https://{}/", self.edge.address);
        let args = ["-H", "Host: site.example", "--insecure-skip-verify", "--server-name=site.example", "--timeout=5s"];
        eventually("HTTPS", PATIENCE, || {
            let answers = self.edge.outside.ask("client", &[&[url.as_str(), "--count=5"], &args[..]].concat())?;
            ensure!(answers.with_status(200) == 5, "{:?} {}", answers.list.first(), answers.error);
            Ok(())
        })
    }

    /// What the processes take, noted until the end.
    fn watch(&self, watched: &[Watched], samples: &mut Samples) -> Result<()> {
        let cluster = self.meshed.cluster();
        let between = BETWEEN.max(lasts() / 480);
        while self.goes_on() {
            let at = self.begin.elapsed().as_secs_f64();
            let mut series: BTreeMap<&str, u32> = BTreeMap::new();
            for one in watched {
                for (what, value) in one.process.usage()? {
                    samples.note(&format!("{} {}", one.part, one.short), what, at, value);
                }
                let page = cluster.metrics(&one.namespace, &one.pod, one.port)?;
                let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
                *series.entry(&one.part).or_default() += u32::try_from(lines.count())?;
            }
            // Of all pods of a part: series follow the pods that they are about, which move from node to node.
            for (part, count) in series {
                samples.note(part, Quantity::Series, at, f64::from(count));
            }
            std::thread::sleep(between);
        }
        Ok(())
    }
}

/// Every one has to be answered with 200; how long it took is for tests that have the machine for themselves.
fn answered(outcomes: &[Outcome]) -> Result<()> {
    let bad = failures(outcomes);
    ensure!(bad.is_empty(), "of {}, by the second they began in: {bad:?}", outcomes.len());
    Ok(())
}

/// A process, and where its pod counts.
struct Watched {
    part: String,
    /// The end of its pod's name.
    short: String,
    namespace: String,
    pod: String,
    port: u16,
    process: Process,
}

/// One for each of some pods, which share a program, on nodes that have one of them each.
fn pods(cluster: &Cluster, namespace: &str, label: &str, (part, port): (&str, u16)) -> Result<Vec<Watched>> {
    let list = cluster.json(&["-n", namespace, "pods", "-l", label])?;
    let mut all = Vec::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (name, node) = (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        let process = cluster.process_of(&node, &text(&pod["metadata"]["uid"]), part)?;
        let part = label.rsplit_once('=').map_or(label, |(_, value)| value);
        all.push(Watched {
            part: part.to_owned(),
            short: name[name.len().saturating_sub(5)..].to_owned(),
            namespace: namespace.to_owned(),
            pod: name,
            port,
            process,
        });
    }
    ensure!(!all.is_empty(), "no pods with {label}");
    Ok(all)
}

fn watched(soak: &Soak) -> Result<Vec<Watched>> {
    let cluster = soak.meshed.cluster();
    let mut all = Vec::new();
    for (part, port) in PARTS {
        all.extend(pods(cluster, SYSTEM, &format!("app.kubernetes.io/name={part}"), (part, port))?);
    }
    all.extend(pods(cluster, &soak.edge.inside.name, gateway::LABEL, ("weft-node-proxy", 15021))?);
    Ok(all)
}

/// Pods, identities, routes, policies, listeners, certificates and connections come and go; no request fails, what is held open
/// for all of the time is never broken, no process is started again, and none grows.
#[test]
#[ignore = "needs a cluster"]
fn an_hour_of_churn_costs_no_request_and_leaves_every_process_as_it_was() -> Result<()> {
    let meshed = Meshed::with("t-soak", &served("server", 2, None, ""))?;
    if !meshed.cluster().has_nodes() {
        eprintln!("not run: processes of this cluster can't be looked at");
        return Ok(());
    }
    meshed.ns.apply(&served("steady", 1, Some("node2"), ""))?;
    meshed.ns.apply(&served("crowd", 1, None, ""))?;
    for workload in ["deploy/steady", "deploy/crowd"] {
        meshed.cluster().wait_rollout(&meshed.ns.name, workload)?;
    }
    let edge = gateway::edge("t-soak-edge")?;
    gateway::route(&edge.inside, "all", r#""rules": [{"backendRefs": [{"name": "server", "port": 80}]}]"#)?;
    let url = format!("http://{}/", edge.address);
    eventually("the Gateway", PATIENCE, || edge.outside.served("client", &url, 20))?;

    let soak = Soak { meshed, edge, begin: Instant::now(), failed: AtomicBool::new(false) };
    let watched = watched(&soak)?;
    let seconds = usize::try_from(lasts().as_secs())?;
    // Few enough requests for one log.
    let per_second = (20_000 / seconds.max(1)).clamp(1, 20);
    let held =
        Mix { name: "held", seconds, per_second, keep: true, streams: 10, connections: 20, ..soak.meshed.requests() };
    let held = soak.meshed.ns.mix("steady", &held)?;
    let mut samples = Samples::default();
    std::thread::scope(|scope| {
        let kinds = KINDS.map(|(name, pause, work)| {
            let soak = &soak;
            (name, scope.spawn(move || soak.turns(pause, |turn| work(soak, turn))))
        });
        let seen = soak.watch(&watched, &mut samples);
        soak.failed.fetch_or(seen.is_err(), Ordering::Relaxed);
        for (name, thread) in kinds {
            let turns = thread.join().map_err(|_| anyhow::anyhow!("{name}: a panic"))?;
            eprintln!("{} turns {name}", turns.with_context(|| name.to_owned())?);
        }
        seen
    })?;
    let flat = samples.flat(lasts().as_secs_f64() * WARM);
    eprintln!("{}", flat.as_ref().map_or_else(ToString::to_string, Clone::clone));
    let outcomes = held.outcomes()?;
    answered(&outcomes).context("what was held open")?;
    eprintln!("{} held open or sent beside them", outcomes.len());
    flat?;
    for (part, _) in PARTS {
        soak.meshed.cluster().never_restarted(part)?;
    }
    soak.meshed.is_strict()
}
