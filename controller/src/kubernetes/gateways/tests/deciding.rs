use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::kubernetes::gateways::table::{Action, Live, Outcome, Owned, Table};

const SECOND: Duration = Duration::from_secs(1);

fn plans(ours: &[&GatewayPlan]) -> Arc<Plans> {
    Arc::new(Plans { ours: ours.iter().map(|plan| (*plan).clone()).collect(), ..Plans::default() })
}

fn want(table: &mut Table, plan: &GatewayPlan) {
    let objects = if plan.accepted { wanted(plan) } else { BTreeMap::new() };
    table.want(plans(&[plan]), objects);
}

/// Does everything that is to be done now, and says what.
fn work(table: &mut Table, now: Instant) -> Vec<String> {
    let mut done = Vec::new();
    while let Some((id, action)) = table.next(now) {
        let what = match &action {
            Action::Apply(..) => "apply",
            Action::Delete(_) => "delete",
        };
        done.push(format!("{what} {:?} {}", id.kind, id.name));
        table.ended(id.clone(), &action, Outcome::Done, now);
        // What the watch brings then.
        match action {
            Action::Apply(wanted, _) => table.see(id, live(&wanted.object), now),
            Action::Delete(_) => table.gone(&id),
        }
        assert!(done.len() < 50, "{done:?}");
    }
    done
}

fn live(object: &Value) -> Live {
    let mut object = object.clone();
    object["metadata"]["uid"] = json!("live");
    object["spec"]["added"] = json!("by the API server");
    Live::of(object)
}

#[test]
fn everything_is_made_once_and_then_only_what_differs() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut plan = plan("web");
    want(&mut table, &plan);
    assert_eq!(work(&mut table, now).len(), 6);
    want(&mut table, &plan);
    assert_eq!((work(&mut table, now), table.due()), (Vec::<String>::new(), None));
    plan.ports.clear();
    want(&mut table, &plan);
    assert_eq!(work(&mut table, now), ["apply NetworkPolicy web-weft", "apply Service web-weft"]);
}

#[test]
fn what_is_removed_comes_back_and_what_is_changed_is_put_right_after_a_while() {
    let (mut table, mut now) = (Table::default(), Instant::now());
    let plan = plan("web");
    want(&mut table, &plan);
    work(&mut table, now);
    let id = Id { kind: Owned::Service, namespace: "edge".into(), name: "web-weft".into() };
    table.gone(&id);
    assert_eq!(work(&mut table, now), ["apply Service web-weft"]);

    let mut changed = live(&wanted(&plan)[&id].object);
    changed.object["spec"]["type"] = json!("NodePort");
    let mut pauses = Vec::new();
    for _ in 0..4 {
        table.see(id.clone(), changed.clone(), now);
        table.see(id.clone(), changed.clone(), now);
        assert!(work(&mut table, now).is_empty(), "not at once, however often somebody changes it");
        let due = table.due().unwrap();
        pauses.push((due - now).as_secs());
        now = due;
        assert_eq!(work(&mut table, now), ["apply Service web-weft"]);
    }
    assert_eq!(pauses, [1, 2, 4, 8]);
    // A change that is none: the API server has put it in other words, others have added something.
    table.see(id.clone(), live(&wanted(&plan)[&id].object), now);
    assert_eq!(table.due(), None);
}

#[test]
fn what_a_gateway_needs_no_more_goes_and_what_is_somebody_elses_stays() {
    let (mut table, now) = (Table::default(), Instant::now());
    let scaled = with(plan("web"), json!({ "autoscaling": { "maxReplicas": 5 } }));
    want(&mut table, &scaled);
    assert_eq!(work(&mut table, now).len(), 7);
    let foreign = Id { kind: Owned::Autoscaler, namespace: "edge".into(), name: "other".into() };
    table.see(foreign, Live::of(json!({ "metadata": { "uid": "x" } })), now);
    want(&mut table, &plan("web"));
    assert_eq!(work(&mut table, now), ["apply Deployment web-weft", "delete Autoscaler web-weft"]);

    // Of another class of ours: all under another name.
    let mut moved = plan("web");
    moved.class = "weft-internal".to_owned();
    want(&mut table, &moved);
    let done = work(&mut table, now);
    assert_eq!(done.iter().filter(|it| it.starts_with("delete")).count(), 6, "{done:?}");
    assert_eq!(done.iter().filter(|it| it.starts_with("apply")).count(), 6, "{done:?}");

    // Not accepted: what is there serves on.
    moved.accepted = false;
    want(&mut table, &moved);
    assert!(work(&mut table, now).is_empty());

    // Of somebody else's class; before that the class was only gone, which can be a mistake.
    table.want(Arc::new(Plans::default()), BTreeMap::new());
    assert!(work(&mut table, now).is_empty());
    let foreign = Plans { foreign: [moved.key.clone()].into(), ..Plans::default() };
    table.want(Arc::new(foreign), BTreeMap::new());
    assert_eq!(work(&mut table, now).len(), 6);
}

#[test]
fn what_an_earlier_gateway_of_the_name_left_goes_first() {
    let (mut table, now) = (Table::default(), Instant::now());
    let old = plan("web");
    want(&mut table, &old);
    work(&mut table, now);
    let mut new = plan("web");
    new.uid = "another".to_owned();
    want(&mut table, &new);
    let done = work(&mut table, now);
    assert_eq!(done.iter().filter(|it| it.starts_with("delete")).count(), 6, "{done:?}");
    assert_eq!(done.iter().filter(|it| it.starts_with("apply")).count(), 6, "{done:?}");
}

/// Else its pods would be whom somebody else says, with what that one may do.
#[test]
fn pods_are_made_only_with_an_account_and_roots_of_the_gateways_own() {
    for (kind, name) in [(Owned::ServiceAccount, "web-weft"), (Owned::ConfigMap, "web-weft-trust")] {
        let (mut table, now) = (Table::default(), Instant::now());
        let (plan, id) = (plan("web"), Id { kind, namespace: "edge".into(), name: name.into() });
        want(&mut table, &plan);
        let refuse = |table: &mut Table, now: Instant| {
            let mut others = Vec::new();
            while let Some((of, action)) = table.next(now) {
                if of == id {
                    table.ended(of, &action, Outcome::NotOurs("exists".to_owned()), now);
                    continue;
                }
                table.ended(of.clone(), &action, Outcome::Done, now);
                match action {
                    Action::Apply(wanted, _) => table.see(of.clone(), live(&wanted.object), now),
                    Action::Delete(_) => table.gone(&of),
                }
                others.push(of.kind);
            }
            others
        };
        let others = refuse(&mut table, now);
        assert!(others.len() == 4 && !others.contains(&Owned::Deployment), "{others:?}");
        // It goes away, and the name is the Gateway's.
        let now = table.due().unwrap();
        assert_eq!(work(&mut table, now), [format!("apply {kind:?} {name}"), "apply Deployment web-weft".to_owned()]);
        // Somebody takes it away and puts one of his own in its place.
        table.gone(&id);
        assert_eq!(refuse(&mut table, now), [Owned::Deployment]);
        let deployment = Id { kind: Owned::Deployment, namespace: "edge".into(), name: "web-weft".into() };
        assert!(table.next(now).is_none() && !table.unmade().is_empty(), "what is there serves nobody any more");
        table.see(id.clone(), live(&wanted(&plan)[&id].object), now);
        assert_eq!(table.next(now).map(|(id, _)| id), Some(deployment));
    }
}

/// A controller that has just started hasn't heard of everything.
#[test]
fn pods_that_are_there_stay_until_it_is_known_that_the_account_is_somebody_elses() {
    let (mut table, now) = (Table::default(), Instant::now());
    let plan = plan("web");
    let deployment = Id { kind: Owned::Deployment, namespace: "edge".into(), name: "web-weft".into() };
    table.see(deployment.clone(), live(&wanted(&plan)[&deployment].object), now);
    want(&mut table, &plan);
    let begun: Vec<_> = std::iter::from_fn(|| table.next(now)).collect();
    assert!(begun.len() == 5 && begun.iter().all(|(id, _)| *id != deployment), "{begun:?}");
    for (id, action) in begun {
        let object = wanted(&plan)[&id].object.clone();
        table.see(id.clone(), live(&object), now);
        table.ended(id, &action, Outcome::Done, now);
    }
    assert_eq!(work(&mut table, now), ["apply Deployment web-weft"]);
}

#[test]
fn a_refusal_is_told_and_tried_again_later_or_when_something_else_is_wanted() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut plan = plan("web");
    want(&mut table, &plan);
    while let Some((id, action)) = table.next(now) {
        let outcome = match id.kind {
            Owned::Service => Outcome::Refused("quota".to_owned()),
            _ => Outcome::Done,
        };
        table.ended(id, &action, outcome, now);
    }
    assert_eq!(table.unmade(), [(plan.key.clone(), Unmade { why: "quota".to_owned(), serves: false })].into());
    assert_eq!(table.due(), Some(now + SECOND));
    let (id, action) = table.next(now + SECOND).unwrap();
    table.ended(id, &action, Outcome::Failed("late".to_owned()), now + SECOND);
    assert_eq!(table.due(), Some(now + SECOND * 3));
    assert_eq!(table.unmade()[&plan.key].why, "quota", "what was refused still is, as far as is known");
    plan.ports.clear();
    want(&mut table, &plan);
    assert_eq!(work(&mut table, now + SECOND), ["apply NetworkPolicy web-weft", "apply Service web-weft"]);
    assert!(table.unmade().is_empty());
}

#[test]
fn what_fails_for_long_is_told_until_it_is_done() {
    let (mut table, start) = (Table::default(), Instant::now());
    let mut plan = plan("web");
    let fail = |table: &mut Table, kind: Owned, now: Instant| {
        while let Some((id, action)) = table.next(now) {
            let outcome = if id.kind == kind { Outcome::Failed("503".to_owned()) } else { Outcome::Done };
            table.ended(id, &action, outcome, now);
        }
        table.unmade().into_values().map(|unmade| (unmade.why, unmade.serves)).collect::<Vec<_>>()
    };
    let told = [("503".to_owned(), false)];
    want(&mut table, &plan);
    for second in [0, 1, 3, 7, 15] {
        assert!(fail(&mut table, Owned::Service, start + SECOND * second).is_empty(), "second {second}");
    }
    assert_eq!(fail(&mut table, Owned::Service, start + SECOND * 31), told);
    // An edit doesn't make it a new failure.
    plan.ports.clear();
    want(&mut table, &plan);
    assert!(!table.unmade().is_empty());
    assert_eq!(fail(&mut table, Owned::Service, start + SECOND * 32), told);
    let now = table.due().unwrap();
    assert_eq!(work(&mut table, now), ["apply Service web-weft"]);
    assert!(table.unmade().is_empty());
    let id = Id { kind: Owned::NetworkPolicy, namespace: "edge".into(), name: "web-weft".into() };
    table.see(id.clone(), live(&wanted(&plan)[&id].object), now);
    plan.ports = super::plan("web").ports;
    want(&mut table, &plan);
    for second in [1, 3, 7, 15] {
        let told = fail(&mut table, Owned::NetworkPolicy, now + SECOND * second);
        assert!(told.is_empty(), "one that was done in between hasn't failed for long");
    }
    let told = fail(&mut table, Owned::NetworkPolicy, now + SECOND * 40);
    assert_eq!(told, [("503".to_owned(), true)], "it is there, if not as it should be");
    table.want(plans(&[&plan]), BTreeMap::new());
    assert!(table.unmade().is_empty(), "nobody wants it any more");
}

/// Else a Gateway would say for ever what was wrong with something that it doesn't need any more.
#[test]
fn what_fails_when_it_is_not_wanted_any_more_is_not_told() {
    for outcome in [Outcome::Refused("quota".to_owned()), Outcome::NotOurs("exists".to_owned())] {
        let (mut table, now) = (Table::default(), Instant::now());
        want(&mut table, &plan("web"));
        let (id, action) = table.next(now).unwrap();
        table.want(plans(&[&plan("web")]), BTreeMap::new());
        table.ended(id, &action, outcome.clone(), now);
        assert!(table.unmade().is_empty(), "{outcome:?}");
    }
}
