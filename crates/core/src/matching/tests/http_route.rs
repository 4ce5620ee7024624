//! HTTPRoute: a case for each sentence of the API's documentation and of its conformance tests.

use super::{Case, Request, check, table};

#[test]
fn hostname_sentences() {
    check(&[
        Case("a route without hostnames matches any host", &["a /"], &[("GET x.com/", "a"), ("GET /", "a")]),
        Case(
            "a hostname matches the whole host",
            &["a host:a.com /"],
            &[("GET a.com/", "a"), ("GET b.a.com/", "-"), ("GET a.com.org/", "-"), ("GET com/", "-"), ("GET /", "-")],
        ),
        Case("hostnames are case-insensitive", &["a host:A.Com /"], &[("GET a.com/", "a")]),
        Case(
            "*.example.com matches test.example.com and foo.test.example.com, but not example.com",
            &["a host:*.example.com /"],
            &[
                ("GET test.example.com/", "a"),
                ("GET foo.test.example.com/", "a"),
                ("GET example.com/", "-"),
                ("GET testexample.com/", "-"),
                ("GET test.example.com.org/", "-"),
            ],
        ),
        Case(
            "any of several hostnames matches",
            &["a host:a.com host:*.b.com /"],
            &[("GET a.com/", "a"), ("GET x.b.com/", "a"), ("GET b.com/", "-")],
        ),
        Case(
            "an address is a host like any other",
            &["a host:10.0.0.1 /", "b host:*.0.0.1 /x"],
            &[("GET 10.0.0.1/", "a"), ("GET 10.0.0.1/x", "a")],
        ),
        Case(
            "precedence: largest number of characters in a matching non-wildcard hostname",
            &["wild@0 host:*.example.com =/x", "whole@9 host:a.example.com /"],
            &[("GET a.example.com/x", "whole"), ("GET b.example.com/x", "wild")],
        ),
        Case(
            "precedence: a short whole hostname comes before a long wildcard",
            &["wild@0 host:*.b.example.com /", "whole@9 host:a.b.example.com /"],
            &[("GET a.b.example.com/", "whole")],
        ),
        Case(
            "precedence: largest number of characters in a matching hostname",
            &["short@0 host:*.com =/x", "long@9 host:*.example.com /", "any@0 =/x"],
            &[("GET a.example.com/x", "long"), ("GET example.com/x", "short"), ("GET example.org/x", "any")],
        ),
        Case(
            "a rule of a less specific hostname answers what no rule of the more specific one matches",
            &["wild host:*.example.com /wild", "whole host:a.example.com /whole", "any /any"],
            &[
                ("GET a.example.com/wild", "wild"),
                ("GET a.example.com/whole", "whole"),
                ("GET a.example.com/any", "any"),
                ("GET b.example.com/whole", "-"),
            ],
        ),
        Case(
            "if ties exist across routes, the precedence of matches takes over",
            &["a@0 host:a.com /", "b@9 host:a.com /x"],
            &[("GET a.com/x", "b"), ("GET a.com/y", "a")],
        ),
        Case(
            "the same hostname twice in a route changes nothing",
            &["a host:a.com host:a.com /"],
            &[("GET a.com/", "a")],
        ),
    ]);
}

#[test]
fn exact_path_sentences() {
    check(&[
        Case(
            "an exact match on /abc matches only /abc, not /abc/, /Abc or /abcd",
            &["a =/abc"],
            &[
                ("GET x/abc", "a"),
                ("GET x/abc/", "-"),
                ("GET x/Abc", "-"),
                ("GET x/abcd", "-"),
                ("GET x/abc/d", "-"),
                ("GET x/", "-"),
            ],
        ),
        Case("an exact match on /abc/ matches only /abc/", &["a =/abc/"], &[("GET x/abc/", "a"), ("GET x/abc", "-")]),
        Case("an exact match on / matches only /", &["a =/"], &[("GET x/", "a"), ("GET x/a", "-")]),
        Case("the query is no part of the path", &["a =/abc"], &[("GET x/abc?a=b", "a"), ("GET x/abc?", "a")]),
        Case(
            "percent-encodings are compared as they stand",
            &["a =/a%20b", "b =/a%2Fb"],
            &[("GET x/a%20b", "a"), ("GET x/a%2Fb", "b"), ("GET x/a/b", "-")],
        ),
    ]);
}

#[test]
fn prefix_path_sentences() {
    check(&[
        Case(
            "the paths /abc, /abc/ and /abc/def match the prefix /abc, but /abcd does not",
            &["a /abc"],
            &[
                ("GET x/abc", "a"),
                ("GET x/abc/", "a"),
                ("GET x/abc/def", "a"),
                ("GET x/abcd", "-"),
                ("GET x/ab", "-"),
                ("GET x/", "-"),
            ],
        ),
        Case(
            "a trailing / of the prefix is ignored",
            &["a /abc/"],
            &[("GET x/abc", "a"), ("GET x/abc/", "a"), ("GET x/abc/def", "a"), ("GET x/abcd", "-")],
        ),
        Case(
            "/v2 matches /v2/ and /v2/x, not /v2example",
            &["v1 /", "v2 /v2"],
            &[
                ("GET x/v2", "v2"),
                ("GET x/v2/", "v2"),
                ("GET x/v2/x", "v2"),
                ("GET x/v2example", "v1"),
                ("GET x/", "v1"),
            ],
        ),
        Case("matching is case-sensitive", &["a /abc"], &[("GET x/ABC", "-"), ("GET x/Abc/def", "-")]),
        Case(
            "a prefix of several elements matches element by element",
            &["a /a/b"],
            &[("GET x/a/b", "a"), ("GET x/a/b/c", "a"), ("GET x/a", "-"), ("GET x/a/bc", "-"), ("GET x/a/c/b", "-")],
        ),
        Case(
            "the prefix / matches every request",
            &["a /"],
            &[("GET x/", "a"), ("GET x/a/b/c", "a"), ("GET /", "a"), ("OPTIONS x*", "a")],
        ),
        Case(
            "if no matches are specified, the default is a prefix match on /",
            &["a"],
            &[("GET x/", "a"), ("POST x/any", "a")],
        ),
        Case("a prefix does not match in the middle of a path", &["a /b"], &[("GET x/a/b", "-")]),
        Case("a path that is only slashes matches nothing but the root", &["a /a", "root /"], &[("GET x//", "root")]),
    ]);
}

#[test]
fn regex_path_sentences() {
    check(&[
        Case(
            "an expression covers the whole path",
            &["a ~/v[0-9]+"],
            &[("GET x/v1", "a"), ("GET x/v12", "a"), ("GET x/v1/x", "-"), ("GET x/x/v1", "-"), ("GET x/v", "-")],
        ),
        Case("an expression is case-sensitive", &["a ~/abc"], &[("GET x/abc", "a"), ("GET x/ABC", "-")]),
        Case(
            "implementation-specific: Exact comes before an expression",
            &["re@0 ~/a.*", "exact@9 =/abc"],
            &[("GET x/abc", "exact"), ("GET x/abd", "re")],
        ),
        Case(
            "implementation-specific: an expression comes before a prefix",
            &["prefix@0 /abc/def", "re@9 ~/abc.*", "root@0 /"],
            &[("GET x/abc/def/g", "re"), ("GET x/x", "root")],
        ),
        Case(
            "implementation-specific: the longer expression comes first",
            &["short@0 ~/a.*", "long@9 ~/ab+.*"],
            &[("GET x/abc", "long"), ("GET x/acc", "short")],
        ),
        Case(
            "alternatives stay inside the anchors",
            &["a ~/a|/b"],
            &[("GET x/a", "a"), ("GET x/b", "a"), ("GET x/a/b", "-"), ("GET x/c/b", "-")],
        ),
    ]);
}

#[test]
fn method_sentences() {
    check(&[
        Case(
            "a route with a method matches only requests of that method",
            &["a / POST"],
            &[("POST x/", "a"), ("GET x/", "-"), ("PUT x/", "-")],
        ),
        Case("HEAD is not GET", &["a / GET"], &[("GET x/", "a"), ("HEAD x/", "-")]),
        Case("methods are case-sensitive", &["a / GET"], &[("get x/", "-")]),
        Case("a custom method can be matched", &["a / PURGE"], &[("PURGE x/", "a"), ("GET x/", "-")]),
        Case(
            "without a method every method matches",
            &["a /"],
            &[("GET x/", "a"), ("DELETE x/", "a"), ("CONNECT x/", "a"), ("TRACE x/", "a")],
        ),
        Case("method and path are ANDed", &["a /p POST"], &[("POST x/p", "a"), ("GET x/p", "-"), ("POST x/q", "-")]),
    ]);
}

#[test]
fn header_sentences() {
    check(&[
        Case(
            "a header matches exactly",
            &["a / h:version=one"],
            &[
                ("GET x/ version:one", "a"),
                ("GET x/ version:two", "-"),
                ("GET x/ version:onetwo", "-"),
                ("GET x/", "-"),
            ],
        ),
        Case(
            "name matching is case-insensitive",
            &["a / h:Version=one"],
            &[("GET x/ VERSION:one", "a"), ("GET x/ version:one", "a")],
        ),
        Case("value matching is case-sensitive", &["a / h:version=one"], &[("GET x/ version:One", "-")]),
        Case(
            "multiple headers are ANDed",
            &["a / h:version=one h:color=blue"],
            &[
                ("GET x/ version:one color:blue", "a"),
                ("GET x/ color:blue version:one", "a"),
                ("GET x/ version:one", "-"),
                ("GET x/ version:one color:red", "-"),
            ],
        ),
        Case(
            "matches are ORed",
            &["a / h:color=blue or / h:color=green"],
            &[("GET x/ color:blue", "a"), ("GET x/ color:green", "a"), ("GET x/ color:red", "-"), ("GET x/", "-")],
        ),
        Case("other headers do not matter", &["a / h:version=one"], &[("GET x/ version:one other:x", "a")]),
        Case(
            "an expression covers the whole value",
            &["a / h:version~v[0-9]"],
            &[("GET x/ version:v1", "a"), ("GET x/ version:v12", "-"), ("GET x/ version:xv1", "-")],
        ),
        Case(
            "a repeated header is one with the values joined by commas",
            &["a / h:v=1,2"],
            &[
                ("GET x/ v:1 v:2", "a"),
                ("GET x/ v:1,2", "a"),
                ("GET x/ v:2 v:1", "-"),
                ("GET x/ v:1", "-"),
                ("GET x/ v:1 v:2 v:3", "-"),
            ],
        ),
        Case(
            "one of several values is not the value",
            &["a / h:v=1"],
            &[("GET x/ v:1 v:2", "-"), ("GET x/ v:2 v:1", "-")],
        ),
        Case(
            "an expression sees the values joined by commas",
            &["a / h:v~1,.*"],
            &[("GET x/ v:1 v:2", "a"), ("GET x/ v:2 v:1", "-")],
        ),
        Case(
            "cookies are joined by semicolons",
            &["a / h:cookie~a=1;.b=2"],
            &[("GET x/ cookie:a=1 cookie:b=2", "a"), ("GET x/ cookie:a=1,b=2", "-")],
        ),
        Case("an empty value is a value", &["a / h:v~.*"], &[("GET x/ v:", "a"), ("GET x/", "-")]),
    ]);
}

#[test]
fn query_sentences() {
    check(&[
        Case(
            "a query parameter matches exactly",
            &["a / q:animal=whale"],
            &[
                ("GET x/?animal=whale", "a"),
                ("GET x/?animal=dog", "-"),
                ("GET x/?animal=whales", "-"),
                ("GET x/", "-"),
                ("GET x/?", "-"),
            ],
        ),
        Case(
            "names are exact, not case-insensitive",
            &["a / q:animal=whale"],
            &[("GET x/?ANIMAL=whale", "-"), ("GET x/?Animal=whale", "-")],
        ),
        Case("values are case-sensitive", &["a / q:animal=whale"], &[("GET x/?animal=Whale", "-")]),
        Case(
            "multiple parameters are ANDed",
            &["a / q:animal=dolphin q:color=blue"],
            &[
                ("GET x/?animal=dolphin&color=blue", "a"),
                ("GET x/?color=blue&animal=dolphin", "a"),
                ("GET x/?animal=dolphin", "-"),
            ],
        ),
        Case(
            "matches are ORed",
            &["a / q:a=1 or / q:b=2"],
            &[("GET x/?a=1", "a"), ("GET x/?b=2", "a"), ("GET x/?a=2&b=1", "-")],
        ),
        Case(
            "other parameters are ignored",
            &["a / q:animal=whale"],
            &[("GET x/?otherparam=irrelevant&animal=whale", "a")],
        ),
        Case(
            "if a parameter is repeated the first value counts",
            &["a / q:a=1"],
            &[("GET x/?a=1&a=2", "a"), ("GET x/?a=2&a=1", "-")],
        ),
        Case(
            "values are compared percent-decoded too",
            &["a / q:a=x/y"],
            &[("GET x/?a=x/y", "a"), ("GET x/?a=x%2Fy", "a"), ("GET x/?a=x%2fy", "a"), ("GET x/?a=x%252Fy", "-")],
        ),
        Case(
            "names are compared percent-decoded too",
            &["a / q:a.b=1"],
            &[("GET x/?a%2Eb=1", "a"), ("GET x/?a%2=1", "-")],
        ),
        Case(
            "a value that is configured encoded matches as it stands",
            &["a / q:a=x%20y"],
            &[("GET x/?a=x%20y", "a"), ("GET x/?a=x+y", "-")],
        ),
        Case(
            "a parameter without a value has the empty one",
            &["a / q:flag~.*"],
            &[("GET x/?flag", "a"), ("GET x/?flag=", "a"), ("GET x/?flags", "-")],
        ),
        Case(
            "an expression covers the whole value",
            &["a / q:a~[0-9]+"],
            &[("GET x/?a=12", "a"), ("GET x/?a=12x", "-"), ("GET x/?a=%312", "a")],
        ),
    ]);
}

#[test]
fn precedence_sentences() {
    check(&[
        Case(
            "exact beats prefix",
            &["prefix@0 /a/b", "exact@9 =/a/b"],
            &[("GET x/a/b", "exact"), ("GET x/a/b/", "prefix")],
        ),
        Case(
            "the prefix with the largest number of characters wins",
            &["s@0 /a", "m@1 /a/b", "l@2 /a/b/c"],
            &[("GET x/a/b/c/d", "l"), ("GET x/a/b/d", "m"), ("GET x/a/c", "s"), ("GET x/b", "-")],
        ),
        Case(
            "regardless of the order of the rules",
            &["r#0 /a", "r#1 /a/b", "r#2 =/a/b/c"],
            &[("GET x/a/b/c", "r#2"), ("GET x/a/b/x", "r#1"), ("GET x/a/x", "r")],
        ),
        Case(
            "a trailing slash makes no prefix longer",
            &["young@9 /match/", "old@0 /match"],
            &[("GET x/match", "old"), ("GET x/match/", "old"), ("GET x/match/a", "old")],
        ),
        Case("path beats method", &["method@0 /a GET", "path@9 /a/b"], &[("GET x/a/b", "path"), ("GET x/a", "method")]),
        Case(
            "path beats headers",
            &["headers@0 / h:a=1 h:b=2 h:c=3", "path@9 /v2"],
            &[("GET x/v2 a:1 b:2 c:3", "path"), ("GET x/ a:1 b:2 c:3", "headers")],
        ),
        Case("path beats query parameters", &["query@0 / q:a=1 q:b=2", "path@9 /v2"], &[("GET x/v2?a=1&b=2", "path")]),
        Case(
            "method beats headers",
            &["headers@0 /a h:a=1 h:b=2", "method@9 /a PATCH"],
            &[("PATCH x/a a:1 b:2", "method"), ("GET x/a a:1 b:2", "headers")],
        ),
        Case(
            "method beats query parameters",
            &["query@0 /a q:a=1", "method@9 /a PATCH"],
            &[("PATCH x/a?a=1", "method"), ("GET x/a?a=1", "query")],
        ),
        Case(
            "the largest number of header matches wins",
            &["one@0 /a h:a=1", "two@9 /a h:a=1 h:b=2"],
            &[("GET x/a a:1 b:2", "two"), ("GET x/a a:1", "one")],
        ),
        Case(
            "headers beat query parameters",
            &["query@0 /a q:a=1 q:b=2 q:c=3", "header@9 /a h:a=1"],
            &[("GET x/a?a=1&b=2&c=3 a:1", "header"), ("GET x/a?a=1&b=2&c=3", "query")],
        ),
        Case(
            "the largest number of query parameter matches wins",
            &["one@0 /a q:a=1", "two@9 /a q:a=1 q:b=2"],
            &[("GET x/a?a=1&b=2", "two"), ("GET x/a?a=1", "one")],
        ),
        Case(
            "all of it holds for exact paths",
            &["plain@0 =/a", "method@1 =/a GET", "headers@2 =/a h:a=1", "query@3 =/a q:a=1"],
            &[
                ("GET x/a?a=1 a:1", "method"),
                ("PUT x/a?a=1 a:1", "headers"),
                ("PUT x/a?a=1", "query"),
                ("PUT x/a", "plain"),
            ],
        ),
        Case(
            "and for the catch-all",
            &["plain@0 /", "method@1 / GET", "headers@2 / h:a=1", "query@3 / q:a=1"],
            &[
                ("GET x/a?a=1 a:1", "method"),
                ("PUT x/a?a=1 a:1", "headers"),
                ("PUT x/a?a=1", "query"),
                ("PUT x/a", "plain"),
            ],
        ),
        Case(
            "precedence is of matches, not of rules",
            &["r#0 /a or =/b", "r#1 =/a or /b"],
            &[("GET x/a", "r#1"), ("GET x/b", "r"), ("GET x/a/x", "r"), ("GET x/b/x", "r#1")],
        ),
        Case(
            "precedence holds across all rules of applicable routes",
            &["one#0 / h:version=one", "one#1 /v2", "two#0 / h:version=two", "two#1 /v2/example"],
            &[
                ("GET x/v2/example", "two#1"),
                ("GET x/v2/other", "one#1"),
                ("GET x/ version:two", "two"),
                ("GET x/v2/example version:one", "two#1"),
            ],
        ),
        Case(
            "a longer prefix whose headers fail gives way to a shorter one",
            &["long /a/b h:v=1", "short /a"],
            &[("GET x/a/b", "short"), ("GET x/a/b v:1", "long")],
        ),
        Case(
            "an exact path whose method fails gives way to a prefix",
            &["exact =/a POST", "prefix /a"],
            &[("GET x/a", "prefix"), ("POST x/a", "exact")],
        ),
        Case("ties: the oldest route based on creation timestamp", &["a@20 /x", "b@10 /x"], &[("GET x/x", "b")]),
        Case(
            "ties: the route appearing first in alphabetical order by {namespace}/{name}",
            &["b/a@5 /x", "a/b@5 /x", "a/c@5 /x"],
            &[("GET x/x", "a/b")],
        ),
        Case(
            "ties: the order is of the text, in which - comes before /",
            &["a/x@5 /x", "a-b/x@5 /x"],
            &[("GET x/x", "a-b/x")],
        ),
        Case("ties: the name alone does not decide before the age", &["a@20 /x", "z@10 /x"], &[("GET x/x", "z")]),
        Case(
            "ties within a route: the first matching rule in list order",
            &["r#2 /x", "r#1 /x", "r#10 /x"],
            &[("GET x/x", "r#1")],
        ),
        Case(
            "no rule matches: none",
            &["a /a", "b =/b", "c / h:c=1", "d / q:d=1", "e / POST"],
            &[("GET x/", "-"), ("GET x/ab", "-"), ("GET x/b/", "-")],
        ),
        Case("an empty table matches nothing", &[], &[("GET x/", "-")]),
    ]);
}

#[test]
fn the_match_and_the_prefix_that_held_are_told() {
    let table = table(&["r /a/ or =/b or ~/c.* or /"]);
    for (request, match_index, prefix_len) in [
        ("GET x/a", 0, Some(2)),
        ("GET x/a/b", 0, Some(2)),
        ("GET x/b", 1, None),
        ("GET x/cc", 2, None),
        ("GET x/d", 3, Some(0)),
    ] {
        let request = Request::new(request);
        let found = table.find(&request.facts()).unwrap();
        assert_eq!((found.match_index, found.prefix_len), (match_index, prefix_len), "{request:?}");
    }
}

#[test]
fn a_deep_or_long_path_costs_no_more_than_the_deepest_prefix() {
    let table = table(&["r /a/b"]);
    let deep = format!("GET x/{}", "a/".repeat(4000));
    assert!(table.find(&Request::new(&deep).facts()).is_none());
    let deep = format!("GET x/a/b/{}", "a/".repeat(4000));
    assert_eq!(table.find(&Request::new(&deep).facts()).unwrap().prefix_len, Some(4));
}

#[test]
fn many_paths_of_one_host_are_told_apart_as_few_are() {
    for count in [1, 4, 5, 100] {
        let prefixes = (0..count).map(|n| format!("prefix-{n} host:a.com /p/{n}"));
        let exact = (0..count).map(|n| format!("exact-{n} host:a.com =/e/{n} or =/e/{n}/f"));
        let rules: Vec<_> = prefixes.chain(exact).collect();
        let table = table(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        let name = |path: String| {
            let request = Request::new(&format!("GET a.com{path}"));
            table.find(&request.facts()).map(|it| it.rule.key.route.name.to_string())
        };
        for n in 0..count {
            let (prefix, exact) = (Some(format!("prefix-{n}")), Some(format!("exact-{n}")));
            assert_eq!((name(format!("/p/{n}")), name(format!("/p/{n}/x"))), (prefix.clone(), prefix));
            assert_eq!((name(format!("/e/{n}")), name(format!("/e/{n}/f"))), (exact.clone(), exact));
        }
        assert_eq!(
            (name(format!("/p/{count}")), name(format!("/e/{count}")), name("/e/0/g".into())),
            (None, None, None)
        );
    }
}
