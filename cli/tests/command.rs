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
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let output = command.args(["version", "--client"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop");
    let output = Command::new(env!("CARGO_BIN_EXE_weft")).args(["validate", shop]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
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

/// Runs with nothing in PATH but what is in `path`, and no cluster.
fn alone(program: &std::path::Path, path: &std::path::Path, arguments: &[&str]) -> Output {
    let kubeconfig = path.join("no-kubeconfig");
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path).env("HOME", path).env("KUBECONFIG", kubeconfig);
    command.output().unwrap()
}

fn weft_path() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_weft"))
}

#[test]
fn helm_gets_the_chart_and_its_absence_is_said_with_another_way() {
    let folder = tempfile::tempdir().unwrap();
    let output = alone(weft_path(), folder.path(), &["install"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("no `helm` in PATH") && said.contains("--write-chart DIR"), "{said}");
    let chart = folder.path().join("chart");
    let output = alone(weft_path(), folder.path(), &["install", "--write-chart", chart.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(chart.join("templates/node-proxy.yaml").is_file());
    let helm = folder.path().join("helm");
    std::fs::write(&helm, "#!/bin/sh\necho \"$@\"\n/bin/ls \"$4\" 2>/dev/null\nexit 3\n").unwrap();
    std::fs::set_permissions(&helm, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = alone(weft_path(), folder.path(), &["install", "--set", "image.tag=1"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "the ending of Helm is ours");
    assert!(said.starts_with("upgrade --install weft ") && said.contains("--set image.tag=1"), "{said}");
    assert!(said.contains("\nvalues.schema.json\n"), "Helm sees the chart: {said}");
    let output = alone(weft_path(), folder.path(), &["uninstall", "--mesh-namespace", "m"]);
    assert!(text(&output.stdout).starts_with("uninstall weft --namespace m"), "{}", text(&output.stdout));
}

#[test]
fn a_cluster_that_cannot_be_asked_is_neither_right_nor_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["check"][..],
        &["check", "--pre", "-o", "json"],
        &["status", "--context", "c"],
        &["check", "--strict", "shop"],
    ] {
        let output = alone(weft_path(), folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("kubeconfig"), "{}", text(&output.stderr));
    }
    // Nobody listens at the address.
    let kubeconfig = folder.path().join("kubeconfig");
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n\
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n";
    std::fs::write(&kubeconfig, config).unwrap();
    let output = alone(weft_path(), folder.path(), &["--kubeconfig", kubeconfig.to_str().unwrap(), "check", "--pre"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("weft: the API server: "), "{}", text(&output.stderr));
    let output = alone(
        weft_path(),
        folder.path(),
        &["--context", "none", "--kubeconfig", kubeconfig.to_str().unwrap(), "check"],
    );
    assert!(text(&output.stderr).contains("context none"), "{}", text(&output.stderr));
    let output = alone(weft_path(), folder.path(), &["version"]);
    assert!(output.status.success() && text(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn as_a_plugin_of_kubectl_its_usage_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-weft");
    std::os::unix::fs::symlink(weft_path(), &plugin).unwrap();
    let said = text(&alone(&plugin, folder.path(), &["enroll", "--help"]).stdout);
    assert!(said.contains("Usage: kubectl weft enroll [OPTIONS] <NAMESPACE>"), "{said}");
    let said = text(&alone(weft_path(), folder.path(), &["enroll", "--help"]).stdout);
    assert!(said.contains("Usage: weft enroll [OPTIONS] <NAMESPACE>"), "{said}");
}

#[test]
fn uninstall_of_a_directory_leaves_the_cluster_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = alone(weft_path(), folder.path(), &["uninstall", "--cni-dir", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn migrate_writes_files_and_says_what_it_left_out_and_ends_accordingly() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  namespace: shop\n  \
        annotations: {nginx.ingress.kubernetes.io/limit-rps: '5'}\nspec:\n  ingressClassName: nginx\n  rules:\n  - host: \
        a.com\n    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}\n";
    std::fs::write(at("ingress.yaml"), ingress).unwrap();
    let output = weft(&["migrate", "ingress", &at("ingress.yaml"), "--out", &at("made"), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("\"left-out\"") && said.contains("nginx.ingress.kubernetes.io/limit-rps"), "{said}");
    let files = ["00-gateways.yaml", "20-a.com.yaml"].map(|name| folder.path().join("made").join(name));
    assert!(files.iter().all(|file| file.is_file()));
    // What is there already could be mistaken for what is made.
    let output = weft(&["migrate", "ingress", &at("ingress.yaml"), "--out", &at("made")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("isn't empty"), "{}", text(&output.stderr));
    let output = weft(&["migrate", "ingress", &at("ingress.yaml"), "--accept-omissions"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"));
    assert!(text(&output.stderr).contains("1 settings not translated"), "{}", text(&output.stderr));
    for arguments in
        [&["migrate", "ingress"][..], &["migrate", "ingress", "/nowhere"], &["migrate", "ingress", &at("made")]]
    {
        assert_eq!(weft(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn migrate_istio_ends_with_what_it_left_out_and_writes_a_file_for_each_step_of_a_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {spec}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{istio-injection: enabled}}}}\n"
        )
    };
    std::fs::write(at("whole.yaml"), policy("{}")).unwrap();
    let output = weft(&["migrate", "istio", &at("whole.yaml"), "--out", &at("made")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for file in ["shop.10-policies.yaml", "shop.40-namespace.yaml"] {
        assert!(folder.path().join("made").join(file).is_file(), "{file}");
    }
    std::fs::write(at("part.yaml"), policy("{rules: [{when: [{key: remote.ip, values: [192.0.2.1]}]}]}")).unwrap();
    let output = weft(&["migrate", "istio", &at("part.yaml")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("spec.rules[0].when[0]: \"remote.ip\""), "{}", text(&output.stderr));
    let output = weft(&["migrate", "istio", &at("part.yaml"), "--accept-omissions"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(weft(&["migrate", "istio", "/nowhere"]).status.code(), Some(2));
}

#[test]
fn migrate_diff_ends_with_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests");
    std::fs::write(&file, "http://a.com/\n").unwrap();
    let file = file.to_str().unwrap();
    // Nobody listens at either door.
    let output = weft(&["migrate", "diff", "--old", "127.0.0.1:9", "--new", "127.0.0.1:9", "--requests", file]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("GET http://a.com/\n  answer\n"), "{}", text(&output.stdout));
    for (old, requests, why) in
        [("127.0.0.1:9", "/nowhere", "cannot read /nowhere"), ("ftp://x", file, "--old <ADDRESS>")]
    {
        let output = weft(&["migrate", "diff", "--old", old, "--new", "127.0.0.1:9", "--requests", requests]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
}

/// Answers every request at an address with one page.
fn proxy_with(page: &'static str) -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}", page.len());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn why_and_reason_end_with_what_they_know() {
    let page = r#"[{"request_id":"r1","reporter":"source","status":503,"reason":"no_endpoint","made_by":"proxy","object":"Service shop/cart:80","kept":"failed"}]"#;
    let (knows, knows_nothing) = (proxy_with(page).to_string(), proxy_with("[]").to_string());
    let output = weft(&["why", "r1", "--admin", &knows_nothing, "--admin", &knows]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("Service shop/cart:80"), "{said}{}", text(&output.stderr));
    assert!(said.contains("\nremedy\n") && said.contains("selector"), "{said}");
    let said: serde_json::Value =
        serde_json::from_slice(&weft(&["why", "r1", "--admin", &knows, "-o", "json"]).stdout).unwrap();
    assert_eq!((&said["reason"], &said["way"][0]["reporter"]), (&"no_endpoint".into(), &"source".into()));
    assert_eq!(weft(&["why", "r2", "--admin", &knows_nothing]).status.code(), Some(1));
    // Nobody listens at the second: it may have known.
    let output = weft(&["why", "r2", "--admin", &knows_nothing, "--admin", "127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("127.0.0.1:9: "), "{}", text(&output.stderr));
    assert!(text(&weft(&["reason", "no_endpoint", "-o", "yaml"]).stdout).contains("\nmadeBy: proxy\n"));
    assert!(text(&weft(&["reason"]).stdout).lines().count() > 40);
    assert_eq!(weft(&["reason", "nothing"]).status.code(), Some(1));
}

#[test]
fn a_bug_report_has_no_secret_that_a_proxy_shows() {
    use std::io::Read as _;
    let page = "weft_up 1\n-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----\n\
        sent eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl with password=hunter2\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.tar.gz");
    let output = weft(&["bugreport", "--admin", &proxy_with(page).to_string(), "--out", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&file).unwrap()));
    let mut read = 0;
    for entry in tar.entries().unwrap() {
        let mut content = String::new();
        entry.unwrap().read_to_string(&mut content).unwrap();
        for secret in ["PRIVATE KEY", "MIGHAgEAMBMG", "eyJ", "hunter2"] {
            assert!(!content.contains(secret), "{content}");
        }
        read += usize::from(content.contains("weft_up 1"));
    }
    assert_eq!(read, 5, "each page of the proxy");
    let output = weft(&["bugreport", "--admin", "127.0.0.1:9", "--out", file.to_str().unwrap()]);
    assert!(
        !output.status.success() && text(&output.stderr).contains("nothing could be read"),
        "{}",
        text(&output.stderr)
    );
}
