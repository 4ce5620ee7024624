//! The `weft` command as a person calls it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::process::{Command, Output};

fn weft(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn mistakes_in_arguments_name_the_option_and_what_is_expected() {
    for (arguments, expected) in [
        (&["standalone"][..], "--dir"),
        (&["standalone", "--dir", "/nowhere/at/all"], "--dir /nowhere/at/all: not a directory"),
        (&["standalone", "--join", "primary"], "--join primary: expected HOST:PORT"),
        (
            &["standalone", "--dir", "/", "--service-range", "10.0.0.0/16", "--service-range", "10.1.0.0/16"],
            "--service-range",
        ),
        (&["standalone", "--join", "p:1", "--token", "t", "--root-hash", "abc"], "sha256:"),
        (&["node-proxy", "--node", "n", "--control", "p:1", "--admin", "0.0.0.0:15000"], "--admin must be a loopback"),
        (&["status", "--run", "/nowhere"], "is `weft standalone` running"),
    ] {
        let output = weft(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn the_examples_are_valid_and_a_mistake_is_found_with_its_line() {
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop");
    let output = weft(&["validate", shop]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let folder = tempfile::tempdir().unwrap();
    let routes = std::fs::read_to_string(format!("{shop}/30-routes.yaml")).unwrap();
    std::fs::write(folder.path().join("routes.yaml"), routes.replacen("weight: 90", "weight: many", 1)).unwrap();
    let output = weft(&["validate", folder.path().to_str().unwrap()]);
    assert!(!output.status.success());
    let said = text(&output.stdout);
    assert!(said.contains("routes.yaml:13") && said.contains("shop/catalog-canary"), "{said}");
}
