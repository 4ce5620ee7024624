//! Listener isolation, as a table.

use std::sync::Arc;

use crate::ids::{GatewayKey, ListenerKey};
use crate::matching::{ListenerChoice, ListenerTable, Named};
use crate::route::HostnameMatch;

struct Host(ListenerKey, Option<HostnameMatch>);

impl Named for Host {
    fn key(&self) -> &ListenerKey {
        &self.0
    }

    fn hostname(&self) -> Option<&HostnameMatch> {
        self.1.as_ref()
    }
}

fn key(name: &str) -> ListenerKey {
    ListenerKey::new(GatewayKey::new("ns", "gw"), name)
}

/// Listeners whose names are their hostnames; `any` has none.
fn table(names: &[&str]) -> ListenerTable<Host> {
    let hostname = |name: &str| (name != "any").then(|| HostnameMatch::new(name));
    ListenerTable::new(names.iter().map(|name| Arc::new(Host(key(name), hostname(name)))))
}

#[test]
fn the_most_specific_listener_hostname_owns_a_request_alone() {
    let all = ["any", "*.example.com", "*.foo.example.com", "abc.foo.example.com"];
    for (listeners, host, want) in [
        (&all[..], "bar.com", "any"),
        (&all, "example.com", "any"),
        (&all, "bar.example.com", "*.example.com"),
        (&all, "foo.example.com", "*.example.com"),
        (&all, "bar.foo.example.com", "*.foo.example.com"),
        (&all, "abc.foo.example.com", "abc.foo.example.com"),
        (&all, "x.abc.foo.example.com", "*.foo.example.com"),
        (&all, "", "any"),
        (&all[1..], "bar.com", ""),
        (&all[1..], "example.com", ""),
        (&all[1..], "", ""),
        (&["*.com", "*.a.com"], "b.a.com", "*.a.com"),
        (&["*.com", "*.a.com"], ".a.com", "*.com"),
    ] {
        let table = table(listeners);
        let found = table.find(host).map_or("", |listener| listener.0.name.as_str());
        assert_eq!(found, want, "{host} among {listeners:?}");
    }
}

#[test]
fn a_request_for_another_listener_than_its_connection_is_misdirected() {
    let table = table(&["second-example.org", "*.wildcard.org", "fourth-example.wildcard.org"]);
    for (connection, host, want) in [
        ("second-example.org", "second-example.org", "second-example.org"),
        ("second-example.org", "unknown-example.org", "none"),
        ("second-example.org", "third-example.wildcard.org", "misdirected"),
        ("*.wildcard.org", "third-example.wildcard.org", "*.wildcard.org"),
        ("*.wildcard.org", "fifth-example.wildcard.org", "*.wildcard.org"),
        ("*.wildcard.org", "fourth-example.wildcard.org", "misdirected"),
        ("fourth-example.wildcard.org", "third-example.wildcard.org", "misdirected"),
        ("*.wildcard.org", "unknown-example.org", "none"),
    ] {
        let found = match table.of_request(host, Some(&key(connection))) {
            ListenerChoice::Listener(listener) => listener.0.name.as_str(),
            ListenerChoice::Misdirected => "misdirected",
            ListenerChoice::None => "none",
        };
        assert_eq!(found, want, "{host} on a connection to {connection}");
        let plain = table.of_request(host, None);
        assert!(!matches!(plain, ListenerChoice::Misdirected), "without TLS a connection is nobody's");
    }
}

#[test]
fn another_version_of_a_listener_stands_where_it_stood_and_no_other_moves() {
    let before = table(&["any", "*.example.com", "a.com"]);
    let newer = Arc::new(Host(key("a.com"), Some(HostnameMatch::new("a.com"))));
    let after = before.with(&newer).unwrap();
    assert!(Arc::ptr_eq(after.find("a.com").unwrap(), &newer) && !Arc::ptr_eq(before.find("a.com").unwrap(), &newer));
    assert!(Arc::ptr_eq(after.find("b.com").unwrap(), before.find("b.com").unwrap()));
    assert_eq!(after.iter().count(), 3);
    // One that isn't in use: it has another's hostname, or one that nobody has.
    for host in ["*.example.com", "b.com"] {
        assert!(before.with(&Arc::new(Host(key("other"), Some(HostnameMatch::new(host))))).is_none(), "{host}");
    }
}
