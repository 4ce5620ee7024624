use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::{advance, sleep};
use weft_tls::{
    CertManager, CertStore, ClientTls, ExpectedPeer, HandshakeError, IdentityLease, ManagerSettings, ServerTls,
    TlsSettings, TrustBundle, TrustStore,
};

use super::*;

#[tokio::test(start_paused = true)]
async fn the_root_is_replaced_in_stages_by_time_and_restarts_go_on_where_they_stood() {
    let dir = tempfile::tempdir().unwrap();
    let clock = virtual_clock();
    let mut authority = open_at(dir.path(), clock);
    let old = authority.bundle().roots[0].clone();
    let issuer =
        |authority: &Authority| authority.issue(&csr(&id("cart")), &id("cart"), None).unwrap().chain[1].clone();
    let old_issuer = issuer(&authority);

    authority.start_rotation().unwrap();
    assert!(matches!(authority.start_rotation(), Err(RotateError::UnderWay(_))));
    assert_eq!((authority.bundle().roots.len(), authority.bundle().generation), (2, 2));
    assert_eq!(issuer(&authority), old_issuer, "published, and nothing issued under it");
    advance(HOUR - Duration::from_secs(1)).await;
    assert!(!authority.tick().unwrap());

    drop(authority);
    authority = open_at(dir.path(), clock);
    advance(Duration::from_secs(2)).await;
    assert!(authority.tick().unwrap());
    assert!(matches!(authority.status().unwrap().stage, Stage::Issuing { .. }));
    assert_ne!(issuer(&authority), old_issuer);
    assert!(authority.bundle().roots.contains(&old), "leaves of the old root are still about");

    drop(authority);
    authority = open_at(dir.path(), clock);
    advance(DAY).await;
    assert!(!authority.tick().unwrap(), "the last leaf of the old root may have a minute left");
    advance(Duration::from_secs(120)).await;
    assert!(authority.tick().unwrap());
    assert_eq!(authority.status().unwrap().stage, Stage::Stable);
    assert!(!authority.bundle().roots.contains(&old));
    assert!(!dir.path().join("root-1.pem").exists(), "the old key is gone");

    drop(authority);
    let again = open_at(dir.path(), clock);
    assert_eq!((again.bundle().roots.len(), again.bundle().generation), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn each_step_can_be_commanded() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open_at(dir.path(), virtual_clock());
    assert!(matches!(authority.advance_rotation(), Err(RotateError::NotUnderWay)));
    let mut bundles = authority.subscribe();
    authority.start_rotation().unwrap();
    assert!(bundles.has_changed().unwrap());
    assert_eq!(bundles.borrow_and_update().roots.len(), 2);
    assert!(matches!(authority.advance_rotation().unwrap(), Stage::Issuing { .. }));
    assert_eq!(authority.advance_rotation().unwrap(), Stage::Stable);
    assert_eq!(bundles.borrow_and_update().roots.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_intermediate_is_replaced_at_half_its_life_and_a_root_when_a_tenth_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open_at(dir.path(), virtual_clock());
    let first = authority.status().unwrap();
    advance(DAY * 182).await;
    assert!(!authority.tick().unwrap());
    advance(DAY).await;
    assert!(authority.tick().unwrap());
    let second = authority.status().unwrap();
    assert!(second.intermediate_not_after > first.intermediate_not_after);
    assert_eq!(second.roots, first.roots);

    advance(DAY * 3650 / 10 * 9 - DAY * 184).await;
    while authority.status().unwrap().stage == Stage::Stable && authority.tick().unwrap() {}
    assert_eq!(authority.status().unwrap().stage, Stage::Stable, "a day early");
    advance(DAY * 2).await;
    assert!(authority.tick().unwrap());
    assert!(matches!(authority.status().unwrap().stage, Stage::Publishing { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_intermediate_that_a_clock_ahead_has_made_goes_when_the_clock_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let roots = open_at(dir.path(), Clock::following_tokio(now)).bundle().roots.clone();
    let ahead = open_at(dir.path(), Clock::following_tokio(now + DAY * 200));
    assert!(ahead.tick().unwrap(), "half of its life seems to be over");
    let made = ahead.status().unwrap().intermediate_not_after;
    drop(ahead);

    let authority = open_at(dir.path(), Clock::following_tokio(now));
    assert!(authority.tick().unwrap());
    let end = authority.status().unwrap().intermediate_not_after;
    assert!(end < made && end > now + DAY * 300, "{end:?} of {made:?}");
    assert_eq!(authority.bundle().roots, roots, "nobody has to learn of anything");
    assert!(!authority.tick().unwrap(), "once");

    // A clock that nobody has set yet knows nothing of the future.
    drop(authority);
    let unset = open_at(dir.path(), Clock::following_tokio(SystemTime::UNIX_EPOCH + DAY));
    assert!(!unset.tick().unwrap());
    drop(unset);
    let authority = open_at(dir.path(), Clock::following_tokio(now));
    assert_eq!(authority.status().unwrap().intermediate_not_after, end);
    authority.issue(&csr(&id("cart")), &id("cart"), None).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_step_that_cannot_be_saved_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open_at(dir.path(), virtual_clock());
    let before = (authority.status().unwrap(), authority.bundle());
    // A folder in the place of the file: renaming onto it fails, for root as well.
    std::fs::remove_file(dir.path().join("state.json")).unwrap();
    std::fs::create_dir_all(dir.path().join("state.json/x")).unwrap();
    assert!(authority.start_rotation().is_err());
    assert_eq!((authority.status().unwrap(), authority.bundle()), before);
}

/// A node: its own certificates and its own copy of the bundle, which arrives late.
struct Node {
    lease: IdentityLease,
    _manager: CertManager,
}

impl Node {
    async fn new(authority: &Arc<Authority>, clock: Clock, name: &str, late: Duration) -> Self {
        let trust =
            TrustStore::new(TrustBundle::new(TrustDomain::default(), authority.bundle().roots.clone()).unwrap());
        let (mut bundles, copy) = (authority.subscribe(), trust.clone());
        tokio::spawn(async move {
            while bundles.changed().await.is_ok() {
                let roots = bundles.borrow_and_update().roots.clone();
                sleep(late).await;
                copy.update(TrustBundle::new(TrustDomain::default(), roots).unwrap()).unwrap();
            }
        });
        let store = CertStore::new(trust, clock, TlsSettings::default());
        let source = Arc::new(LocalSource(authority.clone()));
        let manager = CertManager::new(store, source, ManagerSettings::default(), Handle::current());
        let lease = manager.lease(&id(name));
        lease.ready(HOUR).await.unwrap();
        Self { lease, _manager: manager }
    }
}

async fn meet(client: ClientTls, server: ServerTls) -> Result<(), HandshakeError> {
    let (a, b) = tokio::io::duplex(64 * 1024);
    let expected = ExpectedPeer::one(server.identity().clone());
    let accept = async {
        let (mut stream, _) = server.accept(b).await?;
        stream.write_u8(7).await.map_err(HandshakeError::from_io)?;
        let _ = stream.read_u8().await;
        Ok(())
    };
    let dial = async {
        let (mut stream, _) = client.connect(a, [10, 0, 0, 1].into(), &expected).await?;
        stream.read_u8().await.map_err(HandshakeError::from_io)?;
        stream.shutdown().await.map_err(HandshakeError::from_io)
    };
    let (dialled, accepted) = tokio::join!(dial, accept);
    dialled.and(accepted)
}

#[tokio::test(start_paused = true)]
async fn not_one_handshake_fails_while_the_root_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let clock = virtual_clock();
    let authority = open_at(dir.path(), clock);
    let old = authority.bundle().roots[0].clone();
    // The slowest node hears of a new bundle just before anything is issued under it.
    let near = Node::new(&authority, clock, "near", Duration::ZERO).await;
    let far = Node::new(&authority, clock, "far", HOUR - Duration::from_secs(60)).await;
    let keeper = authority.clone();
    tokio::spawn(async move { keeper.run().await });
    let done = Arc::new(AtomicUsize::new(0));

    let start = tokio::time::Instant::now();
    while start.elapsed() < DAY * 3 {
        if start.elapsed() > HOUR && authority.bundle().generation == 1 {
            authority.start_rotation().unwrap();
        }
        for (client, server) in [(&near, &far), (&far, &near), (&near, &near)] {
            if let Err(error) = meet(client.lease.client(), server.lease.server()).await {
                panic!("after {:?}: {}: {error}", start.elapsed(), error.reason());
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_secs(240)).await;
    }
    assert!(done.load(Ordering::Relaxed) > 3000);
    assert_eq!(authority.status().unwrap().stage, Stage::Stable);
    assert!(!authority.bundle().roots.contains(&old), "the rotation went all the way");
}
