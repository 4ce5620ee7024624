use proptest::prelude::*;

use super::*;

#[test]
fn a_path_has_one_form() {
    for (raw, normal) in [
        ("", "/"),
        ("/", "/"),
        ("*", "*"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//a///b", "/a/b"),
        ("///", "/"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/../b", "/b"),
        ("/a/b/../", "/a/"),
        ("/a/%2e%2E/b", "/b"),
        ("/%61dmin", "/admin"),
        ("/%7euser", "/~user"),
        ("/a%20b", "/a%20b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a...b/..c", "/a...b/..c"),
        ("/a;x=1/b", "/a;x=1/b"),
    ] {
        assert_eq!(path(raw).map(|it| it.text.into_owned()), Ok(normal.into()), "{raw}");
    }
}

#[test]
fn a_path_without_one_meaning_is_refused() {
    for (raw, why) in [
        ("a/b", InvalidPath::NotAbsolute),
        ("/a b", InvalidPath::Character),
        ("/a\\b", InvalidPath::Character),
        ("/a\0", InvalidPath::Character),
        ("/a#b", InvalidPath::Character),
        ("/a?b", InvalidPath::Character),
        ("/é", InvalidPath::Character),
        ("/a%", InvalidPath::Escape),
        ("/a%2", InvalidPath::Escape),
        ("/a%zz", InvalidPath::Escape),
        ("/a%00", InvalidPath::EncodedControl),
        ("/a%0d%0aX:1", InvalidPath::EncodedControl),
        ("/..", InvalidPath::AboveRoot),
        ("/a/../../b", InvalidPath::AboveRoot),
        ("/%2e%2e/b", InvalidPath::AboveRoot),
        ("/a/..;/b", InvalidPath::DotParameter),
        ("/a/.;x=1/b", InvalidPath::DotParameter),
    ] {
        assert_eq!(path(raw), Err(why), "{raw}");
    }
}

#[test]
fn an_encoded_separator_stays_and_is_marked() {
    for raw in ["/a%2Fb", "/a%2fb", "/a%5Cb", "/a/..%2fb"] {
        let normal = path(raw).unwrap();
        assert!(normal.ambiguous, "{raw}");
        assert_eq!(normal.text, raw.replace("%2f", "%2F"), "{raw}");
    }
    assert!(!path("/a%20b").unwrap().ambiguous);
    assert_eq!(path("/a%2Fb/..").unwrap(), NormalPath { text: Cow::Borrowed("/"), ambiguous: false });
}

#[test]
fn a_normal_path_is_not_copied() {
    assert!(matches!(path("/a/b.c/d%20e").unwrap().text, Cow::Borrowed(_)));
    assert!(matches!(path("/a/.b").unwrap().text, Cow::Borrowed(_)));
}

#[test]
fn a_host_has_one_form() {
    for (raw, normal) in [
        ("example.com", "example.com"),
        ("Example.COM", "example.com"),
        ("example.com:8080", "example.com"),
        ("example.com:", "example.com"),
        ("example.com.", "example.com"),
        ("example.com.:443", "example.com"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("[0:0::1]", "[::1]"),
        ("[FD00::A]", "[fd00::a]"),
        ("under_score", "under_score"),
    ] {
        assert_eq!(host(raw).as_deref(), Ok(normal), "{raw}");
    }
}

#[test]
fn a_host_without_one_meaning_is_refused() {
    for (raw, why) in [
        ("", InvalidHost::Empty),
        (".", InvalidHost::Empty),
        (":80", InvalidHost::Empty),
        ("user@example.com", InvalidHost::UserInfo),
        ("example.com:x", InvalidHost::Port),
        ("example.com:+80", InvalidHost::Port),
        ("example.com:65536", InvalidHost::Port),
        ("example.com:80:80", InvalidHost::Port),
        ("a b", InvalidHost::Character),
        ("a/b", InvalidHost::Character),
        ("a,b", InvalidHost::Character),
        ("é.com", InvalidHost::Character),
        ("[::1", InvalidHost::Port),
        ("[1]", InvalidHost::Character),
        ("[::1%eth0]", InvalidHost::Character),
        ("[::1]x", InvalidHost::Character),
        ("a..b", InvalidHost::EmptyLabel),
        (".a", InvalidHost::EmptyLabel),
        ("a..", InvalidHost::EmptyLabel),
    ] {
        assert_eq!(host(raw), Err(why), "{raw}");
    }
}

proptest! {
    #[test]
    fn path_is_idempotent_and_never_panics(raw in "(/|\\.|\\.\\.|%2[eEfF]|%5c|%41|%|;|a|é|\\PC|\0){0,12}") {
        for raw in [raw.clone(), format!("/{raw}")] {
            if let Ok(normal) = path(&raw) {
                let again = path(&normal.text).unwrap();
                prop_assert_eq!(&again, &normal);
                prop_assert!(!normal.text.contains("//") && !normal.text.contains("/../") && !normal.text.contains("/./"));
            }
        }
    }

    #[test]
    fn host_is_idempotent_and_never_panics(raw in "(a|B|\\.|:|[0-9]|\\[|\\]|::1|@|\\PC){0,10}") {
        if let Ok(normal) = host(&raw) {
            prop_assert_eq!(host(&normal), Ok(normal.clone()));
            prop_assert!(!normal.ends_with('.') && !normal.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
    }
}
