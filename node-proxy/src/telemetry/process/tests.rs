//! What a scrape of a whole node says.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_core::change::{Change, MeshConfig, Resource};
use weft_core::identity::TrustDomain;
use weft_core::reason::Reason;
use weft_metrics::Component;
use weft_tls::{
    CertManager, CertStore, Clock, FetchError, FetchFuture, ManagerSettings, SvidRequest, SvidSource, TlsSettings,
    TrustBundle, TrustStore,
};

use super::*;
use crate::budget::{Defaults, NodeBudget};
use crate::inpod::{Announcement, ListenerRole, Outgoing, PodNet};
use crate::store::Store;
use crate::telemetry::{
    ConnectionLabels, DESTINATION_SERVICE, EventLabels, Registry, RequestLabels, RequestMeasure, RequestOutcome,
    RoleLabel, Security, WorkloadLabel, families,
};
use crate::worker::Limits;

/// Nothing listens and nothing is dialled.
#[derive(Debug)]
struct Nowhere;

impl PodNet for Nowhere {
    fn listen(&self, _role: ListenerRole) -> std::io::Result<Vec<std::net::TcpListener>> {
        Ok(Vec::new())
    }

    fn original_destination(&self, _stream: &tokio::net::TcpStream) -> std::io::Result<std::net::SocketAddr> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn outgoing(&self, _: Option<std::net::IpAddr>, _: std::net::SocketAddr) -> std::io::Result<Outgoing> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

struct NoAuthority;

impl SvidSource for NoAuthority {
    fn fetch(&self, _request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(async { Err(FetchError::Unavailable("down".into())) })
    }
}

#[tokio::test]
async fn a_scrape_names_every_family_once_and_says_how_the_node_is() {
    let root = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let bundle = TrustBundle::new(TrustDomain::default(), [root.cert.der().clone()]).unwrap();
    let trust = TrustStore::new(bundle);
    let certificates = CertStore::new(trust, Clock::system(), TlsSettings::default());
    let runtime = tokio::runtime::Handle::current();
    let identities = CertManager::new(certificates.clone(), Arc::new(NoAuthority), ManagerSettings::default(), runtime);
    let defaults = Defaults { connections: 100, handshakes: 8, buffer_bytes: 4096 };
    let node = Arc::new(Node {
        name: "n1".into(),
        store: Arc::new(Store::default()),
        certificates,
        budget: NodeBudget::new(1000, defaults),
        addresses: Vec::new(),
        gateways: Default::default(),
        limits: Limits::default(),
    });
    let manager = Arc::new(Manager::new(Arc::clone(&node), Arc::from(Vec::new()), identities));
    let workload = Arc::clone(crate::plain::fixed_pod().announced());
    let net = Arc::new(Nowhere);
    manager.add(Announcement { sandbox: "s1".into(), workload, net, node_addresses: Vec::new() }).await.unwrap();
    let pods = manager.pods();
    let _held = (pods[0].budget.connection().unwrap(), pods[0].budget.buffer(10).unwrap());
    node.store.apply(&[Change::Upsert(Resource::Mesh(Arc::new(MeshConfig::default())))]);
    let heard = Some(tokio::time::Instant::now());
    let status = ClientStatus { connected: true, version: "7".into(), nacks: 2, heard, ..ClientStatus::default() };
    let (_sender, status) = watch::channel(status);
    let metrics = ProcessMetrics::new(node, manager).with_config(status);

    let registry = Registry::default();
    let recorder = registry.recorder();
    for family in families::EVENTS {
        let labels = family.label_names().filter(|label| !["namespace", "workload"].contains(label));
        let service = ["destination_service_namespace", "destination_service", "destination_port"];
        let (of_service, others): (Vec<_>, Vec<_>) = labels.partition(|label| service.contains(label));
        let mut more: Vec<(&'static str, Arc<str>)> = others.into_iter().map(|label| (label, "x".into())).collect();
        if !of_service.is_empty() {
            more.push((DESTINATION_SERVICE, "shop/cart:80".into()));
        }
        let workload = family.label_names().any(|label| label == "workload").then(WorkloadLabel::unknown);
        recorder.event(&EventLabels { family, workload, more }, 1);
    }
    let requests = RequestLabels {
        reporter: "source",
        source: WorkloadLabel::unknown(),
        destination: WorkloadLabel::unknown(),
        service: None,
        rule: None,
        security: Security::Mtls,
        protocol: "http1",
    };
    let outcome = RequestOutcome { class: 2, reason: Reason::Ok, grpc_status: None };
    let measure = RequestMeasure { retries: 1, ..RequestMeasure::default() };
    recorder.requests(&requests).record(outcome, &measure);
    let RequestLabels { reporter, source, destination, service, security, .. } = requests;
    recorder.connections(&ConnectionLabels { reporter, source, destination, service, security }).opened.add(1);
    recorder.handshake(RoleLabel("client"), Duration::from_millis(3));
    let text = registry.render() + &metrics.render();
    for line in [
        "weft_config_changes_total 1",
        "weft_config_info{version=\"7\"} 1",
        "weft_config_connected 1",
        "weft_config_synced 0",
        "weft_config_rejections_total 2",
        "weft_certificate_expiry_timestamp_seconds{identity=\"spiffe://cluster.local/ns/plain/sa/client\"} 0",
        "weft_trusted_roots{trust_domain=\"cluster.local\"} 1",
        "weft_node_connections 1",
        "weft_node_connections_limit 1000",
        "weft_pods 1",
        "weft_budget_connections{namespace=\"plain\",pod=\"client\"} 1",
        "weft_budget_connections_limit{namespace=\"plain\",pod=\"client\"} 100",
        "weft_budget_buffer_bytes{namespace=\"plain\",pod=\"client\"} 10",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
    }
    everything_is_in_the_catalogue(&text);
}

/// And what the catalogue has is here, but for what comes by the `metrics` crate.
fn everything_is_in_the_catalogue(text: &str) {
    assert_eq!(weft_metrics::check(text, Component::Proxy), Vec::<String>::new());
    let by_the_crate = [
        &families::DNS_FAILURES,
        &families::LOG_LINES_DROPPED,
        &families::LOG_RECORDS_DROPPED,
        &families::LOG_LINES_SUPPRESSED,
        &families::SPANS_DROPPED,
    ];
    let lacking: Vec<_> = families::ALL
        .iter()
        .filter(|family| !by_the_crate.contains(*family))
        .filter(|family| {
            let samples =
                [format!("\n{} ", family.name), format!("\n{}{{", family.name), format!("\n{}_count{{", family.name)];
            !samples.iter().any(|sample| text.contains(sample))
        })
        .collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let distinct: HashSet<_> = types.iter().collect();
    assert_eq!(distinct.len(), types.len(), "{types:?}");
    for name in types {
        assert!(name.starts_with("weft_"), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}
