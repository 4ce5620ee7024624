//! One client's stream: what it asked for, what it holds, what it must be told next. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use prost_types::Any;
use weft_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::publisher::{Changed, Sequence, State};
use crate::{TypeUrl, Version, WILDCARD};

/// Most resources and bytes in one response: a large state arrives in pieces that can be applied one by one.
const MAX_RESOURCES: usize = 1_000;
const MAX_BYTES: usize = 1 << 20;
/// Types and names a client may ask for; more is an attack or a mistake.
pub(super) const MAX_TYPES: usize = 64;
const MAX_NAMES: usize = 1_000_000;

/// What a request meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Only subscriptions changed.
    Subscription,
    /// A response was applied.
    Ack(TypeUrl),
    /// A response was applied in part or not at all.
    Nack(TypeUrl, String),
    /// An answer to a response that isn't the latest.
    Stale,
    /// Too many types or names.
    TooMuch,
}

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    types: BTreeMap<TypeUrl, TypeState>,
    nonces: u64,
    seen: Sequence,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: HashSet<Arc<str>>,
    /// What the client has, as far as we know; `None` for a version that isn't one of ours.
    held: HashMap<Arc<str>, Option<Version>>,
    outstanding: Option<String>,
    /// Names that may have to be sent.
    dirty: BTreeSet<Arc<str>>,
    /// A subscription is answered even if there is nothing to say, so that the client knows.
    owes_answer: bool,
}

impl Stream {
    /// Takes a request in.
    pub(super) fn on_request(&mut self, request: &DeltaDiscoveryRequest, state: &State) -> Heard {
        let type_url = TypeUrl::new(&request.type_url);
        if !self.types.contains_key(&type_url) && self.types.len() >= MAX_TYPES {
            return Heard::TooMuch;
        }
        let known = self.types.entry(type_url.clone()).or_default();
        known.take_held(request);
        known.subscribe(request, &type_url, state);
        if known.names.len() > MAX_NAMES || known.held.len() > MAX_NAMES {
            return Heard::TooMuch;
        }
        if request.response_nonce.is_empty() {
            return Heard::Subscription;
        }
        if known.outstanding.as_deref() != Some(&request.response_nonce) {
            return Heard::Stale;
        }
        known.outstanding = None;
        match &request.error_detail {
            Some(error) => Heard::Nack(type_url, error.message.clone()),
            None => Heard::Ack(type_url),
        }
    }

    /// Notes what changed since the last time.
    pub(super) fn catch_up(&mut self, state: &State) {
        match state.changed_since(self.seen) {
            Changed::Names(names) => {
                for name in names {
                    if let Some(known) = self.types.get_mut(&name.type_url)
                        && (known.wildcard || known.names.contains(&name.name))
                    {
                        known.dirty.insert(name.name);
                    }
                }
            }
            Changed::Everything => {
                for (type_url, known) in &mut self.types {
                    known.mark_all(type_url, state);
                }
            }
        }
        self.seen = state.sequence();
    }

    /// Up to where the client has everything, or `None` while something is under way.
    pub(super) fn synced(&self) -> Option<Sequence> {
        let idle = |t: &TypeState| t.dirty.is_empty() && t.outstanding.is_none() && !t.owes_answer;
        self.types.values().all(idle).then_some(self.seen)
    }

    /// The next response that may be sent, if any.
    pub(super) fn next_response(
        &mut self,
        state: &State,
        may_see: impl Fn(&TypeUrl, &str) -> bool,
    ) -> Option<DeltaDiscoveryResponse> {
        for (type_url, known) in &mut self.types {
            if known.outstanding.is_some() || (known.dirty.is_empty() && !known.owes_answer) {
                continue;
            }
            let (resources, removed_resources) = known.take_dirty(type_url, state, &may_see);
            if resources.is_empty() && removed_resources.is_empty() && !known.owes_answer {
                continue;
            }
            known.owes_answer = false;
            self.nonces += 1;
            let nonce = self.nonces.to_string();
            known.outstanding = Some(nonce.clone());
            return Some(DeltaDiscoveryResponse {
                system_version_info: state.sequence().0.to_string(),
                resources,
                type_url: type_url.as_str().to_owned(),
                nonce,
                removed_resources,
            });
        }
        None
    }
}

impl TypeState {
    fn take_held(&mut self, request: &DeltaDiscoveryRequest) {
        for (name, version) in &request.initial_resource_versions {
            let name: Arc<str> = Arc::from(name.as_str());
            self.dirty.insert(Arc::clone(&name));
            self.held.insert(name, Version::parse(version));
        }
    }

    fn subscribe(&mut self, request: &DeltaDiscoveryRequest, type_url: &TypeUrl, state: &State) {
        for name in &request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                let names = &self.names;
                self.held.retain(|held, _| names.contains(held));
            } else if self.names.remove(name.as_str()) && !self.wildcard {
                // The client forgets it by itself.
                self.held.remove(name.as_str());
                self.dirty.remove(name.as_str());
            }
        }
        for name in &request.resource_names_subscribe {
            self.owes_answer = true;
            if name == WILDCARD {
                self.wildcard = true;
                self.mark_all(type_url, state);
            } else {
                let name: Arc<str> = Arc::from(name.as_str());
                self.dirty.insert(Arc::clone(&name));
                self.names.insert(name);
            }
        }
    }

    /// Everything it could hold or want must be compared.
    fn mark_all(&mut self, type_url: &TypeUrl, state: &State) {
        self.dirty.extend(self.held.keys().cloned());
        self.dirty.extend(self.names.iter().cloned());
        if self.wildcard {
            self.dirty.extend(state.names(type_url).cloned());
        }
    }

    /// Takes names off the dirty set until a response is full, and tells what of them the client lacks.
    fn take_dirty(
        &mut self,
        type_url: &TypeUrl,
        state: &State,
        may_see: &impl Fn(&TypeUrl, &str) -> bool,
    ) -> (Vec<Resource>, Vec<String>) {
        let (mut resources, mut removed, mut bytes) = (Vec::new(), Vec::new(), 0);
        while resources.len() + removed.len() < MAX_RESOURCES && bytes < MAX_BYTES {
            let Some(name) = self.dirty.pop_first() else { break };
            let wanted = self.wildcard || self.names.contains(&name);
            let entry = state.get(type_url, &name).filter(|_| wanted && may_see(type_url, &name));
            match entry {
                Some(entry) if self.held.get(&name) == Some(&Some(entry.version)) => {}
                Some(entry) => {
                    bytes += entry.body.len();
                    let body = Any { type_url: type_url.as_str().to_owned(), value: entry.body.to_vec() };
                    let version = entry.version.to_string();
                    resources.push(Resource { version, resource: Some(body), name: name.to_string() });
                    self.held.insert(name, Some(entry.version));
                }
                // A name asked for that doesn't exist is said to be absent, too.
                None if self.held.remove(&name).is_some() || self.names.contains(&name) => {
                    removed.push(name.to_string());
                }
                None => {}
            }
        }
        (resources, removed)
    }
}
