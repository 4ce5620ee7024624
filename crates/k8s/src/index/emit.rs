//! What has been reported, and the difference to what is now.

use std::collections::{BTreeMap, HashMap};

use weft_core::change::{Change, Resource, ResourceKey};

/// The resources, and which of them changed since the last [`Emitted::take_changes`].
#[derive(Debug, Default)]
pub(super) struct Emitted {
    now: BTreeMap<ResourceKey, Resource>,
    /// What was there at the last report, for each key touched since.
    before: HashMap<ResourceKey, Option<Resource>>,
}

impl Emitted {
    pub(super) fn set(&mut self, key: ResourceKey, resource: Option<Resource>) {
        let old = match resource {
            Some(resource) => self.now.insert(key.clone(), resource),
            None => self.now.remove(&key),
        };
        self.before.entry(key).or_insert(old);
    }

    pub(super) fn get(&self, key: &ResourceKey) -> Option<&Resource> {
        self.now.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.now.values()
    }

    /// What is different by now of the keys that are `wanted`, in no order. It is still to be taken.
    pub(super) fn so_far(&self, wanted: impl Fn(&ResourceKey) -> bool) -> Vec<Change> {
        let touched = self.before.iter().filter(|(key, _)| wanted(key));
        let differing = touched.filter(|(key, before)| self.now.get(*key) != before.as_ref());
        let change = |(key, _): (&ResourceKey, _)| match self.now.get(key) {
            Some(now) => Change::Upsert(now.clone()),
            None => Change::Remove(key.clone()),
        };
        differing.map(change).collect()
    }

    /// The differences, in an order that is safe to apply one by one: who may call is known before the workloads
    /// that list it, workloads before endpoints, Services before rules, all that a listener needs before it; removals
    /// come last, in reverse.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for (key, before) in self.before.drain() {
            match (self.now.get(&key), before) {
                (None, None) => {}
                (None, Some(_)) => removals.push(key),
                (Some(now), before) if before.as_ref() != Some(now) => upserts.push((key, now.clone())),
                (Some(_), _) => {}
            }
        }
        upserts.sort_by(|(a, _), (b, _)| (class(a), a).cmp(&(class(b), b)));
        removals.sort_by(|a, b| (class(b), a).cmp(&(class(a), b)));
        let upserts = upserts.into_iter().map(|(_, resource)| Change::Upsert(resource));
        upserts.chain(removals.into_iter().map(Change::Remove)).collect()
    }
}

fn class(key: &ResourceKey) -> u8 {
    match key {
        ResourceKey::Mesh => 0,
        ResourceKey::MeshPolicy(_) => 1,
        ResourceKey::Authorization(_) | ResourceKey::Telemetry(_) => 2,
        ResourceKey::Workload(_) => 3,
        ResourceKey::EndpointSlice(_) => 4,
        ResourceKey::Service(_) => 5,
        ResourceKey::BackendTls(_) => 6,
        ResourceKey::Certificate(_) => 7,
        ResourceKey::GatewayConfig(_) => 8,
        ResourceKey::Rule(_) | ResourceKey::GatewayRule(_) => 9,
        ResourceKey::Listener(_) => 10,
    }
}
