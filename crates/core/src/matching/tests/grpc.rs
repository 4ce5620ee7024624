//! GRPCRoute: a test for each sentence.

use super::{Case, check};

#[test]
fn grpc_route_sentences() {
    check(&[
        Case(
            "a request matches if any one of the matches is satisfied",
            &["a grpc:foo.bar/_ h:version=2 or grpc:foo.bar.v2/_"],
            &[
                ("POST x/foo.bar/M version:2", "a"),
                ("POST x/foo.bar.v2/M", "a"),
                ("POST x/foo.bar/M", "-"),
                ("POST x/foo.bar/M version:3", "-"),
            ],
        ),
        Case(
            "if no matches are specified, every gRPC request matches",
            &["a grpc:_/_"],
            &[("POST x/foo.bar/M", "a"), ("POST x/any/Thing", "a")],
        ),
        Case(
            "a path that is no call of a method is no gRPC request",
            &["a grpc:_/_"],
            &[("GET x/", "-"), ("GET x/healthz", "-"), ("GET x/a/b/c", "-"), ("GET x//b", "-"), ("GET x/a/", "-")],
        ),
        Case(
            "service and method match exactly and with case sensitivity",
            &["a grpc:foo.Bar/Get"],
            &[
                ("POST x/foo.Bar/Get", "a"),
                ("POST x/foo.bar/Get", "-"),
                ("POST x/foo.Bar/get", "-"),
                ("POST x/foo.Bar/GetAll", "-"),
                ("POST x/foo.Barn/Get", "-"),
            ],
        ),
        Case(
            "an omitted service matches any service",
            &["a grpc:_/Get"],
            &[("POST x/foo/Get", "a"), ("POST x/bar/Get", "a"), ("POST x/bar/Put", "-")],
        ),
        Case(
            "an omitted method matches all methods of the service",
            &["a grpc:foo/_"],
            &[("POST x/foo/Get", "a"), ("POST x/foo/Put", "a"), ("POST x/bar/Get", "-")],
        ),
        Case(
            "multiple headers are ANDed",
            &["a grpc:foo/_ h:one=1 h:two=2"],
            &[("POST x/foo/M one:1 two:2", "a"), ("POST x/foo/M one:1", "-"), ("POST x/foo/M two:2", "-")],
        ),
        Case(
            "a regular expression covers the whole service or method name",
            &["a grpc:~foo[.].*/~Get.*"],
            &[
                ("POST x/foo.a/GetIt", "a"),
                ("POST x/foo/Get", "-"),
                ("POST x/my.foo.a/Get", "-"),
                ("POST x/foo.a/DoGet", "-"),
            ],
        ),
        Case(
            "precedence: characters in a matching non-wildcard hostname",
            &["wild host:*.example.com grpc:foo/Get", "whole host:a.example.com grpc:_/_"],
            &[("POST a.example.com/foo/Get", "whole"), ("POST b.example.com/foo/Get", "wild")],
        ),
        Case(
            "precedence: characters in a matching hostname",
            &["short host:*.com grpc:foo/Get", "long host:*.example.com grpc:_/_"],
            &[("POST a.example.com/foo/Get", "long"), ("POST a.org.com/foo/Get", "short")],
        ),
        Case(
            "precedence: characters in a matching service",
            &["method grpc:_/GetSomethingVeryLong", "service grpc:foo/_"],
            &[("POST x/foo/GetSomethingVeryLong", "service"), ("POST x/bar/GetSomethingVeryLong", "method")],
        ),
        Case(
            "precedence: characters in a matching method",
            &["service@1 grpc:foo/_ h:a=1", "method@2 grpc:foo/Get"],
            &[("POST x/foo/Get a:1", "method"), ("POST x/foo/Put a:1", "service")],
        ),
        Case(
            "precedence: header matches",
            &["one@1 grpc:foo/Get h:a=1", "two@2 grpc:foo/Get h:a=1 h:b=2", "none@0 grpc:foo/Get"],
            &[("POST x/foo/Get a:1 b:2", "two"), ("POST x/foo/Get a:1", "one"), ("POST x/foo/Get", "none")],
        ),
        Case(
            "ties: the oldest route based on creation timestamp",
            &["a@20 grpc:foo/Get", "b@10 grpc:foo/Get"],
            &[("POST x/foo/Get", "b")],
        ),
        Case(
            "ties: the route appearing first in alphabetical order by {namespace}/{name}",
            &["b grpc:foo/Get", "a grpc:foo/Get"],
            &[("POST x/foo/Get", "a")],
        ),
        Case(
            "ties within the route: the first matching rule",
            &["a#1 grpc:foo/Get", "a#0 grpc:foo/Get", "a#2 grpc:foo/Get"],
            &[("POST x/foo/Get", "a")],
        ),
        Case(
            "implementation-specific: an expression comes after every exact name and before an absent one",
            &["any@0 grpc:_/_", "expr@1 grpc:~f.*o/_", "exact@2 grpc:foo/_"],
            &[("POST x/foo/Get", "exact"), ("POST x/fooo/Get", "expr"), ("POST x/bar/Get", "any")],
        ),
        Case(
            "headers decide only within the same service and method",
            &["a grpc:foo/_ h:a=1 h:b=1 h:c=1", "b grpc:foo/Get"],
            &[("POST x/foo/Get a:1 b:1 c:1", "b")],
        ),
        Case(
            "a hostname that does not match keeps the rule out",
            &["a host:a.example.com grpc:_/_"],
            &[("POST b.example.com/foo/Get", "-"), ("POST a.example.com/foo/Get", "a")],
        ),
        Case(
            "a wildcard hostname matches several labels but not the apex",
            &["a host:*.example.com grpc:_/_"],
            &[("POST b.c.example.com/f/M", "a"), ("POST c.example.com/f/M", "a"), ("POST example.com/f/M", "-")],
        ),
    ]);
}
