//! The Gateways of `examples/` on one machine without Kubernetes, with real packets: each example does what its comment says.

#![allow(clippy::indexing_slicing, reason = "test code: a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode, Version};
use nix::sys::signal::Signal;
use weft_testkit::clients::{Connection, Echo, Grpc, Load, Reply, banner, request, udp_exchange};
use weft_testkit::process::Process;
use weft_testkit::servers::{Behaviour, Server, any, http, tcp, udp_echo};
use weft_testkit::{Netns, netns_tests};
use weft_tests::edge::Certificate;
use weft_tests::{Machine, Programs, eventually};

netns_tests! {
    every_example_is_valid_and_a_redirect_that_loops_is_found,
    requests_take_the_ways_of_the_examples,
    connections_and_datagrams_take_the_ways_of_the_examples,
    the_commands_of_the_readme_make_a_gateway,
}

/// The servers on the wire: their Service, port and name, as EndpointSlices have them.
const SERVERS: [(&str, &str, u16); 11] = [
    ("shop", "catalog-v1", 7001),
    ("shop", "catalog-v2", 7002),
    ("shop", "cart", 7003),
    ("shop", "orders", 7004),
    ("shop", "audit", 7005),
    ("payments", "checkout", 7006),
    ("shop", "greeter", 7007),
    ("shop", "greeter-next", 7008),
    ("shop", "authorizer", 7011),
    ("shop", "vault", 7009),
    ("shop", "postgres", 7010),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An EndpointSlice of a Service whose only endpoint is on the wire.
fn slice(namespace: &str, service: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-wire\n  namespace: {namespace}\n  \
         labels: {{ kubernetes.io/service-name: {service} }}\naddressType: IPv4\nports: [{ports}]\n\
         endpoints: [{{ addresses: [{}], conditions: {{ ready: true }} }}]\n",
        Machine::OUTSIDE
    )
}

/// The examples in a directory, with what people have of their own: a certificate, and endpoints.
fn examples() -> Result<(tempfile::TempDir, Certificate)> {
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(repository().join("examples/gateway"))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        // Endpoints are these tests' own, not those of pods.
        let text = text.lines().filter(|line| !line.starts_with("  selector:") && !line.starts_with("    app:"));
        let text = text.map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(folder.path().join(path.file_name().context("no name")?), text)?;
    }
    let made = Certificate::of("*.example.com")?;
    std::fs::write(folder.path().join("secret.yaml"), made.secret("wildcard-example-com"))?;
    let named = |service: &str| match service {
        "greeter" | "greeter-next" => "grpc",
        "vault" => "https",
        "postgres" => "postgres",
        _ => "http",
    };
    let port = |service: &str, port: u16| format!("{{ name: {}, port: {port} }}", named(service));
    let mut slices: String = SERVERS.iter().map(|(ns, name, at)| slice(ns, name, &port(name, *at))).collect();
    slices += &slice("shop", "dns", "{ name: dns-udp, port: 7053, protocol: UDP }, { name: dns-tcp, port: 7053 }");
    std::fs::write(folder.path().join("endpoints.yaml"), slices)?;
    Ok((folder, made))
}

fn validate(paths: &[&Path]) -> Result<(bool, String)> {
    let output = Programs::find()?.weft().arg("validate").args(paths).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn every_example_is_valid_and_a_redirect_that_loops_is_found() -> Result<()> {
    let (folder, _) = examples()?;
    let file = |name: &str| folder.path().join(name);
    let (gateway, services, secret) = (file("gateway.yaml"), file("services.yaml"), file("secret.yaml"));
    for entry in std::fs::read_dir(folder.path())? {
        let path = entry?.path();
        let mut with = vec![gateway.as_path(), &services, &secret];
        if !with.contains(&path.as_path()) && !path.ends_with("endpoints.yaml") {
            with.push(&path);
        }
        let (valid, said) = validate(&with)?;
        ensure!(valid && said.contains(" 0 errors, 0 warnings"), "{}: {said}", path.display());
    }
    let (valid, said) = validate(&[&repository().join("examples/standalone")])?;
    // The certificate is made by whoever tries it.
    ensure!(!valid && said.matches("error").count() == 2 && said.contains("Secret"), "{said}");
    // The mistake that tutorials make: the redirect is the HTTPS listener's, too.
    let redirect = file("https-redirect.yaml");
    let text = std::fs::read_to_string(&redirect)?;
    std::fs::write(&redirect, text.replacen("      sectionName: http\n", "", 1))?;
    let (_, said) = validate(&[&gateway, &services, &secret, &redirect])?;
    let found = said.lines().find(|line| line.contains("shop/to-https")).context("nothing is said")?;
    ensure!(found.contains("warning") && found.contains("listener https") && found.contains("sectionName"), "{found}");
    Ok(())
}

/// A machine with the examples, and the servers around it.
struct Shop {
    machine: Machine,
    servers: Vec<Server>,
    folder: tempfile::TempDir,
}

impl Shop {
    fn start() -> Result<Self> {
        let (manifests, Certificate { chain, .. }) = examples()?;
        let machine = Machine::start(manifests)?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("roots.pem"), chain)?;
        let (outside, mut servers) = (machine.outside(), Vec::new());
        for (_, name, port) in &SERVERS[..9] {
            servers.push(http(outside, name, any(*port))?);
        }
        servers.push(tcp(outside, "postgres", any(7010), Behaviour::Banner)?);
        servers.push(tcp(outside, "dns", any(7053), Behaviour::Banner)?);
        servers.push(udp_echo(outside, "dns", any(7053))?);
        machine.listens(&[80, 443, 8443, 9443, 5432, 53])?;
        Ok(Self { machine, servers, folder })
    }

    /// A request by HTTP, from outside.
    fn ask(&self, method: Method, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        let at = self.machine.at(80);
        let headers = [&[("host", host)], headers].concat();
        self.machine.outside().block_on(async move {
            Connection::open(at, Version::HTTP_11).await?.send(request(method, path, &headers, "")).await
        })
    }

    fn get(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Echo> {
        self.ask(Method::GET, host, path, headers)?.echo().with_context(|| format!("{host}{path}"))
    }

    /// What curl prints, which looks at certificates.
    fn curl(&self, options: &[&str]) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]);
        command.arg(self.folder.path().join("roots.pem"));
        let to = format!("::{}:", self.machine.address());
        let output = self.machine.outside().output(command.args(["--connect-to", &to]).args(options))?;
        ensure!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// How many of 400 requests for a host each server gets.
    fn share(&self, host: &str) -> Result<std::collections::BTreeMap<String, u64>> {
        let headers = vec![("host".to_owned(), host.to_owned())];
        let load = Load { headers, requests: 400, ..Load::new(self.machine.at(80)) };
        let report = self.machine.outside().block_on(load.run())?;
        ensure!(report.failed() == 0, "{report:?}");
        Ok(report.pods)
    }

    fn server(&self, name: &str) -> &Server {
        &self.servers[SERVERS.iter().position(|(_, it, _)| *it == name).unwrap_or_default()]
    }
}

fn requests_take_the_ways_of_the_examples() -> Result<()> {
    let shop = Shop::start()?;
    redirect(&shop)?;
    let share = shop.share("canary.example.com")?;
    let second = share.get("catalog-v2").copied().unwrap_or_default();
    ensure!((15..=70).contains(&second), "{share:?}");
    blue_green(&shop)?;
    for (headers, pod) in [
        (&[][..], "catalog-v1"),
        (&[("x-group", "b")], "catalog-v2"),
        (&[("x-group", "a")], "catalog-v1"),
        (&[("cookie", "id=7; group=b; x=y")], "catalog-v2"),
        (&[("cookie", "id=7; group=bb")], "catalog-v1"),
    ] {
        ensure!(shop.get("ab.example.com", "/", headers)?.pod == pod, "{headers:?}");
    }
    ensure!(shop.get("checkout.example.com", "/", &[])?.pod == "checkout");
    let echo = shop.get("api.example.com", "/orders/v1/7?full=1", &[])?;
    ensure!((echo.path.as_str(), echo.host.as_deref()) == ("/7", Some("orders.internal")), "{echo:?}");
    ensure!(echo.header("x-forwarded-host") == Some("api.example.com"), "{echo:?}");
    shop.share("mirror.example.com")?;
    eventually("half of the requests is mirrored", || Ok(!shop.server("audit").peers().is_empty()))?;
    cors(&shop)?;
    sessions(&shop)?;
    members(&shop)?;
    ensure!(shop.get("patient.example.com", "/flaky?key=a&fail=2", &[])?.pod == "orders");
    let given_up = shop.ask(Method::GET, "patient.example.com", "/flaky?key=b&fail=3", &[])?;
    ensure!(given_up.status == StatusCode::SERVICE_UNAVAILABLE, "{given_up:?}");
    let slow = shop.ask(Method::GET, "patient.example.com", "/?delay=5000", &[])?;
    ensure!(slow.status == StatusCode::GATEWAY_TIMEOUT, "{slow:?}");
    Ok(())
}

fn redirect(shop: &Shop) -> Result<()> {
    let sent = shop.ask(Method::GET, "shop.example.com", "/cart?x=1", &[])?;
    let location = sent.header("location");
    ensure!((sent.status.as_u16(), location) == (301, Some("https://shop.example.com/cart?x=1")), "{sent:?}");
    let followed = shop.curl(&["--location", "http://shop.example.com/cart"])?;
    let echo: Echo = serde_json::from_str(&followed).with_context(|| followed.clone())?;
    ensure!((echo.pod.as_str(), echo.header("x-forwarded-proto")) == ("cart", Some("https")), "{echo:?}");
    let told = shop.curl(&["--head", "https://h3.example.com:9443/"])?.to_lowercase();
    ensure!(told.contains("alt-svc: h3=\":9443\""), "{told}");
    Ok(())
}

/// Whoever has been answered comes back; who hasn't is anybody's.
fn sessions(shop: &Shop) -> Result<()> {
    let host = "sessions.example.com";
    ensure!(shop.share(host)?.len() == 2, "without the cookie there are two");
    let first = shop.ask(Method::GET, host, "/", &[])?;
    let cookie = first.header("set-cookie").context("no session")?.to_owned();
    let (cookie, pod) = (cookie.split(';').next().unwrap_or_default(), first.echo()?.pod);
    ensure!(cookie.starts_with("shop-session="), "{cookie}");
    for _ in 0..20 {
        ensure!(shop.get(host, "/", &[("cookie", cookie)])?.pod == pod);
    }
    Ok(())
}

fn members(shop: &Shop) -> Result<()> {
    let host = "members.example.com";
    let asked = shop.get(host, "/200", &[("x-user", "somebody")])?;
    ensure!(asked.pod == "cart" && asked.header("x-user").is_none(), "{asked:?}");
    // This test's authorizer answers with the status that its path names.
    let file = shop.machine.manifests().join("external-auth.yaml");
    std::fs::write(&file, std::fs::read_to_string(&file)?.replace("path: /check", "path: /status"))?;
    let answer = |path: &str| Ok::<_, anyhow::Error>(shop.ask(Method::GET, host, path, &[])?.status.as_u16());
    eventually("the authorizer says no", || Ok(answer("/401")? == 401))?;
    ensure!(answer("/200")? == 200);
    Ok(())
}

fn blue_green(shop: &Shop) -> Result<()> {
    let host = "blue-green.example.com";
    ensure!(shop.share(host)?.keys().eq(["catalog-v1"]), "all is blue");
    ensure!(shop.get(host, "/", &[("x-preview", "green")])?.pod == "catalog-v2");
    let file = shop.machine.manifests().join("blue-green.yaml");
    let text = std::fs::read_to_string(&file)?;
    let switched =
        text.replace("weight: 1", "weight: -").replace("weight: 0", "weight: 1").replace("weight: -", "weight: 0");
    std::fs::write(&file, switched)?;
    eventually("it is switched", || Ok(shop.get(host, "/", &[])?.pod == "catalog-v2"))?;
    ensure!(shop.share(host)?.keys().eq(["catalog-v2"]), "all is green");
    Ok(())
}

fn cors(shop: &Shop) -> Result<()> {
    let host = "cors.example.com";
    let asked = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        shop.ask(Method::OPTIONS, host, "/", &headers)
    };
    for origin in ["https://shop.example.com", "https://pr-7.preview.example.com"] {
        let reply = asked(origin)?;
        ensure!(reply.header("access-control-allow-origin") == Some(origin), "{reply:?}");
        ensure!(reply.header("access-control-max-age") == Some("600") && reply.body.is_empty(), "{reply:?}");
    }
    ensure!(asked("https://evil.example.org")?.header("access-control-allow-origin").is_none());
    let reply = shop.ask(Method::GET, host, "/", &[("origin", "https://shop.example.com")])?;
    ensure!(reply.header("access-control-allow-credentials") == Some("true") && reply.echo()?.pod == "cart");
    Ok(())
}

fn connections_and_datagrams_take_the_ways_of_the_examples() -> Result<()> {
    let shop = Shop::start()?;
    let (wire, plain) = (shop.machine.outside(), shop.machine.at(80));
    let calls = wire.block_on(async move {
        let mut client = Grpc::connect(plain).await?.authority("grpc.example.com");
        let mut said = Vec::new();
        for path in ["/shop.Greeter/Greet", "/shop.Greeter/Part", "/shop.Other/Greet"] {
            said.push(client.unary(path, &[], b"hello").await?.status);
        }
        anyhow::Ok(said)
    })?;
    ensure!(calls == [0, 0, 12], "the last one is UNIMPLEMENTED: {calls:?}");
    let got = |name| shop.server(name).peers().len();
    ensure!((got("greeter-next"), got("greeter")) == (1, 1));

    let database = wire.block_on(banner(shop.machine.at(5432)))?;
    ensure!(database == "220 postgres", "{database}");
    ensure!(wire.block_on(banner(shop.machine.at(53)))? == "220 dns", "by TCP");
    let answer = wire.block_on(udp_exchange(shop.machine.at(53), b"example.com?", Duration::from_secs(10)))?;
    ensure!(answer == b"dns:example.com?", "{answer:?}");
    passthrough(&shop)
}

/// The backend has the certificate; the Gateway has none for that name.
fn passthrough(shop: &Shop) -> Result<()> {
    let Certificate { chain, key } = Certificate::of("eu.vault.example.com")?;
    let file = |name: &str| shop.folder.path().join(name);
    std::fs::write(file("vault.pem"), chain)?;
    std::fs::write(file("vault.key"), key)?;
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-www", "-accept", "7009", "-cert"]).arg(file("vault.pem"));
    command.arg("-key").arg(file("vault.key"));
    let vault = Process::start(shop.machine.outside(), command)?;
    let asked = |host: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]).arg(file("vault.pem"));
        command.args(["--connect-to", &format!("::{}", shop.machine.at(8443)), &format!("https://{host}:8443/")]);
        shop.machine.outside().output(&mut command)
    };
    eventually("the vault answers", || Ok(asked("eu.vault.example.com")?.status.success()))?;
    ensure!(!asked("us.vault.example.com")?.status.success(), "there is no route for it");
    vault.signal(Signal::SIGTERM)
}

/// What a person would type, from the first command to the last.
fn the_commands_of_the_readme_make_a_gateway() -> Result<()> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let (_, section) = readme.split_once("### An API gateway on one machine").context("no such section")?;
    let (_, block) = section.split_once("```sh\n").context("no commands")?;
    let (commands, _) = block.split_once("```").context("no end of the commands")?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("examples"))?;
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(repository().join("examples/standalone")).arg(folder.path().join("examples"));
    ensure!(copy.status()?.success());
    // What runs in the background ends with the script, and everything with the namespaces of this test.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n{commands}");
    let path = format!("{}:{}", Programs::find()?.directory().display(), std::env::var("PATH")?);
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(folder.path()).env("PATH", path).env("HOME", folder.path());
    let place = Netns::create("readme")?;
    let mut process = Process::start(&place, command)?;
    let status = process.wait(Duration::from_secs(60))?;
    let log = process.log()?;
    ensure!(status.success(), "{log}");
    // Each command that shows something has what it shows behind it.
    let expected: Vec<_> =
        commands.lines().filter_map(|line| line.split_once("# -> ")).map(|(_, shown)| shown).collect();
    ensure!(expected.len() >= 5, "{commands}");
    let mut lines = log.lines();
    for shown in expected {
        ensure!(lines.any(|line| line.trim_end() == shown), "{shown:?} is not in, or not where it should be:\n{log}");
    }
    Ok(())
}
