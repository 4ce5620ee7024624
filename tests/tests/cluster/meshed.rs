//! What the tests of outages and upgrades have in common: clients and what answers them in Strict, each on a node of its own,
//! and somebody outside who must never be served.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::cluster::{
    Cluster, Echo, Load, Mix, Outcome, PATIENCE, STRICT, SYSTEM, TestNamespace, eventually, failures, served,
};

/// Within which time traffic has to be back after a proxy has started, in seconds.
const BACK: f64 = 2.0;

/// `client` on node1 and `server` on node2, and a client that isn't in the mesh.
pub(crate) struct Meshed {
    pub(crate) ns: TestNamespace,
    outside: TestNamespace,
}

impl Meshed {
    /// One whose first requests are answered.
    pub(crate) fn open(name: &str) -> Result<Self> {
        Self::with(name, &served("server", 1, Some("node2"), ""))
    }

    /// The same with another Deployment and Service `server`.
    pub(crate) fn with(name: &str, server: &str) -> Result<Self> {
        let ns = Cluster::open()?.namespace(name, true)?;
        let outside = ns.cluster.namespace(&format!("{name}-outside"), false)?;
        ns.apply(STRICT)?;
        ns.apply(server)?;
        outside.run(&[Echo::new("client").on("node1")])?;
        ns.run(&[Echo::new("client").on("node1")])?;
        ns.cluster.wait_rollout(name, "deploy/server")?;
        let it = Self { ns, outside };
        it.is_back()?;
        Ok(it)
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.ns.cluster
    }

    /// Load of all kinds from the client's node.
    pub(crate) fn load(&self, seconds: u64) -> Result<Load<'_>> {
        let seconds = usize::try_from(seconds)?;
        let mix = Mix { seconds, per_second: 100, keep: true, streams: 5, connections: 10, ..self.requests() };
        self.ns.mix("server", &mix)
    }

    /// Requests alone, each on a connection of its own.
    pub(crate) fn requests(&self) -> Mix<'_> {
        Mix { on: Some("node1"), seconds: 40, per_second: 50, ..Mix::default() }
    }

    /// Nobody outside is served.
    pub(crate) fn is_strict(&self) -> Result<()> {
        self.outside.refused("client", &format!("http://server.{}/", self.ns.name))
    }

    /// Somebody outside is served.
    pub(crate) fn is_open(&self) -> Result<()> {
        self.outside.served("client", &format!("http://server.{}/", self.ns.name), 20)
    }

    /// Traffic flows in the end, and for nobody outside.
    pub(crate) fn is_back(&self) -> Result<()> {
        eventually("traffic", PATIENCE, || self.ns.served("client", "http://server/", 40))?;
        self.is_strict()
    }

    /// The server's pod, to see that it is still the same one and was never restarted.
    pub(crate) fn incarnation(&self) -> Result<String> {
        let (pod, ..) = self.ns.pod("server")?;
        let pod = self.cluster().json(&["-n", &self.ns.name, &format!("pod/{pod}")])?;
        Ok(format!("{} {}", pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]))
    }

    /// What is new takes effect.
    pub(crate) fn takes_news(&self) -> Result<()> {
        self.ns.apply(&weft_tests::cluster::echo_service("late"))?;
        self.ns.run(&[Echo::new("late").on("node2")])?;
        eventually("the late pod", PATIENCE, || self.ns.served("client", "http://late/", 20))
    }
}

/// The mesh's own pods on every node made anew, so that the kubelet starts what crashes in them at once.
pub(crate) fn fresh_parts(cluster: &Cluster) -> Result<()> {
    for part in ["daemonset/weft-agent", "daemonset/weft-node-proxy"] {
        cluster.k(&["-n", SYSTEM, "rollout", "restart", part])?;
        cluster.wait_rollout(SYSTEM, part)?;
    }
    Ok(())
}

/// Breaks things on nodes; afterwards the mesh's pods are made anew, since other tests look at how often they were started.
pub(crate) fn breaking(meshed: &Meshed, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if !meshed.cluster().has_nodes() {
        eprintln!("not run: the nodes of this cluster can't be reached");
        return Ok(());
    }
    fresh_parts(meshed.cluster())?;
    let outcome = work();
    fresh_parts(meshed.cluster())?;
    outcome?;
    meshed.is_back()
}

/// Whether nothing failed but what was under way when something was killed or began before it was back, both in seconds
/// since 1970. How many that were.
pub(crate) fn failed_only_between(outcomes: &[Outcome], killed: f64, started: f64) -> Result<usize> {
    let back = started + BACK;
    let is_excused = |o: &&Outcome| o.clock + o.took / 1000.0 >= killed && o.clock <= back;
    let (excused, rest): (Vec<_>, Vec<_>) = outcomes.iter().partition(is_excused);
    let rest: Vec<Outcome> = rest.into_iter().cloned().collect();
    let bad = failures(&rest);
    ensure!(bad.is_empty(), "outside of {:.1} s of a crash, by the second they began in: {bad:?}", back - killed);
    ensure!(rest.iter().any(|o| o.clock > back), "the load was over before it was back");
    Ok(excused.iter().filter(|o| o.status != "200").count())
}

/// How long parts of the control plane are away, as `WEFT_OUTAGE_SECONDS` says; ten minutes are what the manual promises.
pub(crate) fn outage() -> Duration {
    let seconds = std::env::var("WEFT_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// Seconds since 1970.
pub(crate) fn clock() -> Result<f64> {
    Ok(std::time::UNIX_EPOCH.elapsed()?.as_secs_f64())
}
