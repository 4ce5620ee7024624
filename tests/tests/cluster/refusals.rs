//! What a node's proxy refuses is told where people look: on the object, in Events, by `weft status`.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use weft_control::{TokenSource, authorize, channel};
use weft_controller::kubernetes::refusals::object_of;
use weft_core::wire;
use weft_sys::Netns;
use weft_tests::cluster::{Cluster, PATIENCE, SYSTEM, TestNamespace, eventually, strict_pair};
use weft_tls::{Clock, ControlClient, ExpectedServer, ServerTrust, TrustBundle, TrustStore};
use weft_xds::client::{Client, Rejection, Settings, Sink, Transport};
use weft_xds::{TypeUrl, Update};

const ROUTE: &str = "odd";
const WHY: &str = "this proxy has never seen such a rule";

/// A proxy that takes everything but one route.
struct Refuser {
    namespace: String,
}

impl Sink for Refuser {
    async fn apply(&mut self, updates: Vec<Update>) -> Vec<Rejection> {
        let is_odd = |update: &Update| {
            let name = update.name();
            matches!(update, Update::Set(_))
                && object_of(&name.type_url, &name.name)
                    .is_some_and(|object| object.namespace.as_str() == self.namespace && object.name.as_str() == ROUTE)
        };
        let odd = updates.iter().filter(|update| is_odd(update));
        odd.map(|update| Rejection::new(update.name().clone(), WHY)).collect()
    }
}

/// The way to a controller, as a proxy takes it.
struct Control {
    address: String,
    tls: ControlClient,
    token: TokenSource,
}

impl Transport for Control {
    async fn connect(&self) -> Result<Channel, Status> {
        Ok(channel(self.address.clone(), self.tls.clone()))
    }

    fn authorize(&self, request: &mut MetadataMap) -> Result<(), Status> {
        authorize(&self.token, request)
    }
}

impl Control {
    /// With a token of the proxy's pod on a node, to the first of the controllers.
    fn of_proxy(cluster: &Cluster, node: &str) -> Result<Self> {
        let roots =
            cluster.k(&["-n", SYSTEM, "get", "configmap", "weft-trust", "-o", r"jsonpath={.data.root\.pem}"])?;
        let trust = TrustStore::new(TrustBundle::from_pem("cluster.local".parse()?, roots.as_bytes())?);
        let expected = ExpectedServer::Account { namespace: SYSTEM.into(), service_account: "weft-controller".into() };
        let tls = ControlClient::new(ServerTrust::Bundle(trust), expected, Clock::system())?;
        let pod = cluster.part("weft-node-proxy", node)?;
        let bound = ["--audience=weft", "--bound-object-kind=Pod", &format!("--bound-object-name={pod}")];
        let token = cluster.k(&[&["-n", SYSTEM, "create", "token", "weft-node-proxy"][..], &bound].concat())?;
        let label = "app.kubernetes.io/name=weft-controller";
        let ip =
            cluster.k(&["-n", SYSTEM, "get", "pods", "-l", label, "-o", "jsonpath={.items[0].status.podIPs[0].ip}"])?;
        let address = if ip.contains(':') { format!("[{ip}]:15010") } else { format!("{ip}:15010") };
        Ok(Self { address, tls, token: Arc::new(move || Ok(token.trim().to_owned())) })
    }
}

/// A refusing proxy that follows the configuration until the value goes.
struct Following {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    fn start(network: &Path, control: Control, namespace: &str) -> Result<Self> {
        let network = Netns::open(network)?;
        let settings = Settings {
            node: "refuser".into(),
            agent: ("test".into(), "0".into()),
            types: wire::TYPE_URLS.iter().map(TypeUrl::new).collect(),
        };
        let (client, _handle) = Client::new(settings, control, Refuser { namespace: namespace.to_owned() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let follow = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = client.run() => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::spawn(move || network.run(follow).expect("the cluster's network"));
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked with is printed already.
            let _ = thread.join();
        }
    }
}

fn is_told(ns: &TestNamespace) -> Result<()> {
    let route = format!("httproute/{ROUTE}");
    eventually("the condition", PATIENCE, || {
        let (status, reason, message) = ns.cluster.condition(&ns.name, &route, "weftmesh.io/Programmed")?;
        ensure!(status == "False" && reason == "RefusedByNode", "{status} {reason}");
        ensure!(message.contains("node1") && message.contains(WHY), "{message}");
        Ok(())
    })?;
    eventually("the Event", PATIENCE, || {
        let said = ns.cluster.k(&["-n", &ns.name, "describe", "httproute", ROUTE])?;
        let events = said.split_once("Events:").map(|(_, events)| events).context("no Events")?;
        ensure!(events.contains("RefusedByNode") && events.contains(WHY), "{said}");
        Ok(())
    })?;
    let status = ns.cluster.weft(&["status"])?;
    let said = String::from_utf8_lossy(&status.stdout);
    ensure!(said.contains(&format!("{}/{ROUTE}", ns.name)) && said.contains("Programmed=False"), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn what_a_proxy_refuses_is_on_the_object_in_events_and_in_status_and_goes_with_it() -> Result<()> {
    let ns = strict_pair("t-refusals")?;
    let Some(network) = ns.cluster.network() else {
        eprintln!("not run: pods of this cluster can't be reached from here");
        return Ok(());
    };
    ns.apply(&format!(
        r#"{{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {{"name": "{ROUTE}", "namespace": "@NS@"}}, "spec": {{
        "parentRefs": [{{"group": "", "kind": "Service", "name": "server"}}], "rules": [{{"backendRefs": [{{"name": "server", "port": 80}}]}}]}}}}"#
    ))?;
    let route = format!("httproute/{ROUTE}");
    ns.cluster.wait_accepted(&ns.name, &route)?;
    let refusing = Following::start(&network, Control::of_proxy(&ns.cluster, "node1")?, &ns.name)?;
    is_told(&ns)?;
    ns.served("client", "http://server/", 20).context("proxies that took it aren't concerned")?;
    drop(refusing);
    // A proxy that is gone may come back with the same opinion; after half a minute it doesn't count any more.
    eventually("the condition to go", 2 * PATIENCE, || {
        let gone = ns.cluster.condition(&ns.name, &route, "weftmesh.io/Programmed");
        ensure!(gone.is_err(), "{gone:?}");
        Ok(())
    })
}
