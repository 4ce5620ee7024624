//! A stream without a connection.

use bytes::Bytes;

use super::super::Publisher;
use super::*;
use crate::{Encoded, ResourceName, Update};

#[test]
fn a_nack_is_read_by_the_names_that_were_sent() {
    let names: Vec<Arc<str>> = ["HTTPRoute/shop/a/0", "HTTPRoute/shop/b/0", "c"].map(Arc::from).into();
    let read = |words: &str| -> Vec<(String, String)> {
        named_in(words, &names).into_iter().map(|r| (r.name.to_string(), r.reason)).collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        read("HTTPRoute/shop/a/0: weight: too large; host: empty; c: odd"),
        [pair("HTTPRoute/shop/a/0", "weight: too large; host: empty"), pair("c", "odd")]
    );
    assert_eq!(read("another: said c: x"), []);
    assert_eq!(read("no name at all"), []);
}

fn set(type_url: &str, name: &str, bytes: usize) -> Update {
    let name = ResourceName::new(TypeUrl::new(type_url), name);
    Update::Set(Encoded { name, body: Bytes::from(vec![0; bytes]) })
}

/// What is sent now: the types, and whether more of each is to come.
fn sent(stream: &mut Stream, publisher: &Publisher) -> Vec<(String, bool, String)> {
    let state = publisher.read();
    stream.catch_up(&state).unwrap();
    let everything = |_: &TypeUrl| None::<fn(&TypeUrl, &str) -> bool>;
    std::iter::from_fn(|| stream.next_response(&state, everything))
        .map(|it| (it.type_url, it.system_version_info.ends_with(MORE), it.nonce))
        .collect()
}

#[test]
fn no_type_is_told_before_the_rest_of_those_that_it_may_refer_to() {
    let publisher = Publisher::default();
    publisher.publish([set("first", "a", MAX_BYTES), set("first", "b", 1), set("then", "c", 1)]);
    let mut stream = Stream::default();
    let hear = |stream: &mut Stream, type_url: &str, nonce: &str| {
        let subscribe = if nonce.is_empty() { vec![WILDCARD.to_owned()] } else { vec![] };
        let request = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: subscribe,
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        stream.on_request(&request, &publisher.read())
    };
    let told = |type_url: &str, more: bool, nonce: &str| (type_url.to_owned(), more, nonce.to_owned());
    hear(&mut stream, "first", "");
    hear(&mut stream, "then", "");
    assert_eq!(sent(&mut stream, &publisher), [told("first", true, "1")]);
    hear(&mut stream, "first", "1");
    // The rest is on its way, and arrives before.
    assert_eq!(sent(&mut stream, &publisher), [told("first", false, "2"), told("then", false, "3")]);
    hear(&mut stream, "then", "3");
    publisher.publish([set("then", "c", 2)]);
    assert_eq!(sent(&mut stream, &publisher), [told("then", false, "4")], "nobody waits for an answer alone");
    hear(&mut stream, "then", "4");
    publisher.publish([set("first", "b", 2), set("then", "c", 3)]);
    assert_eq!(sent(&mut stream, &publisher), [], "the new `then` may refer to the new `first`");
    hear(&mut stream, "first", "2");
    assert_eq!(sent(&mut stream, &publisher), [told("first", false, "5"), told("then", false, "6")]);
}

#[test]
fn who_has_asked_for_nothing_has_nothing() {
    let (mut stream, publisher) = (Stream::default(), Publisher::default());
    publisher.publish([set("t", "a", 1)]);
    assert!(sent(&mut stream, &publisher).is_empty());
    assert!(stream.synced().is_none() && !stream.has("t"));
    stream.on_request(&DeltaDiscoveryRequest { type_url: "t".to_owned(), ..Default::default() }, &publisher.read());
    assert!(stream.has("t"));
    assert_eq!(stream.synced(), Some(publisher.sequence()));
}

#[test]
fn the_names_of_all_types_together_are_limited() {
    let (mut stream, publisher) = (Stream::default(), Publisher::default());
    let mut ask = |type_url: &str, count: usize| {
        let names = (0..count).map(|n| n.to_string()).collect();
        let request = DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        stream.on_request(&request, &publisher.read())
    };
    // A name that is asked for is kept as such, and with the version that the client has.
    for type_url in ["a", "b"] {
        assert_eq!(ask(type_url, MAX_NAMES / 4), Heard::Subscription);
    }
    assert_eq!(ask("c", 1), Heard::TooMuch);
}

#[test]
fn a_stream_has_so_many_types_and_goes_on_with_those_that_it_has() {
    let (mut stream, publisher) = (Stream::default(), Publisher::default());
    let mut ask = |n: usize| {
        let request = DeltaDiscoveryRequest { type_url: format!("t{n}"), ..DeltaDiscoveryRequest::default() };
        stream.on_request(&request, &publisher.read())
    };
    for n in 0..MAX_TYPES {
        assert_eq!(ask(n), Heard::Subscription);
    }
    assert_eq!((ask(MAX_TYPES), ask(0)), (Heard::TooMuch, Heard::Subscription));
}
