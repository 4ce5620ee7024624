//! Which endpoints may be picked, nearest first.

use std::sync::{Arc, OnceLock};

use weft_core::ids::{NodeName, Zone};
use weft_core::service::{EndpointHealth, Service, TrafficDistribution};
use weft_core::snapshot::{EndpointEntry, EndpointList};
use weft_core::workload::Workload;

/// Where this proxy runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node.
    pub node: NodeName,
    /// Its zone.
    pub zone: NodeZone,
}

/// A node's zone: as it was given, else as the configuration has it for the first workload of the node that is heard of. A
/// node doesn't change its zone. Cheap to clone, all clones are one.
#[derive(Clone, Debug, Default)]
pub struct NodeZone(Arc<OnceLock<Zone>>);

impl NodeZone {
    /// The zone that was given, if one was.
    pub fn new(given: Option<Zone>) -> Self {
        Self(Arc::new(given.map(OnceLock::from).unwrap_or_default()))
    }

    /// The zone, if it is known by now.
    pub fn get(&self) -> Option<&Zone> {
        self.0.get()
    }
}

impl Place {
    /// Whether the zone is still to be learnt.
    pub fn is_zone_unknown(&self) -> bool {
        self.zone.get().is_none()
    }

    /// Learns the zone from a workload, if that is on this node and it isn't known yet.
    pub fn learn(&self, workload: &Workload) {
        if workload.node == self.node
            && let Some(zone) = &workload.zone
        {
            // Whoever came first is right.
            let _ = self.zone.0.set(zone.clone());
        }
    }
}

/// Indexes into an endpoint list by preference: a later tier is used only when the ones before have nobody fit.
/// Each tier holds the ones before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tiers(pub(super) Vec<Vec<u32>>);

impl Tiers {
    /// Ready endpoints; the draining ones only if none is ready; never one that is neither.
    pub(super) fn new(list: &EndpointList, service: &Service, place: &Place) -> Self {
        let on_node = |entry: &EndpointEntry| entry.node.as_ref() == Some(&place.node);
        let zone = place.zone.get();
        let in_zone = |entry: &EndpointEntry| zone.is_some() && entry.zone.as_ref() == zone;
        let all = |health| -> Vec<u32> {
            let indexed = list.entries.iter().zip(0_u32..);
            let fit =
                indexed.filter(|(entry, _)| entry.health == health && (!service.node_local_only || on_node(entry)));
            fit.map(|(_, index)| index).collect()
        };
        let mut usable = all(EndpointHealth::Ready);
        if usable.is_empty() {
            usable = all(EndpointHealth::Draining);
        }
        let narrowed = |near: &dyn Fn(&EndpointEntry) -> bool| -> Vec<u32> {
            let is_near = |index: &&u32| list.entries.get(**index as usize).is_some_and(near);
            usable.iter().filter(is_near).copied().collect()
        };
        let mut tiers = match service.distribution {
            TrafficDistribution::Any => Vec::new(),
            TrafficDistribution::PreferSameZone => vec![narrowed(&in_zone)],
            TrafficDistribution::PreferSameNode => vec![narrowed(&on_node), narrowed(&|e| on_node(e) || in_zone(e))],
        };
        tiers.push(usable);
        tiers.retain(|tier| !tier.is_empty());
        tiers.dedup();
        Self(tiers)
    }

    /// All that may be picked.
    pub(super) fn widest(&self) -> &[u32] {
        self.0.last().map_or(&[], Vec::as_slice)
    }
}
