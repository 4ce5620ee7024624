//! What is sent again, and what some may not see.

use super::*;

#[tokio::test]
async fn only_where_a_type_is_restricted_is_anything_hidden() {
    let world = World::with_door(Publisher::default(), true);
    world.publisher.publish([set("t", "secret-1", "1"), set("t", "a", "1"), set("open", "secret-2", "1")]);
    let (mut handle, mut contents) = world.client(&["t", "open"]);
    until(&mut handle.status, |s| s.synced).await;
    let names = |contents: &Contents| contents.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&contents.borrow()), ["open secret-2", "t a"]);
    world.publisher.publish([set("t", "secret-1", "2"), Update::Remove(name("open", "secret-2"))]);
    until(&mut contents, |c| c.len() == 1).await;
    assert_eq!(names(&contents.borrow()), ["t a"]);
}

#[tokio::test]
async fn who_asks_by_name_for_what_it_refused_is_sent_it_again() {
    for restricted in [false, true] {
        let mut world = World::with_door(Publisher::default(), restricted);
        world.publisher.publish([set("t", "a", "bad"), set("t", "b", "1")]);
        let (handle, _contents) = world.client(&["t"]);
        for _ in 0..3 {
            match world.event(|e| matches!(e, Event::Nacked { .. } | Event::Mended { .. })).await {
                Event::Nacked { refused, .. } => {
                    assert_eq!(refused.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["a"]);
                }
                other => panic!("{other:?}"),
            }
            handle.demands.send(Demand::Subscribe(name("t", "a"))).await.unwrap();
            handle.demands.send(Demand::Unsubscribe(name("t", "a"))).await.unwrap();
        }
        // All of the type is still what the client asks for.
        world.publisher.publish([set("t", "a", "good")]);
        let mended = world.event(|e| matches!(e, Event::Mended { .. })).await;
        assert_eq!(mended, Event::Mended { type_url: TypeUrl::new("t"), names: vec!["a".into()] });
    }
}

#[tokio::test]
async fn what_comes_at_once_is_told_in_the_order_that_the_client_asked_in() {
    let world = World::new(Publisher::default());
    let (mut handle, mut contents) = world.client(&["z", "m", "a"]);
    until(&mut handle.status, |s| s.synced).await;
    world.publisher.publish(["a", "m", "z"].map(|type_url| set(type_url, "one", "1")));
    let mut seen = Vec::new();
    while seen.len() < 3 {
        within(contents.changed()).await.unwrap();
        let now: Vec<_> = contents.borrow_and_update().keys().map(|name| name.type_url.to_string()).collect();
        assert!(["z", "m", "a"].iter().take(now.len()).all(|first| now.iter().any(|it| it == first)), "{now:?}");
        seen = now;
    }
}
