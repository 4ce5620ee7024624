//! Objects that are wanted, objects that are there, and what is to be done next. No I/O; the time is given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weft_core::ids::GatewayKey;
use weft_k8s::object::GATEWAY_GROUP;
use weft_k8s::translate::gateway::Unmade;

use super::Plans;
use super::compare::holds;
use super::fixed::{Fixed, onto, told};
use super::objects::{of_roots, roots_name};
use super::owned::MANAGER;
pub use super::owned::{Id, Owned};

/// Pauses after a failure, and before what somebody else changes again and again is put right: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// What fails for so long is told by its Gateway. Before that it is likely over by the time that somebody reads it.
const LONG: Duration = Duration::from_secs(30);

/// An object that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// For which Gateway.
    pub gateway: GatewayKey,
    /// Which incarnation of it.
    pub gateway_uid: String,
    /// It, as it is applied.
    pub object: Arc<Value>,
    /// Pods that a new Deployment begins with whose number is an autoscaler's business: that one looks at it seconds later, and until
    /// then there would be one.
    pub begins_with: Option<u64>,
    /// In which fields that isn't what the Gateway asks for, since an object is there in which nobody can change them.
    pub fixed: Vec<Fixed>,
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Which incarnation.
    pub uid: String,
    /// The Gateway that owns it: name and uid.
    pub owner: Option<(String, String)>,
    /// Whether the class of its load balancer is our own word.
    pub sets_class: bool,
    /// It, without who has set which field.
    pub object: Value,
}

impl Live {
    /// Reads an object.
    pub fn of(mut object: Value) -> Self {
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        let fields = metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default();
        let sets_class = fields.as_array().into_iter().flatten().any(|entry| {
            let is = |field: &str, value: &str| entry.get(field).and_then(Value::as_str) == Some(value);
            // What admission adds to what is applied stands under the same name, as an update.
            let is_ours = is("manager", MANAGER) && is("operation", "Apply");
            is_ours && entry.pointer("/fieldsV1/f:spec/f:loadBalancerClass").is_some()
        });
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let owner = owners.into_iter().flatten().find_map(|owner| {
            let text = |field: &str| owner.get(field).and_then(Value::as_str);
            // Others have a kind of this name, too.
            let is_gateway = text("kind")? == "Gateway" && text("apiVersion")?.starts_with(GATEWAY_GROUP);
            is_gateway.then(|| Some((text("name")?.to_owned(), text("uid")?.to_owned())))?
        });
        Self { uid, owner, sets_class, object }
    }
}

/// Something to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is to be as it is wanted; with whether what is there is known to be the Gateway's.
    Apply(Wanted, bool),
    /// This incarnation is to go.
    Delete(String),
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It can't be done now, in these words.
    Failed(String),
    /// The API server won't have it, and why.
    Refused(String),
    /// Somebody else has the name, in these words.
    NotOurs(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing<'a> {
    /// Ours, and whether it is accepted.
    Ours(&'a str, bool),
    Foreign,
}

#[derive(Debug)]
struct Applied {
    object: Arc<Value>,
    fixed: Vec<Fixed>,
    /// How often it was applied again since somebody had changed it.
    again: u32,
}

/// What is wanted, what is there, and what comes next.
#[derive(Debug, Default)]
pub struct Table {
    plans: Arc<Plans>,
    wanted: BTreeMap<Id, Wanted>,
    live: BTreeMap<Id, Live>,
    applied: HashMap<Id, Applied>,
    due: BTreeSet<Id>,
    later: BTreeSet<(Instant, Id)>,
    attempts: HashMap<Id, u32>,
    under_way: BTreeSet<Id>,
    /// What is told.
    failures: BTreeMap<Id, (GatewayKey, Unmade)>,
    /// Since when applying what the API server doesn't refuse fails.
    failing: BTreeMap<Id, Instant>,
    /// Names that somebody else was found to have.
    taken: BTreeSet<Id>,
}

impl Table {
    /// Takes what is wanted now.
    pub fn want(&mut self, plans: Arc<Plans>, wanted: BTreeMap<Id, Wanted>) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let differs = |id: &&Id| before.get(*id) != self.wanted.get(*id);
        let changed: Vec<Id> = before.keys().chain(self.wanted.keys()).filter(differs).cloned().collect();
        // What is there and isn't wanted may be nobody's by now.
        let stray = self.live.keys().filter(|id| !self.wanted.contains_key(*id)).cloned();
        self.due.extend(stray);
        for id in changed {
            self.attempts.remove(&id);
            // What has failed for long is over when it is done.
            if !self.failing.contains_key(&id) {
                self.failures.remove(&id);
            }
            self.due.insert(id);
        }
        self.failures.retain(|id, _| self.wanted.contains_key(id));
        self.taken.retain(|id| self.wanted.contains_key(id));
        self.failing.retain(|id, _| self.wanted.contains_key(id));
        self.plans = plans;
    }

    /// Takes all objects of a kind; others are gone.
    pub fn list(&mut self, kind: Owned, all: Vec<(Id, Live)>, now: Instant) {
        let there: BTreeSet<_> = all.iter().map(|(id, _)| id.clone()).collect();
        let known = self.live.keys().chain(self.applied.keys()).filter(|id| id.kind == kind && !there.contains(*id));
        let gone: BTreeSet<Id> = known.cloned().collect();
        gone.iter().for_each(|id| self.gone(id));
        all.into_iter().for_each(|(id, live)| self.see(id, live, now));
    }

    /// Takes a new or changed object.
    pub fn see(&mut self, id: Id, live: Live, now: Instant) {
        let drifts = self.applied.get(&id).is_some_and(|it| !holds(&live.object, &it.object));
        self.live.insert(id.clone(), live);
        self.due.extend(deployment_with(&id));
        if self.wanted.get(&id).is_some_and(|wanted| self.is_ours(&id, wanted)) && self.taken.remove(&id) {
            self.failures.remove(&id);
        }
        if !drifts {
            self.due.insert(id);
        } else if !self.waits(&id) {
            // Not at once: it may be what was there before we applied, and somebody may do it again and again.
            let pause = pause(self.applied.get(&id).map_or(0, |it| it.again));
            self.later.insert((now + pause, id));
        }
    }

    /// Whether an object has its turn later.
    fn waits(&self, id: &Id) -> bool {
        self.later.iter().any(|(_, waits)| waits == id)
    }

    /// Forgets an object.
    pub fn gone(&mut self, id: &Id) {
        self.live.remove(id);
        self.applied.remove(id);
        self.due.extend(deployment_with(id));
        self.due.insert(id.clone());
    }

    /// Looks at everything anew, as a new leader must.
    pub fn review(&mut self) {
        self.applied.clear();
        self.attempts.clear();
        self.failures.clear();
        self.failing.clear();
        self.due.extend(self.wanted.keys().chain(self.live.keys()).cloned());
    }

    /// The next thing to be done; [`Table::ended`] is told what became of it.
    pub fn next(&mut self, now: Instant) -> Option<(Id, Action)> {
        while let Some((due, _)) = self.later.first()
            && *due <= now
            && let Some((_, id)) = self.later.pop_first()
        {
            self.due.insert(id);
        }
        loop {
            let id = self.due.iter().find(|id| !self.under_way.contains(*id)).cloned()?;
            self.due.remove(&id);
            // What failed waits for its turn, whatever happens meanwhile.
            let waits = self.attempts.contains_key(&id) && self.waits(&id);
            if let Some(action) = self.decide(&id).filter(|_| !waits) {
                self.under_way.insert(id.clone());
                return Some((id, action));
            }
        }
    }

    /// When something that has to wait has its turn.
    pub fn due(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Takes what became of an action. Whether the object is as it was applied is said by the watch, not looked at here.
    pub fn ended(&mut self, id: Id, action: &Action, outcome: Outcome, now: Instant) {
        self.under_way.remove(&id);
        let is_taken = matches!(&outcome, Outcome::NotOurs(_));
        let was_taken = if is_taken { !self.taken.insert(id.clone()) } else { self.taken.remove(&id) };
        if is_taken != was_taken {
            self.due.extend(deployment_with(&id));
        }
        match (outcome, action) {
            (Outcome::Done, Action::Apply(wanted, _)) => {
                let again =
                    self.applied.remove(&id).filter(|it| it.object == wanted.object).map_or(0, |it| it.again + 1);
                let (object, fixed) = (Arc::clone(&wanted.object), wanted.fixed.clone());
                self.applied.insert(id.clone(), Applied { object, fixed, again });
                self.attempts.remove(&id);
                self.failures.remove(&id);
                self.failing.remove(&id);
            }
            (Outcome::Done, Action::Delete(_)) => {
                self.attempts.remove(&id);
            }
            (Outcome::Refused(why) | Outcome::NotOurs(why), Action::Apply(wanted, _)) => {
                let serves = is_taken && id.kind.is_spared();
                self.failing.remove(&id);
                self.tell(&id, wanted, Unmade { why, serves });
                self.again(&id, now);
            }
            (Outcome::Failed(why), Action::Apply(wanted, _)) => {
                let since = *self.failing.entry(id.clone()).or_insert(now);
                if now.duration_since(since) >= LONG {
                    // What is there serves as it did, but at no port that it doesn't have.
                    let serves = id.kind != Owned::Service && self.live.contains_key(&id);
                    self.tell(&id, wanted, Unmade { why, serves });
                }
                self.again(&id, now);
            }
            (Outcome::Failed(_) | Outcome::Refused(_) | Outcome::NotOurs(_), Action::Delete(_)) => {
                self.again(&id, now);
            }
        }
    }

    /// Notes what a Gateway says of an object, unless that isn't wanted any more by the time that it has failed.
    fn tell(&mut self, id: &Id, wanted: &Wanted, unmade: Unmade) {
        if self.wanted.contains_key(id) {
            self.failures.insert(id.clone(), (wanted.gateway.clone(), unmade));
        }
    }

    fn again(&mut self, id: &Id, now: Instant) {
        let attempts = self.attempts.entry(id.clone()).or_default();
        let pause = pause(*attempts);
        *attempts = attempts.saturating_add(1);
        // It may have had a later turn, from before it was edited.
        self.later.retain(|(_, waits)| waits != id);
        self.later.insert((now + pause, id.clone()));
    }

    /// An object of each Gateway that can't be made; one that it isn't served without, if there is such a one.
    pub fn unmade(&self) -> BTreeMap<GatewayKey, Unmade> {
        let mut unmade: BTreeMap<GatewayKey, Unmade> = BTreeMap::new();
        // What was applied with a field that stayed as it was.
        let stays = self.applied.iter().filter(|(id, it)| !it.fixed.is_empty() && !self.failures.contains_key(*id));
        let stays = stays.filter_map(|(id, it)| {
            let wanted = self.wanted.get(id)?;
            Some((wanted.gateway.clone(), Unmade { why: told(id, &it.fixed), serves: false }))
        });
        let stays: Vec<_> = stays.collect();
        for (gateway, found) in self.failures.values().chain(&stays) {
            let known = unmade.entry(gateway.clone()).or_insert_with(|| found.clone());
            if known.serves && !found.serves {
                known.clone_from(found);
            }
        }
        unmade
    }

    fn decide(&self, id: &Id) -> Option<Action> {
        let live = self.live.get(id);
        let Some(wanted) = self.wanted.get(id) else { return self.decide_unwanted(id, live?) };
        let owner = live.and_then(|live| live.owner.as_ref());
        let is_ours = owner.is_some_and(|(_, uid)| *uid == wanted.gateway_uid);
        if let (Some(live), Some((name, _))) = (live, owner)
            && !is_ours
            && name == wanted.gateway.name.as_str()
        {
            // Of a Gateway of this name that is gone: it would go soon, and can't have two that own it.
            return Some(Action::Delete(live.uid.clone()));
        }
        if id.kind == Owned::Deployment {
            let needs = needed_by(id);
            if needs.iter().any(|id| self.taken.contains(id)) {
                // Its pods would be whom somebody else says, or trust whom somebody else says.
                return live.filter(|_| is_ours).map(|live| Action::Delete(live.uid.clone()));
            }
            needs.iter().all(|id| self.is_ours(id, wanted)).then_some(())?;
        }
        let wanted = live.filter(|_| is_ours).map_or_else(|| wanted.clone(), |live| onto(live, id.kind, wanted));
        let same = |it: &Applied| it.object == wanted.object && it.fixed == wanted.fixed;
        let is_applied = self.applied.get(id).is_some_and(same);
        let is_there = live.is_none_or(|live| holds(&live.object, &wanted.object));
        (!is_applied || !is_there).then_some(Action::Apply(wanted, is_ours))
    }

    /// Whether an object is there and of the Gateway that wants another one.
    fn is_ours(&self, id: &Id, wanted: &Wanted) -> bool {
        let owner = self.live.get(id).and_then(|live| live.owner.as_ref());
        owner.is_some_and(|(_, uid)| *uid == wanted.gateway_uid)
    }

    /// Objects of a Gateway that is gone go with it. Those that it doesn't need any more, and those of one that is somebody
    /// else's by now, are ours to remove.
    fn decide_unwanted(&self, id: &Id, live: &Live) -> Option<Action> {
        let (name, uid) = live.owner.as_ref()?;
        let key = GatewayKey::new(id.namespace.as_str(), name.as_str());
        let to_go = match self.standing(&key)? {
            Standing::Ours(of, accepted) => accepted && of == uid,
            Standing::Foreign => true,
        };
        to_go.then(|| Action::Delete(live.uid.clone()))
    }

    fn standing(&self, key: &GatewayKey) -> Option<Standing<'_>> {
        if self.plans.foreign.contains(key) {
            return Some(Standing::Foreign);
        }
        self.plans.ours.iter().find(|plan| plan.key == *key).map(|plan| Standing::Ours(&plan.uid, plan.accepted))
    }
}

/// What has to be the Gateway's own before its pods are made: who they are, and whom they trust.
fn needed_by(deployment: &Id) -> [Id; 2] {
    let (namespace, name) = (&deployment.namespace, &deployment.name);
    let of = |kind, name| Id { kind, namespace: namespace.clone(), name };
    [of(Owned::ServiceAccount, name.clone()), of(Owned::ConfigMap, roots_name(name))]
}

/// The Deployment that needs an object.
fn deployment_with(id: &Id) -> Option<Id> {
    let name = match id.kind {
        Owned::ServiceAccount => id.name.as_str(),
        Owned::ConfigMap => of_roots(&id.name)?,
        _ => return None,
    };
    Some(Id { kind: Owned::Deployment, namespace: id.namespace.clone(), name: name.to_owned() })
}

fn pause(attempts: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << attempts.min(10)).min(PAUSES.1)
}
