//! What single paths are read as.

use super::*;

fn read(path: &str, kind: PathType, target: Option<&str>) -> Result<(Match, Option<Change>, bool), String> {
    let rewrite = target.map(|target| Rewrite { pattern: None, target: target.into() });
    let reading = Reading {
        controller: Controller::Nginx,
        expressions: rewrite.is_some(),
        mixed: false,
        rewrite: rewrite.as_ref(),
    };
    plan(path, kind, reading).map(|plan| (plan.matched, plan.change, plan.differs.is_some()))
}

fn prefix(path: &str) -> Match {
    Match::Prefix(path.into())
}

#[test]
fn without_expressions_a_path_is_what_its_type_says() {
    use PathType::{Exact, ImplementationSpecific, Prefix};
    assert_eq!(read("/a", Exact, None), Ok((Match::Exact("/a".into()), None, false)));
    assert_eq!(read("/a/", Prefix, None), Ok((prefix("/a/"), None, false)));
    assert_eq!(read("/a", ImplementationSpecific, None), Ok((prefix("/a"), None, true)));
    assert_eq!(read("/", ImplementationSpecific, None), Ok((prefix("/"), None, false)));
    assert_eq!(read("", Prefix, None), Ok((prefix("/"), None, false)));
    assert!(read("a", Prefix, None).is_err());
    assert!(read("/a//b", Prefix, None).is_err());
}

#[test]
fn what_a_rewrite_captures_and_puts_back_is_a_prefix() {
    let onto = |path: &str| Some(Change::Prefix(path.into()));
    for (path, target, matched, change, differs) in [
        ("/api(/|$)(.*)", "/$2", "/api", onto("/"), false),
        ("/api(/|$)(.*)$", "/$2", "/api", onto("/"), false),
        ("^/api(/|$)(.*)", "/v1/$2", "/api", onto("/v1"), false),
        ("/a/b(/(.*))?", "/c/$2", "/a/b", onto("/c"), false),
        ("/api(/.*)?", "$1", "/api", onto("/"), false),
        ("/api(/.*)?", "/v1$1", "/api", onto("/v1"), false),
        ("/api/(.*)", "/$1", "/api", onto("/"), true),
        ("/api/(.*)", "/v1/$1", "/api", onto("/v1"), true),
        ("/api/?(.*)", "/$1", "/api", onto("/"), true),
        ("/api(.*)", "/v1$1", "/api", onto("/v1"), true),
        ("/v1\\.0/(.*)", "/$1", "/v1.0", onto("/"), true),
        ("/(.*)", "/app/$1", "/", onto("/app"), false),
        ("/(.*)", "/$1", "/", None, false),
        ("/(api/.*)", "/$1", "/api", None, true),
        ("(/api.*)", "$1", "/api", None, true),
    ] {
        let expected = Ok((prefix(matched), change, differs));
        assert_eq!(read(path, PathType::ImplementationSpecific, Some(target)), expected, "{path} {target}");
    }
}

#[test]
fn a_rewrite_without_a_capture_replaces_the_whole_path() {
    let full = |path: &str| Some(Change::Full(path.into()));
    assert_eq!(read("/a", PathType::Prefix, Some("/")), Ok((prefix("/a"), full("/"), true)));
    assert_eq!(read("/", PathType::Prefix, Some("/x")), Ok((prefix("/"), full("/x"), false)));
    assert_eq!(read("/", PathType::Prefix, Some("/")), Ok((prefix("/"), None, false)));
}

#[test]
fn what_no_rewrite_can_say_is_an_error() {
    for (path, target) in [
        ("/a/([0-9]+)/(.*)", "/$2/$1"),
        ("/api(/|$)(.*)", "$2"),
        ("/api(/|$)(.*)", "/$1"),
        ("/api/(.*)", "/v1$1"),
        ("/[ab](/|$)(.*)", "/$2"),
        ("/a(/|$)(.*)", "/$2?x=$2"),
        ("/a(/|$)(.*)", "https://b.com/$2"),
    ] {
        assert!(read(path, PathType::ImplementationSpecific, Some(target)).is_err(), "{path} {target}");
    }
}

#[test]
fn a_path_whose_rewrite_cannot_be_said_is_refused() {
    let rewrite = Rewrite { pattern: None, target: "/$2/$1".into() };
    let reading = Reading { controller: Controller::Nginx, expressions: true, mixed: false, rewrite: Some(&rewrite) };
    let (plan, why) = plan_or_refuse("/a/([0-9]+)/(.*)", PathType::Prefix, reading).unwrap();
    assert_eq!(plan.matched, Match::Expression("(?i)/a/([0-9]+)/(.*)".into()));
    assert!(plan.change == Some(Change::Refused) && why.is_some());
    assert!(plan_or_refuse("/a(?!b)/(.*)", PathType::Prefix, reading).is_err());
}

#[test]
fn expressions_stay_expressions_and_take_the_others_with_them() {
    let reading = |mixed| Reading { controller: Controller::Nginx, expressions: true, mixed, rewrite: None };
    let read = |path: &str, mixed| plan(path, PathType::Prefix, reading(mixed)).map(|plan| plan.matched);
    let expression = |text: &str| Ok(Match::Expression(text.into()));
    assert_eq!(read("/[a-z]+/x", false), expression("(?i)/[a-z]+/x.*"));
    assert_eq!(read("/a/[0-9]+$", false), expression("(?i)/a/[0-9]+"));
    assert_eq!(read("^/a/.*", false), expression("(?i)/a/.*"));
    assert_eq!(read("/a", false), Ok(prefix("/a")));
    assert_eq!(read("/a", true), expression("(?i)/a.*"));
    assert_eq!(read("/", true), Ok(prefix("/")));
    assert!(read("/a(?!b)", false).unwrap_err().contains("look-around"));
}

#[test]
fn patterns_of_a_load_balancer_are_for_the_whole_path() {
    let reading = Reading { controller: Controller::Alb, expressions: false, mixed: false, rewrite: None };
    let read = |path: &str| plan(path, PathType::ImplementationSpecific, reading).map(|plan| plan.matched);
    assert_eq!(read("/*"), Ok(prefix("/")));
    assert_eq!(read("/a/*"), Ok(prefix("/a")));
    assert_eq!(read("/a"), Ok(Match::Exact("/a".into())));
    assert_eq!(read("/a/*/b.?"), Ok(Match::Expression("/a/.*/b\\..".into())));
}

#[test]
fn a_rewrite_with_a_pattern_of_its_own_has_to_fit_the_rule() {
    let read = |path: &str, pattern: &str, target: &str| {
        let rewrite = Rewrite { pattern: Some(pattern.into()), target: target.into() };
        let reading =
            Reading { controller: Controller::HaproxyTech, expressions: false, mixed: false, rewrite: Some(&rewrite) };
        plan(path, PathType::Prefix, reading).map(|plan| (plan.matched, plan.change))
    };
    let onto = |path: &str| Some(Change::Prefix(path.into()));
    assert_eq!(read("/foo", "/foo/(.*)", "/$1"), Ok((prefix("/foo"), onto("/"))));
    assert_eq!(read("/foo/bar", "/foo/(.*)", "/$1"), Ok((prefix("/foo/bar"), onto("/bar"))));
    assert_eq!(read("/bar", "(.*)", "/foo$1"), Ok((prefix("/bar"), onto("/foo/bar"))));
    assert!(read("/bar", "/foo/(.*)", "/$1").is_err());
}
