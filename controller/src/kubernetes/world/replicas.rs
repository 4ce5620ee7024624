//! What replicas tell each other of the proxies that follow them: what these refuse, and what Gateways' pods have bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::ids::{GatewayKey, ListenerKey, Namespace, ServiceAccount};
use weft_core::wire;
use weft_k8s::object::{Kind, ObjectRef};
use weft_xds::Version;

use super::World;
use crate::kubernetes::access::Accounts;
use crate::kubernetes::bound::{Bindings, Fingerprint, Report};
use crate::kubernetes::refusals;

/// What follows for those who follow the configuration.
#[derive(Debug, Default, PartialEq)]
pub struct Audience {
    /// The ServiceAccounts of Gateways' pods, if they may be others than before.
    pub accounts: Option<Arc<Accounts>>,
    /// Gateways that have other listeners than before; `None`: they are gone.
    pub listeners: Vec<(GatewayKey, Option<Fingerprint>)>,
}

/// The Gateways of this mesh, and what is heard of their pods.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// The listeners that are published, by the names of their resources.
    listeners: BTreeMap<GatewayKey, BTreeMap<String, Version>>,
    /// Of each Gateway of ours, with or without listeners.
    wanted: BTreeMap<GatewayKey, Fingerprint>,
    /// The revision of the index's Gateways that this is of.
    revision: Option<u64>,
    /// What each replica says that pods have bound; `None` until that was heard.
    pub(super) reports: Option<BTreeMap<String, Report>>,
    /// What this one says: newer than what is in `reports` under its name.
    pub(super) own: Report,
    /// Gateways of which a pod has come as far as their listeners of now, with those that no pod has bound, and why.
    bound: BTreeMap<GatewayKey, BTreeMap<ListenerKey, String>>,
    /// Replicas that are gone and have a word in `reports`.
    gone: BTreeSet<String>,
}

impl Fleet {
    /// Notes what was published; returns the Gateways whose listeners it is about.
    fn note(&mut self, changes: &[Change]) -> BTreeSet<GatewayKey> {
        let mut touched = BTreeSet::new();
        for change in changes {
            let (key, version) = match change {
                Change::Upsert(resource @ Resource::Listener(listener)) => {
                    (&listener.key, Some(Version::of(&wire::encode(resource))))
                }
                Change::Remove(ResourceKey::Listener(key)) => (key, None),
                _ => continue,
            };
            let name = wire::name(&ResourceKey::Listener(key.clone()));
            let of_gateway = self.listeners.entry(key.gateway.clone()).or_default();
            match version {
                Some(version) => drop(of_gateway.insert(name, version)),
                None => drop(of_gateway.remove(&name)),
            }
            touched.insert(key.gateway.clone());
        }
        self.listeners.retain(|_, listeners| !listeners.is_empty());
        touched
    }

    /// Which listeners a Gateway is to have.
    fn fingerprint(&self, gateway: &GatewayKey) -> Fingerprint {
        self.listeners.get(gateway).map_or_else(|| Fingerprint::of(&BTreeMap::new()), Fingerprint::of)
    }

    /// The Gateways of which a pod has come as far as their listeners of now, by the word of any replica, with the listeners
    /// that none of these pods has bound. The word of a replica that is gone counts until it is removed: its pods are on
    /// their way to another.
    fn bound(&self, own: &str) -> BTreeMap<GatewayKey, BTreeMap<ListenerKey, String>> {
        let others = self.reports.iter().flatten().filter(|(replica, _)| *replica != own).map(|(_, report)| report);
        let reports: Vec<_> = others.chain([&self.own]).collect();
        let unbound = |(gateway, wanted): (&GatewayKey, &Fingerprint)| {
            let name = gateway.to_string();
            let pods = reports.iter().filter_map(|report| report.get(&name)).flatten();
            let refused = refused_by_all(pods.filter(|pod| pod.listeners() == wanted))?;
            let keys = refused.into_iter().filter_map(|(name, why)| Some((listener_of(name)?, why.clone())));
            Some((gateway.clone(), keys.filter(|(key, _)| key.gateway == *gateway).collect()))
        };
        self.wanted.iter().filter_map(unbound).collect()
    }
}

impl World {
    /// Takes over what was published of Gateways, and tells the index which of them have bound it: to be committed again if
    /// that is something else than before.
    pub(super) fn follow_gateways(&mut self, changes: &[Change]) -> (Audience, bool) {
        let mut touched = self.fleet.note(changes);
        let mut audience = Audience::default();
        let revision = Some(self.index.gateways_revision());
        if std::mem::replace(&mut self.fleet.revision, revision) != revision {
            let ours: BTreeSet<GatewayKey> = self.index.gateways().map(|(gateway, _)| gateway).collect();
            let gone: Vec<_> = self.fleet.wanted.keys().filter(|gateway| !ours.contains(*gateway)).cloned().collect();
            for gateway in gone {
                self.fleet.wanted.remove(&gateway);
                audience.listeners.push((gateway, None));
            }
            let known = &self.fleet.wanted;
            let new: Vec<_> = ours.iter().filter(|gateway| !known.contains_key(*gateway)).cloned().collect();
            for gateway in new {
                self.fleet.wanted.insert(gateway.clone(), Fingerprint::of(&BTreeMap::new()));
                touched.insert(gateway);
            }
            audience.accounts = Some(Arc::new(self.index.gateway_accounts().map(account).collect()));
        }
        touched.retain(|gateway| self.fleet.wanted.contains_key(gateway));
        for gateway in touched {
            let fingerprint = self.fleet.fingerprint(&gateway);
            self.fleet.wanted.insert(gateway.clone(), fingerprint.clone());
            audience.listeners.push((gateway, Some(fingerprint)));
        }
        (audience, self.take_bound())
    }

    /// Whether other Gateways have bound their listeners than before.
    fn take_bound(&mut self) -> bool {
        let bound = self.fleet.bound(self.replica.name.as_str());
        if bound == self.fleet.bound {
            return false;
        }
        self.fleet.bound.clone_from(&bound);
        self.index.set_bound(bound);
        true
    }

    /// Replicas that are gone and left a word of what pods have bound.
    pub(super) fn gone_of_bound(&self) -> Vec<String> {
        let replicas = self.fleet.reports.iter().flat_map(BTreeMap::keys);
        replicas.filter(|name| !self.lives(name)).cloned().collect()
    }

    /// Those that are gone since the last time.
    pub(super) fn newly_gone_of_bound(&mut self) -> Vec<String> {
        let gone: BTreeSet<_> = self.gone_of_bound().into_iter().collect();
        let before = std::mem::replace(&mut self.fleet.gone, gone);
        self.fleet.gone.difference(&before).cloned().collect()
    }

    /// What is to be heard of other replicas before anything is said: a Gateway that they know to be bound would else be said
    /// not to be.
    pub(super) fn missing_of_replicas(&self) -> Option<&'static str> {
        let is_missing = self.index.config().gateways.is_some() && self.fleet.reports.is_none();
        is_missing.then_some("ConfigMap weft-gateways")
    }

    /// Whether a replica is there.
    fn lives(&self, name: &str) -> bool {
        let pod = ObjectRef::new(Kind::Pod, self.replica.namespace.clone(), name);
        pod == self.replica || self.index.get(&pod).is_some()
    }

    /// Puts together what replicas say, without those whose pod is gone: their nodes follow another by now. Objects of
    /// which something else is said than before are touched. Returns those that are gone since the last time.
    pub(super) fn take_refusals(&mut self) -> Vec<String> {
        if self.reports.is_empty() && self.refused.is_empty() {
            return Vec::new();
        }
        let gone: BTreeSet<_> = self.reports.keys().filter(|name| !self.lives(name)).cloned().collect();
        let living = self.reports.iter().filter(|(name, _)| !gone.contains(*name));
        let refused = refusals::merged(living.map(|(_, report)| report));
        let keys: BTreeSet<&ObjectRef> = refused.keys().chain(self.refused.keys()).collect();
        let differs = |key: &&&ObjectRef| refused.get(**key) != self.refused.get(**key);
        self.touched.extend(keys.iter().filter(differs).map(|key| (*key).clone()));
        self.refused = refused;
        let new = gone.difference(&self.gone).cloned().collect();
        self.gone = gone;
        new
    }
}

/// What every one of some pods refuses, and why; `None` if there is no pod.
fn refused_by_all<'a>(mut pods: impl Iterator<Item = &'a Bindings>) -> Option<BTreeMap<&'a str, &'a String>> {
    let first = pods.next()?;
    let mut common: BTreeMap<&str, &String> =
        first.refused().into_iter().flatten().map(|(name, why)| (name.as_str(), why)).collect();
    pods.for_each(|pod| common.retain(|name, _| pod.refused().is_some_and(|refused| refused.contains_key(*name))));
    Some(common)
}

/// The listener that a resource is, by its name.
fn listener_of(name: &str) -> Option<ListenerKey> {
    match wire::parse_name(wire::LISTENER, name) {
        Ok(ResourceKey::Listener(key)) => Some(key),
        _ => None,
    }
}

/// The ServiceAccount of a Gateway's pods.
fn account((gateway, name): (GatewayKey, String)) -> ((Namespace, ServiceAccount), GatewayKey) {
    ((gateway.namespace.clone(), ServiceAccount::from(name)), gateway)
}

#[cfg(test)]
#[path = "../tests/replicas.rs"]
mod tests;
