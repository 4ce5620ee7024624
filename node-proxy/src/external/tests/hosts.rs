use weft_core::backend_kind::BackendKind;

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey::of_kind(BackendKind::XBackend, "shop", name)
}

fn wanted(list: &[(&str, &str)]) -> BTreeMap<ServiceKey, External> {
    let external = |(name, host): &(&str, &str)| {
        let host = (*host).to_owned();
        (key(name), External { host, port_name: SectionName::new(""), port: Port::new(443).unwrap() })
    };
    list.iter().map(external).collect()
}

fn good(addresses: &[&str], ttl: u64) -> Result<Answer, Failure> {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Ok(Answer { addresses, ttl: Duration::from_secs(ttl) })
}

fn silence() -> Result<Answer, Failure> {
    Err(Failure::Unanswered("no answer".to_owned()))
}

/// The endpoints that are told, by the backend; `gone` for one that is removed.
fn told(hosts: &mut Hosts, now: Instant) -> Vec<String> {
    let show = |change: Change| match change {
        Change::Upsert(Resource::EndpointSlice(slice)) => {
            let addresses: Vec<_> = slice.endpoints.iter().map(|it| it.address.to_string()).collect();
            format!("{} {}", slice.service.object().1, addresses.join(","))
        }
        Change::Remove(ResourceKey::EndpointSlice(key)) => format!("{} gone", key.name),
        other => panic!("{other:?}"),
    };
    hosts.changes(now, |ip| !ip.is_loopback()).into_iter().map(show).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_host_is_asked_for_once_for_all_backends_and_again_when_its_answer_is_old() {
    let (mut hosts, now) = (Hosts::default(), Instant::now());
    hosts.want(wanted(&[("a", "x.com"), ("b", "x.com"), ("c", "y.com")]), now);
    assert_eq!(told(&mut hosts, now), ["a ", "b ", "c "]);
    assert_eq!(hosts.next(now), ["x.com", "y.com"]);
    assert!(hosts.next(now).is_empty(), "it is asked for already");
    assert!(hosts.answered("x.com", good(&["192.0.2.2", "192.0.2.1", "127.0.0.1"], 60), now));
    assert_eq!(told(&mut hosts, now), ["a 192.0.2.1,192.0.2.2", "b 192.0.2.1,192.0.2.2"], "and none that may not be");
    assert!(hosts.next(now + 59 * SECOND).is_empty());
    assert_eq!(hosts.next(now + 60 * SECOND), ["x.com"]);
    assert!(!hosts.answered("x.com", good(&["127.0.0.1", "192.0.2.1", "192.0.2.2"], 60), now + 60 * SECOND));
    assert!(told(&mut hosts, now).is_empty(), "the order is nobody's wish");
    hosts.want(wanted(&[("b", "x.com")]), now);
    assert_eq!(told(&mut hosts, now), ["XBackend:a gone", "XBackend:c gone"]);
    hosts.answered("y.com", good(&["192.0.2.9"], 60), now);
    hosts.want(wanted(&[]), now);
    assert_eq!((told(&mut hosts, now), hosts.due()), (vec!["XBackend:b gone".to_owned()], None));
}

#[test]
fn the_last_good_answer_stays_for_a_while_when_nobody_answers() {
    let (mut hosts, mut now) = (Hosts::default(), Instant::now());
    hosts.want(wanted(&[("a", "x.com")]), now);
    hosts.next(now);
    hosts.answered("x.com", good(&["192.0.2.1"], 60), now);
    assert_eq!(told(&mut hosts, now), ["a 192.0.2.1"]);
    let end = now + 60 * SECOND + STALE;
    let mut pauses = Vec::new();
    now += 60 * SECOND;
    for _ in 0..6 {
        assert_eq!(hosts.next(now), ["x.com"]);
        hosts.answered("x.com", silence(), now);
        let due = hosts.due().unwrap();
        pauses.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 30, 30]);
    assert!(told(&mut hosts, end - SECOND).is_empty());
    hosts.next(now);
    assert_eq!(hosts.due(), Some(end), "nobody need answer for it to end");
    assert_eq!(told(&mut hosts, end), ["a "]);
    hosts.answered("x.com", good(&["192.0.2.1"], 60), end);
    assert_eq!(told(&mut hosts, end), ["a 192.0.2.1"]);
}

#[test]
fn a_host_that_is_gone_is_gone_at_once() {
    let (mut hosts, now) = (Hosts::default(), Instant::now());
    hosts.want(wanted(&[("a", "x.com")]), now);
    hosts.next(now);
    hosts.answered("x.com", good(&["192.0.2.1"], 60), now);
    told(&mut hosts, now);
    hosts.next(now + 60 * SECOND);
    assert!(hosts.answered("x.com", Err(Failure::NoSuchHost), now + 60 * SECOND));
    assert_eq!(told(&mut hosts, now + 60 * SECOND), ["a "]);
    assert_eq!(hosts.due(), Some(now + 60 * SECOND + NEGATIVE));
}

#[test]
fn answers_have_limits_and_so_have_questions() {
    let (mut hosts, now) = (Hosts::default(), Instant::now());
    let names: Vec<_> = (0..40).map(|n| (format!("b{n:02}"), format!("h{n:02}.com"))).collect();
    let all: Vec<_> = names.iter().map(|(name, host)| (name.as_str(), host.as_str())).collect();
    hosts.want(wanted(&all), now);
    assert_eq!(hosts.next(now).len(), AT_ONCE);
    assert_eq!((hosts.next(now).len(), hosts.due()), (0, None), "there is no room");
    hosts.answered("h00.com", good(&["192.0.2.1"], 0), now);
    assert_eq!(hosts.due(), Some(now), "the next one has its turn");
    assert_eq!(hosts.next(now), ["h16.com"]);
    let (mut hosts, day) = (Hosts::default(), 86_400);
    hosts.want(wanted(&all[..1]), now);
    for (ttl, due) in [(0, TTL.0), (day, TTL.1)] {
        hosts.next(now + TTL.1);
        hosts.answered("h00.com", good(&["192.0.2.1"], ttl), now);
        assert_eq!(hosts.due(), Some(now + due), "{ttl}");
    }
}
