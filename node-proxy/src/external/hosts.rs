//! Which hosts are to be resolved, when, and what is known of each. No I/O; the time is given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::ids::{Name, Port, SectionName, ServiceKey};
use weft_core::service::{Endpoint, EndpointHealth, EndpointSlice, SliceKey, SlicePort};

use super::dns::{Answer, Failure};

/// The least and the most that an answer counts, whatever it says.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// When a host is asked for again that there isn't.
const NEGATIVE: Duration = Duration::from_secs(30);
/// Pauses while nobody answers: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How long the last good answer counts while nobody answers (RFC 8767).
const STALE: Duration = Duration::from_secs(3600);
/// Most questions at a time.
const AT_ONCE: usize = 16;
/// Most hosts; of more, the last ones by name are never resolved.
const MOST_HOSTS: usize = 4096;

/// A backend that is a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct External {
    pub(super) host: String,
    pub(super) port_name: SectionName,
    pub(super) port: Port,
}

#[derive(Debug)]
struct Host {
    addresses: Vec<IpAddr>,
    /// When the addresses count no more unless somebody answers.
    stale: Option<Instant>,
    due: Instant,
    asked: bool,
    failures: u32,
}

/// What is known of hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    wanted: BTreeMap<ServiceKey, External>,
    hosts: BTreeMap<String, Host>,
    /// What was told last.
    told: BTreeMap<ServiceKey, Arc<EndpointSlice>>,
}

impl Hosts {
    /// Takes what is wanted now.
    pub(super) fn want(&mut self, wanted: BTreeMap<ServiceKey, External>, now: Instant) {
        self.wanted = wanted;
        let names: BTreeSet<&String> = self.wanted.values().map(|it| &it.host).collect();
        self.hosts.retain(|name, _| names.contains(name));
        let fresh = || Host { addresses: Vec::new(), stale: None, due: now, asked: false, failures: 0 };
        for name in names.into_iter().take(MOST_HOSTS) {
            self.hosts.entry(name.clone()).or_insert_with(fresh);
        }
    }

    /// The hosts to ask for now; [`Hosts::answered`] is told what became of each.
    pub(super) fn next(&mut self, now: Instant) -> Vec<String> {
        let room = AT_ONCE.saturating_sub(self.hosts.values().filter(|host| host.asked).count());
        let due = self.hosts.iter_mut().filter(|(_, host)| !host.asked && host.due <= now);
        let asked = due.take(room).map(|(name, host)| {
            host.asked = true;
            name.clone()
        });
        asked.collect()
    }

    /// When there is something to do without anything happening.
    pub(super) fn due(&self) -> Option<Instant> {
        let asked = self.hosts.values().filter(|host| host.asked).count();
        let waiting = self.hosts.values().filter(|host| !host.asked && asked < AT_ONCE).map(|host| host.due);
        let stale = self.hosts.values().filter(|host| !host.addresses.is_empty()).filter_map(|host| host.stale);
        waiting.chain(stale).min()
    }

    /// Takes an answer. Says whether it is another one than before: worth a line in the log.
    pub(super) fn answered(&mut self, name: &str, answer: Result<Answer, Failure>, now: Instant) -> bool {
        let Some(host) = self.hosts.get_mut(name) else { return false };
        host.asked = false;
        let failed = std::mem::take(&mut host.failures);
        match answer {
            Ok(Answer { mut addresses, ttl }) => {
                // Servers turn their answers around; endpoints need not.
                addresses.sort_unstable();
                let ttl = ttl.clamp(TTL.0, TTL.1);
                (host.due, host.stale) = (now + ttl, Some(now + ttl + STALE));
                std::mem::replace(&mut host.addresses, addresses) != host.addresses || failed > 0
            }
            Err(Failure::NoSuchHost) => {
                (host.due, host.stale) = (now + NEGATIVE, None);
                !std::mem::take(&mut host.addresses).is_empty() || failed > 0
            }
            Err(Failure::Unanswered(_)) => {
                host.due = now + PAUSES.0.saturating_mul(1 << failed.min(10)).min(PAUSES.1);
                host.failures = failed.saturating_add(1);
                failed == 0
            }
        }
    }

    /// What is different for the data plane since the last time; `may` says which addresses may be sent to.
    pub(super) fn changes(&mut self, now: Instant, may: impl Fn(IpAddr) -> bool) -> Vec<Change> {
        for host in self.hosts.values_mut() {
            if host.stale.is_some_and(|stale| stale <= now) {
                host.addresses.clear();
            }
        }
        let slice = |(key, external): (&ServiceKey, &External)| {
            let host = self.hosts.get(&external.host)?;
            let usable = host.addresses.iter().copied().filter(|address| may(*address));
            Some((key.clone(), Arc::new(slice(key, external, usable))))
        };
        let now: BTreeMap<_, _> = self.wanted.iter().filter_map(slice).collect();
        let before = std::mem::replace(&mut self.told, now);
        let gone = before.values().filter(|slice| !self.told.values().any(|it| it.key == slice.key));
        let gone = gone.map(|slice| Change::Remove(ResourceKey::EndpointSlice(slice.key.clone())));
        let new = self.told.iter().filter(|(key, slice)| before.get(*key) != Some(slice));
        new.map(|(_, slice)| Change::Upsert(Resource::EndpointSlice(Arc::clone(slice)))).chain(gone).collect()
    }
}

fn slice(key: &ServiceKey, external: &External, addresses: impl Iterator<Item = IpAddr>) -> EndpointSlice {
    let endpoint =
        |address| Endpoint { address, workload: None, health: EndpointHealth::Ready, node: None, zone: None };
    EndpointSlice {
        // As the backend is called, which no slice of a cluster can be.
        key: SliceKey { namespace: key.namespace.clone(), name: Name::new(key.name.as_str()) },
        service: key.clone(),
        ports: vec![SlicePort { name: external.port_name.clone(), port: external.port }],
        endpoints: addresses.map(endpoint).collect(),
    }
}

#[cfg(test)]
#[path = "tests/hosts.rs"]
mod tests;
