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
            self.turns.ended(id);
            names.push(name);
        }
        names
    }
}

#[tokio::test]
async fn what_tells_of_many_comes_first_in_half_of_the_places() {
    let (mut begun, mut order) = (Begun::default(), Vec::new());
    for name in ["route-1", "route-2", "route-3"] {
        begun.turns.add(wanted(Kind::HttpRoute, name));
    }
    for name in ["gateway-1", "gateway-2", "gateway-3"] {
        begun.turns.add(wanted(Kind::Gateway, name));
    }
    let mut begin = |begun: &mut Begun| {
        let (name, id, _) = begun.next(Instant::now()).unwrap();
        order.push(name);
        id
    };
    let first = begin(&mut begun);
    (0..3).for_each(|_| _ = begin(&mut begun));
    // A newer status of what is under way waits for its end, and has its turn after those of its like.
    begun.turns.add(wanted(Kind::Gateway, "gateway-1"));
    begun.turns.ended(first);
    (0..3).for_each(|_| _ = begin(&mut begun));
    assert_eq!(order, ["gateway-1", "gateway-2", "route-1", "route-2", "gateway-3", "route-3", "gateway-1"]);
    assert!(begun.next(Instant::now()).is_none());
}

#[tokio::test]
async fn confirmations_have_a_pace_and_news_have_none() {
    let (mut begun, (each, at_once), start) = (Begun::default(), CONFIRMATIONS, Instant::now());
    let count = at_once + 3;
    (0..count).for_each(|n| begun.turns.add(confirmation(Kind::HttpRoute, &format!("route-{n}"))));
    let names = |from: u32, to: u32| (from..to).map(|n| format!("route-{n}")).collect::<Vec<_>>();
    assert_eq!(begun.write(start), names(0, at_once), "as many at once");
    assert_eq!(begun.turns.due(start), Some(start + each));

    begun.turns.add(wanted(Kind::HttpRoute, "news"));
    begun.turns.add(confirmation(Kind::Gateway, "of-many"));
    assert_eq!(begun.write(start), ["of-many", "news"]);
    assert_eq!(begun.write(start + each), names(at_once, at_once + 1));
    assert_eq!(begun.write(start + each * 3 / 2), [""; 0]);
    assert_eq!(begun.write(start + each * 9), names(at_once + 1, count), "what wasn't used isn't lost");
    assert_eq!((begun.turns.due(start), begun.turns.waiting()), (None, 0));
    let much_later = start + each * at_once * 3;
    (0..count).for_each(|n| begun.turns.add(confirmation(Kind::HttpRoute, &format!("route-{n}"))));
    assert_eq!(begun.write(much_later).len(), at_once as usize, "after a rest");
}

#[tokio::test]
async fn the_latest_of_an_object_is_written_once_and_news_do_not_wait_with_what_they_replace() {
    let (mut begun, (each, at_once), start) = (Begun::default(), CONFIRMATIONS, Instant::now());
    (0..at_once).for_each(|n| begun.turns.add(confirmation(Kind::HttpRoute, &format!("route-{n}"))));
    begun.write(start);
    // A route that changes all the time is confirmed once for many changes.
    for generation in 2..9 {
        begun.turns.add(Wanted { generation, ..confirmation(Kind::HttpRoute, "churn") });
    }
    let (name, churn, written) = begun.next(start + each).unwrap();
    assert_eq!((name.as_str(), written.generation), ("churn", 8));
    // What comes while it is written waits for its end, and then for its pace.
    begun.turns.add(confirmation(Kind::HttpRoute, "churn"));
    assert_eq!(begun.write(start + each * 4), [""; 0]);
    begun.turns.ended(churn);
    assert_eq!(begun.write(start + each * 4), ["churn"]);

    begun.write(start + each * 4);
    (0..at_once).for_each(|n| begun.turns.add(confirmation(Kind::HttpRoute, &format!("route-{n}"))));
    let before = begun.write(start + each * 4).len();
    begun.turns.add(wanted(Kind::HttpRoute, "route-99"));
    assert_eq!(begun.write(start + each * 4), ["route-99"], "now it says something else");
    // Its place among the confirmations is gone with it.
    assert_eq!(before + begun.write(start + each * at_once * 2).len(), at_once as usize - 1);
    assert_eq!((begun.turns.waiting(), begun.turns.due(start)), (0, None));
}

#[tokio::test]
async fn a_confirmation_that_fails_has_its_pause() {
    let (mut begun, start) = (Begun::default(), Instant::now());
    begun.turns.add(confirmation(Kind::HttpRoute, "route"));
    let (_, id, failed) = begun.next(start).unwrap();
    begun.turns.failed(id, failed, 0, start);
    begun.turns.add(wanted(Kind::HttpRoute, "route"));
    assert_eq!(begun.write(start + PAUSES.0 / 4), [""; 0]);
    assert_eq!(begun.write(start + PAUSES.0), ["route"]);
    assert_eq!(begun.turns.waiting(), 0);
}
