//! What is known of the cluster, and what follows from it. No I/O: facts in, [`Effects`] out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;
use weft_core::change::{Change, Resource};
use weft_k8s::index::{Index, IndexConfig};
use weft_k8s::object::{Kind, Object, ObjectRef};
use weft_kube::Severity;
use weft_kube::kube::core::ApiResource;

use super::access::Nack;
use super::desired::{self, Desired};
use super::foreign::ForeignPolicies;
use super::gateways::Plans;
use super::intake::Fact;
use super::ranges::{self, GivenRanges, cluster_ranges};
use super::refusals::{self, Refused, Report};
use super::seen::{Content, Seen};
use super::statuses::{Target, Wanted};
use super::subject::Subject;
use crate::audit;

mod notes;
mod replicas;

use notes::listed;
pub use replicas::Audience;

/// What is to be done about new facts.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be published.
    pub changes: Vec<Change>,
    /// Statuses that differ from those in the cluster, for the leader to write.
    pub statuses: Vec<Wanted>,
    /// What people should know of single objects, for the leader to say.
    pub notes: Vec<Note>,
    /// Replicas that are gone and left a word of what their nodes refuse, for the leader to remove.
    pub gone: Vec<String>,
    /// Replicas that are gone and left a word of what pods of Gateways have bound, for the leader to remove.
    pub gone_of_bound: Vec<String>,
    /// Who may follow the configuration, and what Gateways are to bind.
    pub audience: Audience,
    /// What Gateways need to be served, if that may be something else than before.
    pub plans: Option<Plans>,
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object.
    pub regarding: ObjectReference,
    /// How bad it is.
    pub severity: Severity,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// An object that could not be read, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Odd {
    uid: String,
    reason: &'static str,
    message: String,
}

/// What is known of the cluster.
#[derive(Debug)]
pub struct World {
    index: Index,
    given: GivenRanges,
    /// Whether nothing may stay in memory, whatever policies there are.
    force_wire: bool,
    /// Each subject that was heard of; with the version that is served, if it is there at all.
    heard: HashMap<Subject, Option<ApiResource>>,
    /// What is taken in was there before this replica: no change.
    quiet: bool,
    meshes: BTreeMap<String, Seen>,
    cidrs: BTreeMap<String, Value>,
    foreign: ForeignPolicies,
    odd: BTreeMap<ObjectRef, Odd>,
    /// Objects to look at again at the next commit.
    touched: BTreeSet<ObjectRef>,
    touched_meshes: BTreeSet<String>,
    ranges_changed: bool,
    foreign_changed: bool,
    /// This replica: its pod, which need not be in the cluster.
    replica: ObjectRef,
    /// What each replica says that its nodes refuse.
    reports: BTreeMap<String, Report>,
    /// All of it, as of the last commit.
    refused: BTreeMap<ObjectRef, Refused>,
    gone: BTreeSet<String>,
    fleet: replicas::Fleet,
    /// The revision of the index's Gateways that was planned for last.
    planned: Option<u64>,
}

impl World {
    /// A world in which nothing is known yet. Ranges that aren't given are learnt from the cluster.
    pub fn new(config: IndexConfig, given: GivenRanges) -> Self {
        Self {
            force_wire: config.mesh.force_wire,
            index: Index::new(config),
            given,
            heard: HashMap::new(),
            quiet: false,
            meshes: BTreeMap::new(),
            cidrs: BTreeMap::new(),
            foreign: ForeignPolicies::default(),
            odd: BTreeMap::new(),
            touched: BTreeSet::new(),
            touched_meshes: BTreeSet::new(),
            ranges_changed: true,
            foreign_changed: false,
            replica: ObjectRef::new(Kind::Pod, "", ""),
            reports: BTreeMap::new(),
            refused: BTreeMap::new(),
            gone: BTreeSet::new(),
            fleet: replicas::Fleet::default(),
            planned: None,
        }
    }

    /// Says which replica this is, by the namespace of the mesh and the name of its pod.
    #[must_use]
    pub fn of_replica(self, namespace: &str, instance: &str) -> Self {
        Self { replica: ObjectRef::new(Kind::Pod, namespace, instance), ..self }
    }

    /// Kinds that nothing has been heard of yet: until there are none, what is known is not the whole.
    pub fn missing(&self) -> Vec<&'static str> {
        let kinds = Subject::ALL.iter().filter(|s| !self.heard.contains_key(s)).map(|s| s.kind());
        kinds.chain(self.missing_of_replicas()).collect()
    }

    /// What is published: all resources of the configuration.
    pub fn resources(&self) -> Vec<Resource> {
        self.index.resources().cloned().collect()
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        Subject::ALL.iter().filter_map(|subject| match subject {
            Subject::Object(kind) => Some((kind.as_str(), self.index.count(*kind))),
            Subject::Mesh => Some((subject.kind(), self.meshes.len())),
            Subject::ServiceCidr => Some((subject.kind(), self.cidrs.len())),
            Subject::ForeignPolicy(_) => None,
        })
    }

    /// How many objects can't be read, or not all of them.
    pub fn odd(&self) -> usize {
        self.odd.len()
    }

    /// Takes a fact in; it takes effect with the next [`World::commit`].
    pub fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Absent(subject) => self.list(subject, None, Vec::new()),
            Fact::Listed(subject, resource, all) => self.list(subject, Some(resource), all),
            Fact::Applied(subject, one) => self.apply(subject, one),
            Fact::Deleted(Subject::Object(kind), one) => self.delete(&one.reference(kind)),
            Fact::Deleted(Subject::Mesh, one) => drop(self.meshes.remove(&one.name)),
            Fact::Deleted(Subject::ServiceCidr, one) => {
                self.cidrs.remove(&one.name);
                self.ranges_changed = true;
            }
            Fact::Deleted(Subject::ForeignPolicy(kind), one) => {
                self.foreign.delete(kind, &one);
                self.foreign_changed = true;
            }
            Fact::Refused(reports) => self.reports = reports,
            Fact::Bound(reports) => self.fleet.reports = Some(reports),
            Fact::BoundHere(report) => self.fleet.own = report,
            Fact::Unprovisioned(unmade) => self.index.set_unprovisioned(unmade),
        }
    }

    fn list(&mut self, subject: Subject, resource: Option<ApiResource>, all: Vec<Seen>) {
        self.quiet = self.heard.insert(subject, resource).is_none();
        match subject {
            Subject::Object(kind) => {
                let there: BTreeSet<_> = all.iter().map(|seen| seen.reference(kind)).collect();
                let known = self.index.of_kind(kind).map(|(reference, _)| reference.clone());
                let known: BTreeSet<_> = known.chain(self.odd.keys().filter(|r| r.kind == kind).cloned()).collect();
                known.difference(&there).for_each(|gone| self.delete(gone));
            }
            Subject::Mesh => self.meshes.clear(),
            Subject::ServiceCidr => {
                self.cidrs.clear();
                self.ranges_changed = true;
            }
            Subject::ForeignPolicy(kind) => {
                self.foreign.list(kind, &all);
                self.foreign_changed = true;
                self.quiet = false;
                return;
            }
        }
        all.into_iter().for_each(|seen| self.apply(subject, seen));
        self.quiet = false;
    }

    fn apply(&mut self, subject: Subject, seen: Seen) {
        match (subject, &seen.content) {
            (Subject::Object(kind), _) => self.apply_object(kind, seen),
            (Subject::Mesh, _) => {
                self.touched_meshes.insert(seen.name.clone());
                self.meshes.insert(seen.name.clone(), seen);
            }
            (Subject::ServiceCidr, Content::Other(value)) => {
                self.cidrs.insert(seen.name.clone(), value.get("spec").cloned().unwrap_or_default());
                self.ranges_changed = true;
            }
            (Subject::ServiceCidr, _) => {}
            (Subject::ForeignPolicy(kind), _) => {
                self.foreign.apply(kind, &seen);
                self.foreign_changed = true;
            }
        }
    }

    fn apply_object(&mut self, kind: Kind, seen: Seen) {
        let reference = seen.reference(kind);
        let odd = match seen.content {
            Content::Object(checked) => {
                self.ranges_changed |= ranges::follow_from(&reference);
                if !self.quiet {
                    audit::note(self.index.get(&reference), Some(&checked.object));
                }
                self.index.apply(checked.object);
                (!checked.unknown.is_empty()).then(|| {
                    let message = format!("not known to this version and not done: {}", listed(&checked.unknown));
                    Odd { uid: seen.uid, reason: "UnsupportedField", message }
                })
            }
            // What was known of it goes on: a route or policy that is gone would let more pass than one that is old.
            Content::Unreadable(why) => {
                // But that of an earlier object of this name is gone, though the watch has missed it.
                let known = self.index.get(&reference).map(|it| it.meta().uid.clone().unwrap_or_default());
                if known.is_some_and(|uid| uid != seen.uid) {
                    self.delete(&reference);
                }
                let message = format!("can't be read, so that what was known of it before stays in force: {why}");
                Some(Odd { uid: seen.uid, reason: "Unreadable", message })
            }
            Content::Other(_) => None,
        };
        match odd {
            Some(odd) => {
                if self.odd.get(&reference) != Some(&odd) {
                    tracing::warn!(object = %reference, reason = odd.reason, "{}", odd.message);
                }
                self.odd.insert(reference.clone(), odd);
            }
            None => drop(self.odd.remove(&reference)),
        }
        self.touch_classes(kind);
        self.touched.insert(reference);
    }

    fn delete(&mut self, reference: &ObjectRef) {
        self.ranges_changed |= ranges::follow_from(reference);
        audit::note(self.index.get(reference), None);
        self.index.delete(reference);
        self.touch_classes(reference.kind);
        self.odd.remove(reference);
        self.touched.remove(reference);
    }

    /// What a class refers to has come or gone: its status says so.
    fn touch_classes(&mut self, kind: Kind) {
        if kind == Kind::GatewayParameters {
            self.touched.extend(self.index.of_kind(Kind::GatewayClass).map(|(reference, _)| reference.clone()));
        }
    }

    /// What Gateways need to be served, if that may be something else than at the last time.
    fn plans(&mut self) -> Option<Plans> {
        let revision = Some(self.index.gateways_revision());
        if std::mem::replace(&mut self.planned, revision) == revision {
            return None;
        }
        Some(Plans { ours: self.index.gateway_plans().collect(), foreign: self.index.foreign_gateways().collect() })
    }

    /// Computes what follows from all facts since the last time.
    pub fn commit(&mut self) -> Effects {
        if std::mem::take(&mut self.ranges_changed) {
            self.update_ranges();
        }
        if std::mem::take(&mut self.foreign_changed) {
            self.update_enforced();
        }
        let mut out = self.index.commit();
        let (audience, bound_changed) = self.follow_gateways(&out.changes);
        if bound_changed {
            let more = self.index.commit();
            out.changes.extend(more.changes);
            out.statuses.extend(more.statuses);
        }
        let (gone, gone_of_bound) = (self.take_refusals(), self.newly_gone_of_bound());
        let mut touched = std::mem::take(&mut self.touched);
        touched.extend(out.statuses.into_iter().map(|update| update.object));
        let meshes = std::mem::take(&mut self.touched_meshes);
        let statuses = touched.iter().filter_map(|reference| self.wanted(reference));
        let statuses = statuses.chain(meshes.iter().filter_map(|name| self.wanted_mesh(name))).collect();
        let notes = touched.iter().flat_map(|reference| self.notes_of(reference)).collect();
        Effects { changes: out.changes, statuses, notes, gone, gone_of_bound, audience, plans: self.plans() }
    }

    /// All that a new leader has to write and say: whatever isn't as it should be.
    pub fn review(&self) -> Effects {
        let classes = self.index.of_kind(Kind::GatewayClass).map(|(reference, _)| reference.clone());
        let ours: BTreeSet<_> = self.index.statuses().map(|update| update.object).chain(classes).collect();
        let statuses = ours.iter().filter_map(|reference| self.wanted(reference));
        let statuses = statuses.chain(self.meshes.keys().filter_map(|name| self.wanted_mesh(name))).collect();
        let noted: BTreeSet<_> = self.index.all_problems().map(|(r, _)| r).chain(self.odd.keys()).collect();
        let notes = noted.into_iter().flat_map(|reference| self.notes_of(reference)).collect();
        let (gone, gone_of_bound) = (self.gone.iter().cloned().collect(), self.gone_of_bound());
        Effects { statuses, notes, gone, gone_of_bound, ..Effects::default() }
    }

    /// What is to be said about a refusal by a node.
    pub fn note_of_nack(&self, nack: &Nack) -> Note {
        Note {
            regarding: self.reference(&nack.object),
            severity: Severity::Warning,
            reason: refusals::REASON.to_owned(),
            message: format!("{} refuses it and keeps what it had: {}", nack.who, nack.reason),
        }
    }

    fn update_ranges(&mut self) {
        let nodes = || {
            self.index.of_kind(Kind::Node).filter_map(|(_, object)| match object {
                Object::Node(node) => Some(&**node),
                _ => None,
            })
        };
        let ranges = cluster_ranges(&self.given, nodes(), self.cidrs.values());
        let mut mesh = self.index.mesh().clone();
        mesh.node_addresses = ranges::node_addresses(nodes(), self.index.get(&ranges::api_servers()));
        if mesh.cluster_ranges != ranges {
            tracing::info!(?ranges, "ranges of the cluster");
            mesh.cluster_ranges = ranges;
        }
        self.index.set_mesh(mesh);
    }

    fn update_enforced(&mut self) {
        let (everywhere, namespaces) = self.foreign.concerned();
        let mut mesh = self.index.mesh().clone();
        mesh.force_wire = self.force_wire || everywhere;
        self.index.set_mesh(mesh);
        self.index.set_enforced(namespaces);
    }

    /// The status that an object should have, unless it has it.
    fn wanted(&self, reference: &ObjectRef) -> Option<Wanted> {
        let object = self.index.get(reference)?;
        let resource = self.heard.get(&Subject::Object(reference.kind))?.clone()?;
        let (generation, desired, current) = if reference.kind == Kind::GatewayClass {
            let value = object.to_json();
            let wrong = self.index.class_parameters(reference.name.as_str()).err();
            let serves = self.index.config().gateways.is_some();
            let desired = Desired::of_class(value.get("spec")?, wrong.as_ref(), serves)?;
            (object.generation(), desired, value.get("status").cloned().unwrap_or_default())
        } else {
            let (generation, status) = self.index.status(reference)?;
            let mut status = status.clone();
            self.refused.get(reference).into_iter().for_each(|refused| refusals::mark(&mut status, refused));
            let odd = self.odd.get(reference).map(|odd| odd.message.as_str());
            (generation, Desired::entries(status, odd), desired::entries(object)?)
        };
        // The time doesn't decide whether something is to be written.
        let confirms = desired::confirms(&desired.merge(generation, Some(&current), "")?, &current);
        let (namespace, name) = (reference.namespace.to_string(), reference.name.to_string());
        let uid = object.meta().uid.clone().unwrap_or_default();
        Some(Wanted { target: Target { resource, namespace, name }, uid, generation, desired, confirms })
    }

    fn wanted_mesh(&self, name: &str) -> Option<Wanted> {
        let Seen { uid, generation, content: Content::Other(value), .. } = self.meshes.get(name)? else { return None };
        let resource = self.heard.get(&Subject::Mesh)?.clone()?;
        let desired = Desired::of_mesh(value.get("spec")?)?;
        desired.merge(*generation, value.get("status"), "")?;
        let target = Target { resource, namespace: String::new(), name: name.to_owned() };
        Some(Wanted { target, uid: uid.clone(), generation: *generation, desired, confirms: false })
    }
}

#[cfg(test)]
#[path = "tests/world.rs"]
mod tests;
