//! The `weft` command on a cluster: what is read of it ([`facts`]), and what is said and done about that.
//!
//! Reading ([`read`]) and deciding are apart: checks, views and plans are functions of facts.

mod check;
mod checks;
mod enroll;
mod facts;
mod finding;
mod helm;
mod logs;
mod pods;
mod proxy;
mod read;
mod status;
mod strict;
#[cfg(test)]
mod tests;
mod version;
mod view;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use weft_kube::Choice;
pub use weft_view::metrics;

pub use self::check::Args as CheckArgs;
pub use self::enroll::Args as EnrollArgs;
pub use self::facts::Unread;
pub use self::finding::{Finding, Severity};
pub use self::helm::{InstallArgs, UninstallArgs};
pub use self::logs::logs;
pub use self::proxy::{Args as ProxyArgs, all as proxies, page_of};
pub use self::read::{Session, typed};
pub use self::version::Args as VersionArgs;
pub use self::view::{View, ViewArgs};
use crate::Output;

/// What `check` and `status` end with when there is no cluster to look at.
const CANNOT_TELL: u8 = 2;

/// Which cluster, and where in it the mesh is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// A context of the kubeconfig other than its current one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
    /// A kubeconfig other than the one that KUBECONFIG names, or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the mesh [default: weft-system]
    #[arg(long, global = true, value_name = "NAMESPACE", help_heading = "Cluster")]
    mesh_namespace: Option<String>,
}

impl Target {
    /// The mesh's namespace.
    pub fn mesh(&self) -> &str {
        self.mesh_namespace.as_deref().unwrap_or("weft-system")
    }

    /// Whether somebody said which cluster is meant.
    pub fn is_given(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some() || self.mesh_namespace.is_some()
    }

    /// A session with the cluster; nothing has been asked yet.
    pub async fn session(&self) -> anyhow::Result<Session> {
        let client = weft_kube::client_of(&self.choice()).await?;
        Ok(Session { client, mesh: self.mesh().to_owned() })
    }

    /// The cluster.
    fn choice(&self) -> Choice {
        Choice { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

/// Runs work that waits.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(Box::pin(work))
}

/// Prints for a program, or for a person. A reader that has seen enough, such as `head`, is no error.
fn print<T: serde::Serialize + std::fmt::Display>(output: Output, value: &T) -> anyhow::Result<()> {
    write(&output.show(value)?)
}

/// Prints a text that is whole.
pub fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("standard output"),
    }
}

/// An ending of its own when nothing could be looked at, so that a script can tell that from a mesh with errors.
fn or_cannot_tell(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("weft: {error:#}");
        ExitCode::from(CANNOT_TELL)
    })
}

/// `weft install`
pub fn install(target: &Target, args: &InstallArgs) -> anyhow::Result<ExitCode> {
    helm::install(target, args)
}

/// `weft uninstall` on a cluster.
pub fn uninstall(target: &Target, args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    helm::uninstall(target, args)
}

/// `weft check`
pub fn check(target: &Target, args: &CheckArgs) -> ExitCode {
    or_cannot_tell(block_on(async { check::run(&target.session().await?, args).await }))
}

/// `weft enroll`
pub fn enroll(target: &Target, args: &EnrollArgs) -> anyhow::Result<ExitCode> {
    block_on(async { enroll::run(&target.session().await?, args).await })
}

/// `weft status` on a cluster.
pub fn status(target: &Target, output: Output) -> ExitCode {
    or_cannot_tell(block_on(async { status::run(&target.session().await?, output).await }))
}

/// `weft proxy`
pub fn proxy(target: &Target, args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    block_on(async { proxy::run(&target.session().await?, args).await })
}

/// The configuration by which the proxy of a pod's node decides.
pub fn configuration(target: &Target, pod: &str) -> anyhow::Result<weft_core::snapshot::Snapshot> {
    block_on(async { proxy::snapshot(&target.session().await?, pod).await })
}

/// What `weft status` and `weft check` say, and what the mesh's pods show, as files with their texts.
///
/// # Errors
/// The API server can't be asked.
pub async fn overview(session: &Session) -> anyhow::Result<Vec<(String, String)>> {
    let facts = Box::pin(session.installed()).await?;
    let required = helm::oldest_kubernetes()?;
    let (status, report) = (status::Overview::of(&facts, required), checks::installed(&facts, required));
    let mut files = vec![
        ("status.txt".to_owned(), status.to_string()),
        ("status.json".to_owned(), serde_json::to_string_pretty(&status)?),
        ("check.txt".to_owned(), report.to_string()),
    ];
    let own =
        facts.pods.iter().flatten().filter(|pod| pod.metadata.namespace.as_deref() == Some(session.mesh.as_str()));
    for pod in own {
        // What is asked for in its environment and files isn't what it is asked about.
        let name = facts::name_of(&pod.metadata);
        files.push((format!("pods/{name}.json"), serde_json::to_string_pretty(&pod.status)?));
    }
    Ok(files)
}

/// What the checks of an installed mesh find that is worth a look, the worst first.
///
/// # Errors
/// The API server can't be asked.
pub async fn findings(session: &Session) -> anyhow::Result<Vec<Finding>> {
    let facts = Box::pin(session.installed()).await?;
    let report = checks::installed(&facts, helm::oldest_kubernetes()?);
    Ok(report.findings().into_iter().filter(|it| it.severity > Severity::Note).cloned().collect())
}

/// `weft version`
pub fn version(target: &Target, args: &VersionArgs) -> anyhow::Result<ExitCode> {
    block_on(version::run(target, args))
}
