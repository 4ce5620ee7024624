//! Runs a test with the right to make network namespaces: as it is when root, else again in a user namespace.

use std::process::Command;

const INSIDE: &str = "WEFT_TEST_IN_USER_NAMESPACE";

/// Runs `test` here when this process may make namespaces; otherwise runs the test `name` of this binary again as root
/// of a new user, network and mount namespace, and fails when it fails.
pub fn with_namespaces(name: &str, test: impl FnOnce()) {
    if nix::unistd::geteuid().is_root() || std::env::var_os(INSIDE).is_some() {
        test();
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .arg(std::env::current_exe().expect("the path of this binary"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("util-linux unshare runs");
    assert!(status.success(), "{name} failed inside its user namespace");
}

/// Runs a command in the namespace of the calling thread and returns its output.
pub fn sh(line: &str) -> String {
    let out = Command::new("sh").args(["-ec", line]).output().expect("sh runs");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
