//! What `weft check` says of a real cluster, and that kubectl shows the same.

use anyhow::{Result, ensure};
use weft_tests::cluster::{Cluster, Echo, PATIENCE, TestNamespace, echo_service, eventually};

const SYSTEM: &str = "weft-system";

/// Something that is broken until the value goes.
struct Fault {
    cluster: Cluster,
    undo: Vec<String>,
}

impl Fault {
    /// `undo` is what kubectl has to do.
    fn new(cluster: &Cluster, undo: &[&str]) -> Self {
        Self { cluster: cluster.clone(), undo: undo.iter().map(|&word| word.to_owned()).collect() }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let undo: Vec<_> = self.undo.iter().map(String::as_str).collect();
        if let Err(error) = self.cluster.k(&undo) {
            eprintln!("a fault of this test stays: {error:#}");
        }
    }
}

/// What `weft check` ends with and says.
fn check(cluster: &Cluster) -> Result<(Option<i32>, String)> {
    let output = cluster.weft(&["check"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said))
}

fn healthy(cluster: &Cluster) -> Result<()> {
    eventually("a healthy cluster", PATIENCE, || {
        let (code, said) = check(cluster)?;
        ensure!(code == Some(0), "{code:?}\n{said}");
        Ok(())
    })
}

/// Waits until `weft check` ends so and says all of this, a finding and then what to do, and kubectl says all of that.
fn is_named(cluster: &Cluster, ends: i32, says: &[&str], kubectl: &[&str], shows: &[&str]) -> Result<()> {
    eventually(&format!("weft check to say {says:?}"), PATIENCE, || {
        let (code, said) = check(cluster)?;
        ensure!(code == Some(ends) && says.iter().all(|part| said.contains(part)), "{code:?}\n{said}");
        Ok(())
    })?;
    eventually(&format!("kubectl {} to show {shows:?}", kubectl.join(" ")), PATIENCE, || {
        let said = cluster.k(kubectl)?;
        // Columns differ in width with what is in them.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(shows.iter().all(|part| said.contains(part)), "{said}");
        Ok(())
    })
}

fn a_route_to_nowhere(ns: &TestNamespace) -> Result<()> {
    let fault = Fault::new(&ns.cluster, &["-n", &ns.name, "delete", "httproute", "lost"]);
    ns.apply(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: lost, namespace: "@NS@" }
spec:
  parentRefs: [{ group: "", kind: Service, name: server }]
  rules: [{ backendRefs: [{ name: nowhere, port: 80 }] }]
"#,
    )?;
    let says = [
        "error HTTPRoute t-check/lost: ResolvedRefs=False, BackendNotFound: ",
        "to do: mend it (kubectl -n t-check get httproute lost -o yaml)",
    ];
    let describe = ["-n", &ns.name, "describe", "httproute", "lost"];
    is_named(&fault.cluster, 1, &says, &describe, &["Reason: BackendNotFound Status: False Type: ResolvedRefs"])
}

fn a_policy_that_keeps_tunnels_out(ns: &TestNamespace) -> Result<()> {
    let fault = Fault::new(&ns.cluster, &["-n", &ns.name, "delete", "networkpolicy", "narrow"]);
    ns.apply(
        r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: narrow, namespace: "@NS@" }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress]
  ingress: [{ ports: [{ protocol: TCP, port: 8080 }] }]
"#,
    )?;
    let says = [
        "error NetworkPolicy t-check/narrow: it lets some ports in to server-",
        "to do: add port 15008 to spec.ingress[0].ports",
        "kubectl -n t-check patch networkpolicy narrow",
    ];
    let describe = ["-n", &ns.name, "describe", "networkpolicy", "narrow"];
    let shows = ["PodSelector: app=server", "Allowing ingress traffic: To Port: 8080/TCP From:"];
    is_named(&fault.cluster, 1, &says, &describe, &shows)?;
    // What it says to do is what helps.
    let (_, said) = check(&ns.cluster)?;
    let patch = said.lines().find_map(|line| line.trim().strip_prefix("kubectl -n t-check patch networkpolicy narrow"));
    let patch = patch.and_then(|rest| rest.strip_prefix(" --type=json -p '")?.strip_suffix('\''));
    ensure!(patch.is_some(), "{said}");
    let patch = patch.unwrap_or_default();
    ns.cluster.k(&["-n", &ns.name, "patch", "networkpolicy", "narrow", "--type=json", "-p", patch])?;
    healthy(&ns.cluster)
}

fn proxies_that_no_node_takes(cluster: &Cluster) -> Result<()> {
    let patch = |value: &str| {
        format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"weftmesh.io/test":{value}}}}}}}}}}}"#)
    };
    let patching = |value: &str| {
        let words = ["-n", SYSTEM, "patch", "daemonset", "weft-node-proxy", "--type=merge", "-p"];
        words.into_iter().map(str::to_owned).chain([patch(value)]).collect::<Vec<_>>()
    };
    let fault = Fault { cluster: cluster.clone(), undo: patching("null") };
    let pin = patching("\"nowhere\"");
    cluster.k(&pin.iter().map(String::as_str).collect::<Vec<_>>())?;
    let says = [
        "error DaemonSet weft-system/weft-node-proxy: it is to have no pods",
        "to do: see its replicas, nodeSelector and tolerations",
    ];
    let describe = ["-n", SYSTEM, "describe", "daemonset", "weft-node-proxy"];
    let shows = ["Desired Number of Nodes Scheduled: 0", "weftmesh.io/test=nowhere"];
    is_named(&fault.cluster, 1, &says, &describe, &shows)
}

/// Nothing is broken by it, so that it ends with 0.
fn a_pod_with_another_proxy(ns: &TestNamespace) -> Result<()> {
    let _fault = Fault::new(&ns.cluster, &["-n", &ns.name, "delete", "deployment", "old"]);
    let sidecar = r#""initContainers": [{"name": "istio-proxy", "image": "localhost/echo:1", "restartPolicy": "Always", "args": ["--port=1", "--grpc=2", "--tcp=3"]}]"#;
    ns.run(&[Echo { spec: sidecar, ..Echo::new("old") }])?;
    let (pod, ..) = ns.pod("old")?;
    let says =
        [&format!("note Pod t-check/{pod}: it isn't in the mesh: "), "to do: label it weftmesh.io/mesh=disabled"];
    is_named(&ns.cluster, 0, &says, &["-n", &ns.name, "describe", "pod", &pod], &["NotEnrolled"])
}

#[test]
#[ignore = "needs a cluster"]
fn faults_are_named_with_what_to_do_and_kubectl_shows_them_too() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-check", true)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server"), Echo::new("client")])?;
    healthy(&cluster)?;
    a_route_to_nowhere(&ns)?;
    healthy(&cluster)?;
    a_policy_that_keeps_tunnels_out(&ns)?;
    healthy(&cluster)?;
    a_pod_with_another_proxy(&ns)?;
    let outcome = proxies_that_no_node_takes(&cluster);
    // Whatever happened: the next test needs them.
    cluster.wait_rollout(SYSTEM, "daemonset/weft-node-proxy")?;
    outcome?;
    healthy(&cluster)
}

#[test]
#[ignore = "needs a cluster"]
fn the_commands_that_look_at_a_cluster_answer() -> Result<()> {
    let cluster = Cluster::open()?;
    let ns = cluster.namespace("t-look", true)?;
    ns.apply(&echo_service("server"))?;
    ns.run(&[Echo::new("server"), Echo::new("client")])?;
    let answers = ns.ask("client", &["http://server/", "--count=10"])?;
    ensure!(answers.with_status(200) == 10, "{}", answers.error);
    healthy(&cluster)?;
    let (pod, _, node) = ns.pod("client")?;
    let pod = format!("t-look/{pod}");
    for (args, says) in [
        (&["check", "--pre"][..], "rights to install"),
        (&["check", "--strict", "t-look"], "nobody called t-look in plaintext"),
        (&["check", "-o", "json"], r#""findings": []"#),
        (&["status"], "no problems"),
        (&["version"], "weft-node-proxy"),
        (&["proxy", "config", node.as_str()], "t-look/server"),
        (&["proxy", "certs", pod.as_str()], "spiffe://cluster.local/ns/t-look/sa/client"),
        (&["proxy", "connections", pod.as_str()], " tunnels"),
        (&["explain", pod.as_str(), "server.t-look"], "goes through"),
    ] {
        let output = cluster.weft(args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.contains(says), "weft {}: {}\n{said}", args.join(" "), output.status);
    }
    let allow = r#"{"apiVersion": "weftmesh.io/v1alpha1", "kind": "AuthorizationPolicy", "metadata": {"name": "reads", "namespace": "@NS@"},
        "spec": {"action": "ALLOW", "rules": [{"to": [{"methods": ["GET"]}]}]}}"#;
    ns.apply(allow)?;
    ns.cluster.wait_accepted(&ns.name, "authorizationpolicy/reads")?;
    eventually("the policy to be explained", PATIENCE, || {
        let denied = cluster.weft(&["explain", &pod, "server.t-look", "--method=DELETE"])?;
        let said = String::from_utf8_lossy(&denied.stdout);
        ensure!(denied.status.code() == Some(1) && said.contains("t-look/reads"), "{said}");
        Ok(())
    })
}

/// The chart's own test, by which people see for themselves: three callers, of whom only one may pass.
#[test]
#[ignore = "needs a cluster"]
fn helm_test_proves_mutual_tls() -> Result<()> {
    let cluster = Cluster::open()?;
    let said = cluster.helm(&["test", "weft", "-n", SYSTEM, "--timeout=3m"])?;
    for job in ["client", "stranger", "outsider"] {
        ensure!(said.contains(&format!("TEST SUITE:     {job}")), "{said}");
    }
    ensure!(said.matches("Phase:          Succeeded").count() >= 3 && !said.contains("Failed"), "{said}");
    Ok(())
}
