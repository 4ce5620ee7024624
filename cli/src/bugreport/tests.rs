use std::io::Read as _;

use super::archive::{Archive, file_name};
use super::redact::{patterns, redacted};

const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIJx5nOtReal\nAwEHoUQ\n-----END EC PRIVATE KEY-----";
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl";

#[test]
fn what_looks_like_a_secret_is_taken_out_wherever_it_stands() {
    assert_eq!(patterns(), 8, "all patterns can be read");
    for (text, secret, kept) in [
        (format!("before\n{KEY}\nafter"), "MHcCAQEEIJx5nOtReal", "after"),
        (format!("key: {}", KEY.replace('\n', "\\n")), "AwEHoUQ", "key: "),
        (KEY[..50].to_owned() + " cut off here", "MHcCAQEEI", ""),
        (format!("asked with {JWT} by x"), "c2lnbmF0dXJl", " by x"),
        ("authorization: Bearer abcdefgh12345\nnext".to_owned(), "abcdefgh12345", "next"),
        ("sent Bearer abcdefgh12345 along".to_owned(), "abcdefgh12345", "along"),
        ("Cookie: session=abc; other=def\nnext".to_owned(), "abc", "next"),
        (r#"{"cookie":"a=1; b=\"s3cr3t\"","user":"ann"}"#.to_owned(), "s3cr3t", "ann"),
        (r#"{"Set-Cookie": ["sid=[abc]", "b=s3cr3t"], "user": "ann"}"#.to_owned(), "s3cr3t", "ann"),
        (r#"{"authorization":"Digest response=6629fae4","user":"ann"}"#.to_owned(), "6629fae4", "ann"),
        (r#"{"message":"{\"cookie\":\"sid=abc\",\"a\":1}","user":"ann"}"#.to_owned(), "sid=abc", "ann"),
        (r#"{"password":"hunter2","user":"ann"}"#.to_owned(), "hunter2", "ann"),
        (r#"{\"api_key\":\"k-123\",\"a\":1}"#.to_owned(), "k-123", "a"),
        ("WEFT_JOIN_TOKEN=s3cr3t-join other=1".to_owned(), "s3cr3t-join", "other=1"),
        ("weft standalone --join p:1 --token s3cr3t --run /x".to_owned(), "s3cr3t", "--run /x"),
        ("clientSecret: s3cr3t\nname: x".to_owned(), "s3cr3t", "name: x"),
    ] {
        let clean = redacted("logs/x.txt", &text);
        assert!(!clean.contains(secret) && clean.contains(kept), "{text}: {clean}");
    }
}

#[test]
fn what_is_none_stays() {
    for text in [
        "weft_kube_token_reviews_total{result=\"ok\"} 5",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "GET /items 503 no_endpoint",
        "--token-file /var/run/secrets/tokens/weft",
    ] {
        assert_eq!(redacted("metrics.txt", text), text);
    }
}

#[test]
fn values_of_headers_in_policies_stay_here() {
    let dump = r#"{"authorizationPolicies":[{"rules":[{"to":[{"paths":[{"Exact":"/x"}],
        "headers":[{"name":"x-partner","values":[{"Exact":"shared-words"}],"not_values":[{"Exact":"other-words"}]}]}]}]}]}"#;
    let clean = redacted("proxies/n1/config_dump.json", dump);
    assert!(!clean.contains("shared-words") && !clean.contains("other-words"), "{clean}");
    assert!(clean.contains("x-partner") && clean.contains("/x"), "{clean}");
}

#[test]
fn a_report_is_a_folder_of_files_without_secrets() {
    let mut archive = Archive::new("report");
    archive.add("logs/a.txt", &format!("started\n{KEY}\n{JWT}\n"));
    archive.add(&format!("proxies/{}/metrics.txt", file_name("gateway edge/../x")), "weft_up 1\n");
    let bytes = archive.finish().unwrap();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let mut files = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert!(!text.contains("PRIVATE KEY") && !text.contains("eyJ"), "{path}: {text}");
        files.push(path);
    }
    assert_eq!(files, ["report/logs/a.txt", "report/proxies/gateway_edge_.._x/metrics.txt"]);
}
