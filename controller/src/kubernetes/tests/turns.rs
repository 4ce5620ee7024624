use weft_k8s::object::{Kind, ObjectStatus};

use tokio::task::JoinSet;

use super::*;
use crate::kubernetes::desired::Desired;
use crate::kubernetes::subject::Subject;

fn wanted(kind: Kind, name: &str) -> Wanted {
    Wanted {
        target: Target { resource: Subject::Object(kind).resource("v1"), namespace: "shop".into(), name: name.into() },
        uid: "1".into(),
        generation: 1,
        desired: Desired::Entries(ObjectStatus::Parents(Vec::new())),
        confirms: false,
    }
}

fn confirmation(kind: Kind, name: &str) -> Wanted {
    Wanted { confirms: true, ..wanted(kind, name) }
}

/// Turns, whose writes are begun and ended by hand.
#[derive(Default)]
struct Begun {
    turns: Turns,
    tasks: JoinSet<()>,
}

impl Begun {
    /// Begins the next write, if there is one.
    fn next(&mut self, now: Instant) -> Option<(String, Id, Wanted)> {
        let (wanted, _) = self.turns.next(now)?;
        let id = self.tasks.spawn(async {}).id();
        self.turns.began(id, wanted.target.clone());
        Some((wanted.target.name.clone(), id, wanted))
    }

    /// Writes all that may be written now.
    fn write(&mut self, now: Instant) -> Vec<String> {
        let mut names = Vec::new();
        while let Some((name, id, _)) = self.next(now) {
            self.turns.ended(id, now);
            names.push(name);
        }
        names
    }
}

#[tokio::test]
async fn what_tells_of_many_comes_first_in_half_of_the_places() {
    let (mut begun, mut order, now) = (Begun::default(), Vec::new(), Instant::now());
    for name in ["route-1", "route-2", "route-3"] {
        begun.turns.add(wanted(Kind::HttpRoute, name), now);
    }
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        begun.turns.add(wanted(Kind::Gateway, name), now);
    }
    let mut begin = |begun: &mut Begun| {
        let (name, id, _) = begun.next(Instant::now()).unwrap();
        order.push(name);
        id
    };
    let first = begin(&mut begun);
    (0..3).for_each(|_| _ = begin(&mut begun));
    // A newer status of what is under way waits for its end, and has its turn after those of its like.
    begun.turns.add(wanted(Kind::Gateway, "gateway-1"), now);
    begun.turns.ended(first, Instant::now());
    (0..3).for_each(|_| _ = begin(&mut begun));
    assert_eq!(order, ["gateway-1", "gateway-2", "route-1", "route-2", "gateway-3", "route-3", "gateway-1"]);
    assert!(begun.next(Instant::now()).is_none());
}

#[tokio::test]
async fn one_object_is_confirmed_at_a_pace_and_many_objects_are_at_once() {
    let (mut begun, start) = (Begun::default(), Instant::now());
    let names: Vec<_> = (0..500).map(|n| format!("route-{n}")).collect();
    names.iter().for_each(|name| begun.turns.add(confirmation(Kind::HttpRoute, name), start));
    assert_eq!(begun.write(start), names, "each of them once");

    let soon = start + CONFIRMED / 5;
    for generation in 2..9 {
        begun.turns.add(Wanted { generation, ..confirmation(Kind::HttpRoute, "route-7") }, soon);
    }
    begun.turns.add(confirmation(Kind::HttpRoute, "another"), soon);
    begun.turns.add(confirmation(Kind::Gateway, "of-many"), soon);
    assert_eq!(begun.write(soon), ["of-many", "another"]);
    begun.turns.add(confirmation(Kind::Gateway, "of-many"), soon);
    assert_eq!(begun.write(soon), ["of-many"]);
    assert_eq!((begun.turns.waiting(), begun.turns.due()), (1, Some(start + CONFIRMED)));
    let (name, id, written) = begun.next(start + CONFIRMED).unwrap();
    assert_eq!((name.as_str(), written.generation), ("route-7", 8), "the latest of seven");

    // What comes while it is written is the next, and that isn't at once.
    begun.turns.add(confirmation(Kind::HttpRoute, "route-7"), start + CONFIRMED);
    begun.turns.ended(id, start + CONFIRMED);
    assert_eq!(begun.write(start + CONFIRMED * 2 - Duration::from_millis(1)), [""; 0]);
    assert_eq!(begun.write(start + CONFIRMED * 2), ["route-7"]);
    assert_eq!((begun.turns.waiting(), begun.turns.due()), (0, None));

    let later = start + CONFIRMED * 4;
    begun.turns.add(confirmation(Kind::HttpRoute, "route-7"), later);
    assert_eq!(begun.write(later), ["route-7"], "after a rest");
    assert_eq!(
        (begun.turns.confirmed.last.len(), begun.turns.confirmed.in_order.len()),
        (1, 1),
        "others are forgotten"
    );
}

#[tokio::test]
async fn news_do_not_wait_with_the_confirmation_that_they_replace() {
    let (mut begun, now) = (Begun::default(), Instant::now());
    begun.turns.add(confirmation(Kind::HttpRoute, "route"), now);
    assert_eq!(begun.write(now), ["route"]);
    begun.turns.add(confirmation(Kind::HttpRoute, "route"), now);
    assert_eq!(begun.write(now), [""; 0]);
    begun.turns.add(wanted(Kind::HttpRoute, "route"), now);
    assert_eq!(begun.write(now), ["route"]);
    assert_eq!((begun.turns.waiting(), begun.turns.due()), (0, None));
    begun.turns.add(wanted(Kind::HttpRoute, "route"), now);
    assert_eq!(begun.write(now), ["route"], "however soon");
}

#[tokio::test]
async fn a_confirmation_that_fails_has_its_pause_and_who_leads_no_more_has_nothing_to_say() {
    let (mut begun, now) = (Begun::default(), Instant::now());
    begun.turns.add(confirmation(Kind::HttpRoute, "route"), now);
    let (_, id, failed) = begun.next(now).unwrap();
    begun.turns.failed(id, failed, 0, now);
    begun.turns.add(wanted(Kind::HttpRoute, "route"), now);
    assert_eq!(begun.write(now + PAUSES.0 / 4), [""; 0]);
    assert_eq!(begun.write(now + PAUSES.0), ["route"]);

    begun.turns.add(wanted(Kind::HttpRoute, "due"), now);
    begun.turns.add(wanted(Kind::Gateway, "due"), now);
    begun.turns.add(confirmation(Kind::HttpRoute, "held"), now);
    begun.next(now).unwrap();
    begun.turns.add(confirmation(Kind::HttpRoute, "route"), now);
    begun.turns.forget();
    assert_eq!((begun.turns.waiting(), begun.turns.due(), begun.write(now + CONFIRMED)), (0, None, Vec::new()));
}
