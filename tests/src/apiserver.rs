//! A control plane without nodes: etcd and the API server of the test cluster in a network namespace of their own, up in
//! seconds. Enough for whatever only reads and writes objects. Needs `make cluster-build` and the right to make a
//! network namespace.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_testkit::Netns;
use weft_testkit::process::Process;

use crate::eventually;

/// How long the API server may take to come up.
const START: Duration = Duration::from_secs(60);
const URL: &str = "https://127.0.0.1:6443";
/// How many this process has started: its tests run beside each other.
static STARTED: AtomicU32 = AtomicU32::new(0);
/// Who may everything.
const ADMIN: &str = "admin";

/// A running API server. Dropping it ends it and etcd.
#[derive(Debug)]
pub struct ApiServer {
    // In the order in which they go.
    apiserver: Process,
    _etcd: Process,
    place: Netns,
    build: PathBuf,
    folder: tempfile::TempDir,
}

impl ApiServer {
    /// Starts one with nothing in it. `users` are ServiceAccounts, `NAMESPACE:NAME`, whose kubeconfigs are wanted.
    ///
    /// # Errors
    /// When the programs aren't built or don't come up; with their logs.
    pub fn start(users: &[&str]) -> Result<Self> {
        let cache = std::env::var_os("WEFT_CACHE").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/weft"));
        let build = cache.or_else(home).context("neither WEFT_CACHE nor HOME is set")?.join("cluster");
        let built = build.join("bin/kube-apiserver");
        ensure!(built.is_file(), "{} isn't there: run make cluster-build", built.display());
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let place = Netns::create(&format!("apiserver-{}-{number}", std::process::id()))?;
        // In memory: etcd waits for the disk at every write.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let at = folder.path();
        let program = |name: &str| Command::new(build.join("bin").join(name));

        let mut etcd = program("etcd");
        etcd.arg("--data-dir").arg(at.join("etcd")).arg("--log-level=warn");
        let etcd = place.start(etcd)?;

        let key = Command::new("openssl").args(["genrsa", "-out"]).arg(at.join("sa.key")).arg("2048").output()?;
        ensure!(key.status.success(), "openssl: {}", String::from_utf8_lossy(&key.stderr));
        std::fs::write(at.join("tokens"), tokens(users))?;
        let mut command = program("kube-apiserver");
        for (option, file) in [
            ("--cert-dir", "pki"),
            ("--token-auth-file", "tokens"),
            ("--service-account-key-file", "sa.key"),
            ("--service-account-signing-key-file", "sa.key"),
        ] {
            command.arg(option).arg(at.join(file));
        }
        command.args(["--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1", "--secure-port=6443"]);
        command.args(["--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC"]);
        // There is no other address here, and nobody who would dial the Service `kubernetes`.
        command.args(["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"]);
        command.args(["--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true"]);
        let mut apiserver = place.start(command)?;
        let certificate = at.join("pki/apiserver.crt");
        apiserver.wait_until(START, |_| certificate.is_file())?;
        for user in users.iter().copied().chain([ADMIN]) {
            std::fs::write(at.join(format!("{}.kubeconfig", user.replace(':', "-"))), kubeconfig(user, &certificate))?;
        }
        let mut server = Self { apiserver, _etcd: etcd, place, build, folder };
        let ask = server.kubectl(&["get", "--raw", "/readyz"]);
        let ready = || server.place.output(&mut self::command(&ask)).is_ok_and(|out| out.status.success());
        server.apiserver.wait_until(START, |_| ready())?;
        Ok(server)
    }

    /// Ends the API server; etcd, and whom it served, stay.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn end(&mut self) -> Result<()> {
        self.apiserver.stop().map(drop)
    }

    /// Where `make cluster-build` put things.
    pub fn build(&self) -> &Path {
        &self.build
    }

    /// The kubeconfig of one of the users.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{}.kubeconfig", user.replace(':', "-")))
    }

    /// Drives a future where the API server can be reached.
    ///
    /// # Panics
    /// When the future does.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.place.block_on(future)
    }

    /// Applies the objects that one template of the chart `weft` renders, among them the rights of a component.
    ///
    /// # Errors
    /// When helm or the API server refuses them.
    pub fn apply_template(&self, template: &str) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft");
        let mut helm = Command::new(self.build.join("bin/helm"));
        helm.args(["template", "weft"]).arg(chart).args(["-n", "weft-system", "--show-only", template]);
        let rendered = helm.output()?;
        ensure!(rendered.status.success(), "helm: {}", String::from_utf8_lossy(&rendered.stderr));
        self.apply("{apiVersion: v1, kind: Namespace, metadata: {name: weft-system}}")?;
        self.apply(std::str::from_utf8(&rendered.stdout)?)
    }

    /// Installs Weft by its chart, without hooks, whose pods nobody would run, and [defines](Self::define) the Gateway API.
    ///
    /// # Errors
    /// When helm or the API server refuses something.
    pub fn install(&self, channel: &str) -> Result<()> {
        self.helm(&["install", "weft", "charts/weft", "-n", "weft-system", "--create-namespace", "--no-hooks"])?;
        self.define(channel)
    }

    /// Makes the Gateway API's definitions of a channel, `standard` or `experimental`, in place of those that are there. Their
    /// policy that keeps a cluster from the other channel is left out.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn define(&self, channel: &str) -> Result<()> {
        let folder = self.build.join("crds").join(channel);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("gateway.networking.") && !name.contains("_vap_") {
                files.push(format!("--filename={}", path.display()));
            }
        }
        let words = ["apply", "--server-side"].into_iter().chain(files.iter().map(String::as_str));
        self.k(&words.collect::<Vec<_>>())?;
        self.knows_its_kinds()
    }

    /// Waits until objects of every kind that is defined can be asked for, which is some time after they are established.
    ///
    /// # Errors
    /// When one never can.
    pub fn knows_its_kinds(&self) -> Result<()> {
        self.k(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        let kinds = self.k(&["get", "crd", "-o", "jsonpath={.items[*].metadata.name}"])?;
        let kinds = kinds.split_whitespace().collect::<Vec<_>>().join(",");
        eventually("all kinds are known", || Ok(self.k(&["get", &kinds, "--all-namespaces", "-o", "name"]).is_ok()))
    }

    /// Starts a program that finds the API server as one of the users.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(&self, mut program: Command, user: &str) -> Result<Process> {
        program.env("KUBECONFIG", self.kubeconfig(user));
        self.place.start(program)
    }

    fn kubectl(&self, args: &[&str]) -> Vec<String> {
        let program = self.build.join("bin/kubectl").display().to_string();
        let config = format!("--kubeconfig={}", self.kubeconfig(ADMIN).display());
        [program, config].into_iter().chain(args.iter().map(|&arg| arg.to_owned())).collect()
    }

    /// kubectl as somebody who may everything.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn k(&self, args: &[&str]) -> Result<String> {
        let output = self.place.output(&mut command(&self.kubectl(args)))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "kubectl {args:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    /// A line of the shell in the repository's root, with the programs of the build and the rights of who may everything.
    ///
    /// # Errors
    /// When there is no shell. Whatever the line ends with is its output.
    pub fn sh(&self, line: &str) -> Result<Output> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-c", line]).env("PATH", format!("{}:{path}", self.build.join("bin").display()));
        bash.env("KUBECONFIG", self.kubeconfig(ADMIN)).current_dir(crate::cluster::repository()).stdin(Stdio::null());
        self.place.output(&mut bash)
    }

    /// Helm as somebody who may everything, in the repository's root.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        let mut helm = Command::new(self.build.join("bin/helm"));
        helm.args(args).env("KUBECONFIG", self.kubeconfig(ADMIN)).current_dir(crate::cluster::repository());
        let output = self.place.output(&mut helm)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "helm {args:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    /// An object, or a list, as JSON.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.k(&[&["get", "-o", "json"], args].concat())?)?)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut kubectl = command(&self.kubectl(&["apply", "--server-side", "-f", "-"]));
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.place.run(move || kubectl.spawn())?;
        child.stdin.take().context("no input")?.write_all(manifests.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}\nof\n{manifests}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The body that a plain HTTP server in the namespace answers a GET with, whatever its status.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn page(&self, port: u16, path: &str) -> Result<String> {
        self.place.run(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
        })
    }
}

fn command(words: &[String]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}

/// Tokens that are as good as their owners' names: nobody else is in the namespace.
fn tokens(users: &[&str]) -> String {
    let account = |user: &&str| format!("{user},system:serviceaccount:{user},{user},system:serviceaccounts\n");
    let accounts: String = users.iter().map(account).collect();
    format!("{ADMIN},{ADMIN},{ADMIN},system:masters\n{accounts}")
}

fn kubeconfig(user: &str, certificate: &Path) -> String {
    let cluster = format!("{{server: \"{URL}\", certificate-authority: \"{}\"}}", certificate.display());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {cluster}}}]\n\
         users: [{{name: u, user: {{token: \"{user}\"}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    )
}
