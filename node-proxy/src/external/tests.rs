//! From a backend in the configuration to endpoints in the snapshot, with a server for names on loopback.

use weft_core::change::{Change, MeshConfig, Resource, ResourceKey};
use weft_core::ids::{Port, SectionName, ServicePortKey};
use weft_core::service::{AppProtocol, Balancing, ServicePort, TrafficDistribution};

use super::dns::tests::{knows, server};
use super::*;
use crate::store::ConfigSource;

/// Resolves the backends of a store that are hosts, each to these addresses.
pub(crate) async fn resolve_to(store: &Arc<Store>, addresses: &[&str], allowed: &[&str]) -> ConfigSink {
    let dns = Dns::new(vec![server(knows(addresses, 60)).await]);
    let (sink, source) = ConfigSource::channel();
    let (followed, store) = (Arc::clone(store), Arc::clone(store));
    tokio::spawn(async move { followed.follow(source).await });
    let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
    tokio::spawn(follow_with(store, sink.clone(), (dns, |answer| answer), allowed));
    sink
}

fn key() -> ServiceKey {
    ServiceKey::of_kind(BackendKind::XBackend, "shop", "api")
}

fn backend(key: ServiceKey) -> Change {
    let port = ServicePort { name: SectionName::new(""), port: Port::new(443).unwrap(), protocol: AppProtocol::Http };
    Change::Upsert(Resource::Service(Arc::new(Service {
        key,
        addresses: Vec::new(),
        ports: vec![port],
        kind: ServiceKind::ExternalName("api.example.com".to_owned()),
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        balancing: Balancing::default(),
        proxy_protocol: None,
        traffic: None,
    })))
}

fn endpoints(snapshot: &Snapshot, key: ServiceKey) -> Vec<String> {
    let port = ServicePortKey { service: key, port: Port::new(443).unwrap() };
    let frontend = snapshot.frontend(&port).expect("a frontend");
    frontend.endpoints.entries.iter().map(|entry| entry.address.to_string()).collect()
}

async fn until(store: &Store, expected: &[&str]) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while endpoints(&store.load(), key()) != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{:?}", endpoints(&store.load(), key()));
}

#[tokio::test]
async fn a_backend_has_the_addresses_of_its_host_and_loses_them_with_its_configuration() {
    let dns = Dns::new(vec![server(knows(&["192.0.2.1", "127.0.0.1", "10.1.2.3", "169.254.169.254"], 60)).await]);
    let (sink, source) = ConfigSource::channel();
    let store = Arc::new(Store::default());
    tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.follow(source).await }
    });
    let mesh = MeshConfig { cluster_ranges: vec!["10.1.0.0/16".parse().unwrap()], ..MeshConfig::default() };
    // A Service of the cluster with an alias is nobody's to resolve.
    let alias = ServiceKey::new("shop", "alias");
    let changes = vec![Change::Upsert(Resource::Mesh(Arc::new(mesh))), backend(key()), backend(alias.clone())];
    sink.apply(changes).await.unwrap();
    let following = tokio::spawn(follow_with(Arc::clone(&store), sink.clone(), (dns, |answer| answer), Vec::new()));
    until(&store, &["192.0.2.1:443"]).await;
    assert!(endpoints(&store.load(), alias).is_empty());
    let slice = |store: &Store| {
        let of = |resource: &Resource| matches!(resource, Resource::EndpointSlice(_));
        store.load().resources().iter().filter(|resource| of(resource)).count()
    };
    assert_eq!(slice(&store), 1);
    sink.apply(vec![Change::Remove(ResourceKey::Service(key()))]).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(20), async {
        while slice(&store) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(gone.await.is_ok());
    following.abort();
}

#[test]
fn addresses_that_are_no_host_outside_are_refused_unless_they_are_allowed() {
    let (ranges, nodes) = ("10.1.0.0/16".parse().unwrap(), "203.0.113.4/31".parse().unwrap());
    let mesh = MeshConfig { cluster_ranges: vec![ranges], node_addresses: vec![nodes], ..MeshConfig::default() };
    let snapshot = Snapshot::default().apply(&[Change::Upsert(Resource::Mesh(Arc::new(mesh)))]);
    let own = BTreeSet::from(["198.51.100.9".parse().unwrap()]);
    let refused = |ip: &str, allowed: &[IpNet]| {
        Rules { allowed: allowed.to_vec(), own: own.clone() }.refused(&snapshot, ip.parse().unwrap())
    };
    for ip in [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "10.1.2.3",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b::7f00:1",
        "fd20:ce::254",
        "203.0.113.5",
        "64:ff9b::203.0.113.4",
        "198.51.100.9",
    ] {
        assert!(refused(ip, &[]).is_some(), "{ip}");
        assert!(refused(ip, &["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]).is_none(), "{ip}");
    }
    for ip in [
        "192.0.2.1",
        "203.0.113.6",
        "198.51.100.8",
        "10.2.0.1",
        "192.168.1.1",
        "2001:db8::1",
        "fd00::1",
        "64:ff9b::192.0.2.1",
    ] {
        assert_eq!(refused(ip, &[]), None, "{ip}");
    }
    assert!(refused("127.0.0.1", &["10.0.0.0/8".parse().unwrap()]).is_some());
}

#[test]
fn this_machine_knows_its_addresses() {
    assert!(is_own(&"127.0.0.1".parse().unwrap()));
    // Of documentation (RFC 5737): nobody's.
    assert!(!is_own(&"192.0.2.1".parse().unwrap()));
}
