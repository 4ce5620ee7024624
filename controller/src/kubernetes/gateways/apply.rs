//! The task that makes and removes the objects of Gateways, while this replica leads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use weft_core::ids::GatewayKey;
use weft_k8s::object::GATEWAY_GROUP;
use weft_k8s::translate::gateway::Unmade;
use weft_kube::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use weft_kube::kube::core::DynamicObject;
use weft_kube::kube::runtime::watcher::Config;
use weft_kube::kube::{Api, Client, Error};
use weft_kube::{Events, Severity, Watched, watch_as};

use super::fault::Fault;
use super::fixed::told;
use super::objects::{MANAGED_BY, objects};
use super::owned::MANAGER;
use super::settings::PodSettings;
use super::table::{Action, Id, Live, Outcome, Owned, Table, Wanted};
use super::{Plans, table};
use crate::kubernetes::intake::Fact;

/// Who has the number of pods when it becomes an autoscaler's business.
const SCALE_MANAGER: &str = "weft-gateways-scale";
/// Most requests at a time.
const AT_ONCE: usize = 8;
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the file with the mesh's roots is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The reason of Events.
const REFUSED: &str = "ProvisioningRefused";

/// What the task works with.
pub struct Provisioner {
    /// The API server.
    pub client: Client,
    /// Where refusals are told.
    pub events: Events,
    /// What all pods have in common.
    pub settings: PodSettings,
    /// Whether this replica leads.
    pub leader: watch::Receiver<bool>,
    /// What is wanted; nothing until the cluster is known.
    pub plans: watch::Receiver<Option<Arc<Plans>>>,
    /// Told of which Gateways objects can't be made, as [`Fact::Unprovisioned`].
    pub facts: mpsc::Sender<Fact>,
}

/// Runs until the plans or the leadership end.
pub async fn run(provisioner: Provisioner) {
    let mut state = State::new(provisioner);
    let mut look = tokio::time::interval(LOOK);
    let mut seen = futures::stream::select_all(Owned::ALL.map(|kind| watched(&state.with.client, kind)));
    loop {
        state.start();
        state.tell().await;
        let due = state.due();
        tokio::select! {
            changed = state.with.plans.changed() => match changed {
                Ok(()) => state.want(),
                Err(_) => return,
            },
            changed = state.with.leader.changed() => match changed {
                Ok(()) => state.table.review(),
                Err(_) => return,
            },
            Some((kind, change)) = seen.next() => state.take(kind, change),
            Some(ended) = state.requests.join_next_with_id() => state.ended(ended),
            _ = look.tick() => state.look().await,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

type Seen = (Id, Live);

/// Our objects of a kind, and each change.
fn watched(client: &Client, kind: Owned) -> BoxStream<'static, (Owned, Watched<Option<Seen>>)> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
    let config = Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let read = move |mut object: DynamicObject| {
        let id = Id { kind, namespace: object.metadata.namespace.clone()?, name: object.metadata.name.clone()? };
        // An item of a list need not say its kind.
        object.types = Some(weft_kube::kube::core::TypeMeta {
            api_version: kind.resource().api_version,
            kind: kind.resource().kind,
        });
        let mut object = serde_json::to_value(object).ok()?;
        object.as_object_mut()?.remove("status");
        Some((id, Live::of(object)))
    };
    watch_as(api, config, read).map(move |change| (kind, change)).boxed()
}

struct State {
    with: Provisioner,
    table: Table,
    roots: Option<String>,
    requests: JoinSet<Outcome>,
    under_way: HashMap<tokio::task::Id, (Id, Action)>,
    told: BTreeMap<GatewayKey, Unmade>,
}

impl State {
    fn new(with: Provisioner) -> Self {
        let (table, requests) = (Table::default(), JoinSet::new());
        Self { with, table, roots: None, requests, under_way: HashMap::new(), told: BTreeMap::new() }
    }

    fn leads(&self) -> bool {
        *self.with.leader.borrow()
    }

    fn has_room(&self) -> bool {
        self.requests.len() < AT_ONCE
    }

    /// When there is something to do without anything happening.
    fn due(&self) -> Option<Instant> {
        self.table.due().filter(|_| self.leads() && self.has_room())
    }

    /// Starts what can be started.
    fn start(&mut self) {
        while self.leads()
            && self.has_room()
            && let Some((id, action)) = self.table.next(Instant::now())
        {
            let (client, events, leader) =
                (self.with.client.clone(), self.with.events.clone(), self.with.leader.clone());
            let (of, what) = (id.clone(), action.clone());
            let task = self.requests.spawn(async move {
                let done = async {
                    if !*leader.borrow() {
                        return Ok(());
                    }
                    timeout(PATIENCE, carry_out(&client, &of, &what)).await.map_err(|_| Fault::Late)?
                };
                outcome(&events, &of, &what, done.await)
            });
            self.under_way.insert(task.id(), (id, action));
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Outcome), tokio::task::JoinError>) {
        let (task, outcome) = match ended {
            Ok((task, outcome)) => (task, Some(outcome)),
            Err(error) => {
                tracing::error!(%error, "the task that makes an object of a Gateway failed");
                (error.id(), None)
            }
        };
        if let Some((id, action)) = self.under_way.remove(&task) {
            let outcome = outcome.unwrap_or_else(|| failed(&id, "a fault of the controller, which its log has"));
            self.table.ended(id, &action, outcome, Instant::now());
        }
    }

    fn take(&mut self, kind: Owned, change: Watched<Option<Seen>>) {
        let now = Instant::now();
        match change {
            Watched::Restarted(all) => self.table.list(kind, all.into_iter().flatten().collect(), now),
            Watched::Applied(Some((id, live))) => self.table.see(id, live, now),
            Watched::Deleted(Some((id, _))) => self.table.gone(&id),
            Watched::Applied(None) | Watched::Deleted(None) => {}
        }
    }

    /// Reads the mesh's roots, which the kubelet replaces when the authority does.
    async fn look(&mut self) {
        let path = &self.with.settings.roots;
        match tokio::fs::read_to_string(path).await {
            Ok(roots) if !roots.trim().is_empty() => {
                if self.roots.as_ref() != Some(&roots) {
                    self.roots = Some(roots);
                    self.want();
                }
            }
            // Pods wait for them; what is known goes on.
            Ok(_) | Err(_) if self.roots.is_none() => {
                tracing::debug!(file = %path.display(), "waiting for the mesh's roots before Gateways are served");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "the mesh's roots can't be read"),
        }
    }

    /// Computes what is wanted.
    fn want(&mut self) {
        let (Some(plans), Some(roots)) = (self.with.plans.borrow_and_update().clone(), &self.roots) else { return };
        let mut wanted = BTreeMap::new();
        for plan in plans.ours.iter().filter(|plan| plan.accepted) {
            let made = objects(plan, &self.with.settings, roots);
            let begins_with = least_pods(&made);
            for object in made {
                let Some(id) = table::Id::of(&object) else { continue };
                let (gateway, gateway_uid) = (plan.key.clone(), plan.uid.clone());
                // A further Service of one may have the name of another one's: the first has it.
                wanted.entry(id).or_insert(Wanted {
                    gateway,
                    gateway_uid,
                    object: Arc::new(object),
                    begins_with,
                    fixed: Vec::new(),
                });
            }
        }
        self.table.want(plans, wanted);
    }

    /// Tells of which Gateways objects can't be made.
    async fn tell(&mut self) {
        let unmade = if self.leads() { self.table.unmade() } else { BTreeMap::new() };
        if unmade != self.told && self.with.facts.send(Fact::Unprovisioned(unmade.clone())).await.is_ok() {
            self.told = unmade;
        }
    }
}

async fn carry_out(client: &Client, id: &Id, action: &Action) -> Result<(), Fault> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &id.namespace, &id.kind.resource());
    match action {
        Action::Apply(wanted, is_ours) => {
            if !is_ours && let Some(there) = api.get_opt(&id.name).await? {
                let there = Live::of(serde_json::to_value(there).unwrap_or_default());
                if there.owner.is_none_or(|(_, uid)| uid != wanted.gateway_uid) {
                    return Err(Fault::NotOurs(format!("{} {}", id.kind.resource().kind, id.name)));
                }
            }
            if id.kind == Owned::Deployment && wanted.object.pointer("/spec/replicas").is_none() {
                keep_replicas(&api, id, wanted).await?;
            }
            let patch: Patch<&Value> = Patch::Apply(&*wanted.object);
            api.patch(&id.name, &PatchParams::apply(MANAGER).force(), &patch).await?;
        }
        Action::Delete(uid) => {
            let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
            match api.delete(&id.name, &parameters).await {
                Err(Error::Api(status)) if status.code == 404 => {}
                answered => drop(answered?),
            }
        }
    }
    Ok(())
}

/// Who applies an object without a field that it alone has had takes the field away, and a Deployment without a number of pods
/// has one. So the number that there is gets somebody else who has it first, until the autoscaler says another. A Deployment
/// that isn't there yet is made with the least number.
async fn keep_replicas(api: &Api<DynamicObject>, id: &Id, wanted: &Wanted) -> Result<(), Error> {
    let replicas = match (api.get_opt(&id.name).await?, wanted.begins_with) {
        (Some(there), _) => own_replicas(&there),
        (None, Some(least)) => {
            let mut object = Value::clone(&wanted.object);
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                spec.insert("replicas".to_owned(), json!(least));
            }
            api.patch(&id.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
            Some(json!(least))
        }
        (None, None) => None,
    };
    let Some(replicas) = replicas else { return Ok(()) };
    let resource = id.kind.resource();
    let patch = json!({ "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": { "name": id.name, "namespace": id.namespace }, "spec": { "replicas": replicas } });
    api.patch(&id.name, &PatchParams::apply(SCALE_MANAGER).force(), &Patch::Apply(&patch)).await.map(drop)
}

/// The number of pods, if it was applied by us.
fn own_replicas(there: &DynamicObject) -> Option<Value> {
    let is_owned = there.metadata.managed_fields.iter().flatten().any(|entry| {
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.pointer("/f:spec/f:replicas"));
        entry.manager.as_deref() == Some(MANAGER) && fields.is_some()
    });
    there.data.pointer("/spec/replicas").filter(|_| is_owned).cloned()
}

/// The least number of pods that an autoscaler among these objects keeps.
fn least_pods(objects: &[Value]) -> Option<u64> {
    let scaler = objects.iter().find(|object| object["kind"] == Owned::Autoscaler.resource().kind)?;
    scaler.pointer("/spec/minReplicas")?.as_u64()
}

fn outcome(events: &Events, id: &Id, action: &Action, done: Result<(), Fault>) -> Outcome {
    let (kind, namespace, name) = (&id.kind.resource().kind, &id.namespace, &id.name);
    let Err(fault) = done else {
        let what = match action {
            Action::Apply(..) => "applied",
            Action::Delete(_) => "deleted",
        };
        tracing::info!(kind, namespace, name, what, "an object of a Gateway");
        if let (Action::Apply(wanted, _), Some(why)) = (action, fixed(id, action)) {
            tracing::warn!(kind, namespace, name, why, "an object of a Gateway can't become what is wanted");
            events.publish(gateway(wanted), Severity::Warning, REFUSED, &why);
        }
        return Outcome::Done;
    };
    let why = match &fault {
        Fault::NotOurs(_) => Some(fault.to_string()),
        Fault::Api(_) | Fault::Late => fault.refusal().map(|words| {
            let fixed = fixed(id, action).map(|fixed| format!("{fixed}; ")).unwrap_or_default();
            format!("{fixed}{kind} {name}: {words}")
        }),
    };
    metrics::counter!("weft_controller_api_errors_total", "what" => "gateway").increment(1);
    tracing::warn!(kind, namespace, name, error = %fault, "an object of a Gateway can't be made or removed now");
    match (why, action) {
        (Some(why), Action::Apply(wanted, _)) => {
            events.publish(gateway(wanted), Severity::Warning, REFUSED, &why);
            if matches!(fault, Fault::NotOurs(_)) { Outcome::NotOurs(why) } else { Outcome::Refused(why) }
        }
        (Some(why), Action::Delete(_)) => Outcome::Refused(why),
        (None, _) => failed(id, &fault.words()),
    }
}

fn failed(id: &Id, why: &str) -> Outcome {
    Outcome::Failed(format!("{} {}: {why}; it is tried again", id.kind.resource().kind, id.name))
}

/// What nobody can change of an object that should be another one, for people.
fn fixed(id: &Id, action: &Action) -> Option<String> {
    match action {
        Action::Apply(wanted, _) if !wanted.fixed.is_empty() => Some(told(id, &wanted.fixed)),
        Action::Apply(..) | Action::Delete(_) => None,
    }
}

/// The Gateway as Events name it.
fn gateway(wanted: &Wanted) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{GATEWAY_GROUP}/v1")),
        kind: Some("Gateway".to_owned()),
        namespace: Some(wanted.gateway.namespace.to_string()),
        name: Some(wanted.gateway.name.to_string()),
        uid: Some(wanted.gateway_uid.clone()),
        ..ObjectReference::default()
    }
}
