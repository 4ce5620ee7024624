//! Ways around a policy that looks at requests.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weft_core::change::{Change, Resource};
use weft_core::identity::{SpiffeId, TrustDomain};
use weft_core::ids::PolicyKey;
use weft_core::policy::*;
use weft_core::reason::Reason;

use super::super::inbound::{Loopback, connect_as, workload};
use super::super::world::*;
use crate::authorize::{Inbound, Registry, inbound};
use crate::identify::{LocalWorkload, Peer, PeerIdentity};

/// Nobody gets to `/admin` and what is below it.
fn no_admin() -> Change {
    let paths = ["/admin", "/admin/*"].into_iter().map(GlobMatch::new).collect();
    Change::Upsert(Resource::Authorization(Arc::new(AuthorizationPolicy {
        key: PolicyKey::new("shop", "no-admin"),
        scope: Scope::Namespace("shop".into()),
        action: Action::Deny,
        dry_run: false,
        rules: vec![AuthorizationRule { from: Vec::new(), to: vec![Operation { paths, ..Operation::default() }] }],
    })))
}

/// An application that switches to HTTP/2 if it is asked to, as some do; what it got is in its answer.
async fn switching(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let answer = match head.contains("upgrade: h2c") {
                true => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
                false => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            };
            stream.write_all(answer.as_bytes()).await
        });
    }
}

/// The status line of the answer to a request of a pod of the mesh.
async fn ask(world: &World, registry: &Registry, app: SocketAddr, request: &str) -> String {
    let identity = PeerIdentity::FirstHand(SpiffeId::new(TrustDomain::default(), "shop", "web"));
    let mut client = connect_as(world, registry, app, identity).await;
    client.write_all(request.as_bytes()).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

/// Real sockets, so a real clock.
fn with_application(test: impl AsyncFnOnce(World, Registry, SocketAddr)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async {
        let world = World::new(vec![Change::Upsert(Resource::Workload(Arc::new(workload()))), no_admin()]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        tokio::task::spawn_local(switching(listener));
        let registry = Registry::new(Rc::clone(&world.engine.observer));
        let tested = tokio::time::timeout(Duration::from_secs(60), test(world, registry, app)).await;
        tested.expect("the test hangs");
    };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

#[test]
fn no_spelling_of_a_path_leads_around_a_policy() {
    let cases = [
        (200, &["/public", "/administrator", "/public/admin", "/ADMIN", "/public;admin"][..]),
        (403, &["/admin", "/admin/", "/admin/users", "/admin?x", "/admin#x", "http://a/admin"]),
        (403, &["//admin", "///admin//users", "/./admin", "/admin/.", "/x/../admin", "/x/./.././admin"]),
        (403, &["/%61dmin", "/%61%64%6D%69%6e", "/x/%2e%2e/admin", "/x/%2E./admin", "/x/.%2e/%61dmin"]),
        (403, &["/admin;", "/admin;x=1", "/admin;x/users", "/admin/;x"]),
        (403, &["/admin%2fusers", "/x%2F..%2Fadmin", "/x%5c..%5cadmin", "/x/..%2fadmin"]),
        (400, &["/x/..;/admin", "/x/..;x=1/admin", "/x/.;/admin", "/../admin", "/x/../../admin", "/%2e%2e/admin"]),
        (400, &["/x\\..\\admin", "/admin%00", "/admin%0a", "/%/admin", "/%zz/admin", "admin"]),
    ];
    with_application(async |world, registry, app| {
        for (status, paths) in cases {
            for path in paths {
                let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
                let line = ask(&world, &registry, app, &request).await;
                assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {line}");
            }
        }
    });
}

#[test]
fn a_switch_to_http_2_leads_around_no_policy() {
    with_application(async |world, registry, app| {
        for with in ["connection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__", "connection: upgrade"] {
            for protocol in ["h2c", "H2C", "h2c, h2c", "websocket, h2c"] {
                let request = format!("GET /public HTTP/1.1\r\nhost: a\r\nupgrade: {protocol}\r\n{with}\r\n\r\n");
                let line = ask(&world, &registry, app, &request).await;
                assert!(line.starts_with("HTTP/1.1 200 "), "{request}: {line}");
            }
        }
    });
}

#[test]
fn a_tunnel_leads_to_its_pod_and_nowhere_else() {
    use Reason::{Loop, UnknownDestination};
    with_application(async |world, registry, _| {
        // The pod has 127.0.0.1.
        for (destination, reason) in [
            ("10.9.9.9:80", UnknownDestination),
            ("169.254.169.254:80", UnknownDestination),
            ("127.0.0.2:80", UnknownDestination),
            ("[::1]:80", UnknownDestination),
            ("127.0.0.1:15001", Loop),
            ("127.0.0.1:15006", Loop),
            ("127.0.0.1:15008", Loop),
        ] {
            let identity = PeerIdentity::FirstHand(SpiffeId::new(TrustDomain::default(), "shop", "web"));
            let asked = Inbound {
                workload: Rc::new(LocalWorkload::new(crate::plain::pod_of(workload(), Arc::new(Loopback)))),
                peer: Peer { identity, address: "127.0.0.1:4000".parse().unwrap() },
                destination: destination.parse().unwrap(),
            };
            let refused = inbound(&world.store, &registry, asked).await.err();
            assert_eq!(refused, Some(reason), "{destination}");
        }
    });
}
