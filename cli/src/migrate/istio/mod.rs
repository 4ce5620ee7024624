//! `weft migrate istio`: Istio's policies and routes to Weft's and the Gateway API's.
//!
//! ```text
//!  files, or a cluster --input--> objects --peer, authz------------------------> policies ---\
//!                                    \----http, requests, actions--> rules --order, routes--> routes --write--> files,
//!                                     \---destination, subsets-------------> Services -------/              or standard output
//! ```
//!
//! Nothing that was read is dropped silently: fields are taken out as they are understood ([`fields`]), and what is left over is
//! named. A policy that can't be said in full never lets more through ([`conditions`]), and a VirtualService is
//! translated whole or not at all ([`routes`]).

mod actions;
mod authz;
mod cluster;
mod conditions;
mod context;
mod destination;
mod fields;
mod http;
mod input;
mod matches;
mod order;
mod others;
mod peer;
mod requests;
mod routes;
mod subsets;
mod tcp;
#[cfg(test)]
mod tests;
mod translate;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

use self::context::Options;
use self::input::Inputs;
use self::translate::translate;
use super::files::{self, Ending};
use super::report::Report;
use crate::cluster::Target;

/// What to migrate, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files with Istio's objects, Services, namespaces and workloads, or directories that are read with all `.yaml`, `.yml` and `.json` below
    #[arg(required_unless_present = "from_cluster", conflicts_with = "from_cluster")]
    paths: Vec<PathBuf>,
    /// Read the cluster of the kubeconfig
    #[arg(long)]
    from_cluster: bool,
    /// Only objects of this namespace, and those for the whole mesh; may be repeated
    #[arg(long = "namespace", short, value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// Istio's root namespace, whose policies hold for its whole mesh
    #[arg(long, default_value = "istio-system", value_name = "NAMESPACE")]
    root_namespace: String,
    /// The trust domain of Weft's identities
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    trust_domain: String,
    /// A trust domain of Istio's, besides cluster.local; may be repeated, for its aliases
    #[arg(long = "istio-trust-domain", value_name = "DOMAIN")]
    istio_trust_domains: Vec<String>,
    /// What the DNS names of Services end with
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    cluster_domain: String,
    #[command(flatten)]
    ending: Ending,
}

/// Translates and writes; ends with 1 if something was left out.
///
/// # Errors
/// What can't be read or written.
pub fn run(args: &Args, target: &Target) -> anyhow::Result<ExitCode> {
    let (mut report, mut inputs) = (Report::default(), Inputs::default());
    if args.from_cluster {
        cluster::read(target, &mut inputs, &mut report)?;
    } else {
        files::objects(&args.paths, &mut report, named, |object, report| inputs.add(&object, report))?;
    }
    if !args.namespaces.is_empty() {
        inputs.only(&args.namespaces, &args.root_namespace);
    }
    inputs.sort();
    if inputs.objects.is_empty() && inputs.namespaces.is_empty() && report.entries.is_empty() {
        bail!("there is nothing of Istio's among what was read");
    }
    let options = Options {
        root: args.root_namespace.clone(),
        mesh: target.mesh().to_owned(),
        trust_domain: args.trust_domain.clone(),
        istio_trust_domains: args.istio_trust_domains.clone(),
        cluster_domain: args.cluster_domain.clone(),
    };
    let documents = translate(&inputs, &options, &mut report);
    args.ending.give(&documents, &report)
}

/// An object as the report calls it before it is known what it is.
fn named(object: &Value) -> String {
    let [kind, namespace, name] =
        ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| files::text(object, pointer));
    format!("{kind} {namespace}/{name}")
}
