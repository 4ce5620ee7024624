//! Tables and properties of endpoint choice, on a clock that only moves when told.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use weft_core::change::{Change, Resource};
use weft_core::ids::{NodeName, Port, ServiceKey, ServicePortKey, Zone};
use weft_core::service::{
    AppProtocol, Endpoint, EndpointHealth, EndpointSlice, Service, ServiceKind, ServicePort, SliceKey, SlicePort,
    TrafficDistribution,
};
use weft_core::snapshot::Snapshot;
use weft_core::workload::{Enrolment, Owner, Workload};

use super::*;

fn service() -> Service {
    Service {
        key: ServiceKey::new("shop", "cart"),
        addresses: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![ServicePort { name: "http".into(), port: Port::new(80).unwrap(), protocol: AppProtocol::Http }],
        kind: ServiceKind::ClusterIp,
        client_ip_affinity: None,
        distribution: TrafficDistribution::Any,
        node_local_only: false,
        proxy_protocol: None,
        balancing: Balancing::PeakEwma,
        traffic: None,
    }
}

fn endpoint(last: u8) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 0, 0, last]),
        workload: None,
        health: EndpointHealth::Ready,
        node: None,
        zone: None,
    }
}

fn frontend(service: Service, endpoints: Vec<Endpoint>) -> Arc<Frontend> {
    let key = ServicePortKey { service: service.key.clone(), port: Port::new(80).unwrap() };
    let slice = EndpointSlice {
        key: SliceKey { namespace: "shop".into(), name: "cart-1".into() },
        service: service.key.clone(),
        ports: vec![SlicePort { name: "http".into(), port: Port::new(8080).unwrap() }],
        endpoints,
    };
    let changes = [
        Change::Upsert(Resource::Service(Arc::new(service))),
        Change::Upsert(Resource::EndpointSlice(Arc::new(slice))),
    ];
    Arc::clone(Snapshot::default().apply(&changes).frontend(&key).unwrap())
}

fn place() -> Place {
    Place { node: NodeName::new("n1"), zone: NodeZone::new(Some(Zone::new("z1"))) }
}

fn balancer(service: Service, endpoints: Vec<Endpoint>, now: Instant) -> Rc<Balancer> {
    Rc::new(Balancer::new(frontend(service, endpoints), &place(), Arc::default(), now))
}

fn ask(now: Instant, random: u64) -> Ask<'static> {
    Ask { client: IpAddr::from([10, 1, 0, 1]), hash: None, tried: &[], now, random }
}

fn last_byte(picked: &Picked) -> u8 {
    match picked.entry.address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => unreachable!("the tests use IPv4"),
    }
}

/// Picks, answers after `latency`, and says who it was.
fn exchange(balancer: &Rc<Balancer>, now: Instant, random: u64, outcome: Outcome) -> u8 {
    let picked = balancer.pick(&ask(now, random)).unwrap();
    picked.flight.learn(outcome, now + Duration::from_millis(1), random);
    last_byte(&picked)
}

fn shares(balancer: &Rc<Balancer>, now: Instant, rounds: u64) -> HashMap<u8, u32> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut shares = HashMap::new();
    for _ in 0..rounds {
        *shares.entry(exchange(balancer, now, random.u64(..), Outcome::Answered)).or_default() += 1;
    }
    shares
}

#[test]
fn the_slower_endpoint_gets_less() {
    let now = Instant::now();
    let balancer = balancer(service(), vec![endpoint(1), endpoint(2), endpoint(3)], now);
    let mut random = fastrand::Rng::with_seed(1);
    let mut count = HashMap::<u8, u32>::new();
    for step in 0..3000 {
        let at = now + Duration::from_millis(step);
        let picked = balancer.pick(&ask(at, random.u64(..))).unwrap();
        let who = last_byte(&picked);
        let took = Duration::from_millis(if who == 2 { 50 } else { 2 });
        picked.flight.learn(Outcome::Answered, at + took, 0);
        *count.entry(who).or_default() += 1;
    }
    assert!(count[&2] < 60, "the slow endpoint is asked rarely: {count:?}");
    assert!(count[&1] > 1000 && count[&3] > 1000, "the others share: {count:?}");
}

#[test]
fn an_endpoint_that_never_answered_gets_one_request_at_a_time() {
    let now = Instant::now();
    let balancer = balancer(service(), vec![endpoint(1), endpoint(2)], now);
    let held = balancer.pick(&ask(now, 3)).unwrap();
    let other = balancer.pick(&ask(now, 3)).unwrap();
    assert_ne!(held.entry.address, other.entry.address);
}

#[test]
fn five_failures_eject_and_the_ejection_ends() {
    let mut now = Instant::now();
    let deadline = now + Duration::from_secs(3600);
    let balancer = balancer(service(), vec![endpoint(1), endpoint(2)], now);
    let mut random = fastrand::Rng::with_seed(2);
    let mut failures = 0;
    while failures < 5 {
        let picked = balancer.pick(&ask(now, random.u64(..))).unwrap();
        let bad = last_byte(&picked) == 1;
        failures += u32::from(bad);
        now += Duration::from_secs(1);
        let ejected = picked.flight.learn(if bad { Outcome::Failed } else { Outcome::Answered }, now, 0);
        assert_eq!(ejected, failures == 5 && bad);
        assert!(now < deadline, "the failing endpoint gets another chance now and then");
    }
    assert_eq!(balancer.ejections(), 1);
    assert_eq!(shares(&balancer, now + Duration::from_secs(9), 200).keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(shares(&balancer, now + Duration::from_secs(300), 400).len(), 2, "it gets another chance");
}

#[test]
fn at_most_half_of_the_endpoints_are_ejected() {
    let now = Instant::now();
    let endpoints = (1..=5).map(endpoint).collect();
    let balancer = balancer(service(), endpoints, now);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..1000 {
        exchange(&balancer, now, random.u64(..), Outcome::Failed);
    }
    assert_eq!(balancer.ejections(), 2, "two of five");
}

#[test]
fn the_only_endpoint_is_never_ejected() {
    let now = Instant::now();
    let balancer = balancer(service(), vec![endpoint(1)], now);
    for _ in 0..50 {
        assert_eq!(exchange(&balancer, now, 1, Outcome::Failed), 1);
    }
    assert_eq!(balancer.ejections(), 0);
}

#[test]
fn an_endpoint_that_asks_for_less_gets_less() {
    for balancing in [Balancing::PeakEwma, Balancing::RoundRobin] {
        let now = Instant::now();
        let balancer = balancer(Service { balancing, ..service() }, vec![endpoint(1), endpoint(2)], now);
        let mut random = fastrand::Rng::with_seed(4);
        let mut count = HashMap::<u8, u32>::new();
        for _ in 0..1000 {
            let picked = balancer.pick(&ask(now, random.u64(..))).unwrap();
            let who = last_byte(&picked);
            *count.entry(who).or_default() += 1;
            let outcome = if who == 1 { Outcome::Overloaded } else { Outcome::Answered };
            picked.flight.learn(outcome, now + Duration::from_millis(1), 0);
        }
        assert!(count[&1] < 300 && count[&1] > 0, "{count:?}");
    }
}

#[test]
fn in_turn_means_in_turn() {
    let now = Instant::now();
    let endpoints = (1..=3).map(endpoint).collect();
    let balancer = balancer(Service { balancing: Balancing::RoundRobin, ..service() }, endpoints, now);
    assert_eq!(shares(&balancer, now, 300), HashMap::from([(1, 100), (2, 100), (3, 100)]));
}

#[test]
fn near_endpoints_first_and_the_rest_when_they_fail() {
    let near =
        |last, node: &str, zone: &str| Endpoint { node: Some(node.into()), zone: Some(zone.into()), ..endpoint(last) };
    let endpoints = || vec![near(1, "n1", "z1"), near(2, "n2", "z1"), near(3, "n3", "z2")];
    for (distribution, local, expected) in [
        (TrafficDistribution::Any, false, vec![1, 2, 3]),
        (TrafficDistribution::PreferSameZone, false, vec![1, 2]),
        (TrafficDistribution::PreferSameNode, false, vec![1]),
        (TrafficDistribution::Any, true, vec![1]),
    ] {
        let now = Instant::now();
        let service = Service { distribution, node_local_only: local, ..service() };
        let balancer = balancer(service, endpoints(), now);
        let mut seen: Vec<_> = shares(&balancer, now, 500).into_keys().collect();
        seen.sort_unstable();
        assert_eq!(seen, expected, "{distribution:?} {local}");
        if distribution == TrafficDistribution::PreferSameNode {
            for _ in 0..5 {
                exchange(&balancer, now, 0, Outcome::Failed);
            }
            let next = shares(&balancer, now, 100);
            assert_eq!(next.into_keys().collect::<Vec<_>>(), [2], "the zone is next");
        }
    }
}

/// A workload on a node, in a zone or in none that is known.
pub(crate) fn workload(node: &str, zone: Option<&str>) -> Workload {
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    Workload {
        uid: "Kubernetes//Pod/shop/web".into(),
        namespace: "shop".into(),
        name: "web".into(),
        identity,
        addresses: vec!["10.0.0.9".parse().unwrap()],
        node: node.into(),
        zone: zone.map(Zone::new),
        enrolment: Enrolment::Enrolled,
        owner: Owner { kind: "Pod".into(), name: "web".into(), app: "web".into(), version: String::new() },
        policies: Vec::new(),
        probes: Vec::new(),
        network_policy: false,
        telemetry: Vec::new(),
    }
}

#[test]
fn the_zone_is_learnt_from_a_workload_of_the_node_and_balancers_that_are_there_already_take_it_over() {
    let now = Instant::now();
    let place = Place { node: "n1".into(), zone: NodeZone::default() };
    let balancers = Balancers::new(place, Arc::default());
    let in_zone = |last, zone| Endpoint { zone: Some(Zone::new(zone)), ..endpoint(last) };
    let near = Service { distribution: TrafficDistribution::PreferSameZone, ..service() };
    let frontend = frontend(near, vec![in_zone(1, "z1"), in_zone(2, "z2")]);
    let seen = || {
        let mut seen: Vec<_> = shares(&balancers.get(&frontend, now), now, 200).into_keys().collect();
        seen.sort_unstable();
        seen
    };
    assert_eq!(seen(), [1, 2]);
    for (node, zone) in [("n2", Some("z1")), ("n1", None)] {
        balancers.place().learn(&workload(node, zone));
        assert_eq!(seen(), [1, 2], "that says nothing of this node");
    }
    balancers.place().learn(&workload("n1", Some("z2")));
    assert_eq!(seen(), [2]);
    balancers.place().learn(&workload("n1", Some("z1")));
    assert_eq!(seen(), [2], "a node stays where it is");
}

#[test]
fn node_local_without_an_endpoint_here_is_none() {
    let now = Instant::now();
    let balancer = balancer(Service { node_local_only: true, ..service() }, vec![endpoint(1)], now);
    assert!(balancer.pick(&ask(now, 0)).is_none());
}

#[test]
fn draining_endpoints_only_when_none_is_ready() {
    let with = |last, health| Endpoint { health, ..endpoint(last) };
    use EndpointHealth::{Draining, NotReady, Ready};
    for (endpoints, expected) in [
        (vec![with(1, Ready), with(2, Draining), with(3, NotReady)], vec![1]),
        (vec![with(1, NotReady), with(2, Draining)], vec![2]),
        (vec![with(1, NotReady)], vec![]),
    ] {
        let now = Instant::now();
        let balancer = balancer(service(), endpoints, now);
        let picked: Vec<_> = balancer.pick(&ask(now, 9)).iter().map(last_byte).collect();
        assert_eq!(picked, expected);
    }
}

#[test]
fn a_retry_goes_elsewhere_when_possible() {
    let now = Instant::now();
    let balancer = balancer(service(), vec![endpoint(1), endpoint(2)], now);
    let tried = [SocketAddr::from(([10, 0, 0, 1], 8080))];
    for random in 0..64_u64 {
        let picked = balancer.pick(&Ask { tried: &tried, ..ask(now, random << 58) }).unwrap();
        assert_eq!(last_byte(&picked), 2);
    }
    let both = [tried[0], SocketAddr::from(([10, 0, 0, 2], 8080))];
    assert!(balancer.pick(&Ask { tried: &both, ..ask(now, 1) }).is_some());
}

#[test]
fn what_was_learnt_survives_an_edit() {
    let now = Instant::now();
    let balancer = balancer(service(), vec![endpoint(1), endpoint(2)], now);
    let mut random = fastrand::Rng::with_seed(5);
    let tried = [SocketAddr::from(([10, 0, 0, 2], 8080))];
    for _ in 0..5 {
        let picked = balancer.pick(&Ask { tried: &tried, ..ask(now, random.u64(..)) }).unwrap();
        picked.flight.learn(Outcome::Failed, now, 0);
    }
    assert_eq!(balancer.ejections(), 1);
    let more = frontend(service(), vec![endpoint(3), endpoint(2), endpoint(1)]);
    balancer.update(more, &place(), now);
    let seen: HashSet<_> = shares(&balancer, now, 300).into_keys().collect();
    assert_eq!(seen, HashSet::from([2, 3]), "1 is still ejected");
}

#[test]
fn a_client_with_affinity_stays_until_its_endpoint_goes() {
    let now = Instant::now();
    let service = || Service { client_ip_affinity: Some(Duration::from_secs(60)), ..service() };
    let shared = Arc::<Shared>::default();
    let make = |n: u8| {
        let frontend = frontend(service(), (1..=n).map(endpoint).collect());
        Rc::new(Balancer::new(frontend, &place(), Arc::clone(&shared), now))
    };
    let (one, other_worker) = (make(3), make(3));
    let first = last_byte(&one.pick(&ask(now, 1)).unwrap());
    for random in 0..50 {
        assert_eq!(last_byte(&one.pick(&ask(now, random)).unwrap()), first);
        assert_eq!(last_byte(&other_worker.pick(&ask(now, random)).unwrap()), first);
    }
    one.update(frontend(service(), (1..=40).map(endpoint).collect()), &place(), now);
    assert_eq!(last_byte(&one.pick(&ask(now, 1)).unwrap()), first, "more endpoints move nobody");
    one.update(frontend(service(), (1..=40).filter(|n| *n != first).map(endpoint).collect()), &place(), now);
    assert_ne!(last_byte(&one.pick(&ask(now, 1)).unwrap()), first);
}

#[test]
fn a_session_goes_to_its_endpoint_whatever_is_known_of_it() {
    let now = Instant::now();
    let health = |last, health| Endpoint { health, ..endpoint(last) };
    let endpoints =
        vec![endpoint(1), endpoint(2), health(3, EndpointHealth::Draining), health(4, EndpointHealth::NotReady)];
    let balancer = balancer(service(), endpoints, now);
    let at = |last: u8, tried: &[SocketAddr]| {
        let ask = Ask { tried, ..ask(now, 1) };
        balancer.pick_of_session(SocketAddr::from(([10, 0, 0, last], 8080)), &ask).map(|it| last_byte(&it))
    };
    let failing = balancer.pick_of_session(SocketAddr::from(([10, 0, 0, 1], 8080)), &ask(now, 1)).unwrap();
    assert!((0..5).any(|_| failing.flight.learn(Outcome::Failed, now, 0)), "ejected");
    assert_eq!(balancer.ejected(now), 1);
    assert_eq!(at(1, &[]), Some(1), "ejected");
    assert_eq!(at(3, &[]), Some(3), "draining");
    assert_eq!(at(4, &[]), None, "not ready");
    assert_eq!(at(5, &[]), None, "gone");
    assert_eq!(at(1, &[SocketAddr::from(([10, 0, 0, 1], 8080))]), None, "tried for this request");

    // `internalTrafficPolicy: Local` holds for sessions of other nodes, too.
    let on = |last, node: &str| Endpoint { node: Some(node.into()), ..endpoint(last) };
    let local = Service { node_local_only: true, ..service() };
    let balancer = self::balancer(local, vec![on(1, "n1"), on(2, "n2")], now);
    let at = |last: u8| {
        let address = SocketAddr::from(([10, 0, 0, last], 8080));
        balancer.pick_of_session(address, &ask(now, 1)).map(|it| last_byte(&it))
    };
    assert_eq!((at(1), at(2)), (Some(1), None));
}

#[test]
fn a_mark_finds_its_endpoint_and_no_other() {
    let marked = |endpoints: Vec<Endpoint>| frontend(service(), endpoints);
    let all = marked(vec![endpoint(1), endpoint(2), endpoint(3)]);
    let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 8080));
    let mark = EndpointMark::of(&all, address(2)).unwrap();
    assert_eq!(mark.find(&all), Some(address(2)));
    assert_eq!(mark.find(&marked(vec![endpoint(3), endpoint(2)])), Some(address(2)), "others come and go");
    let health = |health| marked(vec![Endpoint { health, ..endpoint(2) }]);
    assert_eq!(mark.find(&health(EndpointHealth::Draining)), Some(address(2)));
    assert_eq!(mark.find(&health(EndpointHealth::NotReady)), None);
    let another = marked(vec![Endpoint { workload: Some("Kubernetes//Pod/shop/later".into()), ..endpoint(2) }]);
    assert_eq!(mark.find(&another), None, "another pod has the address now");
    assert_eq!(EndpointMark::of(&all, address(9)), None);
}

proptest! {
    #[test]
    fn one_endpoint_less_moves_few_keys(n in 3_u8..40, gone in 0_u8..40) {
        let gone = gone % n + 1;
        let now = Instant::now();
        let hashed = || Service { balancing: Balancing::ConsistentHash(HashKey::ClientIp), ..service() };
        let all = balancer(hashed(), (1..=n).map(endpoint).collect(), now);
        let less = balancer(hashed(), (1..=n).rev().filter(|e| *e != gone).map(endpoint).collect(), now);
        let mut moved = 0_u32;
        for key in 0..200_u64 {
            let at = |b: &Rc<Balancer>| last_byte(&b.pick(&Ask { hash: Some(key), ..ask(now, 1) }).unwrap());
            let (before, after) = (at(&all), at(&less));
            prop_assert_ne!(after, gone);
            moved += u32::from(before != gone && before != after);
        }
        prop_assert_eq!(moved, 0, "keys moved that did not have to");
    }

    #[test]
    fn whatever_happens_the_pick_is_a_usable_endpoint(
        health in proptest::collection::vec(0_u8..3, 0..12),
        events in proptest::collection::vec((any::<u64>(), 0_u8..4), 0..200),
    ) {
        let now = Instant::now();
        let kinds = [EndpointHealth::Ready, EndpointHealth::Draining, EndpointHealth::NotReady];
        let endpoints: Vec<_> = health.iter().zip(1..)
            .map(|(h, last)| Endpoint { health: kinds[usize::from(*h)], ..endpoint(last) }).collect();
        let best = endpoints.iter().map(|e| e.health).min().filter(|h| *h != EndpointHealth::NotReady);
        let balancer = balancer(service(), endpoints, now);
        for (random, event) in events {
            let picked = balancer.pick(&ask(now, random));
            prop_assert_eq!(picked.as_ref().map(|p| p.entry.health), best);
            let outcome = [Outcome::Answered, Outcome::Failed, Outcome::Overloaded, Outcome::Unknown][usize::from(event)];
            if let Some(picked) = picked {
                picked.flight.learn(outcome, now, random);
                picked.flight.finish();
            }
        }
    }
}
