//! Renewal in virtual time: the clock of certificates moves with tokio's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};

use super::pki::*;
use crate::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Issues,
    Down,
    Silent,
    OtherIdentity,
    OtherKey,
    OtherRoot,
}

/// An authority with moods, which notes when it was asked.
struct Fake {
    pki: Pki,
    other: Pki,
    life: Duration,
    clock: Clock,
    mood: Mutex<Mood>,
    asked: Mutex<Vec<Instant>>,
}

impl SvidSource for Fake {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        self.asked.lock().push(Instant::now());
        let mood = *self.mood.lock();
        Box::pin(async move {
            let mut spec = Spec::of(&request.identity);
            spec.not_before = self.clock.now();
            spec.not_after = spec.not_before + self.life;
            match mood {
                Mood::Issues => Ok(self.pki.answer(&request.csr, &spec)),
                Mood::Down => Err(FetchError::Unavailable("connection refused".into())),
                Mood::Silent => std::future::pending().await,
                Mood::OtherIdentity => {
                    spec.uris = vec![id("other").to_string()];
                    Ok(self.pki.answer(&request.csr, &spec))
                }
                Mood::OtherKey => Ok(self.pki.issue(&spec).chain().to_vec()),
                Mood::OtherRoot => Ok(self.other.answer(&request.csr, &spec)),
            }
        })
    }
}

struct World {
    source: Arc<Fake>,
    manager: CertManager,
    start: Instant,
}

impl World {
    fn new(life: Duration) -> Self {
        Self::by(life, Clock::following_tokio(SystemTime::now()))
    }

    /// A node that goes by another clock than its authority.
    fn by(life: Duration, own: Clock) -> Self {
        Self::of(life, own, TrustDomains::default())
    }

    fn of(life: Duration, own: Clock, domains: TrustDomains) -> Self {
        let clock = Clock::following_tokio(SystemTime::now());
        let (pki, other) = (Pki::new(), Pki::new());
        let trust = TrustStore::with_domains(pki.bundle(), domains).unwrap();
        let store = CertStore::new(trust, own, TlsSettings::default());
        let (mood, asked) = (Mutex::new(Mood::Issues), Mutex::default());
        let source = Arc::new(Fake { pki, other, life, clock, mood, asked });
        let manager = CertManager::new(store, source.clone(), ManagerSettings::default(), Handle::current());
        Self { source, manager, start: Instant::now() }
    }

    fn mood(&self, mood: Mood) {
        *self.source.mood.lock() = mood;
    }

    /// Seconds from the start at which the authority was asked.
    fn asked(&self) -> Vec<f64> {
        self.source.asked.lock().iter().map(|at| (*at - self.start).as_secs_f64()).collect()
    }

    fn failures(&self) -> u32 {
        self.manager.store().status()[0].failures
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_its_life_give_or_take_a_tenth() {
    let world = World::new(DAY);
    let lease = world.manager.lease(&id("cart"));
    let first = lease.ready(HOUR).await.unwrap();
    sleep(DAY * 10).await;
    let asked = world.asked();
    let half = DAY.as_secs_f64() / 2.0;
    assert!((18..=23).contains(&asked.len()), "{asked:?}");
    for pair in asked.windows(2) {
        let gap = pair[1] - pair[0];
        assert!((half * 0.89..half * 1.11).contains(&gap), "{gap}");
    }
    let gaps: std::collections::HashSet<_> = asked.windows(2).map(|p| (p[1] - p[0]) as u64).collect();
    assert!(gaps.len() > 1, "jitter: {gaps:?}");
    assert_ne!(lease.current().unwrap().serial(), first.serial());
}

#[tokio::test(start_paused = true)]
async fn the_old_certificate_serves_until_it_truly_expires_and_attempts_go_on() {
    let world = World::new(DAY);
    let lease = world.manager.lease(&id("cart"));
    let first = lease.ready(HOUR).await.unwrap();
    world.mood(Mood::Down);

    sleep(DAY - Duration::from_secs(30)).await;
    assert_eq!(lease.current().unwrap().serial(), first.serial());
    let status = &world.manager.store().status()[0];
    assert!(status.failures > 100, "{status:?}");
    assert_eq!(status.last_error.as_deref(), Some("authority unavailable: connection refused"));
    assert_eq!(status.not_after, Some(first.not_after()));

    sleep(Duration::from_secs(60)).await;
    let error = lease.current().unwrap_err();
    assert!(matches!(error, NoCertificate::Expired { .. }), "{error}");
    assert_eq!(error.reason(), "no_certificate");

    world.mood(Mood::Issues);
    lease.ready(Duration::from_secs(31)).await.unwrap();
    assert_eq!(world.failures(), 0);
}

#[tokio::test(start_paused = true)]
async fn pauses_between_attempts_grow_to_their_limit_and_no_further() {
    let world = World::new(DAY);
    world.mood(Mood::Down);
    let lease = world.manager.lease(&id("cart"));
    let error = lease.ready(HOUR).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    let asked = world.asked();
    let gaps: Vec<_> = asked.windows(2).map(|p| p[1] - p[0]).collect();
    assert!(gaps[0] <= 1.01 && gaps.iter().all(|g| (0.5..30.1).contains(g)), "{gaps:?}");
    assert!(gaps[8..].iter().all(|g| *g >= 15.0), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_short_life_gets_several_attempts_before_it_ends() {
    let world = World::new(Duration::from_secs(40));
    let lease = world.manager.lease(&id("cart"));
    lease.ready(HOUR).await.unwrap();
    world.mood(Mood::Down);
    sleep(Duration::from_secs(41)).await;
    assert!(lease.current().is_err());
    assert!(world.failures() >= 5, "{:?}", world.asked());
}

#[tokio::test(start_paused = true)]
async fn what_peers_would_refuse_is_never_installed() {
    for (mood, reason) in [
        (Mood::OtherIdentity, "authority sent a certificate of spiffe://cluster.local/ns/shop/sa/other"),
        (Mood::OtherKey, "authority sent an unusable certificate: the private key does not belong to the leaf"),
        (Mood::OtherRoot, "authority sent a certificate that our own bundle does not accept"),
        (Mood::Silent, "authority did not answer within 10s"),
    ] {
        let world = World::new(DAY);
        let lease = world.manager.lease(&id("cart"));
        let first = lease.ready(HOUR).await.unwrap();
        world.mood(mood);
        sleep(DAY * 2 / 3).await;
        assert_eq!(lease.current().unwrap().serial(), first.serial());
        let last_error = world.manager.store().status()[0].last_error.clone().unwrap();
        assert!(last_error.starts_with(reason), "{last_error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_refuses_our_certificate_brings_its_renewal_forward() {
    let world = World::new(DAY);
    let lease = world.manager.lease(&id("cart"));
    let first = lease.ready(HOUR).await.unwrap();
    world.mood(Mood::OtherRoot);
    sleep(HOUR).await;
    assert_eq!(world.asked().len(), 1);

    world.manager.store().trust().update(world.source.other.bundle()).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_ne!(lease.current().unwrap().serial(), first.serial());
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_identity_comes_with_its_first_pod_and_goes_with_its_last() {
    let world = World::new(DAY);
    assert!(world.manager.store().status().is_empty());
    let first = world.manager.lease(&id("cart"));
    let second = world.manager.lease(&id("cart"));
    first.ready(HOUR).await.unwrap();
    assert_eq!(world.asked().len(), 1, "two pods, one certificate");

    let client = second.client();
    drop(first);
    assert!(second.current().is_ok());
    drop(second);
    assert!(world.manager.store().status().is_empty());
    assert_eq!(world.manager.store().current(&id("cart")).unwrap_err(), NoCertificate::NotRequested(id("cart")));
    let (io, _far) = tokio::io::duplex(1024);
    let error = client.connect(io, SERVER_IP, &id("stock").into()).await.unwrap_err();
    assert_eq!(error.reason(), "no_certificate", "handles left behind are of no use");
    sleep(DAY * 3).await;
    assert_eq!(world.asked().len(), 1);

    let again = world.manager.lease(&id("cart"));
    again.ready(HOUR).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_handed_over_is_used_and_renewed_in_its_turn() {
    let world = World::new(DAY);
    world.mood(Mood::Down);
    let mut spec = Spec::of(&id("cart"));
    spec.not_before = world.source.clock.now() - HOUR;
    spec.not_after = spec.not_before + DAY;
    let request = KeyRequest::generate(&id("cart")).unwrap();
    let chain = world.source.pki.answer(request.csr(), &spec);
    world.manager.store().install(request.complete(chain).unwrap());

    let lease = world.manager.lease(&id("cart"));
    assert!(lease.current().is_ok(), "at once, with the authority down");
    sleep(HOUR * 9).await;
    assert!(world.asked().is_empty(), "{:?}", world.asked());
    sleep(HOUR * 4).await;
    assert!(!world.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_identities_ask_no_more_than_a_few_at_a_time() {
    let world = World::new(DAY);
    world.mood(Mood::Silent);
    let leases: Vec<_> = (0..100).map(|n| world.manager.lease(&id(&format!("pod-{n}")))).collect();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.asked().len(), ManagerSettings::default().concurrency);
    world.mood(Mood::Issues);
    for lease in &leases {
        lease.ready(HOUR).await.unwrap();
    }
}

/// Ahead by more than a certificate's life every certificate has expired, one that was just issued, too: nothing is sent until
/// the clock is right, and then the one from before serves at once.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_stepped_ahead_costs_the_certificate_until_it_is_stepped_back() {
    static STEP: AtomicI64 = AtomicI64::new(0);
    let world = World::by(DAY, Clock::stepped(SystemTime::now(), &STEP));
    let lease = world.manager.lease(&id("cart"));
    let first = lease.ready(HOUR).await.unwrap();
    STEP.store(2 * 24 * 3600, Ordering::Relaxed);
    assert!(matches!(lease.current().unwrap_err(), NoCertificate::Expired { .. }));
    sleep(HOUR).await;
    assert!(lease.current().is_err(), "one that this node takes for expired was installed");
    assert!((2..200).contains(&world.asked().len()), "{:?}", world.asked());
    STEP.store(0, Ordering::Relaxed);
    assert_eq!(lease.current().unwrap().serial(), first.serial());
    sleep(DAY).await;
    assert_ne!(lease.current().unwrap().serial(), first.serial(), "renewals go on");
}

/// Behind, the certificate that is there goes on, and what is issued is from the future: it is renewed when the clock is right.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_stepped_back_costs_nothing_that_is_there() {
    static STEP: AtomicI64 = AtomicI64::new(0);
    let world = World::by(DAY, Clock::stepped(SystemTime::now(), &STEP));
    let lease = world.manager.lease(&id("cart"));
    let first = lease.ready(HOUR).await.unwrap();
    STEP.store(-3 * 3600, Ordering::Relaxed);
    sleep(HOUR).await;
    assert_eq!(lease.current().unwrap().serial(), first.serial());
    let pod = world.manager.lease(&id("late"));
    assert!(pod.ready(HOUR).await.is_err(), "a certificate that isn't valid yet was installed");
    STEP.store(0, Ordering::Relaxed);
    pod.ready(HOUR).await.unwrap();
    sleep(DAY).await;
    assert_ne!(lease.current().unwrap().serial(), first.serial(), "renewals go on");
}

/// What a predecessor got before the trust domain was changed.
#[tokio::test(start_paused = true)]
async fn a_certificate_under_an_alias_serves_until_it_is_replaced_which_is_tried_at_once() {
    let old: TrustDomain = "old.example".parse().unwrap();
    let domains = TrustDomains::new(TrustDomain::default(), [old.clone()]);
    let world = World::of(DAY, Clock::following_tokio(SystemTime::now()), domains);
    let former = SpiffeId::new(old, "shop", "cart");
    world.mood(Mood::Down);
    world.manager.store().install(world.source.pki.svid(&former));
    let lease = world.manager.lease(&id("cart"));
    assert_eq!(lease.ready(HOUR).await.unwrap().identity(), &former);
    sleep(Duration::from_secs(10)).await;
    assert!(world.failures() > 0 && lease.current().unwrap().identity() == &former);
    world.mood(Mood::Issues);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(lease.current().unwrap().identity(), &id("cart"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_not_dialled_for_minutes_is_forgotten() {
    let world = World::new(DAY);
    let (cart, stock) = (world.manager.lease(&id("cart")), world.manager.lease(&id("stock")));
    for lease in [&cart, &stock] {
        lease.ready(HOUR).await.unwrap();
    }
    let (client, server, expected) = (cart.client(), stock.server(), id("stock").into());
    let resumed = async || meet(&client, &server, &expected).await.client.unwrap().resumed();
    assert!(!resumed().await);
    sleep(Duration::from_secs(200)).await;
    assert!(resumed().await);
    sleep(Duration::from_secs(200)).await;
    assert!(resumed().await, "counted from the last handshake");
    sleep(Duration::from_secs(400)).await;
    assert!(!resumed().await);
}
