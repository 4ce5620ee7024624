use super::pki::*;
use crate::*;

struct World {
    pki: Pki,
    trust: TrustStore,
    server: ControlServer,
}

fn world(identity: &str) -> World {
    let pki = Pki::new();
    let trust = TrustStore::new(pki.bundle());
    let (store, identity) = store_of(&trust, pki.svid(&id(identity)));
    World { server: ControlServer::for_identity(&store, &identity).unwrap(), pki, trust }
}

fn account(name: &str) -> ExpectedServer {
    ExpectedServer::Account { namespace: "shop".into(), service_account: name.into() }
}

async fn reason(world: &World, trust: ServerTrust, expected: ExpectedServer) -> &'static str {
    let client = ControlClient::new(trust, expected, Clock::system()).unwrap();
    let (a, b) = tokio::io::duplex(64 * 1024);
    let (dialled, _) = tokio::join!(client.connect(a), world.server.accept(b));
    dialled.map_or_else(|error| error.reason(), |_| "ok")
}

#[tokio::test]
async fn a_pinned_root_is_enough_to_know_the_control_plane() {
    let world = world("controller");
    let pin = ServerTrust::PinnedRoot(RootHash::of(&world.pki.root));
    assert_eq!(reason(&world, pin.clone(), account("controller")).await, "ok");
    let other = ServerTrust::PinnedRoot(RootHash::of(&Pki::new().root));
    assert_eq!(reason(&world, other, account("controller")).await, "unknown_root");
    let exactly = ExpectedServer::Identity(id("controller").into());
    assert_eq!(reason(&world, pin, exactly).await, "ok");
}

#[tokio::test]
async fn a_workload_cannot_pose_as_the_control_plane() {
    let world = world("cart");
    let pin = ServerTrust::PinnedRoot(RootHash::of(&world.pki.root));
    assert_eq!(reason(&world, pin, account("controller")).await, "wrong_identity");
    let bundle = ServerTrust::Bundle(world.trust.clone());
    assert_eq!(reason(&world, bundle, account("controller")).await, "wrong_identity");
}

#[tokio::test]
async fn a_pin_on_a_leaf_or_an_unrelated_certificate_does_not_vouch() {
    let world = world("controller");
    let leaf = world.pki.svid(&id("controller")).chain()[0].clone();
    let pin = ServerTrust::PinnedRoot(RootHash::of(&leaf));
    assert_eq!(reason(&world, pin, account("controller")).await, "unknown_root");
}

#[tokio::test]
async fn after_the_join_the_bundle_decides_and_its_changes_count() {
    let (world, next) = (world("controller"), Pki::new());
    let trust = TrustStore::new(world.pki.bundle());
    let bundle = || ServerTrust::Bundle(trust.clone());
    assert_eq!(reason(&world, bundle(), account("controller")).await, "ok");
    trust.update(next.bundle()).unwrap();
    assert_eq!(reason(&world, bundle(), account("controller")).await, "unknown_root");
}

#[tokio::test]
async fn a_server_of_the_control_channel_sends_every_current_root() {
    let (world, next) = (world("controller"), Pki::new());
    let both = TrustBundle::new(Default::default(), [next.root.clone(), world.pki.root.clone()]).unwrap();
    world.trust.update(both).unwrap();
    let pin = ServerTrust::PinnedRoot(RootHash::of(&world.pki.root));
    assert_eq!(reason(&world, pin, account("controller")).await, "ok");
    // The new root is sent too, but it does not vouch for a chain of the old one.
    let pin = ServerTrust::PinnedRoot(RootHash::of(&next.root));
    assert_eq!(reason(&world, pin, account("controller")).await, "unknown_root");
}

#[test]
fn a_root_hash_reads_back_as_it_was_written() {
    let hash = RootHash::of(&Pki::new().root);
    assert_eq!(hash.to_string().parse(), Ok(hash));
    for text in [
        "",
        "sha256:",
        "md5:00",
        "sha256:zz",
        &hash.to_string()[1..],
        &format!("{hash}0"),
        &hash.to_string().replace(':', ":+"),
    ] {
        assert_eq!(text.parse::<RootHash>(), Err(InvalidRootHash), "{text}");
    }
    let signed = format!("sha256:+{}", "0".repeat(63));
    assert_eq!(signed.parse::<RootHash>(), Err(InvalidRootHash));
}

#[tokio::test]
async fn roots_vouch_for_whatever_trust_domain_the_server_says_and_for_nobody_else() {
    let world = world("controller");
    let known = ServerTrust::Roots(vec![Pki::new().root.clone(), world.pki.root.clone()]);
    assert_eq!(reason(&world, known.clone(), account("controller")).await, "ok");
    assert_eq!(reason(&world, known, account("cart")).await, "wrong_identity");
    let other = ServerTrust::Roots(vec![Pki::new().root.clone()]);
    assert_eq!(reason(&world, other, account("controller")).await, "unknown_root");
}
