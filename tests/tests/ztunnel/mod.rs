//! The shop, and beside it a machine whose pod is served by Istio's ztunnel instead of Weft.
//!
//! ```text
//!   node-a, node-b                         node-z
//!   weft standalone, the shop's pods       ztunnel (in-pod mode), pod shop/zt
//!        |  authority, who is where             |  certificate: Istio's CSR service of Weft's authority
//!        +------------- one root ---------------+  who is where: a file in ztunnel's own form
//! ```

mod node;
mod zds;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use weft_api::weft::node::v1::PodAttached;
use weft_testkit::servers::{Server, any, http};
use weft_testkit::{Pod, Process, Task};
use weft_tests::{Mesh, NODES, Setup, bare_shop, eventually};

/// The machine.
pub const MACHINE: &str = "node-z";
/// By what ztunnel knows the authority: Istio's agents verify its certificate by DNS name.
const CA_NAME: &str = "ca.weft.test";
/// How long ztunnel may take to have its pod and certificate.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the manifests are given in addition.
const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: { name: zt, namespace: shop, labels: { app: zt } }
spec:
  nodeName: node-z
  serviceAccountName: zt
  containers:
    - name: app
      image: weftmesh.io/demo
      args: [http]
      ports:
        - { name: http, containerPort: 8080 }
---
apiVersion: v1
kind: Service
metadata: { name: zt, namespace: shop }
spec:
  selector: { app: zt }
  ports:
    - { name: http, port: 80, targetPort: http, appProtocol: http }
";
/// The file they are in.
pub const MANIFEST: &str = "15-zt.yaml";

/// What Istio's CNI agent sets up in a pod: all TCP of the application to ztunnel, which marks its own packets.
const REDIRECT: [&str; 5] = [
    "add table inet istio",
    "add chain inet istio output { type nat hook output priority -100 ; }",
    "add chain inet istio prerouting { type nat hook prerouting priority -100 ; }",
    "add rule inet istio output oifname != lo meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001",
    "add rule inet istio prerouting iifname eth0 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006",
];

/// The program, if the environment names it.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("WEFT_ZTUNNEL").map(PathBuf::from);
    if program.is_none() {
        eprintln!("left out: WEFT_ZTUNNEL does not name a ztunnel program (CONTRIBUTING.md says how to build one)");
    }
    program
}

/// The shop with a pod of ztunnel's.
pub struct Mixed {
    // In the order in which they go.
    ztunnel: Process,
    _agent: Task<()>,
    _session: Task<Result<()>>,
    /// The application in the pod.
    pub server: Server,
    /// The pod.
    pub pod: Pod,
    /// The rest.
    pub mesh: Mesh,
    _folder: tempfile::TempDir,
}

impl Mixed {
    /// Starts all of it.
    pub fn start(program: &Path) -> Result<Self> {
        let primary = ["--ca-dns-name", CA_NAME];
        let mut mesh = bare_shop(Setup { primary: &primary, machines: &[MACHINE], ..Setup::default() })?;
        std::fs::write(mesh.manifests().join(MANIFEST), MANIFESTS)?;
        let pod = mesh.world.add_pod(MACHINE, "zt")?;
        REDIRECT.iter().try_for_each(|rule| pod.exec(&format!("nft {rule}")).map(drop))?;
        let server = http(&pod, "zt", any(8080))?;
        mesh.start_pods()?;

        let joined = node::join(&mesh, MACHINE)?;
        let ips: Vec<_> = pod.ips().iter().map(IpAddr::to_string).collect();
        let (namespace, name) = ("shop".to_owned(), "zt".to_owned());
        let attached = PodAttached { namespace, name, uid: "uid-zt".into(), ips, ready: true };
        let session = node::report(&mesh, MACHINE, &joined, attached);
        // A certificate is given out once the primary knows that the pod is there. The manifest was written while the
        // mesh ran: a node that hasn't heard of it yet takes its endpoints for complete.
        let known = |status: &Value| status["services"].as_array().is_some_and(|all| all.iter().any(is_zt));
        NODES.iter().try_for_each(|node| mesh.wait_status(node, "the Service of the pod", known).map(drop))?;
        mesh.wait_endpoints()?;

        let folder = tempfile::tempdir()?;
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = folder.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let mut command = Command::new(program);
        let socket = folder.path().join("zds.sock");
        // The access log has a line when a connection opens, too, if it is asked for.
        command
            .env_clear()
            .env("RUST_LOG", "info,access=debug")
            .env("NODE_NAME", MACHINE)
            .env("ZTUNNEL_WORKER_THREADS", "1");
        command.env("INPOD_UDS", &socket).env("ENABLE_ORIG_SRC", "false");
        command.env("CA_ADDRESS", format!("https://{}", joined.primary)).env("ALT_CA_HOSTNAME", CA_NAME);
        command.env("CA_ROOT_CA", file("roots.pem", &joined.roots)?).env("AUTH_TOKEN", file("token", &joined.token)?);
        command.env("XDS_ADDRESS", "").env("LOCAL_XDS_PATH", file("xds.yaml", &local_xds(&mesh, &pod)?)?);
        let info = zds::WorkloadInfo { name: "zt".into(), namespace: "shop".into(), service_account: "zt".into() };
        let (agent, taken) = zds::serve(&pod, socket, info)?;
        let ztunnel = Process::start(mesh.world.node(MACHINE), command)?;
        let said = |what: &str| format!("{what}\n{}", ztunnel.log().unwrap_or_default());
        taken
            .recv_timeout(PATIENCE)
            .with_context(|| said("ztunnel doesn't take its pod"))?
            .with_context(|| said(""))?;
        Ok(Self { ztunnel, _agent: agent, _session: session, server, pod, mesh, _folder: folder })
    }

    /// Waits for a line of ztunnel's log with all of these.
    pub fn ztunnel_says(&self, parts: &[&str]) -> Result<()> {
        let said = |log: &str| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        eventually(&format!("ztunnel says {parts:?}"), || Ok(said(&self.ztunnel.log()?)))
            .with_context(|| self.ztunnel.log().unwrap_or_default())
    }

    /// Waits for a line of a Weft node's access log with all of these fields.
    pub fn weft_says(&self, node: &str, fields: &[(&str, &str)]) -> Result<()> {
        let process = &self.mesh.node(node).process;
        let has = |entry: &Value| fields.iter().all(|(name, value)| entry[name] == *value);
        let said = |log: &str| log.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|entry| has(&entry));
        eventually(&format!("{node} logs {fields:?}"), || Ok(said(&process.log()?)))
            .with_context(|| process.log().unwrap_or_default())
    }

    /// The address of a Service's port 80.
    pub fn service(&self, name: &str) -> Result<SocketAddr> {
        self.mesh.service(&format!("shop/{name}"), 80)
    }
}

impl Drop for Mixed {
    fn drop(&mut self) {
        if std::env::var_os("WEFT_SHOW_LOGS").is_some() {
            eprintln!("---- ztunnel\n{}", self.ztunnel.log().unwrap_or_default());
        }
    }
}

fn is_zt(service: &Value) -> bool {
    service["name"] == "shop/zt"
}

/// A policy of Istio's that ztunnel holds for its pod.
const POLICY: &str = "
policies:
- name: not-nightly
  namespace: shop
  scope: Namespace
  action: Deny
  dryRun: false
  rules:
  - - - principals: [!Exact cluster.local/ns/reports/sa/nightly]
";

/// ztunnel's view of the shop. It takes `catalog-v2` for somebody it isn't, and denies `nightly`.
fn local_xds(mesh: &Mesh, zt: &Pod) -> Result<String> {
    let mut workloads = workload("zt", "zt", MACHINE, &zt.ips());
    workloads += &workload("web", "web", "node-a", &mesh.pod("web").ips);
    let mut services = String::new();
    for (pod, account) in [("catalog-v1", "catalog"), ("catalog-v2", "somebody-else")] {
        workloads += &workload(pod, account, "node-b", &mesh.pod(pod).ips);
        let vip = mesh.service(&format!("shop/{pod}"), 80)?.ip();
        let host = host(pod);
        services += &format!(
            "- {{ name: {pod}, namespace: shop, hostname: {host}, vips: [\"/{vip}\"], ports: {{ 80: 8080 }} }}\n"
        );
    }
    Ok(format!("workloads:\n{workloads}services:\n{services}{POLICY}"))
}

/// A workload, endpoint of the Service of its own name.
fn workload(name: &str, account: &str, node: &str, ips: &[IpAddr]) -> String {
    let ips: Vec<_> = ips.iter().map(IpAddr::to_string).collect();
    format!(
        "- uid: Kubernetes//Pod/shop/{name}\n  name: {name}\n  namespace: shop\n  serviceAccount: {account}\n  \
         trustDomain: cluster.local\n  workloadIps: {ips:?}\n  protocol: HBONE\n  node: {node}\n  \
         services: {{ shop/{}: {{ 80: 8080 }} }}\n",
        host(name)
    )
}

fn host(service: &str) -> String {
    format!("{service}.shop.svc.cluster.local")
}
