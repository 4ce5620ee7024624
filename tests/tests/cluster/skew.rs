//! Versions side by side: proxies and agents of an older one with the control plane of now, and the other way round.
//!
//! `make skew` brings the older version's images and its chart; pods are what that chart makes of them, so that each program
//! gets the arguments that its own version has.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};
use weft_tests::cluster::{Cluster, Echo, Load, Mix, PATIENCE, SYSTEM, eventually};

use crate::meshed::Meshed;

/// The older version's chart.
const CHART: &str = "WEFT_OLDER_CHART";
/// The tag of its images.
const TAG: &str = "WEFT_OLDER_TAG";

const CONTROL: [&str; 2] = ["deployment/weft-ca", "deployment/weft-controller"];
const DATA: [&str; 2] = ["daemonset/weft-agent", "daemonset/weft-node-proxy"];

/// What the pods of each workload of the mesh are, by its name.
#[derive(Debug)]
struct Version(Vec<(&'static str, Value)>);

impl Version {
    /// The one that is installed.
    fn of_now(cluster: &Cluster) -> Result<Self> {
        let spec = |workload| {
            let object = cluster.json(&["-n", SYSTEM, workload])?;
            Ok((workload, object["spec"]["template"]["spec"].clone()))
        };
        CONTROL.into_iter().chain(DATA).map(spec).collect::<Result<_>>().map(Self)
    }

    /// As another chart has it.
    fn of_chart(cluster: &Cluster, chart: &str, tag: &str) -> Result<Self> {
        let image = format!("--set=image.tag={tag}");
        let rendered = cluster.helm(&["template", "weft", chart, "-n", SYSTEM, &image])?;
        let objects = serde_norway::Deserializer::from_str(&rendered).map(Value::deserialize);
        let objects = objects.collect::<Result<Vec<_>, _>>().context(rendered.clone())?;
        let spec = |workload: &'static str| {
            let is_it = |object: &&Value| {
                let (kind, name) = (object["kind"].as_str(), object["metadata"]["name"].as_str());
                format!("{}/{}", kind.unwrap_or_default().to_lowercase(), name.unwrap_or_default()) == workload
            };
            let object = objects.iter().find(is_it).with_context(|| format!("{workload} in {chart}"))?;
            Ok((workload, object["spec"]["template"]["spec"].clone()))
        };
        CONTROL.into_iter().chain(DATA).map(spec).collect::<Result<_>>().map(Self)
    }

    /// Puts these workloads in the place of those of another version, and waits until they are there.
    fn replace(&self, cluster: &Cluster, workloads: [&str; 2]) -> Result<()> {
        for workload in workloads {
            let (_, spec) = self.0.iter().find(|(name, _)| *name == workload).context("a workload of the mesh")?;
            let patch = json!([{"op": "replace", "path": "/spec/template/spec", "value": spec}]).to_string();
            cluster.k(&["-n", SYSTEM, "patch", workload, "--type=json", "-p", &patch])?;
        }
        workloads.into_iter().try_for_each(|workload| cluster.wait_rollout(SYSTEM, workload))
    }
}

/// A Strict namespace with a route of its Service, a policy, and a Gateway in front of it.
struct Site {
    meshed: Meshed,
    /// How often something was changed.
    round: usize,
}

impl Site {
    fn open() -> Result<Self> {
        let meshed = Meshed::open("t-skew")?;
        meshed.ns.apply(
            r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge", "namespace": "@NS@"},
            "spec": {"gatewayClassName": "weft", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}"#,
        )?;
        meshed.ns.apply(
            r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "edge", "namespace": "@NS@"},
            "spec": {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [{"name": "server", "port": 80}]}]}}"#,
        )?;
        eventually("the Gateway", 2 * PATIENCE, || meshed.ns.served("client", "http://edge-weft/", 20))?;
        Ok(Self { meshed, round: 0 })
    }

    fn cluster(&self) -> &Cluster {
        self.meshed.cluster()
    }

    /// Changes what a route adds, what a policy forbids and which pods there are, and waits until that is so: at the client's
    /// proxy, at the server's, at the Gateway and at the agent.
    fn works(&mut self, with: &str) -> Result<()> {
        eprintln!("{with}");
        self.round += 1;
        let (round, ns) = (self.round, &self.meshed.ns);
        ns.apply(&format!(
            r#"{{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {{"name": "marked", "namespace": "@NS@"}},
            "spec": {{"parentRefs": [{{"group": "", "kind": "Service", "name": "server", "port": 80}}, {{"name": "edge"}}], "rules": [{{
            "matches": [{{"path": {{"type": "PathPrefix", "value": "/marked"}}}}], "filters": [{{"type": "ResponseHeaderModifier",
            "responseHeaderModifier": {{"set": [{{"name": "x-round", "value": "{round}"}}]}}}}],
            "backendRefs": [{{"name": "server", "port": 80}}]}}, {{"backendRefs": [{{"name": "server", "port": 80}}]}}]}}}}"#,
        ))?;
        ns.apply(&format!(
            r#"{{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {{"name": "not", "namespace": "@NS@"}},
            "spec": {{"action": "DENY", "rules": [{{"to": [{{"paths": ["/not-{round}"], "ports": [8080]}}]}}]}}}}"#,
        ))?;
        let late = format!("late-{round}");
        ns.apply(&weft_tests::cluster::echo_service(&late))?;
        ns.run(&[Echo::new(&late).on("node2")])?;
        for host in ["server", "edge-weft"] {
            eventually(&format!("{with}: the route of {host}"), PATIENCE, || self.marked(host))?;
            let url = format!("http://{host}/not-{round}");
            eventually(&format!("{with}: the policy at {host}"), PATIENCE, || {
                ns.ask("client", &[&url, "--count=20", "--timeout=5s"])?.all(20, 403)
            })?;
            ns.served("client", &format!("http://{host}/not-{}", round + 1), 20).context(with.to_owned())?;
        }
        eventually(&format!("{with}: a pod that is new"), PATIENCE, || {
            ns.served("client", &format!("http://{late}/"), 20)
        })?;
        self.meshed.is_strict().context(with.to_owned())
    }

    /// Whether all answers have what the route adds in this round.
    fn marked(&self, host: &str) -> Result<()> {
        let args = [&format!("http://{host}/marked"), "--count=20", "--timeout=5s"];
        let answers = self.meshed.ns.ask("client", &args)?;
        answers.all(20, 200)?;
        let mark = format!("x-round:{}", self.round);
        let is_marked = |headers: &[String]| headers.iter().any(|header| header.eq_ignore_ascii_case(&mark));
        let found = answers.list.iter().filter(|answer| is_marked(&answer.response)).count();
        ensure!(found == 20, "{found} of 20 have {mark}");
        Ok(())
    }

    /// Goes over to another version of some workloads under load of all kinds, through the Gateway, too: nothing fails.
    fn switch(&self, to: &Version, workloads: [&str; 2]) -> Result<()> {
        let mix =
            Mix { seconds: 120, per_second: 100, keep: true, streams: 5, connections: 10, ..self.meshed.requests() };
        let inside = self.meshed.ns.mix("server", &mix)?;
        let through = Mix { name: "through", streams: 0, connections: 0, per_second: 50, keep: false, ..mix };
        let through = self.meshed.ns.mix("edge-weft", &through)?;
        to.replace(self.cluster(), workloads)?;
        // The controller's pods are of another version, and so are those of its Gateways soon.
        eventually("the Gateway's pods", PATIENCE, || self.gateway_follows())?;
        self.cluster().wait_rollout(&self.meshed.ns.name, "deployment/edge-weft")?;
        [inside, through].into_iter().try_for_each(|load: Load<'_>| {
            load.goes_on()?;
            load.all_answered()
        })
    }

    /// Whether the Gateway's pods are of the controller's version.
    fn gateway_follows(&self) -> Result<()> {
        let controller = self.cluster().json(&["-n", SYSTEM, "deployment/weft-controller"])?;
        let arguments = &controller["spec"]["template"]["spec"]["containers"][0]["args"];
        let mut arguments = arguments.as_array().into_iter().flatten().filter_map(Value::as_str);
        let image = arguments.find_map(|text| text.strip_prefix("--gateway-image=")).context("no image")?;
        let gateway = self.cluster().json(&["-n", &self.meshed.ns.name, "deployment/edge-weft"])?;
        let has = &gateway["spec"]["template"]["spec"]["containers"][0]["image"];
        ensure!(has == image, "it has {has}, not {image}");
        Ok(())
    }
}

#[test]
#[ignore = "needs a cluster and another version"]
fn an_older_version_works_beside_this_one_in_the_data_plane_and_in_the_control_plane() -> Result<()> {
    let (Some(chart), Ok(tag)) = (std::env::var_os(CHART).map(PathBuf::from), std::env::var(TAG)) else {
        eprintln!("not run: `make skew` brings an older version");
        return Ok(());
    };
    let mut site = Site::open()?;
    let cluster = site.cluster().clone();
    let now = Version::of_now(&cluster)?;
    let older = Version::of_chart(&cluster, &chart.display().to_string(), &tag)?;
    let outcome = (|| {
        site.works("one version")?;
        site.switch(&older, DATA)?;
        site.works("older agents and proxies with the controller and authority of now")?;
        site.switch(&now, DATA)?;
        site.switch(&older, CONTROL)?;
        site.works("an older controller and authority with the agents and proxies of now")?;
        site.switch(&now, CONTROL)?;
        site.works("one version again")
    })();
    // Whatever happened: what is installed is what helm thinks it is.
    now.replace(&cluster, CONTROL)?;
    now.replace(&cluster, DATA)?;
    outcome
}
