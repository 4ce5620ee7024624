//! `weft describe` and `weft authz`: what applies to a workload or a Service, by the configuration that a proxy decides by.

mod authz;
mod describe;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weft_core::ids::{Name, Namespace, ServiceKey};
use weft_core::snapshot::Snapshot;
use weft_core::workload::Workload;
use weft_node_proxy::store::{SavedFile, from_bytes};

use self::authz::{Access, Question};
use self::describe::{ServiceView, WorkloadView};
use crate::Output;
use crate::ask::{Proxies, Whom};
use crate::cluster::{self, Target, block_on};

/// Which configuration is looked at.
#[derive(Clone, Debug, clap::Args)]
struct Source {
    /// A node's copy of its configuration, instead of asking a proxy for it
    #[arg(long, env = "WEFT_CONFIG_COPY")]
    config: Option<PathBuf>,
    #[command(flatten)]
    from: Whom,
}

impl Source {
    fn read(&self, target: &Target) -> anyhow::Result<Snapshot> {
        if let Some(path) = &self.config {
            return saved(path);
        }
        let page = block_on(async { Proxies::of(target, &self.from).await?.first("/config").await })?;
        from_bytes(&page).context("the proxy's configuration")
    }
}

fn saved(path: &Path) -> anyhow::Result<Snapshot> {
    let read = SavedFile::new(path).read();
    let read = read.with_context(|| format!("cannot read the node's configuration from {}", path.display()))?;
    read.ok_or_else(|| anyhow!("no configuration at {}", path.display()))
}

/// What to describe.
#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// A pod, or a Service
    #[arg(value_enum)]
    kind: Kind,
    /// Which
    #[arg(value_name = "NAMESPACE/NAME")]
    name: String,
    #[command(flatten)]
    source: Source,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What can be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A pod
    #[value(alias = "workload")]
    Pod,
    /// A Service
    #[value(alias = "svc")]
    Service,
}

/// Who may call a pod.
#[derive(Debug, clap::Args)]
pub struct AuthzArgs {
    /// The pod that is called
    #[arg(value_name = "NAMESPACE/POD")]
    pod: String,
    /// Who calls: a pod as NAMESPACE/NAME, an identity as spiffe://..., or `outside` for nobody known
    #[arg(long)]
    from: Option<String>,
    /// The address that calls; that of the pod which calls, if one is named. Other callers need one if a policy decides by it
    #[arg(long)]
    address: Option<std::net::IpAddr>,
    /// The pod's port; left out: the first that a Service sends to
    #[arg(long)]
    port: Option<u16>,
    /// The HTTP method
    #[arg(long, default_value = "GET")]
    method: Method,
    /// The path
    #[arg(long, default_value = "/")]
    path: String,
    /// The Host header
    #[arg(long, default_value = "")]
    host: String,
    /// A request header as NAME:VALUE; may be repeated
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes are sent, and no request that could be looked at
    #[arg(long)]
    tcp: bool,
    #[command(flatten)]
    source: Source,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').ok_or_else(|| anyhow!("expected NAME:VALUE"))?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// A pod by its name.
fn workload<'a>(snapshot: &'a Snapshot, name: &str) -> anyhow::Result<&'a Workload> {
    let (namespace, pod) = name.split_once('/').ok_or_else(|| anyhow!("{name}: expected NAMESPACE/NAME"))?;
    let (namespace, pod) = (Namespace::new(namespace), Name::new(pod));
    let found = snapshot.workloads().find(|w| w.namespace == namespace && w.name == pod);
    found.map(|workload| &**workload).ok_or_else(|| anyhow!("the mesh knows no pod {name}"))
}

/// `weft describe`
///
/// # Errors
/// There is no such object, or no configuration.
pub fn describe(args: &DescribeArgs, target: &Target) -> anyhow::Result<()> {
    let snapshot = args.source.read(target)?;
    let text = match args.kind {
        Kind::Pod => args.output.show(&WorkloadView::of(&snapshot, workload(&snapshot, &args.name)?)),
        Kind::Service => {
            let (namespace, name) =
                args.name.split_once('/').ok_or_else(|| anyhow!("{}: expected NAMESPACE/NAME", args.name))?;
            let key = ServiceKey::new(namespace, name);
            let Some(service) = snapshot.service(&key) else { bail!("the mesh knows no Service {key}") };
            args.output.show(&ServiceView::of(&snapshot, service))
        }
    }?;
    cluster::write(&text)
}

/// `weft authz`: ends with 1 if a call was asked about that is denied.
///
/// # Errors
/// There is no such pod, or no configuration.
pub fn authz(args: &AuthzArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let snapshot = args.source.read(target)?;
    let called = workload(&snapshot, &args.pod)?;
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    let question = Question {
        from: args.from.as_deref(),
        address: args.address,
        port: args.port,
        method: &args.method,
        path: &args.path,
        host: &args.host,
        headers: &headers,
        tcp: args.tcp,
    };
    let access = Access::of(&snapshot, called, &question)?;
    cluster::write(&args.output.show(&access)?)?;
    Ok(if access.is_denied() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
