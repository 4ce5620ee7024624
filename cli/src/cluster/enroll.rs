//! `weft enroll`: puts a namespace into the mesh or takes it out, and waits until its pods have followed.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde::Serialize;
use serde_json::json;
use weft_k8s::object::ENROLMENT_LABEL;
use weft_k8s::translate::enrolment::says;
use weft_kube::kube::api::{Api, Patch, PatchParams};

use super::facts::{Facts, Unread, has_ended, name_of, namespace_of, node_of};
use super::pods::{PodView, Said, Standing, labelled};
use super::print;
use super::read::{Session, within};
use crate::{Output, table};

/// How often pods are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// Which namespace.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The namespace
    namespace: String,
    /// Take it out of the mesh
    #[arg(long)]
    off: bool,
    /// How long to wait for its pods
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2m")]
    timeout: Duration,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What became of a namespace's pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub namespace: String,
    /// Whether they are to be in the mesh.
    pub enrolled: bool,
    /// Those that are as they should be.
    pub done: usize,
    /// Those that aren't yet.
    pub waiting: Vec<PodView>,
    /// Those that never will be.
    pub never: Vec<PodView>,
}

impl Outcome {
    /// How the pods of a namespace stand.
    ///
    /// # Errors
    /// What couldn't be read.
    pub fn of(facts: &Facts, namespace: &str, enrolled: bool) -> Result<Self, Unread> {
        let mut outcome =
            Self { namespace: namespace.to_owned(), enrolled, done: 0, waiting: Vec::new(), never: Vec::new() };
        if enrolled {
            for pod in labelled(facts)?.into_iter().filter(|pod| pod.namespace == namespace) {
                match pod.standing {
                    Standing::Protected => outcome.done += 1,
                    Standing::Never(_) => outcome.never.push(pod),
                    _ => outcome.waiting.push(pod),
                }
            }
            return Ok(outcome);
        }
        // Its agent has let a pod go when it doesn't name it, or when it has as many pods as are still enrolled.
        let said = Said::of(facts);
        for pod in facts.pods.as_ref().map_err(Clone::clone)?.iter().filter(|pod| leaves(pod, namespace)) {
            if node_of(pod).is_empty() {
                outcome.done += 1;
                continue;
            }
            let about = said.about(pod, false);
            let standing = match about {
                Ok(None | Some(Standing::Never(_))) => {
                    outcome.done += 1;
                    continue;
                }
                Ok(Some(Standing::Protected)) => Standing::Unknown("it is still in the mesh".to_owned()),
                Ok(Some(standing)) => standing,
                Err(why) => Standing::Unknown(why),
            };
            outcome.waiting.push(PodView {
                namespace: namespace.to_owned(),
                name: name_of(&pod.metadata).to_owned(),
                node: node_of(pod).to_owned(),
                standing,
            });
        }
        Ok(outcome)
    }
}

/// Pods that leave the mesh with their namespace: those without a label of their own that keeps them.
fn leaves(pod: &Pod, namespace: &str) -> bool {
    namespace_of(&pod.metadata) == namespace
        && !has_ended(pod)
        && !node_of(pod).is_empty()
        && says(pod.metadata.labels.as_ref()) != Some(true)
}

/// Labels, waits and says what isn't as it should be.
pub async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let Args { namespace, off, timeout, output } = args;
    if *namespace == session.mesh {
        bail!("{namespace} is the namespace of the mesh itself, whose pods are never in it");
    }
    let api: Api<Namespace> = Api::all(session.client.clone());
    if within("namespaces", api.get_opt(namespace)).await?.is_none() {
        bail!("there is no namespace {namespace}");
    }
    let value = if *off { None } else { Some("enabled") };
    let patch = json!({ "metadata": { "labels": { ENROLMENT_LABEL: value } } });
    within(&format!("Namespace {namespace}"), api.patch(namespace, &PatchParams::default(), &Patch::Merge(patch)))
        .await?;
    let until = Instant::now() + *timeout;
    let outcome = loop {
        let outcome = Outcome::of(&look(session).await?, namespace, !off)?;
        if outcome.waiting.is_empty() || Instant::now() + PAUSE >= until {
            break outcome;
        }
        tokio::time::sleep(PAUSE).await;
    };
    print(*output, &outcome)?;
    Ok(if outcome.waiting.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(session: &Session) -> Result<Facts, Unread> {
    let mut facts = Facts::new(&session.mesh, session.server().await?);
    (facts.namespaces, facts.pods) = tokio::join!(session.all(), session.all());
    let pods = facts.pods.as_deref().unwrap_or_default();
    facts.pages = session.pages(pods, Some("weft-agent")).await;
    Ok(facts)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, not) = if self.enrolled {
            ("in the mesh", "not in the mesh yet")
        } else {
            ("out of the mesh", "still in the mesh")
        };
        let pods = if self.done == 1 { "pod is" } else { "pods are" };
        writeln!(f, "namespace {}: {} {pods} {done}", self.namespace, self.done)?;
        let rows = |list: &[PodView]| -> String {
            let rows = list.iter().map(|p| {
                vec![p.name.clone(), p.node.clone(), p.standing.as_str().to_owned(), p.standing.why().to_owned()]
            });
            table(&["POD", "NODE", "STATE", "WHY"], rows)
        };
        if !self.waiting.is_empty() {
            write!(f, "\n{not}\n{}", rows(&self.waiting))?;
        }
        if !self.never.is_empty() {
            write!(f, "\nnever in the mesh\n{}", rows(&self.never))?;
        }
        Ok(())
    }
}
