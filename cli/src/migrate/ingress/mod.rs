//! `weft migrate ingress`: Ingresses to Gateways and routes.
//!
//! ```text
//!  files, or a cluster --input--> Ingresses --annotations, settings--> what each asks for --parts--> host by host
//!                                                                                              |
//!         files, or standard output <--write-- Gateways, routes, policies <--sites, routes, policies--
//! ```
//!
//! Nothing that was read is dropped silently: an annotation that no part of this has looked at ends up in the report as one that
//! was left out, and an Ingress whose protection is left out is not migrated at all unless somebody says so.

mod annotations;
mod backends;
mod beside;
mod canaries;
mod class;
mod cluster;
mod input;
mod names;
mod parts;
mod path;
pub(super) mod policies;
mod routes;
mod settings;
mod sites;
#[cfg(test)]
mod tests;
mod translate;
mod variants;
mod withheld;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

use self::input::{Inputs, Key};
use self::report::Report;
use self::translate::{Options, translate};
use super::files::{self, Ending};
use super::{report, write};
use crate::cluster::Target;

/// Ingresses to migrate, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files with Ingresses and what they refer to, or directories that are read with all `.yaml`, `.yml` and `.json` below
    #[arg(required_unless_present = "from_cluster", conflicts_with = "from_cluster")]
    paths: Vec<PathBuf>,
    /// Read the cluster of the kubeconfig
    #[arg(long)]
    from_cluster: bool,
    /// Only Ingresses of this namespace; may be repeated
    #[arg(long = "namespace", short, value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// Only Ingresses of this class; may be repeated
    #[arg(long = "class", value_name = "CLASS")]
    classes: Vec<String>,
    /// Only this host, with or without others in its Ingress; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// The class of the Gateways
    #[arg(long, default_value = "weft", value_name = "CLASS")]
    gateway_class: String,
    /// One namespace for all Gateways, so that a class has one address; left out: the namespaces of the Ingresses
    #[arg(long, value_name = "NAMESPACE")]
    gateway_namespace: Option<String>,
    /// The Secret for hosts with TLS that name none
    #[arg(long, value_parser = parse_key, value_name = "NAMESPACE/NAME")]
    default_certificate: Option<Key>,
    /// Migrate Ingresses also where what protects them is not translated
    #[arg(long)]
    allow_unprotected: bool,
    #[command(flatten)]
    ending: Ending,
}

fn parse_key(text: &str) -> Result<Key, String> {
    let parts = text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    parts
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| format!("expected NAMESPACE/NAME, not {text:?}"))
}

/// Translates and writes; ends with 1 if something was left out.
///
/// # Errors
/// What can't be read or written.
pub fn run(args: &Args, target: &Target) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let mut inputs = Inputs::default();
    if args.from_cluster {
        cluster::read(target, &mut inputs, &mut report)?;
    } else {
        files::objects(&args.paths, &mut report, named, |object, report| inputs.add(object, report))?;
    }
    if !args.namespaces.is_empty() {
        inputs.ingresses.retain(|it| args.namespaces.contains(&input::namespace_of(&it.metadata)));
    }
    inputs.sort();
    if inputs.ingresses.is_empty() && report.entries.is_empty() {
        bail!("there is no Ingress among what was read");
    }
    let options = Options {
        gateway_class: args.gateway_class.clone(),
        gateway_namespace: args.gateway_namespace.clone(),
        hosts: args.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        classes: args.classes.clone(),
        default_certificate: args.default_certificate.clone(),
        allow_unprotected: args.allow_unprotected,
    };
    let documents = translate(&inputs, &options, &mut report);
    args.ending.give(&documents, &report)
}

/// An object as the report calls it before it is known what it is.
fn named(object: &Value) -> String {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("object");
    format!("{kind} {}", files::text(object, "/metadata/name"))
}
