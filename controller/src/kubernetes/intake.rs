//! Watches every subject for ever and tells what is there, as [`Fact`]s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use tokio::sync::mpsc;
use weft_core::ids::GatewayKey;
use weft_k8s::object::{Kind, Object};
use weft_k8s::translate::gateway::Unmade;
use weft_kube::kube::core::{ApiResource, ClusterResourceScope, DynamicObject};
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{Api, Client, Resource};
use weft_kube::{KnownPods, Seat, Watched, watch, watch_as};

use super::bound;
use super::gateways::MANAGED_BY;
use super::refusals::Report;
use super::seen::{Content, Seen};
use super::subject::{Origin, Subject};

/// How often an older API server is asked whether it has a newer kind now.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// How long such a question may take, and the pause after it failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long API servers may go on to answer by a definition that has been replaced.
const SETTLED: Duration = Duration::from_secs(15);

/// Something that is known of the cluster.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The cluster doesn't have this kind (any more).
    Absent(Subject),
    /// All objects of a kind; others are gone. With the version that is read.
    Listed(Subject, ApiResource, Vec<Seen>),
    /// A new or changed object.
    Applied(Subject, Seen),
    /// An object that is gone.
    Deleted(Subject, Seen),
    /// What nodes refuse at the moment, as each replica has it.
    Refused(BTreeMap<String, Report>),
    /// What pods of Gateways have bound, as each replica has it.
    Bound(BTreeMap<String, bound::Report>),
    /// The same of those that follow this replica, which is newer.
    BoundHere(bound::Report),
    /// Gateways whose objects can't be made, and why; while this replica leads.
    Unprovisioned(BTreeMap<GatewayKey, Unmade>),
}

/// Watches all subjects; the receiver's end is the watches' end. What only Gateways refer to is looked at only if there may be
/// `gateways`: without, nobody need grant the right to. Pods are told to who knows them by their tokens, too.
pub fn start(client: &Client, sender: &mpsc::Sender<Fact>, gateways: bool, known: &Arc<KnownPods>) {
    for subject in Subject::ALL {
        let (client, sender, known) = (client.clone(), sender.clone(), Arc::clone(known));
        let is_unused =
            !gateways && matches!(subject, Subject::Object(Kind::Secret | Kind::ConfigMap | Kind::ServiceAccount));
        tokio::spawn(async move {
            match subject.origin() {
                _ if is_unused => {
                    // The receiver goes only with the process.
                    let _ = sender.send(Fact::Absent(subject)).await;
                }
                Origin::BuiltIn if subject == Subject::Object(Kind::Pod) => {
                    forward(facts(&client, subject, "v1").inspect(|fact| note(fact, &known)), &sender).await;
                }
                Origin::BuiltIn => forward(facts(&client, subject, "v1"), &sender).await,
                Origin::Newer => follow_newer(&client, subject, &sender).await,
                Origin::Custom => follow_custom(&client, subject, &sender).await,
            }
        });
    }
}

/// The objects of a subject in one version.
fn facts(client: &Client, subject: Subject, version: &str) -> BoxStream<'static, Fact> {
    let resource = subject.resource(version);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let fact = move |watched| match watched {
        Watched::Restarted(all) => Fact::Listed(subject, resource.clone(), all),
        Watched::Applied(one) => Fact::Applied(subject, one),
        Watched::Deleted(one) => Fact::Deleted(subject, one),
    };
    // As JSON the pods of a large cluster take gigabytes.
    watch_as(api, config(subject), move |object| Seen::of(subject, object)).map(fact).boxed()
}

/// Which objects of a kind are looked at. Of Secrets only those with a certificate for TLS: others never leave the API server.
/// Of ServiceAccounts only those that were made for Gateways: with no other one anybody is a Gateway's pod.
fn config(subject: Subject) -> Config {
    match subject {
        Subject::Object(Kind::Secret) => Config::default().fields("type=kubernetes.io/tls"),
        Subject::Object(Kind::ServiceAccount) => {
            let (label, value) = MANAGED_BY;
            Config::default().labels(&format!("{label}={value}"))
        }
        _ => Config::default(),
    }
}

/// Notes which pods there are.
fn note(fact: &Fact, known: &KnownPods) {
    match fact {
        Fact::Listed(_, _, pods) => known.replace(pods.iter().filter_map(seat)),
        Fact::Applied(_, pod) => match seat(pod) {
            Some(seat) => known.see(&seat),
            None => known.forget(&pod.namespace, &pod.name),
        },
        Fact::Deleted(_, pod) => known.forget(&pod.namespace, &pod.name),
        _ => {}
    }
}

/// What a token of a pod says, from when it is bound.
fn seat(pod: &Seen) -> Option<Seat<'_>> {
    let Content::Object(checked) = &pod.content else { return None };
    let Object::Pod(object) = &checked.object else { return None };
    let spec = object.spec.as_ref()?;
    let Seen { namespace, name, uid, .. } = pod;
    let (account, node) = (spec.service_account_name.as_deref()?, spec.node_name.as_deref()?);
    let ends = object.metadata.deletion_timestamp.as_ref().map(|at| at.0.into());
    Some(Seat { namespace, pod: name, uid, service_account: account, node, ends })
}

async fn forward(mut facts: impl Stream<Item = Fact> + Unpin, sender: &mpsc::Sender<Fact>) {
    while let Some(fact) = facts.next().await {
        if sender.send(fact).await.is_err() {
            return;
        }
    }
}

async fn follow_newer(client: &Client, subject: Subject, sender: &mpsc::Sender<Fact>) {
    let version = subject.versions().first().copied().unwrap_or("v1");
    let resource = subject.resource(version);
    let mut said = false;
    loop {
        let asked = client.list_api_group_resources(&resource.api_version);
        let pause = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(list)) if list.resources.iter().any(|r| r.name == resource.plural) => {
                return forward(facts(client, subject, version), sender).await;
            }
            Ok(Ok(_)) => ASK_AGAIN,
            Ok(Err(weft_kube::kube::Error::Api(status))) if status.code == 404 => ASK_AGAIN,
            Ok(Err(error)) => {
                tracing::warn!(kind = subject.kind(), %error, "the API server can't say whether it has this kind");
                PATIENCE
            }
            Err(_elapsed) => PATIENCE,
        };
        if pause == ASK_AGAIN && !std::mem::replace(&mut said, true) {
            tracing::info!(kind = subject.kind(), "this API server doesn't have the kind");
            if sender.send(Fact::Absent(subject)).await.is_err() {
                return;
            }
        }
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = sender.closed() => return }
    }
}

/// Follows the CustomResourceDefinition, and while there is one its objects, in the best version that is served.
///
/// When the definition changes, objects are listed anew, at once and when every API server has it: what was written
/// meanwhile may have come without the fields that are new, and no event would bring them.
async fn follow_custom(client: &Client, subject: Subject, sender: &mpsc::Sender<Fact>) {
    let name = format!("{}.{}", subject.plural(), subject.group());
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut definitions = watch(Api::<Definition>::all(client.clone()), config).boxed();
    let mut objects = futures::stream::pending().boxed();
    let mut known: Option<Option<(&'static str, i64)>> = None;
    let mut again: Option<tokio::time::Instant> = None;
    loop {
        let fact = tokio::select! {
            // Of a kind that has gone nothing more is to be told.
            biased;
            definition = definitions.next() => {
                let served = match definition {
                    Some(Watched::Restarted(all)) => all.iter().find_map(|d| Some((d.best(subject)?, d.generation()))),
                    Some(Watched::Applied(one)) => one.best(subject).map(|version| (version, one.generation())),
                    Some(Watched::Deleted(_)) | None => None,
                };
                if known == Some(served) {
                    continue;
                }
                tracing::info!(definition = name, version = served.map_or("none", |(version, _)| version), "kind");
                let before = known.replace(served).flatten();
                again = before.and(served).map(|_| tokio::time::Instant::now() + SETTLED);
                match served {
                    Some((version, _)) => {
                        objects = facts(client, subject, version);
                        continue;
                    }
                    None => objects = futures::stream::pending().boxed(),
                }
                Fact::Absent(subject)
            }
            () = until(again) => {
                again = None;
                if let Some(Some((version, _))) = known {
                    objects = facts(client, subject, version);
                }
                continue;
            }
            Some(fact) = objects.next() => fact,
            () = sender.closed() => return,
        };
        if sender.send(fact).await.is_err() {
            return;
        }
    }
}

/// Waits until then, or for ever.
async fn until(then: Option<tokio::time::Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// The few fields of a CustomResourceDefinition that matter here: schemas are large.
#[derive(Clone, Debug, Deserialize)]
struct Definition {
    metadata: ObjectMeta,
    spec: DefinitionSpec,
    #[serde(default)]
    status: DefinitionStatus,
}

#[derive(Clone, Debug, Deserialize)]
struct DefinitionSpec {
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Clone, Debug, Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DefinitionStatus {
    conditions: Option<Vec<DefinitionCondition>>,
}

#[derive(Clone, Debug, Deserialize)]
struct DefinitionCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Definition {
    /// Which state of its specification it is.
    fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }

    /// The best version that can be read now.
    fn best(&self, subject: Subject) -> Option<&'static str> {
        let mut conditions = self.status.conditions.iter().flatten();
        if !conditions.any(|c| c.kind == "Established" && c.status == "True") {
            return None;
        }
        let served = |version: &&&str| self.spec.versions.iter().any(|v| v.served && v.name == **version);
        let best = subject.versions().iter().find(served).copied();
        if best.is_none() {
            let versions: Vec<_> = self.spec.versions.iter().map(|v| v.name.as_str()).collect();
            let wanted = subject.versions();
            tracing::error!(kind = subject.kind(), ?versions, ?wanted, "no version of this kind can be read");
        }
        best
    }
}

impl Resource for Definition {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "CustomResourceDefinition".into()
    }

    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "apiextensions.k8s.io".into()
    }

    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "customresourcedefinitions".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
#[path = "tests/intake.rs"]
mod tests;
