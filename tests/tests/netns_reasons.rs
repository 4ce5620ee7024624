//! What fails for different reasons says so: six failures, each with a code of its own, through real packets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::{HeaderMap, Method, StatusCode, Version};
use support::{Event, Mesh, upsert};
use weft_core::change::{Change, Resource};
use weft_core::ids::{PolicyKey, Port, ServiceKey};
use weft_core::policy::{MeshPolicy, Mode, Scope, WorkloadLimits};
use weft_core::reason::Reason;
use weft_core::service::{
    AppProtocol, Balancing, Endpoint, EndpointHealth, EndpointSlice, Service, ServiceKind, ServicePort, SliceKey,
    SlicePort, TrafficDistribution,
};
use weft_core::workload::Workload;
use weft_node_proxy::observe::Ended;
use weft_node_proxy::worker::Command;
use weft_testkit::clients::{self as tcp, Connection, request};
use weft_testkit::servers;

weft_testkit::netns_tests! {
    six_failures_have_six_codes,
}

/// A Service with its address, in front of these endpoints.
fn service(name: &str, address: SocketAddr, endpoints: &[std::net::IpAddr]) -> Vec<Change> {
    let key = ServiceKey::new("shop", name);
    let service = Service {
        key: key.clone(),
        addresses: vec![address.ip()],
        ports: vec![ServicePort { name: "main".into(), port: Port::new(80).unwrap(), protocol: AppProtocol::Http }],
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::RoundRobin,
        traffic: None,
    };
    let endpoint = |address: &std::net::IpAddr| Endpoint {
        address: *address,
        workload: None,
        health: EndpointHealth::Ready,
        node: None,
        zone: None,
    };
    let slice = EndpointSlice {
        key: SliceKey { namespace: "shop".into(), name: name.into() },
        service: key,
        ports: vec![SlicePort { name: "main".into(), port: Port::new(8080).unwrap() }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    vec![upsert(Resource::Service(Arc::new(service))), upsert(Resource::EndpointSlice(Arc::new(slice)))]
}

fn policy(name: &str, mode: Option<Mode>, limits: WorkloadLimits) -> MeshPolicy {
    MeshPolicy {
        key: PolicyKey::new("shop", name),
        scope: if mode.is_some() { Scope::Mesh } else { Scope::Selected },
        created_unix_seconds: 0,
        mode,
        port_modes: Vec::new(),
        enforced: false,
        limits,
    }
}

fn code(status: StatusCode, headers: &HeaderMap) -> Result<String> {
    ensure!(status == 503 && headers.contains_key("x-request-id"), "{status} {headers:?}");
    Ok(headers.get("x-weft-reason").context("no reason")?.to_str()?.to_owned())
}

fn six_failures_have_six_codes() -> Result<()> {
    let mesh = Mesh::with_short_certificates(&["a", "b", "c"], &["b"])?;
    let (web, empty): (SocketAddr, SocketAddr) = ("10.96.0.10:80".parse()?, "10.96.0.11:80".parse()?);
    let c = mesh.pod("c");
    mesh.apply(&service("web", web, &[c.ipv4().into()]));
    mesh.apply(&service("empty", empty, &[]));
    let ask = |pod: &str, to: SocketAddr| mesh.pod(pod).block_on(tcp::get(to, "/"));
    let fails = |pod: &str, to: SocketAddr| ask(pod, to).and_then(|reply| code(reply.status, &reply.headers));

    let mut codes = vec![fails("a", empty)?];
    // Nobody listens yet: the other node's proxy says so.
    codes.push(fails("a", web)?);
    let _server = servers::http(&c, "c", servers::any(8080))?;
    ensure!(ask("a", web)?.status == 200, "it works");

    let strict = policy("strict", Some(Mode::Strict), WorkloadLimits::default());
    mesh.apply(&[upsert(Resource::MeshPolicy(Arc::new(strict)))]);
    ensure!(mesh.pod("d").block_on(tcp::get(c.addr(8080), "/")).is_err(), "in the clear");
    let refused = |e: &Event| matches!(e, Event::Refused(_, Reason::PlaintextRefused));
    codes.push(why(mesh.proxy_of("c").events.wait("plaintext refused", refused)?)?);

    // Its certificate ends, and there is no other.
    let proxy = mesh.proxy_of("b");
    let pods = proxy.manager.pods();
    let pod = pods.iter().find(|pod| pod.uid == Mesh::uid("b")).context("no pod b")?;
    let has_none = || proxy.control.block_on(pod.lease.ready(Duration::ZERO)).is_err();
    proxy.events.until("the certificate has ended", has_none)?;
    codes.push(fails("b", web)?);

    let few = policy("few", None, WorkloadLimits { max_connections: Some(1), ..WorkloadLimits::default() });
    let limited = Workload { policies: vec![few.key.clone()], ..mesh.workload("c", true) };
    mesh.apply(&[upsert(Resource::MeshPolicy(Arc::new(few))), upsert(Resource::Workload(Arc::new(limited)))]);
    let known = || mesh.proxy_of("c").manager.pods().iter().any(|pod| pod.budget.usage().max_connections == 1);
    mesh.proxy_of("c").events.until("the limit", known)?;
    codes.push(mesh.pod("a").block_on(shed(web))?);

    codes.push(drained(&mesh, empty)?);
    ensure!(
        codes
            == [
                "no_endpoint",
                "connect_failed",
                "plaintext_refused",
                "no_certificate",
                "limit_connections",
                "draining"
            ],
        "{codes:?}"
    );
    ensure!(codes.iter().collect::<BTreeSet<_>>().len() == 6);
    Ok(())
}

/// Holds answers that go on until there is no room for one more.
async fn shed(web: SocketAddr) -> Result<String> {
    let mut held = Vec::new();
    while held.len() < 16 {
        let mut connection = Connection::open(web, Version::HTTP_11).await?;
        let asked = request(Method::GET, "/sse?n=1000&every=1000", &[], "");
        let response = connection.send_streaming(asked).await?;
        if response.status() != StatusCode::OK {
            return code(response.status(), response.headers());
        }
        held.push((connection, response));
    }
    bail!("{} at once", held.len())
}

/// An idle connection of a client may bring its next request for a while, and then is ended.
fn drained(mesh: &Mesh, to: SocketAddr) -> Result<String> {
    let proxy = mesh.proxy_of("a");
    let (workers, events) = (proxy.workers.as_ref().context("no workers")?.handles().clone(), proxy.events.clone());
    mesh.pod("a").block_on(async move {
        let mut idle = Connection::open(to, Version::HTTP_11).await?;
        idle.get("/").await?;
        workers.iter().for_each(|worker| worker.tell(Command::Drain));
        let ended = |e: &Event| matches!(e, Event::Closed(c, ended) if c.http && ended.reason == Reason::Draining);
        // It may take somewhat longer than other events.
        let seen = events.wait("drained", ended).or_else(|_| events.wait("drained", ended))?;
        drop(idle);
        why(seen)
    })
}

fn why(event: Event) -> Result<String> {
    match event {
        Event::Refused(_, reason) | Event::Closed(_, Ended { reason, .. }) => Ok(reason.to_string()),
        other => bail!("{other:?}"),
    }
}
